//! Whoever is out is out at once, open shells and logs included (T26).

use std::time::{Duration, Instant};

use convox_testkit::eventually;
use convox_testkit::go::{Message, Socket, connect};

use crate::console::Database;
use crate::{Door, Recorder};

/// What is promised.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);

fn open(door: &Door, key: &str, path: &str) -> Socket {
    match door.client(key, "acme/main").socket(path, &[]).unwrap() {
        Ok(socket) => socket,
        Err(reply) => panic!("{path} opens: {} {}", reply.status, reply.text()),
    }
}

/// Reads to the end: text, exit code, close code with reason.
pub(crate) fn end(mut socket: Socket) -> (String, Option<i32>, Option<(u16, String)>) {
    let (mut text, mut code) = (String::new(), None);
    loop {
        match socket.receive().unwrap() {
            Message::Text(bytes) => {
                let piece = String::from_utf8_lossy(&bytes).into_owned();
                match convox_wire::exit::parse(piece.as_bytes()) {
                    Some(found) => code = Some(found),
                    None => text.push_str(&piece),
                }
            }
            Message::End => {}
            Message::Close(reason) => return (text, code, reason),
        }
    }
}

/// A shell, a followed log and a download of one person are open; `out` puts the person out. All three end within a second of its answer.
#[track_caller]
fn all_ends(role: &str, out: impl FnOnce(&Door), words: &str) {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let key = door.person("ada@example.com", Some(("acme", role)));
    let mut shell = open(&door, &key, "/apps/web/processes/p1/exec");
    shell.text(b"hello").unwrap();
    assert_eq!(shell.receive().unwrap(), Message::Text(b"hello".to_vec()));
    let mut log = open(&door, &key, "/apps/web/logs");
    assert_eq!(log.receive().unwrap(), Message::Text(b"line\n".to_vec()));
    let mut download = connect(&door.console.host, &door.console.fingerprint).unwrap();
    std::io::Write::write_all(&mut download, door.head("GET /apps/web/builds/b1.tgz", &key, "acme/main", "").as_bytes()).unwrap();
    assert!(eventually(Duration::from_secs(5), || (rack.open() == 3).then_some(())).is_some(), "{} are open", rack.open());

    out(&door);
    let answered = Instant::now();
    let next = door.client(&key, "acme/main").get("/apps", "").unwrap();
    assert!(matches!(next.status, 401 | 403 | 404), "the next request is refused: {}", next.status);
    let (_, code, reason) = end(shell);
    assert_eq!(code, Some(255), "a cut shell is no success to those who read its exit code");
    let (close, why) = reason.expect("a close frame");
    assert!(close == 1008 && why.contains(words), "{close} {why}");
    let (text, code, _) = end(log);
    assert!(code.is_none() && text.contains("ERROR: ") && text.contains(words), "{text}");
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut download, &mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut download does not look whole");
    assert!(eventually(AT_ONCE, || (rack.open() == 0).then_some(())).is_some(), "{} are open", rack.open());
    assert!(answered.elapsed() < AT_ONCE, "{:?}", answered.elapsed());
    let ended =
        eventually(Duration::from_secs(5), || door.events_now(|event| event["action"] == "ProcessExec" && event["status"] == 101).pop());
    assert!(ended.is_some_and(|event| event["duration_ms"].as_u64() > Some(0)), "the log knows how the shell ended");
}

#[test]
fn a_revoked_key_ends_what_it_opened() {
    all_ends("developer", |door| drop(door.admin(&["key", "revoke", &door.key_id("ada@example.com")])), "revoked");
}

#[test]
fn a_key_made_anew_ends_what_the_old_one_opened() {
    all_ends(
        "developer",
        |door| {
            // Its name is that of the key that each user regenerates.
            Database::open(door)
                .run("UPDATE keys SET name = 'default' WHERE user_id = (SELECT id FROM users WHERE email = 'ada@example.com')");
            door.admin(&["key", "regenerate", "--email", "ada@example.com"]);
        },
        "revoked",
    );
}

#[test]
fn a_removed_member_loses_what_is_open() {
    // A member of nothing has no key any more.
    all_ends("operator", |door| drop(door.admin(&["member", "remove", "ada@example.com", "--org", "acme"])), "revoked");
}

#[test]
fn a_removed_member_keeps_what_other_organizations_gave_them() {
    let out = |door: &Door| {
        door.admin(&["org", "create", "elsewhere"]);
        door.admin(&["member", "add", "ada@example.com", "--org", "elsewhere", "--role", "developer"]);
        door.admin(&["member", "remove", "ada@example.com", "--org", "acme"]);
    };
    all_ends("operator", out, "access");
}

