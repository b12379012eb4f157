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
use crate::authn::{SESSION_PATH, is_v2};
use crate::ops::let_in::LetIn;
use crate::ops::sessions::{Browser, SignedIn};
use crate::reply;
use crate::state::App;
use crate::web::HOME;

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
    let browser = Browser { peer: holder.actor.peer.clone(), agent: text(&http::header::USER_AGENT) };
    if id.is_empty() && answer.is_empty() && is_v2(&headers) {
        return enter(&app, &holder, &headers, &browser).await;
    }
    if id.is_empty() || answer.is_empty() {
        return Err(holder.error(StatusCode::BAD_REQUEST, "a session needs the answer to a challenge; run the command again"));
    }
    let signed_in = app.ops().finish_cli_session(&holder.actor, &browser, &id, &answer).await.map_err(|error| holder.refused(&error))?;
    Ok(signed_in_at(&app, signed_in).await)
}

/// The client sends its request again at once, perhaps to another server.
async fn signed_in_at(app: &App, signed_in: SignedIn) -> Response {
    app.settle(signed_in.seq).await;
    plain(reply::json(StatusCode::OK, &json!({ "id": signed_in.session.reveal() }))).into_response()
}

/// For v2, which was told to ask without an answer: it has none to give. Its error names the page where somebody can; after that the same
/// request gives the session.
async fn enter(app: &App, holder: &Holder, headers: &HeaderMap, browser: &Browser) -> Result<Response, Refused> {
    match app.ops().claim_let_in(&holder.actor, browser).await.map_err(|error| holder.refused(&error))? {
        LetIn::Session(signed_in) => Ok(signed_in_at(app, signed_in).await),
        LetIn::Waits(id) => {
            // The client takes its error for a format.
            let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().replace('%', "");
            let at = app.url.clone().unwrap_or_else(|| format!("https://{host}"));
            let words = format!(
                "your organization requires a second factor: open {at}{HOME}/let-in?id={id} in a browser, answer there, then run the command again"
            );
            Err(holder.error(StatusCode::FORBIDDEN, words))
        }
    }
}

/// A machine cannot be asked for a second factor, so its key needs no session.
fn must_be_a_persons(holder: &Holder) -> Result<(), Refused> {
    if holder.who.known().kind == Some(KeyKind::User) {
        return Ok(());
    }
    Err(holder.error(StatusCode::BAD_REQUEST, "a deploy key needs no session"))
}
