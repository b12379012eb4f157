//! What is more than a plain read is in the log, durably, before a Rack hears of it (T34).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use convox_testkit::go::Message;
use convox_testkit::{SmallDisk, eventually};

use crate::console::Database;
use crate::{Door, Recorder};

#[test]
fn the_event_is_on_the_disk_when_the_rack_sees_the_request() {
    let rack = Recorder::start("rackPassword1");
    let door = Arc::new(Door::with_rack(&rack));
    // Asked by another process while the Rack has not answered yet.
    let found: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
    let (asking, kept) = (Arc::clone(&door), Arc::clone(&found));
    rack.look(move |hit| {
        let path = hit.line().split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
        let events =
            asking.events_now(|event| event["path"] == path.as_str() && event["decision"] == "allowed" && event["status"].is_null());
        kept.lock().unwrap().push((hit.line().to_owned(), events.len()));
    });
    let client = door.client(&door.key, "acme/main");
    for (method, path) in [
        ("DELETE", "/apps/web"),
        ("GET", "/apps/web/releases/R1"),
        ("POST", "/system/jwt/token"),
        ("POST", "/apps/web/services/web/processes"),
    ] {
        assert_eq!(client.raw(method, path, &[], b"").unwrap().status, 200, "{method} {path}");
    }
    assert!(client.socket("/apps/web/processes/p1/exec", &[]).unwrap().is_ok());
    let found = found.lock().unwrap();
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found.iter().all(|(_, events)| *events == 1), "{found:?}");
}

#[test]
fn while_the_log_cannot_be_written_nothing_but_reads_is_forwarded() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let client = door.client(&door.key, "acme/main");
    assert_eq!(client.get("/apps", "").unwrap().status, 200);
    let database = Database::open(&door);
    // Somebody holds the write lock.
    database.run("BEGIN IMMEDIATE");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let change = scope.spawn(|| client.raw("DELETE", "/apps/web", &[], b"").unwrap());
        let shell = scope.spawn(|| client.socket("/apps/web/processes/p1/exec", &[]).unwrap().err().map(|reply| reply.status));
        // Meanwhile reads go on: they need no log.
        while !change.is_finished() {
            assert_eq!(client.get("/apps/still", "").unwrap().status, 200);
        }
        let reply = change.join().unwrap();
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.text().contains("audit log") && reply.text().contains("not forwarded"), "{}", reply.text());
        assert_eq!(shell.join().unwrap(), Some(503), "no 101 without a line in the log");
    });
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert!(!rack.hits_of("/apps/still?").is_empty());
    assert!(rack.hits_of("/apps/web?").is_empty() && rack.hits_of("/apps/web/processes/p1/exec").is_empty(), "{:?}", rack.hits());
    database.run("ROLLBACK");

    // Then all goes on, and what was refused does not look as if it had been forwarded.
    let again =
        eventually(Duration::from_secs(15), || (client.raw("DELETE", "/apps/again", &[], b"").unwrap().status == 200).then_some(()));
    assert!(again.is_some());
    assert_eq!(rack.hits_of("/apps/again?").len(), 1);
    let settled = eventually(Duration::from_secs(10), || {
        let events = door.events_now(|event| event["path"] == "/apps/web");
        events.iter().all(|event| event["status"] == 503).then_some(events.len())
    });
    assert!(settled.is_some_and(|count| count <= 1), "{settled:?}");
}

#[test]
fn a_request_waits_for_its_line_as_long_as_that_takes_a_moment_only() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let client = door.client(&door.key, "acme/main");
    let database = Database::open(&door);
    database.run("BEGIN IMMEDIATE");
    let released = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let change = scope.spawn(|| {
            let status = client.raw("DELETE", "/apps/web", &[], b"").unwrap().status;
            assert!(released.load(Ordering::SeqCst), "answered while the log could not be written");
            status
        });
        // While other requests come and go, this one does not.
        for _ in 0..20 {
            assert_eq!(client.get("/apps", "").unwrap().status, 200);
        }
        assert!(rack.hits_of("/apps/web?").is_empty());
        released.store(true, Ordering::SeqCst);
        database.run("ROLLBACK");
        assert_eq!(change.join().unwrap(), 200);
    });
    assert_eq!(rack.hits_of("/apps/web?").len(), 1);
}

