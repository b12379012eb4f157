//! What is it for: a Rack, or the Console itself? And which Rack does it name?

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use convox_model::Principal;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::credentials::RackEntry;
use crate::snapshot::Snapshot;

const RACK: HeaderName = HeaderName::from_static("rack");
const SESSION: HeaderName = HeaderName::from_static("session");

/// Paths that the Console answers itself and never forwards, even when a Rack is named (protocol 5.1).
pub(crate) fn is_own(path: &str) -> bool {
    const WHOLE: [&str; 11] = [
        "/",
        "/.well-known/oauth-authorization-server",
        "/console",
        "/auth",
        "/racks",
        "/machines",
        "/session",
        "/setup",
        "/health",
        "/ready",
        "/favicon.ico",
    ];
    const BELOW: [&str; 7] = ["/console/", "/racks/", "/machines/", "/organizations/", "/login/", "/api/v1/", "/session/"];
    WHOLE.contains(&path) || BELOW.iter().any(|prefix| path.starts_with(prefix))
}

/// A header that decides about the request and is there twice. Which of the two counts? Servers differ, so neither does.
pub(crate) fn doubled(headers: &HeaderMap) -> Option<HeaderName> {
    [AUTHORIZATION, RACK, SESSION].into_iter().find(|name| headers.get_all(name).iter().nth(1).is_some())
}

/// The name of the Rack that a request names: header `Rack`, or a user name that is a Rack in base64.
pub(crate) fn rack_name<'r>(headers: &'r HeaderMap, user: &'r str) -> Option<Cow<'r, str>> {
    if let Some(name) = headers.get(RACK).and_then(|value| value.to_str().ok()).map(str::trim).filter(|name| !name.is_empty()) {
        return Some(Cow::Borrowed(name));
    }
    if user.is_empty() || user == "convox" || user == "jwt" {
        return None;
    }
    // Clients percent-encode the user name: `=` and `+` stay, `/` does not.
    let user = user.replace("%2F", "/").replace("%2B", "+").replace("%3D", "=");
    [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD]
        .into_iter()
        .find_map(|form| form.decode(&user).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()))
        .map(Cow::Owned)
}

/// Why no Rack was found. `Display` is what the caller is told; a Rack that they may not know of does not exist.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRack {
    #[error("no such rack: {0}; `convox racks` lists those that you may use")]
    Unknown(String),
    #[error("several racks are named {0}: {names}; give the whole name", names = .1.join(", "))]
    Ambiguous(String, Vec<String>),
}

impl NoRack {
    /// For whoever asked for `name`.
    pub(crate) fn unknown(name: &str) -> Self {
        Self::Unknown(shown(name))
    }
}

/// The Rack that `name` means to `principal`: the whole name, or the only `*/name` among those that they may see.
pub(crate) fn find_rack<'s>(snapshot: &'s Snapshot, principal: &Principal, name: &str) -> Result<&'s Arc<RackEntry>, NoRack> {
    let visible = |rack: &&Arc<RackEntry>| principal.sees(&rack.row.org, &rack.row.id);
    if let Some(rack) = snapshot.rack(name).filter(visible) {
        return Ok(rack);
    }
    if name.is_empty() || name.contains('/') {
        return Err(NoRack::unknown(name));
    }
    let mut named = principal.grants.iter().filter_map(|grant| snapshot.rack_in(&grant.org, name)).filter(visible);
    match (named.next(), named.next()) {
        (None, _) => Err(NoRack::unknown(name)),
        (Some(only), None) => Ok(only),
        (Some(one), Some(another)) => {
            let mut names: Vec<String> = [one, another].into_iter().chain(named).map(|rack| rack.row.path()).collect();
            names.sort_unstable();
            Err(NoRack::Ambiguous(shown(name), names))
        }
    }
}

/// A caller's text in an answer: short and plain.
fn shown(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic() && *c != '%').take(80).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_the_console_serves_is_never_a_racks() {
        for own in [
            "/",
            "/.well-known/oauth-authorization-server",
            "/auth",
            "/racks",
            "/racks/acme/main",
            "/racks/acme/main/sync",
            "/machines/m1/apps",
            "/api/v1/keys",
            "/session",
            "/login/u2f",
            "/health",
            "/ready",
        ] {
            assert!(is_own(own), "{own}");
        }
        for racks in ["/apps", "/system", "/check", "/racksx", "/authx", "/api/v10", "/kubernetes/api", "//", "/apps/../racks"] {
            assert!(!is_own(racks), "{racks}");
        }
    }

    #[test]
    fn a_rack_is_named_by_header_or_by_user() {
        let none = HeaderMap::new();
        assert_eq!(rack_name(&headers(&[("rack", " acme/main ")]), "convox").as_deref(), Some("acme/main"));
        assert_eq!(rack_name(&none, "YWNtZS9tYWlu").as_deref(), Some("acme/main"));
        for form in ["YWI/", "YWI_", "YWI%2F"] {
            assert_eq!(rack_name(&none, form).as_deref(), Some("ab?"), "{form}");
        }
        assert_eq!(rack_name(&headers(&[("rack", "x/y")]), "YWNtZS9tYWlu").as_deref(), Some("x/y"), "the header wins");
        for user in ["", "convox", "jwt", "!", "é"] {
            assert_eq!(rack_name(&none, user), None, "{user}");
        }
        assert_eq!(rack_name(&headers(&[("rack", "")]), "convox"), None);
    }

    #[test]
    fn headers_that_decide_may_not_be_there_twice() {
        assert_eq!(doubled(&headers(&[("rack", "a/b"), ("authorization", "x"), ("accept", "1"), ("accept", "2")])), None);
        assert_eq!(doubled(&headers(&[("rack", "a/b"), ("rack", "a/b")])), Some(RACK));
        assert_eq!(doubled(&headers(&[("authorization", "x"), ("authorization", "y")])), Some(AUTHORIZATION));
    }

    #[test]
    fn a_callers_text_comes_back_short_and_plain() {
        assert_eq!(
            NoRack::unknown(&format!("a b%s\u{1b}[31m\r\n\"{}", "x".repeat(200))),
            NoRack::Unknown(format!("abs[31m\"{}", "x".repeat(72)))
        );
    }
}
