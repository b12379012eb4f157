//! Racks: the list with their health.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::Query;
use axum::response::Response;
use axum::routing::get;
use convox_model::Role;
use convox_wire::form::Params;
use serde::Deserialize;

use super::page::{Frame, Paged, show};
use super::person::Person;
use super::words::{When, when};
use crate::credentials::RackEntry;
use crate::ops::OpsError;
use crate::state::App;

/// Racks on one page.
const PAGE: usize = 50;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/racks", get(racks))
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

/// A Rack as a row of the list, and the head of its own page.
pub(super) struct RackLine {
    pub(super) path: String,
    pub(super) health: Health,
    pub(super) version: String,
    pub(super) certificate: Option<When>,
    /// Whether its certificate ends within two weeks.
    pub(super) ends_soon: bool,
    pub(super) protected: bool,
    /// When it was last asked for its health.
    pub(super) looked: Option<When>,
}

const SOON_MS: i64 = 14 * 24 * 3_600_000;

pub(super) fn line(rack: &RackEntry, now_ms: i64) -> RackLine {
    let seen = rack.seen();
    let ends_ms = seen.as_ref().and_then(|seen| seen.certificate).map(|(ends_ms, _)| ends_ms).filter(|ends_ms| *ends_ms > 0);
    RackLine {
        path: rack.row.path(),
        health: health(rack),
        version: rack.version(),
        certificate: ends_ms.map(|ends_ms| when(ends_ms, now_ms)),
        ends_soon: ends_ms.is_some_and(|ends_ms| ends_ms - now_ms < SOON_MS),
        protected: rack.row.protected,
        looked: seen.map(|seen| when(seen.at_ms, now_ms)),
    }
}

#[derive(Template)]
#[template(path = "racks.html")]
struct RacksPage {
    frame: Frame,
    list: Paged<RackLine>,
    search: String,
    /// The link to another page, without its number.
    more: String,
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

const REMOVED: &str = "The Rack is removed from the Console; it goes on by itself.";

async fn racks(person: Person, Query(query): Query<RacksQuery>) -> Response {
    let (snapshot, now_ms) = (person.app.snapshots.now(), person.app.clock.now_ms());
    let principal = person.principal();
    let search = query.q.trim().to_ascii_lowercase();
    let mut found: Vec<&Arc<RackEntry>> = principal.grants.iter().flat_map(|grant| snapshot.racks_of(&grant.org)).collect();
    found.retain(|rack| search.is_empty() || rack.row.path().contains(&search));
    found.sort_by(|a, b| (&a.row.org_name, &a.row.name).cmp(&(&b.row.org_name, &b.row.name)));
    show(&RacksPage {
        frame: person.frame("racks").with_done(if query.done == "removed" { REMOVED } else { "" }),
        list: Paged::of(found, query.page, PAGE).map(|rack| line(rack, now_ms)),
        more: format!("/console/racks?{}&page=", Params::new().with("q", &search).encode()),
        search,
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
