//! Racks: the list with their health, adding one, and what can be done to one of them.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use convox_client::Call;
use convox_model::Role;
use convox_seal::Secret;
use convox_wire::api::{App as RackApp, Process, Release};
use convox_wire::options::SystemProcessesOptions;
use http::StatusCode;
use serde::Deserialize;

use super::page::{Fault, Frame, Problem, go, sentence, show, show_with, status_and_words};
use super::person::Person;
use super::words::{When, when};
use crate::credentials::RackEntry;
use crate::ops::OpsError;
use crate::ops::racks::Pin;
use crate::reach::Reach;
use crate::state::App;

/// Racks on one page.
const PAGE: usize = 50;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/racks", get(racks))
        .route("/racks/add", get(ask_address).post(add))
        .route("/racks/{org}/{rack}", get(details))
        .route("/racks/{org}/{rack}/rename", post(rename))
        .route("/racks/{org}/{rack}/move", post(move_it))
        .route("/racks/{org}/{rack}/protect", post(protect))
        .route("/racks/{org}/{rack}/remove", post(remove))
}

/// How a Rack is, in one word with a colour.
pub(super) struct Health {
    pub(super) word: String,
    /// `good`, `bad` or `warn`: a class of the style sheet.
    pub(super) class: &'static str,
}

fn health(rack: &RackEntry) -> Health {
    let word = rack.status();
    let class = match word.as_str() {
        "running" => "good",
        "unreachable" | "failed" => "bad",
        "unknown" => "",
        _ => "warn",
    };
    Health { word, class }
}

struct RackLine {
    path: String,
    health: Health,
    version: String,
    certificate: Option<When>,
    /// Whether its certificate ends within two weeks.
    ends_soon: bool,
    protected: bool,
}

const SOON_MS: i64 = 14 * 24 * 3_600_000;

fn line(rack: &RackEntry, now_ms: i64) -> RackLine {
    let ends_ms = rack.seen().and_then(|seen| seen.certificate).map(|(ends_ms, _)| ends_ms).filter(|ends_ms| *ends_ms > 0);
    RackLine {
        path: rack.row.path(),
        health: health(rack),
        version: rack.version(),
        certificate: ends_ms.map(|ends_ms| when(ends_ms, now_ms)),
        ends_soon: ends_ms.is_some_and(|ends_ms| ends_ms - now_ms < SOON_MS),
        protected: rack.row.protected,
    }
}

#[derive(Template)]
#[template(path = "racks.html")]
struct RacksPage {
    frame: Frame,
    lines: Vec<RackLine>,
    /// How many there are to this search.
    count: usize,
    search: String,
    /// Number of the page, from 1.
    page: usize,
    has_more: bool,
    /// Whether there is an organization in which they may add one.
    may_add: bool,
    has_orgs: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RacksQuery {
    q: String,
    page: Option<usize>,
    done: String,
}

fn done(code: &str) -> &'static str {
    match code {
        "added" => "The Rack is added.",
        "installed" => "The Rack is installed.",
        "renamed" => "The Rack has its new name.",
        "moved" => "The Rack was moved.",
        "removed" => "The Rack is removed from the Console; it goes on by itself.",
        "protected" => "The Rack is protected.",
        "unprotected" => "The Rack is not protected any more.",
        _ => "",
    }
}

async fn racks(person: Person, Query(query): Query<RacksQuery>) -> Response {
    let (snapshot, now_ms) = (person.app.snapshots.now(), person.app.clock.now_ms());
    let principal = person.principal();
    let search = query.q.trim().to_ascii_lowercase();
    let mut found: Vec<&Arc<RackEntry>> = principal.grants.iter().flat_map(|grant| snapshot.racks_of(&grant.org)).collect();
    found.retain(|rack| search.is_empty() || rack.row.path().contains(&search));
    found.sort_by(|a, b| (&a.row.org_name, &a.row.name).cmp(&(&b.row.org_name, &b.row.name)));
    let page = query.page.unwrap_or(1).clamp(1, found.len() / PAGE + 1);
    let lines: Vec<RackLine> = found.iter().skip((page - 1) * PAGE).take(PAGE).map(|rack| line(rack, now_ms)).collect();
    show(&RacksPage {
        frame: person.frame("racks").with_done(done(&query.done)),
        has_more: page * PAGE < found.len(),
        count: found.len(),
        lines,
        search,
        page,
        may_add: principal.grants.iter().any(|grant| grant.role >= Role::Operator),
        has_orgs: !principal.grants.is_empty(),
    })
}

