//! `convox keys`: the key in use is rolled so that there is a good one at every moment.

#![expect(clippy::expect_used, reason = "a stage that cannot be set is the end of its test")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::person::Person;
use crate::server::{Answer, Request, Server, json, status};

// convox:k and convox:n
const OLD: &str = "Basic Y29udm94Oms=";
const NEW: &str = "Basic Y29udm94Om4=";

const MADE: &str = r#"{"id":"2","name":"default","kind":"user","api_key":"n","last4":"nnnn","expires":null}"#;

fn row(state: &str) -> String {
    format!(
        r#"{{"id":"1","email":"ada@example.com","kind":"user","name":"default","last4":"kkkk","state":"{state}","created":"2026-01-01T00:00:00Z","expires":null,"used":null,"organization":null,"racks":[],"apps":[],"may":[],"networks":[]}}"#
    )
}

/// A Console whose last step of a roll answers `finish`; `at_finish` is what the `auth` file held when it was asked.
fn console(finish: u16, auth: Arc<Mutex<Option<PathBuf>>>, at_finish: Arc<Mutex<String>>) -> Server {
    Server::start(move |request: &Request| -> Answer {
        match (request.line().as_str(), request.header("Authorization")) {
            ("POST /api/v1/keys/roll", Some(OLD)) => json(MADE),
            ("POST /api/v1/keys/roll/finish", Some(NEW)) => {
                let path = auth.lock().expect("nobody panicked with it").clone().expect("the stage is set");
                *at_finish.lock().expect("nobody panicked with it") = std::fs::read_to_string(path).unwrap_or_default();
                if finish == 200 { json(r#"{"rolled":true}"#) } else { status(finish, "the database cannot be used\n") }
            }
            ("GET /api/v1/keys?limit=500", Some(_)) => json(&format!("[{}]", row("active"))),
            ("GET /api/v1/keys/current", Some(OLD)) => json(&row("active")),
            ("GET /api/v1/keys/current", Some(NEW)) => json(&row("pending")),
            ("POST /api/v1/keys/1/roll", Some(OLD)) => json(MADE),
            ("DELETE /api/v1/organizations/acme/keys/1", Some(OLD)) => json(r#"{"revoked":"1"}"#),
            ("GET /api/v1/organizations/acme/keys?limit=500", Some(OLD)) => json(&format!("[{}]", row("active"))),
            ("POST /api/v1/keys", Some(OLD)) => json(MADE),
            _ => status(404, ""),
        }
    })
}

fn stage(finish: u16) -> (Server, Person, Arc<Mutex<String>>) {
    let (auth, at_finish) = (Arc::default(), Arc::new(Mutex::new(String::new())));
    let server = console(finish, Arc::clone(&auth), Arc::clone(&at_finish));
    let person = Person::at(&server);
    *auth.lock().expect("nobody panicked with it") = Some(person.config().join("auth"));
    (server, person, at_finish)
}

#[test]
fn the_new_key_is_on_the_disk_before_the_old_one_ends() {
    let (server, person, at_finish) = stage(200);
    let ran = person.run(&["keys", "roll", "--overlap", "1h"]);
    assert!(ran.stderr.contains("saved") && ran.stderr.contains("another 1h"), "{ran:?}");
    assert_eq!(ran.ok(), "", "a saved key is not shown");
    assert!(at_finish.lock().unwrap().contains(r#""n""#), "{}", at_finish.lock().unwrap());
    assert_eq!(person.map("auth")[&server.host()], "n");
    let begun = server.seen().into_iter().find(|request| request.path == "/api/v1/keys/roll").unwrap();
    assert_eq!(begun.text(), r#"{"overlap_seconds":3600}"#);
    assert_eq!(server.lines().last().unwrap(), "POST /api/v1/keys/roll/finish");
}

#[test]
fn a_roll_that_is_cut_off_leaves_a_good_key_and_is_finished_later() {
    let (server, person, _) = stage(503);
    let error = person.run(&["keys", "roll"]).err();
    assert!(error.contains("the new key is kept and good") && error.contains("convox keys"), "{error}");
    assert_eq!(person.map("auth")[&server.host()], "n");
    let (again, other, _) = stage(200);
    other.save("auth", &format!("{{\"{}\": \"n\"}}", again.host()));
    let ran = other.run(&["keys"]);
    assert!(ran.stderr.contains("the old one is dead"), "{ran:?}");
    assert!(again.lines().contains(&"POST /api/v1/keys/roll/finish".to_owned()));
}

#[test]
fn a_key_from_a_variable_is_printed_and_not_saved() {
    let (server, person, _) = stage(200);
    let person = person.with("CONVOX_PASSWORD", "k");
    let ran = person.run(&["keys", "roll", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.ok()).unwrap();
    assert_eq!((value["api_key"].as_str(), value["saved"].as_bool()), (Some("n"), Some(false)));
    assert_eq!(person.map("auth")[&server.host()], "k");
}

#[test]
fn keys_are_listed_made_and_revoked() {
    let (server, person, _) = stage(200);
    let table = person.run(&["keys"]).ok();
    assert!(table.starts_with("NAME") && table.contains("...kkkk") && table.contains("everything") && table.contains("never"), "{table}");
    let listed: serde_json::Value = serde_json::from_str(&person.run(&["keys", "--json"]).ok()).unwrap();
    assert_eq!(listed[0]["name"], "default");
    assert_eq!(
        person
            .run(&["keys", "create", "graphs", "--org", "acme", "--rack", "prod", "--app", "shop", "--may", "read", "--expires", "48h"])
            .ok(),
        "n\n"
    );
    let sent: serde_json::Value = serde_json::from_str(&server.seen().last().unwrap().text()).unwrap();
    assert_eq!(sent["expires_in_hours"], 48);
    assert_eq!(
        (&sent["organization"], &sent["racks"][0], &sent["may"][0], &sent["kind"]),
        (&"acme".into(), &"prod".into(), &"read".into(), &"user".into())
    );
    assert!(person.run(&["keys", "create", "ci", "--deploy"]).err().contains("--org"), "a deploy key is an organization's");
    assert!(person.run(&["keys", "create", "ci", "--expires", "90m"]).err().contains("whole hours"));
    person.run(&["keys", "revoke", "default", "--org", "acme"]).ok();
    assert_eq!(server.lines().last().unwrap(), "DELETE /api/v1/organizations/acme/keys/1");
    assert!(person.run(&["keys", "revoke", "nope"]).err().contains("no key named nope"));
}

#[test]
fn a_rack_has_no_keys() {
    let server = Server::start(|_: &Request| status(404, ""));
    assert!(Person::at(&server).run(&["keys"]).err().contains("keeps no API keys"));
}
