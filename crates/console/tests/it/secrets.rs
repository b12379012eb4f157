//! Where a Rack's password goes: to its own Rack, and nowhere else (T31, T32).

use std::path::{Path, PathBuf};
use std::time::Duration;

use convox_testkit::eventually;

use crate::console::Database;
use crate::limits::{add_totp, begin_totp, half_way, now_ms, with_password};
use crate::{Door, Recorder};

const CANARY: &str = "canaryRackPassword8hTq2VtR9mKx4LwZ8nB";

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// The needle as it is, in base64 at each of its three offsets, and in hex.
fn forms(needle: &str) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let mut forms = vec![needle.as_bytes().to_vec(), needle.bytes().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()];
    for (pad, cut) in [("", 0), ("x", 2), ("xx", 3)] {
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(format!("{pad}{needle}"));
        forms.push(text.as_bytes()[cut..text.len() - 2].to_vec());
    }
    forms
}

fn holds(bytes: &[u8], needle: &str) -> bool {
    forms(needle).iter().any(|form| bytes.windows(form.len()).any(|window| window == form.as_slice()))
}

#[test]
fn the_password_is_in_no_file_log_answer_or_argument_of_the_console() {
    let rack = Recorder::start(CANARY);
    let door = Door::with_rack(&rack);
    let mut answers = String::new();
    let client = door.client(&door.key, "acme/main");
    for (method, path) in [
        ("GET", "/apps"),
        ("GET", "/racks"),
        ("GET", "/racks/acme/main"),
        ("GET", "/racks/acme/main/host"),
        ("GET", "/auth"),
        ("GET", "/nope"),
        ("GET", "/api/v1/me"),
        ("GET", "/api/v1/racks"),
        ("GET", "/api/v1/organizations/acme/racks"),
        ("GET", "/api/v1/organizations/acme/audit"),
        ("POST", "/api/v1/organizations/acme/racks/main/probe"),
        ("DELETE", "/apps/web"),
        ("PUT", "/racks/acme/main"),
    ] {
        let reply = client.raw(method, path, &[], b"").unwrap();
        answers.push_str(&format!("{:?} {}\n", reply.headers, reply.text()));
    }
    for command in [&["rack", "list"][..], &["rack", "probe", "main", "--org", "acme"], &["audit", "list"], &["key", "list"]] {
        answers.push_str(&door.admin(command).to_string());
    }
    assert!(!holds(answers.as_bytes(), CANARY) && !answers.contains(&door.key));
    // The Rack got it, in the form of the protocol: the search below would find it.
    assert!(holds(rack.hits().last().unwrap().head.as_bytes(), CANARY));

    let arguments = std::fs::read(format!("/proc/{}/cmdline", door.console.pid())).unwrap();
    let environment = std::fs::read(format!("/proc/{}/environ", door.console.pid())).unwrap_or_default();
    assert!(!holds(&arguments, CANARY) && !holds(&environment, CANARY));
    assert!(!holds(door.console.log().as_bytes(), CANARY) && !holds(door.console.log().as_bytes(), &door.key));
    let all = files(&door.data());
    assert!(all.iter().any(|path| path.ends_with("console.db-wal")), "the server is running: {all:?}");
    for path in all {
        let bytes = std::fs::read(&path).unwrap();
        assert!(!holds(&bytes, CANARY), "{} holds the Rack's password", path.display());
        assert!(!holds(&bytes, &door.key), "{} holds an API key", path.display());
    }
}

