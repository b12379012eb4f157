//! Who is signed in. The cookie is the only thing that counts here, and counts nowhere else.
//!
//! An [`Entrant`] has a good session; whoever owes a second factor is no more than that, and gets to the pages that ask for it. A [`Person`]
//! owes nothing, and gets to all others.

use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts, OriginalUri};
use axum::response::{IntoResponse, Response};
use convox_model::Principal;
use convox_seal::ApiKey;
use http::header::{COOKIE, SET_COOKIE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use super::page::{Frame, go};
use crate::api::anonymous;
use crate::authn::{self, Recognised, Verified};
use crate::ops::Actor;
use crate::ops::sessions::Browser;
use crate::snapshot::{About, KnownKey};
use crate::state::App;

/// `__Host-`: only this host over TLS, every path, no domain.
const COOKIE_NAME: &str = "__Host-convox";
/// Of a browser in which somebody signed in before.
const DEVICE_NAME: &str = "__Host-convox-device";

/// The one page that is nothing without its query: whoever signs in on the way there comes back with it.
pub(super) const AUTHORIZE: &str = "/console/authorize";

/// Somebody who is signed in.
pub(crate) struct Person {
    pub(crate) who: Verified,
    pub(crate) actor: Actor,
    pub(crate) browser: Browser,
    pub(crate) app: Arc<App>,
    /// How the browser calls this Console.
    pub(crate) host: String,
}

/// Somebody whose session is good, and who may still owe a second factor.
pub(crate) struct Entrant {
    who: Recognised,
    pub(crate) actor: Actor,
    pub(crate) browser: Browser,
    pub(crate) app: Arc<App>,
}

/// Somebody who is not, or not yet.
pub(crate) struct Visitor {
    pub(crate) actor: Actor,
    pub(crate) browser: Browser,
    /// How the browser calls this Console.
    pub(crate) host: String,
}

impl Person {
    pub(crate) fn principal(&self) -> &Principal {
        self.who.principal()
    }

    /// What pages show around their content. `here` is the entry of the navigation that is current.
    pub(crate) fn frame(&self, here: &'static str) -> Frame {
        Frame::of(&self.principal().email, here)
    }
}

impl Entrant {
    pub(crate) fn principal(&self) -> &Principal {
        self.who.principal()
    }

    /// Their session.
    pub(crate) fn known(&self) -> &KnownKey {
        self.who.known()
    }

    /// Whether they owe a second factor.
    pub(crate) fn is_pending(&self) -> bool {
        !self.app.snapshots.now().is_proven(self.known(), None, About::Everything, self.app.clock.now_ms())
    }

    /// What pages show around their content.
    pub(crate) fn frame(&self, here: &'static str) -> Frame {
        Frame::of(&self.principal().email, here).pending(self.is_pending())
    }
}

/// Where whoever is not let in goes first: a page of ours, and back after that.
pub(crate) struct NotIn(pub(super) String);

impl NotIn {
    fn sign_in(next: &str) -> Self {
        Self(format!("/console/sign-in?next={}", escaped(next)))
    }

    /// To prove who they are.
    pub(super) fn prove(next: &str) -> Self {
        Self(format!("/console/prove?next={}", escaped(next)))
    }
}

impl IntoResponse for NotIn {
    fn into_response(self) -> Response {
        go(&self.0)
    }
}

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _app: &Arc<App>) -> Result<Self, Self::Rejection> {
        let actor = anonymous(parts);
        let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default().to_owned();
        Ok(Self { browser: Browser { peer: actor.peer.clone(), agent: text(USER_AGENT) }, host: text(http::header::HOST), actor })
    }
}

/// Back to a page, never to the target of a form.
fn asked(parts: &Parts) -> String {
    let asked = parts.extensions.get::<OriginalUri>().filter(|_| parts.method == Method::GET);
    let back = asked.map_or("/console", |uri| match uri.path_and_query() {
        Some(whole) if uri.path() == AUTHORIZE => whole.as_str(),
        _ => uri.path(),
    });
    back.to_owned()
}

