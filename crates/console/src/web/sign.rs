//! Signing in and out, and the way back for those who forgot their password.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use convox_seal::Secret;
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::page::{Fault, Frame, Problem, go, sentence, show, show_with, status_and_words};
use super::person::{AUTHORIZE, Entrant, Person, Visitor, with_device, with_session, without_session};
use crate::meters::Decision;
use crate::ops::OpsError;
use crate::state::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/sign-in", get(ask).post(sign_in))
        .route("/sign-in/passkey/start", post(start_passkey))
        .route("/sign-in/passkey", post(sign_in_by_passkey))
        .route("/sign-out", post(sign_out))
        .route("/forgotten", get(ask_address).post(forgotten))
        .route("/reset", get(ask_code))
        .route("/reset/open", post(open_reset))
        .route("/reset/finish", post(finish_reset))
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    email: String,
    next: String,
    has_passkeys: bool,
    problem: Problem,
}

impl SignInPage {
    fn new(app: &App, email: String, next: &str, problem: Problem) -> Self {
        Self { frame: Frame::default(), email, next: own_page(next).to_owned(), has_passkeys: app.passkeys.are_there(), problem }
    }
}

#[derive(Deserialize)]
struct Next {
    #[serde(default)]
    next: String,
}

/// A path of our pages, or the first one: a link must not lead through the sign-in to another site.
pub(super) fn own_page(next: &str) -> &str {
    let is_plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-%@+~".contains(&byte)) && !text.contains("//");
    let is_query = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-%~&=".contains(&byte));
    let is_own = match next.split_once('?') {
        Some((path, query)) => path == AUTHORIZE && is_query(query),
        None => is_plain(next) && (next == "/console" || next.starts_with("/console/")),
    };
    if is_own { next } else { "/console" }
}

async fn ask(State(app): State<Arc<App>>, person: Option<Person>, Query(Next { next }): Query<Next>) -> Response {
    if person.is_some() {
        return go(own_page(&next));
    }
    show(&SignInPage::new(&app, String::new(), &next, Problem::default()))
}

#[derive(Deserialize)]
struct SignInForm {
    email: String,
    password: String,
    #[serde(default)]
    next: String,
}

async fn sign_in(
    State(app): State<Arc<App>>,
    before: Option<Entrant>,
    visitor: Visitor,
    Form(form): Form<SignInForm>,
) -> Result<Response, Fault> {
    let SignInForm { email, password, next } = form;
    let password = Secret::new(password);
    let before = before.and_then(|entrant| entrant.principal().key.clone());
    match app.ops().sign_in(&visitor.actor, &visitor.browser, &email, &password, before.as_ref()).await {
        Ok(signed_in) => {
            app.settle(signed_in.seq).await;
            let response = with_session(go(own_page(&next)), &signed_in.session, app.rules.longest_ms);
            // Without one they are a stranger the next time, and signed in all the same.
            Ok(match app.ops().device(&email.trim().to_ascii_lowercase()).await {
                Ok(device) => with_device(response, &device),
                Err(error) => {
                    tracing::warn!(%error, "a browser got no device cookie");
                    response
                }
            })
        }
        Err(error @ (OpsError::Limited { wait_s } | OpsError::Busy { wait_s })) => {
            note_refusal(&app, &visitor, if matches!(error, OpsError::Busy { .. }) { "too-many-at-once" } else { "too-many-guesses" });
            let (status, words) = status_and_words(&error);
            let page = SignInPage::new(&app, email, &next, Problem::new("", sentence(&words)));
            Ok(([(RETRY_AFTER, HeaderValue::from(wait_s))], show_with(status, &page)).into_response())
        }
        Err(OpsError::Forbidden(words)) => {
            note_refusal(&app, &visitor, "wrong-password");
            Ok(show_with(StatusCode::FORBIDDEN, &SignInPage::new(&app, email, &next, Problem::new("", sentence(&words)))))
        }
        Err(error) => Err(error.into()),
    }
}

