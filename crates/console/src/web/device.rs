//! Saying yes or no to a command line on another machine, by the code that it shows.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use convox_model::Event;
use convox_store::authorizations::{DeviceRow, Typed};
use http::StatusCode;
use serde::Deserialize;

use super::authorize::{Life, lives};
use super::page::{Fault, Frame, Problem, show, show_with};
use super::person::Person;
use super::words::{When, when};
use crate::ops::authorizations::key_name;
use crate::state::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/device", get(ask).post(open)).route("/device/decide", post(decide))
}

/// A device that asks, as the page shows it.
struct Asking {
    device: String,
    peer: String,
    /// Whether that is the address of this browser too.
    is_here: bool,
    since: When,
    ends: When,
    key_name: String,
}

#[derive(Template)]
#[template(path = "device.html")]
struct DevicePage {
    frame: Frame,
    code: String,
    /// `None` while the code is asked for.
    asking: Option<Asking>,
    lives: Vec<Life>,
    problem: Problem,
}

#[derive(Template)]
#[template(path = "device_done.html")]
struct DonePage {
    frame: Frame,
    is_approved: bool,
    key_name: String,
}

fn blank(person: &Person, status: StatusCode, problem: Problem) -> Response {
    let page = DevicePage { frame: person.frame(""), code: String::new(), asking: None, lives: Vec::new(), problem };
    show_with(status, &page)
}

async fn ask(person: Person) -> Response {
    blank(&person, StatusCode::OK, Problem::default())
}

#[derive(Deserialize)]
struct CodeForm {
    code: String,
}

async fn open(State(app): State<Arc<App>>, person: Person, Form(CodeForm { code }): Form<CodeForm>) -> Result<Response, Fault> {
    let row = match find(&app, &person, &code).await? {
        Ok(row) => row,
        Err(response) => return Ok(response),
    };
    let now_ms = app.clock.now_ms();
    let asking = Asking {
        key_name: key_name(&row.device),
        device: row.device,
        is_here: row.peer == person.browser.peer,
        peer: row.peer,
        since: when(row.created_ms, now_ms),
        ends: when(row.expires_ms, now_ms),
    };
    Ok(show(&DevicePage { frame: person.frame(""), code, asking: Some(asking), lives: lives(), problem: Problem::default() }))
}

/// The device whose code that is, or the page that says that it is none.
async fn find(app: &App, person: &Person, code: &str) -> Result<Result<DeviceRow, Response>, Fault> {
    let (status, words, rule) = match app.ops().type_code(&person.actor, code).await? {
        Typed::Found(row) => return Ok(Ok(row)),
        Typed::Wrong(left) => {
            let left = match left {
                0 => "Try again in ten minutes.".to_owned(),
                1 => "One more try.".to_owned(),
                more => format!("{more} more tries."),
            };
            (StatusCode::NOT_FOUND, format!("No machine waits for this code: it is mistyped, was used, or has ended. {left}"), "wrong-code")
        }
        Typed::TooMany => (StatusCode::TOO_MANY_REQUESTS, "Too many wrong codes. Try again in ten minutes.".to_owned(), "too-many-codes"),
    };
    let event = || {
        let event = person.actor.event(&*app.clock, "DeviceCode", "/console/device".to_owned());
        Event { decision: "refused".to_owned(), rule: rule.to_owned(), ..event }
    };
    app.audit.refused(event, app.clock.now_ms());
    Ok(Err(blank(person, status, Problem::new("code", words))))
}

#[derive(Deserialize)]
struct DecideForm {
    code: String,
    key_name: String,
    days: i64,
    #[serde(default)]
    decision: String,
}

async fn decide(State(app): State<Arc<App>>, person: Person, Form(form): Form<DecideForm>) -> Result<Response, Fault> {
    let DecideForm { code, key_name, days, decision } = form;
    let row = match find(&app, &person, &code).await? {
        Ok(row) => row,
        Err(response) => return Ok(response),
    };
    let is_approved = decision == "approve";
    let yes = is_approved.then_some((key_name.as_str(), days));
    let seq =
        app.ops().decide_device(&person.actor, &code, &row, yes).await.map_err(|error| Fault::from(error).framed(person.frame("")))?;
    app.settle(seq).await;
    Ok(show(&DonePage { frame: person.frame(""), is_approved, key_name }))
}
