//! Keeps what runs equal to what is wanted: starts, restarts with backoff, checks health,
//! promotes, scales, and tells the router who is healthy. Each service has one stable port.
//!
//! Knows nothing of requests or rows: the Rack's API tells it what is wanted (at start: every app
//! with an active release) and asks it what is.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use convox_seal::Secret;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::command::Command;
use crate::logs::LogStore;
use crate::manifest::{Manifest, MissingEnv, Service};
use crate::resources::Session;
use crate::router::{Certificate, Router, RouterConfig, Table, Target};
use crate::runtime::{ExecSpec, ExecStream, ProcessKind, ProcessState, Runtime, RuntimeError, TerminalSize};

mod dockerfile;
mod environment;
mod health;
mod keeper;
mod names;
mod one_off;
mod places;
mod ports;
mod promote;
mod resource;
mod restart;
mod resume;
mod slot;
mod timers;

pub(crate) use environment::{command, directory};
use keeper::Keeper;
use ports::Ports;
use resource::ResourceKeeper;

/// What tasks get to let go of what they hold when the Rack shuts down.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Size of a service that someone set by `scale`; `None` means what the manifest says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formation {
    /// Processes wanted.
    pub count: Option<u32>,
    /// CPU units, 1024 to a core; enforced by containers, shown by plain processes.
    pub cpu: Option<u32>,
    /// Memory in MB; enforced by containers, shown by plain processes.
    pub memory: Option<u32>,
}

/// What should run for one app.
#[derive(Clone, Default)]
pub struct DesiredApp {
    /// Name of the app.
    pub app: String,
    /// Id of the release.
    pub release: String,
    /// Id of its build.
    pub build: String,
    /// The build's description (for `BUILD_DESCRIPTION`).
    pub build_description: String,
    /// The commit that was built (for `BUILD_GIT_SHA`).
    pub build_git_sha: String,
    /// The checked manifest, read with this release's environment
    /// ([`Manifest::parse_with`](crate::manifest::Manifest::parse_with)).
    pub manifest: Manifest,
    /// The release's environment. Holds secrets.
    pub env: BTreeMap<String, String>,
    /// The build's source directory: processes run in it.
    pub dir: PathBuf,
    /// Sizes set by `scale`, by service name.
    pub formation: BTreeMap<String, Formation>,
    /// Whether it is served by HTTP where it could be by HTTPS, whatever the manifest says.
    pub plain_http: Option<bool>,
    /// Passwords of the resources that the Rack runs for it, by name.
    pub resources: BTreeMap<String, Arc<Secret>>,
}

/// How to promote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromoteOptions {
    /// Longest time for all new processes to become healthy; 10 minutes if not given.
    pub timeout: Option<Duration>,
}

/// Why a promotion did not happen. The old release runs on as before.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// The release's environment lacks what the manifest requires. Nothing was started.
    #[error(transparent)]
    Environment(#[from] MissingEnv),
    /// The manifest asks for something that this Rack cannot do. Nothing was started.
    #[error("{0}")]
    Manifest(String),
    /// New processes did not become healthy, or ended; they are stopped again.
    #[error("release {release}: service {service} did not become healthy: {reason}")]
    Unhealthy {
        /// Id of the release.
        release: String,
        /// The first service that failed.
        service: String,
        /// What was seen, with the process's last lines.
        reason: String,
    },
    /// `cancel` was called.
    #[error("promotion of {release} was cancelled")]
    Cancelled {
        /// Id of the release.
        release: String,
    },
    /// Another app is served under one of its host names. Nothing was started.
    #[error(
        "release {release}: the host name {name} is served for app {owner}: give another `domain` in convox.yml, or promote a release of {owner} without it first"
    )]
    Name {
        /// Id of the release.
        release: String,
        /// The host name.
        name: String,
        /// The app that has it.
        owner: String,
    },
    /// A resource did not come up. No service was started.
    #[error("release {release}: resource {resource} did not become ready: {reason}")]
    Resource {
        /// Id of the release.
        release: String,
        /// Its name.
        resource: String,
        /// What was seen.
        reason: String,
    },
    /// Another promotion of the app is under way.
    #[error("app is currently updating")]
    Busy,
}

