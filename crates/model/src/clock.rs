//! Time, given rather than taken, so that tests can hold it still.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970, UTC.
    fn now_ms(&self) -> i64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands still until moved.
#[derive(Clone, Debug, Default)]
pub struct MockClock(Arc<AtomicI64>);

impl MockClock {
    /// Standing at `now_ms`.
    pub fn at(now_ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(now_ms)))
    }

    /// Moves it on.
    pub fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for MockClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mock_clock_stands_still_until_moved_and_its_copies_move_with_it() {
        let clock = MockClock::at(1000);
        let copy = clock.clone();
        assert_eq!((clock.now_ms(), copy.now_ms()), (1000, 1000));
        copy.advance(-1500);
        assert_eq!((clock.now_ms(), copy.now_ms()), (-500, -500));
        assert!(SystemClock.now_ms() > 1_600_000_000_000, "in milliseconds");
    }
}
