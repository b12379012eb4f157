//! Write it down: durably, before it is forwarded. Shards hand events to one writer task, which commits whatever is waiting in one
//! transaction (group commit) and then tells those who wait. What cannot be written is not done.
//!
//! Notes (refusals, outcomes) wait for nobody. They are bounded: refusals by a rate, since whoever is refused could fill the disk
//! with them; all of them by the queue.
//!
//! Where there is a second log ([`spill`], ADR 0036), it takes what the database does not take, and [`writer`] carries it there afterwards.

mod database;
mod rate;
mod second;
pub(crate) mod spill;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use convox_model::Event;
pub(crate) use convox_store::audit::{End, Entry};
use tokio::sync::{mpsc, oneshot};

use crate::meters::{Count, Meters, Timing};
use crate::ops::guesses::network;
use rate::{LeftOut, Rate};
pub(crate) use second::Standing;
use spill::Spill;
pub(crate) use writer::Writer;

/// Events that may wait; beyond that, audited requests are refused.
pub(crate) const QUEUE: usize = 8192;
/// How long a request waits for its event.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the server waits for the queue to empty.
const LAST: Duration = Duration::from_secs(10);
/// Refused sign-ins of one network and refused requests of one key that are written per minute; beyond that their number is.
const OF_ONE: u32 = 60;
/// And of all, for the first of each and for all others.
const OF_ALL: u32 = 600;

enum Item {
    Write(Entry, Option<oneshot::Sender<bool>>),
    /// Answered when everything before it was tried.
    Flush(oneshot::Sender<bool>),
}

/// Why an event is not written. The request that it was for is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written, so this was not forwarded; try again later, and tell whoever runs this Console")]
pub(crate) struct NotWritten;

/// The way to the audit log.
pub(crate) struct Audit {
    queue: mpsc::Sender<Item>,
    meters: Arc<Meters>,
    failing: Arc<AtomicBool>,
    lost: AtomicU64,
    sign_ins: Rate,
    refusals: Rate,
    beginnings: Rate,
    second: Option<Arc<Standing>>,
}

impl Audit {
    /// With a second log, if there is one.
    pub(crate) fn new(meters: &Arc<Meters>, spill: Option<Spill>) -> (Self, Writer) {
        let (queue, items) = mpsc::channel(QUEUE);
        let failing = Arc::<AtomicBool>::default();
        let writer = Writer::new(items, Arc::clone(meters), Arc::clone(&failing), spill);
        let audit = Self {
            queue,
            meters: Arc::clone(meters),
            failing,
            lost: AtomicU64::new(0),
            sign_ins: Rate::new(OF_ONE, OF_ALL),
            refusals: Rate::new(OF_ONE, OF_ALL),
            beginnings: Rate::new(OF_ONE, OF_ALL),
            second: writer.standing(),
        };
        (audit, writer)
    }

    /// Writes an event; it is on the disk when this returns `Ok`.
    pub(crate) async fn write(&self, event: Event) -> Result<(), NotWritten> {
        let began = Instant::now();
        let written = self.write_event(event).await;
        self.meters.time(Timing::Audit, began.elapsed());
        if written.is_err() {
            self.meters.add(Count::AuditRefused, 1);
        }
        written
    }

    /// The same for what a stranger begins, as long as there are not too many: beyond that they are counted. Whoever begins without end fills the
    /// log no more than whoever is refused.
    pub(crate) async fn write_begun(&self, event: Event, now_ms: i64) -> Result<(), NotWritten> {
        let (is_written, left_out) = self.beginnings.admit(&source(&event), &event, now_ms);
        self.tell(left_out, BEGUN);
        if is_written { self.write(event).await } else { Ok(()) }
    }

