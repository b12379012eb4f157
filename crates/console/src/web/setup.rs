//! First run: whoever has the one-time code that the server printed becomes the administrator of the first organization.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Form, Router};
use convox_seal::Secret;
use http::StatusCode;
use serde::Deserialize;

use super::account::{Once, show_key};
use super::page::{Fault, Frame, Problem, go, show_with, status_and_words};
use super::person::{Visitor, with_session};
use crate::ops::OpsError;
use crate::state::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/setup", get(ask).post(set_up))
}

#[derive(Template)]
#[template(path = "setup.html")]
struct SetupPage {
    frame: Frame,
    rule: &'static str,
    organization: String,
    email: String,
    problem: Problem,
}

#[derive(Deserialize)]
struct SetupForm {
    code: String,
    organization: String,
    email: String,
    password: String,
}

async fn ask(State(app): State<Arc<App>>) -> Response {
    if app.snapshots.now().has_users() {
        return go("/console");
    }
    let (organization, email) = (String::new(), String::new());
    super::page::show(&SetupPage {
        frame: Frame::default(),
        rule: app.rules.password.words(),
        organization,
        email,
        problem: Problem::default(),
    })
}

async fn set_up(State(app): State<Arc<App>>, visitor: Visitor, Form(form): Form<SetupForm>) -> Result<Response, Fault> {
    let SetupForm { code, organization, email, password } = form;
    let (code, password) = (Secret::new(code.trim().to_owned()), Secret::new(password));
    let ops = app.ops();
    let done = ops.setup(&visitor.actor, &code, organization.trim(), email.trim(), Some(&password)).await;
    let (key, made, _) = match done {
        Ok(done) => done,
        Err(error @ OpsError::Store(_)) => return Err(error.into()),
        Err(error) => {
            let field = match &error {
                OpsError::Conflict(_) => "code",
                OpsError::Input(_) if organization.trim().parse::<convox_model::OrgName>().is_err() => "organization",
                OpsError::Input(_) if email.trim().parse::<convox_model::Email>().is_err() => "email",
                _ => "password",
            };
            let (status, words) = status_and_words(&error);
            let problem = Problem::new(field, super::page::sentence(&words));
            let rule = app.rules.password.words();
            return Ok(show_with(status, &SetupPage { frame: Frame::default(), rule, organization, email, problem }));
        }
    };
    let signed_in = ops.sign_in_as(&visitor.actor, &visitor.browser, &made.key.user, made.email.as_str(), "setup-code").await?;
    app.settle(signed_in.seq).await;
    let frame = Frame::of(made.email.as_str(), "account").with_done("The Console is yours.");
    let shown = Once { name: "default".to_owned(), key: key.reveal().to_owned(), host: visitor.host };
    Ok(with_session(show_key(StatusCode::OK, frame, shown), &signed_in.session, app.rules.longest_ms))
}
