//! What the Console answers itself: the endpoints of the original clients ([`clients`]), its own API under `/api/v1` ([`v1`]), and those by which
//! a command line signs in with a browser ([`oauth`]).
//! JSON in, a use case, JSON out.

mod clients;
mod oauth;
mod session;
mod v1;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use convox_proxy::{Peer, RequestId};
use http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tracing::Instrument as _;

use crate::authn::{self, AuthError, Recognised, Verified, identify};
use crate::front::doubled;
use crate::meters::Decision;
use crate::ops::{Actor, OpsError};
use crate::reply;
use crate::snapshot::About;
use crate::state::App;
use crate::strangers;
use crate::traces;

/// A body of the API is small; uploads go to Racks, not here.
const LARGEST_BODY: usize = 64 * 1024;

/// Everything that is not for a Rack.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(clients::routes())
        .merge(session::routes())
        .merge(oauth::routes())
        .nest("/api/v1", v1::routes())
        .merge(crate::web::router(&app))
        .fallback(async |headers: HeaderMap| plain(reply::error(StatusCode::NOT_FOUND, "", reply::wants_json(&headers))))
        .layer(axum::extract::DefaultBodyLimit::max(LARGEST_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), around))
        .with_state(app)
}

/// Gives each request its id and the trace that its caller says it is part of, refuses all of them while memory cannot be trusted, and logs what failed on our side.
async fn around(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let id = traces::named(RequestId::next(), request.headers());
    request.extensions_mut().insert(id);
    // In every line that is logged on the way.
    let span = tracing::error_span!("request", request.id = %id, trace.id = id.trace().map(tracing::field::display));
    // From here on the peer is the caller, whatever stands between.
    if let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() {
        let caller = app.proxies.caller(peer.ip(), request.headers());
        request.extensions_mut().insert(Peer(SocketAddr::new(caller, peer.port())));
    }
    let path = request.uri().path().to_owned();
    let is_health = path == "/health" || path == "/ready";
    let mut response = if app.snapshots.is_trusted() || is_health {
        next.run(request).instrument(span).await
    } else {
        let message = "the Console cannot reach its database; try again later";
        plain(reply::error(StatusCode::SERVICE_UNAVAILABLE, message, reply::wants_json(request.headers())))
    };
    if response.status().is_server_error() && path != "/ready" {
        let trace = id.trace().map(tracing::field::display);
        tracing::error!(request.id = %id, trace.id = trace, %path, status = response.status().as_u16(), "a request failed");
    }
    if response.status().is_client_error() || response.status().is_server_error() {
        id.name_error(response.headers_mut());
    } else {
        response.headers_mut().insert(reply::REQUEST_ID, id.header());
    }
    response
}

/// A reply of ours as axum's.
fn plain(response: http::Response<String>) -> Response {
    response.map(Body::from)
}

