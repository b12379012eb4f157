//! Which Rack a command means, who said so, and that it stays so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::person::Person;
use crate::server::{Answer, Request, Server, json, status};

const RACKS: &str = r#"[{"name":"prod","organization":{"name":"acme"},"status":"running","provider":"local"},
    {"name":"nonprod","organization":{"name":"acme"},"status":"running"},
    {"name":"prod-eu","organization":{"name":"acme"},"status":"updating"},
    {"name":"stage","organization":{"name":"acme"},"status":"running"},
    {"name":"stage","organization":{"name":"beta"},"status":"running"}]"#;

fn console(request: &Request) -> Answer {
    match request.path.as_str() {
        "/racks" => json(RACKS),
        "/auth" => json(r#"{"id":"U1","email":"a@example.com"}"#),
        "/apps" => json("[]"),
        "/system" => json(r#"{"name":"prod","status":"running","version":"20260101000000"}"#),
        _ => status(404, ""),
    }
}

#[test]
fn a_name_is_exact_or_the_only_ending_and_never_a_piece() {
    let server = Server::start(console);
    let person = Person::at(&server);
    assert_eq!(person.run(&["switch", "prod"]).ok(), "Switched to acme/prod\n");
    assert_eq!(person.run(&["switch"]).ok(), "acme/prod\n");
    assert_eq!(server.lines(), ["GET /racks"], "one request, nothing of the Rack");
    let said = person.run(&["switch", "pro"]).err();
    assert!(said.starts_with("ERROR: could not find rack: pro\n"), "{said}");
    let said = person.run(&["switch", "stage"]).err();
    assert!(said.starts_with("ERROR: ambiguous rack name: stage\n") && said.contains("acme/stage, beta/stage"), "{said}");
    assert_eq!(person.run(&["switch"]).ok(), "acme/prod\n", "a failed switch changes nothing");
    // The same for --rack, where a short name is made a full one before anything is asked of a Rack.
    server.forget();
    person.run(&["apps", "-r", "nonprod"]).ok();
    assert_eq!(server.lines(), ["GET /racks", "GET /apps"]);
    assert_eq!(server.seen()[1].header("Rack"), Some("acme/nonprod"));
    server.forget();
    assert!(person.run(&["apps", "-r", "stage"]).err().contains("ambiguous"));
    assert_eq!(server.lines(), ["GET /racks"]);
    server.forget();
    person.run(&["apps", "-r", "beta/stage"]).ok();
    assert_eq!(server.lines(), ["GET /apps"], "a full name needs no list");
}

#[test]
fn switch_writes_what_the_originals_read_and_keeps_other_hosts() {
    let server = Server::start(console);
    let person = Person::at(&server);
    person.save("racks", r#"{"other.example": "x/y"}"#);
    person.save("rack", "old/one");
    person.run(&["switch", "acme/prod"]).ok();
    let racks = person.map("racks");
    assert_eq!((racks["other.example"].as_str(), racks[&server.host()].as_str()), ("x/y", "acme/prod"));
    assert_eq!(person.read("rack"), "acme/prod");
    assert_eq!(person.read("current"), format!(r#"{{"host":"{}","name":"acme/prod","type":"console"}}"#, server.host()));
    // What somebody writes by hand afterwards is meant.
    std::thread::sleep(std::time::Duration::from_millis(20));
    person.save("rack", "personal/dev\n");
    assert_eq!(person.run(&["switch"]).ok(), "personal/dev\n");
}

#[test]
fn whoami_and_rack_say_which_source_won() {
    let server = Server::start(console);
    let person = Person::at(&server);
    person.run(&["switch", "prod"]).ok();
    let person = person.with("CONVOX_RACK", "acme/nonprod");
    let said = person.run(&["whoami"]).ok();
    assert!(said.contains("a@example.com") && said.contains("acme/nonprod (CONVOX_RACK in the environment)"), "{said}");
    assert!(said.contains("not acme/prod (saved by switch"), "{said}");
    let ran = person.run(&["rack"]);
    assert!(ran.stderr.contains("acme/nonprod from CONVOX_RACK in the environment is used, not acme/prod"), "{ran:?}");
    assert_eq!(ran.ok(), "Name      prod\nProvider  \nStatus    running\nVersion   20260101000000\n");
    let said = person.run(&["whoami", "--json"]).ok();
    let who: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(who["rack"], "acme/nonprod");
    assert_eq!(who["overruled"][0]["rack"], "acme/prod");
    let ran = person.run(&["switch", "acme/prod"]);
    assert!(ran.stderr.contains("commands here still mean acme/nonprod"), "{ran:?}");
}

#[test]
fn a_switch_in_the_middle_does_not_move_a_command() {
    let person: Arc<Mutex<Option<Person>>> = Arc::default();
    let (inside, switched) = (Arc::clone(&person), Arc::new(AtomicBool::new(false)));
    let server = Server::start(move |request| match request.path.as_str() {
        "/apps/myapp" => {
            // Between the first and the second request of `releases`.
            if !switched.swap(true, Ordering::SeqCst) {
                inside.lock().unwrap().as_ref().unwrap().run(&["switch", "acme/nonprod"]).ok();
            }
            json(r#"{"name":"myapp","release":"R1"}"#)
        }
        "/apps/myapp/releases" => json("[]"),
        _ => console(request),
    });
    let at = Person::at(&server);
    at.run(&["switch", "acme/prod"]).ok();
    let mut command = at.command(&["releases"]);
    *person.lock().unwrap() = Some(at);
    server.forget();
    assert!(command.output().unwrap().status.success());
    let racks: Vec<_> = server
        .seen()
        .iter()
        .filter(|request| request.path.starts_with("/apps"))
        .map(|request| request.header("Rack").map(str::to_owned))
        .collect();
    assert_eq!(racks, [Some("acme/prod".to_owned()), Some("acme/prod".to_owned())]);
}

#[test]
fn logged_in_to_a_rack_switch_says_how_to_go_elsewhere() {
    let server = Server::start(|request| match request.path.as_str() {
        "/racks" => status(404, ""),
        _ => console(request),
    });
    let person = Person::at(&server);
    let said = person.run(&["switch", "acme/other"]).err();
    assert!(said.contains("could not find rack: acme/other") && said.contains("convox login HOST"), "{said}");
    assert_eq!(person.run(&["racks"]).ok(), "NAME  STATUS\nprod  running\n");
    // A name given to a Rack itself goes along as it is, as with the originals.
    server.forget();
    person.run(&["apps", "-r", "whatever"]).ok();
    assert_eq!(server.seen().last().unwrap().header("Rack"), Some("whatever"));
}

#[test]
fn racks_of_this_machine_are_listed_and_reached_by_name() {
    let server = Server::start(console);
    let desk = Server::start(|request| match request.path.as_str() {
        "/system" => json(r#"{"name":"desk","status":"running","version":"20260101000000"}"#),
        "/apps" => json("[]"),
        _ => status(404, ""),
    });
    let person = Person::at(&server);
    person.save("auth", &format!(r#"{{"{}": "k", "{}": "deskkey"}}"#, server.host(), desk.host()));
    person.save("pins", &format!(r#"{{"{}": "{}", "{}": "{}"}}"#, server.host(), server.fingerprint, desk.host(), desk.fingerprint));
    person.save("self-managed", &format!(r#"{{"desk": "{}", "gone": "127.0.0.1:1"}}"#, desk.host()));
    let table = person.run(&["racks"]).ok();
    assert_eq!(
        table,
        "NAME          STATUS\nacme/nonprod  running\nacme/prod     running\nacme/prod-eu  updating\nacme/stage    running\nbeta/stage    running\n\
         desk          running\ngone          unknown\n"
    );
    desk.forget();
    person.run(&["apps", "-r", "desk"]).ok();
    let request = &desk.seen()[0];
    assert_eq!((request.line().as_str(), request.header("Rack")), ("GET /apps", None));
    assert_eq!(person.run(&["switch", "desk"]).ok(), "Switched to desk\n");
    assert_eq!(person.read("host"), desk.host());
    assert_eq!(person.run(&["switch", &format!("acme/{}", "prod")]).code, 1, "that Console is another host");
}

#[test]
fn a_console_that_is_down_is_said_to_be_down() {
    let server = Server::start(|_| status(503, "maintenance\n"));
    let person = Person::at(&server);
    for args in [&["racks"][..], &["switch", "prod"], &["apps", "-r", "prod"]] {
        let said = person.run(args).err();
        assert!(said.starts_with("ERROR: maintenance"), "{said}");
    }
    let closed = Person::new();
    closed.save("host", "127.0.0.1:1");
    closed.save("auth", r#"{"127.0.0.1:1": "k"}"#);
    assert!(closed.run(&["racks"]).err().contains("connection to 127.0.0.1:1 refused"));
    // What this machine knows itself is shown all the same.
    closed.save("self-managed", r#"{"desk": "127.0.0.1:1"}"#);
    let ran = closed.run(&["racks"]);
    assert_eq!(ran.stdout, "NAME  STATUS\ndesk  unknown\n");
    assert!(ran.err().contains("refused"));
}

#[test]
fn an_expired_key_and_a_session_demand_say_what_they_are() {
    let server = Server::start(|_| status(401, "cli token is expired\n"));
    let said = Person::at(&server).run(&["racks"]).err();
    assert!(said.contains("cli token is expired") && said.contains("convox login"), "{said}");
    let server = Server::start(|_| {
        Answer::Reply(401, vec![("WWW-Authenticate", r#"Session path="/session" token="true""#.to_owned())], b"session required\n".to_vec())
    });
    let said = Person::at(&server).run(&["apps"]).err();
    assert!(said.contains("second factor"), "{said}");
    assert_eq!(server.lines().len(), 1, "no loop");
}
