//! Everybody who asks, and what they were answered. Nothing is tried again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::caller::{Caller, Log};
use super::ground::{APPS, CONSOLES, Ground, RACKS, is_of_another, own};

/// Connections of callers.
const WORKERS: usize = 24;
/// Log streams for each Console and Rack.
const LOGS: usize = 3;
/// Of so many requests one is audited.
const AUDITED: usize = 5;

/// Something that was not answered well.
pub(super) struct Trouble {
    pub(super) rack: usize,
    pub(super) kind: Kind,
    pub(super) begun: Instant,
    pub(super) ended: Instant,
    /// 0 where there was no answer.
    pub(super) status: u16,
    pub(super) what: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Is answered from memory and by the Rack.
    Read,
    /// Is written down before it is forwarded.
    Audited,
    /// A log that was open, or was to be opened.
    Log,
}

#[derive(Default)]
pub(super) struct Tally {
    pub(super) answered: AtomicU64,
    pub(super) audited: AtomicU64,
    pub(super) lines: AtomicU64,
    pub(super) open: AtomicU64,
    /// What came from a Rack that was not asked.
    pub(super) wrong: Mutex<Vec<String>>,
    pub(super) troubles: Mutex<Vec<Trouble>>,
    /// Microseconds.
    pub(super) latency: Mutex<Vec<u32>>,
    stop: AtomicBool,
    /// Between two requests of a worker, nanoseconds; 0 is as fast as it goes.
    pace: AtomicU64,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// From now on, so many requests a second, all together.
    pub(super) fn pace(&self, rate: f64) {
        self.pace.store((WORKERS as f64 / rate * 1e9) as u64, Relaxed);
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    fn trouble(&self, rack: usize, kind: Kind, begun: Instant, status: u16, what: String) {
        lock(&self.troubles).push(Trouble { rack, kind, begun, ended: Instant::now(), status, what });
    }
}

pub(super) fn workers(ground: &Ground, tally: &Arc<Tally>) -> anyhow::Result<JoinSet<()>> {
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        let doors = (0..RACKS).map(|rack| ground.door(number % CONSOLES, rack)).collect::<anyhow::Result<Vec<_>>>()?;
        let callers = doors.into_iter().map(Caller::new).collect();
        workers.spawn(work(callers, number, Arc::clone(tally)));
    }
    Ok(workers)
}

pub(super) fn logs(ground: &Ground, tally: &Arc<Tally>) -> anyhow::Result<JoinSet<()>> {
    let mut logs = JoinSet::new();
    for number in 0..CONSOLES * RACKS * LOGS {
        let rack = number % RACKS;
        let door = ground.door(number / RACKS % CONSOLES, rack)?;
        let tally = Arc::clone(tally);
        logs.spawn(async move {
            while tally.goes_on() {
                let begun = Instant::now();
                let mut log = match Log::open(&door).await {
                    Ok(log) => log,
                    Err(error) => {
                        let status = error.to_string().parse().unwrap_or(0);
                        tally.trouble(rack, Kind::Log, begun, status, format!("opening a log: {error:#}"));
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        continue;
                    }
                };
                tally.open.fetch_add(1, Relaxed);
                let ended = loop {
                    match log.next().await {
                        Ok(line) => {
                            tally.lines.fetch_add(1, Relaxed);
                            if is_of_another(rack, &line) {
                                lock(&tally.wrong).push(format!("a log of rack {rack}: {line}"));
                            }
                        }
                        Err(error) => break error,
                    }
                };
                tally.open.fetch_sub(1, Relaxed);
                if tally.goes_on() {
                    // When it ended is what counts.
                    tally.trouble(rack, Kind::Log, Instant::now(), 0, format!("a log ended: {ended:#}"));
                }
            }
        });
    }
    Ok(logs)
}

async fn work(mut callers: Vec<Caller>, number: usize, tally: Arc<Tally>) {
    let mut pace = 0;
    let mut interval = tokio::time::interval(Duration::from_secs(1));
    let mut turn = number * 7919;
    while tally.goes_on() {
        let wanted = tally.pace.load(Relaxed);
        if wanted > 0 {
            if wanted != pace {
                pace = wanted;
                let each = Duration::from_nanos(pace);
                // Spread over the interval.
                interval = tokio::time::interval_at(tokio::time::Instant::now() + each.mul_f64(number as f64 / WORKERS as f64), each);
                interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
            }
            interval.tick().await;
        }
        turn = turn.wrapping_add(1);
        let (rack, app) = (turn % RACKS, turn / RACKS % APPS);
        let Some(caller) = callers.get_mut(rack) else { return };
        let (kind, path) = if turn / RACKS % AUDITED == number % AUDITED { (Kind::Audited, "/configs/who") } else { (Kind::Read, "") };
        let name = own(rack, app);
        let begun = Instant::now();
        match caller.send(&format!("GET /apps/{name}{path}"), "").await {
            Ok((200, body)) if body.contains(&format!("\"{name}\"")) && !is_of_another(rack, &body) => {
                tally.answered.fetch_add(1, Relaxed);
                tally.audited.fetch_add(u64::from(kind == Kind::Audited), Relaxed);
                lock(&tally.latency).push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            // Only this Rack has that app: another one would not find it, or would answer with another.
            Ok((status @ (200 | 404), body)) => {
                lock(&tally.wrong).push(format!("rack {rack} was asked for {name}: {status} {}", body.trim()));
            }
            Ok((status, body)) => tally.trouble(rack, kind, begun, status, format!("{status} {}", body.trim())),
            Err(error) => tally.trouble(rack, kind, begun, 0, format!("{error:#}")),
        }
    }
}
