//! Taking up work after the Rack was restarted or killed, and tidying while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::keeper::Keeper;
use super::resource::{self, ResourceKeeper};
use super::slot::how_it_ended;
use super::{App, DesiredApp, Held, Inner};
use crate::resources;
use crate::router::{Route, Target};
use crate::runtime::{ProcessKind, ProcessState, RESOURCE};

/// How long an ended one-off process stays known.
const ONE_OFF_KEPT: Duration = Duration::from_mins(10);
/// How long the connections of a surplus process may take to finish.
const DRAIN: Duration = Duration::from_secs(30);
const TIDY: Duration = Duration::from_secs(30);
/// Rounds of tidying between looks for old log files.
const EXPIRE_EVERY: u32 = 120;

/// Notes apps whose active release cannot be read, and why: what runs of them is left alone, and routed as it was.
pub(super) fn hold(inner: &Inner, held: BTreeMap<String, String>, routes: &[Route]) {
    for (app, reason) in held {
        inner.logs.append(
            &app,
            "system/rack",
            &format!(
                "The active release cannot be read: {reason}. What runs of it runs on as it is, is not replaced when it ends, and its timers rest, until a release that can be read is promoted"
            ),
        );
        let names = routes.iter().filter(|route| route.app == app).flat_map(|route| route.hosts.clone()).collect();
        inner.apps().insert(app, App { held: Some(Held { reason, names }), ..App::default() });
    }
}

/// A release that can be read has taken over: what ran of the one that cannot is not routed any more, and ends when its connections have.
pub(super) fn let_go(inner: &Arc<Inner>, entry: &App, desired: &DesiredApp) {
    inner.router.change(|table| {
        let before = table.routes.len();
        table.routes.retain(|route| {
            let is_wanted = desired.manifest.service(&route.service).is_some() || route.service.starts_with(RESOURCE);
            route.app != desired.app || is_wanted
        });
        table.routes.len() != before
    });
    let is_placed = |process: &ProcessState| entry.keepers().any(|keeper| keeper.slot().process.as_deref() == Some(&process.id));
    let is_left = |process: &ProcessState| {
        process.app == desired.app && process.kind == ProcessKind::Service && !process.status.is_final() && !is_placed(process)
    };
    for process in inner.runtime.list().into_iter().filter(is_left) {
        stop_surplus(inner, process);
    }
}

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
        let is_held = inner.apps().get(&process.app).is_some_and(|entry| entry.held.is_some());
        if process.kind != ProcessKind::OneOff && !is_held {
            running.entry((process.app.clone(), process.service.clone())).or_default().push(process);
        }
    }
    for app in apps {
        let app = Arc::new(app);
        let mut entry =
            App { desired: Some(Arc::clone(&app)), formation: app.formation.clone(), plain_http: app.plain_http, ..App::default() };
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
        if let Some(port) = process.port {
            inner.router.settled().await;
            let _ = timeout(DRAIN, inner.router.drained(Target { process: process.id.clone(), port, tls: false })).await;
        }
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
