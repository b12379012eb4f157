//! From an uploaded source archive to a checked directory that processes run from.
//!
//! The process runtime runs commands from the source: no Dockerfile is built. What is in an
//! archive is hostile; nothing in it may write outside its own directory or fill the disk.

use std::path::{Path, PathBuf};

use crate::logs::LogStore;
use crate::manifest::Manifest;

/// What to build.
#[derive(Clone, Default)]
pub struct BuildRequest {
    /// Id of the build.
    pub id: String,
    /// Name of the app.
    pub app: String,
    /// The uploaded gzip tar on disk.
    pub archive: PathBuf,
    /// The environment of the newest release: replaces `${NAME}` in the manifest. Holds secrets.
    pub env: std::collections::BTreeMap<String, String>,
    /// Name of the manifest in the archive; `convox.yml` if none is given.
    pub manifest: Option<String>,
}

/// What a build made.
#[derive(Clone, Debug)]
pub struct BuildOutput {
    /// The manifest's text.
    pub manifest_text: String,
    /// The checked manifest.
    pub manifest: Manifest,
    /// The read-only source that processes run from.
    pub dir: PathBuf,
}

/// Why a build failed: a text for the person who started it. Everything was also logged.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct BuildError {
    /// What was wrong, on what, and what to do next.
    pub reason: String,
}

/// How much an archive may unpack to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildLimits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files and directories.
    pub entries: u64,
}

impl Default for BuildLimits {
    /// 2 GiB, 200,000 entries.
    fn default() -> Self {
        Self { bytes: 2 << 30, entries: 200_000 }
    }
}

/// Makes builds. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Builder {
    dir: PathBuf,
    logs: LogStore,
    limits: BuildLimits,
}

impl Builder {
    /// Builds live under `dir`/APP/ID; what happens is logged to stream `build/ID` of the app.
    pub fn new(dir: &Path, logs: LogStore, limits: BuildLimits) -> Self {
        Self { dir: dir.to_owned(), logs, limits }
    }

    /// Where the source of a finished build lies.
    pub fn source_dir(&self, app: &str, id: &str) -> PathBuf {
        self.dir.join(app).join(id).join("src")
    }

    /// Unpacks and checks. Logs every step to `build/ID`. Run it in a task of its own and record
    /// the outcome as the build's status.
    pub async fn build(&self, request: BuildRequest) -> Result<BuildOutput, BuildError> {
        let _ = (&self.logs, self.limits, request);
        Err(BuildError { reason: "the builder is not in place".to_owned() })
    }

    /// Deletes what is kept of one build.
    pub async fn remove(&self, app: &str, id: &str) -> Result<(), BuildError> {
        let _ = (app, id);
        Ok(())
    }

    /// Deletes what is kept of all of an app's builds.
    pub async fn remove_app(&self, app: &str) -> Result<(), BuildError> {
        let _ = app;
        Ok(())
    }
}
