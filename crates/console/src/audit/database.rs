//! The log in the database: asked one thing at a time, and never asked in vain to stop.

use std::pin::Pin;
use std::sync::Arc;

use convox_store::audit::Entry;
use convox_store::audit::carry::Known;
use convox_store::audit::write::AuditWriter;

use super::spill::Source;

/// Events of one transaction.
pub(super) const BATCH: usize = 512;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Yes,
    /// The database cannot be written now.
    NotYet,
    /// The database does not take this one.
    Never,
}

/// What was asked of the database, with its answer.
pub(super) enum Done {
    Written(Vec<Written>),
    Carried(Box<Source>, Carried),
    /// Whether it takes anything.
    Looked(bool),
}

pub(super) enum Carried {
    More,
    All,
    NotNow(String),
}

type Doing = Pin<Box<dyn Future<Output = (AuditWriter, Done)> + Send>>;

/// The database's log: idle, or at work.
pub(super) struct Database {
    pub(super) log: Option<AuditWriter>,
    pub(super) doing: Option<Doing>,
}

impl Database {
    /// Waits for what is being done; at once if that is nothing.
    pub(super) async fn done(&mut self) -> Option<Done> {
        let (log, done) = self.doing.as_mut()?.await;
        (self.log, self.doing) = (Some(log), None);
        Some(done)
    }

    /// Begins to write; `false` while something else is being done.
    pub(super) fn begin(&mut self, entries: &Arc<Vec<Entry>>) -> bool {
        let Some(mut log) = self.log.take() else { return false };
        let entries = Arc::clone(entries);
        self.doing = Some(Box::pin(async move {
            let written = write(&mut log, &entries).await;
            (log, Done::Written(written))
        }));
        true
    }
}

/// Puts one batch of a file into the database: each entry once, whatever was carried before a crash.
pub(super) async fn carry(log: &mut AuditWriter, source: Box<Source>) -> (Box<Source>, Carried) {
    let reading = tokio::task::spawn_blocking(move || {
        let mut source = source;
        let read = source.fill(BATCH);
        (source, read)
    });
    let mut source = match reading.await {
        Ok((source, Ok(()))) => source,
        Ok((source, Err(error))) => return (source, Carried::NotNow(format!("the second log cannot be read: {error}"))),
        // Only a fault of the program ends it, and that is not caught here.
        Err(fault) => std::panic::resume_unwind(fault.into_panic()),
    };
    if source.batch.is_empty() {
        return (source, Carried::All);
    }
    let known = match log.carry(&source.batch).await {
        Ok(known) => known,
        Err(error) if error.is_unavailable() => return (source, Carried::NotNow(error.to_string())),
        Err(_) => match one_by_one(log, &source.batch).await {
            Ok(known) => known,
            Err(fault) => return (source, Carried::NotNow(fault)),
        },
    };
    for known in known {
        match known {
            Known::No => source.carried += 1,
            Known::Yes => {}
            Known::Otherwise => source.left += 1,
        }
    }
    source.waiting = source.waiting.saturating_sub(source.batch.len() as u64);
    source.batch.clear();
    (source, Carried::More)
}

/// Each on its own, so that one that the database does not take stops no other.
async fn one_by_one(log: &mut AuditWriter, batch: &[Entry]) -> Result<Vec<Known>, String> {
    let mut all = Vec::with_capacity(batch.len());
    for entry in batch {
        match log.carry(std::slice::from_ref(entry)).await {
            Ok(known) => all.extend(known),
            Err(error) if error.is_unavailable() => return Err(error.to_string()),
            Err(error) => {
                tracing::error!(%error, "the database refuses an entry of the second audit log");
                all.push(Known::Otherwise);
            }
        }
    }
    Ok(all)
}

/// Writes all in one transaction. When the database refuses that for another reason than being away, each on its own, so that one
/// that it cannot take does not stop the others.
async fn write(log: &mut AuditWriter, entries: &[Entry]) -> Vec<Written> {
    let all = |written| entries.iter().map(|_| written).collect();
    match log.write(entries).await {
        Ok(()) => return all(Written::Yes),
        Err(error) => {
            tracing::error!(%error, entries = entries.len(), "the audit log cannot be written");
            if error.is_unavailable() || entries.len() == 1 {
                return all(if error.is_unavailable() { Written::NotYet } else { Written::Never });
            }
        }
    }
    let mut written = Vec::with_capacity(entries.len());
    for entry in entries {
        written.push(match log.write(std::slice::from_ref(entry)).await {
            Ok(()) => Written::Yes,
            Err(error) if error.is_unavailable() => Written::NotYet,
            Err(_) => Written::Never,
        });
    }
    written
}
