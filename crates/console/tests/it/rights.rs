//! Every effect for every role, sockets included; and what those learn who have no right to know (T9, T12, T15).

use convox_testkit::go::{GoClient, Reply};

use crate::console::Database;
use crate::{Door, Recorder};

/// Method and path; `WS` for a WebSocket. The least role that may: `d`, `o`, `a`.
const SAMPLE: &[(&str, &str, char)] = &[
    // read
    ("GET", "/apps", 'd'),
    ("GET", "/apps/web", 'd'),
    ("GET", "/system", 'd'),
    ("HEAD", "/apps/web/objects/k", 'd'),
    ("OPTIONS", "/resources", 'd'),
    ("WS", "/apps/web/logs", 'd'),
    ("WS", "/system/logs", 'd'),
    // read-secret
    ("GET", "/apps/web/releases/R1", 'd'),
    ("GET", "/apps/web/processes/p1/files", 'd'),
    ("GET", "/apps/web/resources/db/data", 'd'),
    ("GET", "/registries", 'o'),
    // write
    ("POST", "/apps", 'd'),
    ("DELETE", "/apps/web", 'd'),
    ("POST", "/apps/web/releases/R1/promote", 'd'),
    ("POST", "/registries", 'o'),
    ("DELETE", "/instances/i1", 'o'),
    // A GET that changes state.
    ("GET", "/system/sync/whitelist/instances/ip", 'o'),
    // shell
    ("WS", "/apps/web/processes/p1/exec", 'd'),
    ("WS", "/apps/web/resources/db/console", 'd'),
    ("POST", "/apps/web/services/web/processes", 'd'),
    ("WS", "/instances/i1/shell", 'o'),
    ("WS", "/proxy/10.0.0.1/5432", 'o'),
    // admin
    ("PUT", "/system", 'a'),
    ("POST", "/system/jwt/token", 'a'),
    ("PUT", "/system/jwt/rotate", 'a'),
    ("POST", "/instances/keyroll", 'a'),
    ("DELETE", "/apps/web/budget", 'a'),
    ("GET", "/kubernetes/api/v1/secrets", 'a'),
    ("GET", "/v2/_catalog", 'a'),
];

/// Sends one; gives the status. A WebSocket that opens is 101.
fn send(client: &GoClient, method: &str, path: &str) -> u16 {
    if method == "WS" {
        return match client.socket(path, &[]).unwrap() {
            Ok(_) => 101,
            Err(reply) => reply.status,
        };
    }
    client.raw(method, path, &[], b"").unwrap().status
}

/// What is the same for everybody who may not know.
fn without_id(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let headers = reply.headers.iter().filter(|(name, _)| name != "request-id" && name != "date").cloned().collect();
    (reply.status, headers, reply.text())
}

#[test]
fn each_role_may_what_the_table_says_and_the_rest_never_reaches_the_rack() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let roles = [
        ('d', door.person("dev@example.com", Some(("acme", "developer")))),
        ('o', door.person("ops@example.com", Some(("acme", "operator")))),
        ('a', door.key.clone()),
    ];
    let rank = |role: char| "doa".find(role);
    for (role, key) in &roles {
        let client = door.client(key, "acme/main");
        for (method, path, least) in SAMPLE {
            let before = rack.hits().len();
            let status = send(&client, method, path);
            let forwarded = rack.hits().len() - before;
            let allowed = rank(*role) >= rank(*least);
            let expected = match (allowed, *method) {
                (true, "WS") => 101,
                (true, _) => 200,
                (false, _) => 403,
            };
            assert_eq!((status, forwarded), (expected, usize::from(allowed)), "{role} {method} {path}");
        }
    }
}

#[test]
fn without_a_valid_key_nothing_is_ever_opened_or_forwarded() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let revoked = door.person("revoked@example.com", Some(("acme", "operator")));
    door.admin(&["key", "revoke", &door.key_id("revoked@example.com")]);
    let expired = door.person("expired@example.com", Some(("acme", "operator")));
    let database = Database::open(&door);
    database.run("UPDATE keys SET expires_ms = 1 WHERE user_id = (SELECT id FROM users WHERE email = 'expired@example.com'); UPDATE feed SET seq = seq + 1");
    let before = rack.connections();
    let mut mistyped = door.key.clone();
    mistyped.replace_range(10..11, if mistyped.as_bytes()[10] == b'x' { "y" } else { "x" });
    for (key, words) in [
        ("", "no API key"),
        ("nonsense", "invalid credentials"),
        ("rackPassword1", "invalid credentials"),
        (mistyped.as_str(), "mistyped"),
        (revoked.as_str(), "was revoked"),
        (expired.as_str(), "cli token is expired"),
    ] {
        let client = door.client(key, "acme/main");
        // A change of the database by hand takes the server a moment to see.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(3);
        while client.get("/auth", "").unwrap().status != 401 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        for (method, path, _) in SAMPLE {
            assert_eq!(send(&client, method, path), 401, "{key:?} {method} {path}");
        }
        let reply = client.get("/apps", "").unwrap();
        assert!(reply.text().contains(words), "{key:?}: {}", reply.text());
        assert!(!reply.text().contains('%'));
    }
    // Nor does an unknown path say anything before somebody is known.
    assert_eq!(door.client("", "acme/main").get("/no/such/route", "").unwrap().status, 401);
    assert!(rack.hits().is_empty(), "{:?}", rack.hits());
    assert_eq!(rack.connections(), before, "not even a connection");
}

