//! Where a command line proves a second factor (protocol 3.4): a challenge, and a session in exchange for its answer. An API key alone is
//! enough to ask; it opens nothing else here. Never answers with a demand for a session: a client would ask for ever.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use convox_seal::KeyKind;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;

use super::{Holder, Refused, plain};
use crate::authn::SESSION_PATH;
use crate::ops::sessions::Browser;
use crate::reply;
use crate::state::App;

const CHALLENGE: HeaderName = HeaderName::from_static("challenge");
/// By what the challenge can be answered; the original clients do not look at it.
const ANSWERS: HeaderName = HeaderName::from_static("session-answers");

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route(SESSION_PATH, get(ask).post(answer))
}

async fn ask(State(app): State<Arc<App>>, holder: Holder) -> Result<Response, Refused> {
    must_be_a_persons(&holder)?;
    let asked = app.ops().start_cli_session(&holder.actor).await.map_err(|error| holder.refused(&error))?;
    let mut response = plain(reply::json(StatusCode::OK, &asked.challenge));
    let headers = response.headers_mut();
    for (name, value) in [(CHALLENGE, asked.id), (ANSWERS, asked.by.join(", "))] {
        headers.insert(name, HeaderValue::from_str(&value).map_err(|_| holder.error(StatusCode::INTERNAL_SERVER_ERROR, ""))?);
    }
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn answer(State(app): State<Arc<App>>, holder: Holder, headers: HeaderMap, body: Bytes) -> Result<Response, Refused> {
    must_be_a_persons(&holder)?;
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (id, answer) = (text(&CHALLENGE), String::from_utf8_lossy(&body));
    if id.is_empty() || answer.is_empty() {
        return Err(holder.error(StatusCode::BAD_REQUEST, "a session needs the answer to a challenge; run the command again"));
    }
    let browser = Browser { peer: holder.actor.peer.clone(), agent: text(&http::header::USER_AGENT) };
    let signed_in = app.ops().finish_cli_session(&holder.actor, &browser, &id, &answer).await.map_err(|error| holder.refused(&error))?;
    // The client sends its request again at once, perhaps to another server.
    app.settle(signed_in.seq).await;
    Ok(plain(reply::json(StatusCode::OK, &json!({ "id": signed_in.session.reveal() }))).into_response())
}

/// A machine cannot be asked for a second factor, so its key needs no session.
fn must_be_a_persons(holder: &Holder) -> Result<(), Refused> {
    if holder.who.known().kind == Some(KeyKind::User) {
        return Ok(());
    }
    Err(holder.error(StatusCode::BAD_REQUEST, "a deploy key needs no session"))
}
