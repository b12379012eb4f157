//! Racks, and rolls of their passwords.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::routing::{get, post, put};
use convox_seal::Secret;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::{Answer, NameBody, Paging, body, done, ok};
use crate::api::Caller;
use crate::ops::racks::{NewRack, Pin};
use crate::ops::rolls::{self, Manner};
use crate::state::App;
use crate::views;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/racks", get(my_racks))
        .route("/organizations/{org}/racks", get(list_racks).post(add_rack))
        .route("/organizations/{org}/racks/{rack}", put(rename_rack).delete(remove_rack))
        .route("/organizations/{org}/racks/{rack}/probe", post(probe_rack))
        .route("/organizations/{org}/racks/{rack}/password", get(roll_status).post(roll).put(schedule_rolls).delete(undo_roll))
}

async fn my_racks(State(app): State<Arc<App>>, caller: Caller) -> Answer {
    let snapshot = app.snapshots.now();
    let principal = caller.who.principal();
    let racks = principal.grants.iter().flat_map(|grant| snapshot.racks_of(&grant.org));
    let racks = racks.filter(|rack| principal.sees(&rack.row.org, &rack.row.id));
    Ok(ok(&racks.map(|rack| views::rack(&rack.row)).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RackBody {
    name: String,
    host: String,
    password: String,
    #[serde(default)]
    pin: Option<String>,
    #[serde(default)]
    trust_on_first_use: bool,
}

async fn add_rack(State(app): State<Arc<App>>, caller: Caller, Path(org): Path<String>, request: Request) -> Answer {
    let body: RackBody = body(&caller, request).await?;
    let password = Secret::new(body.password);
    let pin = match (body.pin.as_deref().map(str::parse), body.trust_on_first_use) {
        (Some(Ok(pin)), _) => Pin::Exactly(pin),
        (Some(Err(error)), _) => return Err(caller.error(StatusCode::BAD_REQUEST, error.to_string())),
        (None, true) => Pin::FirstUse,
        (None, false) => Pin::Verified,
    };
    let new = NewRack { org: &org, name: &body.name, host: &body.host, password: &password, pin };
    let added = app.ops().add_rack(&caller.actor, new).await.map_err(|error| caller.refused(&error))?;
    done(&app, added.seq, views::added(&added)).await
}

async fn rename_rack(State(app): State<Arc<App>>, caller: Caller, Path((org, rack)): Path<(String, String)>, request: Request) -> Answer {
    let body: NameBody = body(&caller, request).await?;
    let seq = app.ops().rename_rack(&caller.actor, &org, &rack, &body.name).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "name": body.name })).await
}

async fn remove_rack(State(app): State<Arc<App>>, caller: Caller, Path((org, rack)): Path<(String, String)>) -> Answer {
    let (seq, tokens) = app.ops().remove_rack(&caller.actor, &org, &rack).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "removed": rack, "tokens_left": tokens })).await
}

async fn list_racks(State(app): State<Arc<App>>, caller: Caller, Path(org): Path<String>, Query(paging): Query<Paging>) -> Answer {
    let rows = app.ops().list_racks(&caller.actor, Some(&org), &paging.page()).await.map_err(|error| caller.refused(&error))?;
    Ok(ok(&rows.iter().map(views::rack).collect()))
}

async fn probe_rack(State(app): State<Arc<App>>, caller: Caller, Path((org, rack)): Path<(String, String)>) -> Answer {
    let probed = app.ops().probe_rack(&caller.actor, &org, &rack).await.map_err(|error| caller.refused(&error))?;
    Ok(ok(&views::probed(&probed)))
}

async fn roll_status(State(app): State<Arc<App>>, caller: Caller, Path((org, rack)): Path<(String, String)>) -> Answer {
    let (roll, rule) = app.ops().roll_status(&caller.actor, &org, &rack).await.map_err(|error| caller.refused(&error))?;
    Ok(ok(&views::roll(roll.as_ref(), &rule)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RollBody {
    window_seconds: Option<u64>,
    cut_streams: bool,
}

/// Begins to roll the password; it is carried on by itself, and GET says how far it is.
async fn roll(State(app): State<Arc<App>>, caller: Caller, Path((org, rack)): Path<(String, String)>, request: Request) -> Answer {
    let body: RollBody = body(&caller, request).await?;
    let window = body.window_seconds.map_or(rolls::WINDOW, Duration::from_secs);
    let manner = Manner { window, cut: body.cut_streams };
    let (_, seq) = app.ops().begin_roll(&caller.actor, &org, &rack, manner).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "step": "begun", "window_seconds": window.as_secs(), "cut_streams": body.cut_streams })).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScheduleBody {
    every_days: i64,
}

async fn schedule_rolls(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((org, rack)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let body: ScheduleBody = body(&caller, request).await?;
    let seq = app.ops().schedule_rolls(&caller.actor, &org, &rack, body.every_days).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "every_days": body.every_days })).await
}

async fn undo_roll(State(app): State<Arc<App>>, caller: Caller, Path((org, rack)): Path<(String, String)>) -> Answer {
    let holder = format!("undo {}", caller.actor.request_id);
    let (_, seq) = app.ops().undo_roll(&caller.actor, &org, &rack, &holder).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "step": "reverted" })).await
}