fn note_refusal(app: &App, visitor: &Visitor, rule: &str) {
    app.meters.decided(None, Decision::Unidentified);
    let event = || {
        let event = visitor.actor.event(&*app.clock, "SignIn", "/console/sign-in".to_owned());
        convox_model::Event { decision: "refused".to_owned(), rule: rule.to_owned(), ..event }
    };
    app.audit.unidentified(event, app.clock.now_ms());
}

/// For the script: a ceremony, and what to ask the browser for.
async fn start_passkey(State(app): State<Arc<App>>) -> Result<Response, Fault> {
    let started = app.ops().start_passkey_sign_in()?;
    Ok(axum::Json(serde_json::json!({ "id": started.id, "options": started.options })).into_response())
}

#[derive(Deserialize)]
struct PasskeyForm {
    id: String,
    #[serde(default)]
    answer: String,
    #[serde(default)]
    next: String,
}

async fn sign_in_by_passkey(
    State(app): State<Arc<App>>,
    before: Option<Entrant>,
    visitor: Visitor,
    Form(form): Form<PasskeyForm>,
) -> Result<Response, Fault> {
    let PasskeyForm { id, answer, next } = form;
    let before = before.and_then(|entrant| entrant.principal().key.clone());
    match app.ops().sign_in_by_passkey(&visitor.actor, &visitor.browser, &id, &answer, before.as_ref()).await {
        Ok(signed_in) => {
            app.settle(signed_in.seq).await;
            Ok(with_session(go(own_page(&next)), &signed_in.session, app.rules.longest_ms))
        }
        Err(error @ OpsError::Store(_)) => Err(error.into()),
        Err(error) => {
            note_refusal(&app, &visitor, "wrong-passkey");
            let (status, words) = status_and_words(&error);
            Ok(show_with(status, &SignInPage::new(&app, String::new(), &next, Problem::new("", sentence(&words)))))
        }
    }
}

async fn sign_out(State(app): State<Arc<App>>, person: Option<Entrant>) -> Result<Response, Fault> {
    if let Some(person) = person
        && let Some(session) = &person.principal().key
    {
        let seq = app.ops().sign_out(&person.actor, session.as_str()).await?;
        app.settle(seq).await;
    }
    Ok(without_session(go("/console/sign-in")))
}

#[derive(Template)]
#[template(path = "forgotten.html")]
struct ForgottenPage {
    frame: Frame,
    /// Whether this Console sends mail.
    has_mail: bool,
    /// Whether it was just asked for.
    is_sent: bool,
    /// Why it was not.
    problem: Problem,
}

impl ForgottenPage {
    fn new(has_mail: bool, is_sent: bool) -> Self {
        Self { frame: Frame::default(), has_mail, is_sent, problem: Problem::default() }
    }
}

/// Mails that are made and handed over at the same time.
static MAILING: Semaphore = Semaphore::const_new(16);

async fn ask_address(State(app): State<Arc<App>>) -> Response {
    show(&ForgottenPage::new(app.mail.is_there(), false))
}

#[derive(Deserialize)]
struct AddressForm {
    email: String,
}