impl FromRequestParts<Arc<App>> for Entrant {
    type Rejection = NotIn;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, NotIn> {
        let found = cookie(&parts.headers).and_then(|text| authn::session(text, &app.snapshots.now(), &app.lookup, &*app.clock));
        let Ok(Visitor { mut actor, browser, .. }) = Visitor::from_request_parts(parts, app).await;
        let who = found.ok_or_else(|| NotIn::sign_in(&asked(parts)))?;
        if is_by_hand(&parts.headers) {
            who.known().note_use(app.clock.now_ms());
        }
        actor.principal = Some(who.principal().clone());
        actor.is_anonymous = false;
        Ok(Self { who, actor, browser, app: Arc::clone(app) })
    }
}

impl FromRequestParts<Arc<App>> for Person {
    type Rejection = NotIn;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, NotIn> {
        let Entrant { who, actor, browser, app } = <Entrant as FromRequestParts<Arc<App>>>::from_request_parts(parts, app).await?;
        let Ok(Visitor { host, .. }) = Visitor::from_request_parts(parts, &app).await;
        let who = who.proven_session(&app.snapshots.now(), &*app.clock).map_err(|pending| {
            if pending.known().has_factor { NotIn::prove(&asked(parts)) } else { NotIn("/console/account/factors".to_owned()) }
        })?;
        Ok(Self { who, actor, browser, app, host })
    }
}

impl OptionalFromRequestParts<Arc<App>> for Person {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Option<Self>, Self::Rejection> {
        Ok(<Self as FromRequestParts<Arc<App>>>::from_request_parts(parts, app).await.ok())
    }
}

/// Whether somebody opened a page or sent a form. What a page asks for by itself does not keep a session from ending that nobody uses.
pub(super) fn is_by_hand(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
}

impl OptionalFromRequestParts<Arc<App>> for Entrant {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Option<Self>, Self::Rejection> {
        Ok(<Self as FromRequestParts<Arc<App>>>::from_request_parts(parts, app).await.ok())
    }
}

/// A text as the value of a query.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The value of our cookie. Twice is as good as none: which of the two counts?
fn cookie(headers: &HeaderMap) -> Option<&str> {
    named(headers, COOKIE_NAME)
}

/// What the browser kept from an earlier sign-in: with it, wrong passwords of strangers do not keep its owner out.
pub(crate) fn device(headers: &HeaderMap) -> Option<String> {
    named(headers, DEVICE_NAME).map(str::to_owned)
}

fn named<'h>(headers: &'h HeaderMap, wanted: &str) -> Option<&'h str> {
    let mut found = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter_map(|(name, value)| (name == wanted).then_some(value));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Gives the browser its session, for as long as it stays open or the server lets it.
pub(crate) fn with_session(mut response: Response, session: &ApiKey, longest_ms: i64) -> Response {
    let text = format!("{COOKIE_NAME}={}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={}", session.reveal(), longest_ms / 1000);
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        response.headers_mut().append(SET_COOKIE, value);
    }
    response
}

/// Lets the browser be known again at the next sign-in.
pub(crate) fn with_device(mut response: Response, device: &str) -> Response {
    const YEAR_S: u32 = 365 * 24 * 3600;
    let text = format!("{DEVICE_NAME}={device}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={YEAR_S}");
    if let Ok(mut value) = HeaderValue::from_str(&text) {
        value.set_sensitive(true);
        response.headers_mut().append(SET_COOKIE, value);
    }
    response
}

/// Takes the browser's session away.
pub(crate) fn without_session(mut response: Response) -> Response {
    let text = HeaderValue::from_static("__Host-convox=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0");
    response.headers_mut().append(SET_COOKIE, text);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(COOKIE, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn one_cookie_of_ours_is_found_among_others() {
        assert_eq!(cookie(&headers(&["a=b; __Host-convox=cxw_1; c=d"])), Some("cxw_1"));
        assert_eq!(cookie(&headers(&["a=b", "__Host-convox=cxw_1"])), Some("cxw_1"));
    }

    #[test]
    fn none_or_two_are_nobody() {
        for values in [&[][..], &["a=b"], &["__host-convox=x"], &["__Host-convox"], &["__Host-convox=x; __Host-convox=y"]] {
            assert_eq!(cookie(&headers(values)), None, "{values:?}");
        }
        assert_eq!(cookie(&headers(&["__Host-convox=x", "__Host-convox=y"])), None);
    }
}