    async fn write_event(&self, event: Event) -> Result<(), NotWritten> {
        let (durable, done) = oneshot::channel();
        let entry = Entry::Event(Box::new(event.bounded()));
        self.queue.try_send(Item::Write(entry, Some(durable))).map_err(|_| NotWritten)?;
        match tokio::time::timeout(PATIENCE, done).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(NotWritten),
        }
    }

    /// Entries that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Notes that were left out.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Whether the last try to write failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// How the second log fares, if there is one.
    pub(crate) fn second(&self) -> Option<&Standing> {
        self.second.as_deref()
    }

    /// Adds how an audited request ended.
    pub(crate) fn outcome(&self, outcome: Entry) {
        self.note(outcome);
    }

    /// Adds a refused request of somebody who is known.
    pub(crate) fn refused(&self, event: impl FnOnce() -> Event, now_ms: i64) {
        self.limited(&self.refusals, event, now_ms);
    }

    /// Adds a refused sign-in.
    pub(crate) fn unidentified(&self, event: impl FnOnce() -> Event, now_ms: i64) {
        self.limited(&self.sign_ins, event, now_ms);
    }

    fn limited(&self, rate: &Rate, event: impl FnOnce() -> Event, now_ms: i64) {
        let event = event();
        let (is_written, left_out) = rate.admit(&source(&event), &event, now_ms);
        self.tell(left_out, REFUSED);
        if is_written {
            self.note(Entry::Event(Box::new(event.bounded())));
        }
    }

    fn tell(&self, left_out: Vec<LeftOut>, what: What) {
        for left_out in left_out {
            self.note(Entry::Event(Box::new(summary(left_out, what).bounded())));
        }
    }

    /// Writes how many refusals of minutes that are over were not written: the last ones of a flood are followed by none that could say so.
    pub(crate) fn tell_left_out(&self, now_ms: i64) {
        self.tell(self.sign_ins.left_out(Some(now_ms)), REFUSED);
        self.tell(self.refusals.left_out(Some(now_ms)), REFUSED);
        self.tell(self.beginnings.left_out(Some(now_ms)), BEGUN);
    }

    fn note(&self, entry: Entry) {
        if self.queue.try_send(Item::Write(entry, None)).is_err() && self.lost.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tracing::error!("the audit queue is full: notes of refusals and outcomes are being left out");
        }
    }

    /// Waits until everything that was added so far has been written, or was tried for long enough. For the end of the server.
    pub(crate) async fn flush(&self) {
        self.tell(self.sign_ins.left_out(None), REFUSED);
        self.tell(self.refusals.left_out(None), REFUSED);
        self.tell(self.beginnings.left_out(None), BEGUN);
        let (done, flushed) = oneshot::channel();
        let flush = async {
            if self.queue.send(Item::Flush(done)).await.is_ok() {
                let _ = flushed.await;
            }
        };
        if tokio::time::timeout(LAST, flush).await.is_err() {
            tracing::error!("the audit log could not be written to its end: outcomes of the last requests may be missing");
        }
    }
}

/// Whose refusals are counted together: those of a key in an organization, or those of a network that is nobody's.
fn source(event: &Event) -> String {
    if event.actor_id.is_empty() {
        return network(&event.peer);
    }
    format!("{} {} {}", event.org_id, event.actor_id, event.key_last4)
}

