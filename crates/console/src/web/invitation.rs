//! Accepting an invitation: a new person chooses a password; somebody who has an account is signed in, or gives theirs.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use convox_seal::Secret;
use http::StatusCode;
use serde::Deserialize;

use super::page::{Fault, Frame, Problem, go, sentence, show, show_with, status_and_words};
use super::person::{Person, Visitor, with_session};
use crate::ops::OpsError;
use crate::state::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/invitation", get(ask_code)).route("/invitation/open", post(open)).route("/invitation/accept", post(accept))
}

/// What whoever accepts brings beside the code.
#[derive(PartialEq, Eq)]
enum Proof {
    /// They choose a password.
    New,
    /// They give theirs.
    Present,
    /// They are signed in.
    Session,
}

#[derive(Template)]
#[template(path = "invitation.html")]
struct InvitationPage {
    frame: Frame,
    code: String,
    org: String,
    role: String,
    email: String,
    invited_by: String,
    /// `None` while the code is asked for.
    proof: Option<Proof>,
    rule: &'static str,
    problem: Problem,
}

impl InvitationPage {
    fn asking(frame: Frame, problem: Problem) -> Self {
        Self {
            frame,
            code: String::new(),
            org: String::new(),
            role: String::new(),
            email: String::new(),
            invited_by: String::new(),
            proof: None,
            rule: "",
            problem,
        }
    }

    fn wants(&self, proof: &Proof) -> bool {
        self.proof.as_ref() == Some(proof)
    }
}

fn frame(person: Option<&Person>) -> Frame {
    person.map(|person| person.frame("organizations")).unwrap_or_default()
}

async fn ask_code(person: Option<Person>) -> Response {
    show(&InvitationPage::asking(frame(person.as_ref()), Problem::default()))
}

#[derive(Deserialize)]
struct CodeForm {
    code: String,
}

async fn open(State(app): State<Arc<App>>, person: Option<Person>, Form(form): Form<CodeForm>) -> Result<Response, Fault> {
    page(&app, person.as_ref(), StatusCode::OK, form.code.trim().to_owned(), Problem::default()).await
}

async fn page(app: &App, person: Option<&Person>, status: StatusCode, code: String, problem: Problem) -> Result<Response, Fault> {
    let Some(opened) = app.ops().open_invitation(&Secret::new(code.clone())).await? else {
        let problem = Problem::new("code", "This invitation was used, withdrawn or has ended. Ask for a new one.");
        return Ok(show_with(StatusCode::CONFLICT, &InvitationPage::asking(frame(person), problem)));
    };
    let is_signed_in = person.is_some_and(|person| person.principal().email == opened.row.email);
    let proof = match (opened.is_new, is_signed_in) {
        (true, _) => Proof::New,
        (false, true) => Proof::Session,
        (false, false) => Proof::Present,
    };
    let row = opened.row;
    let page = InvitationPage {
        frame: frame(person),
        code,
        org: row.org_name,
        role: row.role.map(|role| role.to_string()).unwrap_or_default(),
        email: row.email,
        invited_by: row.invited_by,
        proof: Some(proof),
        rule: app.rules.password.words(),
        problem,
    };
    Ok(show_with(status, &page))
}

#[derive(Deserialize)]
struct AcceptForm {
    code: String,
    #[serde(default)]
    org: String,
    #[serde(default)]
    password: String,
}

async fn accept(
    State(app): State<Arc<App>>,
    person: Option<Person>,
    visitor: Visitor,
    Form(form): Form<AcceptForm>,
) -> Result<Response, Fault> {
    let AcceptForm { code, org, password } = form;
    let given = (!password.is_empty()).then(|| Secret::new(password));
    let actor = person.as_ref().map_or(&visitor.actor, |person| &person.actor);
    match app.ops().accept_invitation(actor, &visitor.browser, &Secret::new(code.clone()), given.as_ref()).await {
        Ok(signed_in) => {
            app.settle(signed_in.seq).await;
            // The name only chooses the page that is shown next.
            let next = if org.parse::<convox_model::OrgName>().is_ok() { format!("/{org}?done=joined") } else { String::new() };
            let response = go(&format!("/console/organizations{next}"));
            Ok(with_session(response, &signed_in.session, app.rules.longest_ms))
        }
        Err(error @ (OpsError::Input(_) | OpsError::Forbidden(_) | OpsError::Conflict(_))) => {
            let (status, words) = status_and_words(&error);
            page(&app, person.as_ref(), status, code, Problem::new("password", sentence(&words))).await
        }
        Err(error) => Err(error.into()),
    }
}
