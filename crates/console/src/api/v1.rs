//! The Console's own API. Every answer is JSON; lists take `limit` and `after` (the id of the last row of the page before).

mod keys;
mod racks;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequest as _, Path, Query, Request, State};
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use convox_model::{OrgId, Role};
use convox_seal::Secret;
use convox_store::Page;
use convox_store::audit::Filter;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Caller, Refused, anonymous, plain, refused};
use crate::ops::OpsError;
use crate::reply;
use crate::state::App;
use crate::views;

type Answer = Result<Response, Refused>;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/setup", post(setup))
        .route("/me", get(me))
        .merge(keys::routes())
        .merge(racks::routes())
        .route("/organizations", get(list_orgs).post(create_org))
        .route("/organizations/{org}", put(rename_org))
        .route("/organizations/{org}/members", get(list_members).post(add_member))
        .route("/organizations/{org}/members/{email}", put(change_member).delete(remove_member))
        .route("/organizations/{org}/invitations", get(list_invitations).post(invite))
        .route("/organizations/{org}/invitations/{id}", delete(uninvite))
        .route("/invitations/open", post(open_invitation))
        .route("/invitations/accept", post(accept_invitation))
        .route("/organizations/{org}/audit", get(audit))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Paging {
    limit: Option<i64>,
    after: Option<String>,
}

impl Paging {
    fn page(self) -> Page {
        Page { limit: self.limit.unwrap_or(100).clamp(1, 1000), after: self.after }
    }
}

fn ok(value: &Value) -> Response {
    plain(reply::json(StatusCode::OK, value))
}

/// Reads a JSON body; what is wrong with it is said in one line.
async fn body<T: DeserializeOwned>(caller: &Caller, request: Request) -> Result<T, Refused> {
    let bytes = bytes(caller, request).await?;
    parsed(caller, &bytes)
}

/// What was sent, whether its length was said before or not.
async fn bytes(caller: &Caller, request: Request) -> Result<axum::body::Bytes, Refused> {
    axum::body::Bytes::from_request(request, &()).await.map_err(|_| caller.error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long"))
}

fn parsed<T: DeserializeOwned>(caller: &Caller, bytes: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(bytes)
        .map_err(|error| caller.error(StatusCode::BAD_REQUEST, format!("the body is not the expected JSON: {error}")))
}

async fn done(app: &App, seq: i64, value: Value) -> Answer {
    app.settle(seq).await;
    Ok(ok(&value))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetupBody {
    code: String,
    organization: String,
    email: String,
}

/// The one call without a key: it asks for the one-time code instead.
async fn setup(State(app): State<Arc<App>>, request: Request) -> Answer {
    let (parts, rest) = request.into_parts();
    let actor = anonymous(&parts);
    let wants_json = reply::wants_json(&parts.headers);
    let bad = |error: OpsError| refused(wants_json, &error);
    let bytes = axum::body::to_bytes(rest, 64 * 1024).await.map_err(|_| bad(OpsError::Input("the body is too long".to_owned())))?;
    let body: SetupBody = serde_json::from_slice(&bytes)
        .map_err(|_| bad(OpsError::Input("the body is JSON with code, organization and email".to_owned())))?;
    let code = Secret::new(body.code);
    let (key, made, seq) = app.ops().setup(&actor, &code, &body.organization, &body.email, None).await.map_err(bad)?;
    done(&app, seq, json!({ "organization": made.org_name.as_str(), "email": made.email.as_str(), "api_key": key.reveal() })).await
}

async fn me(State(app): State<Arc<App>>, caller: Caller) -> Answer {
    let principal = caller.who.principal();
    // A limited key sees the organizations that it is for, and no others.
    let sees = |org: &OrgId| principal.scope.as_ref().and_then(|scope| scope.org.as_ref()).is_none_or(|only| only == org);
    let orgs = app.store.list_orgs(Some(&principal.user), &Page::first(1000)).await.map_err(|error| caller.refused(&error.into()))?;
    let orgs: Vec<Value> = orgs
        .iter()
        .filter(|org| sees(&org.id))
        .map(|org| json!({ "name": org.name, "role": principal.role_in(&org.id).map(Role::as_str) }))
        .collect();
    Ok(ok(&json!({ "id": principal.user, "email": principal.email, "key_last4": principal.key_last4, "organizations": orgs })))
}

/// The same, empty body for the defaults.
async fn body_or_default<T: DeserializeOwned + Default>(caller: &Caller, request: Request) -> Result<T, Refused> {
    let bytes = bytes(caller, request).await?;
    if bytes.is_empty() { Ok(T::default()) } else { parsed(caller, &bytes) }
}

async fn list_orgs(State(app): State<Arc<App>>, caller: Caller, Query(paging): Query<Paging>) -> Answer {
    let rows = app.ops().list_orgs(&caller.actor, &paging.page()).await.map_err(|error| caller.refused(&error))?;
    Ok(ok(&rows.iter().map(views::org).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NameBody {
    name: String,
}

async fn create_org(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Answer {
    let body: NameBody = body(&caller, request).await?;
    let (id, seq) = app.ops().create_org(&caller.actor, &body.name).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "id": id, "name": body.name })).await
}

async fn rename_org(State(app): State<Arc<App>>, caller: Caller, Path(org): Path<String>, request: Request) -> Answer {
    let body: NameBody = body(&caller, request).await?;
    let seq = app.ops().rename_org(&caller.actor, &org, &body.name).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "name": body.name })).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberBody {
    #[serde(default)]
    email: String,
    role: Role,
}

async fn add_member(State(app): State<Arc<App>>, caller: Caller, Path(org): Path<String>, request: Request) -> Answer {
    let body: MemberBody = body(&caller, request).await?;
    let seq = app.ops().add_member(&caller.actor, &org, &body.email, body.role).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "email": body.email, "role": body.role })).await
}

