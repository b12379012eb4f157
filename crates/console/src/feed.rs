//! Follows the feed of changes: holds the current [`Snapshot`], makes the next one, tells open streams of it, and says when memory must not
//! be trusted any more (ADR 0006).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use convox_seal::Keyring;
use convox_store::{Store, StoreError};
use tokio::sync::{Notify, watch};

use crate::snapshot::Snapshot;

/// How often the feed is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How often while the database tells of changes by itself: what it told may have been lost.
const POLL_WHILE_TOLD: Duration = Duration::from_millis(500);
/// After losing what the database tells, before asking it to tell again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// How often a server says that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(4);
/// Without a look at the feed for so long, memory is not trusted any more.
pub(crate) const TRUST: Duration = Duration::from_secs(5);

/// The current snapshot and what keeps it current.
pub(crate) struct Snapshots {
    current: ArcSwap<Snapshot>,
    changed: watch::Sender<i64>,
    wake: Notify,
    started: Instant,
    /// Milliseconds after `started` of the last successful look at the feed.
    looked_ms: AtomicI64,
    /// The same of the making of the current snapshot.
    made_ms: AtomicI64,
    changes: AtomicU64,
    node: String,
    /// Whether the database tells of changes by itself.
    is_told: AtomicBool,
}

impl Snapshots {
    /// Loads the first one.
    pub(crate) async fn load(store: &Store) -> Result<Self, StoreError> {
        let first = Snapshot::build(store.load_snapshot().await?, &Snapshot::default());
        let seq = first.seq;
        Ok(Self {
            current: ArcSwap::from_pointee(first),
            changed: watch::channel(seq).0,
            wake: Notify::new(),
            started: Instant::now(),
            looked_ms: AtomicI64::new(0),
            made_ms: AtomicI64::new(0),
            changes: AtomicU64::new(0),
            node: uuid::Uuid::now_v7().to_string(),
            is_told: AtomicBool::new(false),
        })
    }

