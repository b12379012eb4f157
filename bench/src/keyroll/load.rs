//! People at work: requests at a fixed rate through two Consoles, each worker with its own connections, as a balancer would send them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use convox_client::{Call, Client, Error};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::ground::Ground;

/// Connections to each Console.
const WORKERS: u32 = 32;

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    while_down: AtomicU64,
    down: AtomicBool,
    stop: AtomicBool,
    failed: Mutex<Vec<String>>,
}

pub(crate) struct Load {
    counts: Arc<Counts>,
    workers: JoinSet<()>,
}

impl Load {
    pub(crate) fn start(ground: &Ground, rate: u32) -> anyhow::Result<Self> {
        let counts = Arc::new(Counts::default());
        let mut workers = JoinSet::new();
        for number in 0..WORKERS {
            let clients = [ground.person(0)?, ground.person(1)?];
            let each = Duration::from_secs_f64(f64::from(WORKERS) / f64::from(rate.max(1)));
            // Spread over the interval.
            let first = Instant::now() + each.mul_f64(f64::from(number) / f64::from(WORKERS));
            workers.spawn(work(clients, number, first, each, Arc::clone(&counts)));
        }
        Ok(Self { counts, workers })
    }

    /// Whether the Rack is known to be dead: what it does not answer is counted apart.
    pub(crate) fn is_down(&self, down: bool) {
        self.counts.down.store(down, Relaxed);
    }

    /// Answered well, failed, and not answered while the Rack was dead.
    pub(crate) async fn stop(mut self) -> (u64, Vec<String>, u64) {
        self.counts.stop.store(true, Relaxed);
        while self.workers.join_next().await.is_some() {}
        let failed = std::mem::take(&mut *self.counts.failed.lock().unwrap_or_else(PoisonError::into_inner));
        (self.counts.answered.load(Relaxed), failed, self.counts.while_down.load(Relaxed))
    }
}

/// Most are plain reads; every eighth reads what may be secret, and is written to the audit log before it is forwarded.
fn call(number: u64) -> Result<Call, Error> {
    if number % 8 == 7 { Call::get(&["registries"]) } else { Call::get(&["apps"]) }
}

async fn work(clients: [Client; 2], worker: u32, first: Instant, each: Duration, counts: Arc<Counts>) {
    let mut interval = tokio::time::interval_at(first, each);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in u64::from(worker).. {
        interval.tick().await;
        if counts.stop.load(Relaxed) {
            return;
        }
        let down_before = counts.down.load(Relaxed);
        let [one, other] = if number % 2 == 0 { [&clients[0], &clients[1]] } else { [&clients[1], &clients[0]] };
        let answer = match ask(one, number).await {
            // Nobody answered: the other Console is asked, as a balancer does.
            Err(error) if is_silent(&error) => ask(other, number).await,
            answer => answer,
        };
        match answer {
            Ok(()) => drop(counts.answered.fetch_add(1, Relaxed)),
            Err(_) if down_before || counts.down.load(Relaxed) => drop(counts.while_down.fetch_add(1, Relaxed)),
            Err(error) => counts.failed.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string()),
        }
    }
}

async fn ask(client: &Client, number: u64) -> Result<(), Error> {
    client.done(call(number)?).await
}

/// Whether the connection failed, not the request.
fn is_silent(error: &Error) -> bool {
    matches!(error, Error::Refused { .. } | Error::Unreachable { .. } | Error::Closed { .. } | Error::Timeout { .. })
        || matches!(error, Error::Tls { fault: convox_tls::TlsFault::Protocol(_), .. })
}
