//! What is kept of one process, in a directory of its own that the Rack and the shim share.
//!
//! ```text
//! lock          held (flock) by the shim for as long as it lives
//! spec.json     what was asked for; written by the Rack before it starts the shim
//! env.json      the environment, mode 0600; deleted by the shim when the process has ended
//! started.json  the shim's and the process's pid with their start times; written by the shim
//! stop.json     how long the process may take to end; written by the Rack before SIGTERM
//! exit.json     how it ended; written by the shim, durably, after the last output was kept
//! ```

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::procfs::Birth;
use crate::logs::LogLimits;
use crate::runtime::container::ContainerSpec;
use crate::runtime::{ProcessKind, ProcessSpec};

/// What was asked for, without the environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SpecFile {
    pub(crate) id: String,
    pub(crate) app: String,
    pub(crate) service: String,
    pub(crate) release: String,
    pub(crate) command: Vec<String>,
    pub(crate) dir: PathBuf,
    pub(crate) port: Option<u16>,
    pub(crate) kind: ProcessKind,
    pub(crate) stop_grace_ms: u64,
    /// Asked to end by SIGINT instead of SIGTERM.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) interrupt: bool,
    /// The timer that it is a run of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timer: Option<String>,
    pub(crate) created: Timestamp,
    /// The app's log, where the shim writes.
    pub(crate) log_dir: PathBuf,
    pub(crate) log_segment_bytes: u64,
    pub(crate) log_segments: usize,
    /// The container to run it in, if it is to have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) container: Option<ContainerSpec>,
}

impl SpecFile {
    pub(crate) fn new(spec: &ProcessSpec, container: Option<ContainerSpec>, log_dir: PathBuf, limits: LogLimits) -> Self {
        Self {
            id: spec.id.clone(),
            app: spec.app.clone(),
            service: spec.service.clone(),
            release: spec.release.clone(),
            command: spec.command.clone(),
            dir: spec.dir.clone(),
            port: spec.port,
            kind: spec.kind,
            stop_grace_ms: millis(spec.stop_grace),
            interrupt: spec.interrupt,
            timer: spec.timer.clone(),
            created: Timestamp::now(),
            log_dir,
            log_segment_bytes: limits.segment_bytes,
            log_segments: limits.segments,
            container,
        }
    }

    pub(crate) fn log_limits(&self) -> LogLimits {
        LogLimits { segment_bytes: self.log_segment_bytes, segments: self.log_segments, ..LogLimits::default() }
    }

    pub(crate) fn stream(&self) -> String {
        self.kind.stream(&self.service, self.timer.as_deref(), &self.id)
    }
}

/// Who runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StartedFile {
    pub(crate) shim: Birth,
    /// `None` until the process has been started.
    pub(crate) process: Option<Birth>,
    pub(crate) time: Timestamp,
}

/// A wish to stop with another grace than the spec's.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct StopFile {
    pub(crate) grace_ms: u64,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitFile {
    pub(crate) code: i32,
    pub(crate) ended: Timestamp,
}

/// The directory of one process.
#[derive(Clone, Debug)]
pub(crate) struct ProcessDir {
    path: PathBuf,
}

impl ProcessDir {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory with all that a shim needs. The lock comes last: without it no shim
    /// begins.
    pub(crate) fn create(&self, spec: &SpecFile, env: &BTreeMap<String, String>) -> io::Result<()> {
        std::fs::create_dir(&self.path)?;
        self.write("env.json", env, replace)?;
        self.write("spec.json", spec, replace)?;
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path.join("lock"))?;
        Ok(())
    }

    /// The lock of the shim: `None` if another holds it.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new().write(true).open(self.path.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    pub(crate) fn spec(&self) -> io::Result<Option<SpecFile>> {
        self.read("spec.json")
    }

    pub(crate) fn env(&self) -> io::Result<BTreeMap<String, String>> {
        Ok(self.read("env.json")?.unwrap_or_default())
    }

    pub(crate) fn started(&self) -> io::Result<Option<StartedFile>> {
        self.read("started.json")
    }

    pub(crate) fn stop(&self) -> Option<StopFile> {
        self.read("stop.json").ok().flatten()
    }

    pub(crate) fn exit(&self) -> io::Result<Option<ExitFile>> {
        self.read("exit.json")
    }

    pub(crate) fn write_started(&self, started: &StartedFile) -> io::Result<()> {
        self.write("started.json", started, replace_durably)
    }

    pub(crate) fn write_stop(&self, grace: Duration) -> io::Result<()> {
        self.write("stop.json", &StopFile { grace_ms: millis(grace) }, replace)
    }

    /// Records the end and drops the secrets, which nobody needs from here on.
    pub(crate) fn write_exit(&self, exit: &ExitFile) -> io::Result<()> {
        self.write("exit.json", exit, replace_durably)?;
        match std::fs::remove_file(self.path.join("env.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Deletes all of it. The spec goes first, so that a shim that comes late finds nothing to do.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let _ = std::fs::remove_file(self.path.join("spec.json"));
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        match std::fs::read(self.path.join(name)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: &T, how: fn(&Path, &[u8]) -> io::Result<()>) -> io::Result<()> {
        how(&self.path.join(name), &serde_json::to_vec(value).map_err(io::Error::other)?)
    }
}

/// Replaces a file so that a killed process leaves either its old or its new content.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_new(path, bytes, false)
}

/// The same, also if the machine stops.
pub(crate) fn replace_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_new(path, bytes, true)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    if sync {
        file.sync_all()?;
    }
    std::fs::rename(&new, path)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
