//! One Rack: what it is, what runs on it, and what can be done to it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use convox_client::Call;
use convox_model::Role;
use convox_wire::api::{App as RackApp, Process, Release};
use convox_wire::form::Params;
use convox_wire::options::SystemProcessesOptions;
use http::StatusCode;
use serde::Deserialize;

use super::page::{Fault, Frame, Paged, Problem, go, sentence, show_with, status_and_words};
use super::person::Person;
use super::racks::{RackLine, line, orgs_with};
use super::words::{When, when};
use crate::ops::OpsError;
use crate::ops::rolls::Manner;
use crate::reach::Reach;
use crate::state::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/racks/{org}/{rack}", get(details))
        .route("/racks/{org}/{rack}/rename", post(rename))
        .route("/racks/{org}/{rack}/move", post(move_it))
        .route("/racks/{org}/{rack}/protect", post(protect))
        .route("/racks/{org}/{rack}/password", post(roll))
        .route("/racks/{org}/{rack}/remove", post(remove))
}

/// What runs on a Rack, of all apps or of the Rack itself.
struct ProcessLine {
    id: String,
    app: String,
    service: String,
    release: String,
    started: Option<When>,
}

/// A version of the Rack itself.
struct ReleaseLine {
    id: String,
    created: Option<When>,
}

/// Versions on the page.
const RELEASES: usize = 5;
/// Apps on one page, and processes.
const PAGE: usize = 25;

#[derive(Template)]
#[template(path = "rack.html")]
struct RackPage {
    frame: Frame,
    org: String,
    name: String,
    line: RackLine,
    fault: String,
    provider: String,
    host: String,
    pin: String,
    added: When,
    /// Id of its installation, for whoever may read its log; empty for a Rack that was added.
    install: String,
    password_since: When,
    /// Whether somebody who left may know it.
    password_left: bool,
    /// Why the last roll of it came to nothing.
    password_fault: String,
    last_used: Option<(String, String, When)>,
    /// Access tokens that may still be good.
    tokens: i64,
    may_operate: bool,
    may_administer: bool,
    /// Where else it could go.
    other_orgs: Vec<String>,
    /// Part of the name of the apps that are shown.
    search: String,
    /// The links to other pages of apps and of processes, without their numbers.
    more_apps: String,
    more_processes: String,
    /// `Err`: why the Rack did not say.
    apps: Result<Paged<RackApp>, String>,
    processes: Result<Paged<ProcessLine>, String>,
    releases: Result<Vec<ReleaseLine>, String>,
    problem: Problem,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RackQuery {
    q: String,
    /// Page of the apps.
    apps: Option<usize>,
    /// Page of the processes.
    processes: Option<usize>,
    done: String,
}

fn done(code: &str) -> &'static str {
    match code {
        "added" => "The Rack is added.",
        "installed" => "The Rack is installed.",
        "renamed" => "The Rack has its new name.",
        "moved" => "The Rack was moved.",
        "rolling" => "The Rack's password is being rolled. Nothing is interrupted; in a minute the old one is refused.",
        "protected" => "The Rack is protected.",
        "unprotected" => "The Rack is not protected any more.",
        _ => "",
    }
}

async fn details(person: Person, Path((org, name)): Path<(String, String)>, Query(query): Query<RackQuery>) -> Result<Response, Fault> {
    page(&person, StatusCode::OK, &org, &name, &query, Problem::default()).await
}

async fn page(person: &Person, status: StatusCode, org: &str, name: &str, query: &RackQuery, problem: Problem) -> Result<Response, Fault> {
    let app = &person.app;
    let reach = Reach::to(app, &person.who, &person.actor, &format!("{org}/{name}"))?;
    let (row, now_ms) = (&reach.rack.row, app.clock.now_ms());
    let role = person.principal().role_in(&row.org);
    let everything = SystemProcessesOptions { all: Some(true) };
    // Go servers say `null` for an empty list.
    let (apps, processes, releases) = tokio::join!(
        reach.value::<Option<Vec<RackApp>>>(Call::get(&["apps"])),
        reach.value::<Option<Vec<Process>>>(Call::get(&["system", "processes"]).and_then(|call| call.options(&everything))),
        reach.value::<Option<Vec<Release>>>(Call::get(&["system", "releases"])),
    );
    let process = |process: Process| ProcessLine {
        id: process.id,
        app: process.app,
        service: process.name,
        release: process.release,
        started: process.started.millis().map(|at_ms| when(at_ms, now_ms)),
    };
    let release = |release: Release| ReleaseLine { id: release.id, created: release.created.millis().map(|at_ms| when(at_ms, now_ms)) };
    let said = |error: OpsError| sentence(&error.to_string());
    let last = app.ops().last_used_by(&person.actor, org, row).await?;
    let mut other_orgs = orgs_with(person, Role::Administrator).await?;
    other_orgs.retain(|other| other != org);
    let install = match app.ops().find_install(&person.actor, org, row.id.as_str()).await {
        Ok(install) => install.id,
        Err(OpsError::Missing(_) | OpsError::Forbidden(_)) => String::new(),
        Err(error) => return Err(error.into()),
    };
    let seen = reach.rack.seen();
    let may_operate = role.is_some_and(|role| role >= Role::Operator);
    let rule = if may_operate { Some(app.store.roll_rule(&row.id).await.map_err(OpsError::from)?) } else { None };
    let search = query.q.trim().to_ascii_lowercase();
    // What is not turned over stays where it is.
    let more = |turned: &str, stays: &str, at: Option<usize>| {
        let kept = Params::new().with("q", &search).with(stays, at.unwrap_or(1).to_string());
        format!("/console/racks/{}?{}&{turned}=", row.path(), kept.encode())
    };
    let (more_apps, more_processes) = (more("apps", "processes", query.processes), more("processes", "apps", query.apps));
    let apps = apps.map(|all| {
        let mut all = all.unwrap_or_default();
        all.retain(|app| app.name.contains(&search));
        Paged::of(all, query.apps, PAGE)
    });
    let processes = processes.map(|all| {
        let mut all = all.unwrap_or_default();
        all.retain(|process| process.app.contains(&search));
        Paged::of(all, query.processes, PAGE).map(process)
    });
    Ok(show_with(
        status,
        &RackPage {
            frame: person.frame("racks").with_done(done(&query.done)),
            org: org.to_owned(),
            name: name.to_owned(),
            line: line(&reach.rack, now_ms),
            fault: seen.as_ref().map(|seen| sentence(&seen.fault)).unwrap_or_default(),
            provider: row.provider.clone(),
            host: row.host.clone(),
            pin: row.pin.clone().unwrap_or_default(),
            added: when(row.created_ms, now_ms),
            install,
            password_since: when(row.password_ms, now_ms),
            password_left: rule.as_ref().is_some_and(|rule| !rule.wanted.is_empty()),
            password_fault: rule.map(|rule| sentence(&rule.fault)).unwrap_or_default(),
            tokens: if may_operate { app.store.count_tokens(&row.id, now_ms).await.map_err(OpsError::from)? } else { 0 },
            last_used: last.map(|event| (event.actor, event.action, when(event.at_ms, now_ms))),
            may_operate,
            may_administer: role == Some(Role::Administrator),
            other_orgs,
            more_apps,
            more_processes,
            search,
            apps: apps.map_err(said),
            processes: processes.map_err(said),
            releases: releases.map(|all| all.unwrap_or_default().into_iter().take(RELEASES).map(release).collect()).map_err(said),
            problem,
        },
    ))
}

