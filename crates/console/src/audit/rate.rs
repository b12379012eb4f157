//! How many refusals may be written per minute, of each source and of all together, and how many were not. A source is a key, or a network for
//! who has none: whoever floods the log hides their own refusals and nobody else's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use convox_model::Event;

const MINUTE_MS: i64 = 60_000;
/// Sources that are told apart in one minute, and those whose number is told apart.
const MOST_SOURCES: usize = 10_000;
const MOST_TOLD: usize = 100;

/// A rate.
pub(super) struct Rate {
    of_one: u32,
    of_all: u32,
    state: Mutex<Minute>,
}

/// What was seen of one minute.
#[derive(Default)]
struct Minute {
    minute: i64,
    last_ms: i64,
    sources: HashMap<String, Source>,
    /// Written of each source for the first time, and again: two bounds, so that who comes often leaves room for who comes once.
    firsts: u32,
    others: u32,
    /// Not written, of sources beyond the most.
    untold: u32,
}

#[derive(Default)]
struct Source {
    written: u32,
    left_out: u32,
    /// One that was left out, for who it was.
    sample: Option<Box<Event>>,
}

/// How many were not written, and of whom; one event for all that are not told apart.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) count: u32,
    pub(super) sample: Option<Box<Event>>,
    /// When the last one of that minute was refused.
    pub(super) at_ms: i64,
}

impl Rate {
    pub(super) fn new(of_one: u32, of_all: u32) -> Self {
        Self { of_one, of_all, state: Mutex::default() }
    }

    /// Whether this one is to be written, and what is to be said of an earlier minute.
    pub(super) fn admit(&self, source: &str, event: &Event, now_ms: i64) -> (bool, Vec<LeftOut>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let over = end(&mut state, Some(now_ms));
        let Minute { sources, firsts, others, untold, .. } = &mut *state;
        if !sources.contains_key(source) && sources.len() >= MOST_SOURCES {
            *untold = untold.saturating_add(1);
            return (false, over);
        }
        let source = sources.entry(source.to_owned()).or_default();
        let bound = if source.written == 0 { firsts } else { others };
        let is_written = source.written < self.of_one && *bound < self.of_all;
        if is_written {
            source.written += 1;
            *bound += 1;
        } else {
            source.left_out = source.left_out.saturating_add(1);
            source.sample.get_or_insert_with(|| Box::new(of_whom(event)));
        }
        (is_written, over)
    }

    /// What is to be said when nobody was refused for a while; `None` when there is no later.
    pub(super) fn left_out(&self, now_ms: Option<i64>) -> Vec<LeftOut> {
        end(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner), now_ms)
    }
}

/// What is kept of one that is left out: who it was, and nothing that a caller can make long.
fn of_whom(event: &Event) -> Event {
    Event {
        actor: event.actor.clone(),
        actor_id: event.actor_id.clone(),
        key_last4: event.key_last4.clone(),
        org: event.org.clone(),
        org_id: event.org_id.clone(),
        peer: event.peer.clone(),
        ..Event::default()
    }
    .bounded()
}

/// Begins another minute, if one has begun. A clock that is set back must not make a minute of yesterday's begin again and again.
fn end(state: &mut Minute, now_ms: Option<i64>) -> Vec<LeftOut> {
    let minute = now_ms.map_or(state.minute, |now_ms| now_ms.max(0) / MINUTE_MS);
    if now_ms.is_some() && minute <= state.minute {
        state.last_ms = state.last_ms.max(now_ms.unwrap_or_default());
        return Vec::new();
    }
    let before = std::mem::replace(state, Minute { minute, last_ms: now_ms.unwrap_or(state.last_ms), ..Minute::default() });
    let mut left: Vec<Source> = before.sources.into_values().filter(|source| source.left_out > 0).collect();
    left.sort_by_key(|source| std::cmp::Reverse(source.left_out));
    let rest = left.split_off(left.len().min(MOST_TOLD));
    let rest = rest.iter().fold(before.untold, |sum, source| sum.saturating_add(source.left_out));
    let one = |source: Source| LeftOut { count: source.left_out, sample: source.sample, at_ms: before.last_ms };
    let mut all: Vec<LeftOut> = left.into_iter().map(one).collect();
    if rest > 0 {
        all.push(LeftOut { count: rest, sample: None, at_ms: before.last_ms });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(left: &[LeftOut]) -> Vec<u32> {
        left.iter().map(|left| left.count).collect()
    }

    #[test]
    fn who_floods_hides_their_own_and_nobody_elses() {
        let (rate, event) = (Rate::new(2, 3), Event::default());
        let admit = |source: &str, now_ms| rate.admit(source, &event, now_ms).0;
        let loud: Vec<bool> = (0..100).map(|_| admit("loud", 60_000)).collect();
        assert_eq!(loud.iter().filter(|written| **written).count(), 2);
        assert!(admit("quiet", 60_001) && admit("quiet", 60_001) && !admit("quiet", 60_002));
        assert!(admit("another", 119_999), "the first of each has room of its own");
        assert!(!admit("one more", 119_999), "up to a bound over all");
        let (written, over) = rate.admit("loud", &event, 120_000);
        assert!(written);
        assert_eq!((counts(&over), over[0].at_ms), (vec![98, 1, 1], 119_999));
        assert!(rate.admit("loud", &event, 180_000).1.is_empty(), "said once");
    }

    #[test]
    fn what_was_left_out_is_said_without_another_refusal_and_at_the_end() {
        let (rate, event) = (Rate::new(1, 9), Event::default());
        for _ in 0..4 {
            rate.admit("loud", &event, 60_000);
        }
        assert!(rate.left_out(Some(119_999)).is_empty(), "the minute is not over");
        assert_eq!(counts(&rate.left_out(Some(120_000))), [3]);
        for _ in 0..3 {
            rate.admit("loud", &event, 120_000);
        }
        assert_eq!(counts(&rate.left_out(None)), [2]);
    }

    #[test]
    fn what_is_kept_of_a_refusal_is_short() {
        let rate = Rate::new(0, 9);
        let long = "x".repeat(60_000);
        let event = Event { actor: long.clone(), path: long.clone(), method: long, actor_id: "u1".to_owned(), ..Event::default() };
        rate.admit("loud", &event, 60_000);
        let sample = rate.left_out(None).remove(0).sample.unwrap();
        assert!(sample.to_json_line().len() < 4_096 && sample.actor_id == "u1");
    }

    #[test]
    fn sources_are_bounded_and_a_clock_that_is_set_back_opens_nothing() {
        let (rate, event) = (Rate::new(1, u32::MAX), Event::default());
        for source in 0..MOST_SOURCES + 5 {
            rate.admit(&source.to_string(), &event, 600_000);
        }
        for source in 0..MOST_TOLD + 7 {
            assert!(!rate.admit(&source.to_string(), &event, 0).0);
        }
        let left = rate.left_out(Some(660_000));
        assert_eq!((left.len(), left.last().unwrap().count), (MOST_TOLD + 1, 12));
    }
}