#[test]
fn a_removed_user_loses_what_is_open() {
    all_ends("operator", |door| drop(door.admin(&["user", "remove", "ada@example.com"])), "revoked");
}

#[test]
fn a_removed_rack_loses_its_callers() {
    all_ends("developer", |door| drop(door.admin(&["rack", "remove", "main", "--org", "acme"])), "removed");
}

#[test]
fn an_ended_key_ends_what_it_opened() {
    all_ends(
        "developer",
        |door| {
            let database = Database::open(door);
            database.run("UPDATE keys SET expires_ms = CAST(unixepoch('subsec') * 1000 AS INTEGER) + 400 WHERE user_id = (SELECT id FROM users WHERE email = 'ada@example.com'); UPDATE feed SET seq = seq + 1");
            let key = || door.client(&door.key, "acme/main").get("/auth", "").unwrap().status;
            // The moment itself is the clock's.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(550) {
                assert_eq!(key(), 200);
            }
        },
        "expired",
    );
}

#[test]
fn a_lower_role_ends_what_it_does_not_allow_and_nothing_else() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let key = door.person("ada@example.com", Some(("acme", "operator")));
    let instance = open(&door, &key, "/instances/i1/shell");
    let mut process = open(&door, &key, "/apps/web/processes/p1/exec");
    door.admin(&["member", "role", "ada@example.com", "--org", "acme", "--role", "developer"]);
    let answered = Instant::now();
    let (text, code, reason) = end(instance);
    assert!(answered.elapsed() < AT_ONCE);
    assert!(text.contains("your access to this rack has ended") && code == Some(255) && reason.is_some());
    process.text(b"still").unwrap();
    assert_eq!(process.receive().unwrap(), Message::Text(b"still".to_vec()));
    // Somebody else's change moves nobody.
    door.admin(&["org", "create", "other"]);
    process.text(b"here").unwrap();
    assert_eq!(process.receive().unwrap(), Message::Text(b"here".to_vec()));
}

#[test]
fn a_change_is_in_effect_when_it_is_answered() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let admin = door.client(&door.key, "acme/main");
    for round in 0..20 {
        let name = format!(r#"{{"name":"k{round}"}}"#);
        let made = admin.send("POST", "/api/v1/keys", "", "application/json", &[], name.as_bytes()).unwrap();
        assert_eq!(made.status, 200, "{}", made.text());
        let client = door.client(made.json()["api_key"].as_str().unwrap(), "acme/main");
        assert_eq!(client.get("/apps", "").unwrap().status, 200, "a new key works at once");
        let id = made.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(admin.raw("DELETE", &format!("/api/v1/keys/{id}"), &[], b"").unwrap().status, 200);
        assert_eq!(client.get("/apps/late", "").unwrap().status, 401, "a revoked one never again");
    }
    assert!(rack.hits_of("/apps/late?").is_empty());
}

#[test]
fn a_token_that_is_written_down_for_somebody_who_is_out_by_then_is_not_asked_for() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let token = |key: &str| door.client(key, "acme/main").form("POST", "/system/jwt/token", &[("role", "read")]).unwrap();
    let asked = || rack.hits().iter().filter(|hit| hit.line().starts_with("POST /system/jwt/token")).count();
    let made = door.admin(&["key", "create", "--email", "admin@example.com", "--name", "leaving"]);
    let key = made["api_key"].as_str().unwrap();
    assert_eq!((token(key).status, asked()), (200, 1));
    // The key goes with the very line of the log that its request waits for; and what it waits for next takes longer than a server needs to hear of
    // that.
    Database::open(&door).run(
        "CREATE VIEW slow AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000000) SELECT COUNT(*) AS c FROM n; \
         CREATE TABLE slept (c INTEGER); \
         CREATE TRIGGER gone AFTER INSERT ON audit WHEN NEW.event LIKE '%SystemJwtToken%' BEGIN \
         DELETE FROM keys WHERE name = 'leaving'; UPDATE feed SET seq = seq + 1; END; \
         CREATE TRIGGER late BEFORE INSERT ON rack_tokens BEGIN INSERT INTO slept SELECT c FROM slow; END",
    );
    let refused = token(key);
    assert_eq!((refused.status, asked()), (401, 1), "the Rack is not asked: {}", refused.text());
    assert!(refused.text().contains("revoked"), "{}", refused.text());
}
