//! One container of an app: made and started by the engine, its output kept, its end recorded.
//!
//! Takes up a container that runs already, if an earlier shim was ended without it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::ContainerState;
use bollard::query_parameters::{
    InspectContainerOptions, LogsOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder, WaitContainerOptions,
};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::capture::Capture;
use super::process::{Report, grace, report};
use crate::logs::LineSplitter;
use crate::runtime::container::{ContainerSpec, Engine, body, is_missing, reason, shell};
use crate::runtime::process::files::{ExitFile, ProcessDir, SpecFile, StartedFile};
use crate::runtime::process::procfs::Birth;

/// How long output may take to arrive after the container ended.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause before the engine is asked again after it failed to answer, as in its own restart.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a shim tries to reach the engine before it gives up on starting.
const TRIES: u32 = 5;
/// How long the deletion of an ended container is waited for.
const REMOVAL: Duration = Duration::from_mins(1);
/// The code of a command that could not be started.
const NOT_STARTED: i32 = 126;
/// The code of what was killed.
const KILLED: i32 = 137;

pub(super) async fn supervise(dir: &ProcessDir, spec: &SpecFile, container: &ContainerSpec) -> std::io::Result<()> {
    let shim = Birth::of(std::process::id().cast_signed())?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Taken so that it does not end us.
    let _hangup = signal(SignalKind::hangup())?;
    let earlier = dir.started().ok().flatten().filter(|started| started.process.is_some());
    if earlier.is_none() {
        dir.write_started(&StartedFile { shim: shim.clone(), process: None, time: Timestamp::now() })?;
    }
    let capture = Arc::new(Mutex::new(Capture::new(spec)));
    let say = |text: &str| capture.lock().unwrap_or_else(PoisonError::into_inner).say(text);

    let begun = async {
        let engine = connect(container).await?;
        let (pid, since) = match &earlier {
            Some(_) => {
                (state(&engine, &container.name).await.map_err(|error| reason(&error))?.and_then(|state| state.pid), last_output(spec))
            }
            None => (start(&engine, dir, spec, container, &say).await?, 0),
        };
        Ok::<_, String>((engine, pid, since))
    };
    let (engine, pid, since) = match begun.await {
        Ok(begun) => begun,
        Err(reason) => {
            dir.write_exit(&ExitFile { code: NOT_STARTED, ended: Timestamp::now() })?;
            let _ = timeout(REMOVAL, container.remove()).await;
            report(&Report::Failed(reason));
            return Ok(());
        }
    };
    // An engine on another machine, or in a virtual one, has process ids of its own.
    let process = pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1).and_then(|pid| Birth::of(pid).ok());
    let time = earlier.map_or_else(Timestamp::now, |earlier| earlier.time);
    let started = StartedFile { shim: shim.clone(), process: Some(process.unwrap_or(shim)), time };
    dir.write_started(&started)?;
    report(&Report::Started(started));

    let mut output = keep(engine.clone(), container.name.clone(), since, Arc::clone(&capture));
    let ended = end(&engine, &container.name);
    tokio::pin!(ended);
    let mut is_asked = false;
    let code = loop {
        tokio::select! {
            code = &mut ended => break code,
            _ = stop.recv() => {}
            _ = interrupt.recv() => {}
        }
        is_asked = true;
        ask_to_stop(&engine, &container.name, grace(dir, spec));
    };
    if timeout(DRAIN, &mut output).await.is_err() {
        output.abort();
    }
    let limit = container.limits.memory.map(|memory| format!(" of {memory} MB"));
    match state(&engine, &container.name).await {
        Ok(Some(ContainerState { oom_killed: Some(true), .. })) => {
            let limit = limit.unwrap_or_default();
            say(&format!("the process was killed because it used more memory than its limit{limit}; see `convox scale --memory`"));
        }
        // Not every engine hears of it, and never of a child's.
        Ok(Some(_)) if code == KILLED && !is_asked && limit.is_some() => {
            let limit = limit.unwrap_or_default();
            say(&format!("killed, and not by the Rack: most likely for more memory than its limit{limit}; see `convox scale --memory`"));
        }
        _ => {}
    }
    dir.write_exit(&ExitFile { code, ended: Timestamp::now() })?;
    // What stays is found by its label and collected later.
    let _ = timeout(REMOVAL, engine.remove(&container.name)).await;
    Ok(())
}

async fn connect(container: &ContainerSpec) -> Result<Engine, String> {
    let mut tries = 1;
    loop {
        match Engine::connect(&container.socket).await {
            Ok(engine) => return Ok(engine),
            Err(_) if tries < TRIES => tries += 1,
            Err(error) => return Err(error.to_string()),
        }
        sleep(AGAIN).await;
    }
}

/// Makes and starts the container; its process id as the engine counts.
async fn start(
    engine: &Engine,
    dir: &ProcessDir,
    spec: &SpecFile,
    container: &ContainerSpec,
    say: &impl Fn(&str),
) -> Result<Option<i64>, String> {
    let env = dir.env().map_err(|error| format!("reading the environment: {error}"))?;
    match create_and_start(engine, &spec.command, &env, container, say).await {
        Ok(()) => {}
        Err(error) if is_about_limits(&error) => {
            say(&format!("NOTICE: the engine cannot enforce limits on this machine ({error}); the process runs without them"));
            let without = ContainerSpec { limits: crate::runtime::Limits::default(), ..container.clone() };
            create_and_start(engine, &spec.command, &env, &without, say).await?;
        }
        Err(error) => return Err(error),
    }
    Ok(state(engine, &container.name).await.ok().flatten().and_then(|state| state.pid))
}

