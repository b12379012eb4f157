//! What is it for: a Rack, or the Console itself? And which Rack does it name?

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use convox_model::Principal;
use convox_wire::racks::{NoMatch, resolve};
use http::HeaderMap;

use crate::credentials::RackEntry;
use crate::snapshot::Snapshot;
use std::sync::Arc;

/// Paths that the Console answers itself and never forwards, even when a Rack is named (protocol 5.1).
pub(crate) fn is_own(path: &str) -> bool {
    const WHOLE: [&str; 7] = ["/", "/auth", "/racks", "/machines", "/setup", "/health", "/favicon.ico"];
    const BELOW: [&str; 6] = ["/racks/", "/machines/", "/organizations/", "/login/", "/api/v1/", "/session/"];
    WHOLE.contains(&path) || BELOW.iter().any(|prefix| path.starts_with(prefix))
}

/// The name of the Rack that a request names: header `Rack`, or a user name that is a Rack in base64.
pub(crate) fn rack_name(headers: &HeaderMap, user: &str) -> Option<String> {
    if let Some(name) = headers.get("rack").and_then(|value| value.to_str().ok()).map(str::trim).filter(|name| !name.is_empty()) {
        return Some(name.to_owned());
    }
    if user.is_empty() || user == "convox" || user == "jwt" {
        return None;
    }
    // Clients percent-encode the user name: `=` stays, `/` and `+` may not.
    let user = user.replace("%2F", "/").replace("%2B", "+").replace("%3D", "=");
    [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD]
        .into_iter()
        .find_map(|form| form.decode(&user).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Why no Rack was found. `Display` is what the caller is told; a Rack that they may not know of does not exist.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRack {
    #[error("no such rack: {0}; `convox racks` lists those that you may use")]
    Unknown(String),
    #[error("several racks are named {0}: {names}; give the whole name", names = .1.join(", "))]
    Ambiguous(String, Vec<String>),
}

/// The Rack that `name` means to `principal`: the whole name, or the only `*/name` among those that they may see.
pub(crate) fn find_rack<'s>(snapshot: &'s Snapshot, principal: &Principal, name: &str) -> Result<&'s Arc<RackEntry>, NoRack> {
    let visible = |rack: &&Arc<RackEntry>| principal.role_in(&rack.row.org).is_some();
    if let Some(rack) = snapshot.rack(name).filter(visible) {
        return Ok(rack);
    }
    let unknown = || NoRack::Unknown(shown(name));
    let candidates: Vec<(String, &Arc<RackEntry>)> =
        snapshot.racks_named(name).iter().filter(visible).map(|rack| (rack.row.path(), rack)).collect();
    match resolve(name, candidates.iter().map(|(path, _)| path.as_str())) {
        Ok(path) => candidates.iter().find(|(candidate, _)| candidate == path).map(|(_, rack)| *rack).ok_or_else(unknown),
        Err(NoMatch::Ambiguous(names)) => Err(NoRack::Ambiguous(shown(name), names)),
        Err(_) => Err(unknown()),
    }
}

/// A caller's text in an answer: short and plain.
fn shown(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic() && *c != '%').take(80).collect()
}
