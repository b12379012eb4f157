//! One resource of an app, kept running: its server is started, asked whether it answers, and started again when it ends. A server that is busy with
//! itself (it reads its log after a crash) is left to that for as long as it takes: only its own end is followed by another start.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use convox_seal::Secret;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::keeper::{Keeper, PROVEN};
use super::slot::{Backoff, how_it_ended};
use super::{App, DesiredApp, Inner, ResourceState, SchedulerError};
use crate::manifest::{Resource, Service};
use crate::resources::{self, Access, Kind, Seat, Session};
use crate::router::{Route, Target};
use crate::runtime::{ExecSpec, ExecStream, ProcessKind, ProcessState, RESOURCE, TerminalSize};

/// How long a process that needs a resource waits for it before it counts as a failed start.
const PATIENCE: Duration = Duration::from_mins(2);
/// Pause between looks at a server that does not answer yet.
const SOON: Duration = Duration::from_millis(200);
/// Pause between looks at one that does.
const LATER: Duration = Duration::from_secs(5);
/// Failed looks in a row at one that answered before after which it is said not to.
const SILENT_AFTER: u32 = 2;
/// Pause between looks at one that answered before and does not now.
const AGAIN: Duration = Duration::from_secs(1);

/// The server of one resource.
pub(super) struct ResourceKeeper {
    app: String,
    resource: Resource,
    kind: Kind,
    password: Arc<Secret>,
    state: watch::Sender<State>,
    retire: CancellationToken,
}

#[derive(Clone, Default)]
struct State {
    /// Its process, once started.
    process: Option<Target>,
    /// It has answered: it gets connections until it ends.
    is_ready: bool,
    /// It has answered, and does not any more. It may be busy with itself, so that is told and nothing is done.
    is_silent: bool,
    /// Starts since it last answered that came to nothing.
    failures: u32,
    /// What was seen last.
    seen: String,
    is_gone: bool,
}

impl ResourceKeeper {
    /// Begins to keep it, with a process that was found again if there is one, and after another one of the same data is gone. `None` if no password
    /// was given for it, which is a fault of the caller.
    pub(super) fn begin(
        inner: &Arc<Inner>,
        app: &DesiredApp,
        resource: &Resource,
        kind: Kind,
        found: Option<ProcessState>,
        before: Option<Arc<Self>>,
    ) -> Option<Arc<Self>> {
        // One that the router sends connections to answered before the Rack was away: who is connected must not notice that it was.
        let target = found.as_ref().and_then(|found| Some(Target { process: found.id.clone(), port: found.port?, tls: false }));
        let is_ready = target.as_ref().is_some_and(|target| inner.routed.contains(target));
        let keeper = Arc::new(Self {
            app: app.app.clone(),
            resource: resource.clone(),
            kind,
            password: Arc::clone(app.resources.get(&resource.name)?),
            state: watch::Sender::new(State { process: target, is_ready, ..State::default() }),
            retire: CancellationToken::new(),
        });
        inner.tasks.spawn(run(Arc::clone(inner), Arc::clone(&keeper), found, before));
        Some(keeper)
    }

    pub(super) fn name(&self) -> &str {
        &self.resource.name
    }

    /// What was seen last.
    pub(super) fn seen(&self) -> String {
        self.state.borrow().seen.clone()
    }

    /// Stops the server; its data stays. Returns at once.
    pub(super) fn retire(&self) {
        self.retire.cancel();
    }

    pub(super) async fn gone(&self) {
        // Cannot fail: the sender is ours.
        let _ = self.state.subscribe().wait_for(|state| state.is_gone).await;
    }

    /// Waits until it answers, or failed to start so often that it will not.
    pub(super) async fn settled(&self, most_failures: u32) -> Result<(), String> {
        let is_settled = |state: &State| state.is_ready || state.is_gone || state.failures >= most_failures;
        match self.state.subscribe().wait_for(is_settled).await {
            Ok(state) if state.is_ready => Ok(()),
            Ok(state) => Err(state.seen.clone()),
            Err(_) => Err(self.seen()),
        }
    }