/// Organizations in which somebody has at least that role, by name.
pub(super) async fn orgs_with(person: &Person, role: Role) -> Result<Vec<String>, OpsError> {
    let rows = person.app.ops().list_orgs(&person.actor, &convox_store::Page::first(1000)).await?;
    let principal = person.principal();
    Ok(rows.into_iter().filter(|org| principal.role_in(&org.id).is_some_and(|theirs| theirs >= role)).map(|org| org.name).collect())
}

#[derive(Template)]
#[template(path = "rack_add.html")]
struct AddPage {
    frame: Frame,
    orgs: Vec<String>,
    form: AddForm,
    /// The certificate that the host shows, once it was asked.
    shown: Option<Shown>,
    problem: Problem,
}

struct Shown {
    fingerprint: String,
    subject: String,
    names: String,
    ends: When,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct AddForm {
    organization: String,
    name: String,
    host: String,
    password: String,
    /// The fingerprint that was shown and accepted; `verify` for a certificate that the system's roots vouch for; empty at first.
    certificate: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AddQuery {
    organization: String,
}

async fn ask_address(person: Person, Query(query): Query<AddQuery>) -> Result<Response, Fault> {
    let orgs = orgs_with(&person, Role::Operator).await?;
    if orgs.is_empty() {
        let words = "you are an operator nowhere; ask an administrator of your organization, or create an organization of your own";
        return Err(Fault::new(StatusCode::FORBIDDEN, words).framed(person.frame("racks")));
    }
    let form = AddForm { organization: query.organization, ..AddForm::default() };
    Ok(show(&AddPage { frame: person.frame("racks"), orgs, form, shown: None, problem: Problem::default() }))
}

/// In two steps: what certificate the host shows, and whether that is the Rack's. The password is sent only after the second.
async fn add(State(app): State<Arc<App>>, person: Person, Form(form): Form<AddForm>) -> Result<Response, Fault> {
    let ops = app.ops();
    let form = AddForm { name: form.name.trim().to_owned(), host: form.host.trim().to_owned(), ..form };
    let pin = match form.certificate.as_str() {
        "" => None,
        "verify" => Some(Pin::Verified),
        text => Some(Pin::Exactly(text.parse().map_err(|_| Fault::new(StatusCode::BAD_REQUEST, "that is no fingerprint; begin again"))?)),
    };
    let refused = match pin {
        None => match ops.look_at(&person.actor, &form.organization, &form.host).await {
            Ok(certificate) => {
                let now_ms = app.clock.now_ms();
                let shown = Shown {
                    fingerprint: certificate.fingerprint.to_string(),
                    subject: certificate.subject,
                    names: certificate.names.join(", "),
                    ends: when(certificate.not_after.saturating_mul(1000), now_ms),
                };
                let orgs = orgs_with(&person, Role::Operator).await?;
                return Ok(show(&AddPage { frame: person.frame("racks"), orgs, form, shown: Some(shown), problem: Problem::default() }));
            }
            Err(error) => error,
        },
        Some(pin) => {
            let password = Secret::new(form.password.clone());
            match ops.add_rack(&person.actor, &form.organization, &form.name, &form.host, &password, pin).await {
                Ok(added) => {
                    app.settle(added.seq).await;
                    return Ok(go(&format!("/console/racks/{}?done=added", added.row.path())));
                }
                Err(error) => error,
            }
        }
    };
    if let OpsError::Store(_) = refused {
        return Err(refused.into());
    }
    let (status, words) = status_and_words(&refused);
    // What is wrong is in the form; and what stands before a Console may put a page of its own in the place of a 502.
    let status = if status == StatusCode::BAD_GATEWAY { StatusCode::UNPROCESSABLE_ENTITY } else { status };
    let field = match &refused {
        OpsError::Input(_) if form.name.parse::<convox_model::RackName>().is_err() => "name",
        OpsError::Input(words) if words.contains("password") => "password",
        OpsError::Rack(words) if words.starts_with("wrong password") => "password",
        OpsError::Conflict(_) => "name",
        OpsError::Missing(_) | OpsError::Forbidden(_) => "organization",
        _ => "host",
    };
    let orgs = orgs_with(&person, Role::Operator).await?;
    let problem = Problem::new(field, sentence(&words));
    Ok(show_with(
        status,
        &AddPage { frame: person.frame("racks"), orgs, form: AddForm { certificate: String::new(), ..form }, shown: None, problem },
    ))
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

#[derive(Template)]
#[template(path = "rack.html")]
struct RackPage {
    frame: Frame,
    org: String,
    name: String,
    path: String,
    health: Health,
    fault: String,
    version: String,
    provider: String,
    host: String,
    pin: String,
    certificate: Option<When>,
    added: When,
    /// When it was last asked for its health.
    looked: Option<When>,
    /// Id of its installation, for whoever may read its log; empty for a Rack that was added.
    install: String,
    password_since: When,
    last_used: Option<(String, String, When)>,
    protected: bool,
    may_operate: bool,
    may_administer: bool,
    /// Where else it could go.
    other_orgs: Vec<String>,
    /// `Err`: why the Rack did not say.
    apps: Result<Vec<RackApp>, String>,
    processes: Result<Vec<ProcessLine>, String>,
    releases: Result<Vec<ReleaseLine>, String>,
    problem: Problem,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Done {
    done: String,
}

async fn details(person: Person, Path((org, name)): Path<(String, String)>, Query(query): Query<Done>) -> Result<Response, Fault> {
    page(&person, StatusCode::OK, &org, &name, done(&query.done), Problem::default())
        .await
        .map_err(|fault| fault.framed(person.frame("racks")))
}

async fn page(person: &Person, status: StatusCode, org: &str, name: &str, done: &'static str, problem: Problem) -> Result<Response, Fault> {
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
    let last = app.ops().last_used_by(&person.actor, org, name).await?;
    let mut other_orgs = orgs_with(person, Role::Administrator).await?;
    other_orgs.retain(|other| other != org);
    let install = match app.ops().find_install(&person.actor, org, row.id.as_str()).await {
        Ok(install) => install.id,
        Err(OpsError::Missing(_) | OpsError::Forbidden(_)) => String::new(),
        Err(error) => return Err(error.into()),
    };
    let seen = reach.rack.seen();
    let line = line(&reach.rack, now_ms);
    Ok(show_with(
        status,
        &RackPage {
            frame: person.frame("racks").with_done(done),
            org: org.to_owned(),
            name: name.to_owned(),
            path: row.path(),
            health: line.health,
            fault: seen.as_ref().map(|seen| sentence(&seen.fault)).unwrap_or_default(),
            version: line.version,
            provider: row.provider.clone(),
            host: row.host.clone(),
            pin: row.pin.clone().unwrap_or_default(),
            certificate: line.certificate,
            added: when(row.created_ms, now_ms),
            looked: seen.as_ref().map(|seen| when(seen.at_ms, now_ms)),
            install,
            password_since: when(row.password_ms, now_ms),
            last_used: last.map(|event| (event.actor, event.action, when(event.at_ms, now_ms))),
            protected: row.protected,
            may_operate: role.is_some_and(|role| role >= Role::Operator),
            may_administer: role == Some(Role::Administrator),
            other_orgs,
            apps: apps.map(Option::unwrap_or_default).map_err(said),
            processes: processes.map(|all| all.unwrap_or_default().into_iter().map(process).collect()).map_err(said),
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
    page(person, status, org, name, "", Problem::new(field, sentence(&words))).await.map_err(|fault| fault.framed(person.frame("racks")))
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
    let framed = |error: OpsError| Fault::from(error).framed(person.frame("racks"));
    let seq = app.ops().protect_rack(&person.actor, &org, &rack, form.protected).await.map_err(framed)?;
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
        Ok(seq) => {
            app.settle(seq).await;
            Ok(go("/console/racks?done=removed"))
        }
        Err(error) => again(&person, &org, &rack, "typed", error).await,
    }
}
