//! The second factor of command lines, as the unmodified v2 and v3 clients answer it (protocol 3.4 to 3.6): a security key asked by the client
//! itself, and the page that a browser shows.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convox_testkit::go::{Generation, GoClient, connect, form, read_reply};
use convox_testkit::{Reply, SecurityKey, Stack, eventually};

const BOTH: [Generation; 2] = [Generation::V2, Generation::V3];
/// What the Console is called; where it listens does not matter to a security key.
const URL: &str = "https://console.example.com";
const DEMAND: &str = r#"Session path="/session" token="true""#;

/// A browser's requests, with its one cookie.
struct Browser<'a> {
    stack: &'a Stack,
    cookie: String,
}

impl Browser<'_> {
    fn send(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
        let mut stream = connect(&self.stack.console.host, &self.stack.console.fingerprint).unwrap();
        let body = form(fields);
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nSec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Cookie: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.stack.console.host,
            self.cookie,
            body.len()
        )
        .unwrap();
        let reply = read_reply(&mut stream, false).unwrap();
        if let Some(cookie) = reply.header("set-cookie") {
            cookie.split(';').next().unwrap_or_default().clone_into(&mut self.cookie);
        }
        reply
    }

    fn get(&mut self, path: &str) -> String {
        self.send("GET", path, &[]).text()
    }
}

/// What a page's HTML holds between two texts, unescaped.
#[track_caller]
fn between(page: &str, start: &str, end: &str) -> String {
    let rest = page.split_once(start).unwrap_or_else(|| panic!("no {start} in {page}")).1;
    let text = rest.split_once(end).unwrap().0;
    text.replace("&#34;", "\"").replace("&quot;", "\"").replace("&#38;", "&").replace("&#43;", "+").replace("&#x3D;", "=")
}