    fn seat<'a>(&'a self, dir: &'a Path) -> Seat<'a> {
        Seat { dir, app: &self.app, resource: &self.resource, kind: self.kind, password: &self.password }
    }

    fn say(&self, inner: &Inner, message: &str) {
        inner.logs.append(&self.app, &format!("system/resource/{}", self.name()), message);
    }

    fn set(&self, inner: &Inner, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
        refresh(inner, &self.app, self.name());
    }

    /// Stops what else runs on its data, such as the server of a promotion that the Rack's own end cut short: two servers on the same files
    /// would ruin them.
    async fn alone(&self, inner: &Inner) -> Result<(), String> {
        let service = place(self.name());
        let others = inner.runtime.list().into_iter().filter(|process| {
            process.kind == ProcessKind::Resource && process.app == self.app && process.service == service && !process.status.is_final()
        });
        for other in others {
            let stopped = inner.runtime.stop(&other.id, None).await;
            stopped.map_err(|error| format!("process {} still runs on its data and could not be stopped: {error}", other.id))?;
        }
        Ok(())
    }

    async fn start(&self, inner: &Inner) -> Result<ProcessState, String> {
        self.alone(inner).await?;
        let port = inner.ports.take().map_err(|error| error.to_string())?;
        let outcome = self.start_on(inner, port).await;
        if outcome.is_err() {
            inner.ports.release(port);
        }
        outcome
    }

    async fn start_on(&self, inner: &Inner, port: u16) -> Result<ProcessState, String> {
        let id = super::new_process_id().map_err(|error| error.to_string())?;
        let (spec, note) = self.seat(&inner.config.resources).spec(&*inner.runtime, id, port).await?;
        self.say(inner, &note);
        inner.runtime.start(spec).await.map_err(|error| error.to_string())
    }

    /// Looks at a server for ever.
    async fn look(&self, inner: &Inner, port: u16) {
        let seat = self.seat(&inner.config.resources);
        // A server of the machine's own is asked without its password: until it has answered, nobody knows that it is the one that listens there.
        let password = if seat.is_on_machine().await { None } else { Some(&*self.password) };
        let mut failed = 0;
        loop {
            let (was_ready, was_silent) = {
                let state = self.state.borrow();
                (state.is_ready, state.is_silent)
            };
            let mut seen = resources::health::check(self.kind, port, password).await;
            if seen.is_ok() && !was_ready {
                // Before anybody is let in who could write something.
                seen = seat.made().await;
            }
            match seen {
                Ok(()) => {
                    failed = 0;
                    if !was_ready || was_silent {
                        self.say(inner, if was_ready { "answers again" } else { "is ready" });
                        self.set(inner, |state| *state = State { is_ready: true, process: state.process.clone(), ..State::default() });
                    }
                }
                Err(reason) => {
                    failed += 1;
                    if was_ready && failed == SILENT_AFTER {
                        self.say(inner, &format!("does not answer: {reason}"));
                    }
                    self.state.send_modify(|state| {
                        state.is_silent = was_ready && failed >= SILENT_AFTER;
                        state.seen = reason;
                    });
                }
            }
            let is_ready = self.state.borrow().is_ready;
            let pause = match failed {
                _ if !is_ready => SOON,
                0 => LATER,
                _ => AGAIN,
            };
            sleep(pause).await;
        }
    }

