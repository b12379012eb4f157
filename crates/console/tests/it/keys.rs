//! Keys that are limited, and keys that are rolled: by people, by machines, and with the Console killed in between.

use std::time::{Duration, Instant};

use convox_testkit::eventually;
use convox_testkit::go::{Message, Socket};
use serde_json::{Value, json};

use crate::{Door, Recorder};

fn status(door: &Door, key: &str, rack: &str, method: &str, path: &str) -> (u16, String) {
    let reply = door.client(key, rack).raw(method, path, &[], b"").unwrap();
    (reply.status, reply.text())
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}")).to_owned()
}

#[test]
fn a_deploy_key_does_what_its_scope_says_and_a_refusal_names_the_rule() {
    let (main, other) = (Recorder::start("rackPassword1"), Recorder::start("rackPassword2"));
    let door = Door::with_rack(&main);
    door.add_rack("acme", "other", &other);
    door.admin(&["org", "create", "elsewhere"]);
    let wanted = json!({ "name": "ci", "preset": "ci-legacy", "racks": ["main"], "apps": ["shop"] });
    let (code, made) = door.api(&door.key, "POST", "/organizations/acme/keys", &wanted);
    assert_eq!(code, 200, "{made}");
    let key = text(&made, "api_key");
    assert!(key.starts_with("cxd_"));

    // What CI does.
    for (method, path) in
        [("POST", "/apps/shop/builds"), ("GET", "/apps/shop/builds"), ("POST", "/apps/shop/releases/r1/promote"), ("GET", "/system")]
    {
        assert_eq!(status(&door, &key, "acme/main", method, path).0, 200, "{method} {path}");
    }
    // What it does not, and why.
    for (method, path, rule) in [
        ("DELETE", "/apps/shop", "key-scope-command"),
        ("GET", "/apps/shop/releases/r1", "key-scope-command"),
        ("GET", "/apps/shop/resources", "key-scope-command"),
        ("POST", "/apps/blog/builds", "key-scope-app"),
        ("GET", "/apps", "key-scope-app"),
        ("POST", "/system/jwt/token", "key-scope-app"),
    ] {
        let (code, words) = status(&door, &key, "acme/main", method, path);
        assert!(code == 403 && words.contains(rule), "{method} {path}: {code} {words}");
        assert!(door.events(|event| event["path"] == path && event["rule"] == rule && event["decision"] == "refused").len() == 1, "{path}");
    }
    let (code, words) = status(&door, &key, "acme/main", "DELETE", "/apps/shop");
    assert!(code == 403 && words.contains("build, builds") && words.contains("AppDelete"), "{words}");
    // Another Rack does not exist for it, as one that nobody has.
    let [hidden, unknown] = ["acme/other", "acme/nope"].map(|rack| status(&door, &key, rack, "GET", "/system"));
    assert_eq!((hidden.0, hidden.1.replace("other", "nope")), unknown);
    assert_eq!(unknown.0, 404);
    assert!(other.hits().is_empty());
    let racks = door.client(&key, "acme/main").get("/racks", "").unwrap();
    assert_eq!(racks.json().as_array().unwrap().len(), 1, "{}", racks.text());
    // A shell through `run` is one of its commands; one on the host is not.
    let client = door.client(&key, "acme/main");
    assert!(client.socket("/apps/shop/processes/p1/exec", &[]).unwrap().is_ok());
    assert!(client.socket("/instances/i1/shell", &[]).unwrap().is_err_and(|reply| reply.status == 403));

    // The Console itself is not for it, to look at or to change, but for itself.
    for (method, path) in [
        ("GET", "/organizations"),
        ("GET", "/organizations/acme/members"),
        ("GET", "/organizations/acme/audit"),
        ("GET", "/organizations/acme/keys"),
        ("POST", "/organizations/acme/racks/main/probe"),
        ("POST", "/keys/regenerate"),
        ("DELETE", "/organizations/acme/racks/main"),
    ] {
        let (code, words) = door.api(&key, method, path, &Value::Null);
        assert!(code == 403 && words.to_string().contains("deploy key"), "{method} {path}: {code} {words}");
    }
    assert_eq!(door.api(&key, "POST", "/keys", &json!({ "name": "child" })).0, 403, "a key makes none that is more than itself");
    let (code, listed) = door.api(&key, "GET", "/keys", &Value::Null);
    assert!(code == 200 && listed.as_array().unwrap().len() == 1 && listed[0]["name"] == "ci", "{listed}");
    let (_, own) = door.api(&key, "GET", "/keys/current", &Value::Null);
    assert_eq!(own["scope"], "acme/main; apps shop; ci-legacy");
    let (_, me) = door.api(&key, "GET", "/me", &Value::Null);
    assert_eq!(me["organizations"].as_array().unwrap().len(), 1);
    // Whoever logs in with it is told what it is.
    let who = door.client(&key, "acme/main").get("/auth", "").unwrap().json();
    assert_eq!(who["key"], "deploy key ci: acme/main; apps shop; ci-legacy");
    // No page opens with it.
    let page = door.raw(format!("GET /console/racks HTTP/1.1\r\nHost: {}\r\nCookie: __Host-convox={key}\r\n\r\n", door.console.host));
    assert_eq!(page.status, 303);
}

