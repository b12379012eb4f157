//! What of a message's head may pass, and what may not.

use http::header;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::fault::REQUEST_ID;
use crate::upstream::Upstream;
use crate::websocket::{self, is_websocket};

/// Why a request is refused whatever it asks for. The text is for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) &'static str);

/// Refuses heads that another server might read differently, and protocols that are not spoken here. Says whether the request
/// asks for an upgrade, of whatever kind.
pub(crate) fn check(head: &Parts) -> Result<bool, Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal("CONNECT is not served here"));
    }
    if head.uri.authority().is_some() || head.uri.scheme().is_some() {
        return Err(Refusal("the request line must name a path, not a whole address"));
    }
    let mut hosts = 0;
    let mut upgrade = false;
    for (name, value) in &head.headers {
        match *name {
            header::HOST => {
                hosts += 1;
                if !is_host(value.as_bytes()) {
                    return Err(Refusal("the Host header is not valid"));
                }
            }
            header::UPGRADE => upgrade = true,
            header::TRANSFER_ENCODING if !value.as_bytes().eq_ignore_ascii_case(b"chunked") => {
                return Err(Refusal("the transfer coding is not supported"));
            }
            _ if name.as_str().as_bytes().contains(&b'_') => {
                return Err(Refusal("header names with an underscore are refused, since other servers confuse them with a hyphen"));
            }
            _ => {}
        }
    }
    if hosts > 1 {
        return Err(Refusal("more than one Host header"));
    }
    if hosts == 0 && head.version == Version::HTTP_11 {
        return Err(Refusal("the Host header is missing"));
    }
    if upgrade && !is_websocket(head) {
        if websocket::names(&head.headers, header::UPGRADE, "websocket") {
            return Err(Refusal("a WebSocket is opened by a GET of HTTP/1.1 with Connection: Upgrade and one Upgrade: websocket"));
        }
        if websocket::names(&head.headers, header::UPGRADE, "h2c") {
            return Err(Refusal("HTTP/2 is spoken over TLS only"));
        }
    }
    Ok(upgrade)
}

fn is_host(value: &[u8]) -> bool {
    !value.is_empty()
        && value.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']' | b'_' | b'~'))
}

/// Names that a caller cannot send upstream: of the connection only, credentials, or claims about who is calling.
/// `Authorization` is not among them since it is always replaced.
fn is_stripped(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION
        | header::PROXY_AUTHENTICATE
        | header::PROXY_AUTHORIZATION
        | header::TE
        | header::TRAILER
        | header::TRANSFER_ENCODING
        | header::UPGRADE
        // Answered here, when the body is first asked for.
        | header::EXPECT
        | header::COOKIE
        | header::FORWARDED => true,
        _ => is_stripped_text(name.as_str()),
    }
}

/// The same for an app's own process: only what is of the connection, and claims about where the request came from.
fn is_stripped_for_app(name: &HeaderName) -> bool {
    match *name {
        header::COOKIE => false,
        _ => match name.as_str() {
            "session" | "rack" | "convox-actor" | "convox-tid" | "x-convox-actor" | "x-convox-tid" => false,
            text if text.starts_with("impersonate-") || text.contains("method") => false,
            _ => is_stripped(name),
        },
    }
}

fn is_stripped_text(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'c') => matches!(name, "convox-actor" | "convox-tid"),
        Some(b'h') => name == "http2-settings",
        Some(b'i') => name.starts_with("impersonate-"),
        Some(b'k') => name == "keep-alive",
        Some(b'p') => name == "proxy-connection",
        Some(b'r') => name == "rack",
        Some(b's') => name == "session",
        Some(b'x') => {
            name.starts_with("x-forwarded")
                || name.starts_with("x-original-")
                || name.starts_with("x-remote-")
                || matches!(
                    name,
                    "x-convox-actor"
                        | "x-convox-tid"
                        | "x-real-ip"
                        | "x-client-ip"
                        | "x-cluster-client-ip"
                        | "x-rewrite-url"
                        | "x-http-method"
                        | "x-http-method-override"
                        | "x-method-override"
                )
        }
        _ => false,
    }
}

