//! What apps, builds and the Rack itself said: one append-only, bounded log per app.
//!
//! Written by many (each process's shim, the Rack), read by many, also while the Rack is dead.
//! Nothing here knows what an app is beyond its name.

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::BoxStream;
use jiff::Timestamp;

mod reader;
mod record;
mod segment;
mod watch;

pub use record::{LineSplitter, MESSAGE_CAP, encode};
pub use segment::LogWriter;

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub time: Timestamp,
    /// Who wrote it: `service/NAME/PROCESS`, `system/...`, `build/ID`.
    pub stream: String,
    /// The text, without its line end.
    pub message: String,
}

impl LogLine {
    /// The line as clients get it, without a line end: `{RFC 3339 UTC} {stream} {message}`, or
    /// only the message without `prefix`.
    pub fn render(&self, prefix: bool) -> String {
        if prefix { format!("{} {} {}", self.time.strftime("%Y-%m-%dT%H:%M:%SZ"), self.stream, self.message) } else { self.message.clone() }
    }
}

/// Which lines, and whether to wait for more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only lines at most this old; all that are kept if `None`.
    pub since: Option<Duration>,
    /// Only lines whose message contains this text.
    pub filter: Option<String>,
    /// Only the last so many of the stored lines that match.
    pub tail: Option<usize>,
    /// Only lines of streams that equal one of these, or lie under it (`service/web` has
    /// `service/web/ID`); a part `*` stands for any (`service/*/ID`). All streams if empty.
    pub streams: Vec<String>,
    /// After the stored lines, wait for new ones until the reader is dropped.
    pub follow: bool,
}

/// How much of an app's log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Bytes after which a new file is begun.
    pub segment_bytes: u64,
    /// Files kept per app; the oldest goes first.
    pub segments: usize,
    /// Age after which a file goes.
    pub age: Duration,
}

impl Default for LogLimits {
    /// 16 files of 4 MiB, 30 days.
    fn default() -> Self {
        Self { segment_bytes: 4 << 20, segments: 16, age: Duration::from_hours(30 * 24) }
    }
}

/// A log that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The name would not make a safe file name.
    #[error("not a log name: {0:?}")]
    Name(String),
    /// The file system refused.
    #[error("log of {app}: {doing}: {source}; check that the disk is not full")]
    Io {
        /// Whose log.
        app: String,
        /// What was being done.
        doing: &'static str,
        /// The system's own word.
        source: std::io::Error,
    },
}

/// The logs of all apps under one directory. Cheap to clone.
///
/// Names are app names; a name that begins with `_` can never be one, so the Rack's own log can
/// be `_rack`.
#[derive(Clone, Debug)]
pub struct LogStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    limits: LogLimits,
    /// Seconds after which a file goes; may change.
    age: AtomicU64,
    /// The same for those logs that have an age of their own.
    ages: Mutex<HashMap<String, Duration>>,
    writers: Mutex<HashMap<String, Arc<Mutex<LogWriter>>>>,
    watcher: Mutex<Option<watch::Watcher>>,
}

