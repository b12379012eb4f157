//! Organizations: those that somebody is in, and the members and invitations of one.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use convox_model::Role;
use convox_store::Page;
use http::StatusCode;
use serde::Deserialize;

use super::page::{Fault, Frame, Problem, go, sentence, show_with, status_and_words};
use super::person::{Person, with_session};
use super::words::{When, when};
use crate::mail::Sent;
use crate::ops::OpsError;
use crate::state::App;

/// Rows of one page; a member's row has two forms, and a page is to stay light.
const PAGE: i64 = 30;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/organizations", get(organizations).post(create))
        .route("/organizations/{org}", get(details))
        .route("/organizations/{org}/rename", post(rename))
        .route("/organizations/{org}/second-factor", post(require_factor))
        .route("/organizations/{org}/members/role", post(change_role))
        .route("/organizations/{org}/members/sign-out", post(sign_out))
        .route("/organizations/{org}/members/remove", post(remove))
        .route("/organizations/{org}/invitations", post(invite))
        .route("/organizations/{org}/invitations/{id}/withdraw", post(withdraw))
}

struct OrgLine {
    name: String,
    role: String,
    racks: usize,
}

#[derive(Template)]
#[template(path = "organizations.html")]
struct OrgsPage {
    frame: Frame,
    lines: Vec<OrgLine>,
    more: String,
    name: String,
    problem: Problem,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListQuery {
    after: String,
    done: String,
}

fn after(text: &str) -> Page {
    Page { limit: PAGE, after: (!text.is_empty()).then(|| text.to_owned()) }
}

async fn organizations(person: Person, Query(query): Query<ListQuery>) -> Result<Response, Fault> {
    list(&person, StatusCode::OK, &query, String::new(), Problem::default()).await
}

async fn list(person: &Person, status: StatusCode, query: &ListQuery, name: String, problem: Problem) -> Result<Response, Fault> {
    let rows = person.app.ops().list_orgs(&person.actor, &after(&query.after)).await?;
    let more = if rows.len() as i64 == PAGE { rows.last().map(|row| row.id.to_string()).unwrap_or_default() } else { String::new() };
    let (snapshot, principal) = (person.app.snapshots.now(), person.principal());
    let line = |org: convox_store::orgs::OrgRow| OrgLine {
        role: principal.role_in(&org.id).map(|role| role.to_string()).unwrap_or_default(),
        racks: snapshot.count_racks(&org.id),
        name: org.name,
    };
    let frame = person.frame("organizations").with_done(if query.done == "left" { "You are not a member of it any more." } else { "" });
    Ok(show_with(status, &OrgsPage { frame, lines: rows.into_iter().map(line).collect(), more, name, problem }))
}

#[derive(Deserialize)]
struct NameForm {
    name: String,
}

async fn create(State(app): State<Arc<App>>, person: Person, Form(form): Form<NameForm>) -> Result<Response, Fault> {
    let name = form.name.trim().to_owned();
    match app.ops().create_org(&person.actor, &name).await {
        Ok(_) => {
            // They may do more from now on, so their session has a new id.
            let renewed = app.ops().renew_session(&person.actor, &person.browser).await?;
            app.settle(renewed.seq).await;
            let response = go(&format!("/console/organizations/{name}?done=created"));
            Ok(with_session(response, &renewed.session, app.rules.longest_ms))
        }
        Err(error @ (OpsError::Input(_) | OpsError::Conflict(_))) => {
            let (status, words) = status_and_words(&error);
            list(&person, status, &ListQuery::default(), name, Problem::new("name", sentence(&words))).await
        }
        Err(error) => Err(error.into()),
    }
}

struct MemberLine {
    email: String,
    role: String,
    since: When,
    is_me: bool,
    has_factor: bool,
}

struct InvitationLine {
    id: String,
    email: String,
    role: String,
    invited_by: String,
    ends: When,
}

#[derive(Template)]
#[template(path = "organization.html")]
struct OrgPage {
    frame: Frame,
    org: String,
    search: String,
    members: Vec<MemberLine>,
    more: String,
    /// `None` for those who may not see them.
    invitations: Option<Vec<InvitationLine>>,
    /// Where the next page of invitations begins; empty on the last one.
    more_invitations: String,
    may_administer: bool,
    needs_factor: bool,
    may_read_activity: bool,
    roles: Vec<&'static str>,
    form: InviteForm,
    problem: Problem,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OrgQuery {
    q: String,
    after: String,
    /// The last invitation of the page before.
    invited: String,
    done: String,
}

fn done(code: &str) -> &'static str {
    match code {
        "created" => "The organization is made, and you are its administrator.",
        "renamed" => "The organization has its new name.",
        "role" => "The role is changed; what it no longer allows is cut.",
        "required" => "Members need a second factor from now on.",
        "waived" => "A second factor is not required any more.",
        "removed" => "They are no longer a member; all their access ended.",
        "signed-out" => "They are signed out everywhere; their API keys go on.",
        "withdrawn" => "The invitation is withdrawn.",
        "joined" => "Welcome: you are a member now.",
        _ => "",
    }
}

async fn details(person: Person, Path(org): Path<String>, Query(query): Query<OrgQuery>) -> Result<Response, Fault> {
    page(&person, StatusCode::OK, &org, &query, InviteForm::default(), Problem::default()).await
}

async fn page(
    person: &Person,
    status: StatusCode,
    org: &str,
    query: &OrgQuery,
    form: InviteForm,
    problem: Problem,
) -> Result<Response, Fault> {
    let framed = |error: OpsError| Fault::from(error).framed(person.frame("organizations"));
    let (ops, now_ms) = (person.app.ops(), person.app.clock.now_ms());
    let search = query.q.trim().to_ascii_lowercase();
    let entered = ops.enter(&person.actor, org, Role::Developer).await.map_err(framed)?;
    let role = entered.theirs;
    let rows = ops.search_members(&person.actor, org, &search, &after(&query.after)).await.map_err(framed)?;
    let more = if rows.len() as i64 == PAGE { rows.last().map(|row| row.email.clone()).unwrap_or_default() } else { String::new() };
    let me = &person.principal().email;
    let mut more_invitations = String::new();
    let invitations = if role == Role::Administrator {
        let rows = ops.list_invitations(&person.actor, org, &after(&query.invited)).await.map_err(framed)?;
        if rows.len() as i64 == PAGE {
            more_invitations = rows.last().map(|row| row.id.clone()).unwrap_or_default();
        }
        let line = |row: convox_store::invitations::InvitationRow| InvitationLine {
            id: row.id,
            email: row.email,
            role: row.role.map(|role| role.to_string()).unwrap_or_default(),
            invited_by: row.invited_by,
            ends: when(row.expires_ms, now_ms),
        };
        Some(rows.into_iter().map(line).collect())
    } else {
        None
    };
    let snapshot = person.app.snapshots.now();
    let needs_factor = snapshot.needs_factor(&entered.org.id);
    let members = rows.into_iter().map(|row| MemberLine {
        is_me: row.email == *me,
        has_factor: snapshot.has_factor(&row.user),
        email: row.email,
        role: row.role.map(|role| role.to_string()).unwrap_or_default(),
        since: when(row.created_ms, now_ms),
    });
    Ok(show_with(
        status,
        &OrgPage {
            frame: person.frame("organizations").with_done(done(&query.done)),
            org: org.to_owned(),
            search,
            members: members.collect(),
            more,
            invitations,
            more_invitations,
            may_administer: role == Role::Administrator,
            needs_factor,
            may_read_activity: role >= Role::Operator,
            roles: Role::ALL.iter().map(|role| role.as_str()).collect(),
            form,
            problem,
        },
    ))
}

/// The page again with what was wrong, beside its field.
async fn again(person: &Person, org: &str, form: InviteForm, field: &'static str, error: OpsError) -> Result<Response, Fault> {
    if let OpsError::Store(_) | OpsError::Missing(_) = error {
        return Err(Fault::from(error).framed(person.frame("organizations")));
    }
    let (status, words) = status_and_words(&error);
    page(person, status, org, &OrgQuery::default(), form, Problem::new(field, sentence(&words))).await
}

async fn rename(
    State(app): State<Arc<App>>,
    person: Person,
    Path(org): Path<String>,
    Form(form): Form<NameForm>,
) -> Result<Response, Fault> {
    let to = form.name.trim();
    match app.ops().rename_org(&person.actor, &org, to).await {
        Ok(seq) => {
            app.settle(seq).await;
            Ok(go(&format!("/console/organizations/{to}?done=renamed")))
        }
        Err(error) => again(&person, &org, InviteForm::default(), "name", error).await,
    }
}

#[derive(Deserialize)]
struct FactorForm {
    required: bool,
}

async fn require_factor(
    State(app): State<Arc<App>>,
    person: Person,
    Path(org): Path<String>,
    Form(form): Form<FactorForm>,
) -> Result<Response, Fault> {
    match app.ops().require_factor(&person.actor, &org, form.required).await {
        Ok(seq) => {
            app.settle(seq).await;
            Ok(go(&format!("/console/organizations/{org}?done={}", if form.required { "required" } else { "waived" })))
        }
        Err(error) => again(&person, &org, InviteForm::default(), "factor", error).await,
    }
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct InviteForm {
    email: String,
    role: String,
}

fn role_of(text: &str) -> Result<Role, OpsError> {
    text.parse().map_err(|_| OpsError::Input("choose a role".to_owned()))
}

async fn change_role(
    State(app): State<Arc<App>>,
    person: Person,
    Path(org): Path<String>,
    Form(form): Form<InviteForm>,
) -> Result<Response, Fault> {
    let changed = match role_of(&form.role) {
        Ok(role) => app.ops().change_member(&person.actor, &org, &form.email, role).await,
        Err(error) => Err(error),
    };
    match changed {
        Ok(seq) => {
            app.settle(seq).await;
            Ok(go(&format!("/console/organizations/{org}?done=role")))
        }
        Err(error) => again(&person, &org, InviteForm::default(), "members", error).await,
    }
}

#[derive(Deserialize)]
struct MemberForm {
    email: String,
}

async fn remove(
    State(app): State<Arc<App>>,
    person: Person,
    Path(org): Path<String>,
    Form(form): Form<MemberForm>,
) -> Result<Response, Fault> {
    match app.ops().remove_member(&person.actor, &org, &form.email).await {
        Ok(seq) => {
            app.settle(seq).await;
            if form.email.eq_ignore_ascii_case(&person.principal().email) {
                return Ok(go("/console/organizations?done=left"));
            }
            Ok(go(&format!("/console/organizations/{org}?done=removed")))
        }
        Err(error) => again(&person, &org, InviteForm::default(), "members", error).await,
    }
}

async fn sign_out(
    State(app): State<Arc<App>>,
    person: Person,
    Path(org): Path<String>,
    Form(form): Form<MemberForm>,
) -> Result<Response, Fault> {
    match app.ops().sign_out_member(&person.actor, &org, &form.email).await {
        Ok(seq) => {
            app.settle(seq).await;
            Ok(go(&format!("/console/organizations/{org}?done=signed-out")))
        }
        Err(error) => again(&person, &org, InviteForm::default(), "members", error).await,
    }
}

#[derive(Template)]
#[template(path = "invitation_made.html")]
struct MadePage {
    frame: Frame,
    org: String,
    email: String,
    link: String,
    /// What became of the mail, in words; empty for a Console that sends none.
    mail: String,
}

async fn invite(
    State(app): State<Arc<App>>,
    person: Person,
    Path(org): Path<String>,
    Form(form): Form<InviteForm>,
) -> Result<Response, Fault> {
    let form = InviteForm { email: form.email.trim().to_owned(), ..form };
    let invited = match role_of(&form.role) {
        Ok(role) => app.ops().invite(&person.actor, &org, &form.email, role).await,
        Err(error) => Err(error),
    };
    let invited = match invited {
        Ok(invited) => invited,
        Err(error) => return again(&person, &org, form, "email", error).await,
    };
    app.settle(invited.seq).await;
    let path = format!("/console/invitation#{}", invited.code.reveal());
    let link = app.url.as_ref().map_or_else(|| format!("https://{}{path}", person.host), |url| format!("{url}{path}"));
    let mail = match app.mail.invite(&invited.email, &org, &person.principal().email, &link).await {
        Sent::Never => String::new(),
        Sent::Yes => format!("A mail with it is on its way to {}.", invited.email),
        Sent::Failed(why) => format!("The mail to {} could not be sent: {why}. Hand them the link yourself.", invited.email),
    };
    let frame = person.frame("organizations").with_done("The invitation is made.");
    Ok(show_with(StatusCode::OK, &MadePage { frame, org, email: invited.email, link, mail }))
}

async fn withdraw(State(app): State<Arc<App>>, person: Person, Path((org, id)): Path<(String, String)>) -> Result<Response, Fault> {
    let framed = |error: OpsError| Fault::from(error).framed(person.frame("organizations"));
    let seq = app.ops().uninvite(&person.actor, &org, &id).await.map_err(framed)?;
    app.settle(seq).await;
    Ok(go(&format!("/console/organizations/{org}?done=withdrawn")))
}