/// Makes the caller's head the upstream's: takes out what may not pass, and puts `Host`, `Origin`, the credential and the
/// gate's additions in.
pub(crate) fn to_upstream(
    head: &mut Parts,
    upstream: &Upstream,
    mut authorization: HeaderValue,
    add: Vec<(HeaderName, HeaderValue)>,
    websocket: bool,
) {
    let headers = &mut head.headers;
    if upstream.transparent {
        strip(headers, is_stripped_for_app);
        if !headers.contains_key(header::HOST) {
            // A caller of HTTP/1.0 need not name one.
            headers.insert(header::HOST, upstream.authority.clone());
        }
    } else {
        strip(headers, is_stripped);
        if let Some(origin) = headers.get_mut(header::ORIGIN) {
            *origin = upstream.origin.clone();
        }
        headers.insert(header::HOST, upstream.authority.clone());
    }
    for (name, value) in add {
        headers.insert(name, value);
    }
    if !upstream.transparent {
        authorization.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, authorization);
    }
    if websocket {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    head.version = Version::HTTP_11;
}

/// Names of a reply that are of the upstream's connection only.
fn is_stripped_from_reply(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION | header::PROXY_AUTHENTICATE | header::TE | header::TRAILER | header::TRANSFER_ENCODING | header::UPGRADE => {
            true
        }
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    }
}

/// Makes the upstream's reply ours, and says whether it has a request id.
///
/// # Errors
/// The reply's framing is ambiguous, or of a kind that we cannot pass on.
pub(crate) fn to_caller(headers: &mut HeaderMap) -> Result<bool, &'static str> {
    let (mut lengths, mut codings, mut named, mut unwanted) = (0, 0, false, false);
    for (name, value) in &*headers {
        match *name {
            header::CONTENT_LENGTH => lengths += 1,
            header::TRANSFER_ENCODING => {
                codings += 1;
                if !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err("an unsupported transfer coding");
                }
            }
            _ => {}
        }
        named |= *name == REQUEST_ID;
        unwanted |= is_stripped_from_reply(name);
    }
    if lengths + codings > 1 {
        return Err("more than one length");
    }
    if unwanted {
        strip(headers, is_stripped_from_reply);
    }
    Ok(named)
}

