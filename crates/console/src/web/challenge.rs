//! The page that a command line opens to be let in (protocol 3.6): it shows who asks, takes a passkey or a code, and hands the answer back to
//! the command line, which waits on this machine. Nobody need be signed in here, and nobody is by this.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Form, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convox_seal::Secret;
use convox_wire::form::Params;
use http::StatusCode;
use serde::Deserialize;

use super::page::{Fault, Frame, Problem, sentence, show, show_with, status_and_words};
use super::person::Visitor;
use super::words::{When, when};
use crate::meters::Decision;
use crate::ops::OpsError;
use crate::ops::cli_sessions::{Shown, id_in};
use crate::state::App;

/// Longest text that a command line may put into the page's address.
const LONGEST_TOKEN: usize = 16 * 1024;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/login/u2f", get(ask).post(answer))
}

#[derive(Template)]
#[template(path = "challenge.html")]
struct ChallengePage {
    frame: Frame,
    email: String,
    key_last4: String,
    peer: String,
    asked: When,
    has_totp: bool,
    /// Options for the passkey, if they have one.
    options: Option<String>,
    token: String,
    callback: String,
    problem: Problem,
}

#[derive(Template)]
#[template(path = "challenge_done.html")]
struct DonePage {
    frame: Frame,
    /// Back to the command line, with the answer: it counts once, and only together with the API key that asked.
    back: Secret,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AskQuery {
    token: String,
    callback_url: String,
}

/// Where the command line waits: on this machine, over plain HTTP, on a port; nowhere else may an answer go.
fn own_callback(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = authority.rsplit_once(':')?;
    let is_here = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    let is_port = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte));
    (is_here && is_port && is_plain && !path.contains("//")).then_some(text)
}

struct Found {
    id: String,
    options: serde_json::Value,
    shown: Shown,
}

async fn found(app: &App, token: &str, callback: &str) -> Result<Found, Fault> {
    let wrong = |words: &str| Fault::new(StatusCode::BAD_REQUEST, words);
    if own_callback(callback).is_none() {
        return Err(wrong("that would send your answer to another machine, so nothing was done; run the command again"));
    }
    let (id, options) = (token.len() <= LONGEST_TOKEN)
        .then(|| id_in(token))
        .flatten()
        .ok_or_else(|| wrong("the link is not complete; copy all of it, or run the command again"))?;
    let shown = app.ops().show_cli_session(&id).await?;
    Ok(Found { id, options, shown })
}

async fn ask(State(app): State<Arc<App>>, Query(query): Query<AskQuery>) -> Result<Response, Fault> {
    let found = found(&app, &query.token, &query.callback_url).await?;
    Ok(page(&app, StatusCode::OK, found, query, Problem::default()))
}

fn page(app: &App, status: StatusCode, found: Found, query: AskQuery, problem: Problem) -> Response {
    let Found { mut options, shown, .. } = found;
    if let Some(options) = options.pointer_mut("/publicKey").and_then(serde_json::Value::as_object_mut) {
        // What the command line was told is for security keys alone; a passkey has to verify its owner.
        options.insert("userVerification".to_owned(), "preferred".into());
    }
    let page = ChallengePage {
        frame: Frame::default(),
        email: shown.email,
        key_last4: shown.key_last4,
        peer: shown.peer,
        asked: when(shown.created_ms, app.clock.now_ms()),
        has_totp: shown.has_totp,
        options: shown.has_passkeys.then(|| options.to_string()),
        token: query.token,
        callback: query.callback_url,
        problem,
    };
    show_with(status, &page)
}

#[derive(Deserialize)]
struct CodeForm {
    token: String,
    callback_url: String,
    code: String,
}

async fn answer(State(app): State<Arc<App>>, visitor: Visitor, Form(form): Form<CodeForm>) -> Result<Response, Fault> {
    let CodeForm { token, callback_url, code } = form;
    let found = found(&app, &token, &callback_url).await?;
    match app.ops().prove_cli_session(&found.id, &found.shown, &Secret::new(code)).await {
        Ok(answer) => {
            let data = Params::new().with("data", STANDARD.encode(answer.expose())).encode();
            Ok(show(&DonePage { frame: Frame::default(), back: Secret::new(format!("{callback_url}?{data}")) }))
        }
        Err(error @ OpsError::Store(_)) => Err(error.into()),
        Err(error) => {
            if matches!(error, OpsError::Forbidden(_)) {
                app.meters.decided(None, Decision::Unidentified);
                let event = || {
                    let event = visitor.actor.event(&*app.clock, "CliSignIn", "/login/u2f".to_owned());
                    let actor = found.shown.email.clone();
                    convox_model::Event { actor, decision: "refused".to_owned(), rule: "wrong-code".to_owned(), ..event }
                };
                app.audit.unidentified(event, app.clock.now_ms());
            }
            let (status, words) = status_and_words(&error);
            let query = AskQuery { token, callback_url };
            Ok(page(&app, status, found, query, Problem::new("code", sentence(&words))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_to_this_machine_only() {
        for own in ["http://localhost:1", "http://127.0.0.1:65535/", "http://[::1]:8080/3f-A_9", "http://localhost:40000/a/b"] {
            assert_eq!(own_callback(own), Some(own));
        }
        for other in [
            "",
            "http://localhost",
            "http://localhost:",
            "http://localhost:123456",
            "https://localhost:1",
            "http://evil.example:80",
            "http://localhost.evil.example:80",
            "http://localhost:1@evil.example",
            "http://evil.example:80/localhost:1",
            "http://localhost:80\\@evil.example",
            "http://a@localhost:1",
            "http://localhost:1?x",
            "http://localhost:1#x",
            "http://localhost:1//evil.example",
            "http://127.0.0.2:1",
            "http://0x7f.1:1",
            "//localhost:1",
            "javascript:alert(1)",
            "http://localhost:1/\r\n",
            "http://localhost:1/%2f",
        ] {
            assert_eq!(own_callback(other), None, "{other}");
        }
    }
}
