//! The `process` runtime: plain supervised child processes of the Rack's own user.
//!
//! No isolation of any kind: an app can read what the Rack's user can read. Each process has a
//! shim of its own (see [`crate::shim`]) that outlives the Rack, keeps its output and records how
//! it ended. The Rack holds a pidfd of the shim, so that it never signals or awaits a stranger.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::timeout;

use super::container::ContainerSpec;
use super::{ExecSpec, ExecStream, Isolation, ProcessSpec, ProcessState, ProcessStatus, Runtime, RuntimeError};
use crate::logs::LogStore;

mod adopt;
mod exec;
pub(crate) use exec::on_machine;
pub(crate) mod files;
pub(crate) mod procfs;
mod start;
mod terminal;
mod watched;

use files::ProcessDir;
use procfs::Birth;
use watched::Watched;

/// What a shim gets beyond the process's grace before it is ended itself.
const SHIM_GRACE: Duration = Duration::from_secs(10);
/// How long a killed shim may take to be gone.
const KILLED: Duration = Duration::from_secs(5);

/// Supervised child processes.
#[derive(Debug)]
pub struct ProcessRuntime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    program: PathBuf,
    logs: LogStore,
    entries: Mutex<BTreeMap<String, Arc<Entry>>>,
}

/// One process that the Rack knows.
#[derive(Debug)]
struct Entry {
    dir: ProcessDir,
    shim: Birth,
    /// `None` once it is known to have ended.
    watched: Option<Arc<Watched>>,
    /// What it runs in, if that is a container.
    container: Option<ContainerSpec>,
    stop_grace: Duration,
    state: watch::Sender<ProcessState>,
}

impl ProcessRuntime {
    /// A runtime that keeps what it knows in `dir` and starts shims from `program` (the
    /// `convox-rack` binary; `std::env::current_exe()` in the Rack itself).
    pub fn new(dir: &Path, program: &Path, logs: LogStore) -> Result<Self, RuntimeError> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| RuntimeError::Io { doing: format!("creating {}", dir.display()), source })?;
        let shared = Shared { dir: dir.to_owned(), program: program.to_owned(), logs, entries: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Starts a process, in a container if one is given.
    pub(crate) fn start_in(
        &self,
        spec: ProcessSpec,
        container: Option<ContainerSpec>,
    ) -> BoxFuture<'static, Result<ProcessState, RuntimeError>> {
        Box::pin(start::start(Arc::clone(&self.shared), spec, container))
    }

    /// The container of a running process, if it has one.
    pub(crate) fn container(&self, id: &str) -> Result<Option<ContainerSpec>, RuntimeError> {
        let entry = self.shared.entry(id)?;
        if entry.state.borrow().status.is_final() {
            return Err(RuntimeError::NotRunning(id.to_owned()));
        }
        Ok(entry.container.clone())
    }

    /// Waits for the end of a process; at once if it is not known.
    pub(crate) fn ended(&self, id: &str) -> BoxFuture<'static, ()> {
        let entry = self.shared.entry(id);
        Box::pin(async move {
            if let Ok(entry) = entry {
                entry.ended().await;
            }
        })
    }

    /// Ends every process that is kept in the directory, and says how many there were. For a Rack
    /// that does not run: one that does would start them again.
    pub async fn stop_all(&self) -> Result<usize, RuntimeError> {
        let found = self.adopt().await?;
        let running: Vec<_> = found.into_iter().filter(|process| !process.status.is_final()).collect();
        let stopped = join_all(running.iter().map(|process| async {
            self.stop(&process.id, None).await?;
            self.forget(&process.id).await;
            Ok(())
        }));
        stopped.await.into_iter().collect::<Result<Vec<()>, RuntimeError>>()?;
        Ok(running.len())
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, id: &str) -> Result<Arc<Entry>, RuntimeError> {
        self.entries().get(id).cloned().ok_or_else(|| RuntimeError::NotFound(id.to_owned()))
    }
}

impl Entry {
    /// Waits for the end, which `conclude` records.
    async fn ended(&self) -> ProcessState {
        let mut state = self.state.subscribe();
        // The sender is ours, so waiting cannot fail.
        match state.wait_for(|state| state.status.is_final()).await {
            Ok(last) => last.clone(),
            Err(_) => self.state.borrow().clone(),
        }
    }

    async fn stop(&self, grace: Option<Duration>) -> Result<(), RuntimeError> {
        let Some(watched) = &self.watched else { return Ok(()) };
        if self.state.borrow().status.is_final() {
            return Ok(());
        }
        if let Some(grace) = grace {
            self.dir
                .write_stop(grace)
                .map_err(|source| RuntimeError::Io { doing: format!("writing to {}", self.dir.path().display()), source })?;
        }
        self.state.send_modify(|state| {
            if !state.status.is_final() {
                state.status = ProcessStatus::Stopping;
            }
        });
        watched.signal(Signal::TERM);
        let patience = grace.unwrap_or(self.stop_grace).saturating_add(SHIM_GRACE);
        if timeout(patience, self.ended()).await.is_ok() {
            return Ok(());
        }
        procfs::kill_session(&self.shim);
        watched.signal(Signal::KILL);
        match timeout(KILLED, self.ended()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(RuntimeError::Io {
                doing: format!("stopping process {}", self.state.borrow().id),
                source: std::io::Error::other("it does not end even by SIGKILL; see its state in `ps`"),
            }),
        }
    }
}

impl Runtime for ProcessRuntime {
    fn isolation(&self) -> Isolation {
        Isolation::None
    }

    fn start(&self, spec: ProcessSpec) -> BoxFuture<'_, Result<ProcessState, RuntimeError>> {
        self.start_in(spec, None)
    }

    fn stop<'a>(&'a self, id: &'a str, grace: Option<Duration>) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move { self.shared.entry(id)?.stop(grace).await })
    }

    fn get(&self, id: &str) -> Option<ProcessState> {
        Some(self.shared.entries().get(id)?.state.borrow().clone())
    }

    fn list(&self) -> Vec<ProcessState> {
        let mut states: Vec<_> = self.shared.entries().values().map(|entry| entry.state.borrow().clone()).collect();
        states.sort_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)));
        states
    }

    fn wait<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ProcessState, RuntimeError>> {
        Box::pin(async move { Ok(self.shared.entry(id)?.ended().await) })
    }

    fn forget<'a>(&'a self, id: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let removed = {
                let mut entries = self.shared.entries();
                match entries.get(id) {
                    Some(entry) if entry.state.borrow().status.is_final() => entries.remove(id),
                    _ => None,
                }
            };
            if let Some(entry) = removed
                && let Err(error) = entry.dir.remove()
            {
                tracing::warn!(process = id, %error, "what is kept of an ended process could not be deleted");
            }
        })
    }

    fn exec<'a>(&'a self, id: &'a str, spec: ExecSpec) -> BoxFuture<'a, Result<ExecStream, RuntimeError>> {
        Box::pin(async move {
            let entry = self.shared.entry(id)?;
            exec::exec(&self.shared.program, &entry, spec).await
        })
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<ProcessState>, RuntimeError>> {
        Box::pin(adopt::adopt(Arc::clone(&self.shared)))
    }
}