/// An organization that requires a second factor, an administrator signed in to its pages, and their security key.
fn strict(stack: &Stack) -> (Browser<'_>, SecurityKey) {
    let made = stack.admin(&["user", "reset-link", "admin@example.com", "--url", URL]).unwrap();
    let code = made["link"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let mut browser = Browser { stack, cookie: String::new() };
    let done = browser.send(
        "POST",
        "/console/reset/finish",
        &[("code", &code), ("email", "admin@example.com"), ("password", "tall-vexed-otter-19")],
    );
    assert_eq!(done.status, 303, "{}", done.text());
    let mut key = SecurityKey::new().unwrap();
    let page = browser.get("/console/account/factors/passkey?kind=security-key");
    let options = serde_json::from_str(&between(&page, "data-options=\"", "\"")).unwrap();
    let id = between(&page, "name=\"id\" value=\"", "\"");
    let answer = key.added(&options, URL).unwrap();
    let fields = [("kind", "security-key"), ("id", &id), ("name", "blue"), ("answer", &answer)];
    let added = browser.send("POST", "/console/account/factors/passkey", &fields);
    assert!(added.status == 200 && added.text().contains("Your recovery codes"), "{}: {}", added.status, added.text());
    stack.admin(&["org", "require-factor", "acme"]).unwrap();
    (browser, key)
}

/// A client's request with the session that it keeps; both send an empty one before they have one.
fn get(client: &GoClient, path: &str, session: &str) -> Reply {
    let rack = client.rack.clone().unwrap_or_default();
    let mut stream = connect(&client.host, &client.fingerprint).unwrap();
    write!(
        stream,
        "GET {path}? HTTP/1.1\r\nHost: {}\r\nUser-Agent: convox.go/dev\r\nAccept: */*\r\nAuthorization: Basic {}\r\nRack: {rack}\r\n\
         Session: {session}\r\nVersion: dev\r\nAccept-Encoding: gzip\r\n\r\n",
        client.host,
        STANDARD.encode(format!("convox:{}", client.password))
    )
    .unwrap();
    read_reply(&mut stream, false).unwrap()
}

/// The client's POST of an answer.
fn post(client: &GoClient, challenge: &str, answer: &[u8]) -> Reply {
    client.send("POST", "/session", "", "application/octet-stream", &[("Challenge", challenge)], answer).unwrap()
}

#[test]
fn both_clients_are_let_in_by_a_security_key_as_each_asks_it() {
    let stack = Stack::start_with(&["--url", URL]).unwrap();
    let (mut browser, mut key) = strict(&stack);
    let mut sessions = HashMap::new();
    for generation in BOTH {
        let client = stack.go(generation);
        // login asks for nothing; every other request is answered with the demand, the one that precedes sockets too.
        assert_eq!(client.get("/auth", "").unwrap().status, 200);
        for path in ["/racks", "/apps", "/system", "/racks/acme/main"] {
            let reply = get(&client, path, "");
            assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some(DEMAND)), "{path}");
        }
        assert!(client.socket("/system/logs", &[]).unwrap().is_err_and(|reply| reply.status == 401), "never 101");

        let challenge = client.get("/session", "").unwrap();
        assert_eq!(challenge.status, 200, "{}", challenge.text());
        let id = challenge.header("challenge").unwrap().to_owned();
        let json = challenge.json();
        assert_eq!(json["publicKey"]["rpId"], "console.example.com");
        assert_eq!(json["publicKey"]["allowCredentials"].as_array().unwrap().len(), 1);
        let answer = if generation == Generation::V2 {
            key.answer_as_v2(&challenge.body).unwrap()
        } else {
            // The page that v3 opens shows who asks, and is good for this machine only.
            let token = form(&[("token", &STANDARD.encode(&challenge.body)), ("callback_url", "http://localhost:40123")]);
            let page = browser.get(&format!("/login/u2f?{token}"));
            assert!(page.contains("admin@example.com") && page.contains("data-back=\"http://localhost:40123\""), "{page}");
            key.answer_as_browser(&challenge.body, URL).unwrap()
        };
        let made = post(&client, &id, answer.as_bytes());
        assert_eq!(made.status, 200, "{}", made.text());
        let session = made.json()["id"].as_str().unwrap().to_owned();
        // At once, as the client sends its request again.
        let reply = get(&client, "/racks", &session);
        assert_eq!((reply.status, reply.json()[0]["name"].as_str()), (200, Some("main")));
        assert_eq!(get(&client, "/system", &session).json()["name"], "main", "through to the Rack");
        let again = post(&client, &id, answer.as_bytes());
        assert_eq!((again.status, again.header("www-authenticate")), (409, None), "an answer counts once, and asks for nothing");
        sessions.insert(generation == Generation::V2, session);
    }

    // A session goes with the key that it was made with, with no other, and is no key itself.
    let session = &sessions[&true];
    let other = stack.admin(&["key", "create", "--email", "admin@example.com", "--name", "other"]).unwrap();
    let mut client = stack.go(Generation::V3);
    let first = std::mem::replace(&mut client.password, other["api_key"].as_str().unwrap().to_owned());
    assert_eq!(get(&client, "/racks", session).status, 401);
    client.password.clone_from(session);
    assert_eq!(get(&client, "/racks", session).status, 401);
    client.password = first;
    for bad in ["x", &session[..session.len() - 1], &client.password.clone()] {
        assert_eq!(get(&client, "/racks", bad).status, 401);
    }

    // Open streams hear of its end; the other client's session goes on.
    let id = |page: &str| between(&between(page, "Command line with the key", "</li>"), "/console/account/devices/", "/sign-out");
    let mut streams = Vec::new();
    for session in sessions.values() {
        let mut with = client.clone();
        with.rack = None;
        let options = [("Follow", "true"), ("Rack", "acme/main"), ("Session", session.as_str())];
        streams.push(with.socket("/system/logs", &options).unwrap().ok().expect("101"));
    }
    let signed_out = id(&browser.get("/console/account"));
    assert_eq!(browser.send("POST", &format!("/console/account/devices/{signed_out}/sign-out"), &[]).status, 303);
    let alive = sessions.values().filter(|session| get(&client, "/racks", session).status == 200).count();
    assert_eq!(alive, 1);
    let page = browser.get("/console/account");
    browser.send("POST", &format!("/console/account/devices/{}/sign-out", id(&page)), &[]);
    for mut stream in streams {
        let (text, _) = stream.drain().unwrap();
        assert!(String::from_utf8_lossy(&text).contains("your second factor is needed again"), "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn an_authenticator_app_goes_on_when_the_data_key_of_people_is_rolled() {
    use convox_seal::{Secret, TotpSecret};
    let mut stack = Stack::start_with(&["--url", URL]).unwrap();
    let made = stack.admin(&["user", "reset-link", "admin@example.com", "--url", URL]).unwrap();
    let code = made["link"].as_str().unwrap().split_once('#').unwrap().1.to_owned();
    let mut browser = Browser { stack: &stack, cookie: String::new() };
    let fields = [("code", code.as_str()), ("email", "admin@example.com"), ("password", "tall-vexed-otter-19")];
    assert_eq!(browser.send("POST", "/console/reset/finish", &fields).status, 303);
    let page = browser.get("/console/account/factors/totp");
    let secret = TotpSecret::parse(&Secret::new(between(&page, "<code id=\"secret\">", "<").replace(' ', ""))).unwrap();
    let id = between(&page, "name=\"id\" value=\"", "\"");
    let now_ms = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    // The step before this one, so that each code below is of a step of its own, without waiting for the next.
    let added = browser.send("POST", "/console/account/factors/totp", &[("id", &id), ("code", &secret.code_at(now_ms() - 30_000))]);
    assert!(added.status == 200 && added.text().contains("Your recovery codes"), "{}: {}", added.status, added.text());
    let prove = |browser: &mut Browser<'_>, code: &str| {
        let reply = browser.send("POST", "/console/prove", &[("code", code), ("next", "/console/account")]);
        (reply.status, reply.text())
    };
    let cookie = browser.cookie.clone();

    let rolled = stack.admin(&["keys", "roll-data"]).unwrap();
    assert_eq!(rolled["resealed"], 2, "the Rack's password and the app's secret: {rolled}");
    let of_people = stack.admin(&["keys", "list"]).unwrap().as_array().unwrap().iter().find(|row| row["owner"] == "users").cloned();
    assert_eq!(of_people.map(|row| (row["version"].as_i64(), row["state"] == "active")), Some((Some(2), true)));
    let mut browser = Browser { stack: &stack, cookie };
    let now = secret.code_at(now_ms());
    let (status, words) = prove(&mut browser, &now);
    assert_eq!(status, 303, "{words}");
    assert_ne!(prove(&mut browser, &now).0, 303, "each code counts once, as before");
    // After a restart there is no other key to open it with.
    let cookie = browser.cookie.clone();
    stack.console.restart().unwrap();
    let mut browser = Browser { stack: &stack, cookie };
    let (status, words) = prove(&mut browser, &secret.code_at(now_ms() + 30_000));
    assert_eq!(status, 303, "{words}");
}

