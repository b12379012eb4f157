//! What is known of one place of a service, in words and pauses.

use std::time::Duration;

use crate::router::Target;
use crate::runtime::ProcessState;

/// Where a place is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// A process is starting, or was found again and not yet checked.
    #[default]
    Starting,
    /// Its process is healthy.
    Healthy,
    /// Its process was healthy and is not now.
    Unhealthy,
    /// Its process ended; another one follows after a pause.
    Waiting,
    /// Its process gets no new connections and is being stopped.
    Retiring,
    /// Nothing is left of it.
    Gone,
}

/// What is known of a place.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) phase: Phase,
    /// Id of its process, if it has one.
    pub(super) process: Option<String>,
    /// Failed starts since it was last healthy.
    pub(super) failures: u32,
    /// It had all the time it should need and did not become healthy.
    pub(super) gave_up: bool,
    /// What was seen at the last failure.
    pub(super) reason: String,
    /// The process of the last failure.
    pub(super) failed: Option<String>,
    /// Its target for connections.
    pub(super) backend: Option<Target>,
}

/// Waits of 1, 2, 4 .. 60 seconds.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LAST: Duration = Duration::from_mins(1);

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LAST);
        pause
    }
}

/// As in "exited with code 1", "was ended by signal 9".
pub(super) fn how_it_ended(state: &ProcessState) -> String {
    match state.exit_code {
        Some(code @ 129..=192) => format!("was ended by signal {} (exit code {code})", code - 128),
        Some(code) => format!("exited with code {code}"),
        None => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..8).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
