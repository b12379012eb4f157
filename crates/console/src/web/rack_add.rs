//! Adding a Rack that runs elsewhere: what certificate it shows is looked at before the password is sent to it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Form, Router};
use convox_model::Role;
use convox_seal::Secret;
use http::StatusCode;
use serde::Deserialize;

use super::page::{Fault, Frame, Problem, go, sentence, show, show_with, status_and_words};
use super::person::Person;
use super::racks::orgs_with;
use super::words::{When, when};
use crate::ops::OpsError;
use crate::ops::racks::{NewRack, Pin};
use crate::state::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/racks/add", get(ask_address).post(add))
}

#[derive(Template)]
#[template(path = "rack_add.html")]
struct AddPage {
    frame: Frame,
    orgs: Vec<String>,
    form: AddForm,
    /// The certificate that the host shows, once it was asked.
    shown: Option<Shown>,
    problem: Problem,
}

struct Shown {
    fingerprint: String,
    subject: String,
    names: String,
    ends: When,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct AddForm {
    organization: String,
    name: String,
    host: String,
    password: String,
    /// The fingerprint that was shown and accepted; `verify` for a certificate that the system's roots vouch for; empty at first.
    certificate: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AddQuery {
    organization: String,
}

async fn ask_address(person: Person, Query(query): Query<AddQuery>) -> Result<Response, Fault> {
    let orgs = orgs_with(&person, Role::Operator).await?;
    if orgs.is_empty() {
        let words = "you are an operator nowhere; ask an administrator of your organization, or create an organization of your own";
        return Err(Fault::new(StatusCode::FORBIDDEN, words).framed(person.frame("racks")));
    }
    let form = AddForm { organization: query.organization, ..AddForm::default() };
    Ok(show(&AddPage { frame: person.frame("racks"), orgs, form, shown: None, problem: Problem::default() }))
}

/// In two steps: what certificate the host shows, and whether that is the Rack's. The password is sent only after the second.
async fn add(State(app): State<Arc<App>>, person: Person, Form(form): Form<AddForm>) -> Result<Response, Fault> {
    let ops = app.ops();
    let form = AddForm { name: form.name.trim().to_owned(), host: form.host.trim().to_owned(), ..form };
    let pin = match form.certificate.as_str() {
        "" => None,
        "verify" => Some(Pin::Verified),
        text => Some(Pin::Exactly(text.parse().map_err(|_| Fault::new(StatusCode::BAD_REQUEST, "that is no fingerprint; begin again"))?)),
    };
    let refused = match pin {
        None => match ops.look_at(&person.actor, &form.organization, &form.host).await {
            Ok(certificate) => {
                let now_ms = app.clock.now_ms();
                let shown = Shown {
                    fingerprint: certificate.fingerprint.to_string(),
                    subject: certificate.subject,
                    names: certificate.names.join(", "),
                    ends: when(certificate.not_after.saturating_mul(1000), now_ms),
                };
                let orgs = orgs_with(&person, Role::Operator).await?;
                return Ok(show(&AddPage { frame: person.frame("racks"), orgs, form, shown: Some(shown), problem: Problem::default() }));
            }
            Err(error) => error,
        },
        Some(pin) => {
            let password = Secret::new(form.password.clone());
            let new = NewRack { org: &form.organization, name: &form.name, host: &form.host, password: &password, pin };
            match ops.add_rack(&person.actor, new).await {
                Ok(added) => {
                    app.settle(added.seq).await;
                    return Ok(go(&format!("/console/racks/{}?done=added", added.row.path())));
                }
                Err(error) => error,
            }
        }
    };
    if let OpsError::Store(_) = refused {
        return Err(refused.into());
    }
    let (status, words) = status_and_words(&refused);
    // What is wrong is in the form; and what stands before a Console may put a page of its own in the place of a 502.
    let status = if status == StatusCode::BAD_GATEWAY { StatusCode::UNPROCESSABLE_ENTITY } else { status };
    let field = match &refused {
        OpsError::Input(_) if form.name.parse::<convox_model::RackName>().is_err() => "name",
        OpsError::Input(words) if words.contains("password") => "password",
        OpsError::Rack(words) if words.starts_with("wrong password") => "password",
        OpsError::Conflict(_) => "name",
        OpsError::Missing(_) | OpsError::Forbidden(_) => "organization",
        _ => "host",
    };
    let orgs = orgs_with(&person, Role::Operator).await?;
    let problem = Problem::new(field, sentence(&words));
    Ok(show_with(
        status,
        &AddPage { frame: person.frame("racks"), orgs, form: AddForm { certificate: String::new(), ..form }, shown: None, problem },
    ))
}
