//! Starting a process: its directory, its shim, and the shim's word that it runs.

use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::timeout;

use super::files::{ExitFile, ProcessDir, SpecFile, StartedFile};
use super::procfs::{self, Birth};
use super::watched::Watched;
use super::{Entry, Shared};
use crate::runtime::container::ContainerSpec;
use crate::runtime::{ProcessSpec, ProcessState, ProcessStatus, RuntimeError};
use crate::shim::Report;

/// How long a shim may take to start its process, on a machine under load.
const START: Duration = Duration::from_mins(2);

/// Starts a process. Goes on to its end even if the caller goes away, so that no shim is left
/// unknown.
pub(super) async fn start(shared: Arc<Shared>, spec: ProcessSpec, container: Option<ContainerSpec>) -> Result<ProcessState, RuntimeError> {
    let id = spec.id.clone();
    let failed = |reason: String| RuntimeError::Start { id: id.clone(), reason };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if id.is_empty() || id.len() > 64 || !id.bytes().all(is_plain) {
        return Err(failed("its id may only have letters, digits and dashes".to_owned()));
    }
    // An image has a command of its own.
    if spec.command.is_empty() && container.is_none() {
        return Err(failed("it has no command".to_owned()));
    }
    match tokio::spawn(start_now(shared, spec, container)).await {
        Ok(outcome) => outcome,
        Err(error) => Err(failed(format!("the start broke off: {error}"))),
    }
}

async fn start_now(shared: Arc<Shared>, spec: ProcessSpec, container: Option<ContainerSpec>) -> Result<ProcessState, RuntimeError> {
    let id = spec.id.clone();
    let dir = ProcessDir::new(&shared.dir.join(&id));
    let log_dir = shared.logs.app_dir(&spec.app).map_err(|error| RuntimeError::Start { id: id.clone(), reason: error.to_string() })?;
    let file = SpecFile::new(&spec, container, log_dir, shared.logs.limits());
    let io = |doing: &str, source| RuntimeError::Io { doing: format!("{doing} of process {id}"), source };
    match dir.create(&file, &spec.env) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(RuntimeError::Exists(id)),
        Err(error) => {
            let _ = dir.remove();
            return Err(io("writing the directory", error));
        }
    }
    let mut shim = match spawn(&shared, &dir) {
        Ok(shim) => shim,
        Err(error) => {
            let _ = dir.remove();
            return Err(io("starting the shim", error));
        }
    };
    match heard(&mut shim).await {
        Ok((Report::Started(started), watched)) => {
            let entry = shared.enter(dir, &file, started, watched);
            let state = entry.state.borrow().clone();
            tokio::spawn(conclude(shared, entry, Some(shim)));
            Ok(state)
        }
        Ok((Report::Failed(reason), watched)) => {
            watched.ended().await;
            let _ = shim.wait();
            let _ = dir.remove();
            Err(RuntimeError::Start { id, reason })
        }
        Err(error) => {
            // It is our child and not yet waited for, so this kills nobody else.
            if let Ok(birth) = Birth::of(shim.id().cast_signed()) {
                procfs::kill_session(&birth);
            }
            let _ = shim.kill();
            let _ = shim.wait();
            remove_container(file.container.as_ref()).await;
            let _ = dir.remove();
            Err(io("hearing from the shim", error))
        }
    }
}

/// Gives a container that lost its shim another one; `None` if there is nothing left to look after.
pub(super) async fn revive(shared: &Arc<Shared>, dir: &ProcessDir, file: &SpecFile) -> std::io::Result<Option<Arc<Entry>>> {
    let mut shim = spawn(shared, dir)?;
    match heard(&mut shim).await {
        Ok((Report::Started(started), watched)) => {
            let entry = shared.enter(dir.clone(), file, started, watched);
            tokio::spawn(conclude(Arc::clone(shared), Arc::clone(&entry), Some(shim)));
            Ok(Some(entry))
        }
        // It has recorded the end.
        Ok((Report::Failed(_), watched)) => {
            watched.ended().await;
            let _ = shim.wait();
            Ok(None)
        }
        Err(error) => {
            let _ = shim.kill();
            let _ = shim.wait();
            Err(error)
        }
    }
}

/// Ends a container that nobody looks after any more.
async fn remove_container(container: Option<&ContainerSpec>) {
    if let Some(container) = container
        && let Err(error) = container.remove().await
    {
        tracing::warn!(container = %container.name, %error, "a container that lost its shim could not be ended; it is tried again");
    }
}