#[test]
fn a_sealed_password_that_was_moved_or_redirected_is_sent_nowhere() {
    let (one, two, thief) = (Recorder::start("rackPassword1"), Recorder::start("rackPassword2"), Recorder::start("whatever"));
    let door = Door::with_rack(&one);
    door.add_rack("acme", "two", &two);
    let clients = [door.client(&door.key, "acme/main"), door.client(&door.key, "acme/two")];
    for client in &clients {
        assert_eq!(client.get("/apps", "").unwrap().status, 200);
    }
    let database = Database::open(&door);
    let refused = |what: &str| {
        // The server takes over what the database says a moment later.
        let seen = convox_testkit::eventually(std::time::Duration::from_secs(5), || {
            clients.iter().all(|client| client.get("/apps/after", "").unwrap().status == 502).then_some(())
        });
        assert!(seen.is_some(), "{what}");
        for client in &clients {
            // While a write waits for its line in the log, the change may arrive: then its Rack is another one.
            let write = convox_testkit::eventually(std::time::Duration::from_secs(5), || {
                let status = client.raw("DELETE", "/apps/later", &[], b"").unwrap().status;
                assert!(status == 502 || status == 404, "{what}: {status}");
                (status == 502).then_some(())
            });
            assert!(write.is_some(), "{what}");
            let read = client.get("/apps/later", "").unwrap();
            assert_eq!(read.status, 502, "{what}");
            assert!(read.text().contains("credential") && read.text().contains("add the rack again"), "{}", read.text());
        }
    };

    // Swapped between two rows.
    database.run(
        "CREATE TABLE swap AS SELECT id, password FROM racks; \
         UPDATE racks SET generation = generation + 1, password = (SELECT s.password FROM swap s WHERE s.id <> racks.id); UPDATE feed SET seq = seq + 1",
    );
    refused("swapped");
    // In its own row again, but pointing to a host of somebody who can edit the table.
    database.run("UPDATE racks SET generation = generation + 1, password = (SELECT s.password FROM swap s WHERE s.id = racks.id)");
    let (host, pin) = (thief.host.clone(), thief.fingerprint.to_string());
    let text = format!("UPDATE racks SET host = '{host}', pin = '{pin}', generation = generation + 1; UPDATE feed SET seq = seq + 1");
    database.run(Box::leak(text.into_boxed_str()));
    refused("redirected");
    assert_eq!(thief.connections(), 0, "nobody talks to the thief at all");
    // With the pin taken away.
    let text = format!(
        "UPDATE racks SET host = CASE name WHEN 'main' THEN '{}' ELSE '{}' END, pin = NULL, generation = generation + 1; UPDATE feed SET seq = seq + 1",
        one.host, two.host
    );
    database.run(Box::leak(text.into_boxed_str()));
    refused("unpinned");
    // Edited by one bit.
    let text = format!(
        "UPDATE racks SET pin = CASE name WHEN 'main' THEN '{}' ELSE '{}' END, generation = generation + 1, \
         password = CAST(substr(password, 1, length(password) - 1) || x'00' AS BLOB); UPDATE feed SET seq = seq + 1",
        one.fingerprint, two.fingerprint
    );
    database.run(Box::leak(text.into_boxed_str()));
    refused("edited");

    for hit in one.hits().iter().chain(&two.hits()) {
        assert!(!hit.line().contains("/apps/later"), "{}", hit.line());
    }
    // Everything as it was: it opens again.
    database.run("UPDATE racks SET generation = generation + 1, password = (SELECT s.password FROM swap s WHERE s.id = racks.id); UPDATE feed SET seq = seq + 1");
    let again = convox_testkit::eventually(std::time::Duration::from_secs(5), || {
        (clients[0].get("/apps", "").unwrap().status == 200).then_some(())
    });
    assert!(again.is_some(), "{}", clients[0].get("/apps", "").unwrap().text());
    assert!(!holds(door.console.log().as_bytes(), "rackPassword1"));
}

