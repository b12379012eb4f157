//! What asks for a WebSocket, decided in one place for gate and relay alike.

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Version, header};

/// True if this request opens a WebSocket if the upstream agrees: `GET`, HTTP/1.1, `Connection` names `upgrade`, and
/// `Upgrade` is `websocket` and nothing else. The gate's view of a request must come from here, since the relay's does.
pub fn is_websocket(head: &Parts) -> bool {
    let mut upgrades = head.headers.get_all(header::UPGRADE).iter();
    let Some(first) = upgrades.next() else { return false };
    first.as_bytes().eq_ignore_ascii_case(b"websocket")
        && upgrades.next().is_none()
        && head.method == Method::GET
        && head.version == Version::HTTP_11
        && names(&head.headers, header::CONNECTION, "upgrade")
}

/// True if the comma-separated lists under `name` hold `token`.
pub(crate) fn names(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .any(|value| value.as_bytes().split(|&byte| byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes())))
}
