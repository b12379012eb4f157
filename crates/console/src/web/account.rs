//! One's own account: the API key, named keys, signed-in devices, password.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use convox_seal::Secret;
use convox_store::Page;
use convox_store::keys::{DEFAULT_NAME, KeyRow};
use http::StatusCode;
use serde::Deserialize;

use super::keys::{RollForm, state};
use super::page::{Fault, Frame, Problem, go, sentence, show_with, status_and_words};
use super::person::{Person, with_session, without_session};
use super::words::{When, browser, when};
use crate::ops::OpsError;
use crate::ops::keys::Wanted;
use crate::state::App;
use crate::views;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/account", get(account))
        .route("/account/regenerate", post(regenerate))
        .route("/account/keys", post(create_key))
        .route("/account/keys/{id}/revoke", post(revoke_key))
        .route("/account/devices/{id}/sign-out", post(sign_out))
        .route("/account/devices/sign-out-others", post(sign_out_others))
        .route("/account/devices/sign-out-all", post(sign_out_all))
        .route("/account/password", post(change_password))
}

/// A key as a row of the page.
struct KeyLine {
    id: String,
    name: String,
    kind: String,
    last4: String,
    made: When,
    ends: Option<When>,
    has_ended: bool,
    used: Option<When>,
    /// In words; empty for one that is simply there.
    state: &'static str,
    /// What it is limited to, in words; empty for nothing.
    scope: String,
}

/// A signed-in browser as a row of the page.
struct DeviceLine {
    id: String,
    browser: String,
    peer: String,
    signed_in: When,
    used: When,
    is_this: bool,
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    frame: Frame,
    /// The one key that is regenerated; `None` before the first time.
    key: Option<KeyLine>,
    keys: Vec<KeyLine>,
    /// Where the next page of keys begins; empty on the last one.
    more: String,
    devices: Vec<DeviceLine>,
    has_factor: bool,
    rule: &'static str,
    key_name: String,
    problem: Problem,
}

/// A key that was just made, shown this once.
pub(super) struct Once {
    pub(super) name: String,
    pub(super) key: String,
    /// How the browser calls this Console, for the line that logs in.
    pub(super) host: String,
}

#[derive(Template)]
#[template(path = "key_once.html")]
struct OncePage {
    frame: Frame,
    once: Once,
}

/// The page that shows a new key; it is the only one that ever does.
pub(super) fn show_key(status: StatusCode, frame: Frame, once: Once) -> Response {
    show_with(status, &OncePage { frame, once })
}

const PAGE: i64 = 50;

#[derive(Default, Deserialize)]
struct AccountQuery {
    #[serde(default)]
    done: String,
    #[serde(default)]
    after: String,
}

fn done(code: &str) -> &'static str {
    match code {
        "revoked" => "The key is revoked. Nothing that it opened is open any more.",
        "signed-out" => "That device is signed out.",
        "others" => "All other devices are signed out.",
        "password" => "Your password is changed, and all other devices are signed out.",
        _ => "",
    }
}

async fn account(person: Person, Query(query): Query<AccountQuery>) -> Result<Response, Fault> {
    page(&person, StatusCode::OK, &query, String::new(), Problem::default()).await
}

async fn page(person: &Person, status: StatusCode, query: &AccountQuery, key_name: String, problem: Problem) -> Result<Response, Fault> {
    let (ops, now_ms) = (person.app.ops(), person.app.clock.now_ms());
    let snapshot = person.app.snapshots.now();
    let list = Page { limit: PAGE, after: (!query.after.is_empty()).then(|| query.after.clone()) };
    let rows = ops.list_keys(&person.actor, None, &list).await?;
    let names = ops.rack_names(&rows).await?;
    // What was used since the last look at the database is known in memory.
    let line = |row: KeyRow| {
        let used_ms = snapshot.key_used_ms(&row.id).max(row.used_ms.unwrap_or_default());
        KeyLine {
            state: state(&row),
            scope: views::scope(&row, &names),
            id: row.id.to_string(),
            name: row.name,
            kind: row.kind,
            last4: row.last4,
            made: when(row.created_ms, now_ms),
            ends: row.expires_ms.map(|end| when(end, now_ms)),
            has_ended: row.expires_ms.is_some_and(|end| end <= now_ms),
            used: (used_ms > 0).then(|| when(used_ms, now_ms)),
        }
    };
    let more = if rows.len() as i64 == PAGE { rows.last().map(|row| row.id.to_string()).unwrap_or_default() } else { String::new() };
    let key = ops.find_default_key(&person.actor).await?.map(line);
    let keys = rows.into_iter().filter(|row| row.name != DEFAULT_NAME || !state(row).is_empty()).map(line).collect();
    let this = person.principal().key.as_ref();
    let devices = ops.list_sessions(&person.actor).await?.into_iter().map(|row| {
        let is_this = Some(&row.id) == this;
        let used_ms = snapshot.key_used_ms(&row.id).max(row.used_ms);
        DeviceLine {
            id: row.id.to_string(),
            browser: row.key_last4.map_or_else(|| browser(&row.agent), |last4| format!("Command line with the key {last4}")),
            peer: row.peer,
            signed_in: when(row.created_ms, now_ms),
            used: when(used_ms, now_ms),
            is_this,
        }
    });
    let frame = person.frame("account").with_done(done(&query.done));
    let rule = person.app.rules.password.words();
    Ok(show_with(
        status,
        &AccountPage {
            frame,
            key,
            keys,
            more,
            devices: devices.collect(),
            has_factor: person.who.known().has_factor,
            rule,
            key_name,
            problem,
        },
    ))
}

