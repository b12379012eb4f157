//! What the v2 and v3 clients ask of a Console (protocol 5.1). Features that only make sense on the originals' clouds are refused in words.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use convox_wire::api::{Identity, Organization, RackDetail, RackEntry as Entry};
use http::StatusCode;

use super::{Caller, Refused, plain};
use crate::credentials::RackEntry;
use crate::reply;
use crate::state::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/auth", get(auth))
        .route("/health", get(async || plain(reply::text("ok\n"))))
        .route("/", get(welcome))
        .route("/racks", get(racks).post(elsewhere))
        .route("/racks/{org}/{rack}", get(rack).put(elsewhere).delete(elsewhere))
        .route("/racks/{org}/{rack}/runtimes", get(none).put(elsewhere))
        .route("/racks/{org}/{rack}/workflows", get(workflows))
        .route("/racks/{org}/{rack}/sync", axum::routing::post(sync))
        .route("/racks/{org}/{rack}/host", get(host))
        .route("/racks/{org}/{rack}/{*rest}", any(elsewhere))
        .route("/organizations/{org}/runtimes", get(none))
        .route("/machines", get(none))
        .route("/machines/{*rest}", any(elsewhere))
        .route("/login/{*rest}", any(elsewhere))
}

/// Never demands a session: `login` cannot answer one.
async fn auth(caller: Caller) -> Response {
    let principal = caller.who.principal();
    plain(reply::json(StatusCode::OK, &Identity { id: principal.user.to_string(), email: principal.email.clone() }))
}

async fn welcome() -> Response {
    plain(reply::text("This is a Convox Console.\n\nLog in from your machine:  convox login HOST\nThe API is under /api/v1.\n"))
}

/// The Racks that the caller may see, sorted by name. Cheap: nearly every command of v3 asks for it first.
async fn racks(State(app): State<Arc<App>>, caller: Caller) -> Response {
    let snapshot = app.snapshots.now();
    let mut list: Vec<&Arc<RackEntry>> = caller.who.principal().grants.iter().flat_map(|grant| snapshot.racks_of(&grant.org)).collect();
    list.sort_by(|a, b| (&a.row.org_name, &a.row.name).cmp(&(&b.row.org_name, &b.row.name)));
    let list: Vec<Entry> = list
        .into_iter()
        .map(|rack| Entry {
            name: rack.row.name.clone(),
            organization: Some(Organization { name: rack.row.org_name.clone(), ..Organization::default() }),
            provider: rack.row.provider.clone(),
            status: rack.status().to_owned(),
        })
        .collect();
    plain(reply::json(StatusCode::OK, &list))
}

fn visible(app: &App, caller: &Caller, org: &str, rack: &str) -> Result<Arc<RackEntry>, Refused> {
    let snapshot = app.snapshots.now();
    snapshot
        .rack(&format!("{org}/{rack}"))
        .filter(|entry| caller.who.principal().role_in(&entry.row.org).is_some())
        .cloned()
        .ok_or_else(|| caller.error(StatusCode::NOT_FOUND, "no such rack; `convox racks` lists those that you may use"))
}

/// `state` null tells v3 clients that parameters and updates go to the Rack itself.
async fn rack(State(app): State<Arc<App>>, caller: Caller, Path((org, rack)): Path<(String, String)>) -> Result<Response, Refused> {
    let entry = visible(&app, &caller, &org, &rack)?;
    let detail = RackDetail {
        name: entry.row.name.clone(),
        organization: Some(Organization { name: entry.row.org_name.clone(), ..Organization::default() }),
        provider: entry.row.provider.clone(),
        status: entry.status().to_owned(),
        deletable: false,
        ..RackDetail::default()
    };
    Ok(plain(reply::json(StatusCode::OK, &detail)))
}

async fn host(State(app): State<Arc<App>>, caller: Caller, Path((org, rack)): Path<(String, String)>) -> Result<Response, Refused> {
    let entry = visible(&app, &caller, &org, &rack)?;
    Ok(plain(reply::json(StatusCode::OK, &serde_json::json!({ "host": entry.row.host }))))
}

/// The address of a Rack here is what its operator registered: there is nothing to synchronise.
async fn sync(State(app): State<Arc<App>>, caller: Caller, Path((org, rack)): Path<(String, String)>) -> Result<Response, Refused> {
    visible(&app, &caller, &org, &rack)?;
    Ok(plain(reply::text("ok\n")))
}

async fn none(_caller: Caller) -> Response {
    plain(reply::json(StatusCode::OK, &serde_json::json!([])))
}

async fn workflows(State(app): State<Arc<App>>, caller: Caller, Path((org, rack)): Path<(String, String)>) -> Result<Response, Refused> {
    visible(&app, &caller, &org, &rack)?;
    Ok(plain(reply::json(StatusCode::OK, &serde_json::json!({ "oid": org, "workflows": [] }))))
}

async fn elsewhere(caller: Caller) -> Response {
    caller
        .error(
            StatusCode::BAD_REQUEST,
            "not available on this Console: Racks are added with `convox-console rack add` and updated through their own API",
        )
        .into_response()
}
