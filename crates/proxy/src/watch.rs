//! One connection of a caller, seen from outside: its phase, since when, and how to wake or end it.
//!
//! A timer per request would cost more than everything else that a shard adds. Instead the parts of a connection note what
//! they do (plain stores; everything runs on one thread), and the shard looks over all its connections four times a second:
//! it ends those whose phase lasts too long, and draws the attention of exchanges that last longer than a tick to the
//! revocation of their permit.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;

use crate::Limits;
use crate::stats::{self, Stat};

/// How often a shard looks over its connections.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// How often a shard that ends looks whether it may.
const GONE: Duration = Duration::from_millis(20);

/// Ticks since the shard started.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU32);

impl Clock {
    pub(crate) fn now(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

pub(crate) fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u32::MAX)
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Waits for the first byte of a request.
    Idle,
    /// Reads a head.
    Head,
    /// Decides, or works on an answer that has not begun.
    Waiting,
    /// Waits for the head of an upstream's reply.
    Upstream,
    /// Sends an answer.
    Answering,
    /// Is a tunnel.
    Tunnel,
    /// Has said everything and lets the caller finish reading it.
    Linger,
}

const PHASES: [Phase; 7] = [Phase::Idle, Phase::Head, Phase::Waiting, Phase::Upstream, Phase::Answering, Phase::Tunnel, Phase::Linger];

/// The answer of a connection or stream, for whoever looks at it from outside.
pub(crate) trait Cut: Send + Sync {
    /// Ends the answer if its permit has not held since the look before this one; says whether it did.
    fn is_cut(&self) -> bool;
}

pub(crate) struct Watch {
    clock: Arc<Clock>,
    phase: AtomicU8,
    /// Tick at which the phase began.
    since: AtomicU32,
    /// Tick at which bytes last moved.
    moved: AtomicU32,
    /// The caller owes bytes of a body, and a read waits for them.
    owed: AtomicBool,
    /// To be ended at the next poll.
    ended: AtomicBool,
    /// The exchange has lasted a tick: it should look after revocation itself from now on.
    attended: AtomicBool,
    /// The upstream's reply is overdue.
    overdue: AtomicBool,
    /// Say with the next answer that the connection closes.
    leaving: AtomicBool,
    /// Finish the request at hand, then close.
    draining: AtomicBool,
    /// The last request was ambiguous.
    ambiguous: AtomicBool,
    /// Bytes of the caller will be left unread at the end.
    unread: AtomicBool,
    /// A piece of the answer was handed over, and nobody has asked for the next: the caller may not be reading.
    handed: AtomicBool,
    answer: Mutex<Option<Weak<dyn Cut>>>,
    waker: AtomicWaker,
}

impl fmt::Debug for Watch {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Watch").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

impl Watch {
    fn new(clock: Arc<Clock>) -> Self {
        let now = clock.now();
        Self {
            clock,
            phase: AtomicU8::new(Phase::Idle as u8),
            since: AtomicU32::new(now),
            moved: AtomicU32::new(now),
            owed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            attended: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            ambiguous: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            handed: AtomicBool::new(false),
            answer: Mutex::new(None),
            waker: AtomicWaker::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        PHASES.get(usize::from(self.phase.load(Relaxed))).copied().unwrap_or(Phase::Linger)
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.since.store(self.clock.now(), Relaxed);
    }

    /// A request begins: nothing of the one before counts any more.
    pub(crate) fn begin(&self) {
        self.enter(Phase::Waiting);
        self.attended.store(false, Relaxed);
        self.overdue.store(false, Relaxed);
    }

    pub(crate) fn moved(&self) {
        self.moved.store(self.clock.now(), Relaxed);
    }

    pub(crate) fn owe(&self, owed: bool) {
        self.owed.store(owed, Relaxed);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    pub(crate) fn is_attended(&self) -> bool {
        self.attended.load(Relaxed)
    }

    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue.load(Relaxed)
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    pub(crate) fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Relaxed)
    }

    pub(crate) fn set_ambiguous(&self) {
        self.ambiguous.store(true, Relaxed);
    }

    pub(crate) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    pub(crate) fn set_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    /// The answer that is cut when it must end while its caller reads nothing.
    pub(crate) fn set_answer(&self, answer: Weak<dyn Cut>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }

    pub(crate) fn set_handed(&self, handed: bool) {
        self.handed.store(handed, Relaxed);
    }

    /// An answer has ended, one that [`Self::set_answer`] named.
    pub(crate) fn forget_answer(&self) {
        self.set_handed(false);
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn is_cut(&self) -> bool {
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(Weak::upgrade);
        answer.is_some_and(|answer| answer.is_cut())
    }

    /// The task to wake from now on.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn leave(&self) {
        self.leaving.store(true, Relaxed);
        self.waker.wake();
    }

    fn drain(&self) {
        self.draining.store(true, Relaxed);
        self.waker.wake();
    }

    fn end(&self) {
        self.ended.store(true, Relaxed);
        self.waker.wake();
    }

    fn look(&self, now: u32, limits: &Bounds) {
        let lasted = now.wrapping_sub(self.since.load(Relaxed));
        let still = now.wrapping_sub(self.moved.load(Relaxed));
        if self.owed.load(Relaxed) && still > limits.body {
            return self.end();
        }
        let over = match self.phase() {
            Phase::Idle => lasted.min(still) > limits.idle,
            Phase::Head => lasted > limits.head,
            Phase::Answering | Phase::Tunnel => lasted.min(still) > limits.stall,
            Phase::Linger => lasted > limits.linger,
            Phase::Upstream if lasted > limits.reply && !self.is_overdue() => {
                self.overdue.store(true, Relaxed);
                return self.waker.wake();
            }
            Phase::Waiting | Phase::Upstream => false,
        };
        if over || (self.handed.load(Relaxed) && self.phase() == Phase::Answering && lasted > 0 && self.is_cut()) {
            self.end();
        } else if lasted > 0 && matches!(self.phase(), Phase::Upstream | Phase::Answering) && !self.is_attended() {
            self.attended.store(true, Relaxed);
            self.waker.wake();
        }
    }
}

/// [`Limits`] in ticks.
#[derive(Debug)]
struct Bounds {
    head: u32,
    idle: u32,
    reply: u32,
    stall: u32,
    body: u32,
    linger: u32,
}

/// All connections of a shard.
#[derive(Debug)]
pub(crate) struct Watches {
    clock: Arc<Clock>,
    bounds: Bounds,
    all: Mutex<Vec<Arc<Watch>>>,
}

impl Watches {
    pub(crate) fn new(limits: &Limits) -> Self {
        let bounds = Bounds {
            head: ticks(limits.head),
            idle: ticks(limits.idle),
            reply: ticks(limits.reply),
            stall: ticks(limits.stall),
            body: ticks(limits.body),
            linger: ticks(limits.linger),
        };
        Self { clock: Arc::default(), bounds, all: Mutex::default() }
    }

    pub(crate) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Watches over one more connection, until its end.
    pub(crate) fn add(&self) -> Arc<Watch> {
        let watch = Arc::new(Watch::new(Arc::clone(&self.clock)));
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&watch));
        watch
    }

    /// True if there are as many as `limit` connections.
    pub(crate) fn are(&self, limit: usize) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= limit {
            all.retain(|watch| Arc::strong_count(watch) > 1);
        }
        all.len() >= limit
    }

    /// A quarter of a second has passed.
    pub(crate) fn tick(&self) {
        self.clock.0.fetch_add(1, Relaxed);
        let now = self.clock.now();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody else holds the watch of a connection that is gone.
        all.retain(|watch| Arc::strong_count(watch) > 1);
        stats::note(Stat::Callers, all.len());
        for watch in all.iter() {
            watch.look(now, &self.bounds);
        }
    }

    /// Waits for all connections to end, and says whether they did in time.
    pub(crate) async fn are_gone_within(&self, limit: Duration) -> bool {
        let gone = async {
            while !self.is_empty() {
                tokio::time::sleep(GONE).await;
            }
        };
        tokio::time::timeout(limit, gone).await.is_ok()
    }

    fn is_empty(&self) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|watch| Arc::strong_count(watch) > 1);
        all.is_empty()
    }

    /// Lets every connection say with its next answer that it closes.
    pub(crate) fn leave(&self) {
        for watch in self.all.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            watch.leave();
        }
    }

    /// Lets every connection finish what it is doing.
    pub(crate) fn drain(&self) {
        for watch in self.all.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            watch.drain();
        }
    }
}