/// Shows the page again with what was wrong beside the field.
async fn again(person: &Person, org: &str, name: &str, field: &'static str, error: OpsError) -> Result<Response, Fault> {
    if let OpsError::Store(_) = error {
        return Err(error.into());
    }
    let (status, words) = status_and_words(&error);
    page(person, status, org, name, &RackQuery::default(), Problem::new(field, sentence(&words))).await
}

#[derive(Deserialize)]
struct NameForm {
    name: String,
}

async fn rename(
    State(app): State<Arc<App>>,
    person: Person,
    Path((org, rack)): Path<(String, String)>,
    Form(form): Form<NameForm>,
) -> Result<Response, Fault> {
    let to = form.name.trim();
    match app.ops().rename_rack(&person.actor, &org, &rack, to).await {
        Ok(seq) => {
            app.settle(seq).await;
            Ok(go(&format!("/console/racks/{org}/{to}?done=renamed")))
        }
        Err(error) => again(&person, &org, &rack, "name", error).await,
    }
}

#[derive(Deserialize)]
struct MoveForm {
    organization: String,
}

async fn move_it(
    State(app): State<Arc<App>>,
    person: Person,
    Path((org, rack)): Path<(String, String)>,
    Form(form): Form<MoveForm>,
) -> Result<Response, Fault> {
    match app.ops().move_rack(&person.actor, &org, &rack, &form.organization).await {
        Ok(seq) => {
            app.settle(seq).await;
            Ok(go(&format!("/console/racks/{}/{rack}?done=moved", form.organization)))
        }
        Err(error) => again(&person, &org, &rack, "organization", error).await,
    }
}

/// Begins to roll its password; servers carry it on.
async fn roll(State(app): State<Arc<App>>, person: Person, Path((org, rack)): Path<(String, String)>) -> Result<Response, Fault> {
    let (_, seq) = app.ops().begin_roll(&person.actor, &org, &rack, Manner::default()).await?;
    app.settle(seq).await;
    Ok(go(&format!("/console/racks/{org}/{rack}?done=rolling")))
}

#[derive(Deserialize)]
struct ProtectForm {
    protected: bool,
}

async fn protect(
    State(app): State<Arc<App>>,
    person: Person,
    Path((org, rack)): Path<(String, String)>,
    Form(form): Form<ProtectForm>,
) -> Result<Response, Fault> {
    let seq = app.ops().protect_rack(&person.actor, &org, &rack, form.protected).await?;
    app.settle(seq).await;
    Ok(go(&format!("/console/racks/{org}/{rack}?done={}", if form.protected { "protected" } else { "unprotected" })))
}

#[derive(Deserialize)]
struct RemoveForm {
    typed: String,
}

/// Only for whoever types its name.
async fn remove(
    State(app): State<Arc<App>>,
    person: Person,
    Path((org, rack)): Path<(String, String)>,
    Form(form): Form<RemoveForm>,
) -> Result<Response, Fault> {
    let whole = format!("{org}/{rack}");
    if form.typed.trim() != whole {
        let error = OpsError::Input(format!("type {whole} to remove it; nothing was removed"));
        return again(&person, &org, &rack, "typed", error).await;
    }
    match app.ops().remove_rack(&person.actor, &org, &rack).await {
        Ok((seq, _)) => {
            app.settle(seq).await;
            Ok(go("/console/racks?done=removed"))
        }
        Err(error) => again(&person, &org, &rack, "typed", error).await,
    }
}
