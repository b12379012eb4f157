//! Taking up work after the Rack was restarted or killed, and tidying while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::keeper::Keeper;
use super::resource::{self, ResourceKeeper};
use super::slot::how_it_ended;
use super::{App, DesiredApp, Inner};
use crate::resources;
use crate::runtime::{ProcessKind, ProcessState, RESOURCE};

/// How long an ended one-off process stays known.
const ONE_OFF_KEPT: Duration = Duration::from_mins(10);
const TIDY: Duration = Duration::from_secs(30);
/// Rounds of tidying between looks for old log files.
const EXPIRE_EVERY: u32 = 120;

/// Gives the processes found to the places that want them, starts what is missing, stops what is
/// surplus.
pub(super) fn resume(inner: &Arc<Inner>, found: Vec<ProcessState>, apps: Vec<DesiredApp>) {
    let mut running: BTreeMap<(String, String), Vec<ProcessState>> = BTreeMap::new();
    for process in found {
        if process.status.is_final() {
            if process.kind != ProcessKind::OneOff {
                say(inner, &process, &format!("{} while the Rack was not running", how_it_ended(&process)));
                let inner = Arc::clone(inner);
                inner.tasks.clone().spawn(async move { inner.runtime.forget(&process.id).await });
            }
            continue;
        }
        if let Some(port) = process.port {
            inner.ports.note(port);
        }
        if process.kind != ProcessKind::OneOff {
            running.entry((process.app.clone(), process.service.clone())).or_default().push(process);
        }
    }
    for app in apps {
        let app = Arc::new(app);
        let mut entry = App { desired: Some(Arc::clone(&app)), formation: app.formation.clone(), ..App::default() };
        for (resource, kind) in resources::provided(&app.manifest, &app.env) {
            let place = (app.app.clone(), format!("{RESOURCE}{}", resource.name));
            let found = running.get_mut(&place).and_then(Vec::pop);
            if let Some(keeper) = ResourceKeeper::begin(inner, &app, resource, kind, found, None) {
                entry.resources.insert(resource.name.clone(), keeper);
            }
        }
        inner.open_ports(&mut entry, &app);
        for service in &app.manifest.services {
            let count = entry.count(service);
            let candidates = running.entry((app.app.clone(), service.name.clone())).or_default();
            let mut keepers = Vec::new();
            candidates.retain(|process| {
                let fits = process.release == app.release && keepers.len() < count;
                if fits {
                    keepers.push(Keeper::begin(inner, &app, service, Some(process.clone())));
                }
                !fits
            });
            entry.services.entry(service.name.clone()).or_default().keepers = keepers;
        }
        let mut apps = inner.apps();
        let entry = apps.entry(app.app.clone()).insert_entry(entry).into_mut();
        for service in &app.manifest.services {
            inner.fill(entry, &service.name);
        }
        let names: Vec<String> = entry.resources.keys().cloned().collect();
        drop(apps);
        for name in &names {
            resource::refresh(inner, &app.app, name);
        }
    }
    // What was routed for apps that are not there any more.
    let known: BTreeSet<String> = inner.apps().keys().cloned().collect();
    inner.router.change(|table| {
        let before = table.routes.len();
        table.routes.retain(|route| known.contains(&route.app));
        table.routes.len() != before
    });
    for process in running.into_values().flatten() {
        stop_surplus(inner, process);
    }
}

fn stop_surplus(inner: &Arc<Inner>, process: ProcessState) {
    let inner = Arc::clone(inner);
    inner.tasks.clone().spawn(async move {
        say(&inner, &process, &format!("of release {} is not wanted any more; stopping it", process.release));
        if let Err(error) = inner.runtime.stop(&process.id, None).await {
            say(&inner, &process, &format!("could not be stopped: {error}"));
        }
        inner.runtime.forget(&process.id).await;
        if let Some(port) = process.port {
            inner.ports.release(port);
        }
    });
}

fn say(inner: &Inner, process: &ProcessState, what: &str) {
    inner.logs.append(&process.app, &format!("system/service/{}", process.service), &format!("process {} {what}", process.id));
}

/// Forgets one-off processes that ended a while ago, and old log files.
pub(super) async fn tidy(inner: Arc<Inner>) {
    for round in 0_u32.. {
        tokio::select! {
            () = tokio::time::sleep(TIDY) => {}
            () = inner.stop.cancelled() => return,
        }
        let is_old = |process: &ProcessState| {
            process.ended.is_some_and(|ended| Timestamp::now().duration_since(ended).unsigned_abs() > ONE_OFF_KEPT)
        };
        let of_the_past = |process: &ProcessState| process.kind == ProcessKind::OneOff && is_old(process);
        for process in inner.runtime.list().into_iter().filter(of_the_past) {
            inner.runtime.forget(&process.id).await;
        }
        if round.is_multiple_of(EXPIRE_EVERY) {
            let logs = inner.logs.clone();
            let _ = tokio::task::spawn_blocking(move || logs.expire()).await;
        }
    }
}
