//! The `process` runtime: plain supervised child processes of the Rack's own user.
//!
//! No isolation of any kind: an app can read what the Rack's user can read. Each process has a
//! shim of its own (see [`crate::shim`]) that outlives the Rack, keeps its output and records how
//! it ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{ExecSpec, ExecStream, ProcessSpec, ProcessState, Runtime, RuntimeError};
use crate::logs::LogStore;

/// Supervised child processes.
#[derive(Debug)]
pub struct ProcessRuntime {
    dir: PathBuf,
    logs: LogStore,
}

impl ProcessRuntime {
    /// A runtime that keeps what it knows under `dir` and starts shims from `program` (the
    /// `convox-rack` binary; `std::env::current_exe()` in the Rack itself).
    pub fn new(dir: &Path, program: &Path, logs: LogStore) -> Result<Self, RuntimeError> {
        let _ = program;
        Ok(Self {
            dir: dir.to_owned(),
            logs,
        })
    }
}

impl Runtime for ProcessRuntime {
    fn start(&self, spec: ProcessSpec) -> BoxFuture<'_, Result<ProcessState, RuntimeError>> {
        let _ = (&self.dir, &self.logs);
        Box::pin(async move {
            Err(RuntimeError::Start {
                id: spec.id,
                reason: "the process runtime is not in place".into(),
            })
        })
    }

    fn stop<'a>(
        &'a self,
        id: &'a str,
        _grace: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        Box::pin(async move { Err(RuntimeError::NotFound(id.to_owned())) })
    }

    fn get(&self, _id: &str) -> Option<ProcessState> {
        None
    }

    fn list(&self) -> Vec<ProcessState> {
        Vec::new()
    }

    fn wait<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<ProcessState, RuntimeError>> {
        Box::pin(async move { Err(RuntimeError::NotFound(id.to_owned())) })
    }

    fn forget<'a>(&'a self, _id: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn exec<'a>(
        &'a self,
        id: &'a str,
        _spec: ExecSpec,
    ) -> BoxFuture<'a, Result<ExecStream, RuntimeError>> {
        Box::pin(async move { Err(RuntimeError::NotFound(id.to_owned())) })
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<ProcessState>, RuntimeError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