/// An error with the caller's wish for its form.
pub(crate) struct Refused {
    status: StatusCode,
    message: String,
    wants_json: bool,
    /// The demand for a session, or how long to wait.
    further: Option<(HeaderName, HeaderValue)>,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = plain(reply::error(self.status, &self.message, self.wants_json));
        if let Some((name, value)) = self.further {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Somebody with a valid key, who may still owe a second factor: for `/auth`, since `login` cannot answer a demand for one, and for what
/// takes the answer.
pub(crate) struct Holder {
    pub(crate) who: Recognised,
    pub(crate) actor: Actor,
    app: Arc<App>,
    asked: (http::Method, String),
    wants_json: bool,
}

/// Somebody with a valid key who owes nothing, and what a use case wants to know of them.
pub(crate) struct Caller {
    pub(crate) who: Verified,
    pub(crate) actor: Actor,
    app: Arc<App>,
    asked: (http::Method, String),
    wants_json: bool,
}

/// Nobody is known, or they owe a second factor: says why, and writes it down as long as there are not too many.
fn unidentified(parts: &Parts, app: &App, error: &AuthError) -> Refused {
    app.meters.decided(None, Decision::Unidentified);
    let event = || {
        let mut actor = anonymous(parts);
        actor.principal = error.known().map(|known| known.principal.clone());
        actor.unknown_event(app, parts, error.rule())
    };
    app.audit.unidentified(event, app.clock.now_ms());
    let wants_json = reply::wants_json(&parts.headers);
    let mut room = [0; authn::ROOM];
    let key = authn::credential(&parts.headers, &mut room).map_or("", |credential| credential.key);
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.ip().to_string()).unwrap_or_default();
    if let Some(wait_s) = error.is_stranger().then(|| app.strangers.refused(app, &peer, key)).flatten() {
        return Refused {
            status: StatusCode::TOO_MANY_REQUESTS,
            message: strangers::words(wait_s),
            wants_json,
            further: Some((RETRY_AFTER, HeaderValue::from(wait_s))),
        };
    }
    let further = error.demand(&parts.headers).map(|demand| (WWW_AUTHENTICATE, demand));
    Refused { status: error.status(), message: error.to_string(), wants_json, further }
}

impl FromRequestParts<Arc<App>> for Holder {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refused> {
        let wants_json = reply::wants_json(&parts.headers);
        if let Some(name) = doubled(&parts.headers) {
            let message = format!("the header {name} is there twice; send it once");
            return Err(Refused { status: StatusCode::BAD_REQUEST, message, wants_json, further: None });
        }
        let snapshot = app.snapshots.now();
        let who = identify(&parts.headers, peer_of(parts), &snapshot, &app.lookup, &*app.clock)
            .map_err(|error| unidentified(parts, app, &error))?;
        let mut actor = anonymous(parts);
        actor.principal = Some(who.principal().clone());
        actor.is_anonymous = false;
        let asked = (parts.method.clone(), parts.uri.path().to_owned());
        Ok(Self { who, actor, app: Arc::clone(app), asked, wants_json })
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refused> {
        let Holder { who, mut actor, app, asked, wants_json } = Holder::from_request_parts(parts, app).await?;
        let org = if who.known().needs_factor { org_of(parts, &app).await } else { None };
        let about = match &org {
            Some(org) => About::Org(org),
            None if parts.method == http::Method::GET => About::Reading,
            None => About::Everything,
        };
        let proven = who.proven(&parts.headers, about, &app.snapshots.now(), &app.lookup, &*app.clock);
        let who = proven.map_err(|error| unidentified(parts, &app, &error))?;
        // Without a second factor they may be less than their key is.
        actor.principal = Some(who.principal().clone());
        Ok(Self { who, actor, app, asked, wants_json })
    }
}

/// The organization that a path names.
async fn org_of(parts: &mut Parts, app: &App) -> Option<convox_model::OrgId> {
    let params = RawPathParams::from_request_parts(parts, app).await.ok()?;
    let name = params.iter().find_map(|(key, value)| (key == "org").then_some(value))?;
    app.store.find_org(name).await.ok()?.map(|org| org.id)
}

/// Where the caller is.
fn peer_of(parts: &Parts) -> IpAddr {
    parts.extensions.get::<Peer>().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.0.ip())
}

/// The actor of a request before it is known who asks: for use cases that ask for a code or a password instead.
pub(crate) fn anonymous(parts: &Parts) -> Actor {
    Actor {
        principal: None,
        is_anonymous: true,
        request_id: parts.extensions.get::<RequestId>().map(ToString::to_string).unwrap_or_default(),
        peer: parts.extensions.get::<Peer>().map(|peer| peer.0.ip().to_string()).unwrap_or_default(),
        device: crate::web::device(&parts.headers),
    }
}

impl Actor {
    fn unknown_event(&self, app: &App, parts: &Parts, rule: &str) -> convox_model::Event {
        let event = self.event(&*app.clock, "Authenticate", parts.uri.path().to_owned());
        convox_model::Event { method: parts.method.as_str().to_owned(), decision: "refused".to_owned(), rule: rule.to_owned(), ..event }
    }
}

/// The use case's error as an answer. What they had no right to is written down.
fn refused_to(app: &App, actor: &Actor, asked: &(http::Method, String), wants_json: bool, error: &OpsError) -> Refused {
    if matches!(error, OpsError::Forbidden(_)) {
        app.meters.decided(None, Decision::Refused);
        let event = || {
            let (method, path) = asked;
            let event = actor.event(&*app.clock, "Refused", path.clone());
            convox_model::Event { method: method.as_str().to_owned(), decision: "refused".to_owned(), ..event }
        };
        app.audit.refused(event, app.clock.now_ms());
    }
    refused(wants_json, error)
}

impl Holder {
    /// The use case's error as an answer.
    pub(crate) fn refused(&self, error: &OpsError) -> Refused {
        refused_to(&self.app, &self.actor, &self.asked, self.wants_json, error)
    }

    /// An answer of the caller's own kind.
    pub(crate) fn error(&self, status: StatusCode, message: impl Into<String>) -> Refused {
        Refused { status, message: message.into(), wants_json: self.wants_json, further: None }
    }
}

impl Caller {
    /// The use case's error as an answer.
    pub(crate) fn refused(&self, error: &OpsError) -> Refused {
        refused_to(&self.app, &self.actor, &self.asked, self.wants_json, error)
    }

    /// An answer of the caller's own kind.
    pub(crate) fn error(&self, status: StatusCode, message: impl Into<String>) -> Refused {
        Refused { status, message: message.into(), wants_json: self.wants_json, further: None }
    }
}

fn refused(wants_json: bool, error: &OpsError) -> Refused {
    let status = error.status();
    let message = match error {
        // What exactly is wrong with the database is for the log.
        OpsError::Store(inner) => {
            tracing::error!(error = %inner, "the database could not be used");
            "the Console's database cannot be used; try again later, and name the request id to whoever runs it".to_owned()
        }
        other => other.to_string(),
    };
    let further = match error {
        OpsError::Limited { wait_s } | OpsError::Busy { wait_s } => Some((RETRY_AFTER, HeaderValue::from(*wait_s))),
        _ => None,
    };
    Refused { status, message, wants_json, further }
}
