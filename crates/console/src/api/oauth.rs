//! How a command line signs in by a browser: OAuth 2 with PKCE for native programs (RFC 6749, 7636, 8252) and its flow for devices (RFC 8628),
//! found by the metadata of RFC 8414. The pages on which somebody says yes are in `web`.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Form, Router};
use convox_model::Event;
use convox_seal::Secret;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::{anonymous, plain};
use crate::meters::Decision;
use crate::ops::authorizations::{CLIENT, DEVICE_MS, Granted, INTERVAL_MS, NoKey};
use crate::ops::{Actor, OpsError};
use crate::reply;
use crate::state::App;

const BY_CODE: &str = "authorization_code";
const BY_DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/api/v1/oauth/device_authorization", post(device_authorization))
        .route("/api/v1/oauth/token", post(token))
}

/// Which ways in there are. By this a command line tells this Console from others, before it asks anybody for anything.
async fn metadata(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let at = app.url.clone().unwrap_or_else(|| format!("https://{host}"));
    plain(reply::json(
        StatusCode::OK,
        &json!({
            "issuer": at,
            "authorization_endpoint": format!("{at}/console/authorize"),
            "token_endpoint": format!("{at}/api/v1/oauth/token"),
            "device_authorization_endpoint": format!("{at}/api/v1/oauth/device_authorization"),
            "response_types_supported": ["code"],
            "grant_types_supported": [BY_CODE, BY_DEVICE],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "convox_console": 1,
        }),
    ))
}

/// Whoever asks, before it is known who.
struct Anybody(Actor);

impl axum::extract::FromRequestParts<Arc<App>> for Anybody {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _app: &Arc<App>) -> Result<Self, Self::Rejection> {
        Ok(Self(anonymous(parts)))
    }
}

/// `error` and `error_description` of RFC 6749, 5.2.
fn refused(status: StatusCode, error: &str, description: &str) -> Response {
    plain(reply::json(status, &json!({ "error": error, "error_description": description })))
}

fn bad_request(description: &str) -> Response {
    refused(StatusCode::BAD_REQUEST, "invalid_request", description)
}

#[derive(Deserialize)]
struct DeviceForm {
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    device_name: String,
}

async fn device_authorization(
    State(app): State<Arc<App>>,
    Anybody(actor): Anybody,
    headers: HeaderMap,
    form: Result<Form<DeviceForm>, FormRejection>,
) -> Response {
    let Ok(Form(DeviceForm { client_id, device_name })) = form else { return bad_request("a form with client_id is expected") };
    if client_id != CLIENT {
        return refused(StatusCode::BAD_REQUEST, "invalid_client", "client_id is not one that is known here");
    }
    match app.ops().begin_device(&actor, &device_name).await {
        Ok(begun) => {
            if let Err(error) = app.audit.write_begun(begun.event, app.clock.now_ms()).await {
                return refused(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", &error.to_string());
            }
            let host = headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            let at = app.url.clone().unwrap_or_else(|| format!("https://{host}"));
            plain(reply::json(
                StatusCode::OK,
                &json!({
                    "device_code": begun.device_code.reveal(),
                    "user_code": begun.user_code.expose(),
                    "verification_uri": format!("{at}/console/device"),
                    "expires_in": DEVICE_MS / 1000,
                    "interval": INTERVAL_MS / 1000,
                }),
            ))
        }
        Err(OpsError::Conflict(words)) => refused(StatusCode::TOO_MANY_REQUESTS, "slow_down", &words),
        Err(error) => unavailable(&error),
    }
}

#[derive(Deserialize)]
struct TokenForm {
    #[serde(default)]
    grant_type: String,
    #[serde(default)]
    client_id: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    redirect_uri: String,
    #[serde(default)]
    code_verifier: String,
    #[serde(default)]
    device_code: String,
}

/// A key for what somebody approved.
async fn token(State(app): State<Arc<App>>, Anybody(actor): Anybody, form: Result<Form<TokenForm>, FormRejection>) -> Response {
    let Ok(Form(form)) = form else { return bad_request("a form with grant_type and client_id, each once, is expected") };
    let TokenForm { grant_type, client_id, code, redirect_uri, code_verifier, device_code } = form;
    let (code, verifier, device_code) = (Secret::new(code), Secret::new(code_verifier), Secret::new(device_code));
    if client_id != CLIENT {
        return refused(StatusCode::BAD_REQUEST, "invalid_client", "client_id is not one that is known here");
    }
    let ops = app.ops();
    let granted = match grant_type.as_str() {
        BY_CODE if code.is_empty() || verifier.is_empty() => return bad_request("code and code_verifier are needed"),
        BY_CODE => ops.exchange_code(&actor, &code, &redirect_uri, &verifier).await,
        BY_DEVICE if device_code.is_empty() => return bad_request("device_code is needed"),
        BY_DEVICE => ops.poll_device(&actor, &device_code).await,
        "" => return bad_request("grant_type is needed"),
        _ => return refused(StatusCode::BAD_REQUEST, "unsupported_grant_type", "grant_type is authorization_code or that of a device"),
    };
    let (error, words) = match granted {
        Ok(granted) => return give(&app, &granted).await,
        Err(NoKey::Pending) => ("authorization_pending", "nobody decided yet"),
        Err(NoKey::SlowDown) => ("slow_down", "wait five seconds longer between two questions"),
        Err(NoKey::Expired) => ("expired_token", "the code has ended, or was used; start again"),
        Err(NoKey::Denied) => ("access_denied", "it was denied, or whoever approved it was signed out"),
        Err(NoKey::InvalidGrant(words)) => ("invalid_grant", words),
        Err(NoKey::Other(error)) => return unavailable(&error),
    };
    if matches!(error, "invalid_grant" | "access_denied") {
        app.meters.decided(None, Decision::Unidentified);
        let event = || {
            let event = actor.event(&*app.clock, "KeyCreate", "/api/v1/oauth/token".to_owned());
            Event { decision: "refused".to_owned(), rule: error.replace('_', "-"), ..event }
        };
        app.audit.unidentified(event, app.clock.now_ms());
    }
    refused(StatusCode::BAD_REQUEST, error, words)
}

async fn give(app: &App, Granted { made, approved }: &Granted) -> Response {
    app.settle(made.seq).await;
    let expires_ms = made.expires_ms.unwrap_or_default();
    let expires = jiff::Timestamp::from_millisecond(expires_ms).map(|end| end.to_string()).unwrap_or_default();
    plain(reply::json(
        StatusCode::OK,
        &json!({
            "access_token": made.key.reveal(),
            "token_type": "Bearer",
            "expires_in": (expires_ms - app.clock.now_ms()).max(0) / 1000,
            "expires": expires,
            "key_id": made.id,
            "key_name": made.name,
            "id": approved.user,
            "email": approved.email,
        }),
    ))
}

/// A fault of ours: what exactly it is, is for the log.
fn unavailable(error: &OpsError) -> Response {
    tracing::error!(%error, "a command line could not be signed in");
    let words = "the Console's database cannot be used; try again later, and tell whoever runs it";
    refused(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", words)
}