fn spawn(shared: &Shared, dir: &ProcessDir) -> std::io::Result<Child> {
    Command::new(&shared.program)
        .arg("shim")
        .arg("--state")
        .arg(dir.path())
        // Nothing of the Rack's own environment: it may hold the Rack's password.
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

async fn heard(shim: &mut Child) -> std::io::Result<(Report, Watched)> {
    let watched = Watched::child(shim)?;
    let out: OwnedFd = shim.stdout.take().ok_or_else(|| std::io::Error::other("it has no output"))?.into();
    let mut line = String::new();
    timeout(START, BufReader::new(pipe::Receiver::from_owned_fd(out)?).read_line(&mut line)).await??;
    let report = serde_json::from_str(&line)
        .map_err(|_| std::io::Error::other("it ended without a word; is the program the convox-rack binary?"))?;
    Ok((report, watched))
}

impl Shared {
    /// Makes a running process known.
    pub(super) fn enter(&self, dir: ProcessDir, file: &SpecFile, started: StartedFile, watched: Watched) -> Arc<Entry> {
        let mut state = state(file, ProcessStatus::Running);
        state.started = started.time;
        state.pid = started.process.and_then(|process| u32::try_from(process.pid).ok());
        self.insert(Entry {
            dir,
            shim: started.shim,
            watched: Some(Arc::new(watched)),
            container: file.container.clone(),
            stop_grace: Duration::from_millis(file.stop_grace_ms),
            state: watch::Sender::new(state),
        })
    }

    /// Makes a process known that has ended.
    pub(super) fn enter_ended(
        &self,
        dir: ProcessDir,
        file: &SpecFile,
        shim: Birth,
        started: Option<jiff::Timestamp>,
        exit: &ExitFile,
    ) -> Arc<Entry> {
        let mut state = state(file, ProcessStatus::Starting);
        state.started = started.unwrap_or(file.created);
        end(&mut state, exit);
        self.insert(Entry {
            dir,
            shim,
            watched: None,
            container: file.container.clone(),
            stop_grace: Duration::from_millis(file.stop_grace_ms),
            state: watch::Sender::new(state),
        })
    }

    fn insert(&self, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        let id = entry.state.borrow().id.clone();
        self.entries().insert(id, Arc::clone(&entry));
        entry
    }
}

fn state(file: &SpecFile, status: ProcessStatus) -> ProcessState {
    ProcessState {
        id: file.id.clone(),
        app: file.app.clone(),
        service: file.service.clone(),
        release: file.release.clone(),
        command: file.command.clone(),
        dir: file.dir.clone(),
        port: file.port,
        kind: file.kind,
        timer: file.timer.clone(),
        status,
        exit_code: None,
        pid: None,
        started: file.created,
        ended: None,
        healthy: true,
    }
}

fn end(state: &mut ProcessState, exit: &ExitFile) {
    state.status = if exit.code == 0 { ProcessStatus::Complete } else { ProcessStatus::Failed };
    state.exit_code = Some(exit.code);
    state.ended = Some(exit.ended);
    state.pid = None;
    state.healthy = false;
}

/// Waits for the shim's end and takes over what it recorded; `shim` is given if it is our child.
pub(super) async fn conclude(shared: Arc<Shared>, entry: Arc<Entry>, shim: Option<Child>) {
    let Some(watched) = &entry.watched else { return };
    watched.ended().await;
    if let Some(mut shim) = shim {
        // It has ended: this only clears it from the process table.
        let _ = shim.wait();
    }
    if !matches!(entry.dir.exit(), Ok(Some(_))) {
        remove_container(entry.container.as_ref()).await;
    }
    let exit = exit_of(&entry.dir, watched.birth());
    tracing::debug!(process = %entry.state.borrow().id, code = exit.code, dir = %shared.dir.display(), "a process ended");
    entry.state.send_modify(|state| end(state, &exit));
}

/// How a process ended whose shim is gone. A shim that recorded nothing was killed itself: then
/// what it looked after is killed too, since nobody keeps its output any more.
pub(super) fn exit_of(dir: &ProcessDir, shim: &Birth) -> ExitFile {
    if let Ok(Some(exit)) = dir.exit() {
        return exit;
    }
    procfs::kill_session(shim);
    let exit = ExitFile { code: 137, ended: jiff::Timestamp::now() };
    if let Err(error) = dir.write_exit(&exit) {
        tracing::warn!(dir = %dir.path().display(), %error, "the end of a process could not be recorded");
    }
    exit
}
