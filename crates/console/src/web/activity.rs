//! The audit log of an organization: a page of it, and all of it as JSON or CSV.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::Query;
use axum::response::Response;
use axum::routing::get;
use convox_model::{Event, Role};
use convox_store::audit::Filter;
use convox_store::{LONGEST_PAGE, Page};
use convox_wire::form::Params;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde::Deserialize;

use super::page::{Fault, Frame, Problem, sentence, show};
use super::person::Person;
use super::racks::orgs_with;
use super::stream::{Pieces, download};
use super::words::{When, when};
use crate::ops::OpsError;
use crate::state::App;
use crate::{table, views};

/// Events on one page.
const PAGE: i64 = 50;
/// Without a date the page goes back so many days, so that a search for what is rare has an end.
const DAYS: i64 = 30;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/activity", get(activity))
        .route("/activity.json", get(async |person, query| export(person, query, Form::Json).await))
        .route("/activity.csv", get(async |person, query| export(person, query, Form::Csv).await))
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct ActivityQuery {
    org: String,
    person: String,
    rack: String,
    app: String,
    effect: String,
    decision: String,
    /// First day; `None` before the form was sent.
    from: Option<String>,
    /// Last day.
    until: String,
    after: String,
}

impl ActivityQuery {
    /// As the query of another page.
    fn encode(&self, after: Option<&str>) -> String {
        let mut params = Params::new();
        let from = self.from.as_deref().unwrap_or_default();
        for (name, value) in [
            ("org", self.org.as_str()),
            ("person", &self.person),
            ("rack", &self.rack),
            ("app", &self.app),
            ("effect", &self.effect),
            ("decision", &self.decision),
            ("from", from),
            ("until", &self.until),
        ] {
            // An empty first day is not the same as none.
            if !value.is_empty() || name == "from" {
                params = params.with(name, value);
            }
        }
        after.map_or(params.clone(), |after| params.with("after", after)).encode()
    }

    fn filter(&self) -> Result<Filter, Problem> {
        let wrong = |field| Problem::new(field, "Give a day such as 2026-11-23, or nothing.");
        let day = |text: &str| text.parse::<Date>();
        let start = |date: Date| date.to_zoned(TimeZone::UTC).map(|start| start.timestamp().as_millisecond());
        let from = self.from.as_deref().unwrap_or_default().trim();
        let since_ms = if from.is_empty() { 0 } else { day(from).and_then(start).map_err(|_| wrong("from"))? };
        let until = self.until.trim();
        let until_ms = match until {
            "" => None,
            until => Some(day(until).and_then(|date| date.checked_add(1.day())).and_then(start).map_err(|_| wrong("until"))?),
        };
        Ok(Filter {
            actor: self.person.trim().to_ascii_lowercase(),
            rack: self.rack.trim().to_owned(),
            app: self.app.trim().to_owned(),
            effect: self.effect.clone(),
            decision: self.decision.clone(),
            since_ms,
            until_ms,
            org: None,
        })
    }
}

struct EventLine {
    at: When,
    actor: String,
    key_last4: String,
    peer: String,
    action: String,
    target: String,
    place: String,
    effect: String,
    is_allowed: bool,
    rule: String,
    status: String,
    request_id: String,
}

fn line(event: Event, now_ms: i64) -> EventLine {
    let mut place = event.rack;
    if !event.app.is_empty() {
        place.push_str(": ");
        place.push_str(&event.app);
    }
    EventLine {
        at: when(event.at_ms, now_ms),
        actor: event.actor,
        key_last4: event.key_last4,
        peer: event.peer,
        action: event.action,
        target: format!("{} {}", event.method, event.path).trim().to_owned(),
        place,
        effect: event.effect,
        is_allowed: event.decision == "allowed",
        rule: event.rule,
        status: event.status.map(|status| status.to_string()).unwrap_or_default(),
        request_id: event.request_id,
    }
}

