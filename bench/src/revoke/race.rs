//! The race of revocations with requests that are under way (T26): many keys at the same time, each used on several connections while it is
//! revoked. A **run** is one request that was in flight across a revocation: begun before that was answered, and ended after it was sent.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::ground::Ground;
use super::wire::Connection;

/// Requests after the first refusal and the answer: a later one must not get through again.
const AFTER: usize = 2;
/// A key that is served for so long after its revocation was answered is a fault of its own.
const ENDLESS: Duration = Duration::from_secs(5);
/// Stands for an answer that did not come.
const CUT: u16 = 0;

/// What came of races.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Keys that were revoked.
    pub(super) races: usize,
    /// Requests in flight across a revocation.
    pub(super) runs: usize,
    /// Of these, those that were served.
    pub(super) won: usize,
    /// Requests that were served at all.
    pub(super) served: usize,
    /// Those that were begun after the revocation was answered.
    pub(super) late: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.races += other.races;
        self.runs += other.runs;
        self.won += other.won;
        self.served += other.served;
        self.late += other.late;
    }
}

/// How many at the same time, and how long.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) lanes: usize,
    pub(super) callers: usize,
    pub(super) runs: usize,
    pub(super) longest: Duration,
}

/// Races until there were enough runs, or the time is over. What the Rack saw is compared with what was answered.
pub(super) fn races(ground: &Ground, plan: Plan, mut told: impl FnMut(&Tally)) -> anyhow::Result<Tally> {
    let (tally, refused, next, stop) =
        (Mutex::new(Tally::default()), Mutex::new(BTreeSet::new()), AtomicUsize::new(0), AtomicBool::new(false));
    let lock = || *tally.lock().unwrap_or_else(PoisonError::into_inner);
    let began = Instant::now();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let lanes: Vec<_> = (0..plan.lanes)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    let mut lane = Lane::open(ground, plan.callers)?;
                    while !stop.load(Ordering::SeqCst) {
                        let (found, not) = lane.race(ground, next.fetch_add(1, Ordering::Relaxed))?;
                        tally.lock().unwrap_or_else(PoisonError::into_inner).add(found);
                        refused.lock().unwrap_or_else(PoisonError::into_inner).extend(not);
                    }
                    Ok(())
                })
            })
            .collect();
        let mut last = Instant::now();
        while lock().runs < plan.runs && began.elapsed() < plan.longest && !lanes.iter().any(|lane| lane.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            if last.elapsed() > Duration::from_secs(30) {
                told(&lock());
                last = Instant::now();
            }
        }
        stop.store(true, Ordering::SeqCst);
        lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| anyhow::anyhow!("a thread ended in a fault"))?)
    })?;
    // What was refused did not reach the Rack either, not even later.
    let refused = refused.into_inner().unwrap_or_else(PoisonError::into_inner);
    let reached: Vec<String> = ground.rack.take_paths().into_iter().filter(|path| refused.contains(path)).collect();
    ensure!(reached.is_empty(), "refused, and the Rack saw it: {reached:?}");
    Ok(lock())
}

/// Kept connections, for many races: of the one who revokes, and of those who ask.
struct Lane {
    admin: Connection,
    callers: Vec<Connection>,
}

struct Asked {
    path: String,
    begun: Instant,
    ended: Instant,
    status: u16,
}

impl Lane {
    fn open(ground: &Ground, callers: usize) -> anyhow::Result<Self> {
        Ok(Self { admin: ground.first()?, callers: (0..callers).map(|_| ground.last()).collect::<anyhow::Result<_>>()? })
    }

    /// Requests that read and that change something, on all connections, while their key is revoked; and the paths of those that were refused.
    fn race(&mut self, ground: &Ground, number: usize) -> anyhow::Result<(Tally, Vec<String>)> {
        let Self { admin, callers } = self;
        let (id, key) = ground.key(admin, &format!("race-{number}"))?;
        let answered = Barrier::new(callers.len() + 1);
        std::thread::scope(|scope| {
            let asking: Vec<_> = callers
                .iter_mut()
                .enumerate()
                .map(|(thread, connection)| {
                    let (key, answered) = (&key, &answered);
                    scope.spawn(move || -> anyhow::Result<Vec<Asked>> {
                        let mut all = Vec::new();
                        let asked = until_refused(ground, connection, key, &format!("{number}-{thread}"), &mut all);
                        answered.wait();
                        asked?;
                        for _ in 0..AFTER {
                            all.push(ask(ground, connection, key, &format!("{number}-{thread}"), all.len())?);
                        }
                        Ok(all)
                    })
                })
                .collect();
            // At another moment of their work in each race.
            std::thread::sleep(Duration::from_micros((number as u64 * 7919) % 3000));
            let revoked = ground.revoke(admin, &id);
            answered.wait();
            let (sent, answered) = revoked?;
            let (mut tally, mut refused) = (Tally { races: 1, ..Tally::default() }, Vec::new());
            for thread in asking {
                for Asked { path, begun, ended, status } in thread.join().map_err(|_| anyhow::anyhow!("a thread ended in a fault"))?? {
                    let (is_run, is_served) = (begun <= answered && ended >= sent, status == 200);
                    tally.runs += usize::from(is_run);
                    tally.won += usize::from(is_run && is_served);
                    tally.served += usize::from(is_served);
                    tally.late += usize::from(is_served && begun > answered);
                    // What was under way is told that its key was revoked (403), or is cut; the Rack may have seen it.
                    if !is_served && !((status == CUT || status == 403) && begun <= answered) {
                        refused.push(path);
                    }
                }
            }
            Ok((tally, refused))
        })
    }
}

fn until_refused(ground: &Ground, connection: &mut Connection, key: &str, who: &str, all: &mut Vec<Asked>) -> anyhow::Result<()> {
    let end = Instant::now() + ENDLESS;
    loop {
        let asked = ask(ground, connection, key, who, all.len())?;
        let is_served = asked.status == 200;
        all.push(asked);
        if !is_served {
            return Ok(());
        }
        ensure!(Instant::now() < end, "a revoked key is served for more than {} s", ENDLESS.as_secs());
    }
}

/// Reads and changes by turns.
fn ask(ground: &Ground, connection: &mut Connection, key: &str, who: &str, number: usize) -> anyhow::Result<Asked> {
    let (method, letter) = if number.is_multiple_of(2) { ("GET", 'r') } else { ("PUT", 'w') };
    let (path, begun) = (format!("/apps/{who}-{letter}{number}"), Instant::now());
    // A request that was under way when its key was revoked may be cut.
    let status = match connection.ask(method, &path, key, "") {
        Ok(reply) => reply.status,
        Err(_) => {
            *connection = ground.last()?;
            CUT
        }
    };
    Ok(Asked { path, begun, ended: Instant::now(), status })
}
