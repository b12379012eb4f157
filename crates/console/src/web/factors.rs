//! Second factors: one's own passkeys, security keys, authenticator app and recovery codes. [`super::prove`] asks for them.
//!
//! What changes an account asks for a proof that is not older than ten minutes, and goes on in a session with a new id.

use std::sync::Arc;

use askama::Template;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use convox_seal::{Secret, TotpSecret};
use convox_store::factors::{Factor, FactorId};
use convox_wire::form::Params;
use http::StatusCode;
use http::request::Parts;
use qrcodegen::{QrCode, QrCodeEcc};
use serde::Deserialize;

use super::page::{Fault, Frame, Problem, go, sentence, show, show_with, status_and_words};
use super::person::{Entrant, NotIn, with_session};
use super::words::{When, when};
use crate::ops::OpsError;
use crate::ops::factors::FactorAdded;
use crate::ops::proof::is_recent;
use crate::state::App;

pub(super) const HERE: &str = "/console/account/factors";

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/account/factors", get(list))
        .route("/account/factors/passkey", get(ask_passkey).post(add_passkey))
        .route("/account/factors/passkeys/{id}/rename", post(rename))
        .route("/account/factors/passkeys/{id}/remove", post(remove_passkey))
        .route("/account/factors/totp", get(ask_totp).post(add_totp))
        .route("/account/factors/totp/remove", post(remove_totp))
        .route("/account/factors/recovery-codes", post(renew_codes))
}

/// Somebody who may look at their factors: they have proven one, or have none to prove yet.
struct Owner(Entrant);

impl FromRequestParts<Arc<App>> for Owner {
    type Rejection = NotIn;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, NotIn> {
        let entrant = Entrant::from_request_parts(parts, app).await?;
        if entrant.is_pending() && entrant.known().has_factor { Err(NotIn::prove(HERE)) } else { Ok(Self(entrant)) }
    }
}

/// The same, shortly after they proved who they are.
struct Recent(Entrant);

impl FromRequestParts<Arc<App>> for Recent {
    type Rejection = NotIn;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, NotIn> {
        let Owner(entrant) = Owner::from_request_parts(parts, app).await?;
        let is_recent = is_recent(entrant.known().proven_ms, app.clock.now_ms());
        if is_recent { Ok(Self(entrant)) } else { Err(NotIn::prove(HERE)) }
    }
}

/// A passkey or a security key as a row of the page.
struct PasskeyLine {
    id: String,
    name: String,
    kind: &'static str,
    added: When,
    used: Option<When>,
}

#[derive(Template)]
#[template(path = "factors.html")]
struct FactorsPage {
    frame: Frame,
    passkeys: Vec<PasskeyLine>,
    /// When the authenticator app was added and last used.
    totp: Option<(When, Option<When>)>,
    codes: i64,
    /// Whether there can be passkeys here.
    may_have_passkeys: bool,
    /// Whether they can do nothing else before they have a factor.
    is_forced: bool,
    problem: Problem,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListQuery {
    done: String,
}

fn done(code: &str) -> &'static str {
    match code {
        "added" => "It is added.",
        "renamed" => "It has its new name.",
        "removed" => "It is removed, and all other devices and command lines are signed out.",
        "proven" => "Thank you. You may change this for the next ten minutes.",
        _ => "",
    }
}

async fn list(Owner(entrant): Owner, Query(query): Query<ListQuery>) -> Result<Response, Fault> {
    page(&entrant, StatusCode::OK, done(&query.done), Problem::default()).await
}

async fn page(entrant: &Entrant, status: StatusCode, done: &'static str, problem: Problem) -> Result<Response, Fault> {
    let (ops, now_ms) = (entrant.app.ops(), entrant.app.clock.now_ms());
    let factors = ops.list_factors(&entrant.actor).await?;
    let is_forced = entrant.is_pending() && !factors.are_there();
    let line = |row: convox_store::passkeys::PasskeyRow| PasskeyLine {
        id: row.id,
        name: row.name,
        kind: if row.kind == Factor::SecurityKey { "security key" } else { "passkey" },
        added: when(row.created_ms, now_ms),
        used: row.used_ms.map(|used_ms| when(used_ms, now_ms)),
    };
    let page = FactorsPage {
        frame: entrant.frame("account").with_done(done),
        passkeys: factors.passkeys.into_iter().map(line).collect(),
        totp: factors.totp.map(|row| (when(row.created_ms, now_ms), row.used_ms.map(|used_ms| when(used_ms, now_ms)))),
        codes: factors.codes,
        may_have_passkeys: entrant.app.passkeys.are_there(),
        is_forced,
        problem,
    };
    Ok(show_with(status, &page))
}

