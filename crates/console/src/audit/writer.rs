//! The one task that writes: into the database, whatever is waiting in one transaction; what that does not take into the second log, if there
//! is one, and from there into the database when it takes events again.
//!
//! The database is asked one thing at a time, and never asked in vain to stop: what takes too long goes on beside, while events go to the second
//! log. Then both may have an event, which carrying finds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use convox_store::audit::Entry;
use convox_store::audit::write::AuditWriter;
use tokio::sync::{mpsc, oneshot};

use super::Item;
use super::database::{BATCH, Carried, Database, Done, Written, carry};
use super::second::{LOOK, RETRY, Second, Standing};
use super::spill::Spill;
use crate::meters::{Count, Meters, Timing};

/// Notes that are kept while nothing can be written.
const KEPT: usize = 4096;
/// How long the database may take before events go to the second log instead.
const SWITCH: Duration = Duration::from_secs(1);

/// The end of [`super::Audit`] that writes.
pub(crate) struct Writer {
    queue: mpsc::Receiver<Item>,
    /// Notes that could not be written yet, oldest first.
    kept: Vec<Entry>,
    meters: Arc<Meters>,
    failing: Arc<AtomicBool>,
    second: Option<Second>,
}

impl Writer {
    pub(super) fn new(queue: mpsc::Receiver<Item>, meters: Arc<Meters>, failing: Arc<AtomicBool>, spill: Option<Spill>) -> Self {
        Self { queue, kept: Vec::new(), meters, failing, second: spill.map(Second::new) }
    }

    pub(super) fn standing(&self) -> Option<Arc<Standing>> {
        self.second.as_ref().map(|second| Arc::clone(&second.standing))
    }

    /// Writes until every [`super::Audit`] is gone.
    pub(crate) async fn run(mut self, log: AuditWriter) {
        let mut database = Database { log: Some(log), doing: None };
        let mut items = Vec::with_capacity(BATCH);
        loop {
            let (is_busy, next) = (database.doing.is_some(), self.second.as_ref().map(|second| second.next));
            tokio::select! {
                count = self.queue.recv_many(&mut items, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.take(&mut database, std::mem::take(&mut items)).await;
                }
                done = database.done(), if is_busy => self.done(done).await,
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now).into()), if !is_busy && next.is_some() => {
                    self.carry(&mut database).await;
                }
            }
        }
    }

    async fn take(&mut self, database: &mut Database, items: Vec<Item>) {
        let mut entries = std::mem::take(&mut self.kept);
        let mut waiting: Vec<Option<oneshot::Sender<bool>>> = entries.iter().map(|_| None).collect();
        let mut flushed = Vec::new();
        for item in items {
            match item {
                Item::Write(entry, durable) => {
                    entries.push(entry);
                    waiting.push(durable);
                }
                Item::Flush(done) => flushed.push(done),
            }
        }
        let (began, entries) = (Instant::now(), Arc::new(entries));
        let written = self.write(database, &entries).await;
        self.meters.time(Timing::Commit, began.elapsed());
        self.failing.store(written.contains(&Written::NotYet), Ordering::Relaxed);
        for ((entry, durable), written) in entries.iter().zip(waiting).zip(written) {
            if let Some(durable) = durable {
                // What somebody waited for is refused now, and is not tried again: it must not appear later as allowed.
                let _ = durable.send(written == Written::Yes);
            } else if written == Written::NotYet && self.kept.len() < KEPT {
                self.kept.push(entry.clone());
            }
        }
        for done in flushed {
            if let Some(spill) = self.second.as_mut().and_then(|second| second.spill.as_mut()) {
                spill.tidy();
            }
            let _ = done.send(true);
        }
    }

    async fn write(&mut self, database: &mut Database, entries: &Arc<Vec<Entry>>) -> Vec<Written> {
        let mut written = vec![Written::NotYet; entries.len()];
        let Some(second) = &self.second else {
            if database.begin(entries)
                && let Some(Done::Written(all)) = database.done().await
            {
                self.meters.add(Count::AuditWritten, all.iter().filter(|written| **written == Written::Yes).count() as u64);
                written = all;
            }
            return written;
        };
        if !second.is_away && database.doing.is_some() {
            // Something is being carried, which takes a moment.
            match tokio::time::timeout(SWITCH, database.done()).await {
                Ok(done) => self.done(done).await,
                Err(_) => self.is_away("it did not answer in time"),
            }
        }
        if self.second.as_ref().is_some_and(|second| !second.is_away) && database.begin(entries) {
            match tokio::time::timeout(SWITCH, database.done()).await {
                Ok(Some(Done::Written(all))) => written = all,
                Ok(_) => {}
                Err(_) => self.is_away("it did not answer in time"),
            }
            if written.contains(&Written::NotYet) {
                self.is_away("it is away, or its disk is full");
            }
            self.meters.add(Count::AuditWritten, written.iter().filter(|written| **written == Written::Yes).count() as u64);
        }
        let Some(second) = &mut self.second else { return written };
        let left: Vec<Entry> =
            entries.iter().zip(&written).filter(|(_, written)| **written != Written::Yes).map(|(entry, _)| entry.clone()).collect();
        if left.is_empty() {
            return written;
        }
        let count = left.len() as u64;
        match second.with(move |spill| spill.append(&left)).await {
            Ok(()) => {
                self.meters.add(Count::AuditSpilled, count);
                written.fill(Written::Yes);
            }
            Err(error) => tracing::error!(%error, entries = count, "the second audit log cannot be written either"),
        }
        written
    }

    fn is_away(&mut self, fault: &str) {
        if let Some(second) = &mut self.second {
            second.is_away(fault);
        }
    }

    /// Begins to carry a batch, or to look whether the database takes anything.
    async fn carry(&mut self, database: &mut Database) {
        let Some(second) = &mut self.second else { return };
        let source = second.next_source().await.unwrap_or_else(|error| {
            tracing::error!(%error, "the second audit log cannot be read");
            None
        });
        second.next = Instant::now() + if second.is_away { RETRY } else { LOOK };
        if source.is_none() && !second.is_away {
            second.tell();
            return;
        }
        let Some(mut log) = database.log.take() else {
            second.sources.extend(source);
            return;
        };
        database.doing = Some(match source {
            Some(source) => Box::pin(async move {
                let (source, carried) = carry(&mut log, source).await;
                (log, Done::Carried(source, carried))
            }),
            None => Box::pin(async move {
                let is_taken = log.write(&[]).await.is_ok();
                (log, Done::Looked(is_taken))
            }),
        });
    }

    async fn done(&mut self, done: Option<Done>) {
        let Some(second) = &mut self.second else { return };
        match done {
            // What was written after all is in the second log too, and is found when that is carried.
            None | Some(Done::Written(_)) => second.next = Instant::now(),
            Some(Done::Looked(true)) => second.is_back(),
            Some(Done::Looked(false)) => second.next = Instant::now() + RETRY,
            Some(Done::Carried(source, Carried::NotNow(fault))) => {
                second.sources.push_front(source);
                second.is_away(&fault);
            }
            Some(Done::Carried(mut source, carried)) => {
                second.is_back();
                self.meters.add(Count::AuditCarried, std::mem::take(&mut source.carried));
                match carried {
                    Carried::All => second.finish(source).await,
                    _ => second.sources.push_front(source),
                }
                second.next = Instant::now();
                second.tell();
            }
        }
    }
}