#[test]
fn what_is_no_answer_lets_nobody_in() {
    let stack = Stack::start_with(&["--url", URL]).unwrap();
    let (_browser, mut key) = strict(&stack);
    let client = stack.go(Generation::V2);
    let ask = || {
        let reply = client.get("/session", "").unwrap();
        (reply.header("challenge").unwrap().to_owned(), reply.body)
    };
    // Made up, empty, another key's, another challenge's, another site's.
    let (id, challenge) = ask();
    assert_eq!(post(&client, &id, b"{}").status, 400);
    assert_eq!(post(&client, "", b"").status, 400);
    assert_eq!(post(&client, "x", b"{\"proof\":\"x\"}").status, 409);
    for answer in [
        SecurityKey::new().unwrap().answer_as_browser(&challenge, URL).unwrap(),
        key.answer_as_browser(&challenge, "https://evil.example").unwrap(),
        key.answer_as_browser(&challenge, "http://console.example.com").unwrap(),
        "{\"proof\":\"x\"}".to_owned(),
        "{\"code\":\"123456\"}".to_owned(),
        "{\"code\":\"0000-0000-0000-0000\"}".to_owned(),
    ] {
        // Each challenge is answered once, wrongly too.
        let (id, _) = ask();
        let reply = post(&client, &id, answer.as_bytes());
        assert_eq!((reply.status, reply.header("www-authenticate")), (403, None), "{answer}: {}", reply.text());
    }
    let right = key.answer_as_v2(&challenge).unwrap();
    assert_eq!(post(&client, &ask().0, right.as_bytes()).status, 403, "the answer to another challenge");
    // A copy of the key, whose counter is behind.
    let (id, challenge) = ask();
    assert_eq!(post(&client, &id, key.answer_as_v2(&challenge).unwrap().as_bytes()).status, 200);
    key.forget_counter();
    let (id, challenge) = ask();
    let reply = post(&client, &id, key.answer_as_v2(&challenge).unwrap().as_bytes());
    assert!(reply.status == 403 && reply.text().contains("may have been copied"), "{}", reply.text());
    // Somebody else's key asks, and answers with ours.
    let theirs = stack.member("eve@example.com", "developer").unwrap();
    let mut eve = stack.go(Generation::V2);
    eve.password = theirs;
    assert_eq!(eve.get("/session", "").unwrap().status, 409, "she has no factor");
    let (id, challenge) = ask();
    assert_eq!(post(&eve, &id, key.answer_as_v2(&challenge).unwrap().as_bytes()).status, 403);
    // A machine is asked for nothing.
    let deploy = stack.admin(&["key", "create", "--email", "admin@example.com", "--name", "ci", "--kind", "deploy"]).unwrap();
    let mut machine = stack.go(Generation::V3);
    deploy["api_key"].as_str().unwrap().clone_into(&mut machine.password);
    assert_eq!(machine.get("/system", "").unwrap().json()["name"], "main");
}