/// A service as it is wanted and as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// The first host name of the manifest, or empty.
    pub domain: String,
    /// Processes wanted.
    pub count: u32,
    /// Processes running and healthy.
    pub running: u32,
    /// CPU units.
    pub cpu: u32,
    /// Memory in MB.
    pub memory: u32,
    /// The stable loopback port that forwards to healthy processes, if the service has a port.
    pub balancer: Option<u16>,
    /// The port in the manifest.
    pub port: Option<u16>,
    /// Where one can reach it on this machine, as `http://127.0.0.1:PORT`.
    pub endpoint: Option<String>,
}

/// A resource as it is.
pub struct ResourceState {
    /// Its name.
    pub name: String,
    /// `postgres`, `redis`, ...
    pub kind: String,
    /// `running`, `unhealthy` for one that does not answer any more, `pending` for one that has not answered yet, or `external` for one that is
    /// somebody else's.
    pub status: &'static str,
    /// How apps reach it. Holds its password.
    pub url: String,
}

/// A command to run once.
#[derive(Clone, Default)]
pub struct OneOff {
    /// Name of the service whose code and environment to use.
    pub service: String,
    /// The command; the service's own if there is none.
    pub command: Command,
    /// The timer that it is a run of.
    pub timer: Option<String>,
    /// Added to, and winning over, the service's environment. Holds secrets.
    pub env: BTreeMap<String, String>,
    /// What it may use where that is another than what the service's processes may.
    pub limits: crate::runtime::Limits,
}

/// What the scheduler could not do.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// The app has no such service, or nothing of it is promoted.
    #[error("service not found: {0}; see `convox services`")]
    NoService(String),
    /// The app has no promoted release.
    #[error("app {0} has no promoted release; run `convox deploy` first")]
    NoApp(String),
    /// What the app runs cannot be read.
    #[error("app {app} runs on as it was and cannot be changed: {reason}; promote a release that can be read")]
    Held {
        /// Its name.
        app: String,
        /// Why not.
        reason: String,
    },
    /// The environment lacks what the manifest requires.
    #[error(transparent)]
    Environment(#[from] MissingEnv),
    /// The service cannot run on this Rack, for the reason given.
    #[error("{0}")]
    Manifest(String),
    /// The resource is not there, or not able to do that.
    #[error("{0}")]
    Resource(String),
    /// The runtime could not do it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A file or a port was refused.
    #[error("scheduler: {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's own word.
        source: std::io::Error,
    },
}

/// Where the scheduler works and what it tells processes about the Rack.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    /// Name of the Rack, in `RACK`.
    pub rack: String,
    /// Directory for what must outlive a restart (the services' ports, and the router's socket).
    pub dir: PathBuf,
    /// Directory for the data of apps' resources.
    pub resources: PathBuf,
    /// The `convox-rack` binary, which is the router too.
    pub program: PathBuf,
    /// Where apps are reached from outside.
    pub router: RouterConfig,
}

/// Keeps apps running. Hold it in an `Arc`. Dropping it stops reconciling and leaves every process
/// running.
pub struct Scheduler {
    inner: Arc<Inner>,
}

