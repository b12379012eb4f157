//! What every page carries, and what is refused before a handler sees it: anything that another site made a browser send.
//!
//! A browser says with `Sec-Fetch-Site` who made it send a request, and with `Origin` on every form. A page of another site can leave
//! neither away. The cookie does not travel with other sites' forms and fetches either (`SameSite`); this is the second lock.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use convox_model::Event;
use http::header::{HOST, ORIGIN};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::page::{self, Bare, Written};
use super::person::{Entrant, is_by_hand, with_session};
use crate::meters::Decision;
use crate::state::App;

/// Nothing inline, nothing from elsewhere, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'";
const CARRIED: [(&str, &str); 7] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("strict-transport-security", "max-age=31536000"),
];

pub(super) async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let person = <Entrant as FromRequestParts<Arc<App>>>::from_request_parts(&mut parts, &app).await.ok();
    let (method, target) = (parts.method.clone(), parts.uri.path().to_owned());
    let is_page = method == Method::GET && is_by_hand(&parts.headers);
    let request = Request::from_parts(parts, body);
    let path = request.uri().path();
    let is_setup = path == "/console/setup" || path.starts_with("/console/assets/");
    let mut response = if is_foreign(request.method(), request.headers()) {
        page::error(StatusCode::FORBIDDEN, "another site made your browser send this, so nothing was done; open the Console itself")
            .into_response()
    } else if !is_setup && !app.snapshots.now().has_users() && path.starts_with("/console") {
        Redirect::to("/console/setup").into_response()
    } else if is_page
        && let Some(person) = person.as_ref().filter(|person| person.known().is_due)
        && let Some(renewed) = renewed(&app, person, request.uri()).await
    {
        renewed
    } else {
        next.run(request).await
    };
    // Whoever is signed in keeps the navigation when something went wrong.
    if let Some(person) = &person
        && let Some(Bare(fault)) = response.extensions_mut().remove::<Bare>()
    {
        response = fault.framed(person.frame(entry(&target))).into_response();
    }
    // What somebody had no right to is written down, as for the API.
    if let Some(person) = person
        && response.status() == StatusCode::FORBIDDEN
        && response.extensions().get::<Written>().is_none()
    {
        app.meters.decided(None, Decision::Refused);
        let event = || {
            let event = person.actor.event(&*app.clock, "Refused", target);
            Event { method: method.to_string(), decision: "refused".to_owned(), ..event }
        };
        app.audit.refused(event, app.clock.now_ms());
    }
    let headers = response.headers_mut();
    for (name, value) in CARRIED {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What they may do changed since they signed in: the same page under a new session id, and the old one is dead. `None` if that cannot be
/// now; the next page tries again.
async fn renewed(app: &App, person: &Entrant, uri: &Uri) -> Option<Response> {
    match app.ops().renew_session(&person.actor, &person.browser).await {
        Ok(renewed) => {
            app.settle(renewed.seq).await;
            let again = Redirect::to(uri.path_and_query().map_or("/console", PathAndQuery::as_str)).into_response();
            Some(with_session(again, &renewed.session, app.rules.longest_ms))
        }
        Err(error) => {
            tracing::warn!(%error, "a session could not be given a new id");
            None
        }
    }
}

/// The entry of the navigation that a path belongs to.
fn entry(path: &str) -> &'static str {
    match path.split('/').nth(2) {
        Some("racks" | "installs") => "racks",
        Some("organizations" | "invitation") => "organizations",
        Some("activity" | "activity.json" | "activity.csv") => "activity",
        Some("account") => "account",
        _ => "",
    }
}

/// Whether something else than our own pages, or the person at the browser, made it send this.
fn is_foreign(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_safe = [Method::GET, Method::HEAD].contains(method);
    match text("sec-fetch-site") {
        Some("same-origin") => false,
        // Typed, or from a bookmark.
        Some("none") => !is_safe,
        // A link on another site may lead here; nothing else of it may.
        Some(_) => !(is_safe && text("sec-fetch-mode") == Some("navigate") && text("sec-fetch-dest").is_none_or(|dest| dest == "document")),
        // Older browsers send at least the origin with a form.
        None if is_safe => text(ORIGIN.as_str()).is_some_and(|origin| !is_own(origin, headers)),
        None => text(ORIGIN.as_str()).is_none_or(|origin| !is_own(origin, headers)),
    }
}

fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    !host.is_empty() && origin.strip_prefix("https://").is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(method: &Method, pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("console.example.com"));
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        is_foreign(method, &headers)
    }

    #[test]
    fn our_own_pages_and_the_person_at_the_browser_are_heard() {
        assert!(!foreign(&Method::POST, &[("sec-fetch-site", "same-origin")]));
        assert!(!foreign(&Method::POST, &[("origin", "https://console.example.com")]));
        assert!(!foreign(&Method::GET, &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")]));
        assert!(!foreign(&Method::GET, &[]));
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert!(!foreign(&Method::GET, &link));
    }

    #[test]
    fn what_another_site_sends_is_not() {
        for site in ["cross-site", "same-site"] {
            assert!(
                foreign(&Method::POST, &[("sec-fetch-site", site), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]),
                "{site}"
            );
            for (mode, dest) in [("cors", "empty"), ("no-cors", "image"), ("websocket", "websocket"), ("navigate", "iframe")] {
                assert!(
                    foreign(&Method::GET, &[("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)]),
                    "{site} {mode}"
                );
            }
        }
        for origin in ["https://evil.example", "null", "http://console.example.com", "https://console.example.com.evil.example"] {
            assert!(foreign(&Method::POST, &[("origin", origin)]), "{origin}");
            assert!(foreign(&Method::GET, &[("origin", origin)]), "{origin}");
        }
        assert!(foreign(&Method::POST, &[]), "a browser says where a form comes from");
        assert!(foreign(&Method::POST, &[("sec-fetch-site", "none")]));
    }
}