#[test]
fn a_rack_of_another_organization_does_not_exist() {
    let (rack, theirs) = (Recorder::start("rackPassword1"), Recorder::start("rackPassword2"));
    let door = Door::with_rack(&rack);
    door.admin(&["org", "create", "other"]);
    door.add_rack("other", "secret", &theirs);
    let nobody = door.person("nobody@example.com", None);
    for key in [&door.key, &nobody] {
        for (method, path, _) in SAMPLE {
            if *method == "WS" {
                assert_eq!(send(&door.client(key, "other/secret"), method, path), 404, "{path}");
                continue;
            }
            let known = door.client(key, "other/secret").raw(method, path, &[], b"").unwrap();
            let unknown = door.client(key, "other/absent").raw(method, path, &[], b"").unwrap();
            assert_eq!(known.status, 404, "{method} {path}");
            let (status, headers, text) = without_id(&unknown);
            assert_eq!(without_id(&known), (status, headers, text.replace("absent", "secret")), "{method} {path}");
        }
        // Nor by its short name, which is nobody else's.
        assert_eq!(door.client(key, "secret").get("/apps", "").unwrap().status, 404);
        // Nor what it serves: an unknown route is no other answer.
        assert_eq!(door.client(key, "other/secret").get("/no/such/route", "").unwrap().status, 404);
    }
    assert!(theirs.hits().is_empty(), "{:?}", theirs.hits());
}

#[test]
fn a_rack_is_found_by_its_whole_name_or_the_only_one_of_that_ending() {
    let (one, two) = (Recorder::start("rackPassword1"), Recorder::start("rackPassword2"));
    let door = Door::with_rack(&one);
    let reply = door.client(&door.key, "main").get("/apps/short", "").unwrap();
    assert_eq!((reply.status, one.hits_of("/apps/short?").len()), (200, 1));
    for piece in ["mai", "acme", "ain", "acme/", "/main", "ACME/MAIN", "acme/mai"] {
        assert_eq!(door.client(&door.key, piece).get("/apps", "").unwrap().status, 404, "{piece}");
    }
    // In base64 as the user name, in both alphabets.
    use base64::Engine as _;
    for name in
        [base64::engine::general_purpose::STANDARD.encode("acme/main"), base64::engine::general_purpose::URL_SAFE.encode("acme/main")]
    {
        let client = GoClient { rack: None, user: name, ..door.client(&door.key, "") };
        assert_eq!(client.get("/apps", "").unwrap().status, 200);
    }
    let client = GoClient { rack: None, ..door.client(&door.key, "") };
    let reply = client.get("/apps", "").unwrap();
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("no rack selected"), "{}", reply.text());

    door.admin(&["org", "create", "beta"]);
    door.admin(&["member", "add", "admin@example.com", "--org", "beta", "--role", "developer"]);
    door.add_rack("beta", "main", &two);
    let reply = door.client(&door.key, "main").get("/apps", "").unwrap();
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("acme/main") && reply.text().contains("beta/main"), "{}", reply.text());
    assert!(two.hits().is_empty());
}

#[test]
fn what_the_console_serves_itself_is_never_forwarded() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let client = door.client(&door.key, "acme/main");
    assert_eq!(client.get("/auth", "").unwrap().status, 200);
    assert_eq!(client.get("/racks", "").unwrap().json()[0]["name"], "main");
    for path in ["/racks/acme/main", "/racks/acme/main/sync", "/machines", "/machines/m1/apps", "/api/v1/me", "/", "/health", "/login/u2f"]
    {
        let _ = client.get(path, "").unwrap();
    }
    // Unknown to the table, as they are written: another server might read some of them as a known route.
    for odd in [
        "/nope",
        "//apps",
        "/apps/",
        "/apps/../system",
        "/apps/./web",
        "/apps/web/../../system",
        "/apps/%2e%2e/system",
        "/apps%2fweb",
        "/apps/web%2Fenv",
        "/apps/web%5c",
        "/apps/web%00",
        "/apps\\web",
        "/APPS",
        "/racks/../apps",
        "/apps/web;x/logs/../processes",
    ] {
        let reply = client.get(odd, "").unwrap();
        assert!(matches!(reply.status, 400 | 404), "{odd}: {} {}", reply.status, reply.text());
        if reply.status == 404 && !odd.starts_with("/racks") {
            assert_eq!(reply.text(), "", "{odd}: clients take an empty 404 for a route that is not there");
        }
    }
    assert!(rack.hits().is_empty(), "{:?}", rack.hits());
    let events = door.events(|event| event["action"] == "UnknownRoute" && event["path"] == "/nope");
    assert_eq!((events.len(), &events[0]["decision"]), (1, &"refused".into()));
}