    /// From a server's start to its end; whether the Rack only lets go of it.
    async fn life(&self, inner: &Inner, process: &ProcessState) -> bool {
        let port = process.port.unwrap_or_default();
        let target = Target { process: process.id.clone(), port, tls: false };
        self.set(inner, |state| state.process = Some(target));
        let reason = tokio::select! {
            biased;
            ended = inner.runtime.wait(&process.id) => match ended {
                Ok(state) => format!("its server {}", how_it_ended(&state)),
                Err(error) => error.to_string(),
            },
            () = inner.stop.cancelled() => return true,
            () = self.retire.cancelled() => {
                // Those who are connected are told by the server itself.
                // Until it has really ended nothing else may start on its data.
                while let Err(error) = inner.runtime.stop(&process.id, None).await {
                    self.say(inner, &format!("could not be stopped: {error}"));
                    tokio::select! {
                        _ = inner.runtime.wait(&process.id) => break,
                        () = sleep(LATER) => {}
                        () = inner.stop.cancelled() => return true,
                    }
                }
                "was stopped".to_owned()
            }
            () = self.look(inner, port) => return true,
        };
        self.say(inner, &reason);
        let failures = self.state.borrow().failures + 1;
        self.set(inner, |state| *state = State { failures, seen: reason, ..State::default() });
        inner.ports.release(port);
        inner.runtime.forget(&process.id).await;
        false
    }
}

async fn run(inner: Arc<Inner>, keeper: Arc<ResourceKeeper>, mut found: Option<ProcessState>, before: Option<Arc<ResourceKeeper>>) {
    if let Some(before) = before {
        before.gone().await;
    }
    let mut backoff = Backoff::default();
    while !keeper.retire.is_cancelled() {
        let started = match found.take() {
            Some(found) => Ok(found),
            None => keeper.start(&inner).await,
        };
        match started {
            Ok(process) => {
                let begun = Instant::now();
                if keeper.life(&inner, &process).await {
                    return;
                }
                if begun.elapsed() >= PROVEN {
                    backoff = Backoff::default();
                }
            }
            Err(reason) => {
                keeper.say(&inner, &format!("could not be started: {reason}"));
                keeper.set(&inner, |state| *state = State { failures: state.failures + 1, seen: reason, ..State::default() });
            }
        }
        tokio::select! {
            () = sleep(backoff.next()) => {}
            () = keeper.retire.cancelled() => {}
            () = inner.stop.cancelled() => return,
        }
    }
    keeper.set(&inner, |state| *state = State { is_gone: true, ..State::default() });
}

fn place(name: &str) -> String {
    format!("{RESOURCE}{name}")
}

/// Tells the router where the resource is now. Its port stays open while its server is not ready: who connects waits for it, and nobody else can take
/// the port that apps were told.
pub(super) fn refresh(inner: &Inner, app: &str, name: &str) {
    let place = place(name);
    let keeper = match inner.apps().get(app) {
        // Being taken up, or gone: what is routed for it is not this one's business.
        None => return,
        Some(entry) => entry.resources.get(name).cloned(),
    };
    let Some(keeper) = keeper else { return inner.router.change(|table| table.take(app, &place)) };
    match inner.ports.of_service(app, &place) {
        Ok(port) => {
            let route = |state: &State| Route {
                app: app.to_owned(),
                service: place.clone(),
                port,
                targets: state.process.clone().filter(|_| state.is_ready).into_iter().collect(),
                ..Route::default()
            };
            // Read where it is written: the latest state is what is routed at last.
            inner.router.change(|table| table.put(route(&keeper.state.borrow())));
        }
        Err(error) => inner.logs.append(app, &format!("system/resource/{name}"), &format!("no port to be reached on: {error}")),
    }
}