#[test]
fn on_a_full_disk_nothing_but_reads_is_forwarded_and_the_log_stays_whole() {
    if !SmallDisk::is_possible() {
        return;
    }
    let rack = Recorder::start("rackPassword1");
    let mut disk = None;
    let door = Door::open_on(|data| disk = Some(SmallDisk::mount(data, "8m")));
    let small = disk.as_ref().unwrap();
    door.add_rack("acme", "main", &rack);
    let client = door.client(&door.key, "acme/main");
    let (mut forwarded, mut refused) = (0, 0);
    for number in 0..3000 {
        small.fill();
        let reply = client.raw("DELETE", &format!("/apps/a{number}"), &[], b"").unwrap();
        match reply.status {
            200 => forwarded += 1,
            503 => {
                assert!(reply.text().contains("audit log") && reply.text().contains("not forwarded"), "{}", reply.text());
                refused += 1;
            }
            other => panic!("{other} {}", reply.text()),
        }
        if refused == 3 {
            break;
        }
    }
    assert_eq!(refused, 3, "the disk is full after {forwarded} requests");
    assert_eq!(client.get("/apps/read", "").unwrap().status, 200, "reads need no log");
    let hits = || rack.hits().iter().filter(|hit| hit.line().starts_with("DELETE ")).count();
    assert_eq!(hits(), forwarded, "what was refused reached no Rack");

    // Room again, and all goes on by itself.
    small.empty();
    let mut last = String::new();
    let again = eventually(Duration::from_secs(20), || {
        let reply = client.raw("DELETE", "/apps/again", &[], b"").unwrap();
        last = format!("{} {}", reply.status, reply.text());
        (reply.status == 200).then_some(())
    });
    assert!(again.is_some(), "{last}\n{}", door.console.log().lines().rev().take(5).collect::<Vec<_>>().join("\n"));
    let written = door.events_now(|event| event["action"] == "AppDelete" && event["status"] != 503).len();
    assert!(written >= hits(), "{written} lines for {} requests at the Rack", hits());
    assert_eq!(door.admin(&["audit", "verify"])["whole"], true);
    drop((door, disk));
}

#[test]
fn no_kill_leaves_a_request_at_the_rack_without_its_line() {
    let rack = Recorder::start("rackPassword1");
    let mut door = Door::with_rack(&rack);
    let key = door.key.clone();
    for round in 0..8 {
        let client = door.client(&key, "acme/main");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (client, stop) = (client.clone(), &stop);
                scope.spawn(move || {
                    for number in 0..10_000 {
                        let sent = client.raw("DELETE", &format!("/apps/a-{round}-{thread}-{number}"), &[], b"");
                        if sent.is_err() || stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            // At another moment of the work in each round.
            let enough = 5 + round * 7;
            let reached = eventually(Duration::from_secs(20), || (rack.hits().len() > enough).then_some(()));
            door.console.kill();
            stop.store(true, Ordering::Relaxed);
            assert!(reached.is_some(), "the Rack is reached");
        });
        door.console.restart().unwrap();
    }
    // The log shows pages of 1000; each path is its own.
    let lines: std::collections::BTreeSet<String> =
        door.events_now(|event| event["action"] == "AppDelete").iter().map(|event| event["path"].as_str().unwrap().to_owned()).collect();
    let hits = rack.hits();
    assert!(hits.len() > 50 && lines.len() < 1000, "{} hits, {} lines", hits.len(), lines.len());
    for hit in &hits {
        let path = hit.line().split(' ').nth(1).unwrap().trim_end_matches('?');
        assert!(lines.contains(path), "{path} reached the Rack and is not in the log");
    }
    assert_eq!(door.admin(&["audit", "verify"])["whole"], true, "and the chains hold over all the kills");
}

#[test]
fn a_line_says_who_did_what_where_and_how_it_ended() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let client = door.client(&door.key, "main");
    let reply = client.raw("POST", "/apps/web/objects/tmp/x.tgz", &[], &[7; 5000]).unwrap();
    assert_eq!(reply.status, 200);
    let ended = eventually(Duration::from_secs(5), || {
        door.events_now(|event| event["path"] == "/apps/web/objects/tmp/x.tgz" && event["status"] == 200).pop()
    });
    let event = ended.expect("its end is written soon after");
    for (field, value) in [
        ("actor", "admin@example.com"),
        ("org", "acme"),
        ("rack", "main"),
        ("app", "web"),
        ("effect", "write"),
        ("action", "ObjectStore"),
        ("method", "POST"),
        ("decision", "allowed"),
        ("rule", "administrator"),
        ("peer", "127.0.0.1"),
        ("key_last4", &door.key[door.key.len() - 4..]),
        ("request_id", reply.header("request-id").unwrap()),
    ] {
        assert_eq!(event[field], value, "{field} of {event}");
    }
    assert_eq!((&event["bytes_up"], &event["bytes_down"]), (&5000.into(), &2.into()), "{event}");

    let Ok(mut shell) = client.socket("/apps/web/processes/p1/exec", &[("Command", "echo secretWord")]).unwrap() else { panic!("opens") };
    shell.text(b"secretInput").unwrap();
    assert_eq!(shell.receive().unwrap(), Message::Text(b"secretInput".to_vec()));
    drop(shell);
    let ended =
        eventually(Duration::from_secs(5), || door.events_now(|event| event["action"] == "ProcessExec" && event["status"] == 101).pop());
    let event = ended.expect("a shell's end is written too");
    assert!(event["bytes_up"].as_u64() > Some(10) && event["bytes_down"].as_u64() > Some(10), "{event}");
    let all = door.admin(&["audit", "list"]).to_string();
    assert!(!all.contains("secretWord") && !all.contains("secretInput"), "what is said in a shell is not in the log");
}

