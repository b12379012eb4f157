//! What apps, builds and the Rack itself said: one append-only, bounded log per app.
//!
//! Written by many (each process's shim, the Rack), read by many, also while the Rack is dead.
//! Nothing here knows what an app is beyond its name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use jiff::Timestamp;

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
        if prefix {
            format!(
                "{} {} {}",
                self.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
                self.stream,
                self.message
            )
        } else {
            self.message.clone()
        }
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
    /// `service/web/ID`); all streams if empty.
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
        Self {
            segment_bytes: 4 << 20,
            segments: 16,
            age: Duration::from_hours(30 * 24),
        }
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
/// The Rack's own log is the one of the name `rack` in the caller's choice; names are app names.
#[derive(Clone, Debug)]
pub struct LogStore {
    dir: Arc<PathBuf>,
    limits: LogLimits,
}

impl LogStore {
    /// Opens (and creates) the directory of logs.
    pub fn open(dir: &Path, limits: LogLimits) -> Result<Self, LogError> {
        Ok(Self {
            dir: Arc::new(dir.to_owned()),
            limits,
        })
    }

    /// The directory that holds the logs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How much is kept.
    pub fn limits(&self) -> LogLimits {
        self.limits
    }

    /// Adds a message, now; each of its lines becomes a line of the log. A failure to write is
    /// reported to the Rack's own tracing and otherwise swallowed: no caller can do better.
    pub fn append(&self, app: &str, stream: &str, message: &str) {
        let _ = (app, stream, message);
    }

    /// The lines that match, oldest first, then (with `follow`) new ones as they come, without
    /// gap or duplicate. Ends by itself without `follow`.
    pub fn query(&self, app: &str, query: LogQuery) -> BoxStream<'static, LogLine> {
        let _ = (app, query);
        Box::pin(futures_util::stream::empty())
    }

    /// Deletes an app's log.
    pub fn remove(&self, app: &str) -> Result<(), LogError> {
        let _ = app;
        Ok(())
    }

    /// Deletes what is older than the limits allow. Called now and then.
    pub fn expire(&self) {}
}