#[test]
fn a_session_ends_by_itself_and_with_its_key() {
    let stack = Stack::start_with(&["--url", URL, "--session-idle", "4s", "--session-longest", "60s"]).unwrap();
    let (_browser, mut key) = strict(&stack);
    let client = stack.go(Generation::V3);
    let mut open = || {
        let challenge = client.get("/session", "").unwrap();
        let answer = key.answer_as_v2(&challenge.body).unwrap();
        let made = post(&client, challenge.header("challenge").unwrap(), answer.as_bytes());
        made.json()["id"].as_str().unwrap_or_else(|| panic!("{}", made.text())).to_owned()
    };
    let session = open();
    // In use it goes on, far beyond its idle time; then nobody uses it.
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(9) {
        assert_eq!(get(&client, "/racks", &session).status, 200, "after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(500));
    }
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(get(&client, "/racks", &session).header("www-authenticate"), Some(DEMAND));
    // Revoked with the key that it goes with, on the spot.
    let session = open();
    assert_eq!(get(&client, "/racks", &session).status, 200);
    let keys = stack.admin(&["key", "list", "--email", "admin@example.com"]).unwrap();
    let id = keys.as_array().unwrap().iter().find(|key| key["name"] == "default").unwrap()["id"].as_str().unwrap().to_owned();
    stack.admin(&["key", "revoke", &id]).unwrap();
    let reply = get(&client, "/racks", &session);
    assert_eq!((reply.status, reply.header("www-authenticate")), (401, None));
    assert!(eventually(Duration::from_secs(5), || (!stack.console.log().contains(&session)).then_some(())).is_some(), "in no log");
}
