//! People at work: requests at a fixed rate through two Consoles, each worker with its own connections, as a balancer would send them; and some who go
//! straight to the Rack with a token. What they hold in their hands is exchanged while they work, as they would exchange it: some at once, some as
//! late as they may.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use convox_client::{Call, Client, Error};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::ground::{Doors, Ground};

/// Connections to each Console.
const WORKERS: u32 = 32;
/// Connections straight to the Rack, each with a tenth of the requests of one of those.
const WITH_TOKENS: u32 = 4;

/// What somebody works with.
#[derive(Clone, Default)]
pub(crate) struct Hand(Arc<ArcSwap<String>>);

impl Hand {
    pub(crate) fn give(&self, key: &str) {
        self.0.store(Arc::new(key.to_owned()));
    }

    pub(crate) fn holds(&self) -> String {
        self.0.load().as_ref().clone()
    }
}

/// Who works: of each pair, the first one takes a new key at once, the second one late.
#[derive(Default)]
pub(crate) struct People {
    pub(crate) user: [Hand; 2],
    pub(crate) deploy: [Hand; 2],
    pub(crate) token: Hand,
}

/// What came of the requests.
#[derive(Default)]
pub(crate) struct Answers {
    /// Answered well.
    pub(crate) answered: u64,
    /// Of these, those that one Console did not answer and the other one did.
    pub(crate) by_the_other: u64,
    /// Not answered while the Rack was dead.
    pub(crate) while_down: u64,
    pub(crate) failed: Vec<String>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    by_the_other: AtomicU64,
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
    pub(crate) fn start(ground: &Ground, rate: u32) -> Self {
        let counts = Arc::new(Counts::default());
        let mut workers = JoinSet::new();
        let [early, late] = &ground.people.user;
        let [ci_early, ci_late] = &ground.people.deploy;
        let hands = [early, late, ci_early, ci_late];
        let each = Duration::from_secs_f64(f64::from(WORKERS) / f64::from(rate.max(1)));
        let start = Instant::now();
        for (number, hand) in (0..WORKERS).zip(hands.into_iter().cycle()) {
            // Spread over the interval.
            let first = start + each.mul_f64(f64::from(number) / f64::from(WORKERS));
            let worker = Worker { hand: hand.clone(), straight: false, doors: Arc::clone(&ground.doors), counts: Arc::clone(&counts) };
            workers.spawn(worker.work(number, first, each));
        }
        for number in 0..WITH_TOKENS {
            let hand = ground.people.token.clone();
            let worker = Worker { hand, straight: true, doors: Arc::clone(&ground.doors), counts: Arc::clone(&counts) };
            workers.spawn(worker.work(number, start, each * 10));
        }
        Self { counts, workers }
    }

    /// Whether the Rack is known to be dead: what it does not answer is counted apart.
    pub(crate) fn is_down(&self, down: bool) {
        self.counts.down.store(down, Relaxed);
    }

    pub(crate) async fn stop(mut self) -> Answers {
        self.counts.stop.store(true, Relaxed);
        while self.workers.join_next().await.is_some() {}
        let failed = std::mem::take(&mut *self.counts.failed.lock().unwrap_or_else(PoisonError::into_inner));
        let Counts { answered, by_the_other, while_down, .. } = &*self.counts;
        Answers { answered: answered.load(Relaxed), by_the_other: by_the_other.load(Relaxed), while_down: while_down.load(Relaxed), failed }
    }
}

/// Most are plain reads; every eighth reads what may be secret, and is written to the audit log before it is forwarded.
fn call(number: u64) -> Result<Call, Error> {
    if number % 8 == 7 { Call::get(&["registries"]) } else { Call::get(&["apps"]) }
}

struct Worker {
    hand: Hand,
    /// To the Rack, with a token; else through the Consoles, with an API key.
    straight: bool,
    doors: Arc<Doors>,
    counts: Arc<Counts>,
}

impl Worker {
    /// Connections with what the hand holds now.
    fn clients(&self, key: &str) -> anyhow::Result<Vec<Client>> {
        if self.straight {
            return Ok(vec![self.doors.straight("jwt", key)?]);
        }
        (0..2).map(|console| self.doors.person(console, key)).collect()
    }

    async fn work(self, worker: u32, first: Instant, each: Duration) {
        let mut interval = tokio::time::interval_at(first, each);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut held = self.hand.0.load_full();
        let mut clients = self.clients(&held);
        for number in u64::from(worker).. {
            interval.tick().await;
            if self.counts.stop.load(Relaxed) {
                return;
            }
            let now = self.hand.0.load_full();
            if !Arc::ptr_eq(&held, &now) {
                (clients, held) = (self.clients(&now), now);
            }
            match &clients {
                Ok(clients) => self.one(number, clients).await,
                Err(error) => self.failed(format!("no connection could be made: {error:#}")),
            }
        }
    }

    async fn one(&self, number: u64, clients: &[Client]) {
        let down_before = self.counts.down.load(Relaxed);
        let at = |turn: u64| clients.get(usize::try_from((number + turn) % clients.len().max(1) as u64).unwrap_or(0));
        let Some(client) = at(0) else { return };
        let call = if self.straight { 0 } else { number };
        let mut answer = ask(client, call).await;
        // Nobody answered: the other Console is asked, as a balancer does.
        if let (Err(error), Some(other), false) = (&answer, at(1), self.straight)
            && is_silent(error)
        {
            answer = ask(other, call).await;
            self.counts.by_the_other.fetch_add(u64::from(answer.is_ok()), Relaxed);
        }
        match answer {
            Ok(()) => drop(self.counts.answered.fetch_add(1, Relaxed)),
            Err(_) if down_before || self.counts.down.load(Relaxed) => drop(self.counts.while_down.fetch_add(1, Relaxed)),
            Err(error) => self.failed(format!("{}{error}", if self.straight { "with a token: " } else { "" })),
        }
    }

    fn failed(&self, words: String) {
        self.counts.failed.lock().unwrap_or_else(PoisonError::into_inner).push(words);
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
