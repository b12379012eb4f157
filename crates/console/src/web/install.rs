//! Installing a Rack on the Console's own machine, with its progress as it happens.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Form, Router};
use convox_model::Role;
use convox_store::installs::InstallRow;
use http::StatusCode;
use serde::Deserialize;

use super::page::{Fault, Frame, Problem, go, sentence, show, show_with, status_and_words};
use super::person::Person;
use super::racks::orgs_with;
use super::stream;
use super::words::{When, when};
use crate::ops::OpsError;
use crate::state::App;

/// How often progress is looked up.
const LOOK: Duration = Duration::from_millis(200);
/// A page looks on for so long; then it asks again.
const LOOKS: usize = 600;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/racks/install", get(ask).post(install))
        .route("/installs/{org}/{id}", get(progress))
        .route("/installs/{org}/{id}/stream", get(follow))
}

#[derive(Template)]
#[template(path = "install.html")]
struct InstallPage {
    frame: Frame,
    orgs: Vec<String>,
    earlier: Vec<InstallLine>,
    form: InstallForm,
    problem: Problem,
}

/// An earlier installation.
struct InstallLine {
    org: String,
    id: String,
    name: String,
    status: String,
    started: When,
}

/// Organizations whose installations are listed; whoever works in more finds a log by its Rack.
const MOST_ORGS: usize = 10;
/// Installations on the page.
const MOST: usize = 20;

async fn page(person: &Person, status: StatusCode, form: InstallForm, problem: Problem) -> Result<Response, Fault> {
    let orgs = orgs_with(person, Role::Operator).await?;
    if orgs.is_empty() {
        let words = "you are an operator nowhere; ask an administrator of your organization, or create an organization of your own";
        return Err(Fault::new(StatusCode::FORBIDDEN, words).framed(person.frame("racks")));
    }
    let now_ms = person.app.clock.now_ms();
    let mut earlier = Vec::new();
    for org in orgs.iter().take(MOST_ORGS) {
        let rows = person.app.ops().list_installs(&person.actor, org).await?;
        earlier.extend(rows.into_iter().map(|row| (org, row)));
    }
    earlier.sort_by_key(|(_, row)| std::cmp::Reverse(row.started_ms));
    earlier.truncate(MOST);
    let line = |(org, row): (&String, InstallRow)| InstallLine {
        org: org.clone(),
        id: row.id,
        name: row.name,
        status: row.status,
        started: when(row.started_ms, now_ms),
    };
    let earlier = earlier.into_iter().map(line).collect();
    Ok(show_with(status, &InstallPage { frame: person.frame("racks"), orgs, earlier, form, problem }))
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct InstallForm {
    organization: String,
    name: String,
}

async fn ask(person: Person) -> Result<Response, Fault> {
    page(&person, StatusCode::OK, InstallForm::default(), Problem::default()).await
}

async fn install(State(app): State<Arc<App>>, person: Person, Form(form): Form<InstallForm>) -> Result<Response, Fault> {
    let form = InstallForm { name: form.name.trim().to_owned(), ..form };
    match app.ops().begin_install(&person.actor, &app.homes, &form.organization, &form.name).await {
        Ok(id) => Ok(go(&format!("/console/installs/{}/{id}", form.organization))),
        Err(error @ OpsError::Store(_)) => Err(error.into()),
        Err(error) => {
            let field = if matches!(error, OpsError::Missing(_) | OpsError::Forbidden(_)) { "organization" } else { "name" };
            let (status, words) = status_and_words(&error);
            page(&person, status, form, Problem::new(field, sentence(&words))).await
        }
    }
}

#[derive(Template)]
#[template(path = "install_progress.html")]
struct ProgressPage {
    frame: Frame,
    org: String,
    id: String,
    name: String,
    status: String,
    log: String,
    started_by: String,
    started: When,
}

async fn progress(person: Person, Path((org, id)): Path<(String, String)>) -> Result<Response, Fault> {
    let framed = |error: OpsError| Fault::from(error).framed(person.frame("racks"));
    let row = person.app.ops().find_install(&person.actor, &org, &id).await.map_err(framed)?;
    let started = when(row.started_ms, person.app.clock.now_ms());
    let (name, status, log, started_by) = (row.name, row.status, row.log, row.started_by);
    Ok(show(&ProgressPage { frame: person.frame("racks"), org, id, name, status, log, started_by, started }))
}

/// The lines as they are written. Rights are looked at again with each look.
async fn follow(person: Person, Path((org, id)): Path<(String, String)>) -> Result<Response, Fault> {
    person.app.ops().find_install(&person.actor, &org, &id).await?;
    Ok(stream::events(async move |events| {
        let mut told = 0;
        for _ in 0..LOOKS {
            let is_signed_in = person.app.snapshots.now().again(person.principal()).is_some();
            let row = match person.app.ops().find_install(&person.actor, &org, &id).await {
                Ok(row) if is_signed_in => row,
                _ => return events.end("You may not look at this any more").await,
            };
            for line in row.log.lines().skip(told) {
                if !events.line(line).await {
                    return;
                }
                told += 1;
            }
            if row.status != "running" {
                return events.end("Ended").await;
            }
            tokio::time::sleep(LOOK).await;
        }
    }))
}