/// What `keys check` says while something is not as it should be.
fn put_back(door: &Door) -> (Vec<String>, String) {
    let output = std::process::Command::new(convox_testkit::binary("convox-console"))
        .args(["keys", "check", "--json", "--data"])
        .arg(door.data())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["whole"], false);
    let named = said["put_back"].as_array().unwrap().iter().map(|what| what.as_str().unwrap().to_owned()).collect();
    (named, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_older_password_that_is_put_back_is_sent_nowhere_and_named() {
    let (rack, other) = (Recorder::start("rackPassword1"), Recorder::start("rackPassword2"));
    let mut door = Door::with_rack(&rack);
    door.add_rack("acme", "other", &other);
    let works = |door: &Door, name: &str| door.client(&door.key, name).get("/apps", "").unwrap().status;
    let number = door.admin(&["keys", "check"])["number"].as_u64().unwrap();
    let database = Database::open(&door);
    // Somebody who knows the password keeps a copy of its row. It is rolled, and no data key is.
    database.run("CREATE TABLE old AS SELECT id, password FROM racks");
    door.admin(&["rack", "roll", "main", "--org", "acme", "--window", "1s"]);
    database.run("CREATE TABLE new AS SELECT id, password FROM racks");
    assert_eq!((works(&door, "acme/main"), works(&door, "acme/other")), (200, 200));
    assert!(door.admin(&["keys", "check", "--at-least", &number.to_string()])["number"].as_u64().unwrap() > number);

    database.run("UPDATE racks SET password = (SELECT o.password FROM old o WHERE o.id = racks.id); UPDATE feed SET seq = seq + 1");
    assert!(eventually(Duration::from_secs(5), || (works(&door, "acme/main") == 502).then_some(())).is_some());
    for _ in 0..2 {
        let seen = rack.hits().len();
        let (read, write) = (works(&door, "acme/main"), door.client(&door.key, "acme/main").raw("DELETE", "/apps/web", &[], b"").unwrap());
        assert_eq!((read, write.status, rack.hits().len()), (502, 502, seen), "nothing is sent: {}", write.text());
        assert!(write.text().contains("acme/main") && write.text().contains("add the rack again"), "{}", write.text());
        assert_eq!(works(&door, "acme/other"), 200, "the other one goes on");
        // The alarm: in the log, in the audit log, and for whoever looks.
        let alarm = || {
            door.console
                .log()
                .lines()
                .any(|line| line.contains("ERROR") && line.contains("acme/main") && line.contains("put back"))
                .then_some(())
        };
        assert!(eventually(Duration::from_secs(5), alarm).is_some(), "{}", door.console.log());
        assert!(!door.events(|event| event["action"] == "RackPasswordPutBack" && event["rack"] == "main").is_empty());
        let (named, error) = put_back(&door);
        assert!(named == ["the password of Rack acme/main"] && error.contains("--accept"), "{named:?} {error}");
        // Whatever was in memory.
        door.console.restart().unwrap();
    }
    // No command writes it anew as if it were right.
    for command in [
        &["rack", "roll", "main", "--org", "acme"][..],
        &["keys", "roll-data", "--org", "acme"],
        &["rack", "probe", "main", "--org", "acme"],
    ] {
        let error = door.try_admin(command).unwrap_err();
        assert!(error.contains("acme/main") && error.contains("put back"), "{command:?}: {error}");
    }
    database.run("UPDATE racks SET password = (SELECT n.password FROM new n WHERE n.id = racks.id); UPDATE feed SET seq = seq + 1");
    assert!(eventually(Duration::from_secs(5), || (works(&door, "acme/main") == 200).then_some(())).is_some());

    // With the register taken out nothing opens, until somebody who has the root key looked.
    database.run("DELETE FROM register_pages; DELETE FROM register_head");
    door.console.restart().unwrap();
    assert_eq!((works(&door, "acme/main"), works(&door, "acme/other")), (502, 502));
    assert_eq!(put_back(&door).0.len(), 2);
    assert_eq!(door.admin(&["keys", "check", "--accept"])["whole"], true);
    assert!(eventually(Duration::from_secs(5), || (works(&door, "acme/main") == 200).then_some(())).is_some());
    assert_eq!(works(&door, "acme/other"), 200);
    assert!(!holds(door.console.log().as_bytes(), "rackPassword1"));
}

#[test]
fn an_older_next_password_is_not_handed_to_the_rack() {
    const BUSY: Option<&str> = Some("500 Internal Server Error");
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let database = Database::open(&door);
    let status = || door.admin(&["rack", "roll", "main", "--org", "acme", "--status"]);
    // A roll that comes to nothing: somebody keeps what would have been the next password.
    rack.fix("/system/password", BUSY);
    door.admin(&["rack", "roll", "main", "--org", "acme", "--no-wait"]);
    database.run("CREATE TABLE old AS SELECT next FROM rack_rolls");
    rack.fix("/system/password", Some("404 Not Found"));
    assert!(eventually(Duration::from_secs(20), || status()["roll"].is_null().then_some(())).is_some(), "{}", status());

    rack.fix("/system/password", BUSY);
    door.admin(&["rack", "roll", "main", "--org", "acme", "--no-wait"]);
    database.run("UPDATE rack_rolls SET next = (SELECT next FROM old)");
    let fault = || status()["roll"]["fault"].as_str().unwrap_or_default().to_owned();
    let told = eventually(Duration::from_secs(20), || fault().contains("put back").then_some(()));
    assert!(told.is_some() && fault().contains("take the roll back"), "{}", status());
    let handed = |rack: &Recorder| rack.hits().iter().filter(|hit| hit.line().starts_with("PUT /system/password")).count();
    let before = handed(&rack);
    rack.fix("/system/password", None);
    assert!(door.console.log().lines().any(|line| line.contains("ERROR") && line.contains("acme/main") && line.contains("next password")));
    assert_eq!(put_back(&door).0, ["the next password of Rack acme/main, whose roll is under way"]);
    assert_eq!(
        (handed(&rack), door.client(&door.key, "acme/main").get("/apps", "").unwrap().status),
        (before, 200),
        "the present one goes on"
    );
    // Taken back, all is as it was.
    assert!(eventually(Duration::from_secs(10), || door.try_admin(&["rack", "roll", "main", "--org", "acme", "--undo"]).ok()).is_some());
    assert_eq!(door.admin(&["keys", "check"])["whole"], true);
    assert_eq!(door.client(&door.key, "acme/main").get("/apps", "").unwrap().status, 200);
}

#[test]
fn an_authenticator_app_that_was_replaced_and_is_put_back_gives_no_codes() {
    let door = Door::open();
    let database = Database::open(&door);
    with_password(&door, "admin@example.com");
    let mut browser = half_way(&door.console);
    let (stolen, _) = add_totp(&mut browser);
    database.run("CREATE TABLE old AS SELECT secret FROM totp");
    // The telephone is lost: its owner sets the app up again.
    let (own, added_ms) = add_totp(&mut browser);
    database.run("CREATE TABLE new AS SELECT secret FROM totp; UPDATE totp SET secret = (SELECT secret FROM old)");
    for secret in [&stolen, &own] {
        let reply = half_way(&door.console).post("/console/prove", &format!("code={}", secret.code_at(added_ms + 30_000)));
        assert!(reply.status == 409 && reply.text().contains("cannot be opened"), "{}: {}", reply.status, reply.text());
    }
    let log = door.console.log();
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains("authenticator app") && line.contains("put back")), "{log}");
    assert_eq!(put_back(&door).0, ["the authenticator app of admin@example.com"]);
    // A data key is not rolled over it either.
    assert!(door.try_admin(&["keys", "roll-data"]).unwrap_err().contains("put back"));
    database.run("UPDATE totp SET secret = (SELECT secret FROM new)");
    let reply = half_way(&door.console).post("/console/prove", &format!("code={}", own.code_at(added_ms + 30_000)));
    assert_eq!(reply.status, 303, "{}", reply.text());
}

