//! From one release to the next without a moment in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::keeper::Keeper;
use super::names::Foreign;
use super::slot::Slot;
use super::{App, DesiredApp, Inner, PromoteError, PromoteOptions, Promotion, environment, resource, resume};
use crate::logs::LogQuery;
use crate::manifest::Service;

/// Longest time for new processes to become healthy, unless another is asked for.
const PATIENCE: Duration = Duration::from_mins(10);
/// Ends of a new process before it was ever healthy after which it is believed that it cannot be.
const CRASHES: u32 = 3;
/// How long a promotion waits for the old processes; after that they go on ending by themselves.
const OLD_GONE: Duration = Duration::from_secs(5);
/// Lines of a failed process that are told.
const LAST_LINES: usize = 5;

pub(super) async fn promote(inner: Arc<Inner>, desired: DesiredApp, options: PromoteOptions) -> Result<(), PromoteError> {
    desired.manifest.check_environment(&desired.env)?;
    for service in &desired.manifest.services {
        environment::command(inner.runtime.isolation(), &desired.dir, service).map_err(PromoteError::Manifest)?;
    }
    let promotion = begin(&inner, &desired)?;
    let rollout = Rollout {
        inner: &inner,
        desired: Arc::new(desired),
        cancel: promotion.cancel.clone(),
        deadline: Instant::now() + options.timeout.unwrap_or(PATIENCE),
    };
    rollout.say("promoting");
    let outcome = rollout.run().await;
    if let Err(error) = &outcome {
        rollout.say(&format!("not promoted: {error}"));
    }
    if let Some(entry) = inner.apps().get_mut(&rollout.desired.app) {
        entry.promotion = None;
    }
    promotion.done.cancel();
    outcome
}

/// Refuses a release that would take a host name from another app.
pub(super) fn check_names(inner: &Inner, apps: &BTreeMap<String, App>, desired: &DesiredApp) -> Result<(), PromoteError> {
    match inner.foreign_name(apps, desired) {
        None => Ok(()),
        Some(Foreign { name, owner }) => Err(PromoteError::Name { release: desired.release.clone(), name, owner }),
    }
}

fn begin(inner: &Inner, desired: &DesiredApp) -> Result<Promotion, PromoteError> {
    let mut apps = inner.apps();
    check_names(inner, &apps, desired)?;
    let entry = apps.entry(desired.app.clone()).or_default();
    if entry.promotion.is_some() {
        return Err(PromoteError::Busy);
    }
    for places in entry.services.values_mut() {
        if let Some(restart) = places.restart.take() {
            restart.cancel();
        }
    }
    entry.formation.clone_from(&desired.formation);
    entry.plain_http = desired.plain_http;
    inner.open_ports(entry, desired);
    let names = inner.names(desired);
    Ok(entry.promotion.insert(Promotion { names, ..Promotion::default() }).clone())
}

struct Rollout<'a> {
    inner: &'a Arc<Inner>,
    desired: Arc<DesiredApp>,
    cancel: CancellationToken,
    deadline: Instant,
}

