//! How many of something may be written per minute, and how many were not.

use std::sync::atomic::{AtomicU64, Ordering};

const MINUTE_MS: i64 = 60_000;

/// A rate. The minute is in the upper half of the number, the count in the lower.
pub(super) struct Rate {
    per_minute: u32,
    state: AtomicU64,
}

/// What to do with one of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Whether to write it.
    pub(super) write: bool,
    /// How many of an earlier minute were not written. Said once.
    pub(super) left_out: Option<u32>,
}

impl Rate {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, state: AtomicU64::new(0) }
    }

    /// One more, at `now_ms`.
    pub(super) fn admit(&self, now_ms: i64) -> Admitted {
        let minute = u64::from(u32::try_from(now_ms.max(0) / MINUTE_MS).unwrap_or(u32::MAX));
        let next = |state: u64| {
            let (then, count) = (state >> 32, state & u64::from(u32::MAX));
            // A clock that is set back must not make a minute of yesterday's limit begin again and again.
            Some(if minute > then { minute << 32 | 1 } else { then << 32 | (count + 1).min(u64::from(u32::MAX)) })
        };
        let before = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_else(|same| same);
        let (then, count) = (before >> 32, before as u32);
        if minute > then {
            Admitted { write: true, left_out: count.checked_sub(self.per_minute).filter(|left_out| *left_out > 0) }
        } else {
            Admitted { write: count < self.per_minute, left_out: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_rate_is_counted_and_said_once() {
        let rate = Rate::new(2);
        let written: Vec<bool> = (0..5).map(|_| rate.admit(60_000).write).collect();
        assert_eq!(written, [true, true, false, false, false]);
        assert_eq!(rate.admit(119_999), Admitted { write: false, left_out: None });
        assert_eq!(rate.admit(120_000), Admitted { write: true, left_out: Some(4) });
        assert_eq!(rate.admit(120_001), Admitted { write: true, left_out: None });
        assert_eq!(rate.admit(180_000), Admitted { write: true, left_out: None });
    }

    #[test]
    fn a_clock_that_is_set_back_opens_nothing() {
        let rate = Rate::new(1);
        assert!(rate.admit(600_000).write);
        assert!(!rate.admit(0).write);
        assert!(!rate.admit(-1).write);
        assert!(!rate.admit(600_001).write);
    }
}