#[test]
fn only_administrators_make_deploy_keys_and_nobody_makes_more_than_they_are() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let bob = door.person("bob@example.com", Some(("acme", "developer")));
    door.person("eve@example.com", Some(("acme", "administrator")));
    let (code, words) = door.api(&bob, "POST", "/organizations/acme/keys", &json!({ "name": "ci" }));
    assert!(code == 403 && words.to_string().contains("administrator"), "{words}");
    assert_eq!(door.api(&bob, "GET", "/organizations/acme/keys", &Value::Null).0, 403);
    // A developer narrows a key of their own; effects that their role does not have stay theirs to wish for only.
    let wanted = json!({ "name": "wide", "organization": "acme", "may": ["read", "write", "admin"] });
    let (code, made) = door.api(&bob, "POST", "/keys", &wanted);
    assert_eq!(code, 200, "{made}");
    let wide = text(&made, "api_key");
    assert_eq!(status(&door, &wide, "acme/main", "DELETE", "/apps/shop").0, 200);
    let (code, words) = status(&door, &wide, "acme/main", "DELETE", "/instances/i1");
    assert!(code == 403 && words.contains("needs the role operator"), "{words}");
    assert_eq!(status(&door, &wide, "acme/main", "POST", "/system/jwt/token").0, 403);
    let (code, words) = door.api(&door.key, "POST", "/organizations/acme/keys", &json!({ "name": "root", "may": ["admin"] }));
    assert!(code == 400 && words.to_string().contains("makes no credentials"), "{words}");
    for (wanted, words) in [
        (json!({ "name": "x", "networks": ["10.1.2.3/8"] }), "10.0.0.0/8"),
        (json!({ "name": "x", "may": ["fly"] }), "read-secret"),
        (json!({ "name": "x", "preset": "none" }), "ci-legacy"),
        (json!({ "name": "x", "racks": ["nope"] }), "no such rack"),
        (json!({ "name": "x", "apps": ["a/b"] }), "no app"),
        (json!({ "name": "x", "hours": 3 }), "unknown field"),
    ] {
        let (code, answer) = door.api(&door.key, "POST", "/organizations/acme/keys", &wanted);
        assert!(code / 100 == 4 && answer.to_string().contains(words), "{wanted}: {code} {answer}");
    }
    // What an administrator's key may goes when the administrator does, at once.
    let (_, made) = door.api(&door.key, "POST", "/organizations/acme/keys", &json!({ "name": "ops", "may": ["read", "write"] }));
    let ops = text(&made, "api_key");
    assert_eq!(status(&door, &ops, "acme/main", "DELETE", "/instances/i1").0, 200);
    assert_eq!(status(&door, &ops, "acme/main", "PUT", "/system").0, 403, "what holds for a whole Rack is no deploy key's");
    door.admin(&["member", "role", "admin@example.com", "--org", "acme", "--role", "developer"]);
    assert_eq!(status(&door, &ops, "acme/main", "DELETE", "/instances/i1").0, 403);
    door.admin(&["member", "remove", "admin@example.com", "--org", "acme"]);
    assert_eq!(status(&door, &ops, "acme/main", "GET", "/system").0, 401);
}

