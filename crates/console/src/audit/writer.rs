//! The one task that writes: into the database, whatever is waiting in one transaction; what that does not take into the second log, if there
//! is one, and from there into the database when it takes events again.
//!
//! The database is asked one thing at a time, and never asked in vain to stop: what takes too long goes on beside, while events go to the second
//! log. Then both may have an event, which carrying finds.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use convox_store::audit::Entry;
use convox_store::audit::carry::Known;
use convox_store::audit::write::AuditWriter;
use tokio::sync::{mpsc, oneshot};

use super::Item;
use super::spill::{Source, Spill};
use crate::meters::{Count, Meters, Timing};

/// Events of one transaction.
const BATCH: usize = 512;
/// Notes that are kept while nothing can be written.
const KEPT: usize = 4096;
/// How long the database may take before events go to the second log instead.
const SWITCH: Duration = Duration::from_secs(1);
/// How often the database is asked whether it takes events again.
const RETRY: Duration = Duration::from_millis(250);
/// How often it is looked for files that a server left behind.
const LOOK: Duration = Duration::from_secs(5);
/// When what the database refused is tried again.
const REFUSED: Duration = Duration::from_mins(1);

/// How the second log fares.
#[derive(Default)]
pub(crate) struct Standing {
    away: AtomicBool,
    waiting: AtomicU64,
    bytes: AtomicU64,
    limit: AtomicU64,
    left: AtomicU64,
    faults: AtomicU64,
}

impl Standing {
    /// Whether the database does not take events now.
    pub(crate) fn is_used(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// Entries that are not in the database yet.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Entries that the database refused for themselves.
    pub(crate) fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Entries that were changed since they were written.
    pub(crate) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Yes,
    /// The database cannot be written now.
    NotYet,
    /// The database does not take this one.
    Never,
}

/// What was asked of the database, with its answer.
enum Done {
    Written(Vec<Written>),
    Carried(Box<Source>, Carried),
    /// Whether it takes anything.
    Looked(bool),
}

enum Carried {
    More,
    All,
    NotNow(String),
}

type Doing = Pin<Box<dyn Future<Output = (AuditWriter, Done)> + Send>>;

/// The database's log: idle, or at work.
struct Database {
    log: Option<AuditWriter>,
    doing: Option<Doing>,
}

impl Database {
    /// Waits for what is being done; at once if that is nothing.
    async fn done(&mut self) -> Option<Done> {
        let (log, done) = self.doing.as_mut()?.await;
        (self.log, self.doing) = (Some(log), None);
        Some(done)
    }

    /// Begins to write; `false` while something else is being done.
    fn begin(&mut self, entries: &Arc<Vec<Entry>>) -> bool {
        let Some(mut log) = self.log.take() else { return false };
        let entries = Arc::clone(entries);
        self.doing = Some(Box::pin(async move {
            let written = write(&mut log, &entries).await;
            (log, Done::Written(written))
        }));
        true
    }
}

/// The second log, and what of it is to be carried into the database.
struct Second {
    /// Away while it is used.
    spill: Option<Spill>,
    sources: VecDeque<Box<Source>>,
    /// Those with something that cannot be carried.
    stuck: Vec<Source>,
    is_away: bool,
    next: Instant,
    next_look: Instant,
    next_refused: Instant,
    standing: Arc<Standing>,
}

impl Second {
    fn new(spill: Spill) -> Self {
        let (standing, now) = (Arc::<Standing>::default(), Instant::now());
        standing.limit.store(spill.limit(), Ordering::Relaxed);
        Self {
            spill: Some(spill),
            sources: VecDeque::new(),
            stuck: Vec::new(),
            is_away: false,
            next: now,
            next_look: now,
            next_refused: now + REFUSED,
            standing,
        }
    }

    /// Uses the files where that holds nobody up.
    async fn with<T: Send + 'static>(&mut self, work: impl FnOnce(&mut Spill) -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let Some(mut spill) = self.spill.take() else { return Err(io::Error::other("it is not there any more")) };
        let (spill, done) = tokio::task::spawn_blocking(move || {
            let done = work(&mut spill);
            (spill, done)
        })
        .await
        .map_err(io::Error::other)?;
        self.spill = Some(spill);
        self.tell();
        done
    }

    fn is_away(&mut self, fault: &str) {
        if !std::mem::replace(&mut self.is_away, true) {
            tracing::error!(
                fault,
                "the audit log in the database cannot be written: events go to the second log, and are carried there afterwards"
            );
        }
        self.next = Instant::now() + RETRY;
        self.tell();
    }

    fn is_back(&mut self) {
        if std::mem::replace(&mut self.is_away, false) {
            tracing::warn!(waiting = self.standing.waiting(), "the audit log in the database can be written again");
        }
        self.tell();
    }

    fn tell(&self) {
        let set = |to: &AtomicU64, value: u64| to.store(value, Ordering::Relaxed);
        let all = || self.sources.iter().map(|source| &**source).chain(&self.stuck);
        let closed: u64 = all().map(|source| source.waiting).sum();
        self.standing.away.store(self.is_away, Ordering::Relaxed);
        if let Some(spill) = &self.spill {
            set(&self.standing.waiting, closed + spill.entries());
            set(&self.standing.bytes, spill.bytes());
        }
        set(&self.standing.left, all().map(|source| source.left).sum());
        set(&self.standing.faults, all().map(|source| source.faults.len() as u64).sum());
    }

    /// What is to be carried next. Closes the file that grows only when all before it is in the database.
    async fn next_source(&mut self) -> io::Result<Option<Box<Source>>> {
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LOOK;
            for source in self.with(Spill::adopt).await? {
                tracing::warn!(file = %source.path.display(), entries = source.waiting, "taking up a file of the second audit log that a server left");
                self.sources.push_back(Box::new(source));
            }
        }
        if now >= self.next_refused {
            self.next_refused = now + REFUSED;
            for mut source in std::mem::take(&mut self.stuck) {
                if source.left > 0 && source.again().is_ok() {
                    self.sources.push_back(Box::new(source));
                } else {
                    self.stuck.push(source);
                }
            }
        }
        if self.sources.is_empty()
            && let Some(source) = self.with(Spill::close).await?
        {
            self.sources.push_back(Box::new(source));
        }
        Ok(self.sources.pop_front())
    }

    /// Everything of a file was tried.
    async fn finish(&mut self, source: Box<Source>) {
        if source.left == 0 && source.faults.is_empty() {
            let file = source.path.display().to_string();
            let removed = self.with(move |spill| spill.remove(&source)).await;
            if let Err(error) = removed {
                tracing::error!(%error, file, "a file of the second audit log that is in the database cannot be removed; remove it by hand");
            }
            return;
        }
        if source.left > 0 {
            tracing::error!(file = %source.path.display(), entries = source.left, "the database refuses entries of the second audit log; they stay there, and are tried again");
        }
        for fault in &source.faults {
            tracing::error!(file = %source.path.display(), number = fault.number, what = %fault.what, "a file of the second audit log was changed: what is not sound stays there");
        }
        self.stuck.push(*source);
        self.tell();
    }
}

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

/// Puts one batch of a file into the database: each entry once, whatever was carried before a crash.
async fn carry(log: &mut AuditWriter, source: Box<Source>) -> (Box<Source>, Carried) {
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
