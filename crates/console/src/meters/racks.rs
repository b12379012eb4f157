//! Requests by Rack. As many Racks have a count of their own as were first used; the rest share one, so that what is told stays bounded
//! however many Racks there are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::SLOT;

/// Racks with a count of their own.
const MOST: usize = 1_000;
/// What the others are called.
const OTHER: &str = "other";
/// Few, since there is one set per Rack; 64 bytes each.
const STRIPES: usize = 4;

#[derive(Default)]
#[repr(align(64))]
struct Stripe {
    requests: AtomicU64,
    failures: AtomicU64,
}

/// The counts of a Rack.
#[derive(Default)]
pub(crate) struct RackMeter([Stripe; STRIPES]);

impl RackMeter {
    /// One more request, which had no answer of the Rack if it failed.
    pub(crate) fn add(&self, is_failure: bool) {
        if let Some(stripe) = self.0.get(SLOT.get() % STRIPES) {
            stripe.requests.fetch_add(1, Relaxed);
            if is_failure {
                stripe.failures.fetch_add(1, Relaxed);
            }
        }
    }

    fn sums(&self) -> (u64, u64) {
        self.0.iter().fold((0, 0), |(requests, failures), stripe| {
            (requests + stripe.requests.load(Relaxed), failures + stripe.failures.load(Relaxed))
        })
    }
}

#[derive(Default)]
pub(super) struct Racks {
    named: Mutex<HashMap<String, Arc<RackMeter>>>,
    other: Arc<RackMeter>,
}

impl Racks {
    /// Asked for once per Rack and server, not per request.
    pub(super) fn of(&self, id: &str) -> Arc<RackMeter> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = named.get(id) {
            return Arc::clone(meter);
        }
        if named.len() >= MOST {
            return Arc::clone(&self.other);
        }
        let meter = Arc::<RackMeter>::default();
        named.insert(id.to_owned(), Arc::clone(&meter));
        meter
    }

    /// Id, requests, failures; sorted.
    pub(super) fn all(&self) -> Vec<(String, u64, u64)> {
        let row = |id: &str, meter: &RackMeter| {
            let (requests, failures) = meter.sums();
            (id.to_owned(), requests, failures)
        };
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows: Vec<_> = named.iter().map(|(id, meter)| row(id, meter)).collect();
        drop(named);
        rows.sort_unstable();
        let other = row(OTHER, &self.other);
        rows.extend((other.1 > 0).then_some(other));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_racks_there_are_what_is_told_is_bounded_and_complete() {
        let racks = Racks::default();
        for turn in 0..2 {
            for number in 0..MOST + 500 {
                racks.of(&format!("rack-{number:05}")).add(turn == 1);
            }
        }
        let all = racks.all();
        assert_eq!(all.len(), MOST + 1);
        assert_eq!(all.last(), Some(&(OTHER.to_owned(), 1_000, 500)));
        assert_eq!(all.iter().map(|(_, requests, _)| requests).sum::<u64>(), 2 * (MOST as u64 + 500));
    }
}
