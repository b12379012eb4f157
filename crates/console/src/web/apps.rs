//! An app of a Rack: what runs, its releases, its environment, its log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::{Path, Query};
use axum::response::Response;
use axum::routing::{get, post};
use convox_client::Call;
use convox_wire::api::{App as RackApp, Process, Release, Service};
use convox_wire::form::Params;
use convox_wire::options::{LogOptions, ReleaseCreateOptions};
use serde::Deserialize;

use super::page::{Fault, Frame, Paged, go, show};
use super::person::Person;
use super::stream;
use super::words::{When, when};
use crate::reach::Reach;
use crate::state::App;

/// Releases on the page, and how many there are when somebody asks for more; older ones are for the command line.
const RELEASES: usize = 10;
const MORE_RELEASES: usize = 100;
/// Processes on one page.
const PROCESSES: usize = 25;
/// How far back the log begins.
const SINCE: Duration = Duration::from_mins(10);

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/racks/{org}/{rack}/apps/{app}", get(details))
        .route("/racks/{org}/{rack}/apps/{app}/environment", post(environment))
        .route("/racks/{org}/{rack}/apps/{app}/logs", get(logs))
        .route("/racks/{org}/{rack}/apps/{app}/logs/stream", get(follow))
        .route("/racks/{org}/{rack}/apps/{app}/processes/{id}/stop", post(stop))
        .route("/racks/{org}/{rack}/apps/{app}/services/{service}/restart", post(restart))
        .route("/racks/{org}/{rack}/apps/{app}/releases/{id}/promote", post(promote))
        .route("/racks/{org}/{rack}/apps/{app}/releases/{id}/rollback", post(roll_back))
}

/// Which app the path names.
#[derive(Deserialize)]
struct Named {
    org: String,
    rack: String,
    app: String,
}

/// Something of an app.
#[derive(Deserialize)]
struct Below {
    org: String,
    rack: String,
    app: String,
    #[serde(alias = "service")]
    id: String,
}

fn reach(person: &Person, org: &str, rack: &str) -> Result<Reach, Fault> {
    Reach::to(&person.app, &person.who, &person.actor, &format!("{org}/{rack}")).map_err(|error| framed(person)(error))
}

fn framed(person: &Person) -> impl Fn(crate::ops::OpsError) -> Fault {
    let frame = person.frame("racks");
    move |error| Fault::from(error).framed(frame.clone())
}

struct ProcessLine {
    id: String,
    service: String,
    status: String,
    release: String,
    started: Option<When>,
    command: String,
}

struct ReleaseLine {
    id: String,
    description: String,
    created: Option<When>,
    is_active: bool,
    /// Whether it is older than the active one.
    is_older: bool,
}

#[derive(Template)]
#[template(path = "app.html")]
struct AppPage {
    frame: Frame,
    path: String,
    app: RackApp,
    services: Vec<Service>,
    processes: Paged<ProcessLine>,
    /// The link to another page of them, without its number.
    more_processes: String,
    releases: Vec<ReleaseLine>,
    /// Whether there may be older ones that are not shown, and can be.
    has_more_releases: bool,
    /// Shown only when it was asked for.
    environment: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AppQuery {
    /// Page of the processes.
    processes: Option<usize>,
    /// `all`: more of them.
    releases: String,
    done: String,
}

fn done(code: &str) -> &'static str {
    match code {
        "promoting" => "The release is being promoted; the processes below follow.",
        "stopped" => "The process is stopped; its service starts another one.",
        "restarting" => "The service is being restarted.",
        _ => "",
    }
}

async fn details(person: Person, Path(named): Path<Named>, Query(query): Query<AppQuery>) -> Result<Response, Fault> {
    let reach = reach(&person, &named.org, &named.rack)?;
    page(&person, &reach, &named.app, None, &query).await
}

async fn page(
    person: &Person,
    reach: &Reach,
    name: &str,
    environment: Option<BTreeMap<String, String>>,
    query: &AppQuery,
) -> Result<Response, Fault> {
    let (now_ms, framed) = (person.app.clock.now_ms(), framed(person));
    let app: RackApp = reach.value(Call::get(&["apps", name])).await.map_err(&framed)?;
    // Go servers say `null` for an empty list.
    let services: Option<Vec<Service>> = reach.value(Call::get(&["apps", name, "services"])).await.map_err(&framed)?;
    let processes: Option<Vec<Process>> = reach.value(Call::get(&["apps", name, "processes"])).await.map_err(&framed)?;
    let most = if query.releases == "all" { MORE_RELEASES } else { RELEASES };
    let limited = Call::get(&["apps", name, "releases"]).map(|call| call.query(&Params::new().with("limit", (most + 1).to_string())));
    let mut releases: Vec<Release> = reach.value::<Option<Vec<Release>>>(limited).await.map_err(&framed)?.unwrap_or_default();
    let has_more_releases = most == RELEASES && releases.len() > most;
    releases.truncate(most);
    let mut is_older = false;
    let releases = releases.into_iter().map(|release| {
        let is_active = release.id == app.release;
        let line = ReleaseLine {
            id: release.id,
            description: release.description,
            created: release.created.millis().map(|at_ms| when(at_ms, now_ms)),
            is_active,
            is_older: is_older && !is_active,
        };
        is_older |= is_active;
        line
    });
    let processes = Paged::of(processes.unwrap_or_default(), query.processes, PROCESSES).map(|process| ProcessLine {
        id: process.id,
        service: process.name,
        status: process.status,
        release: process.release,
        started: process.started.millis().map(|at_ms| when(at_ms, now_ms)),
        command: process.command,
    });
    Ok(show(&AppPage {
        frame: person.frame("racks").with_done(done(&query.done)),
        path: reach.rack.row.path(),
        releases: releases.collect(),
        more_processes: format!("/console/racks/{}/apps/{name}?processes=", reach.rack.row.path()),
        processes,
        has_more_releases,
        services: services.unwrap_or_default(),
        app,
        environment,
    }))
}

