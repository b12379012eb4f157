//! The keys that seal are rolled while requests run and the roll is killed at each of its steps (T32, T33).

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use convox_testkit::{binary, eventually};

use crate::console::Database;
use crate::transit::Transit;
use crate::{Door, Recorder};

/// Requests of several people, without a pause, until the end; none of them may fail.
fn under_load<T>(door: &Door, racks: &[&str], run: impl FnOnce() -> T) -> (T, u64) {
    let (stop, served) = (AtomicBool::new(false), AtomicU64::new(0));
    let out = std::thread::scope(|scope| {
        for rack in racks {
            let (stop, served) = (&stop, &served);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let client = door.client(&door.key, rack);
                    for (method, path) in [("GET", "/apps"), ("DELETE", "/apps/web")] {
                        let reply = client.raw(method, path, &[], b"").unwrap();
                        assert_eq!(reply.status, 200, "{method} {path} on {rack}: {}", reply.text());
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        // Also when it panics, or the scope never ends.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    (out, served.load(Ordering::Relaxed))
}

/// Starts a roll and kills it when it has told of `steps` steps; `true` when it was done before.
fn roll_killed_after(door: &Door, command: &str, steps: usize) -> bool {
    let mut child = Command::new(binary("convox-console"))
        .args(["keys", command, "--data"])
        .arg(door.data())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    for _ in 0..steps {
        if told.next().is_none() {
            let status = child.wait().unwrap();
            assert!(status.success(), "keys {command}: {status}");
            return true;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    false
}

/// Kills the roll after each of its steps in turn, and lets the last one go to its end.
fn roll_killed_at_each_step(door: &Door, command: &str) -> usize {
    for steps in 1..100 {
        if roll_killed_after(door, command, steps) {
            return steps;
        }
    }
    panic!("keys {command} comes to no end");
}

fn works(door: &Door, rack: &str) -> u16 {
    door.client(&door.key, rack).get("/apps", "").unwrap().status
}

#[test]
fn a_data_key_is_rolled_under_load_and_what_it_sealed_opens_no_more() {
    let (one, two) = (Recorder::start("rackPassword1"), Recorder::start("rackPassword2"));
    let mut door = Door::with_rack(&one);
    door.add_rack("acme", "two", &two);
    let database = Database::open(&door);
    database.run("CREATE TABLE before AS SELECT id, password, generation FROM racks");
    database.run("CREATE TABLE keys_before AS SELECT * FROM data_keys");
    let (steps, served) = under_load(&door, &["acme/main", "acme/two"], || roll_killed_at_each_step(&door, "roll-data"));
    println!("data key: killed after each of {} steps; {served} requests, none failed", steps - 1);
    let listed = door.admin(&["keys", "list"]);
    let of_acme: Vec<_> = listed.as_array().unwrap().iter().filter(|row| row["owner"] == "acme").collect();
    assert!(of_acme.len() == 1 && of_acme[0]["version"].as_i64() > Some(1) && of_acme[0]["state"] == "active", "{listed}");
    door.console.restart().unwrap();
    assert_eq!((works(&door, "acme/main"), works(&door, "acme/two")), (200, 200));

    // Somebody who can write to the database puts an old row back: it is noticed, and nothing is sent.
    database.run("UPDATE racks SET password = (SELECT b.password FROM before b WHERE b.id = racks.id) WHERE name = 'main'; UPDATE feed SET seq = seq + 1");
    assert!(eventually(Duration::from_secs(5), || (works(&door, "acme/main") == 502).then_some(())).is_some());
    assert_eq!(works(&door, "acme/two"), 200, "the other one goes on");
    let before = one.hits().len();
    assert_eq!((works(&door, "acme/main"), one.hits().len()), (502, before), "nothing is sent");
    assert!(door.console.log().contains("credential cannot be used"), "{}", door.console.log());
    // And a roll does not pretend that it was well.
    let error = door.try_admin(&["keys", "roll-data", "--org", "acme"]).unwrap_err();
    assert!(error.contains("acme/main") && error.contains("add it again"), "{error}");
    assert!(door.try_admin(&["keys", "roll-data", "--org", "nope"]).unwrap_err().contains("no such organization"));
}

#[test]
fn the_root_key_is_rolled_under_load_and_the_old_one_opens_nothing_any_more() {
    let rack = Recorder::start("rackPassword1");
    let mut door = Door::with_rack(&rack);
    for org in ["labs", "ops"] {
        door.admin(&["org", "create", org]);
    }
    let file = door.data().join("root.key");
    let old = std::fs::read_to_string(&file).unwrap();
    let (steps, served) = under_load(&door, &["acme/main"], || roll_killed_at_each_step(&door, "roll-root"));
    println!("root key: killed after each of {} steps; {served} requests, none failed", steps - 1);
    let new = std::fs::read_to_string(&file).unwrap();
    assert!(new.lines().count() == 1 && new != old, "one line, and another key");
    let listed = door.admin(&["keys", "list"]);
    let roots: std::collections::BTreeSet<_> = listed.as_array().unwrap().iter().map(|row| row["root_key"].to_string()).collect();
    assert_eq!((listed.as_array().unwrap().len(), roots.len()), (4, 1), "three organizations and the lookup key: {listed}");
    assert_eq!(works(&door, "acme/main"), 200);
    door.console.restart().unwrap();
    assert_eq!(works(&door, "acme/main"), 200, "API keys are found and passwords opened after a restart too");
    // The old root key is of no use for this database.
    let wrong = door.dir.path().join("old.key");
    std::fs::write(&wrong, &old).unwrap();
    let error = door.try_admin(&["key", "list", "--root-key-file", wrong.to_str().unwrap()]).unwrap_err();
    assert!(error.contains("not the one that this database was made with"), "{error}");
    // A key that somebody chose, and never the present one.
    let error = door.try_admin(&["keys", "roll-root", "--new-root-key-file", file.to_str().unwrap()]).unwrap_err();
    assert!(error.contains("the present one"), "{error}");
    let mine = convox_seal::RootKey::generate();
    std::fs::write(&wrong, mine.expose()).unwrap();
    let rolled = door.admin(&["keys", "roll-root", "--new-root-key-file", wrong.to_str().unwrap()]);
    assert_eq!(rolled["root_key"], convox_seal::RootKey::parse(mine.expose()).unwrap().id());
    assert_eq!(works(&door, "acme/main"), 200);
    // Nothing of it is in a log.
    for key in [old.trim(), new.trim(), mine.expose()] {
        assert!(!door.console.log().contains(key));
    }
}

#[test]
fn a_root_key_that_a_kms_sealed_opens_with_that_kms_only() {
    let (kms, other) = (Transit::start("s.token"), Transit::start("s.token"));
    let rack = Recorder::start("rackPassword1");
    let dir = tempfile::tempdir().unwrap();
    let (data, token) = (dir.path().join("data"), dir.path().join("token"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(&token, "s.token\n").unwrap();
    let (url, pin) = (kms.url("convox"), kms.fingerprint.to_string());
    let flags = ["--root-key-kms", &url, "--kms-pin", &pin, "--kms-token-file", token.to_str().unwrap()];
    let file = data.join("root.key");
    let made = Command::new(binary("convox-console")).args(["root-key", "--out"]).arg(&file).args(flags).status().unwrap();
    assert!(made.success());
    let sealed = std::fs::read_to_string(&file).unwrap();
    assert!(sealed.starts_with("kms:vault:v1:") && convox_seal::RootKey::parse(sealed.trim()).is_err(), "the file alone opens nothing");

    let door = Door::open_in(dir, &flags);
    door.add_rack_with("acme", "main", &rack, &flags);
    assert_eq!(works(&door, "acme/main"), 200);
    let asked = kms.asked();
    for _ in 0..20 {
        assert_eq!(works(&door, "acme/main"), 200);
    }
    assert_eq!(kms.asked(), asked, "no request of anybody waits for the KMS");
    // Rolled: the new one is sealed too.
    let rolled = door.admin_with(&["keys", "roll-root"], &flags);
    assert!(rolled["rewrapped"].as_i64() >= Some(2), "{rolled}");
    let after = std::fs::read_to_string(&file).unwrap();
    assert!(after.starts_with("kms:vault:v1:") && after != sealed && after.lines().count() == 1, "{after}");
    assert_eq!(works(&door, "acme/main"), 200);
    // Without the KMS, with another one, with a wrong token, and with a certificate that is not the pinned one.
    let fails = |flags: &[&str], words: &str| {
        let output = Command::new(binary("convox-console")).args(["key", "list", "--data"]).arg(door.data()).args(flags).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(words), "{flags:?}: {error}");
        assert!(!error.contains("s.token"));
    };
    fails(&[], "--root-key-kms");
    let (other_url, other_pin) = (other.url("convox"), other.fingerprint.to_string());
    fails(&["--root-key-kms", &other_url, "--kms-pin", &other_pin, "--kms-token-file", token.to_str().unwrap()], "did not decrypt");
    fails(&["--root-key-kms", &url, "--kms-pin", &other_pin, "--kms-token-file", token.to_str().unwrap()], "did not decrypt");
    let wrong = door.dir.path().join("wrong");
    std::fs::write(&wrong, "s.guess").unwrap();
    fails(&["--root-key-kms", &url, "--kms-pin", &pin, "--kms-token-file", wrong.to_str().unwrap()], "did not decrypt");
}

#[test]
fn a_rack_that_cannot_be_told_of_another_password_gets_no_schedule() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let schedule = |days: &str| door.try_admin(&["rack", "roll", "main", "--org", "acme", "--every-days", days]);
    let days = || door.admin(&["rack", "roll", "main", "--org", "acme", "--status"])["every_days"].as_i64().unwrap();
    // As v3 is: it does not know the path, and has no such parameter.
    rack.fix("/system/password", Some("404 Not Found"));
    let error = schedule("30").unwrap_err();
    assert!(error.contains("cannot be told of another password") && error.contains("add the Rack again"), "{error}");
    let path = "/organizations/acme/racks/main/password";
    let (status, answer) = door.api(&door.key, "PUT", path, &serde_json::json!({ "every_days": 30 }));
    assert!(status == 409 && answer.to_string().contains("cannot be told of another password"), "{status} {answer}");
    assert_eq!(days(), 0);
    // One that does not say is not taken for one that can; one that can is, and need not be asked to have it no longer.
    rack.fix("/system/password", Some("500 Internal Server Error"));
    let error = schedule("30").unwrap_err();
    assert!(error.contains("acme/main could not be asked") && days() == 0, "{error}");
    rack.fix("/system/password", None);
    assert!(schedule("30").is_ok() && days() == 30);
    rack.fix("/system/password", Some("404 Not Found"));
    assert!(schedule("0").is_ok() && days() == 0);
}
