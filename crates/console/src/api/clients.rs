//! What the v2 and v3 clients ask of a Console (protocol 5.1). Features that only make sense on the originals' clouds are refused in words.
//!
//! A path names a Rack by two segments, `/racks/acme/main/sync`; v2 sends its own short name, `/racks/main/sync`, which means the only
//! `*/main`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodRouter, any, get};
use convox_wire::api::{Identity, Organization, RackDetail, RackEntry as Entry};
use http::header::ACCEPT;
use http::{HeaderMap, Method, StatusCode};

use super::{Caller, Holder, Refused, plain};
use crate::credentials::RackEntry;
use crate::front::{self, NoRack};
use crate::ops::Actor;
use crate::reply;
use crate::state::App;
use crate::web::HOME;

/// How long one waits for the version of a Rack that nobody has looked at yet.
const LOOK: Duration = Duration::from_secs(5);

const ADD: &str = "add a rack with `convox-console rack add`, or POST /api/v1/organizations/ORG/racks";
const REMOVE: &str = "remove a rack with `convox-console rack remove`, or DELETE /api/v1/organizations/ORG/racks/RACK";
const INSTALL: &str = "racks are installed where they run, and then added with `convox-console rack add`";
const UPDATE: &str = "a rack's parameters and version are its own; they are set on the rack itself";
const RUNTIMES: &str = "it has no runtime integrations; racks are added by their address";
const WORKFLOWS: &str = "it has no workflows; deploy from your CI with a deploy key";
const MACHINES: &str = "it has no cloud machines; select a rack instead";
const LOGIN: &str = "the command line opens /login/u2f and no other page below /login";

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/auth", get(auth))
        .route("/health", get(async || plain(reply::text(convox_wire::readiness::ALIVE))))
        .route("/ready", get(crate::readiness::ready))
        .route("/", get(welcome))
        .route("/racks", get(racks).post(async |caller: Caller| unavailable(&caller, ADD)))
        .route("/racks/{rack}", any(async |caller: Caller| no_such_rack(&caller)))
        .route("/racks/{org}/{rack}", any(rack))
        .route("/racks/{org}/{rack}/{*rest}", any(below))
        .route("/organizations/{org}/runtimes", get(organization_runtimes))
        .route("/machines", get(async |_caller: Caller| empty_list()))
        .route("/machines/{*rest}", unavailable_route(MACHINES))
        .route("/login/{*rest}", unavailable_route(LOGIN))
}

fn unavailable_route(why: &'static str) -> MethodRouter<Arc<App>> {
    any(async move |caller: Caller| unavailable(&caller, why))
}

/// A feature that this Console lacks, and what there is instead.
fn unavailable(caller: &Caller, instead: &str) -> Refused {
    caller.error(StatusCode::BAD_REQUEST, format!("not available on this Console: {instead}"))
}

fn empty_list() -> Response {
    plain(reply::json(StatusCode::OK, &serde_json::json!([])))
}

/// Never demands a session: `login` cannot answer one.
async fn auth(State(app): State<Arc<App>>, holder: Holder) -> Response {
    let principal = holder.who.principal();
    // Whoever logs in with a key that is less than a person is told so.
    let mut key = String::new();
    if principal.is_limited()
        && let Ok(row) = app.ops().own(&holder.actor).await
    {
        let names = app.ops().rack_names(std::slice::from_ref(&row)).await.unwrap_or_default();
        let kind = if principal.is_deploy { "deploy key" } else { "limited key" };
        let scope = Some(crate::views::scope(&row, &names)).filter(|scope| !scope.is_empty());
        key = format!("{kind} {}{}", row.name, scope.map(|scope| format!(": {scope}")).unwrap_or_default());
    }
    plain(reply::json(StatusCode::OK, &Identity { id: principal.user.to_string(), email: principal.email.clone(), key }))
}

/// A browser finds the pages, anything else a word about what this is.
async fn welcome(headers: HeaderMap) -> Response {
    if headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html")) {
        return Redirect::to(HOME).into_response();
    }
    plain(reply::text("This is a Convox Console.\n\nLog in from your machine:  convox login HOST\nThe API is under /api/v1.\n"))
}

/// The Racks that the caller may see, sorted by name. Cheap: nearly every command of v3 asks for it first.
async fn racks(State(app): State<Arc<App>>, caller: Caller) -> Response {
    let snapshot = app.snapshots.now();
    let principal = caller.who.principal();
    let mut list: Vec<&Arc<RackEntry>> = principal.grants.iter().flat_map(|grant| snapshot.racks_of(&grant.org)).collect();
    list.retain(|rack| principal.sees(&rack.row.org, &rack.row.id));
    list.sort_by(|a, b| (&a.row.org_name, &a.row.name).cmp(&(&b.row.org_name, &b.row.name)));
    let list: Vec<Entry> = list
        .into_iter()
        .map(|rack| Entry {
            name: rack.row.name.clone(),
            organization: Some(organization(rack)),
            provider: rack.row.provider.clone(),
            status: rack.status(),
        })
        .collect();
    plain(reply::json(StatusCode::OK, &list))
}

