//! Deploy keys of an organization, for its administrators.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use convox_model::Preset;
use convox_store::Page;
use convox_store::keys::KeyRow;
use http::StatusCode;
use serde::Deserialize;

use super::account::{Once, show_key};
use super::page::{Fault, Frame, Problem, go, sentence, show_with, status_and_words};
use super::person::Person;
use super::words::{When, when};
use crate::ops::OpsError;
use crate::ops::keys::{Roll, Wanted};
use crate::state::App;
use crate::views;

/// Rows of one page.
const PAGE: i64 = 50;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/organizations/{org}/keys", get(list).post(create))
        .route("/organizations/{org}/keys/{id}/roll", post(roll))
        .route("/organizations/{org}/keys/{id}/revoke", post(revoke))
}

/// A key as a row.
struct Line {
    id: String,
    name: String,
    maker: String,
    last4: String,
    state: &'static str,
    scope: String,
    made: When,
    used: Option<When>,
    ends: Option<When>,
    has_ended: bool,
}

#[derive(Template)]
#[template(path = "deploy_keys.html")]
struct KeysPage {
    frame: Frame,
    org: String,
    keys: Vec<Line>,
    more: String,
    presets: Vec<&'static str>,
    form: KeyForm,
    problem: Problem,
}

/// What a new key is to be; texts of several words are lists.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct KeyForm {
    name: String,
    preset: String,
    racks: String,
    apps: String,
    networks: String,
    days: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeysQuery {
    after: String,
    done: String,
}

/// What a key's state is, in words; empty for one that is simply there.
pub(super) fn state(row: &KeyRow) -> &'static str {
    match (&row.scope, &row.replaces, row.rolled_ms) {
        (None, ..) => "unreadable",
        (_, Some(_), _) => "will take the place of the other one",
        (.., Some(_)) => "rolled: good until its end",
        _ => "",
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

async fn list(person: Person, Path(org): Path<String>, Query(query): Query<KeysQuery>) -> Result<Response, Fault> {
    page(&person, StatusCode::OK, &org, &query, KeyForm::default(), Problem::default()).await
}

async fn page(
    person: &Person,
    status: StatusCode,
    org: &str,
    query: &KeysQuery,
    form: KeyForm,
    problem: Problem,
) -> Result<Response, Fault> {
    let framed = |error: OpsError| Fault::from(error).framed(person.frame("organizations"));
    let (ops, now_ms) = (person.app.ops(), person.app.clock.now_ms());
    let page = Page { limit: PAGE, after: (!query.after.is_empty()).then(|| query.after.clone()) };
    let rows = ops.list_deploy_keys(&person.actor, org, &page).await.map_err(framed)?;
    let names = ops.rack_names(&rows).await.map_err(framed)?;
    let more = if rows.len() as i64 == PAGE { rows.last().map(|row| row.id.to_string()).unwrap_or_default() } else { String::new() };
    let snapshot = person.app.snapshots.now();
    let line = |row: KeyRow| {
        let used_ms = snapshot.key_used_ms(&row.id).max(row.used_ms.unwrap_or_default());
        Line {
            state: state(&row),
            scope: views::scope(&row, &names),
            id: row.id.to_string(),
            name: row.name,
            maker: row.email,
            last4: row.last4,
            made: when(row.created_ms, now_ms),
            used: (used_ms > 0).then(|| when(used_ms, now_ms)),
            ends: row.expires_ms.map(|end| when(end, now_ms)),
            has_ended: row.expires_ms.is_some_and(|end| end <= now_ms),
        }
    };
    let done = if query.done == "revoked" { "The key is revoked. Nothing that it opened is open any more." } else { "" };
    let page = KeysPage {
        frame: person.frame("organizations").with_done(done),
        org: org.to_owned(),
        keys: rows.into_iter().map(line).collect(),
        more,
        presets: Preset::ALL.map(Preset::as_str).to_vec(),
        form,
        problem,
    };
    Ok(show_with(status, &page))
}

async fn create(
    State(app): State<Arc<App>>,
    person: Person,
    Path(org): Path<String>,
    Form(form): Form<KeyForm>,
) -> Result<Response, Fault> {
    let hours = match form.days.trim() {
        "" => Ok(None),
        days => days.parse::<i64>().ok().and_then(|days| days.checked_mul(24)).map(Some).ok_or("give a number of days, or nothing"),
    };
    let again = |field, status, words: &str| {
        let problem = Problem::new(field, sentence(words));
        let (person, org, form) = (&person, &org, form.clone());
        async move { page(person, status, org, &KeysQuery::default(), form, problem).await }
    };
    let expires_in_hours = match hours {
        Ok(hours) => hours,
        Err(words) => return again("days", StatusCode::BAD_REQUEST, words).await,
    };
    let wanted = Wanted {
        name: form.name.trim().to_owned(),
        kind: "deploy".to_owned(),
        expires_in_hours,
        organization: Some(org.clone()),
        racks: words(&form.racks),
        apps: words(&form.apps),
        preset: (!form.preset.is_empty()).then(|| form.preset.clone()),
        may: Vec::new(),
        networks: words(&form.networks),
    };
    match app.ops().create_key(&person.actor, None, &wanted).await {
        Ok(made) => {
            app.settle(made.seq).await;
            let frame = person.frame("organizations").with_done("The key is made.");
            Ok(show_key(StatusCode::OK, frame, Once { name: made.name, key: made.key.reveal().to_owned(), host: person.host }))
        }
        Err(error @ (OpsError::Input(_) | OpsError::Conflict(_) | OpsError::Missing(_))) => {
            let (status, words) = status_and_words(&error);
            let about = |word: &str| words.contains(word);
            let field = match () {
                () if about("network") || about("address has bits") => "networks",
                () if about("rack") => "racks",
                () if about("app") => "apps",
                () if about("lives between") => "days",
                () => "name",
            };
            again(field, status, &words).await
        }
        Err(error) => Err(Fault::from(error).framed(person.frame("organizations"))),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct RollForm {
    overlap_hours: i64,
}

impl RollForm {
    pub(super) fn roll(&self) -> Roll {
        Roll { overlap_seconds: self.overlap_hours.saturating_mul(3600) }
    }

    /// What was done, in words.
    pub(super) fn done(&self) -> &'static str {
        if self.overlap_hours > 0 {
            "The old key is good until the end of the overlap; this is the new one."
        } else {
            "The old key is dead; this is the new one."
        }
    }
}

async fn roll(
    State(app): State<Arc<App>>,
    person: Person,
    Path((org, id)): Path<(String, String)>,
    Form(form): Form<RollForm>,
) -> Result<Response, Fault> {
    let framed = |error: OpsError| Fault::from(error).framed(person.frame("organizations"));
    let made = app.ops().roll_key(&person.actor, Some(&org), &id, form.roll()).await.map_err(framed)?;
    app.settle(made.seq).await;
    let frame = person.frame("organizations").with_done(form.done());
    Ok(show_key(StatusCode::OK, frame, Once { name: made.name, key: made.key.reveal().to_owned(), host: person.host }))
}

async fn revoke(State(app): State<Arc<App>>, person: Person, Path((org, id)): Path<(String, String)>) -> Result<Response, Fault> {
    let framed = |error: OpsError| Fault::from(error).framed(person.frame("organizations"));
    let seq = app.ops().revoke_key(&person.actor, Some(&org), &id).await.map_err(framed)?;
    app.settle(seq).await;
    Ok(go(&format!("/console/organizations/{org}/keys?done=revoked")))
}
