//! What the data path counts instead of logging. One slot per thread in its own cache line, so that shards never wait for each other.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What is counted.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Count {
    /// Forwarded without an audit event: it only reads.
    Read,
    /// Forwarded after an audit event.
    Audited,
    /// Refused: no valid credential.
    Unidentified,
    /// Refused: unknown Rack or route, or no right to it.
    Refused,
    /// Refused: the Console could not do its part.
    Unavailable,
}

const KINDS: usize = 5;
const SLOTS: usize = 32;

#[derive(Default)]
#[repr(align(128))]
struct Slot([AtomicU64; KINDS]);

/// Counters of one server.
#[derive(Default)]
pub(crate) struct Counters([Slot; SLOTS]);

thread_local! {
    static SLOT: Cell<usize> = Cell::new({
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed) % SLOTS
    });
}

impl Counters {
    /// One more.
    pub(crate) fn add(&self, what: Count) {
        if let Some(count) = self.0.get(SLOT.get()).and_then(|slot| slot.0.get(what as usize)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// How many since the start.
    pub(crate) fn get(&self, what: Count) -> u64 {
        self.0.iter().filter_map(|slot| slot.0.get(what as usize)).map(|count| count.load(Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_are_counted() {
        let counters = Counters::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    counters.add(Count::Read);
                    counters.add(Count::Unavailable);
                });
            }
        });
        assert_eq!((counters.get(Count::Read), counters.get(Count::Unavailable), counters.get(Count::Audited)), (40, 40, 0));
    }
}