fn organization(rack: &RackEntry) -> Organization {
    Organization { name: rack.row.org_name.clone(), ..Organization::default() }
}

/// The Rack of that name, for who may see it.
fn visible(app: &App, caller: &Caller, name: &str) -> Result<Arc<RackEntry>, Refused> {
    front::find_rack(&app.snapshots.now(), caller.who.principal(), name).cloned().map_err(|error| {
        let status = match error {
            NoRack::Unknown(_) => StatusCode::NOT_FOUND,
            NoRack::Ambiguous(..) => StatusCode::BAD_REQUEST,
        };
        caller.error(status, error.to_string())
    })
}

fn no_such_rack(caller: &Caller) -> Refused {
    caller.error(StatusCode::NOT_FOUND, "no such rack; `convox racks` lists those that you may use")
}

/// `/racks/{org}/{rack}`, or of v2 `/racks/{short name}/{what}`.
async fn rack(
    State(app): State<Arc<App>>,
    caller: Caller,
    method: Method,
    Path((first, second)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let found = visible(&app, &caller, &format!("{first}/{second}"));
    if found.is_err() && ["runtimes", "sync", "host", "workflows", "install"].contains(&second.as_str()) {
        let rack = visible(&app, &caller, &first)?;
        return about(&caller, &method, &rack, &second);
    }
    let rack = match method {
        // Installing makes what is not there yet, so it comes before the question which Rack is meant.
        Method::PUT => return found.and_then(|_| Err(unavailable(&caller, UPDATE))),
        Method::DELETE => return found.and_then(|_| Err(unavailable(&caller, REMOVE))),
        Method::GET => found?,
        _ => return Err(caller.error(StatusCode::METHOD_NOT_ALLOWED, "")),
    };
    if rack.version().is_empty() {
        // v3 sets no parameters on a Rack whose version it does not know.
        let look = async { app.ops().probe_rack(&Actor::host(), &rack.row.org_name, &rack.row.name).await };
        if let Ok(Ok(probed)) = tokio::time::timeout(LOOK, look).await {
            let certificate = rack.seen().and_then(|seen| seen.certificate);
            rack.keep(Ok((&probed.system.status, &probed.system.version)), certificate, app.clock.now_ms());
        }
    }
    let detail = RackDetail {
        name: rack.row.name.clone(),
        organization: Some(organization(&rack)),
        provider: rack.row.provider.clone(),
        status: rack.status(),
        version: rack.version(),
        deletable: false,
        // `state` and `parameters` null tell v3 that both are the Rack's own.
        ..RackDetail::default()
    };
    Ok(plain(reply::json(StatusCode::OK, &detail)))
}

/// `/racks/{org}/{rack}/{what}`.
async fn below(
    State(app): State<Arc<App>>,
    caller: Caller,
    method: Method,
    Path((org, name, what)): Path<(String, String, String)>,
) -> Result<Response, Refused> {
    if what == "install" {
        return Err(unavailable(&caller, INSTALL));
    }
    let rack = visible(&app, &caller, &format!("{org}/{name}"))?;
    about(&caller, &method, &rack, &what)
}

fn about(caller: &Caller, method: &Method, rack: &RackEntry, what: &str) -> Result<Response, Refused> {
    let value = match (method, what) {
        (&Method::GET, "runtimes") => serde_json::json!([]),
        (&Method::GET, "host") => serde_json::json!({ "host": rack.row.host }),
        (&Method::GET, "workflows") => serde_json::json!({ "oid": rack.row.org, "workflows": [] }),
        // The address of a Rack here is what its operator registered: there is nothing to synchronise.
        (&Method::POST, "sync") => return Ok(plain(reply::text("ok\n"))),
        (&Method::PUT, "runtimes") => return Err(unavailable(caller, RUNTIMES)),
        (_, "install") => return Err(unavailable(caller, INSTALL)),
        (_, workflows) if workflows.starts_with("workflows/") => return Err(unavailable(caller, WORKFLOWS)),
        (_, "runtimes" | "host" | "workflows" | "sync") => return Err(caller.error(StatusCode::METHOD_NOT_ALLOWED, "")),
        _ => return Err(caller.error(StatusCode::NOT_FOUND, "")),
    };
    Ok(plain(reply::json(StatusCode::OK, &value)))
}

async fn organization_runtimes(State(app): State<Arc<App>>, caller: Caller, Path(org): Path<String>) -> Response {
    match app.ops().enter(&caller.actor, &org, convox_model::Role::Developer).await {
        Ok(_) => empty_list(),
        Err(error) => caller.refused(&error).into_response(),
    }
}