/// The same answer, as fast, whether anybody has that address or not; and of those that one address was sent enough of, too.
async fn forgotten(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Form(AddressForm { email }): Form<AddressForm>,
) -> Result<Response, Fault> {
    let (true, Some(url)) = (app.mail.is_there(), app.url.clone()) else {
        return Ok(show(&ForgottenPage::new(false, false)));
    };
    let email = email.trim().to_ascii_lowercase();
    let later = |wait_s: i64| {
        let words = format!(
            "Too many links were asked for from your network. Try again in {} min, or ask whoever runs this Console for one.",
            (wait_s + 59) / 60
        );
        let page = ForgottenPage { problem: Problem::new("email", words), ..ForgottenPage::new(true, false) };
        ([(RETRY_AFTER, HeaderValue::from(wait_s))], show_with(StatusCode::TOO_MANY_REQUESTS, &page)).into_response()
    };
    match app.ops().may_ask_for_mail(&visitor.actor, &email).await {
        Ok(true) => {}
        Ok(false) => return Ok(show(&ForgottenPage::new(true, true))),
        Err(OpsError::Limited { wait_s }) => {
            note_refusal(&app, &visitor, "too-many-mails");
            return Ok(later(wait_s));
        }
        Err(error) => return Err(error.into()),
    }
    let Ok(permit) = MAILING.try_acquire() else { return Ok(later(60)) };
    tokio::spawn(async move {
        let _permit = permit;
        match app.ops().start_reset(&visitor.actor, &email).await {
            Ok(Some((code, _))) => {
                let _ = app.mail.reset(&email, &format!("{url}/console/reset#{}", code.reveal())).await;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a forgotten password could not be replaced"),
        }
    });
    Ok(show(&ForgottenPage::new(true, true)))
}

#[derive(Template)]
#[template(path = "reset.html")]
struct ResetPage {
    frame: Frame,
    /// Whose password; empty while the code is asked for.
    email: String,
    code: String,
    rule: &'static str,
    problem: Problem,
}

#[derive(Deserialize)]
struct CodeForm {
    code: String,
}

/// The code comes behind the `#` of the link, which no browser sends and no log sees; the script puts it into the form.
async fn ask_code() -> Response {
    show(&ResetPage { frame: Frame::default(), email: String::new(), code: String::new(), rule: "", problem: Problem::default() })
}

async fn open_reset(State(app): State<Arc<App>>, Form(CodeForm { code }): Form<CodeForm>) -> Result<Response, Fault> {
    let code = code.trim().to_owned();
    let rule = app.rules.password.words();
    match app.ops().find_reset(&Secret::new(code.clone())).await? {
        Some(email) => Ok(show(&ResetPage { frame: Frame::default(), email, code, rule, problem: Problem::default() })),
        None => {
            let problem = Problem::new("code", "This link was used or has ended. Ask for a new one.");
            let page = ResetPage { frame: Frame::default(), email: String::new(), code: String::new(), rule, problem };
            Ok(show_with(StatusCode::CONFLICT, &page))
        }
    }
}

#[derive(Deserialize)]
struct ResetForm {
    code: String,
    email: String,
    password: String,
}

async fn finish_reset(State(app): State<Arc<App>>, visitor: Visitor, Form(form): Form<ResetForm>) -> Result<Response, Fault> {
    let ResetForm { code, email, password } = form;
    let done = app.ops().run_reset(&visitor.actor, &visitor.browser, &Secret::new(code.clone()), &Secret::new(password)).await;
    match done {
        Ok(signed_in) => {
            app.settle(signed_in.seq).await;
            Ok(with_session(go("/console"), &signed_in.session, app.rules.longest_ms))
        }
        Err(error @ OpsError::Input(_)) => {
            let (status, words) = status_and_words(&error);
            let problem = Problem::new("password", sentence(&words));
            Ok(show_with(status, &ResetPage { frame: Frame::default(), email, code, rule: app.rules.password.words(), problem }))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_in_leads_to_a_page_of_ours_only() {
        for own in ["/console", "/console/racks", "/console/racks/acme/main%20x", "/console/authorize?a=b&c=http%3A%2F%2F127.0.0.1"] {
            assert_eq!(own_page(own), own);
        }
        for other in [
            "",
            "/",
            "//evil.example",
            "/console//evil.example",
            "https://evil.example",
            "/consolex",
            "/console/\\evil",
            "/console/a?b",
            "/console/authorize?a=//evil.example",
            "/console/authorize?a=b?c",
            "/console/authorize?a=b#c",
            "/console/authorizex?a=b",
            "/console/\r\n",
        ] {
            assert_eq!(own_page(other), "/console", "{other}");
        }
    }
}