async fn change_member(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path((org, email)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let body: MemberBody = body(&caller, request).await?;
    let seq = app.ops().change_member(&caller.actor, &org, &email, body.role).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "email": email, "role": body.role })).await
}

async fn remove_member(State(app): State<Arc<App>>, caller: Caller, Path((org, email)): Path<(String, String)>) -> Answer {
    let seq = app.ops().remove_member(&caller.actor, &org, &email).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "removed": email })).await
}

async fn list_members(State(app): State<Arc<App>>, caller: Caller, Path(org): Path<String>, Query(paging): Query<Paging>) -> Answer {
    let rows = app.ops().list_members(&caller.actor, &org, &paging.page()).await.map_err(|error| caller.refused(&error))?;
    Ok(ok(&rows.iter().map(views::member).collect()))
}

async fn list_invitations(State(app): State<Arc<App>>, caller: Caller, Path(org): Path<String>, Query(paging): Query<Paging>) -> Answer {
    let rows = app.ops().list_invitations(&caller.actor, &org, &paging.page()).await.map_err(|error| caller.refused(&error))?;
    Ok(ok(&rows.iter().map(views::invitation).collect()))
}

/// Gives the code of the link, once; whoever asks knows how the Console is called.
async fn invite(State(app): State<Arc<App>>, caller: Caller, Path(org): Path<String>, request: Request) -> Answer {
    let body: MemberBody = body(&caller, request).await?;
    let invited = app.ops().invite(&caller.actor, &org, &body.email, body.role).await.map_err(|error| caller.refused(&error))?;
    let path = format!("/console/invitation#{}", invited.code.reveal());
    done(&app, invited.seq, json!({ "email": invited.email, "role": body.role, "path": path })).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CodeBody {
    code: String,
}

impl CodeBody {
    /// The code, of which the whole link may be given.
    fn secret(self) -> Secret {
        let Self { code } = self;
        Secret::new(code.rsplit('#').next().unwrap_or_default().trim().to_owned())
    }
}

/// What somebody is invited to, before they accept. A body, since a code in an address would be in logs.
async fn open_invitation(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Answer {
    let body: CodeBody = body(&caller, request).await?;
    let opened = app.ops().open_invitation(&body.secret()).await.map_err(|error| caller.refused(&error))?;
    let gone = || caller.error(StatusCode::CONFLICT, "this invitation was used, withdrawn or has ended; ask for a new one");
    Ok(ok(&views::invitation(&opened.ok_or_else(gone)?.row)))
}

/// Accepts as whoever's key asks.
async fn accept_invitation(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Answer {
    let body: CodeBody = body(&caller, request).await?;
    let (row, seq) = app.ops().accept_invitation_by_key(&caller.actor, &body.secret()).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "organization": row.org_name, "role": row.role })).await
}

async fn uninvite(State(app): State<Arc<App>>, caller: Caller, Path((org, id)): Path<(String, String)>) -> Answer {
    let seq = app.ops().uninvite(&caller.actor, &org, &id).await.map_err(|error| caller.refused(&error))?;
    done(&app, seq, json!({ "withdrawn": id })).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AuditQuery {
    actor: String,
    rack: String,
    app: String,
    effect: String,
    decision: String,
    since_ms: i64,
    limit: Option<i64>,
    after: Option<String>,
}

async fn audit(State(app): State<Arc<App>>, caller: Caller, Path(org): Path<String>, Query(query): Query<AuditQuery>) -> Answer {
    let AuditQuery { actor, rack, app: named_app, effect, decision, since_ms, limit, after } = query;
    let filter = Filter { actor, rack, app: named_app, effect, decision, since_ms, ..Filter::default() };
    let page = Paging { limit, after }.page();
    let events = app.ops().list_audit(&caller.actor, Some(&org), filter, &page).await.map_err(|error| caller.refused(&error))?;
    Ok(ok(&events.iter().map(views::event).collect()))
}
