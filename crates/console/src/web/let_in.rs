//! The page that a command line names in its error when it can do nothing else (ADR 0024): it shows who asks, takes a passkey or a code, and
//! lets that API key in when its command is run again. Nobody need be signed in here, and nobody is by this.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Form, Router};
use convox_seal::Secret;
use http::StatusCode;
use serde::Deserialize;

use super::page::{Fault, Frame, Problem, sentence, show, show_with, status_and_words};
use super::person::Visitor;
use super::words::{When, when};
use crate::meters::Decision;
use crate::ops::OpsError;
use crate::ops::proof::Given;
use crate::state::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/let-in", get(ask).post(answer))
}

#[derive(Template)]
#[template(path = "let_in.html")]
struct LetInPage {
    frame: Frame,
    id: String,
    email: String,
    key_last4: String,
    peer: String,
    /// Whether that is the address of this browser too.
    is_here: bool,
    asked: When,
    has_totp: bool,
    /// A ceremony for a passkey or a security key, if they have one: id and options.
    passkey: Option<(String, String)>,
    problem: Problem,
}

#[derive(Template)]
#[template(path = "let_in_done.html")]
struct DonePage {
    frame: Frame,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    id: String,
}

async fn ask(State(app): State<Arc<App>>, visitor: Visitor, Query(Asked { id }): Query<Asked>) -> Result<Response, Fault> {
    page(&app, &visitor, StatusCode::OK, id, Problem::default()).await
}

async fn page(app: &App, visitor: &Visitor, status: StatusCode, id: String, problem: Problem) -> Result<Response, Fault> {
    let ops = app.ops();
    let shown = ops.show_let_in(&id).await?;
    let passkey = ops.start_let_in_proof(&shown, &visitor.actor.peer).await?.map(|started| (started.id, started.options.to_string()));
    let page = LetInPage {
        frame: Frame::default(),
        id,
        email: shown.email,
        key_last4: shown.key_last4,
        is_here: shown.peer == visitor.actor.peer,
        peer: shown.peer,
        asked: when(shown.created_ms, app.clock.now_ms()),
        has_totp: shown.has_totp,
        passkey,
        problem,
    };
    Ok(show_with(status, &page))
}

#[derive(Deserialize)]
struct AnswerForm {
    id: String,
    #[serde(default)]
    code: String,
    /// Of the ceremony for a passkey: its id and the answer.
    #[serde(default)]
    asked: String,
    #[serde(default)]
    answer: String,
}

async fn answer(State(app): State<Arc<App>>, visitor: Visitor, Form(form): Form<AnswerForm>) -> Result<Response, Fault> {
    let AnswerForm { id, code, asked, answer } = form;
    let ops = app.ops();
    let shown = ops.show_let_in(&id).await?;
    let code = Secret::new(code);
    let (field, given) =
        if answer.is_empty() { ("code", Given::Code(&code)) } else { ("answer", Given::Answer { id: &asked, answer: &answer }) };
    match ops.let_in(&visitor.actor, &id, &shown, given).await {
        Ok(()) => Ok(show(&DonePage { frame: Frame::default() })),
        Err(error @ OpsError::Store(_)) => Err(error.into()),
        Err(error) => {
            if matches!(error, OpsError::Forbidden(_)) {
                app.meters.decided(None, Decision::Unidentified);
                let event = || {
                    let event = visitor.actor.event(&*app.clock, "CliSignIn", "/console/let-in".to_owned());
                    let actor = shown.email.clone();
                    convox_model::Event { actor, decision: "refused".to_owned(), rule: "wrong-code".to_owned(), ..event }
                };
                app.audit.unidentified(event, app.clock.now_ms());
            }
            let (status, words) = status_and_words(&error);
            page(&app, &visitor, status, id, Problem::new(field, sentence(&words))).await
        }
    }
}
