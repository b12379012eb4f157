//! Proving who one is, by a second factor or by the password of who has none.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Form, Router};
use convox_seal::Secret;
use http::StatusCode;
use serde::Deserialize;

use super::factors::HERE;
use super::page::{Fault, Frame, Problem, go, sentence, show_with, status_and_words};
use super::person::{Entrant, with_session};
use super::sign::own_page;
use crate::ops::OpsError;
use crate::ops::proof::Given;
use crate::state::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/prove", get(ask_proof).post(prove))
}

#[derive(Template)]
#[template(path = "prove.html")]
struct ProvePage {
    frame: Frame,
    next: String,
    /// Whether there is a second factor; the password is asked for if not.
    has_factor: bool,
    has_totp: bool,
    has_codes: bool,
    /// A ceremony for a passkey or a security key, if they have one: id and options.
    passkey: Option<(String, String)>,
    problem: Problem,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Next {
    next: String,
}

async fn ask_proof(entrant: Entrant, Query(Next { next }): Query<Next>) -> Result<Response, Fault> {
    prove_page(&entrant, StatusCode::OK, &next, Problem::default()).await
}

async fn prove_page(entrant: &Entrant, status: StatusCode, next: &str, problem: Problem) -> Result<Response, Fault> {
    let ops = entrant.app.ops();
    let factors = ops.list_factors(&entrant.actor).await?;
    let passkey = ops.start_proof(&entrant.actor).await?.map(|started| (started.id, started.options.to_string()));
    let page = ProvePage {
        frame: entrant.frame("account"),
        next: own_page(next).to_owned(),
        has_factor: factors.are_there(),
        has_totp: factors.totp.is_some(),
        has_codes: factors.codes > 0,
        passkey,
        problem,
    };
    Ok(show_with(status, &page))
}

#[derive(Deserialize)]
struct ProveForm {
    #[serde(default)]
    next: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    answer: String,
}

async fn prove(State(app): State<Arc<App>>, entrant: Entrant, Form(form): Form<ProveForm>) -> Result<Response, Fault> {
    let ProveForm { next, code, password, id, answer } = form;
    let (code, password) = (Secret::new(code), Secret::new(password));
    let (ops, Entrant { actor, browser, .. }) = (app.ops(), &entrant);
    let (field, proven) = if !answer.is_empty() {
        ("answer", ops.prove_session(actor, browser, Given::Answer { id: &id, answer: &answer }).await)
    } else if !password.is_empty() {
        ("password", ops.prove_by_password(actor, browser, &password).await)
    } else {
        ("code", ops.prove_session(actor, browser, Given::Code(&code)).await)
    };
    match proven {
        Ok(signed_in) => {
            app.settle(signed_in.seq).await;
            let next = own_page(&next);
            let done = if next == HERE { "?done=proven" } else { "" };
            Ok(with_session(go(&format!("{next}{done}")), &signed_in.session, app.rules.longest_ms))
        }
        Err(error @ OpsError::Store(_)) => Err(error.into()),
        Err(error) => {
            let (status, words) = status_and_words(&error);
            prove_page(&entrant, status, &next, Problem::new(field, sentence(&words))).await
        }
    }
}
