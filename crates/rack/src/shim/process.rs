//! One process of an app: started, its output kept, its end recorded.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::capture::Capture;
use super::container;
use super::family::{Family, start_failure, start_failure_code};
use crate::logs::LineSplitter;
use crate::runtime::process::files::{ExitFile, ProcessDir, SpecFile, StartedFile};
use crate::runtime::process::procfs::Birth;

/// What the child's own children get to end in after it ended by itself.
const AFTER_END: Duration = Duration::from_secs(2);
/// How long output may take to arrive after everyone who could write it is gone.
const DRAIN: Duration = Duration::from_secs(2);

/// What a shim says on its standard output, once: one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The process runs.
    Started(StartedFile),
    /// It could not be started, for this reason.
    Failed(String),
}

pub(super) fn run(state: &Path) -> ExitCode {
    let dir = ProcessDir::new(state);
    // Held until we exit: it says that this process is looked after. Without it, or without a
    // spec, the Rack has given up on us.
    let Ok(Some(lock)) = dir.lock() else { return ExitCode::FAILURE };
    let Ok(Some(spec)) = dir.spec() else { return ExitCode::FAILURE };
    // Fails only for who leads a session already, which is as good.
    let _ = rustix::process::setsid();
    let outcome = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        runtime.block_on(async {
            match &spec.container {
                Some(container) => container::supervise(&dir, &spec, container).await,
                None => supervise(&dir, &spec).await,
            }
        })
    });
    drop(lock);
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn supervise(dir: &ProcessDir, spec: &SpecFile) -> std::io::Result<()> {
    let shim = Birth::of(std::process::id().cast_signed())?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Taken so that they do not end us.
    let _hangup = signal(SignalKind::hangup())?;
    dir.write_started(&StartedFile { shim: shim.clone(), process: None, time: Timestamp::now() })?;

    let (out_reader, out_writer) = std::io::pipe()?;
    let (err_reader, err_writer) = std::io::pipe()?;
    let mut family = {
        let (program, words) = spec.command.split_first().map_or(("", &[][..]), |(p, w)| (p.as_str(), w));
        let mut command = Command::new(program);
        command
            .args(words)
            .env_clear()
            .envs(dir.env()?)
            .current_dir(&spec.dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out_writer)
            .stderr(err_writer);
        match Family::start(&mut command) {
            Ok(family) => family,
            Err(error) => {
                let reason = start_failure(&spec.command, &spec.dir, &error);
                dir.write_exit(&ExitFile { code: start_failure_code(&error), ended: Timestamp::now() })?;
                report(&Report::Failed(reason));
                return Ok(());
            }
        }
    };
    let process = Birth::of(family.main().as_raw_nonzero().get()).ok();
    let started = StartedFile { shim, process, time: Timestamp::now() };
    dir.write_started(&started)?;
    report(&Report::Started(started));

    let capture = Arc::new(Mutex::new(Capture::new(spec)));
    let readers = [keep(out_reader.into(), &capture)?, keep(err_reader.into(), &capture)?];

    let mut deadline: Option<Instant> = None;
    let code = loop {
        let at_deadline = sleep_until(deadline.unwrap_or_else(Instant::now));
        tokio::select! {
            code = family.ended() => break code,
            _ = stop.recv() => deadline = Some(ask_to_stop(dir, spec, &family, deadline)),
            _ = interrupt.recv() => deadline = Some(ask_to_stop(dir, spec, &family, deadline)),
            () = at_deadline, if deadline.is_some() => {
                family.end_all(Instant::now()).await;
                break family.ended().await;
            }
        }
    };
    family.end_all(deadline.unwrap_or(Instant::now() + AFTER_END)).await;
    for mut reader in readers {
        if timeout(DRAIN, &mut reader).await.is_err() {
            reader.abort();
        }
    }
    dir.write_exit(&ExitFile { code, ended: Timestamp::now() })
}

/// Passes the wish to stop on to the process group; says when patience ends.
fn ask_to_stop(dir: &ProcessDir, spec: &SpecFile, family: &Family, before: Option<Instant>) -> Instant {
    family.signal_group(if spec.interrupt { Signal::INT } else { Signal::TERM });
    let after = Instant::now() + grace(dir, spec);
    before.map_or(after, |before| before.min(after))
}

/// How long the process may take to end.
pub(super) fn grace(dir: &ProcessDir, spec: &SpecFile) -> Duration {
    let grace = dir.stop().map_or(spec.stop_grace_ms, |stop| stop.grace_ms);
    // A day is for ever; it also keeps sums below any clock's end.
    Duration::from_millis(grace).min(Duration::from_hours(24))
}

/// Tells the Rack, if it still listens, and lets go of the pipe to it.
pub(super) fn report(report: &Report) {
    use std::io::Write;
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut out = std::io::stdout();
        // The Rack may be dead; it finds the same in the directory.
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(null);
    }
}

fn keep(pipe: OwnedFd, capture: &Arc<Mutex<Capture>>) -> std::io::Result<JoinHandle<()>> {
    let mut pipe = pipe::Receiver::from_owned_fd(pipe)?;
    let capture = Arc::clone(capture);
    Ok(tokio::spawn(async move {
        let mut splitter = LineSplitter::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match pipe.read(&mut buffer).await {
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            let mut capture = capture.lock().unwrap_or_else(PoisonError::into_inner);
            match buffer.get(..count) {
                Some(bytes) if count > 0 => capture.take(&mut splitter, bytes),
                _ => {
                    capture.finish(&mut splitter);
                    return;
                }
            }
        }
    }))
}
