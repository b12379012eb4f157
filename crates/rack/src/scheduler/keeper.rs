//! One place of a service, kept filled: starts a process, checks it, and starts another when it
//! ends, until it is retired.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::environment;
use super::slot::{Backoff, Phase, Slot, how_it_ended};
use super::{DesiredApp, Inner, health, resource};
use crate::command::Command;
use crate::manifest::Service;
use crate::router::Target;
use crate::runtime::ProcessState;

/// Failed checks in a row after which a healthy process gets no more connections.
const UNHEALTHY_AFTER: u32 = 2;
/// Failed checks in a row after which it is replaced.
const REPLACED_AFTER: u32 = 6;
/// Intervals beyond the grace that a new process has to become healthy.
const START_INTERVALS: u32 = 12;
/// First pause between the checks of a starting process; it grows up to the interval.
const FIRST_CHECK: Duration = Duration::from_millis(100);
/// A process without a port counts as healthy when it has lived so long.
const SETTLED: Duration = Duration::from_secs(1);
/// A process that was healthy for so long starts the backoff anew.
pub(super) const PROVEN: Duration = Duration::from_mins(1);

/// One place of one release of a service.
pub(super) struct Keeper {
    pub(super) app: Arc<DesiredApp>,
    pub(super) service: Service,
    slot: watch::Sender<Slot>,
    retire: CancellationToken,
    /// The next end of its process was asked for.
    asked: AtomicBool,
    /// Its connections are not waited for when it is retired.
    hurry: AtomicBool,
}

/// How the watch over one process ended.
enum Outcome {
    Ended(Box<ProcessState>),
    Unhealthy(String),
    Retired,
    /// The Rack is shutting down; the process is to be left alone.
    Left,
}

impl Keeper {
    /// Begins to keep a place, with a process found again if there is one. One that the router sends requests to was healthy
    /// and stays a target until it turns out not to be: the end of a Rack is not the end of its apps' health.
    pub(super) fn begin(inner: &Arc<Inner>, app: &Arc<DesiredApp>, service: &Service, found: Option<ProcessState>) -> Arc<Self> {
        let mut slot = Slot::default();
        if let Some(process) = &found
            && let Some(target) = target(process, service).filter(|target| inner.routed.contains(target))
        {
            slot = Slot { phase: Phase::Healthy, process: Some(process.id.clone()), backend: Some(target), ..slot };
        }
        let keeper = Arc::new(Self {
            app: Arc::clone(app),
            service: service.clone(),
            slot: watch::Sender::new(slot),
            retire: CancellationToken::new(),
            asked: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
        });
        inner.tasks.spawn(run(Arc::clone(inner), Arc::clone(&keeper), found));
        keeper
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot.borrow().clone()
    }

    /// The target for connections, if its process is healthy.
    pub(super) fn healthy_backend(&self) -> Option<Target> {
        let slot = self.slot.borrow();
        slot.backend.clone().filter(|_| slot.phase == Phase::Healthy)
    }

    pub(super) fn is_healthy(&self) -> bool {
        self.slot.borrow().phase == Phase::Healthy
    }

    /// Lets go of the place: drains and stops its process. Returns at once.
    pub(super) fn retire(&self) {
        self.retire.cancel();
    }

    /// The same without waiting for connections to finish.
    pub(super) fn retire_now(&self) {
        self.hurry.store(true, Ordering::Relaxed);
        self.retire.cancel();
    }

    /// Waits until it is retired and its process gone.
    pub(super) async fn gone(&self) {
        // Cannot fail: the sender is ours.
        let _ = self.slot.subscribe().wait_for(|slot| slot.phase == Phase::Gone).await;
    }

    /// Waits until it is healthy, or has failed so often (or so long) that it will not be.
    pub(super) async fn settled(&self, most_failures: u32) -> Result<(), Slot> {
        let is_settled = |slot: &Slot| matches!(slot.phase, Phase::Healthy | Phase::Gone) || slot.gave_up || slot.failures >= most_failures;
        match self.slot.subscribe().wait_for(is_settled).await {
            Ok(slot) if slot.phase == Phase::Healthy => Ok(()),
            Ok(slot) => Err(slot.clone()),
            Err(_) => Err(self.slot()),
        }
    }

    /// If `id` is its process: its end is wished for, so another one follows at once.
    pub(super) fn expect_end(&self, id: &str) -> bool {
        let is_ours = self.slot.borrow().process.as_deref() == Some(id);
        if is_ours {
            self.asked.store(true, Ordering::Relaxed);
        }
        is_ours
    }