#[test]
fn a_key_is_good_in_its_networks_only_and_only_a_listed_proxy_says_where_somebody_is() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let wanted = |networks: &[&str]| json!({ "name": format!("n{}", networks.len()), "networks": networks });
    let make = |door: &Door, networks: &[&str]| text(&door.api(&door.key, "POST", "/keys", &wanted(networks)).1, "api_key");
    let far = make(&door, &["192.0.2.0/24"]);
    let near = make(&door, &["192.0.2.0/24", "127.0.0.0/8"]);
    assert_eq!(status(&door, &near, "acme/main", "GET", "/system").0, 200);
    let (code, words) = status(&door, &far, "acme/main", "GET", "/system");
    assert!(code == 403 && words.contains("127.0.0.1") && !words.contains("192.0.2"), "{words}");
    assert_eq!(door.api(&far, "GET", "/me", &Value::Null).0, 403);
    let refused = |door: &Door| {
        door.events_now(|event| event["rule"] == "key-scope-network" && event["actor"] == "admin@example.com")
            .iter()
            .map(|event| text(event, "peer"))
            .collect::<Vec<_>>()
    };
    assert!(eventually(Duration::from_secs(5), || (refused(&door) == ["127.0.0.1", "127.0.0.1"]).then_some(())).is_some());
    // Nobody is believed unless they were listed.
    let spoofed = |door: &Door, key: &str, named: &str| {
        door.raw(door.head(
            "GET /system",
            key,
            "acme/main",
            &format!("X-Forwarded-For: {named}\r\nForwarded: for={named}\r\nX-Real-IP: {named}\r\n"),
        ))
        .status
    };
    assert_eq!(spoofed(&door, &far, "192.0.2.7"), 403);

    let rack = Recorder::start("rackPassword1");
    let door = Door::open_with(&["--trusted-proxy", "127.0.0.1"]);
    door.add_rack("acme", "main", &rack);
    let far = make(&door, &["192.0.2.0/24"]);
    assert_eq!(spoofed(&door, &far, "192.0.2.7"), 200);
    assert_eq!(spoofed(&door, &far, "192.0.2.7, 198.51.100.1"), 403, "what the caller wrote before the proxy does not count");
    assert_eq!(spoofed(&door, &far, "nonsense"), 403);
    assert!(eventually(Duration::from_secs(5), || (refused(&door) == ["127.0.0.1", "198.51.100.1"]).then_some(())).is_some());
}

fn shell(door: &Door, key: &str) -> Socket {
    match door.client(key, "acme/main").socket("/apps/web/processes/p1/exec", &[]).unwrap() {
        Ok(socket) => socket,
        Err(reply) => panic!("a shell opens: {} {}", reply.status, reply.text()),
    }
}

#[track_caller]
fn is_cut(mut shell: Socket, since: Instant) {
    loop {
        if let Message::Close(reason) = shell.receive().unwrap() {
            assert!(reason.is_some_and(|(code, why)| code == 1008 && (why.contains("revoked") || why.contains("expired"))));
            assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
            return;
        }
    }
}

#[test]
fn a_roll_in_two_steps_survives_kill_9_between_them_and_ends_the_old_key_with_its_streams() {
    let rack = Recorder::start("rackPassword1");
    let mut door = Door::with_rack(&rack);
    let old = door.person("ada@example.com", Some(("acme", "developer")));
    let works = |door: &Door, key: &str| status(door, key, "acme/main", "GET", "/system").0 == 200;
    // Killed after the first step: the old key is what it was. The answer is lost, and the next roll leaves nothing of it.
    let (_, lost) = door.api(&old, "POST", "/keys/roll", &Value::Null);
    door.console.restart().unwrap();
    assert!(works(&door, &old) && works(&door, &text(&lost, "api_key")));
    let (code, made) = door.api(&old, "POST", "/keys/roll", &Value::Null);
    assert_eq!(code, 200, "{made}");
    let new = text(&made, "api_key");
    assert!(!works(&door, &text(&lost, "api_key")) && works(&door, &old) && works(&door, &new));
    let (_, listed) = door.api(&old, "GET", "/keys", &Value::Null);
    assert_eq!(listed.as_array().unwrap().iter().map(|key| text(key, "state")).collect::<Vec<_>>(), ["active", "pending"]);
    // Killed before the last step: whoever kept the new key finishes.
    door.console.restart().unwrap();
    assert!(works(&door, &old) && works(&door, &new));
    let open = shell(&door, &old);
    assert_eq!(door.api(&new, "POST", "/keys/roll/finish", &Value::Null).0, 200);
    let answered = Instant::now();
    assert!(!works(&door, &old), "dead when it is answered");
    is_cut(open, answered);
    door.console.restart().unwrap();
    assert!(!works(&door, &old) && works(&door, &new));
    assert_eq!(door.api(&new, "POST", "/keys/roll/finish", &Value::Null).0, 200, "asking again changes nothing");
    let (_, listed) = door.api(&new, "GET", "/keys", &Value::Null);
    assert_eq!((listed.as_array().unwrap().len(), text(&listed[0], "name")), (1, "test".to_owned()));
}