/// Shows the list again with what went wrong.
async fn again(entrant: &Entrant, error: OpsError) -> Result<Response, Fault> {
    if let OpsError::Store(_) = error {
        return Err(error.into());
    }
    let (status, words) = status_and_words(&error);
    page(entrant, status, "", Problem::new("", sentence(&words))).await
}

#[derive(Template)]
#[template(path = "passkey_add.html")]
struct PasskeyPage {
    frame: Frame,
    is_security_key: bool,
    id: String,
    options: String,
    name: String,
    problem: Problem,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KindQuery {
    kind: String,
}

fn kind(text: &str) -> Factor {
    if text == Factor::SecurityKey.as_str() { Factor::SecurityKey } else { Factor::Passkey }
}

async fn ask_passkey(Recent(entrant): Recent, Query(query): Query<KindQuery>) -> Result<Response, Fault> {
    passkey_page(&entrant, StatusCode::OK, kind(&query.kind), String::new(), Problem::default()).await
}

async fn passkey_page(entrant: &Entrant, status: StatusCode, kind: Factor, name: String, problem: Problem) -> Result<Response, Fault> {
    match entrant.app.ops().start_passkey(&entrant.actor, kind).await {
        Ok(started) => {
            let page = PasskeyPage {
                frame: entrant.frame("account"),
                is_security_key: kind == Factor::SecurityKey,
                id: started.id,
                options: started.options.to_string(),
                name,
                problem,
            };
            Ok(show_with(status, &page))
        }
        Err(error) => again(entrant, error).await,
    }
}

#[derive(Deserialize)]
struct PasskeyForm {
    kind: String,
    id: String,
    name: String,
    #[serde(default)]
    answer: String,
}

async fn add_passkey(State(app): State<Arc<App>>, Recent(entrant): Recent, Form(form): Form<PasskeyForm>) -> Result<Response, Fault> {
    let kind = kind(&form.kind);
    let ops = app.ops();
    match ops.finish_passkey(&entrant.actor, &entrant.browser, kind, &form.id, &form.answer, &form.name).await {
        Ok(added) => Ok(show_added(&app, &entrant, added).await),
        Err(error @ OpsError::Store(_)) => Err(error.into()),
        Err(error) => {
            let (status, words) = status_and_words(&error);
            passkey_page(&entrant, status, kind, form.name, Problem::new("name", sentence(&words))).await
        }
    }
}

#[derive(Template)]
#[template(path = "recovery_codes.html")]
struct CodesPage {
    frame: Frame,
    codes: Vec<Secret>,
}

/// After the first factor: the recovery codes, this once. After others: the list.
async fn show_added(app: &App, entrant: &Entrant, added: FactorAdded) -> Response {
    app.settle(added.signed_in.seq).await;
    let response = if added.codes.is_empty() {
        go(&format!("{HERE}?done=added"))
    } else {
        let frame = Frame::of(&entrant.principal().email, "account").with_done("Your second factor is added.");
        show(&CodesPage { frame, codes: added.codes })
    };
    with_session(response, &added.signed_in.session, app.rules.longest_ms)
}

#[derive(Template)]
#[template(path = "totp_add.html")]
struct TotpPage {
    frame: Frame,
    id: String,
    /// In groups of four, as people type it.
    secret: Secret,
    /// For the authenticator app, on a device that has the browser too.
    uri: Secret,
    /// The same as a picture: side length, and what is dark.
    side: i32,
    dark: Secret,
    problem: Problem,
}

async fn ask_totp(Recent(entrant): Recent) -> Result<Response, Fault> {
    let (id, secret) = entrant.app.ops().start_totp(&entrant.actor).await?;
    Ok(totp_page(&entrant, StatusCode::OK, id, &secret, Problem::default()))
}

fn totp_page(entrant: &Entrant, status: StatusCode, id: String, secret: &TotpSecret, problem: Problem) -> Response {
    let text = secret.reveal();
    let mut grouped = String::with_capacity(40);
    for (place, char) in text.expose().chars().enumerate() {
        if place > 0 && place % 4 == 0 {
            grouped.push(' ');
        }
        grouped.push(char);
    }
    // An address has no character that a path and a query escape differently.
    let account = Params::new().with("", &*entrant.principal().email).encode();
    let account = account.trim_start_matches('=');
    let uri = Secret::new(format!("otpauth://totp/Convox:{account}?secret={}&issuer=Convox", text.expose()));
    let (side, dark) = picture(&uri);
    let page = TotpPage { frame: entrant.frame("account"), id, secret: Secret::new(grouped), uri, side, dark, problem };
    show_with(status, &page)
}

/// A QR code as the path of an SVG: nothing is asked of anybody for it.
fn picture(text: &Secret) -> (i32, Secret) {
    let Ok(code) = QrCode::encode_text(text.expose(), QrCodeEcc::Medium) else { return (1, Secret::new(String::new())) };
    let mut path = String::with_capacity(16 * 1024);
    for y in 0..code.size() {
        for x in 0..code.size() {
            if code.get_module(x, y) {
                path.push_str(&format!("M{x} {y}h1v1h-1z"));
            }
        }
    }
    (code.size(), Secret::new(path))
}

#[derive(Deserialize)]
struct TotpForm {
    id: String,
    code: String,
}

async fn add_totp(State(app): State<Arc<App>>, Recent(entrant): Recent, Form(form): Form<TotpForm>) -> Result<Response, Fault> {
    let ops = app.ops();
    match ops.finish_totp(&entrant.actor, &entrant.browser, &form.id, &form.code).await {
        Ok(added) => Ok(show_added(&app, &entrant, added).await),
        Err(error @ OpsError::Store(_)) => Err(error.into()),
        Err(error) => {
            let (status, words) = status_and_words(&error);
            let problem = Problem::new("code", sentence(&words));
            match ops.open_totp_under_way(&entrant.actor, &form.id).await {
                Ok(secret) => Ok(totp_page(&entrant, status, form.id, &secret, problem)),
                Err(error) => again(&entrant, error).await,
            }
        }
    }
}

#[derive(Deserialize)]
struct NameForm {
    name: String,
}

async fn rename(
    State(app): State<Arc<App>>,
    Recent(entrant): Recent,
    Path(id): Path<String>,
    Form(form): Form<NameForm>,
) -> Result<Response, Fault> {
    match app.ops().rename_passkey(&entrant.actor, &id, &form.name).await {
        Ok(_) => Ok(go(&format!("{HERE}?done=renamed"))),
        Err(error) => again(&entrant, error).await,
    }
}

async fn remove_passkey(State(app): State<Arc<App>>, Recent(entrant): Recent, Path(id): Path<String>) -> Result<Response, Fault> {
    remove(&app, &entrant, FactorId::Passkey(&id)).await
}

async fn remove_totp(State(app): State<Arc<App>>, Recent(entrant): Recent) -> Result<Response, Fault> {
    remove(&app, &entrant, FactorId::Totp).await
}

async fn remove(app: &App, entrant: &Entrant, which: FactorId<'_>) -> Result<Response, Fault> {
    match app.ops().remove_factor(&entrant.actor, &entrant.browser, which).await {
        Ok(signed_in) => {
            app.settle(signed_in.seq).await;
            Ok(with_session(go(&format!("{HERE}?done=removed")), &signed_in.session, app.rules.longest_ms))
        }
        Err(error) => again(entrant, error).await,
    }
}

async fn renew_codes(State(app): State<Arc<App>>, Recent(entrant): Recent) -> Result<Response, Fault> {
    match app.ops().renew_recovery_codes(&entrant.actor).await {
        Ok(codes) => {
            let frame = entrant.frame("account").with_done("Your old recovery codes are void; these are the new ones.");
            Ok(show(&CodesPage { frame, codes }))
        }
        Err(error) => again(&entrant, error).await,
    }
}
