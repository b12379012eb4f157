//! Which places an app has, and who of them gets connections.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::keeper::Keeper;
use super::slot::Phase;
use super::{App, DesiredApp, Inner, SchedulerError, ServiceState};
use crate::manifest::Service;
use crate::router::Route;
use crate::runtime::{Limits, ProcessKind, ProcessState, ProcessStatus, RESOURCE};

/// How long the undoing of a cancelled promotion may take when its app is deleted.
const UNDONE: Duration = Duration::from_mins(2);

/// The apps, locked.
pub(super) type Apps<'a> = MutexGuard<'a, BTreeMap<String, App>>;

/// An app with a running release that has this service.
pub(super) fn running<'a>(apps: &'a mut Apps<'_>, app: &str, service: &str) -> Result<(&'a mut App, Arc<DesiredApp>), SchedulerError> {
    let no_app = || SchedulerError::NoApp(app.to_owned());
    let entry = apps.get_mut(app).ok_or_else(no_app)?;
    if let Some(held) = &entry.held {
        return Err(SchedulerError::Held { app: app.to_owned(), reason: held.reason.clone() });
    }
    let desired = entry.desired.clone().ok_or_else(no_app)?;
    if desired.manifest.service(service).is_none() {
        return Err(SchedulerError::NoService(service.to_owned()));
    }
    Ok((entry, desired))
}

impl Inner {
    pub(super) fn apps(&self) -> Apps<'_> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a change in a service's places.
    pub(super) fn refresh(&self, app: &str, service: &str) {
        if let Some(entry) = self.apps().get_mut(app) {
            entry.retiring.retain(|keeper| keeper.slot().phase != Phase::Gone);
            self.route(app, entry, service);
        }
    }

    /// Tells the router who of a service is healthy now, and under which names it is served.
    pub(super) fn route(&self, app: &str, entry: &App, name: &str) {
        // What the router knows of one that cannot be read is all that is known of it.
        let Some(places) = entry.services.get(name).filter(|_| entry.held.is_none()) else { return };
        let Some(port) = places.port else {
            return self.router.change(|table| table.take(app, name));
        };
        let next = entry.next.first().map(|keeper| &keeper.app);
        let service = entry.desired.as_ref().or(next).and_then(|desired| desired.manifest.service(name));
        let hosts = service.map(|service| self.hosts(app, service)).unwrap_or_default();
        let http = service.is_none_or(|service| service.scheme() == "http");
        let targets = places.keepers.iter().filter_map(|keeper| keeper.healthy_backend()).collect();
        let allowed = service.map(|service| service.allowed.clone()).unwrap_or_default();
        let plain_http = entry.plain_http.unwrap_or_else(|| service.is_some_and(|service| service.plain_http));
        let route = Route { app: app.to_owned(), service: name.to_owned(), port, http, hosts, allowed, plain_http, targets };
        self.router.change(|table| table.put(route));
    }

    /// Names under which a service is served.
    pub(super) fn hosts(&self, app: &str, service: &Service) -> Vec<String> {
        if service.internal || !service.speaks_http() {
            return Vec::new();
        }
        let own = self.config.router.domain.as_ref().map(|domain| format!("{}.{app}.{domain}", service.name));
        own.into_iter().chain(service.domains.clone()).map(|host| host.to_ascii_lowercase()).collect()
    }

    /// The balancers' ports of an app, by service.
    pub(super) fn balancer_ports(&self, app: &str) -> BTreeMap<String, u16> {
        let apps = self.apps();
        let services = apps.get(app).into_iter().flat_map(|entry| &entry.services);
        services.filter_map(|(name, places)| Some((name.clone(), places.port?))).collect()
    }

    /// How much of the machine a process of a service may use: as scaled, else as in the manifest.
    pub(super) fn limits(&self, app: &str, service: &Service) -> Limits {
        let set = self.apps().get(app).and_then(|entry| entry.formation.get(&service.name).copied()).unwrap_or_default();
        let scale = &service.scale;
        Limits {
            cpu: Some(set.cpu.unwrap_or(scale.cpu)),
            cpu_most: scale.cpu_most,
            memory: set.memory.or(scale.memory_most).or(Some(scale.memory)),
        }
    }

    /// Gives every service with a port its own. One that has no port any more keeps its own
    /// for as long as the release runs that needs it.
    pub(super) fn open_ports(&self, entry: &mut App, desired: &DesiredApp) {
        for service in &desired.manifest.services {
            let places = entry.services.entry(service.name.clone()).or_default();
            if service.port.is_none() || places.port.is_some() {
                continue;
            }
            match self.ports.of_service(&desired.app, &service.name) {
                Ok(port) => places.port = Some(port),
                Err(error) => {
                    let stream = format!("system/service/{}", service.name);
                    self.logs.append(&desired.app, &stream, &format!("no port to be reached on: {error}"));
                }
            }
        }
    }

    /// Gives a service another port, since the router could not listen on the one it had.
    pub(super) fn replace_port(&self, port: u16, reason: &str) {
        let Some((app, service)) = self.ports.owner(port) else { return };
        let stream = format!("system/service/{service}");
        match self.ports.another(&app, &service) {
            Ok(other) => {
                self.logs.append(&app, &stream, &format!("port {port} is taken ({reason}): reached on {other} from now on"));
                if let Some(resource) = service.strip_prefix(RESOURCE) {
                    self.logs.append(&app, &stream, "restart the services that use it: they were told the old port");
                    super::resource::refresh(self, &app, resource);
                } else if let Some(entry) = self.apps().get_mut(&app) {
                    if let Some(places) = entry.services.get_mut(&service) {
                        places.port = Some(other);
                    }
                    self.route(&app, entry, &service);
                }
            }
            Err(error) => self.logs.append(&app, &stream, &format!("no port to be reached on: {error}")),
        }
    }