impl Rollout<'_> {
    async fn run(&self) -> Result<(), PromoteError> {
        let services = &self.desired.manifest.services;
        let (alone, side_by_side): (Vec<_>, Vec<_>) = services.iter().partition(|service| self.takes_over_alone(service));
        let outcome = async {
            self.resources().await?;
            let keepers = side_by_side.into_iter().flat_map(|service| self.begin(service)).collect();
            self.healthy(keepers).await?;
            for service in alone {
                // Never two of them: the old ones go before the new ones come.
                self.retire_old(&service.name).await;
                self.healthy(self.begin(service)).await?;
            }
            Ok(())
        };
        match outcome.await {
            Ok(()) => {
                self.switch().await;
                Ok(())
            }
            Err(error) => {
                self.undo().await;
                Err(error)
            }
        }
    }

    /// Starts the resources that the release wants and has not yet, and waits until all answer.
    async fn resources(&self) -> Result<(), PromoteError> {
        let wanted = resource::begin(self.inner, &self.desired);
        let failed = |resource: &str, reason: String| PromoteError::Resource {
            release: self.desired.release.clone(),
            resource: resource.to_owned(),
            reason,
        };
        for keeper in &wanted {
            let name = keeper.name();
            tokio::select! {
                settled = keeper.settled(CRASHES) => settled.map_err(|reason| failed(name, reason))?,
                () = self.cancel.cancelled() => return Err(PromoteError::Cancelled { release: self.desired.release.clone() }),
                () = self.inner.stop.cancelled() => return Err(PromoteError::Cancelled { release: self.desired.release.clone() }),
                () = tokio::time::sleep_until(self.deadline) => {
                    return Err(failed(name, format!("{}; the time for it is over", keeper.seen())));
                }
            }
        }
        Ok(())
    }

    /// Whether the old processes of a service must be gone before the new ones may start.
    fn takes_over_alone(&self, service: &Service) -> bool {
        let only_one = service.singleton || service.agent || service.deployment.maximum <= 100;
        let apps = self.inner.apps();
        let places = apps.get(&self.desired.app).and_then(|entry| entry.services.get(&service.name));
        only_one && places.is_some_and(|places| !places.keepers.is_empty())
    }

    /// Starts the new places of a service. They get no connections yet.
    fn begin(&self, service: &Service) -> Vec<Arc<Keeper>> {
        let mut apps = self.inner.apps();
        let Some(entry) = apps.get_mut(&self.desired.app) else { return Vec::new() };
        let begun: Vec<_> = (0..entry.count(service)).map(|_| Keeper::begin(self.inner, &self.desired, service, None)).collect();
        entry.next.extend(begun.iter().cloned());
        begun
    }

    /// Waits until all are healthy, or one will not be.
    async fn healthy(&self, keepers: Vec<Arc<Keeper>>) -> Result<(), PromoteError> {
        let all = try_join_all(
            keepers.iter().map(|keeper| async move { keeper.settled(CRASHES).await.map_err(|slot| (Arc::clone(keeper), slot)) }),
        );
        let cancelled = || PromoteError::Cancelled { release: self.desired.release.clone() };
        tokio::select! {
            outcome = all => match outcome {
                Ok(_) => Ok(()),
                Err((keeper, slot)) => Err(self.unhealthy(&keeper, &slot).await),
            },
            () = self.cancel.cancelled() => Err(cancelled()),
            () = self.inner.stop.cancelled() => Err(cancelled()),
            () = tokio::time::sleep_until(self.deadline) => {
                match keepers.iter().find(|keeper| !keeper.is_healthy()) {
                    Some(keeper) => {
                        let mut slot = keeper.slot();
                        slot.reason = [slot.reason.as_str(), "the time for it is over"].join("; ").trim_start_matches("; ").to_owned();
                        slot.failed = slot.failed.or(slot.process.take());
                        Err(self.unhealthy(keeper, &slot).await)
                    }
                    None => Ok(()),
                }
            }
        }
    }

    /// The error for a place that did not become healthy, with what its process said last.
    async fn unhealthy(&self, keeper: &Keeper, slot: &Slot) -> PromoteError {
        let mut reason = slot.reason.clone();
        if slot.failures > 1 {
            reason.push_str(&format!(" ({} failed starts)", slot.failures));
        }
        let service = keeper.service.name.clone();
        if let Some(process) = &slot.failed {
            let streams = vec![format!("service/{service}/{process}")];
            let query = LogQuery { streams, tail: Some(LAST_LINES), ..LogQuery::default() };
            let lines: Vec<String> = self.inner.logs.query(&self.desired.app, query).map(|line| line.message).collect().await;
            if !lines.is_empty() {
                reason.push_str("; its last lines:");
                for line in lines {
                    reason.push_str(&format!("\n  {line}"));
                }
            }
        }
        PromoteError::Unhealthy { release: self.desired.release.clone(), service, reason }
    }

    /// Stops the places of the old release of one service and waits for them.
    async fn retire_old(&self, service: &str) {
        let old = {
            let mut apps = self.inner.apps();
            let Some(entry) = apps.get_mut(&self.desired.app) else { return };
            let Some(places) = entry.services.get_mut(service) else { return };
            let old = std::mem::take(&mut places.keepers);
            self.inner.route(&self.desired.app, entry, service);
            entry.retiring.extend(old.iter().cloned());
            old
        };
        for keeper in &old {
            keeper.retire();
        }
        join_all(old.iter().map(|keeper| keeper.gone())).await;
    }

    /// Gives the connections to the new places and lets go of the old ones.
    async fn switch(&self) {
        let old = {
            let mut apps = self.inner.apps();
            let Some(entry) = apps.get_mut(&self.desired.app) else { return };
            // From here on the new places are what is routed.
            let was_held = entry.held.take().is_some();
            let mut old = Vec::new();
            for service in &self.desired.manifest.services {
                let places = entry.services.entry(service.name.clone()).or_default();
                let new = entry.next.iter().filter(|keeper| keeper.service.name == service.name).cloned();
                old.extend(std::mem::replace(&mut places.keepers, new.collect()));
                if service.port.is_none() {
                    places.port = None;
                }
            }
            entry.next.clear();
            entry.desired = Some(Arc::clone(&self.desired));
            let names: Vec<String> = entry.services.keys().cloned().collect();
            for name in names.into_iter().filter(|name| self.desired.manifest.service(name).is_none()) {
                old.extend(entry.services.remove(&name).into_iter().flat_map(|places| places.keepers));
                self.inner.router.change(|table| table.take(&self.desired.app, &name));
            }
            // Routes each of them too. Someone may have scaled meanwhile.
            for service in &self.desired.manifest.services {
                self.inner.fill(entry, &service.name);
            }
            entry.retiring.extend(old.iter().cloned());
            if was_held {
                resume::let_go(self.inner, entry, &self.desired);
            }
            old
        };
        for keeper in &old {
            keeper.retire();
        }
        self.inner.router.settled().await;
        self.say("is running");
        let _ = timeout(OLD_GONE, join_all(old.iter().map(|keeper| keeper.gone()))).await;
        resource::end_unwanted(self.inner, &self.desired, old);
    }

    /// Lets go of the new places; the old release has everything again.
    async fn undo(&self) {
        if self.inner.stop.is_cancelled() {
            return;
        }
        let new = {
            let mut apps = self.inner.apps();
            let Some(entry) = apps.get_mut(&self.desired.app) else { return };
            let new = std::mem::take(&mut entry.next);
            entry.retiring.extend(new.iter().cloned());
            new
        };
        for keeper in &new {
            keeper.retire_now();
        }
        join_all(new.iter().map(|keeper| keeper.gone())).await;
        if self.inner.apps().get(&self.desired.app).is_some_and(|entry| entry.held.is_some()) {
            // What runs of it uses the same resources, and is routed as it was.
            return;
        }
        resource::restore(self.inner, &self.desired.app);
        let mut apps = self.inner.apps();
        let Some(entry) = apps.get_mut(&self.desired.app) else { return };
        let old = entry.desired.clone();
        let is_old = |name: &str| old.as_ref().is_some_and(|old| old.manifest.service(name).is_some());
        let gone: Vec<String> = entry.services.keys().filter(|name| !is_old(name)).cloned().collect();
        for name in gone {
            entry.services.remove(&name);
            self.inner.router.change(|table| table.take(&self.desired.app, &name));
        }
        if let Some(old) = &old {
            self.inner.open_ports(entry, old);
            for service in &old.manifest.services {
                self.inner.fill(entry, &service.name);
            }
        }
    }

    fn say(&self, what: &str) {
        let release = &self.desired.release;
        self.inner.logs.append(&self.desired.app, &format!("system/release/{release}"), &format!("release {release} {what}"));
    }
}
