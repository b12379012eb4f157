//! Saying yes or no to a command line on the machine of this browser. Its answer travels by this browser, to an address of that machine.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Form, Router};
use http::StatusCode;
use serde::Deserialize;

use super::page::{Fault, Frame, show};
use super::person::Person;
use crate::ops::OpsError;
use crate::ops::authorizations::{Asked, CLIENT, LIVES, USUAL_LIFE, key_name};
use crate::state::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/authorize", get(ask).post(decide)).route("/authorize/done", get(done))
}

#[derive(Template)]
#[template(path = "authorize.html")]
struct AuthorizePage {
    frame: Frame,
    asked: Asked,
    /// Address of this browser.
    peer: String,
    key_name: String,
    lives: Vec<Life>,
}

/// The page that leads on to the command line.
#[derive(Template)]
#[template(path = "authorized.html")]
struct AuthorizedPage {
    frame: Frame,
    /// Where it waits.
    to: String,
    is_approved: bool,
}

/// The page that the command line leads to at last.
#[derive(Template)]
#[template(path = "authorize_done.html")]
struct DonePage {
    frame: Frame,
}

/// How long a key may live, as a choice.
pub(super) struct Life {
    pub(super) days: i64,
    pub(super) is_usual: bool,
}

pub(super) fn lives() -> Vec<Life> {
    LIVES.map(|days| Life { days, is_usual: days == USUAL_LIFE }).into()
}

/// As the command line wrote it.
#[derive(Deserialize)]
struct AuthorizeQuery {
    #[serde(default)]
    response_type: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    redirect_uri: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    code_challenge: String,
    #[serde(default)]
    code_challenge_method: String,
    #[serde(default)]
    device_name: String,
}

/// Nothing that is wrong here is told to the address that came along: who knows whose it is.
fn read(person: &Person, query: &AuthorizeQuery) -> Result<Asked, Fault> {
    let is_known = query.client_id == CLIENT && query.response_type == "code" && query.code_challenge_method == "S256";
    let asked = if is_known {
        Asked::read(&query.redirect_uri, &query.state, &query.code_challenge, &query.device_name)
    } else {
        Err(OpsError::Input(
            "this is not a sign-in that a command line began; run `convox login`, and open the address that it shows".to_owned(),
        ))
    };
    asked.map_err(|error| Fault::from(error).framed(person.frame("")))
}

async fn ask(person: Person, query: Result<Query<AuthorizeQuery>, axum::extract::rejection::QueryRejection>) -> Result<Response, Fault> {
    let Ok(Query(query)) = query else {
        return Err(Fault::new(StatusCode::BAD_REQUEST, "the address is not complete; open the whole one that `convox login` shows"));
    };
    let asked = read(&person, &query)?;
    let (peer, key_name) = (person.browser.peer.clone(), key_name(&asked.device));
    Ok(show(&AuthorizePage { frame: person.frame(""), asked, peer, key_name, lives: lives() }))
}

#[derive(Deserialize)]
struct DecideForm {
    redirect_uri: String,
    state: String,
    challenge: String,
    device: String,
    key_name: String,
    days: i64,
    #[serde(default)]
    decision: String,
}

async fn decide(State(app): State<Arc<App>>, person: Person, Form(form): Form<DecideForm>) -> Result<Response, Fault> {
    let framed = |error: OpsError| Fault::from(error).framed(person.frame(""));
    let asked = Asked::read(&form.redirect_uri, &form.state, &form.challenge, &form.device).map_err(framed)?;
    let is_approved = form.decision == "approve";
    let to = if is_approved {
        let (code, seq) = app.ops().approve_code(&person.actor, &asked, &form.key_name, form.days).await.map_err(framed)?;
        app.settle(seq).await;
        asked.answer(&format!("code={}", code.reveal()))
    } else {
        asked.answer("error=access_denied")
    };
    Ok(show(&AuthorizedPage { frame: person.frame(""), to, is_approved }))
}

async fn done(person: Option<Person>) -> Response {
    show(&DonePage { frame: person.map(|person| person.frame("")).unwrap_or_default() })
}
