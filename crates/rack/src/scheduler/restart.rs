//! Replacing a service's processes by ones of the same release, one after the other.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::keeper::Keeper;
use super::{Inner, SchedulerError, places};
use crate::manifest::Service;

/// Failed starts of a successor after which the restart is given up.
const FAILURES: u32 = 3;

pub(super) fn restart(inner: &Arc<Inner>, app: &str, service: &str) -> Result<(), SchedulerError> {
    let mut apps = inner.apps();
    let (entry, desired) = places::running(&mut apps, app, service)?;
    let Some(service) = desired.manifest.service(service) else { return Ok(()) };
    let places = entry.services.entry(service.name.clone()).or_default();
    let cancel = CancellationToken::new();
    if let Some(before) = places.restart.replace(cancel.clone()) {
        before.cancel();
    }
    let old = places.keepers.clone();
    let (inner, service) = (Arc::clone(inner), service.clone());
    inner.tasks.clone().spawn(async move {
        for keeper in old {
            let replaced = tokio::select! {
                replaced = replace(&inner, &service, &keeper) => replaced,
                () = cancel.cancelled() => false,
                () = inner.stop.cancelled() => false,
            };
            if !replaced {
                return;
            }
        }
        say(&inner, &desired.app, &service, "restarted");
    });
    Ok(())
}

fn say(inner: &Inner, app: &str, service: &Service, what: &str) {
    inner.logs.append(app, &format!("system/service/{}", service.name), &format!("service {} {what}", service.name));
}

/// Puts a new place in the stead of one; `false` if it did not become healthy, or there is
/// nothing to replace any more.
async fn replace(inner: &Arc<Inner>, service: &Service, old: &Arc<Keeper>) -> bool {
    let only_one = service.singleton || service.agent;
    if only_one {
        old.retire();
        old.gone().await;
    }
    let new = Keeper::begin(inner, &old.app, service, None);
    let guard = RetireUnlessKept(Some(Arc::clone(&new)));
    if !only_one && let Err(slot) = new.settled(FAILURES).await {
        say(inner, &old.app.app, service, &format!("was not restarted: {}", slot.reason));
        return false;
    }
    {
        let mut apps = inner.apps();
        let Some(entry) = apps.get_mut(&old.app.app) else { return false };
        let Some(places) = entry.services.get_mut(&service.name) else { return false };
        let Some(place) = places.keepers.iter_mut().find(|keeper| Arc::ptr_eq(keeper, old)) else { return false };
        *place = new;
        inner.route(&old.app.app, entry, &service.name);
        entry.retiring.push(Arc::clone(old));
    }
    guard.keep();
    old.retire();
    true
}

/// Gives up a new place when the restart is broken off before the place was taken over.
struct RetireUnlessKept(Option<Arc<Keeper>>);

impl RetireUnlessKept {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for RetireUnlessKept {
    fn drop(&mut self) {
        if let Some(keeper) = self.0.take() {
            keeper.retire();
        }
    }
}
