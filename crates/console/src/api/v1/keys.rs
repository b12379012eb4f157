//! API keys: one's own, those of members, and deploy keys of an organization.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::routing::{delete, get, post};
use convox_store::keys::KeyRow;
use serde_json::{Value, json};

use super::{Answer, Paging, body, body_or_default, done, ok};
use crate::api::{Caller, Holder, Refused};
use crate::ops::keys::{Roll, Wanted};
use crate::state::App;
use crate::views;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/keys", get(list_keys).post(create_key))
        .route("/keys/current", get(current_key))
        .route("/keys/regenerate", post(regenerate_key))
        .route("/keys/roll", post(begin_roll))
        .route("/keys/roll/finish", post(finish_roll))
        .route("/keys/{id}", delete(revoke_key))
        .route("/keys/{id}/roll", post(roll_key))
        .route("/organizations/{org}/members/{email}/keys", get(list_members_keys))
        .route("/organizations/{org}/members/{email}/keys/{id}", delete(revoke_members_key))
        .route("/organizations/{org}/keys", get(list_deploy_keys).post(create_deploy_key))
        .route("/organizations/{org}/keys/{id}", delete(revoke_deploy_key))
        .route("/organizations/{org}/keys/{id}/roll", post(roll_deploy_key))
}

async fn create_key(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Answer {
    let wanted: Wanted = body(&caller, request).await?;
    let made = app.ops().create_key(&caller.actor, None, &wanted).await.map_err(|error| caller.refused(&error))?;
    done(&app, made.seq, views::made_key(&made)).await
}

async fn create_deploy_key(State(app): State<Arc<App>>, caller: Caller, Path(org): Path<String>, request: Request) -> Answer {
    let wanted: Wanted = body(&caller, request).await?;
    let wanted = Wanted { kind: "deploy".to_owned(), organization: Some(org), ..wanted };
    let made = app.ops().create_key(&caller.actor, None, &wanted).await.map_err(|error| caller.refused(&error))?;
    done(&app, made.seq, views::made_key(&made)).await
}

async fn regenerate_key(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Answer {
    let roll: Roll = body_or_default(&caller, request).await?;
    let made = app.ops().regenerate_key(&caller.actor, None, roll).await.map_err(|error| caller.refused(&error))?;
    done(&app, made.seq, views::made_key(&made)).await
}

/// A new key beside the one that asks. The old one is good until the new one says that it was kept.
async fn begin_roll(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Answer {
    let roll: Roll = body_or_default(&caller, request).await?;
    let made = app.ops().begin_key_roll(&caller.actor, roll).await.map_err(|error| caller.refused(&error))?;
    done(&app, made.seq, views::made_key(&made)).await
}

/// A key that is recognised is enough: a second factor is asked for what it is used for, and here it only takes its place.
async fn finish_roll(State(app): State<Arc<App>>, caller: Holder) -> Answer {
    let seq = app.ops().finish_key_roll(&caller.actor).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "rolled": true })).await
}

async fn roll_key(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>, request: Request) -> Answer {
    let roll: Roll = body_or_default(&caller, request).await?;
    let made = app.ops().roll_key(&caller.actor, None, &id, roll).await.map_err(|error| caller.refused(&error))?;
    done(&app, made.seq, views::made_key(&made)).await
}

async fn roll_deploy_key(State(app): State<Arc<App>>, caller: Caller, Path((org, id)): Path<(String, String)>, request: Request) -> Answer {
    let roll: Roll = body_or_default(&caller, request).await?;
    let made = app.ops().roll_key(&caller.actor, Some(&org), &id, roll).await.map_err(|error| caller.refused(&error))?;
    done(&app, made.seq, views::made_key(&made)).await
}

async fn revoke_key(State(app): State<Arc<App>>, caller: Caller, Path(id): Path<String>) -> Answer {
    let seq = app.ops().revoke_key(&caller.actor, None, &id).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "revoked": id })).await
}

async fn revoke_deploy_key(State(app): State<Arc<App>>, caller: Caller, Path((org, id)): Path<(String, String)>) -> Answer {
    let seq = app.ops().revoke_key(&caller.actor, Some(&org), &id).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "revoked": id })).await
}

/// Keys as they are shown, with their last use as this server knows it.
async fn shown(app: &App, caller: &Caller, mut rows: Vec<KeyRow>) -> Result<Value, Refused> {
    let snapshot = app.snapshots.now().clone();
    for row in &mut rows {
        row.used_ms = row.used_ms.max(Some(snapshot.key_used_ms(&row.id))).filter(|used_ms| *used_ms > 0);
    }
    let names = app.ops().rack_names(&rows).await.map_err(|error| caller.refused(&error))?;
    Ok(rows.iter().map(|row| views::key(row, &names)).collect())
}

async fn list_keys(State(app): State<Arc<App>>, caller: Caller, Query(paging): Query<Paging>) -> Answer {
    let rows = app.ops().list_keys(&caller.actor, None, &paging.page()).await.map_err(|error| caller.refused(&error))?;
    Ok(ok(&shown(&app, &caller, rows).await?))
}

async fn current_key(State(app): State<Arc<App>>, caller: Caller) -> Answer {
    let row = app.ops().own(&caller.actor).await.map_err(|error| caller.refused(&error))?;
    let names = app.ops().rack_names(std::slice::from_ref(&row)).await.map_err(|error| caller.refused(&error))?;
    let mut value = views::key(&row, &names);
    value["scope"] = json!(views::scope(&row, &names));
    Ok(ok(&value))
}

async fn list_deploy_keys(State(app): State<Arc<App>>, caller: Caller, Path(org): Path<String>, Query(paging): Query<Paging>) -> Answer {
    let rows = app.ops().list_deploy_keys(&caller.actor, &org, &paging.page()).await.map_err(|error| caller.refused(&error))?;
    Ok(ok(&shown(&app, &caller, rows).await?))
}

async fn list_members_keys(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((org, email)): Path<(String, String)>,
    Query(paging): Query<Paging>,
) -> Answer {
    let rows = app.ops().list_members_keys(&caller.actor, &org, &email, &paging.page()).await;
    let rows = rows.map_err(|error| caller.refused(&error))?;
    Ok(ok(&shown(&app, &caller, rows).await?))
}

async fn revoke_members_key(State(app): State<Arc<App>>, caller: Caller, Path((org, email, id)): Path<(String, String, String)>) -> Answer {
    let seq = app.ops().revoke_members_key(&caller.actor, &org, &email, &id).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "revoked": id })).await
}