#[test]
fn an_overlap_keeps_the_old_key_until_its_end_and_no_longer() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let (_, made) =
        door.api(&door.key, "POST", "/organizations/acme/keys", &json!({ "name": "ci", "may": ["read", "shell"], "expires_in_hours": 48 }));
    let (old, id) = (text(&made, "api_key"), text(&made, "id"));
    let path = format!("/organizations/acme/keys/{id}/roll");
    assert_eq!(door.api(&door.key, "POST", &path, &json!({ "overlap_seconds": 3_000_000 })).0, 400);
    let (code, rolled) = door.api(&door.key, "POST", &path, &json!({ "overlap_seconds": 2 }));
    assert_eq!(code, 200, "{rolled}");
    let begun = Instant::now();
    let new = text(&rolled, "api_key");
    let works = |key: &str| status(&door, key, "acme/main", "GET", "/system").0 == 200;
    assert!(works(&old) && works(&new));
    let (_, listed) = door.api(&door.key, "GET", "/organizations/acme/keys", &Value::Null);
    let states: Vec<_> = listed.as_array().unwrap().iter().map(|key| (text(key, "state"), text(key, "name"), key["may"].clone())).collect();
    assert_eq!(
        states,
        [
            ("rolled".to_owned(), "ci".to_owned(), json!(["read", "shell"])),
            ("active".to_owned(), "ci".to_owned(), json!(["read", "shell"]))
        ]
    );
    let mut open = shell(&door, &old);
    open.text(b"x").unwrap();
    assert!(eventually(Duration::from_secs(5), || (!works(&old)).then_some(())).is_some());
    assert!(begun.elapsed() > Duration::from_millis(1500), "not before its end: {:?}", begun.elapsed());
    is_cut(open, Instant::now());
    assert!(works(&new));
    // Revoking what goes by a name ends all of it.
    let (_, rolled) =
        door.api(&door.key, "POST", &format!("/organizations/acme/keys/{}/roll", text(&rolled, "id")), &json!({ "overlap_seconds": 600 }));
    let newest = text(&rolled, "api_key");
    assert!(works(&new) && works(&newest));
    assert_eq!(door.api(&door.key, "DELETE", &format!("/organizations/acme/keys/{}", text(&rolled, "id")), &Value::Null).0, 200);
    assert!(!works(&new) && !works(&newest));
}

/// A request over HTTP/2 with a body whose length is not said: status and answer.
fn over_http2(door: &Door, key: &str, path: &str, body: &'static str) -> (u16, Value) {
    use http_body_util::BodyExt as _;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = (*convox_tls::client_config(&convox_tls::Trust::Pinned(door.console.fingerprint)).unwrap()).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = tokio::net::TcpStream::connect(&door.console.host).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let stream = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let frames =
            futures_util::stream::iter([Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(hyper::body::Bytes::from(body)))]);
        let request = http::Request::post(format!("https://{}{path}", door.console.host))
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(http_body_util::StreamBody::new(frames))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    })
}