/// What all parts of the scheduler share.
struct Inner {
    config: SchedulerConfig,
    runtime: Arc<dyn Runtime>,
    logs: LogStore,
    ports: Ports,
    router: Router,
    /// Processes that the router sent requests to when this Rack came up.
    routed: HashSet<Target>,
    apps: Mutex<BTreeMap<String, App>>,
    /// Cancelled when the Rack shuts down: everyone lets go of what runs.
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// One app.
#[derive(Default)]
struct App {
    /// What runs; `None` before the first promotion has succeeded.
    desired: Option<Arc<DesiredApp>>,
    /// The latest sizes set by `scale`.
    formation: BTreeMap<String, Formation>,
    /// The latest word on HTTP beside HTTPS.
    plain_http: Option<bool>,
    services: BTreeMap<String, Places>,
    resources: BTreeMap<String, Arc<ResourceKeeper>>,
    /// Resources that are being given up: nothing else starts on their data before they are gone.
    ending: BTreeMap<String, Arc<ResourceKeeper>>,
    /// Places of a promotion under way.
    next: Vec<Arc<Keeper>>,
    /// Places that are being given up.
    retiring: Vec<Arc<Keeper>>,
    promotion: Option<Promotion>,
    /// Its active release cannot be read: what runs of it is left alone.
    held: Option<Held>,
}

/// An app whose active release cannot be read.
struct Held {
    reason: String,
    /// Names under which it is served.
    names: Vec<String>,
}

/// The places of one service.
#[derive(Default)]
struct Places {
    /// Its own, on which it is reached inside of the machine.
    port: Option<u16>,
    keepers: Vec<Arc<Keeper>>,
    /// A rolling restart under way.
    restart: Option<CancellationToken>,
}

/// A promotion under way.
#[derive(Clone, Default)]
struct Promotion {
    cancel: CancellationToken,
    done: CancellationToken,
    /// Host names of its release.
    names: Vec<String>,
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

impl Scheduler {
    /// Adopts what an earlier run of the Rack left running, takes up the wanted apps (every app
    /// with an active release), and begins to reconcile. Apps in `held` have an active release that cannot be read, for the reason given: what runs of
    /// them runs on and is served as before, and nothing of it is replaced when it ends.
    pub async fn start(
        config: SchedulerConfig,
        runtime: Arc<dyn Runtime>,
        logs: LogStore,
        apps: Vec<DesiredApp>,
        held: BTreeMap<String, String>,
    ) -> Result<Arc<Self>, SchedulerError> {
        let ports = Ports::open(&config.dir)
            .map_err(|source| SchedulerError::Io { doing: format!("reading ports.json in {}", config.dir.display()), source })?;
        let mut inside = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let machine = runtime.isolation().machine();
        if machine != Ipv4Addr::LOCALHOST {
            // Containers reach each other's services here.
            inside.push(machine);
        }
        let base = Table { http: config.router.http, https: config.router.https, inside, ..Table::default() };
        let started = Router::start(&config.dir, &config.program, base).await;
        let (router, earlier) = started.map_err(|source| SchedulerError::Io { doing: "starting the router".to_owned(), source })?;
        let inner = Arc::new(Inner {
            router,
            routed: earlier.routes.iter().flat_map(|route| route.targets.clone()).collect(),
            config,
            runtime,
            logs,
            ports,
            apps: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let found = inner.runtime.adopt().await?;
        resume::hold(&inner, held, &earlier.routes);
        resume::resume(&inner, found, apps);
        inner.tasks.spawn(resume::tidy(Arc::clone(&inner)));
        inner.tasks.spawn(timers::follow(Arc::clone(&inner)));
        inner.tasks.spawn(answer_router(Arc::clone(&inner)));
        Ok(Arc::new(Self { inner }))
    }

    /// Stops reconciling and serving, and leaves every process running. Returns when no task of
    /// the scheduler runs any more.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        // Bounded: whoever is in the middle of a long stop is left to the shims.
        let _ = timeout(SHUTDOWN, self.inner.tasks.wait()).await;
        // It goes on with what it was told last.
        self.inner.router.leave();
    }

    /// Where apps are reached by name: HTTP, and HTTPS.
    pub fn fronts(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let applied = self.inner.router.applied();
        let applied = applied.borrow();
        (applied.http, applied.https)
    }

    /// Names under which an app's running release is served.
    pub(crate) fn hosts(&self, app: &str) -> Vec<String> {
        let desired = self.inner.apps().get(app).and_then(|entry| entry.desired.clone());
        desired.map(|desired| self.inner.names(&desired)).unwrap_or_default()
    }

    /// The services of all running releases (or of this app's), with their apps and the names under which they are served.
    pub(crate) fn served(&self, app: Option<&str>) -> Vec<(String, Service, Vec<String>)> {
        let apps = self.inner.apps();
        let running = apps.values().filter_map(|entry| entry.desired.as_ref()).filter(|desired| app.is_none_or(|app| desired.app == app));
        let services = running.flat_map(|desired| desired.manifest.services.iter().map(|service| (&desired.app, service)));
        services.map(|(app, service)| (app.clone(), service.clone(), self.inner.hosts(app, service))).collect()
    }

    /// Has the router serve these certificates by name, the later ones first: names, chain, key.
    pub(crate) fn serve_certificates(&self, certificates: impl Iterator<Item = (Vec<String>, String, Secret)>) {
        let certificates: Vec<_> =
            certificates.map(|(domains, certificate, key)| Certificate { domains, certificate, key: key.expose().to_owned() }).collect();
        self.inner.router.change(|table| {
            let is_changed = table.certificates != certificates;
            table.certificates = certificates;
            is_changed
        });
    }

    /// Has the router answer a question of a certificate authority, or no more; answered from when this returns.
    pub(crate) async fn challenge(&self, token: &str, answer: Option<String>) {
        self.inner.router.change(|table| {
            table.challenges.retain(|(known, _)| known != token);
            table.challenges.extend(answer.map(|answer| (token.to_owned(), answer)));
            true
        });
        self.inner.router.settled().await;
    }

    /// What the router did since it began; `None` if it does not say.
    pub(crate) async fn router_counts(&self) -> Option<crate::router::Counted> {
        self.inner.router.counted().await
    }

    /// All processes of services that have not ended, and one-off processes, of all apps.
    pub(crate) fn all_processes(&self) -> Vec<ProcessState> {
        let living =
            self.inner.runtime.list().into_iter().filter(|process| process.kind != ProcessKind::Resource && !process.status.is_final());
        living.map(|process| self.inner.with_health(process)).collect()
    }

    /// Addresses on which the router could not listen, and why.
    pub fn router_failures(&self) -> Vec<(SocketAddr, String)> {
        self.inner.router.applied().borrow().failures.clone()
    }

    /// Replaces the running release by this one: starts new processes, waits until they are
    /// healthy, turns traffic over, drains and stops the old. Takes as long as that takes: run it
    /// in a task. Goes on to its end if the caller goes away. On an error the old release runs on
    /// (or nothing, if there was none). Progress goes to the app's log as `system/...` lines.
    pub async fn promote(&self, desired: DesiredApp, options: PromoteOptions) -> Result<(), PromoteError> {
        let (inner, release) = (Arc::clone(&self.inner), desired.release.clone());
        let task = self.inner.tasks.spawn(promote::promote(inner, desired, options));
        task.await.unwrap_or(Err(PromoteError::Cancelled { release }))
    }

    /// Whether every host name of a release may be its app's.
    pub fn check_names(&self, desired: &DesiredApp) -> Result<(), PromoteError> {
        promote::check_names(&self.inner, &self.inner.apps(), desired)
    }

    /// Makes a running promotion of the app fail with [`PromoteError::Cancelled`]. Says whether
    /// there was one.
    pub fn cancel(&self, app: &str) -> bool {
        let apps = self.inner.apps();
        let promotion = apps.get(app).and_then(|app| app.promotion.as_ref());
        promotion.inspect(|promotion| promotion.cancel.cancel()).is_some()
    }

    /// Takes over changed sizes of a service without a new release. Returns at once; watch
    /// [`Scheduler::services`] for the effect.
    pub fn scale(&self, app: &str, service: &str, formation: Formation) -> Result<(), SchedulerError> {
        let mut apps = self.inner.apps();
        let (entry, _) = places::running(&mut apps, app, service)?;
        entry.formation.insert(service.to_owned(), formation);
        self.inner.fill(entry, service);
        Ok(())
    }

    /// Serves an app by HTTP from now on where it could be by HTTPS, or not, or as its manifest says.
    pub fn set_plain_http(&self, app: &str, plain_http: Option<bool>) {
        let mut apps = self.inner.apps();
        let Some(entry) = apps.get_mut(app) else { return };
        entry.plain_http = plain_http;
        let services: Vec<String> = entry.services.keys().cloned().collect();
        for service in services {
            self.inner.route(app, entry, &service);
        }
    }

    /// Has the router keep others out than these networks, whatever the app; none is nobody.
    pub(crate) fn set_allowed(&self, networks: &[ipnet::IpNet]) {
        self.inner.router.change(|table| {
            let is_changed = table.allowed != networks;
            table.allowed = networks.to_vec();
            is_changed
        });
    }

    /// Stops everything of an app and forgets it, its ports included. Returns when all is gone.
    pub async fn remove(&self, app: &str) -> Result<(), SchedulerError> {
        self.inner.remove(app).await
    }

    /// The services of an app's running release, in the manifest's order; empty if none.
    pub fn services(&self, app: &str) -> Vec<ServiceState> {
        let apps = self.inner.apps();
        let Some(entry) = apps.get(app) else { return Vec::new() };
        let Some(desired) = &entry.desired else { return Vec::new() };
        desired.manifest.services.iter().map(|service| entry.service_state(service)).collect()
    }

    /// The processes of an app: those of services that have not ended, and one-off processes,
    /// also for a while after they ended.
    pub fn processes(&self, app: &str) -> Vec<ProcessState> {
        let of_app = self.inner.runtime.list().into_iter().filter(|process| process.app == app);
        let is_shown = |process: &ProcessState| match process.kind {
            ProcessKind::OneOff => true,
            ProcessKind::Service => !process.status.is_final(),
            ProcessKind::Resource => false,
        };
        of_app.filter(is_shown).map(|process| self.inner.with_health(process)).collect()
    }

    /// One process of an app, ended ones included while they are known.
    pub fn process(&self, app: &str, id: &str) -> Option<ProcessState> {
        self.inner.runtime.get(id).filter(|process| process.app == app).map(|process| self.inner.with_health(process))
    }

    /// Replaces the processes of a service one after the other, each only when its successor is
    /// healthy (a singleton only when its predecessor is gone). Returns at once.
    pub fn restart_service(&self, app: &str, service: &str) -> Result<(), SchedulerError> {
        restart::restart(&self.inner, app, service)
    }

    /// Starts a one-off process of this release (the app's running one, or another of it) and
    /// returns once it runs.
    pub async fn run_one_off(&self, release: &DesiredApp, one_off: OneOff) -> Result<ProcessState, SchedulerError> {
        one_off::run(&self.inner, release, one_off).await
    }

    /// Stops one process. A service's process is replaced by a new one. Returns when it is gone.
    pub async fn stop_process(&self, app: &str, id: &str) -> Result<(), SchedulerError> {
        let process = self.inner.runtime.get(id).filter(|process| process.app == app);
        let process = process.ok_or_else(|| RuntimeError::NotFound(id.to_owned()))?;
        self.inner.expect_end(&process);
        Ok(self.inner.runtime.stop(id, None).await?)
    }

    /// The resources of an app's running release, by name.
    pub fn resources(&self, app: &str) -> Vec<ResourceState> {
        resource::states(&self.inner, app)
    }

    /// The ports on which resources are reached, of all apps.
    pub(crate) fn resource_ports(&self) -> Vec<u16> {
        resource::ports(&self.inner)
    }

    /// A console of a resource, or its data on the way out or in.
    pub(crate) async fn resource_session(
        &self,
        app: &str,
        name: &str,
        what: Session,
        tty: Option<TerminalSize>,
    ) -> Result<ExecStream, SchedulerError> {
        resource::session(&self.inner, app, name, what, tty).await
    }

    /// Runs a command in a process of an app.
    pub async fn exec(&self, app: &str, id: &str, spec: ExecSpec) -> Result<ExecStream, SchedulerError> {
        one_off::exec(&self.inner, app, id, spec).await
    }
}

/// Does something about ports on which the router could not listen.
async fn answer_router(inner: Arc<Inner>) {
    let mut applied = inner.router.applied();
    loop {
        let failures = applied.borrow_and_update().failures.clone();
        for (address, reason) in failures {
            if address.ip().is_loopback() {
                inner.replace_port(address.port(), &reason);
            } else {
                tracing::error!(%address, %reason, "the router cannot listen there");
            }
        }
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = inner.stop.cancelled() => return,
        }
    }
}

/// A new id for a process.
fn new_process_id() -> std::io::Result<String> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    Ok(convox_wire::ids::process_id(random))
}