/// Begins what a release wants and what does not run as it wants it. All that it wants, to be waited for.
pub(super) fn begin(inner: &Arc<Inner>, desired: &DesiredApp) -> Vec<Arc<ResourceKeeper>> {
    let mut wanted = Vec::new();
    for (resource, kind) in resources::provided(&desired.manifest, &desired.env) {
        let mut apps = inner.apps();
        let Some(entry) = apps.get_mut(&desired.app) else { continue };
        let before = entry.resources.get(&resource.name).cloned();
        let keeper = match before {
            Some(keeper) if keeper.resource == *resource => Some(keeper),
            before => {
                // One that is on its way out has the same data: it goes first.
                let before = before.or_else(|| entry.ending.get(&resource.name).cloned());
                if let Some(before) = &before {
                    before.retire();
                }
                ResourceKeeper::begin(inner, desired, resource, kind, None, before)
            }
        };
        if let Some(keeper) = keeper {
            entry.resources.insert(resource.name.clone(), Arc::clone(&keeper));
            wanted.push(keeper);
        }
    }
    for keeper in &wanted {
        refresh(inner, &desired.app, keeper.name());
    }
    wanted
}

/// Stops what the running release does not want any more, when the places that may use it are gone.
pub(super) fn end_unwanted(inner: &Arc<Inner>, desired: &DesiredApp, users: Vec<Arc<Keeper>>) {
    let wanted: Vec<String> = resources::provided(&desired.manifest, &desired.env).map(|(resource, _)| resource.name.clone()).collect();
    let mut apps = inner.apps();
    let Some(entry) = apps.get_mut(&desired.app) else { return };
    let names: Vec<String> = entry.resources.keys().filter(|name| !wanted.contains(name)).cloned().collect();
    for name in names {
        end(inner, entry, &name, users.clone());
    }
}

/// Stops one resource when its users are gone. It stays known until then, so that nobody starts another server on its data meanwhile.
fn end(inner: &Arc<Inner>, entry: &mut App, name: &str, users: Vec<Arc<Keeper>>) {
    let Some(keeper) = entry.resources.remove(name) else { return };
    entry.ending.insert(name.to_owned(), Arc::clone(&keeper));
    let inner = Arc::clone(inner);
    inner.tasks.clone().spawn(async move {
        futures_util::future::join_all(users.iter().map(|user| user.gone())).await;
        keeper.retire();
        keeper.gone().await;
        let name = keeper.name();
        if let Some(entry) = inner.apps().get_mut(&keeper.app)
            && entry.ending.get(name).is_some_and(|ending| Arc::ptr_eq(ending, &keeper))
        {
            entry.ending.remove(name);
        }
        // Of another one that took its place meanwhile, the route stays.
        refresh(&inner, &keeper.app, name);
        keeper.say(&inner, "is not in the manifest any more and was stopped; its data is kept until the app is deleted, and is there again when the manifest names it again");
    });
}

/// After a promotion that failed: what the running release wants, as it wants it.
pub(super) fn restore(inner: &Arc<Inner>, app: &str) {
    let running = inner.apps().get(app).and_then(|entry| entry.desired.clone());
    match running {
        Some(running) => {
            drop(begin(inner, &running));
            end_unwanted(inner, &running, Vec::new());
        }
        None => {
            let mut apps = inner.apps();
            let Some(entry) = apps.get_mut(app) else { return };
            for name in entry.resources.keys().cloned().collect::<Vec<_>>() {
                end(inner, entry, &name, Vec::new());
            }
        }
    }
}

/// Waits until the resources that a service uses answer.
pub(super) async fn ready(inner: &Inner, app: &str, service: &Service) -> Result<(), String> {
    let used: Vec<_> = {
        let apps = inner.apps();
        let Some(entry) = apps.get(app) else { return Ok(()) };
        resources::used(service).filter_map(|name| entry.resources.get(name).cloned()).collect()
    };
    for keeper in used {
        let settled = timeout(PATIENCE, keeper.settled(u32::MAX)).await;
        let reason = match settled {
            Ok(Ok(())) => continue,
            Ok(Err(reason)) => reason,
            Err(_) => format!("it does not answer within {} s: {}", PATIENCE.as_secs(), keeper.seen()),
        };
        return Err(format!("resource {} is not ready: {reason}", keeper.name()));
    }
    Ok(())
}