    fn set(&self, inner: &Inner, change: impl FnOnce(&mut Slot)) {
        self.slot.send_modify(change);
        inner.refresh(&self.app.app, &self.service.name);
    }

    fn say(&self, inner: &Inner, message: &str) {
        inner.logs.append(&self.app.app, &format!("system/service/{}", self.service.name), message);
    }

    fn fail(&self, inner: &Inner, process: Option<String>, reason: String, gave_up: bool) {
        self.set(inner, |slot| {
            *slot = Slot {
                phase: Phase::Waiting,
                failures: slot.failures + 1,
                gave_up: slot.gave_up || gave_up,
                reason,
                failed: process,
                process: None,
                backend: None,
            };
        });
    }

    async fn start(&self, inner: &Inner) -> Result<ProcessState, String> {
        resource::ready(inner, &self.app.app, &self.service).await?;
        let command = environment::command(inner.runtime.isolation(), &self.app.dir, &self.service)?;
        let port = match &self.service.port {
            Some(_) => Some(inner.ports.take().map_err(|error| error.to_string())?),
            None => None,
        };
        let outcome = self.start_on(inner, command, port).await;
        if let (Err(_), Some(port)) = (&outcome, port) {
            inner.ports.release(port);
        }
        outcome
    }

    async fn start_on(&self, inner: &Inner, command: Command, port: Option<u16>) -> Result<ProcessState, String> {
        let spec = environment::spec(inner, &self.app, &self.service, command, port).map_err(|error| error.to_string())?;
        inner.runtime.start(spec).await.map_err(|error| error.to_string())
    }

    /// Looks after one process until something happens.
    async fn watch(&self, inner: &Inner, process: &ProcessState) -> Outcome {
        tokio::select! {
            // The end is the better reason if there are two.
            biased;
            ended = inner.runtime.wait(&process.id) => match ended {
                Ok(state) => Outcome::Ended(Box::new(state)),
                Err(error) => Outcome::Unhealthy(error.to_string()),
            },
            () = inner.stop.cancelled() => Outcome::Left,
            () = self.retire.cancelled() => Outcome::Retired,
            reason = self.probe(inner, process) => Outcome::Unhealthy(reason),
        }
    }

    /// Checks a process for ever; returns when it should be replaced.
    async fn probe(&self, inner: &Inner, process: &ProcessState) -> String {
        let age = || jiff::Timestamp::now().duration_since(process.started).unsigned_abs();
        let Some(port) = process.port else {
            sleep(SETTLED.saturating_sub(age())).await;
            self.became_healthy(inner, process);
            return std::future::pending().await;
        };
        let health = &self.service.health;
        let begun = Instant::now();
        let patience = health.grace + health.interval * START_INTERVALS;
        let mut was_healthy = self.is_healthy();
        let mut failed = 0;
        let mut pause = FIRST_CHECK.min(health.interval);
        loop {
            match health::check(port, &self.service).await {
                Ok(()) => {
                    failed = 0;
                    if self.slot.borrow().phase != Phase::Healthy {
                        self.became_healthy(inner, process);
                    }
                    was_healthy = true;
                    pause = health.interval;
                }
                Err(reason) if !was_healthy => {
                    if begun.elapsed() >= patience {
                        return reason;
                    }
                    pause = (pause * 3 / 2).min(health.interval);
                }
                Err(reason) => {
                    failed += 1;
                    if failed == UNHEALTHY_AFTER {
                        self.say(inner, &format!("process {} is unhealthy: {reason}", process.id));
                        self.set(inner, |slot| slot.phase = Phase::Unhealthy);
                    }
                    if failed >= REPLACED_AFTER {
                        return reason;
                    }
                }
            }
            sleep(pause).await;
        }
    }

    fn became_healthy(&self, inner: &Inner, process: &ProcessState) {
        self.say(inner, &format!("process {} is healthy", process.id));
        self.set(inner, |slot| {
            slot.phase = Phase::Healthy;
            slot.failures = 0;
            slot.gave_up = false;
        });
    }