async fn regenerate(State(app): State<Arc<App>>, person: Person, Form(form): Form<RollForm>) -> Result<Response, Fault> {
    let made = app.ops().regenerate_key(&person.actor, None, form.roll()).await?;
    app.settle(made.seq).await;
    let frame = person.frame("account").with_done(form.done());
    Ok(show_key(StatusCode::OK, frame, Once { name: made.name, key: made.key.reveal().to_owned(), host: person.host }))
}

#[derive(Deserialize)]
struct KeyForm {
    name: String,
    #[serde(default)]
    kind: String,
    /// Days; empty for a key without an end.
    #[serde(default)]
    days: String,
}

async fn create_key(State(app): State<Arc<App>>, person: Person, Form(form): Form<KeyForm>) -> Result<Response, Fault> {
    let hours = match form.days.trim() {
        "" => Ok(None),
        days => days.parse::<i64>().ok().and_then(|days| days.checked_mul(24)).map(Some).ok_or("give a number of days, or nothing"),
    };
    let refused = |field, status, words: &str| {
        let problem = Problem::new(field, sentence(words));
        let (person, name) = (&person, form.name.clone());
        async move { page(person, status, &AccountQuery::default(), name, problem).await }
    };
    let hours = match hours {
        Ok(hours) => hours,
        Err(words) => return refused("days", StatusCode::BAD_REQUEST, words).await,
    };
    let wanted = Wanted { name: form.name.trim().to_owned(), kind: form.kind.clone(), expires_in_hours: hours, ..Wanted::default() };
    match app.ops().create_key(&person.actor, None, &wanted).await {
        Ok(made) => {
            app.settle(made.seq).await;
            let frame = person.frame("account").with_done("The key is made.");
            Ok(show_key(StatusCode::OK, frame, Once { name: made.name, key: made.key.reveal().to_owned(), host: person.host }))
        }
        Err(error @ (OpsError::Input(_) | OpsError::Conflict(_))) => {
            let (status, words) = status_and_words(&error);
            let field = if words.contains("lives between") { "days" } else { "name" };
            refused(field, status, &words).await
        }
        Err(error) => Err(Fault::from(error).framed(person.frame("account"))),
    }
}

async fn revoke_key(State(app): State<Arc<App>>, person: Person, Path(id): Path<String>) -> Result<Response, Fault> {
    let seq = app.ops().revoke_key(&person.actor, None, &id).await.map_err(|error| Fault::from(error).framed(person.frame("account")))?;
    app.settle(seq).await;
    Ok(go("/console/account?done=revoked"))
}

async fn sign_out(State(app): State<Arc<App>>, person: Person, Path(id): Path<String>) -> Result<Response, Fault> {
    let seq = app.ops().sign_out(&person.actor, &id).await.map_err(|error| Fault::from(error).framed(person.frame("account")))?;
    app.settle(seq).await;
    if person.principal().key.as_ref().is_some_and(|this| this.as_str() == id) {
        return Ok(without_session(go("/console/sign-in")));
    }
    Ok(go("/console/account?done=signed-out"))
}

async fn sign_out_others(State(app): State<Arc<App>>, person: Person) -> Result<Response, Fault> {
    let seq = app.ops().sign_out_others(&person.actor).await?;
    app.settle(seq).await;
    Ok(go("/console/account?done=others"))
}

async fn sign_out_all(State(app): State<Arc<App>>, person: Person) -> Result<Response, Fault> {
    let seq = app.ops().sign_out_all(&person.actor).await?;
    app.settle(seq).await;
    Ok(without_session(go("/console/sign-in")))
}

#[derive(Deserialize)]
struct PasswordForm {
    before: String,
    password: String,
}

async fn change_password(State(app): State<Arc<App>>, person: Person, Form(form): Form<PasswordForm>) -> Result<Response, Fault> {
    let (before, chosen) = (Secret::new(form.before), Secret::new(form.password));
    match app.ops().change_password(&person.actor, &person.browser, &before, &chosen).await {
        Ok(signed_in) => {
            app.settle(signed_in.seq).await;
            Ok(with_session(go("/console/account?done=password"), &signed_in.session, app.rules.longest_ms))
        }
        Err(error @ (OpsError::Input(_) | OpsError::Forbidden(_))) => {
            let field = if matches!(error, OpsError::Forbidden(_)) { "before" } else { "password" };
            let (status, words) = status_and_words(&error);
            page(&person, status, &AccountQuery::default(), String::new(), Problem::new(field, sentence(&words))).await
        }
        Err(error) => Err(error.into()),
    }
}
