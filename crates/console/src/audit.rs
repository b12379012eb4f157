//! Write it down: durably, before it is forwarded. Shards hand events to one writer task, which commits whatever is waiting in one
//! transaction (group commit) and then tells those who wait.

use std::sync::atomic::{AtomicU64, Ordering};

use convox_model::Event;
use convox_store::Store;
pub(crate) use convox_store::audit::Entry;
use tokio::sync::{mpsc, oneshot};

/// Events that may wait; beyond that, audited requests are refused.
const QUEUE: usize = 8192;
/// Events of one transaction.
const BATCH: usize = 512;
/// Refused sign-ins that are written per second; more are counted only, or an attacker could fill the disk.
const FAILURES_PER_SECOND: u64 = 50;

struct Item {
    entry: Entry,
    durable: Option<oneshot::Sender<bool>>,
}

/// Why an event is not written. The request that it was for is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written, so nothing that needs it is done; try again later")]
pub(crate) struct NotWritten;

/// The way to the audit log.
pub(crate) struct Audit {
    queue: mpsc::Sender<Item>,
    lost: AtomicU64,
    failures: AtomicU64,
}

/// The other end, for [`write`].
pub(crate) struct Writer(mpsc::Receiver<Item>);

impl Audit {
    pub(crate) fn new() -> (Self, Writer) {
        let (queue, writer) = mpsc::channel(QUEUE);
        (Self { queue, lost: AtomicU64::new(0), failures: AtomicU64::new(0) }, Writer(writer))
    }

    /// Writes an event; it is on the disk when this returns `Ok`.
    pub(crate) async fn write(&self, event: Event) -> Result<(), NotWritten> {
        let (durable, done) = oneshot::channel();
        let item = Item { entry: Entry::Event(Box::new(event.bounded())), durable: Some(durable) };
        self.queue.try_send(item).map_err(|_| NotWritten)?;
        if done.await == Ok(true) { Ok(()) } else { Err(NotWritten) }
    }

    /// Adds something that nobody waits for: how a request ended, a refusal.
    pub(crate) fn note(&self, entry: Entry) {
        let entry = match entry {
            Entry::Event(event) => Entry::Event(Box::new(event.bounded())),
            outcome @ Entry::Outcome { .. } => outcome,
        };
        if self.queue.try_send(Item { entry, durable: None }).is_err() && self.lost.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000) {
            tracing::error!("the audit queue is full: notes of refusals and outcomes are being left out");
        }
    }

    /// Adds a refused sign-in, as long as there are not too many of them. `second` is the current Unix second.
    pub(crate) fn note_failure(&self, second: i64, event: impl FnOnce() -> Event) {
        // The second in the upper half, the count in the lower.
        let second = second.unsigned_abs() << 32;
        let count = self.failures.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if count & !0xffff_ffff != second {
            self.failures.store(second, Ordering::Relaxed);
        } else if count & 0xffff_ffff > FAILURES_PER_SECOND {
            return;
        }
        self.note(Entry::Event(Box::new(event())));
    }
}

/// Writes until every sender is gone.
pub(crate) async fn write(mut writer: Writer, store: Store) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if writer.0.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        let (entries, waiting): (Vec<Entry>, Vec<Option<oneshot::Sender<bool>>>) =
            batch.drain(..).map(|Item { entry, durable }| (entry, durable)).unzip();
        let written = store.write_audit(&entries).await;
        if let Err(error) = &written {
            tracing::error!(%error, events = entries.len(), "the audit log cannot be written");
        }
        for waiting in waiting.into_iter().flatten() {
            let _ = waiting.send(written.is_ok());
        }
    }
}
