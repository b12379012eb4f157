//! What all shards of this process did, for whoever watches it. One slot per thread in a cache line of its own; what can be counted by looking
//! (connections, pools) is noted at each tick instead of at each request.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

/// What is counted.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Stat {
    Opened,
    Reused,
    Failed,
    Tunnels,
    /// Noted at a tick.
    Callers,
    Idle,
}

const STATS: usize = 6;
const SLOTS: usize = 32;

#[repr(align(128))]
struct Slot([AtomicI64; STATS]);

static ALL: [Slot; SLOTS] = [const { Slot([const { AtomicI64::new(0) }; STATS]) }; SLOTS];

thread_local! {
    static SLOT: Cell<usize> = Cell::new({
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed) % SLOTS
    });
    /// What this thread noted last.
    static NOTED: [Cell<i64>; STATS] = const { [const { Cell::new(0) }; STATS] };
}

pub(crate) fn add(what: Stat, more: i64) {
    if let Some(count) = ALL.get(SLOT.get()).and_then(|slot| slot.0.get(what as usize)) {
        count.fetch_add(more, Relaxed);
    }
}

/// There are so many on this thread now.
pub(crate) fn note(what: Stat, now: usize) {
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    // Threads may share a slot, so a slot holds a sum.
    NOTED.with(|noted| {
        if let Some(before) = noted.get(what as usize).map(|noted| noted.replace(now)) {
            add(what, now - before);
        }
    });
}

/// One more as long as this lives.
#[derive(Debug)]
pub(crate) struct Open(Stat);

impl Open {
    pub(crate) fn new(what: Stat) -> Self {
        add(what, 1);
        Self(what)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        add(self.0, -1);
    }
}

/// Sums over all shards of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Connections of callers, and streams of HTTP/2, up to a quarter of a second ago.
    pub callers: i64,
    /// Open tunnels.
    pub tunnels: i64,
    /// Upstream connections that wait for a request, up to a quarter of a second ago.
    pub idle: i64,
    /// Upstream connections that were opened.
    pub opened: i64,
    /// Requests that went out on a connection that was there.
    pub reused: i64,
    /// Upstream connections that could not be opened.
    pub failed: i64,
}

/// As it stands now.
pub fn stats() -> Stats {
    let sum = |what: Stat| ALL.iter().filter_map(|slot| slot.0.get(what as usize)).map(|count| count.load(Relaxed)).sum();
    Stats {
        callers: sum(Stat::Callers),
        tunnels: sum(Stat::Tunnels),
        idle: sum(Stat::Idle),
        opened: sum(Stat::Opened),
        reused: sum(Stat::Reused),
        failed: sum(Stat::Failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_note_adds_up_and_what_is_open_ends() {
        let before = stats();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    note(Stat::Idle, 7);
                    note(Stat::Idle, 2);
                    drop(Open::new(Stat::Tunnels));
                });
            }
        });
        let after = stats();
        assert_eq!((after.idle - before.idle, after.tunnels), (80, before.tunnels));
    }
}
