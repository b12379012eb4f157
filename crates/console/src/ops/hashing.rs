//! Whose password is hashed next. A hash takes 19 MiB and a core for a while, and anybody can ask for one: so two at a time, one of them for
//! people who are known (by the cookie of a device, a session, or a code that was given to them), and one for strangers. Either has a queue with
//! an end, and of that nobody has more than a share: whoever fills it is told to come again, and holds up neither the others nor those who are known.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use tokio::sync::Semaphore;

use super::OpsError;

/// People who are known; each by their address.
pub(super) static KNOWN: Lane = Lane::new(64, 4);
/// Everybody else; each by their wide network.
pub(super) static STRANGERS: Lane = Lane::new(64, 16);

/// After so long there is room again, seconds.
const AGAIN_S: i64 = 5;

/// One hash at a time, and those that wait for it.
pub(super) struct Lane {
    permits: Semaphore,
    waiting: LazyLock<Mutex<HashMap<String, usize>>>,
    most: usize,
    of_one: usize,
}

/// A place in the queue, from its beginning to the end of the hash.
struct Place {
    lane: &'static Lane,
    whose: String,
}

impl Lane {
    const fn new(most: usize, of_one: usize) -> Self {
        Self { permits: Semaphore::const_new(1), waiting: LazyLock::new(Mutex::default), most, of_one }
    }

    fn enter(&'static self, whose: &str) -> Option<Place> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = waiting.values().sum();
        let own = waiting.get(whose).copied().unwrap_or_default();
        if all >= self.most || own >= self.of_one {
            return None;
        }
        waiting.insert(whose.to_owned(), own + 1);
        Some(Place { lane: self, whose: whose.to_owned() })
    }

    /// Runs what takes a core and 19 MiB off the runtime's threads, when it is its turn. A caller who goes away gives neither place nor
    /// permit back before it is done.
    pub(super) async fn run<T: Send + 'static>(
        &'static self,
        whose: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, OpsError> {
        let failed = || OpsError::Input("the password could not be checked; try again".to_owned());
        let place = self.enter(whose).ok_or(OpsError::Busy { wait_s: AGAIN_S })?;
        let permit = self.permits.acquire().await.map_err(|_| failed())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop((permit, place));
            done
        });
        done.await.map_err(|_| failed())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.lane.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get_mut(&self.whose) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(waiting.remove(&self.whose)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_says_so_and_holds_up_nobody_else() {
        static FULL: Lane = Lane::new(6, 4);
        static OTHER: Lane = Lane::new(6, 4);
        let (go, wait) = mpsc::channel::<()>();
        let first = tokio::spawn(FULL.run("loud", move || wait.recv_timeout(Duration::from_secs(20)).is_ok()));
        let waiting = || FULL.waiting.lock().unwrap().values().sum::<usize>();
        while waiting() < 1 {
            tokio::task::yield_now().await;
        }
        let more: Vec<_> = (0..3).map(|_| tokio::spawn(FULL.run("loud", || true))).collect();
        while waiting() < 4 {
            tokio::task::yield_now().await;
        }
        let busy = |done: Result<bool, OpsError>| matches!(done, Err(OpsError::Busy { wait_s: AGAIN_S }));
        assert!(busy(FULL.run("loud", || true).await), "nobody has more than a share");
        let others: Vec<_> = (0..2).map(|_| tokio::spawn(FULL.run("quiet", || true))).collect();
        while waiting() < 6 {
            tokio::task::yield_now().await;
        }
        assert!(busy(FULL.run("another", || true).await), "it has an end");
        assert!(OTHER.run("known", || true).await.unwrap(), "the other lane goes on");
        // Somebody who goes away while it runs does not let another one run beside it.
        first.abort();
        assert!(first.await.is_err());
        assert_eq!((waiting(), FULL.permits.available_permits()), (6, 0));
        go.send(()).unwrap();
        for one in more.into_iter().chain(others) {
            assert!(one.await.unwrap().unwrap());
        }
        assert_eq!(waiting(), 0);
        assert!(FULL.run("loud", || true).await.unwrap());
    }
}