impl LogStore {
    /// Opens (and creates) the directory of logs.
    pub fn open(dir: &Path, limits: LogLimits) -> Result<Self, LogError> {
        let private = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        private.map_err(|source| LogError::Io { app: dir.display().to_string(), doing: "creating the directory", source })?;
        let age = limits.age.as_secs().into();
        let shared =
            Shared { dir: dir.to_owned(), limits, age, ages: Mutex::default(), writers: Mutex::default(), watcher: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The directory of one app's log; what a shim writes to.
    pub fn app_dir(&self, app: &str) -> Result<PathBuf, LogError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if app.is_empty() || app.len() > 128 || !app.bytes().all(is_plain) {
            return Err(LogError::Name(app.to_owned()));
        }
        Ok(self.shared.dir.join(app))
    }

    /// How much is kept.
    pub fn limits(&self) -> LogLimits {
        LogLimits { age: Duration::from_secs(self.shared.age.load(Ordering::Relaxed)), ..self.shared.limits }
    }

    /// Keeps lines so long from now on.
    pub fn set_age(&self, age: Duration) {
        self.shared.age.store(age.as_secs(), Ordering::Relaxed);
    }

    /// Keeps the lines of one log so long from now on, or as long as others.
    pub fn set_age_of(&self, app: &str, age: Option<Duration>) {
        let mut ages = lock(&self.shared.ages);
        match age {
            Some(age) => drop(ages.insert(app.to_owned(), age)),
            None => drop(ages.remove(app)),
        }
    }

    /// How much is kept of one log.
    fn limits_of(&self, app: &str) -> LogLimits {
        let limits = self.limits();
        LogLimits { age: lock(&self.shared.ages).get(app).copied().unwrap_or(limits.age), ..limits }
    }

    /// Adds a message, now; each of its lines becomes a line of the log. A failure to write is
    /// reported to the Rack's own tracing and otherwise swallowed: no caller can do better.
    pub fn append(&self, app: &str, stream: &str, message: &str) {
        let outcome = self.app_dir(app).and_then(|dir| {
            let writer = {
                let mut writers = lock(&self.shared.writers);
                let new = || Arc::new(Mutex::new(LogWriter::new(&dir, self.shared.limits)));
                Arc::clone(writers.entry(app.to_owned()).or_insert_with(new))
            };
            lock(&writer).write(&segment::block(stream, message)).map_err(|source| LogError::Io {
                app: app.to_owned(),
                doing: "writing",
                source,
            })
        });
        if let Err(error) = outcome {
            tracing::warn!(%error, "a log line was lost");
        }
    }

    /// The lines that match, oldest first, then (with `follow`) new ones as they come, without
    /// gap or duplicate. Ends by itself without `follow`, and when the log is deleted.
    pub fn query(&self, app: &str, query: LogQuery) -> BoxStream<'static, LogLine> {
        let dir = match self.app_dir(app) {
            Ok(dir) => dir,
            Err(error) => {
                tracing::warn!(%error, "a log was asked for that cannot be");
                return Box::pin(futures_util::stream::empty());
            }
        };
        let grown = if query.follow { self.watch(&dir) } else { None };
        reader::read(dir, query, grown)
    }

    fn watch(&self, dir: &Path) -> Option<tokio::sync::watch::Receiver<u64>> {
        // An app that never logged has no directory to watch yet.
        std::fs::create_dir_all(dir).ok()?;
        let mut slot = lock(&self.shared.watcher);
        if slot.as_ref().is_none_or(|watcher| !watcher.is_alive()) {
            *slot = watch::Watcher::start().ok();
        }
        slot.as_ref()?.watch(dir).ok()
    }

    /// Deletes an app's log. Its followers end.
    pub fn remove(&self, app: &str) -> Result<(), LogError> {
        let dir = self.app_dir(app)?;
        lock(&self.shared.writers).remove(app);
        match std::fs::remove_dir_all(dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(LogError::Io { app: app.to_owned(), doing: "deleting", source })
            }
            _ => Ok(()),
        }
    }

    /// Bytes that each log has on the disk, by its name. To be called on a thread that may block.
    pub fn sizes(&self) -> Vec<(String, u64)> {
        let names = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
        let size =
            |dir: &Path| names(dir).filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|file| file.len()).sum();
        let mut sizes: Vec<(String, u64)> =
            names(&self.shared.dir).map(|log| (log.file_name().to_string_lossy().into_owned(), size(&log.path()))).collect();
        sizes.sort_unstable();
        sizes
    }

    /// Deletes what is older than the limits allow. To be called now and then, on a thread that
    /// may block.
    pub fn expire(&self) {
        let Ok(entries) = std::fs::read_dir(&self.shared.dir) else {
            return;
        };
        for entry in entries.flatten() {
            let limits = self.limits_of(&entry.file_name().to_string_lossy());
            if let Err(error) = segment::expire(&entry.path(), limits) {
                tracing::warn!(log = %entry.path().display(), %error, "old log files could not be deleted");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