    /// The current one.
    pub(crate) fn now(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// What this server is called among those that share the database.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Tells of each change.
    pub(crate) fn watch(&self) -> watch::Receiver<i64> {
        self.changed.subscribe()
    }

    /// Tells those who wait for changes of one that no feed tells of; and this server says at once what it has.
    pub(crate) fn tell(&self) {
        self.changed.send_modify(|_| ());
    }

    /// Whether the feed was seen recently enough to believe what is in memory.
    pub(crate) fn is_trusted(&self) -> bool {
        self.elapsed_ms() - self.looked_ms.load(Ordering::Relaxed) < TRUST.as_millis() as i64
    }

    /// Since the feed was seen last.
    pub(crate) fn since_look(&self) -> Duration {
        Duration::from_millis((self.elapsed_ms() - self.looked_ms.load(Ordering::Relaxed)).max(0).unsigned_abs())
    }

    /// Whether the database tells of changes by itself.
    pub(crate) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// How often another snapshot followed the first.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Since the current one was made.
    pub(crate) fn age(&self) -> Duration {
        Duration::from_millis((self.elapsed_ms() - self.made_ms.load(Ordering::Relaxed)).max(0).unsigned_abs())
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Waits until this server knows position `seq` of the feed, at most two seconds.
    pub(crate) async fn settle(&self, seq: i64) {
        let mut changed = self.changed.subscribe();
        self.wake.notify_one();
        let _ = tokio::time::timeout(Duration::from_secs(2), changed.wait_for(|seen| *seen >= seq)).await;
    }

    /// Follows the feed for ever: looks, reloads, tells. Faults are logged and tried again; meanwhile trust runs out. Reads only: that
    /// somebody else holds the database's write lock must not hold this up.
    pub(crate) async fn follow(&self, store: &Store) {
        let mut trusted = true;
        loop {
            // What is read is at least as fresh as the moment before the question.
            let asked_ms = self.elapsed_ms();
            let mut look = std::pin::pin!(tokio::time::timeout(LOOK, self.look(store)));
            let looked = loop {
                let left = TRUST.saturating_sub(self.since_look()) + Duration::from_millis(1);
                tokio::select! {
                    looked = &mut look => break looked,
                    // Those who are open do not wait for the end of a look that hangs.
                    () = tokio::time::sleep(left), if trusted => if !self.is_trusted() {
                        trusted = false;
                        tracing::error!("the database does not answer: refusing everything that needs its memory");
                        self.changed.send_modify(|_| ());
                    }
                }
            };
            let fault = match looked {
                Ok(Ok(())) => {
                    self.looked_ms.store(asked_ms, Ordering::Relaxed);
                    None
                }
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("the database did not answer within {} s", LOOK.as_secs())),
            };
            if std::mem::replace(&mut trusted, self.is_trusted()) != trusted {
                match &fault {
                    Some(fault) => tracing::error!(fault, "the database cannot be read: refusing everything that needs its memory"),
                    None => tracing::warn!("the database can be read again"),
                }
                // Those who are open look for themselves whether they may stay.
                self.changed.send_modify(|_| ());
            } else if let Some(fault) = fault {
                tracing::warn!(fault, "could not follow the feed of changes");
            }
            let pause = if self.is_told.load(Ordering::Relaxed) { POLL_WHILE_TOLD } else { POLL };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Lets the database tell of changes, where it can, so that a look comes at once. Ends where it cannot.
    pub(crate) async fn listen(&self, store: &Store) {
        loop {
            let fault = match store.listen().await {
                Ok(None) => return,
                Ok(Some(mut told)) => {
                    self.is_told.store(true, Ordering::Relaxed);
                    loop {
                        // Whatever was missed before is looked for first.
                        self.wake.notify_one();
                        if let Err(error) = told.moved().await {
                            break error;
                        }
                    }
                }
                Err(error) => error,
            };
            self.is_told.store(false, Ordering::Relaxed);
            tracing::warn!(error = %fault, "the database does not tell of changes; it is asked for them instead");
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    /// Tells for ever that this server lives, and at once what it has seen.
    pub(crate) async fn acknowledge(&self, store: &Store, keyring: &Keyring) {
        let mut changes = self.changed.subscribe();
        loop {
            let seq = *changes.borrow_and_update();
            if let Err(error) = store.beat(&self.node, seq, &keyring.ids()).await {
                tracing::warn!(%error, "could not acknowledge the feed of changes");
            }
            // As long as `self` is there, so is the sender.
            let _ = tokio::time::timeout(BEAT, changes.changed()).await;
        }
    }

    /// Takes over what was changed since the first snapshot was loaded. Once this server has [joined](Self::join), whoever changes something waits
    /// for it; what was changed before that, nobody waited for.
    pub(crate) async fn catch_up(&self, store: &Store) -> Result<(), StoreError> {
        let asked_ms = self.elapsed_ms();
        self.look(store).await?;
        self.looked_ms.store(asked_ms, Ordering::Relaxed);
        Ok(())
    }

    async fn look(&self, store: &Store) -> Result<(), StoreError> {
        let now = self.current.load_full();
        if store.feed_seq().await? == now.seq {
            return Ok(());
        }
        let next = match store.load_changes(now.seq).await? {
            Some(delta) => now.after(delta),
            None => Snapshot::build(store.load_snapshot().await?, &now),
        };
        let seq = next.seq;
        self.current.store(Arc::new(next));
        self.made_ms.store(self.elapsed_ms(), Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.changed.send_replace(seq);
        Ok(())
    }

    /// Puts this server among those that are waited for; gives the number as which it writes the audit log.
    pub(crate) async fn join(&self, store: &Store, is_beside: bool) -> Result<i64, convox_store::StoreError> {
        store.join(&self.node, self.now().seq, is_beside).await
    }

    /// Takes this server out of those that are waited for.
    pub(crate) async fn leave(&self, store: &Store) {
        let _ = store.leave(&self.node).await;
    }
}