#[test]
fn plain_reads_are_not_in_the_log_and_refusals_are() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let developer = door.person("dev@example.com", Some(("acme", "developer")));
    let client = door.client(&developer, "acme/main");
    for path in ["/apps", "/apps/web", "/system/processes"] {
        assert_eq!(client.get(path, "").unwrap().status, 200);
    }
    assert_eq!(client.get("/registries", "").unwrap().status, 403);
    assert_eq!(door.client(&developer, "acme/none").get("/apps", "").unwrap().status, 404);
    let stranger = "cxu_0000000000000000000000000000000000000000000xxxxxx";
    assert_eq!(door.client(stranger, "acme/main").get("/apps/refused", "").unwrap().status, 401);

    let refused = door.events(|event| event["path"] == "/registries");
    assert_eq!((&refused[0]["decision"], &refused[0]["rule"]), (&"refused".into(), &"needs-operator".into()));
    assert_eq!(refused[0]["actor"], "dev@example.com");
    let unknown = door.events(|event| event["rule"] == "no-such-rack");
    assert_eq!((&unknown[0]["rack"], &unknown[0]["actor"]), (&"acme/none".into(), &"dev@example.com".into()));
    let sign_in = door.events(|event| event["path"] == "/apps/refused");
    assert_eq!((&sign_in[0]["actor"], &sign_in[0]["action"]), (&"unknown".into(), &"Authenticate".into()));
    assert!(!sign_in[0].to_string().contains(stranger));
    let read = door.events_now(|event| ["/apps/web", "/system/processes"].iter().any(|path| event["path"] == *path));
    assert!(read.is_empty(), "{read:?}");
}

#[test]
fn a_hostile_path_or_name_stays_in_its_field() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let hostile = r#"x","decision":"allowed","y":"{}\u001b[31m"#;
    let head = door.head("GET /nope/a\"}b{c?q=secretQuery", &door.key, hostile, "User-Agent: x\r\n");
    assert_eq!(door.raw(head).status, 404);
    let events = door.events(|event| event["rack"] == hostile);
    assert_eq!((events.len(), &events[0]["decision"]), (1, &"refused".into()), "{events:?}");
    let log = door.console.log();
    assert!(log.lines().filter(|line| !line.is_empty()).all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
    assert!(!log.contains("secretQuery") && !log.contains("admin@example.com"), "{log}");
    assert!(!door.admin(&["audit", "list"]).to_string().contains("secretQuery"), "queries can hold secrets");
}
