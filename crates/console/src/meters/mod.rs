//! What the data path counts and times instead of logging, and how that is told: [`text`] for Prometheus, served by [`serve`] at an address of
//! its own.
//!
//! One slot per thread in cache lines of its own, so that shards never wait for each other; whoever asks adds them up (ADR 0030).

mod racks;
pub(crate) mod serve;
mod text;

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use convox_wire::routes::Effect;

pub(crate) use racks::RackMeter;
use racks::Racks;

/// How a request for a Rack was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Decision {
    /// It went to the Rack.
    Forwarded,
    /// No valid credential.
    Unidentified,
    /// Unknown Rack or route, or no right to it.
    Refused,
    /// The Console could not do its part.
    Unavailable,
}

impl Decision {
    const ALL: [Self; 4] = [Self::Forwarded, Self::Unidentified, Self::Refused, Self::Unavailable];

    fn as_str(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Unidentified => "unidentified",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Timing {
    /// Who is it, for which Rack, and may they: from memory.
    Decision,
    /// Until the audit event of a request is on the disk.
    Audit,
    /// From there to the head of the Rack's answer.
    Upstream,
    /// From the head of the request to the last byte of the answer; not of streams.
    Whole,
    /// One transaction of the audit log.
    Commit,
}

impl Timing {
    const ALL: [Self; 5] = [Self::Decision, Self::Audit, Self::Upstream, Self::Whole, Self::Commit];
}

/// What else is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Count {
    /// Entries of the audit log that were written.
    AuditWritten,
    /// Events that could not be written, so that their requests were refused.
    AuditRefused,
    /// Entries that went to the second log.
    AuditSpilled,
    /// Entries that were carried from there into the database.
    AuditCarried,
    /// Refused keys that were too many of their network or their beginning.
    Guess,
}

const COUNTS: usize = 5;
/// All effects, and none where it did not come so far.
const EFFECTS: usize = Effect::ALL.len() + 1;
const DECISIONS: usize = Decision::ALL.len();
const TIMINGS: usize = Timing::ALL.len();
const SLOTS: usize = 32;

/// Upper bounds of the buckets, microseconds.
const BOUNDS: [u64; 20] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];
const BUCKETS: usize = BOUNDS.len() + 1;

#[derive(Default)]
#[repr(align(128))]
struct Slot {
    requests: [[AtomicU64; DECISIONS]; EFFECTS],
    counts: [AtomicU64; COUNTS],
    times: [Histogram; TIMINGS],
}

#[derive(Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    /// Nanoseconds.
    sum: AtomicU64,
}

thread_local! {
    static SLOT: Cell<usize> = Cell::new({
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed) % SLOTS
    });
}

/// Counters of one server.
pub(crate) struct Meters {
    slots: [Slot; SLOTS],
    racks: Racks,
    /// Rolls of Rack passwords that are open, as last counted.
    pub(crate) rolls: AtomicI64,
}

impl Default for Meters {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Slot::default()), racks: Racks::default(), rolls: AtomicI64::new(0) }
    }
}

fn row(effect: Option<Effect>) -> usize {
    effect.map_or(0, |effect| effect as usize + 1)
}

impl Meters {
    fn slot(&self) -> Option<&Slot> {
        self.slots.get(SLOT.get())
    }

    /// One more request; without an effect where it was decided before that was known.
    pub(crate) fn decided(&self, effect: Option<Effect>, decision: Decision) {
        if let Some(count) = self.slot().and_then(|slot| slot.requests.get(row(effect))?.get(decision as usize)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// One more of something else.
    pub(crate) fn add(&self, what: Count, more: u64) {
        if let Some(count) = self.slot().and_then(|slot| slot.counts.get(what as usize)) {
            count.fetch_add(more, Relaxed);
        }
    }

    /// Something took so long.
    pub(crate) fn time(&self, what: Timing, took: Duration) {
        let Some(histogram) = self.slot().and_then(|slot| slot.times.get(what as usize)) else { return };
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = histogram.buckets.get(BOUNDS.partition_point(|bound| *bound < micros)) {
            bucket.fetch_add(1, Relaxed);
        }
        histogram.sum.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(0), Relaxed);
    }

    /// Where requests for this Rack are counted.
    pub(crate) fn rack(&self, id: &str) -> std::sync::Arc<RackMeter> {
        self.racks.of(id)
    }

    /// How many requests were decided so since the start.
    pub(crate) fn requests(&self, effect: Option<Effect>, decision: Decision) -> u64 {
        let counts = self.slots.iter().filter_map(|slot| slot.requests.get(row(effect))?.get(decision as usize));
        counts.map(|count| count.load(Relaxed)).sum()
    }

    /// The same, whatever their effect.
    pub(crate) fn all_requests(&self, decision: Decision) -> u64 {
        let effects = std::iter::once(None).chain(Effect::ALL.map(Some));
        effects.map(|effect| self.requests(effect, decision)).sum()
    }

    fn count(&self, what: Count) -> u64 {
        self.slots.iter().filter_map(|slot| slot.counts.get(what as usize)).map(|count| count.load(Relaxed)).sum()
    }

    /// The buckets of something timed, and the sum in seconds.
    fn times(&self, what: Timing) -> ([u64; BUCKETS], f64) {
        let (mut buckets, mut nanos) = ([0; BUCKETS], 0u64);
        for histogram in self.slots.iter().filter_map(|slot| slot.times.get(what as usize)) {
            buckets.iter_mut().zip(&histogram.buckets).for_each(|(all, one)| *all += one.load(Relaxed));
            nanos = nanos.saturating_add(histogram.sum.load(Relaxed));
        }
        (buckets, nanos as f64 / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_are_counted() {
        let meters = Meters::default();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    meters.decided(Some(Effect::Shell), Decision::Forwarded);
                    meters.decided(None, Decision::Unavailable);
                    meters.rack("one").add(false);
                });
            }
        });
        assert_eq!(meters.requests(Some(Effect::Shell), Decision::Forwarded), 40);
        assert_eq!((meters.all_requests(Decision::Unavailable), meters.all_requests(Decision::Refused)), (40, 0));
        assert_eq!(meters.racks.all().first().map(|(id, requests, failures)| (id.as_str(), *requests, *failures)), Some(("one", 40, 0)));
    }

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it() {
        let meters = Meters::default();
        for micros in [0, 5, 6, 10_000_000, 10_000_001] {
            meters.time(Timing::Whole, Duration::from_micros(micros));
        }
        let (buckets, sum) = meters.times(Timing::Whole);
        assert_eq!((buckets[0], buckets[1], buckets[BUCKETS - 2], buckets[BUCKETS - 1]), (2, 1, 1, 1));
        assert!((sum - 20.000_012).abs() < 1e-6, "{sum}");
    }
}