impl ResourceKeeper {
    fn access(&self, inner: &Inner) -> Option<Access> {
        let port = inner.ports.of_service(&self.app, &place(self.name())).ok()?;
        Some(Access { kind: self.kind, host: inner.runtime.isolation().machine(), port, password: Arc::clone(&self.password) })
    }
}

/// The URLs of what a service uses, by name.
pub(super) fn urls(inner: &Inner, app: &DesiredApp, service: &Service) -> BTreeMap<String, String> {
    let of = |name: &str| {
        if let Some(url) = resources::external(&app.env, name) {
            return Some(url.to_owned());
        }
        let keeper = inner.apps().get(&app.app)?.resources.get(name).cloned()?;
        Some(keeper.access(inner)?.url())
    };
    resources::used(service).filter_map(|name| Some((name.to_owned(), of(name)?))).collect()
}

pub(super) fn states(inner: &Inner, app: &str) -> Vec<ResourceState> {
    let Some(desired) = inner.apps().get(app).and_then(|entry| entry.desired.clone()) else { return Vec::new() };
    let mut states: Vec<ResourceState> = desired
        .manifest
        .resources
        .iter()
        .filter_map(|resource| {
            let state = |status, url| ResourceState { name: resource.name.clone(), kind: resource.kind.clone(), status, url };
            if let Some(url) = resources::external(&desired.env, &resource.name) {
                return Some(state("external", url.to_owned()));
            }
            let keeper = inner.apps().get(app)?.resources.get(&resource.name).cloned()?;
            let status = match &*keeper.state.borrow() {
                State { is_ready: false, .. } => "pending",
                State { is_silent: true, .. } => "unhealthy",
                _ => "running",
            };
            Some(state(status, keeper.access(inner)?.url()))
        })
        .collect();
    states.sort_by(|a, b| a.name.cmp(&b.name));
    states
}

pub(super) fn ports(inner: &Inner) -> Vec<u16> {
    let keepers: Vec<_> = inner.apps().values().flat_map(|entry| entry.resources.values().cloned()).collect();
    keepers.iter().filter_map(|keeper| keeper.access(inner)).map(|access| access.port).collect()
}

pub(super) async fn session(
    inner: &Inner,
    app: &str,
    name: &str,
    what: Session,
    tty: Option<TerminalSize>,
) -> Result<ExecStream, SchedulerError> {
    let refused = |reason: String| SchedulerError::Resource(reason);
    let keeper = inner.apps().get(app).and_then(|entry| entry.resources.get(name).cloned());
    let keeper =
        keeper.ok_or_else(|| refused(format!("the server of resource {name} is not this Rack's; use its url with your own tools")))?;
    let process = keeper.state.borrow().process.clone();
    let process = process.ok_or_else(|| refused(format!("resource {name} does not run: {}", keeper.seen())))?;
    let isolation = inner.runtime.isolation();
    // A console and an import can start programs where they run. In an app's own container that is the app's right, on the machine it is not.
    let is_plain = keeper.seat(&inner.config.resources).is_on_machine().await;
    if is_plain && isolation.has_images() && what != Session::Export {
        let words = "runs on the machine itself, beside its containers: connect from yours, with `convox resources proxy`";
        return Err(refused(format!("resource {name} {words}")));
    }
    let server = if is_plain { Some(keeper.seat(&inner.config.resources).server().await.map_err(refused)?) } else { None };
    let port = if is_plain || !isolation.has_own_network() { process.port } else { keeper.kind.port() };
    let access = Access { kind: keeper.kind, host: IpAddr::V4(Ipv4Addr::LOCALHOST), port, password: Arc::clone(&keeper.password) };
    let (command, env) = resources::session(keeper.kind, what, server.as_ref(), &access).map_err(refused)?;
    let spec = ExecSpec { command, tty, env, no_input: what == Session::Export, ..ExecSpec::default() };
    Ok(inner.runtime.exec(&process.process, spec).await?)
}