    /// Takes the process out of rotation, waits for its connections, stops it.
    async fn put_down(&self, inner: &Inner, process: &ProcessState, drain: Duration) {
        self.set(inner, |slot| slot.phase = Phase::Retiring);
        let target = self.slot.borrow().backend.clone();
        if let Some(target) = target {
            // Whoever is still connected afterwards had its time.
            let _ = timeout(drain, inner.router.drained(target)).await;
        }
        if let Err(error) = inner.runtime.stop(&process.id, None).await {
            self.say(inner, &format!("process {} could not be stopped: {error}", process.id));
        }
    }
}

/// Where the router finds a process of a service.
fn target(process: &ProcessState, service: &Service) -> Option<Target> {
    process.port.map(|port| Target { process: process.id.clone(), port, tls: service.scheme() == "https" })
}

async fn run(inner: Arc<Inner>, keeper: Arc<Keeper>, mut found: Option<ProcessState>) {
    let mut backoff = Backoff::default();
    while !keeper.retire.is_cancelled() {
        let started = match found.take() {
            Some(found) => Ok(found),
            None => keeper.start(&inner).await,
        };
        let pause = match started {
            Ok(process) => one_life(&inner, &keeper, &process, &mut backoff).await,
            Err(reason) => {
                let pause = backoff.next();
                keeper.say(&inner, &format!("{reason}; trying again in {} s", pause.as_secs()));
                keeper.fail(&inner, None, reason, false);
                Some(pause)
            }
        };
        if inner.stop.is_cancelled() {
            return;
        }
        tokio::select! {
            () = sleep(pause.unwrap_or_default()) => {}
            () = keeper.retire.cancelled() => {}
            () = inner.stop.cancelled() => return,
        }
    }
    keeper.set(&inner, |slot| *slot = Slot { phase: Phase::Gone, ..Slot::default() });
}

/// From a process's start to its end. The pause before the next one, or `None` for no next one.
async fn one_life(inner: &Arc<Inner>, keeper: &Keeper, process: &ProcessState, backoff: &mut Backoff) -> Option<Duration> {
    let begun = Instant::now();
    keeper.asked.store(false, Ordering::Relaxed);
    keeper.set(inner, |slot| {
        let is_known = slot.phase == Phase::Healthy && slot.process.as_ref() == Some(&process.id);
        if !is_known {
            slot.phase = Phase::Starting;
        }
        slot.process = Some(process.id.clone());
        slot.backend = target(process, &keeper.service);
    });
    let outcome = keeper.watch(inner, process).await;
    let was_proven = keeper.is_healthy() && begun.elapsed() >= PROVEN;
    if was_proven {
        *backoff = Backoff::default();
    }
    let pause = match outcome {
        Outcome::Left => return None,
        Outcome::Retired => {
            let drain = if keeper.hurry.load(Ordering::Relaxed) { Duration::ZERO } else { keeper.service.drain };
            keeper.put_down(inner, process, drain).await;
            keeper.say(inner, &format!("process {} stopped", process.id));
            None
        }
        Outcome::Ended(_) if keeper.retire.is_cancelled() => None,
        Outcome::Ended(_) if keeper.asked.swap(false, Ordering::Relaxed) => {
            keeper.say(inner, &format!("process {} was stopped; starting another", process.id));
            keeper.set(inner, |slot| *slot = Slot { failures: slot.failures, ..Slot::default() });
            Some(Duration::ZERO)
        }
        Outcome::Ended(state) => {
            let pause = backoff.next();
            let reason = format!("process {} {}", process.id, how_it_ended(&state));
            keeper.say(inner, &format!("{reason}; starting another in {} s", pause.as_secs()));
            keeper.fail(inner, Some(process.id.clone()), reason, false);
            Some(pause)
        }
        Outcome::Unhealthy(reason) => {
            let pause = backoff.next();
            let reason = format!("process {} is not healthy: {reason}", process.id);
            keeper.say(inner, &format!("{reason}; replacing it"));
            let was_healthy = keeper.slot.borrow().phase == Phase::Unhealthy;
            let drain = if was_healthy { keeper.service.drain } else { Duration::ZERO };
            // Told before it is stopped: a promotion need not wait for that.
            if !was_healthy {
                keeper.set(inner, |slot| {
                    slot.gave_up = true;
                    slot.reason.clone_from(&reason);
                    slot.failed = Some(process.id.clone());
                });
            }
            keeper.put_down(inner, process, drain).await;
            keeper.fail(inner, Some(process.id.clone()), reason, !was_healthy);
            Some(pause)
        }
    };
    if let Some(port) = process.port {
        inner.ports.release(port);
    }
    inner.runtime.forget(&process.id).await;
    pause
}