#[derive(Template)]
#[template(path = "activity.html")]
struct ActivityPage {
    frame: Frame,
    /// Those whose log they may read.
    orgs: Vec<String>,
    query: ActivityQuery,
    from: String,
    lines: Vec<EventLine>,
    /// Queries of the next page and of the export.
    more: String,
    export: String,
    effects: [&'static str; 6],
    problem: Problem,
}

async fn activity(person: Person, Query(mut query): Query<ActivityQuery>) -> Result<Response, Fault> {
    let orgs = orgs_with(&person, Role::Operator).await?;
    let now_ms = person.app.clock.now_ms();
    if query.org.is_empty() {
        query.org = orgs.first().cloned().unwrap_or_default();
    }
    let from = query.from.get_or_insert_with(|| default_from(now_ms)).clone();
    let mut page = ActivityPage {
        frame: person.frame("activity"),
        export: query.encode(None),
        orgs,
        from,
        lines: Vec::new(),
        more: String::new(),
        effects: ["read", "read-secret", "write", "shell", "admin", "console"],
        problem: Problem::default(),
        query,
    };
    if page.query.org.is_empty() {
        return Ok(show(&page));
    }
    match page.query.filter() {
        Ok(filter) => {
            let list = Page { limit: PAGE, after: (!page.query.after.is_empty()).then(|| page.query.after.clone()) };
            let framed = |error: OpsError| Fault::from(error).framed(person.frame("activity"));
            let events = person.app.ops().list_audit(&person.actor, Some(&page.query.org), filter, &list).await.map_err(framed)?;
            if events.len() as i64 == PAGE {
                page.more = page.query.encode(events.last().map(|event| event.id.as_str()));
            }
            page.lines = events.into_iter().map(|event| line(event, now_ms)).collect();
        }
        Err(problem) => page.problem = problem,
    }
    Ok(show(&page))
}

fn default_from(now_ms: i64) -> String {
    let now = Timestamp::from_millisecond(now_ms - DAYS * 86_400_000).unwrap_or_default();
    now.strftime("%Y-%m-%d").to_string()
}

#[derive(Clone, Copy)]
enum Form {
    Json,
    Csv,
}

/// All that the filter leaves, newest first, page after page. Rights are looked at again with each.
async fn export(person: Person, Query(query): Query<ActivityQuery>, form: Form) -> Result<Response, Fault> {
    let filter = query.filter().map_err(|problem| {
        let words = [problem.of("from"), problem.of("until")].concat();
        Fault::new(http::StatusCode::BAD_REQUEST, words).framed(person.frame("activity"))
    })?;
    person
        .app
        .ops()
        .enter(&person.actor, &query.org, Role::Operator)
        .await
        .map_err(|error| Fault::from(error).framed(person.frame("activity")))?;
    let name = format!("activity-{}.{}", query.org, if matches!(form, Form::Json) { "json" } else { "csv" });
    let kind = if matches!(form, Form::Json) { "application/json" } else { "text/csv; charset=utf-8; header=present" };
    Ok(download(kind, &name, async move |pieces| {
        // What is cut short looks so: the connection ends without its end.
        if let Err(error) = send(&person, &query, &filter, form, &pieces).await {
            tracing::warn!(error = %sentence(&error.to_string()), "an export was cut short");
            pieces.fail().await;
        }
    }))
}

async fn send(person: &Person, query: &ActivityQuery, filter: &Filter, form: Form, pieces: &Pieces) -> Result<(), OpsError> {
    let mut list = Page { limit: LONGEST_PAGE, after: None };
    let mut is_first = true;
    let head = match form {
        Form::Json => "[".to_owned(),
        Form::Csv => table::row(table::COLUMNS.iter().map(|name| (*name).to_owned())),
    };
    let mut is_read = pieces.send(head).await;
    while is_read {
        if person.app.snapshots.now().again(person.principal()).is_none() {
            return Err(OpsError::Forbidden("whoever asked for it was signed out".to_owned()));
        }
        let events = person.app.ops().list_audit(&person.actor, Some(&query.org), filter.clone(), &list).await?;
        list.after = events.last().map(|event| event.id.clone());
        let is_last = (events.len() as i64) < LONGEST_PAGE;
        let mut text = String::new();
        for event in &events {
            let value = views::event(event);
            match form {
                Form::Json => {
                    text.push_str(if is_first { "\n" } else { ",\n" });
                    text.push_str(&value.to_string());
                }
                Form::Csv => text.push_str(&table::event(&value)),
            }
            is_first = false;
        }
        is_read = pieces.send(text).await;
        if is_last {
            if matches!(form, Form::Json) {
                pieces.send("\n]\n".to_owned()).await;
            }
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_and_of_utc() {
        let query =
            |from: &str, until: &str| ActivityQuery { from: Some(from.to_owned()), until: until.to_owned(), ..ActivityQuery::default() };
        let filter = query("2026-11-23", "2026-11-23").filter().unwrap_or_default();
        assert_eq!((filter.since_ms, filter.until_ms), (1_795_392_000_000, Some(1_795_478_400_000)));
        let filter = query("", "").filter().unwrap_or_default();
        assert_eq!((filter.since_ms, filter.until_ms), (0, None));
        assert!(!query("yesterday", "").filter().unwrap_err().of("from").is_empty());
        assert!(!query("", "2026-02-30").filter().unwrap_err().of("until").is_empty());
    }

    #[test]
    fn a_query_leads_to_the_next_page() {
        let query = ActivityQuery { org: "acme".into(), person: "a+b@x.y".into(), ..ActivityQuery::default() };
        assert_eq!(query.encode(Some("0199")), "after=0199&from=&org=acme&person=a%2Bb%40x.y");
    }
}
