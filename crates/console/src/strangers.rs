//! Keys that are none: how many come from one network, and how many begin alike. Guessing 256 bits is hopeless; what this ends is the noise
//! of a key that was revoked and is still in use somewhere, and of whoever tries all the same. A key that is good is never held up here,
//! wherever it comes from: only refusals are counted.
//!
//! Each server counts in memory, without waiting, and puts its counts together with those of the others in the store once a second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use convox_store::guesses::{Subject, Tries};

use crate::meters::Count;
use crate::state::App;

/// Counted for so long from the first one on, milliseconds.
const WINDOW_MS: i64 = 60_000;
/// From one network in a window.
const OF_NETWORK: i64 = 300;
/// That begin alike.
const OF_PREFIX: i64 = 120;
/// How much of a key tells it apart, kind included.
const PREFIX: usize = 12;
/// What is counted at the same time; beyond that nothing new is, and refused as without a limit.
const MOST: usize = 20_000;
/// How often servers put their counts together.
const ROUND: Duration = Duration::from_secs(1);
/// Counts that one server puts into the store in a round.
const AT_ONCE: usize = 200;

/// The counts of this server.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<HashMap<Subject, Local>>);

#[derive(Clone, Copy)]
struct Local {
    tries: Tries,
    /// Not in the store yet.
    new: i64,
}

impl Strangers {
    /// How many networks and beginnings of keys are counted now.
    pub(crate) fn watched(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// One more refused key; how many seconds to wait if there are too many.
    pub(crate) fn refused(&self, app: &App, peer: &str, key: &str) -> Option<i64> {
        let ops = app.ops();
        let now_ms = app.clock.now_ms();
        let prefix: String = key.chars().take(PREFIX).collect();
        let network = self.count(ops.subject("keys of network", &crate::ops::guesses::network(peer)), now_ms, OF_NETWORK);
        let alike = self.count(ops.subject("keys alike", &prefix), now_ms, OF_PREFIX);
        let wait = network.max(alike);
        if wait.is_some() {
            app.meters.add(Count::Guess, 1);
        }
        wait
    }

    fn count(&self, subject: Subject, now_ms: i64, most: i64) -> Option<i64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST && !all.contains_key(&subject) {
            all.retain(|_, local| local.tries.since_ms > now_ms - WINDOW_MS);
            if all.len() >= MOST {
                return None;
            }
        }
        let local = all.entry(subject).or_insert(Local { tries: Tries { since_ms: now_ms, count: 0 }, new: 0 });
        if local.tries.since_ms <= now_ms - WINDOW_MS {
            *local = Local { tries: Tries { since_ms: now_ms, count: 0 }, new: 0 };
        }
        local.tries.count += 1;
        local.new += 1;
        (local.tries.count > most).then(|| (local.tries.since_ms + WINDOW_MS - now_ms).max(0) / 1000 + 1)
    }

    /// Puts the counts of all servers together, for ever.
    pub(crate) async fn share(app: Arc<App>) {
        loop {
            tokio::time::sleep(ROUND).await;
            let now_ms = app.clock.now_ms();
            let new: Vec<(Subject, i64)> = {
                let mut all = app.strangers.0.lock().unwrap_or_else(PoisonError::into_inner);
                all.retain(|_, local| local.tries.since_ms > now_ms - WINDOW_MS);
                all.iter_mut()
                    .filter(|(_, local)| local.new > 0)
                    .take(AT_ONCE)
                    .map(|(subject, local)| (*subject, std::mem::take(&mut local.new)))
                    .collect()
            };
            for (subject, more) in new {
                match app.store.count_guesses(&subject, more, now_ms, WINDOW_MS).await {
                    Ok(tries) => {
                        if let Some(local) = app.strangers.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&subject) {
                            local.tries = Tries { count: tries.count + local.new, ..tries };
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "refused keys could not be counted; this server counts for itself");
                        break;
                    }
                }
            }
        }
    }
}

/// What is said to them.
pub(crate) fn words(wait_s: i64) -> String {
    format!("too many requests with keys that are not valid; wait {wait_s} s, and look whether your key is still the right one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_refused_plainly_and_the_rest_is_told_to_wait() {
        let strangers = Strangers::default();
        let mut waits = (0..5).map(|_| strangers.count([1; 32], 1_000, 3));
        assert!(waits.by_ref().take(3).all(|wait| wait.is_none()));
        assert_eq!(waits.next(), Some(Some(61)));
        assert_eq!(strangers.count([2; 32], 1_000, 3), None, "others are not held up");
        assert_eq!(strangers.count([1; 32], 61_000, 3), None, "a window later it begins anew");
    }

    #[test]
    fn memory_has_an_end() {
        let strangers = Strangers::default();
        for number in 0..MOST + 100 {
            let mut subject = [0; 32];
            subject[..8].copy_from_slice(&number.to_be_bytes());
            strangers.count(subject, 1_000, 3);
        }
        assert_eq!(strangers.0.lock().unwrap().len(), MOST);
        assert_eq!(strangers.count([9; 32], 1_000_000, 3), None);
        assert_eq!(strangers.0.lock().unwrap().len(), 1, "what is over makes room");
    }
}
