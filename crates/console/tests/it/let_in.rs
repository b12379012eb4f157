//! The original v2 command line, for somebody without a security key: it can ask one and nothing else, so it asks for a session without an
//! answer, is told of a page in its error, and gets the session when somebody answered there (ADR 0024).

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convox_testkit::go::{Reply, connect, read_reply};

use crate::limits::{Browser, add_totp, half_way, with_password};
use crate::{Door, Recorder};

/// A released v2 client.
const V2: &str = "20240312153045";
const URL: &str = "https://console.example.com";

/// One request, as `stdsdk` of v2 sends it: the session that it keeps, an empty one before it has any; `POST` with an empty body.
fn ask(door: &Door, key: &str, version: &str, method: &str, path: &str, session: &str) -> Reply {
    let mut stream = connect(&door.console.host, &door.console.fingerprint).unwrap();
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    write!(
        stream,
        "{method} {path}? HTTP/1.1\r\nHost: {}\r\nUser-Agent: convox.go/{version}\r\n{length}Accept: */*\r\nAuthorization: Basic {}\r\n\
         Content-Type: application/octet-stream\r\nRack: main\r\nSession: {session}\r\nVersion: {version}\r\nAccept-Encoding: gzip\r\n\r\n",
        door.console.host,
        STANDARD.encode(format!("convox:{key}"))
    )
    .unwrap();
    stream.flush().unwrap();
    read_reply(&mut stream, false).unwrap()
}

/// The page that an error names, as a path.
#[track_caller]
fn page_in(reply: &Reply) -> String {
    let text = reply.text();
    assert_eq!((reply.status, reply.header("www-authenticate")), (403, None), "{text}");
    assert!(!text.contains('%'), "the client takes its error for a format: {text}");
    let rest = text.split_once(&format!("open {URL}")).unwrap_or_else(|| panic!("no page in {text}")).1;
    rest.split_once(' ').unwrap().0.to_owned()
}

#[test]
fn an_answer_on_the_page_lets_the_next_command_in() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::open_with(&["--url", URL]);
    door.add_rack("acme", "main", &rack);
    with_password(&door, "admin@example.com");
    let mut person = half_way(&door.console);
    let (totp, added_ms) = add_totp(&mut person);
    door.admin(&["org", "require-factor", "acme"]);
    let demand = |version: &str| ask(&door, &door.key, version, "GET", "/racks", "").header("www-authenticate").map(str::to_owned);
    // Who can open a browser by themselves are asked as before.
    for version in ["3.18.9", "dev", ""] {
        assert_eq!(demand(version).as_deref(), Some(r#"Session path="/session" token="true""#), "{version}");
    }
    for path in ["/racks", "/apps", "/system"] {
        let reply = ask(&door, &door.key, V2, "GET", path, "");
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some(r#"Session path="/session" token="false""#)), "{path}");
    }

    // What the client does on such a demand, and shows as its error.
    let page = page_in(&ask(&door, &door.key, V2, "POST", "/session", ""));
    let (path, id) = page.split_once("?id=").unwrap();
    page_in(&ask(&door, &door.key, V2, "POST", "/session", ""));
    // Nobody is signed in there.
    let mut browser = Browser::at(&door.console);
    let shown = browser.get(&page).text();
    let last4 = &door.key[door.key.len() - 4..];
    assert!(shown.contains("admin@example.com") && shown.contains(last4) && shown.contains("127.0.0.1"), "{shown}");
    let wrong = browser.post(path, &format!("id={id}&code=000000"));
    assert!(wrong.status == 403 && wrong.text().contains("That code is wrong"), "{} {}", wrong.status, wrong.text());
    assert!(!door.events(|event| event["action"] == "CliSignIn" && event["rule"] == "wrong-code").is_empty());
    assert_eq!(browser.post(path, "id=nonsense&code=000000").status, 404);
    let code = totp.code_at(added_ms + 30_000);
    let done = browser.post(path, &format!("id={id}&code={code}"));
    assert!(done.status == 200 && done.text().contains("is let in"), "{}", done.text());

    let answered = door.events(|event| event["action"] == "CliLetIn");
    let of = |field: &str| answered[0][field].as_str().unwrap();
    assert_eq!(
        (answered.len(), of("actor"), of("key_last4"), of("peer"), of("rule")),
        (1, "admin@example.com", last4, "127.0.0.1", "totp")
    );

    // For that key alone, and no other client's: who can bring an answer has to.
    let other = door.admin(&["key", "create", "--email", "admin@example.com", "--name", "other"]);
    page_in(&ask(&door, other["api_key"].as_str().unwrap(), V2, "POST", "/session", ""));
    assert_eq!(ask(&door, &door.key, "3.18.9", "POST", "/session", "").status, 400);
    let made = ask(&door, &door.key, V2, "POST", "/session", "");
    assert_eq!(made.status, 200, "{}", made.text());
    let session = made.json()["id"].as_str().unwrap().to_owned();
    // At once, as the client sends its request again; and from its file from then on.
    assert_eq!(ask(&door, &door.key, V2, "GET", "/racks", &session).status, 200);
    assert_eq!(ask(&door, &door.key, V2, "GET", "/system", &session).json()["name"], "main", "through to the Rack");
    page_in(&ask(&door, &door.key, V2, "POST", "/session", &session));
    assert_eq!(browser.post(path, &format!("id={id}&code={code}")).status, 404, "it was for one time");
    let signed_in = door.events(|event| event["action"] == "CliSignIn" && event["rule"] == "totp");
    assert_eq!((signed_in.len(), signed_in[0]["actor"].as_str()), (1, Some("admin@example.com")));
    // It ends as every session of a command line does.
    door.admin(&["key", "revoke", &door.key_id_of("admin@example.com", "default")]);
    assert_eq!(ask(&door, &door.key, V2, "GET", "/racks", &session).status, 401);
}
