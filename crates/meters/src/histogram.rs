//! How long things take.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets, microseconds.
pub const BOUNDS: [u64; 20] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// Times of something, counted without a lock.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// One more than there are [`BOUNDS`]: the last has all that is longer.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// All together.
    pub nanos: u64,
}

impl Histogram {
    /// It took so long.
    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(BOUNDS.partition_point(|bound| *bound < micros)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(0), Relaxed);
    }

    /// As it stands now.
    pub fn read(&self) -> Times {
        let mut times = Times { nanos: self.nanos.load(Relaxed), ..Times::default() };
        times.buckets.iter_mut().zip(&self.buckets).for_each(|(to, from)| *to = from.load(Relaxed));
        times
    }
}

impl Times {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Seconds of all together.
    pub fn seconds(&self) -> f64 {
        self.nanos as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 5, 6, 10_000_000, 10_000_001] {
            histogram.add(Duration::from_micros(micros));
        }
        let times = histogram.read();
        assert_eq!((times.buckets[0], times.buckets[1], times.buckets[19], times.buckets[20], times.count()), (2, 1, 1, 1, 5));
        assert!((times.seconds() - 20.000_012).abs() < 1e-6, "{times:?}");
    }
}