#[test]
fn an_authenticator_app_is_set_up_while_its_data_key_is_rolled() {
    let door = Door::open();
    with_password(&door, "admin@example.com");
    let mut browser = half_way(&door.console);
    let (id, secret) = begin_totp(&mut browser);
    // The data key of people is there by now, and is destroyed while they look for their telephone.
    for _ in 0..2 {
        assert_eq!(door.admin(&["keys", "roll-data"])["resealed"], 1);
    }
    let wrong = browser.post("/console/account/factors/totp", &format!("id={id}&code=000000"));
    assert!(wrong.status == 422 || wrong.status == 400, "{}", wrong.status);
    assert!(wrong.text().contains("not the code"), "{}", wrong.text());
    door.admin(&["keys", "roll-data"]);
    let now_ms = now_ms();
    let added = browser.post("/console/account/factors/totp", &format!("id={id}&code={}", secret.code_at(now_ms)));
    assert!(added.status == 200 && added.text().contains("Your recovery codes"), "{}", added.text());
    door.admin(&["keys", "roll-data"]);
    let reply = half_way(&door.console).post("/console/prove", &format!("code={}", secret.code_at(now_ms + 30_000)));
    assert_eq!(reply.status, 303, "{}", reply.text());
}

#[test]
fn the_password_goes_to_the_pinned_certificate_only() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let client = door.client(&door.key, "acme/main");
    assert_eq!(client.get("/apps", "").unwrap().status, 200);
    // Somebody else listens at the address now.
    let host = rack.host.clone();
    drop(rack);
    let port: u16 = host.rsplit_once(':').unwrap().1.parse().unwrap();
    let other = convox_testkit::eventually(std::time::Duration::from_secs(10), || Recorder::at(port, "rackPassword1"));
    let other = other.expect("the port is free again");
    let refused = convox_testkit::eventually(std::time::Duration::from_secs(10), || {
        let reply = client.get("/apps/pin", "").unwrap();
        (reply.status == 502 && reply.text().contains("the certificate has changed")).then_some(reply)
    });
    let reply = refused.expect("the change is noticed");
    assert!(reply.text().contains("nothing was sent"), "{}", reply.text());
    assert!(other.hits().is_empty(), "{:?}", other.hits());
}

#[test]
fn a_root_key_of_another_console_is_refused() {
    let rack = Recorder::start("rackPassword1");
    let mut door = Door::with_rack(&rack);
    door.console.terminate();
    let key = door.data().join("root.key");
    let right = std::fs::read(&key).unwrap();
    std::fs::write(&key, convox_seal::RootKey::generate().expose()).unwrap();
    assert!(door.console.restart().is_err());
    assert!(door.console.log().contains("root key"), "{}", door.console.log());
    assert!(door.try_admin(&["key", "create", "--email", "admin@example.com", "--name", "x"]).unwrap_err().contains("root key"));
    std::fs::write(&key, right).unwrap();
    door.console.restart().unwrap();
    assert_eq!(door.client(&door.key, "acme/main").get("/apps", "").unwrap().status, 200);
}