    /// Adds or gives up places until a service has as many as it should.
    pub(super) fn fill(self: &Arc<Self>, entry: &mut App, name: &str) {
        let Some(desired) = entry.desired.clone() else { return };
        let Some(service) = desired.manifest.service(name) else { return };
        let count = entry.count(service);
        let places = entry.services.entry(name.to_owned()).or_default();
        while places.keepers.len() < count {
            places.keepers.push(Keeper::begin(self, &desired, service, None));
        }
        // Those that serve last: whoever is not healthy goes first, then the youngest.
        let (healthy, others): (Vec<_>, Vec<_>) = places.keepers.drain(..).partition(|keeper| keeper.is_healthy());
        places.keepers = healthy.into_iter().chain(others).collect();
        let surplus = places.keepers.split_off(count.min(places.keepers.len()));
        self.route(&desired.app, entry, name);
        for keeper in surplus {
            keeper.retire();
            entry.retiring.push(keeper);
        }
    }

    /// A process as the scheduler sees it.
    pub(super) fn with_health(&self, mut process: ProcessState) -> ProcessState {
        if process.kind != ProcessKind::Service || process.status.is_final() {
            return process;
        }
        let apps = self.apps();
        let entry = apps.get(&process.app);
        if entry.is_some_and(|entry| entry.held.is_some() && !entry.keepers().any(|keeper| keeper.app.release == process.release)) {
            return process;
        }
        let keepers = entry.into_iter().flat_map(App::keepers);
        let phase = keepers.map(|keeper| keeper.slot()).find(|slot| slot.process.as_deref() == Some(&process.id));
        let status = phase.map(|slot| match slot.phase {
            Phase::Healthy => ProcessStatus::Running,
            Phase::Unhealthy => ProcessStatus::Unhealthy,
            Phase::Retiring | Phase::Gone => ProcessStatus::Stopping,
            Phase::Starting | Phase::Waiting => ProcessStatus::Starting,
        });
        if process.status != ProcessStatus::Stopping {
            // Of nobody's place: surplus, about to be stopped.
            process.status = status.unwrap_or(ProcessStatus::Stopping);
        }
        process.healthy = process.status == ProcessStatus::Running;
        process
    }

    /// Notes that a process's end is wished for.
    pub(super) fn expect_end(&self, process: &ProcessState) {
        if let Some(entry) = self.apps().get(&process.app) {
            let _ = entry.keepers().any(|keeper| keeper.expect_end(&process.id));
        }
    }

    pub(super) async fn remove(self: &Arc<Self>, app: &str) -> Result<(), SchedulerError> {
        let promotion = self.apps().get(app).and_then(|entry| entry.promotion.clone());
        if let Some(promotion) = promotion {
            promotion.cancel.cancel();
            let _ = timeout(UNDONE, promotion.done.cancelled()).await;
        }
        let entry = self.apps().remove(app);
        if let Some(entry) = entry {
            entry.services.values().filter_map(|places| places.restart.as_ref()).for_each(|restart| restart.cancel());
            let keepers: Vec<_> = entry.keepers().cloned().collect();
            for keeper in &keepers {
                keeper.retire_now();
            }
            join_all(keepers.iter().map(|keeper| keeper.gone())).await;
            // Last: until now somebody may have written something.
            let resources = || entry.resources.values().chain(entry.ending.values());
            resources().for_each(|resource| resource.retire());
            join_all(resources().map(|resource| resource.gone())).await;
        }
        let left: Vec<_> = self.runtime.list().into_iter().filter(|process| process.app == app).collect();
        let stopped = join_all(left.iter().map(|process| self.runtime.stop(&process.id, None))).await;
        join_all(left.iter().map(|process| self.runtime.forget(&process.id))).await;
        self.router.change(|table| table.take_app(app));
        self.router.settled().await;
        self.ports.remove(app).map_err(|source| SchedulerError::Io { doing: format!("forgetting the ports of {app}"), source })?;
        stopped.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }
}

impl App {
    /// All places, of whatever stage.
    pub(super) fn keepers(&self) -> impl Iterator<Item = &Arc<Keeper>> {
        self.services.values().flat_map(|places| &places.keepers).chain(&self.next).chain(&self.retiring)
    }

    /// How many processes a service should have.
    pub(super) fn count(&self, service: &Service) -> usize {
        let set = self.formation.get(&service.name).and_then(|formation| formation.count);
        // Each is a process of this machine; what a number of nine digits does to it nobody wants.
        set.unwrap_or(service.scale.min).min(1000) as usize
    }

    pub(super) fn service_state(&self, service: &Service) -> ServiceState {
        let formation = self.formation.get(&service.name).copied().unwrap_or_default();
        let places = self.services.get(&service.name);
        let balancer = places.and_then(|places| places.port);
        let scheme = service.scheme();
        ServiceState {
            name: service.name.clone(),
            domain: service.domains.first().cloned().unwrap_or_default(),
            count: u32::try_from(self.count(service)).unwrap_or_default(),
            running: places.map_or(0, |places| places.keepers.iter().filter(|keeper| keeper.is_healthy()).count() as u32),
            cpu: formation.cpu.unwrap_or(service.scale.cpu),
            memory: formation.memory.unwrap_or(service.scale.memory),
            balancer,
            port: service.port.as_ref().map(|port| port.port),
            endpoint: balancer.map(|port| format!("{scheme}://127.0.0.1:{port}")),
        }
    }
}
