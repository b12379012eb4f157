//! Starting, ending, and standing without a database.

use std::time::{Duration, Instant};

use convox_testkit::eventually;
use convox_testkit::go::{Message, connect};

use crate::console::Database;
use crate::{Door, Recorder};

#[test]
fn without_its_database_the_console_stops_trusting_its_memory() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let client = door.client(&door.key, "acme/main");
    let Ok(mut shell) = client.socket("/apps/web/processes/p1/exec", &[]).unwrap() else { panic!("opens") };
    let database = Database::open(&door);
    database.run("ALTER TABLE feed RENAME TO feed_away");
    let away = Instant::now();
    assert_eq!(client.get("/apps", "").unwrap().status, 200, "a moment without it is no reason");
    let refused = eventually(Duration::from_secs(10), || {
        let reply = client.get("/apps/late", "").unwrap();
        (reply.status == 503).then_some(reply)
    });
    let reply = refused.expect("it refuses in the end");
    assert!(away.elapsed() < Duration::from_secs(6), "{:?}", away.elapsed());
    assert!(reply.text().contains("database"), "{}", reply.text());
    // Nor is what is open trusted any longer.
    while let Message::Text(_) = shell.receive().unwrap() {}
    for path in ["/racks", "/auth", "/api/v1/me"] {
        assert_eq!(client.get(path, "").unwrap().status, 503, "{path}");
    }
    // Whoever spreads requests over servers is told so, and why.
    let ready = client.get("/ready", "").unwrap();
    assert!(ready.status == 503 && ready.text().contains("\"name\":\"database\",\"ok\":false"), "{}", ready.text());
    assert_eq!(client.get("/health", "").unwrap().status, 200);
    let before = rack.hits().len();
    assert_eq!(client.raw("DELETE", "/apps/web", &[], b"").unwrap().status, 503);
    assert_eq!(rack.hits().len(), before);

    database.run("ALTER TABLE feed_away RENAME TO feed");
    let back = eventually(Duration::from_secs(5), || (client.get("/apps", "").unwrap().status == 200).then_some(()));
    assert!(back.is_some(), "{}", door.console.log());
    assert_eq!(client.get("/ready", "").unwrap().status, 200);
}

#[test]
fn a_server_that_ends_lets_requests_finish_and_tells_shells() {
    let rack = Recorder::start("rackPassword1");
    let mut door = Door::with_rack(&rack);
    let client = door.client(&door.key, "acme/main");
    let Ok(mut shell) = client.socket("/apps/web/processes/p1/exec", &[]).unwrap() else { panic!("opens") };
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| client.get("/apps/slow", "").unwrap().status);
        assert!(eventually(Duration::from_secs(5), || (!rack.hits_of("/apps/slow?").is_empty()).then_some(())).is_some());
        let ending = scope.spawn(|| door.console.terminate());
        assert_eq!(slow.join().unwrap(), 200, "what is under way is finished");
        let (mut text, mut code) = (String::new(), None);
        while let Message::Text(bytes) = shell.receive().unwrap() {
            match convox_wire::exit::parse(&bytes) {
                Some(found) => code = Some(found),
                None => text.push_str(&String::from_utf8_lossy(&bytes)),
            }
        }
        assert!(text.contains("restarting") && code == Some(255), "{text} {code:?}");
        assert_eq!(ending.join().unwrap(), Some(0));
    });
    // Its end is in the log, although the server ended with it.
    let shells = door.events(|event| event["action"] == "ProcessExec");
    assert_eq!((shells.len(), &shells[0]["status"]), (1, &101.into()), "{shells:?}");
}

#[test]
fn a_hangup_serves_the_new_certificate_and_keeps_the_old_one_when_it_is_broken() {
    let door = Door::open();
    let (cert, key) = convox_proxy::tls_server::generate(&["127.0.0.1"]).unwrap();
    let expected = convox_proxy::TlsServer::from_pem(cert.as_bytes(), key.as_bytes()).unwrap().fingerprint();
    let hangup = || {
        let pid = rustix::process::Pid::from_raw(i32::try_from(door.console.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    };
    let tls = door.data().join("tls");
    std::fs::write(tls.join("cert.pem"), &cert).unwrap();
    hangup();
    assert!(eventually(Duration::from_secs(5), || door.console.log().contains("the new one cannot be used").then_some(())).is_some());
    assert!(connect_and_greet(&door, &door.console.fingerprint), "the old certificate is still served");
    std::fs::write(tls.join("key.pem"), &key).unwrap();
    hangup();
    assert!(eventually(Duration::from_secs(5), || connect_and_greet(&door, &expected).then_some(())).is_some());
}

fn connect_and_greet(door: &Door, fingerprint: &convox_tls::Fingerprint) -> bool {
    let mut stream = connect(&door.console.host, fingerprint).unwrap();
    std::io::Write::write_all(&mut stream, format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", door.console.host).as_bytes()).is_ok()
        && convox_testkit::go::read_reply(&mut stream, false).is_ok_and(|reply| reply.status == 200)
}

#[test]
fn what_the_process_holds_in_memory_is_not_dumped() {
    let door = Door::open();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", door.console.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    for entry in std::fs::read_dir(door.data()).unwrap().map(Result::unwrap) {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?} is its owner's", entry.path());
    }
}

#[test]
fn somebody_is_signed_out_everywhere_by_the_servers_command_line() {
    let door = Door::open();
    door.admin(&["user", "add", "bob@example.com"]);
    let database = Database::open(&door);
    let session = |name: &str| {
        format!(
            "INSERT INTO keys (id, user_id, kind, name, hash, last4, created_ms) SELECT '{name}', id, 'session', '{name}', x'{:064x}', 'abcd', 0 \
             FROM users WHERE email = 'bob@example.com';",
            name.len()
        )
    };
    database.run(format!("{}{}", session("s1"), session("s22")).leak());
    assert_eq!(door.admin(&["user", "sign-out", "bob@example.com"])["sessions"], 0);
    database.run("CREATE TABLE none (n INTEGER CHECK (n = 0)); INSERT INTO none SELECT COUNT(*) FROM keys WHERE kind = 'session'");
    assert_eq!(door.admin(&["audit", "list"])[0]["action"], "SignOutAll");
    assert!(door.try_admin(&["user", "sign-out", "nobody@example.com"]).unwrap_err().contains("no such user"));
}