#[test]
fn an_overlap_is_kept_however_the_length_of_the_wish_is_said() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let works = |key: &str| status(&door, key, "acme/main", "GET", "/system").0 == 200;
    let body = r#"{"overlap_seconds":600}"#;
    let (_, made) = door.api(&door.key, "POST", "/keys", &json!({ "name": "ci" }));
    let (first, id) = (text(&made, "api_key"), text(&made, "id"));
    // In pieces, as a program does that makes its body while it sends it.
    let (begin, rest) = body.split_at(7);
    let further = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    let head = door.head(&format!("POST /api/v1/keys/{id}/roll"), &door.key, "acme/main", further);
    let reply = door.raw(format!("{head}{:x}\r\n{begin}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n", begin.len(), rest.len()));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let rolled = reply.json();
    let second = text(&rolled, "api_key");
    assert!(works(&first) && works(&second), "the old one is good until the end of the overlap");
    let (code, rolled) = over_http2(&door, &door.key, &format!("/api/v1/keys/{}/roll", text(&rolled, "id")), body);
    assert_eq!(code, 200, "{rolled}");
    let third = text(&rolled, "api_key");
    assert!(works(&second) && works(&third));
    // Without one, and with one that is none.
    let (code, wrong) = over_http2(&door, &door.key, &format!("/api/v1/keys/{}/roll", text(&rolled, "id")), r#"{"overlap_seconds":"#);
    assert_eq!(code, 400, "{wrong}");
    assert!(works(&third), "what is not understood rolls nothing");
    let (code, rolled) = over_http2(&door, &door.key, &format!("/api/v1/keys/{}/roll", text(&rolled, "id")), "");
    assert_eq!(code, 200, "{rolled}");
    assert!(!works(&third) && works(&text(&rolled, "api_key")));
}

#[test]
fn a_key_rolls_itself_into_nothing_more_and_nothing_longer() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let wanted = json!({ "name": "ci", "preset": "deploy-only", "racks": ["main"], "expires_in_hours": 24, "networks": ["127.0.0.0/8"] });
    let (_, made) = door.api(&door.key, "POST", "/organizations/acme/keys", &wanted);
    let old = text(&made, "api_key");
    let (_, before) = door.api(&old, "GET", "/keys/current", &Value::Null);
    let (code, rolled) = door.api(&old, "POST", "/keys/roll", &Value::Null);
    assert_eq!(code, 200, "{rolled}");
    let new = text(&rolled, "api_key");
    assert_eq!(door.api(&new, "POST", "/keys/roll/finish", &Value::Null).0, 200);
    let (_, after) = door.api(&new, "GET", "/keys/current", &Value::Null);
    for field in ["name", "kind", "expires", "scope", "organization", "racks", "may", "networks"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_eq!(status(&door, &old, "acme/main", "GET", "/system").0, 401);
    // A whole key that was approved for a day cannot make itself last longer either.
    let (_, made) = door.api(&door.key, "POST", "/keys", &json!({ "name": "day", "expires_in_hours": 24 }));
    let (code, rolled) = door.api(&text(&made, "api_key"), "POST", "/keys/roll", &Value::Null);
    assert_eq!((code, &rolled["expires"]), (200, &made["expires"]), "{rolled}");
    let day = text(&rolled, "api_key");
    assert_eq!(door.api(&day, "POST", "/keys/roll", &Value::Null).0, 409, "one roll at a time");
    assert_eq!(door.api(&day, "POST", "/keys/roll/finish", &Value::Null).0, 200);
    assert_eq!(door.api(&day, "GET", "/keys/current", &Value::Null).1["expires"], made["expires"]);
    // Others are not its own to roll or revoke, and do not exist for it.
    let other = door.key_id("admin@example.com");
    for (method, path) in [("POST", format!("/keys/{other}/roll")), ("DELETE", format!("/keys/{other}"))] {
        assert_eq!(door.api(&new, method, &path, &Value::Null).0, 404, "{method} {path}");
    }
    // It may end itself.
    assert_eq!(door.api(&new, "DELETE", &format!("/keys/{}", text(&after, "id")), &Value::Null).0, 200);
    assert_eq!(status(&door, &new, "acme/main", "GET", "/system").0, 401);
}

#[test]
fn what_becomes_of_an_organizations_key_is_in_its_log_whichever_way_it_is_done() {
    let door = Door::open();
    let made = |name: &str| {
        let wanted = json!({ "name": name, "kind": "deploy", "organization": "acme" });
        let (status, made) = door.api(&door.key, "POST", "/keys", &wanted);
        assert_eq!(status, 200, "{made}");
        made["id"].as_str().unwrap().to_owned()
    };
    let (one, two) = (made("one"), made("two"));
    assert_eq!(door.api(&door.key, "DELETE", &format!("/keys/{one}"), &Value::Null).0, 200);
    assert_eq!(door.api(&door.key, "POST", &format!("/keys/{two}/roll"), &json!({})).0, 200);
    let log = door.admin(&["audit", "list", "--org", "acme", "--limit", "100"]);
    let actions: Vec<&str> = log.as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect();
    for action in ["KeyRevoke", "KeyRoll"] {
        assert!(actions.contains(&action), "{action}: {actions:?}");
    }
}