/// What was only counted: action, decision, and how it is said.
type What = (&'static str, &'static str, &'static str);
const REFUSED: What = ("RefusedMore", "refused", "more were refused in this minute, and are not listed");
const BEGUN: What = ("DeviceAuthorizeMore", "allowed", "more were begun in this minute, and are not listed");

/// Stands for what was only counted.
fn summary(LeftOut { count, sample, at_ms }: LeftOut, (action, decision, words): What) -> Event {
    let who = sample.map_or_else(|| Event { actor: "unknown".to_owned(), ..Event::default() }, |sample| *sample);
    let peer = if who.actor_id.is_empty() { network(&who.peer) } else { who.peer };
    Event {
        id: uuid::Uuid::now_v7().to_string(),
        at_ms,
        actor: who.actor,
        actor_id: who.actor_id,
        key_last4: who.key_last4,
        org: who.org,
        org_id: who.org_id,
        peer,
        action: action.to_owned(),
        decision: decision.to_owned(),
        rule: format!("{count} {words}"),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use convox_db::Db;
    use convox_store::audit::Filter;
    use convox_store::{Page, Store};

    use super::*;

    fn event(path: &str) -> Event {
        Event { id: uuid::Uuid::now_v7().to_string(), path: path.to_owned(), ..Event::default() }
    }

    async fn store(dir: &std::path::Path) -> Store {
        Store::new(Db::open_sqlite(&dir.join("console.db")).await.unwrap()).await.unwrap()
    }

    async fn listed(store: &Store) -> Vec<Event> {
        store.list_audit(&Filter::default(), &Page::first(1000)).await.unwrap()
    }

    #[tokio::test]
    async fn an_event_is_there_when_its_writer_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let (audit, writer) = Audit::new(&Arc::default(), None);
        tokio::spawn(writer.run(store.audit_writer(1)));
        let one = event("/one");
        let id = one.id.clone();
        audit.write(one).await.unwrap();
        assert_eq!(listed(&store).await.len(), 1);
        let end = End { of: id, status: Some(201), bytes_up: 3, bytes_down: 7, duration_ms: 11 };
        audit.outcome(Entry::End { org_id: String::new(), end });
        audit.flush().await;
        let after = listed(&store).await;
        let found = after.first().unwrap();
        assert_eq!((found.status, found.bytes_up, found.bytes_down, found.duration_ms), (Some(201), Some(3), Some(7), Some(11)));
    }

    #[tokio::test]
    async fn many_writers_share_transactions_and_all_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let (audit, writer) = Audit::new(&Arc::default(), None);
        tokio::spawn(writer.run(store.audit_writer(1)));
        let all = futures_util::future::join_all((0..500).map(|number| audit.write(event(&number.to_string())))).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(listed(&store).await.len(), 500);
    }

    #[tokio::test]
    async fn nothing_is_promised_once_the_database_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let (audit, writer) = Audit::new(&Arc::default(), None);
        tokio::spawn(writer.run(store.audit_writer(1)));
        store.close().await;
        assert_eq!(audit.write(event("/one")).await, Err(NotWritten));
    }

    #[tokio::test]
    async fn one_event_that_the_database_does_not_take_stops_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let (audit, writer) = Audit::new(&Arc::default(), None);
        let (one, twin, other) = (event("/one"), event("/twin"), event("/other"));
        let twin = Event { id: one.id.clone(), ..twin };
        let all = async { tokio::join!(audit.write(one), audit.write(twin), audit.write(other)) };
        let (results, ()) = tokio::join!(all, async {
            tokio::task::yield_now().await;
            tokio::spawn(writer.run(store.audit_writer(1)));
        });
        assert_eq!(results, (Ok(()), Err(NotWritten), Ok(())));
    }

    #[tokio::test]
    async fn refused_sign_ins_are_written_up_to_a_rate_and_counted_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let (audit, writer) = Audit::new(&Arc::default(), None);
        tokio::spawn(writer.run(store.audit_writer(1)));
        let from = |peer: &str| Event { peer: peer.to_owned(), ..event("/apps") };
        for number in 0..5 * OF_ONE {
            audit.unidentified(|| from(&format!("2001:db8::{number:x}")), 30_000);
        }
        audit.unidentified(|| from("10.0.0.1"), 30_001);
        audit.tell_left_out(90_000);
        audit.flush().await;
        let all = listed(&store).await;
        assert_eq!(all.len(), OF_ONE as usize + 2);
        assert!(all.iter().any(|event| event.peer == "10.0.0.1"), "whoever floods hides nobody else");
        let more = all.iter().find(|event| event.action == "RefusedMore").unwrap();
        assert!(more.rule.starts_with(&format!("{} more", 4 * OF_ONE)) && more.peer == "2001:db8:0:0::/64", "{more:?}");
    }
}