/// Removes every name that a `Connection` header lists, and none that frames the message.
fn strip_named_by_connection(headers: &mut HeaderMap) {
    let Some(first) = headers.get(header::CONNECTION) else { return };
    let text = first.as_bytes();
    if headers.get_all(header::CONNECTION).iter().nth(1).is_none()
        && (text.eq_ignore_ascii_case(b"close") || text.eq_ignore_ascii_case(b"keep-alive"))
    {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Removes what `unwanted` says, and what `Connection` names. Looks first and removes after, since most messages carry few
/// such names.
fn strip(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    const AT_ONCE: usize = 8;
    loop {
        let mut found: [Option<HeaderName>; AT_ONCE] = Default::default();
        let (mut count, mut connection) = (0, false);
        for (name, slot) in headers.keys().filter(|name| unwanted(name)).zip(&mut found) {
            connection |= *name == header::CONNECTION;
            *slot = Some(name.clone());
            count += 1;
        }
        if connection {
            strip_named_by_connection(headers);
        }
        for name in found.into_iter().take(count).flatten() {
            headers.remove(name);
        }
        if count < AT_ONCE {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn upstream() -> Upstream {
        Upstream::new("rack", 1, "rack.example", 5443, None).unwrap()
    }

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/apps?");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn sent(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut head = head(headers);
        let actor = (HeaderName::from_static("convox-actor"), HeaderValue::from_static("ann@example.org"));
        to_upstream(&mut head, &upstream(), HeaderValue::from_static("Basic ours"), vec![actor], false);
        let mut sent: Vec<_> = head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        sent.sort();
        sent
    }

    fn ours() -> Vec<(String, String)> {
        [("authorization", "Basic ours"), ("convox-actor", "ann@example.org"), ("host", "rack.example:5443")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    #[test]
    fn claims_and_credentials_of_the_caller_do_not_pass() {
        let found = sent(&[
            ("host", "console"),
            ("authorization", "Basic theirs"),
            ("cookie", "a=b"),
            ("rack", "org/a"),
            ("session", "s"),
            ("convox-actor", "root"),
            ("x-convox-actor", "root"),
            ("convox-tid", "t"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-user", "root"),
            ("x-original-url", "/x"),
            ("forwarded", "for=127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("impersonate-user", "root"),
            ("x-http-method-override", "DELETE"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "x"),
            ("te", "trailers"),
            ("expect", "100-continue"),
        ]);
        assert_eq!(found, ours());
    }

    #[test]
    fn an_app_gets_what_its_caller_sent_it_and_no_claims_about_where_from() {
        let mut head = head(&[
            ("host", "web.shop.example.com"),
            ("authorization", "Bearer theirs"),
            ("cookie", "a=b"),
            ("origin", "https://web.shop.example.com"),
            ("session", "s"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
        ]);
        let from = (HeaderName::from_static("x-forwarded-for"), HeaderValue::from_static("192.0.2.7"));
        let app = Upstream::new("app", 1, "127.0.0.1", 20_000, None).unwrap().transparent();
        to_upstream(&mut head, &app, HeaderValue::from_static("unused"), vec![from], false);
        let mut sent: Vec<_> = head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        sent.sort_unstable();
        let expected = [
            ("authorization", "Bearer theirs"),
            ("cookie", "a=b"),
            ("host", "web.shop.example.com"),
            ("origin", "https://web.shop.example.com"),
            ("session", "s"),
            ("x-forwarded-for", "192.0.2.7"),
        ];
        assert_eq!(sent, expected);
    }

    #[test]
    fn connection_cannot_take_out_what_we_put_in() {
        let found = sent(&[
            ("host", "console"),
            ("connection", "close, authorization, rack, convox-actor, host, x-forwarded-for, session, command"),
            ("command", "ls"),
        ]);
        assert_eq!(found, ours());
    }

    #[test]
    fn everything_else_passes_unchanged() {
        let found = sent(&[
            ("host", "console"),
            ("command", "sh -c 'a b'"),
            ("environment", "A=1&B=%20"),
            ("accept", "*/*"),
            ("accept", "text/html"),
        ]);
        let mut expected = ours();
        for (name, value) in [("accept", "*/*"), ("accept", "text/html"), ("command", "sh -c 'a b'"), ("environment", "A=1&B=%20")] {
            expected.push((name.to_owned(), value.to_owned()));
        }
        expected.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn origin_follows_host_only_if_there_was_one() {
        assert!(sent(&[("origin", "https://console")]).contains(&("origin".to_owned(), "http://rack.example:5443".to_owned())));
        assert!(!sent(&[]).iter().any(|(name, _)| name == "origin"));
    }

    #[test]
    fn stripping_twice_changes_nothing() {
        let mut headers = HeaderMap::new();
        for number in 0..40 {
            headers.insert(HeaderName::try_from(format!("x-forwarded-{number}")).unwrap(), HeaderValue::from_static("x"));
            headers.insert(HeaderName::try_from(format!("x-kept-{number}")).unwrap(), HeaderValue::from_static("x"));
        }
        strip(&mut headers, is_stripped);
        assert_eq!(headers.len(), 40);
        let once = headers.clone();
        strip(&mut headers, is_stripped);
        assert_eq!(headers, once);
    }

    #[test]
    fn heads_that_others_may_read_differently_are_refused() {
        for headers in [
            &[][..],
            &[("host", "a"), ("host", "a")],
            &[("host", "")],
            &[("host", "a b")],
            &[("host", "a/b")],
            &[("host", "u@a")],
            &[("host", "a"), ("convox_actor", "root")],
            &[("host", "a"), ("rack_", "x")],
            &[("host", "a"), ("transfer-encoding", "gzip, chunked")],
            &[("host", "a"), ("upgrade", "h2c"), ("connection", "upgrade")],
            &[("host", "a"), ("upgrade", "websocket")],
            &[("host", "a"), ("upgrade", "websocket, h2c"), ("connection", "upgrade")],
            &[("host", "a"), ("upgrade", "websocket"), ("upgrade", "websocket"), ("connection", "upgrade")],
        ] {
            assert!(check(&head(headers)).is_err(), "{headers:?}");
        }
        assert_eq!(check(&head(&[("host", "a:5443"), ("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade")])), Ok(true));
        assert_eq!(check(&head(&[("host", "[::1]:5443"), ("upgrade", "other")])), Ok(true));
        assert_eq!(check(&head(&[("host", "a")])), Ok(false));
    }

    #[test]
    fn replies_with_two_lengths_are_not_passed_on() {
        let reply = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            to_caller(&mut headers).map(|_| headers.len())
        };
        assert!(reply(&[("transfer-encoding", "chunked"), ("content-length", "5")]).is_err());
        assert!(reply(&[("content-length", "5"), ("content-length", "5")]).is_err());
        assert!(reply(&[("transfer-encoding", "gzip")]).is_err());
        assert_eq!(reply(&[("connection", "close, x-hop"), ("x-hop", "1"), ("keep-alive", "x"), ("release-id", "R1")]), Ok(1));
    }
}