/// Values are shown to whoever asks for them; that they asked is in the log before the Rack hears of it.
async fn environment(person: Person, Path(named): Path<Named>) -> Result<Response, Fault> {
    let (reach, framed) = (reach(&person, &named.org, &named.rack)?, framed(&person));
    let newest = Call::get(&["apps", &named.app, "releases"]).map(|call| call.query(&Params::new().with("limit", "1")));
    let newest: Option<Vec<Release>> = reach.value(newest).await.map_err(&framed)?;
    let values = match newest.unwrap_or_default().first() {
        Some(newest) => {
            let release: Release = reach.value(Call::get(&["apps", &named.app, "releases", &newest.id])).await.map_err(&framed)?;
            convox_wire::env::parse(&release.env)
        }
        None => BTreeMap::new(),
    };
    page(&person, &reach, &named.app, Some(values), &AppQuery::default()).await
}

#[derive(Template)]
#[template(path = "logs.html")]
struct LogsPage {
    frame: Frame,
    path: String,
    app: String,
    filter: String,
    query: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LogsQuery {
    filter: String,
}

async fn logs(person: Person, Path(named): Path<Named>, Query(LogsQuery { filter }): Query<LogsQuery>) -> Result<Response, Fault> {
    let reach = reach(&person, &named.org, &named.rack)?;
    reach.value::<RackApp>(Call::get(&["apps", &named.app])).await.map_err(framed(&person))?;
    let query = if filter.is_empty() { String::new() } else { Params::new().with("filter", &filter).encode() };
    Ok(show(&LogsPage { frame: person.frame("racks"), path: reach.rack.row.path(), app: named.app, filter, query }))
}

async fn follow(person: Person, Path(named): Path<Named>, Query(LogsQuery { filter }): Query<LogsQuery>) -> Result<Response, Fault> {
    let reach = reach(&person, &named.org, &named.rack)?;
    let filter = Some(filter).filter(|filter| !filter.is_empty());
    let options = LogOptions { filter, follow: Some(true), prefix: Some(true), since: Some(SINCE), ..LogOptions::default() };
    let call = Call::get(&["apps", &named.app, "logs"]).and_then(|call| call.options(&options));
    let (permit, socket) = reach.socket(call).await?;
    Ok(stream::events(move |events| stream::lines(permit, socket, events)))
}

async fn stop(person: Person, Path(at): Path<Below>) -> Result<Response, Fault> {
    let call = Call::delete(&["apps", &at.app, "processes", &at.id]);
    reach(&person, &at.org, &at.rack)?.done(call).await.map_err(framed(&person))?;
    Ok(back(&at, "stopped"))
}

async fn restart(person: Person, Path(at): Path<Below>) -> Result<Response, Fault> {
    let call = Call::post(&["apps", &at.app, "services", &at.id, "restart"]);
    reach(&person, &at.org, &at.rack)?.done(call).await.map_err(framed(&person))?;
    Ok(back(&at, "restarting"))
}

async fn promote(person: Person, Path(at): Path<Below>) -> Result<Response, Fault> {
    let call = Call::post(&["apps", &at.app, "releases", &at.id, "promote"]);
    reach(&person, &at.org, &at.rack)?.done(call).await.map_err(framed(&person))?;
    Ok(back(&at, "promoting"))
}

/// As the command line does it: a new release with the build and environment of the old one, promoted.
async fn roll_back(person: Person, Path(at): Path<Below>) -> Result<Response, Fault> {
    let (reach, framed) = (reach(&person, &at.org, &at.rack)?, framed(&person));
    let old: Release = reach.value(Call::get(&["apps", &at.app, "releases", &at.id])).await.map_err(&framed)?;
    let description = Some(format!("rollback to {}", at.id));
    let options = ReleaseCreateOptions { build: Some(old.build), env: Some(old.env), description, ..ReleaseCreateOptions::default() };
    let create = Call::post(&["apps", &at.app, "releases"]).and_then(|call| call.options(&options));
    let made: Release = reach.value(create).await.map_err(&framed)?;
    reach.done(Call::post(&["apps", &at.app, "releases", &made.id, "promote"])).await.map_err(&framed)?;
    Ok(back(&at, "promoting"))
}

fn back(at: &Below, done: &str) -> Response {
    go(&format!("/console/racks/{}/{}/apps/{}?done={done}", at.org, at.rack, at.app))
}