/// A text is read by the image's shell; where there is none to read it, its words are what runs.
async fn create_and_start(
    engine: &Engine,
    command: &[String],
    env: &BTreeMap<String, String>,
    container: &ContainerSpec,
    say: &impl Fn(&str),
) -> Result<(), String> {
    let text = command.last().filter(|_| container.is_text);
    let words = match text {
        Some(text) => shell::words_for(engine, &container.image, text).await,
        None => None,
    };
    create(engine, body::of(words.as_deref().unwrap_or(command), env, container), container).await?;
    if let (Some(text), None) = (text, words)
        && !shell::is_in(engine, &container.name).await
    {
        let (words, notice) = shell::words_without(text)?;
        notice.inspect(|notice| say(notice));
        create(engine, body::of(&words, env, container), container).await?;
    }
    engine.docker.start_container(&container.name, None::<StartContainerOptions>).await.map_err(|error| reason(&error))
}

async fn create(engine: &Engine, body: bollard::models::ContainerCreateBody, container: &ContainerSpec) -> Result<(), String> {
    let name = &container.name;
    // One of an earlier try that was cut off.
    engine.remove(name).await.map_err(|error| reason(&error))?;
    let options = bollard::query_parameters::CreateContainerOptionsBuilder::default().name(name).build();
    match engine.docker.create_container(Some(options), body).await {
        Ok(_) => Ok(()),
        Err(error) if is_missing(&error) => {
            Err(format!("its image {} is not there any more; deploy the app again ({})", container.image, reason(&error)))
        }
        Err(error) => Err(reason(&error)),
    }
}

/// Whether a start failed over what limits a process, and not over the process.
fn is_about_limits(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["cgroup", "memory limit", "cpu shares", "nanocpus", "pids limit"].iter().any(|word| reason.contains(word))
}

async fn state(engine: &Engine, name: &str) -> Result<Option<ContainerState>, Error> {
    match engine.docker.inspect_container(name, None::<InspectContainerOptions>).await {
        Ok(seen) => Ok(seen.state),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether it ran and does not any more; one that was only made has no end yet.
fn has_ended(state: &ContainerState) -> bool {
    state.finished_at.as_deref().is_some_and(|time| !time.starts_with("0001"))
}

fn ask_to_stop(engine: &Engine, name: &str, grace: Duration) {
    let (engine, name) = (engine.clone(), name.to_owned());
    tokio::spawn(async move {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        // It may have ended by itself; and who cannot be asked to stop is killed by the Rack in the end.
        let _ = engine.docker.stop_container(&name, Some(options)).await;
    });
}

/// Waits for the end: the exit code. Outlasts a restart of the engine.
async fn end(engine: &Engine, name: &str) -> i32 {
    loop {
        let mut waiting = Box::pin(engine.docker.wait_container(name, None::<WaitContainerOptions>));
        match waiting.next().await {
            Some(Ok(answer)) => return i32::try_from(answer.status_code).unwrap_or(255),
            // How the library tells of a code other than 0.
            Some(Err(Error::DockerContainerWaitError { code, .. })) if code >= 0 => return i32::try_from(code).unwrap_or(255),
            _ => {}
        }
        match state(engine, name).await {
            // Vanished: as if it was killed.
            Ok(None) => return KILLED,
            Ok(Some(state)) if state.running == Some(false) && has_ended(&state) => {
                return state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(255);
            }
            _ => sleep(AGAIN).await,
        }
    }
}

/// Follows the output until the container has ended.
fn keep(engine: Engine, name: String, mut since: i32, capture: Arc<Mutex<Capture>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Two splitters: the pipes' halves of lines must not meet.
        let (mut out, mut err) = (LineSplitter::default(), LineSplitter::default());
        loop {
            let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).since(since).build();
            let mut lines = Box::pin(engine.docker.logs(&name, Some(options)));
            // An error is the end of this stream only: the engine may be restarting.
            while let Some(Ok(output)) = lines.next().await {
                let mut capture = capture.lock().unwrap_or_else(PoisonError::into_inner);
                match &output {
                    LogOutput::StdErr { message } => capture.take(&mut err, message),
                    _ => capture.take(&mut out, output.as_ref()),
                }
            }
            let runs = state(&engine, &name).await.map_or(true, |state| state.is_some_and(|state| state.running == Some(true)));
            if !runs {
                break;
            }
            // Rather a line twice than one not at all.
            since = seconds(SystemTime::now());
            sleep(AGAIN).await;
        }
        let mut capture = capture.lock().unwrap_or_else(PoisonError::into_inner);
        capture.finish(&mut out);
        capture.finish(&mut err);
    })
}

/// When the log of the app was last written to: nothing of this process that is older can be missing by much.
fn last_output(spec: &SpecFile) -> i32 {
    let files = std::fs::read_dir(&spec.log_dir).into_iter().flatten().flatten();
    let newest = files.filter_map(|file| file.metadata().ok()?.modified().ok()).max();
    newest.map_or(0, seconds)
}

fn seconds(time: SystemTime) -> i32 {
    time.duration_since(UNIX_EPOCH).ok().and_then(|since| i32::try_from(since.as_secs()).ok()).unwrap_or(0)
}
