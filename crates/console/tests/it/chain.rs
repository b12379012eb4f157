//! Whoever changes the log afterwards is found out, by the administrator's command and by anybody with an exported file.

use std::process::Command;

use convox_testkit::binary;
use serde_json::Value;

use crate::console::Database;
use crate::{Door, Recorder};

/// What `audit verify --json` says, whole or not.
fn verify(door: &Door, further: &[&str]) -> Value {
    let output = Command::new(binary("convox-console"))
        .args(["audit", "verify", "--json", "--data"])
        .arg(door.data())
        .args(further)
        .output()
        .unwrap();
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.success(), value["whole"] == true, "the exit code tells it: {value}");
    value
}

/// Number and words of each fault.
fn faults(found: &Value) -> Vec<(i64, String)> {
    let fault = |fault: &Value| (fault["number"].as_i64().unwrap(), fault["what"].as_str().unwrap().to_owned());
    found["faults"].as_array().unwrap().iter().map(fault).collect()
}

fn export(door: &Door, args: &[&str]) -> String {
    let output = Command::new(binary("convox-console")).args(["audit", "export", "--data"]).arg(door.data()).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A Console whose server wrote five events of `acme` that have ended, numbers 1 to 10 of its chain.
fn with_events() -> (Recorder, Door) {
    let rack = Recorder::start("rackPassword1");
    let mut door = Door::with_rack(&rack);
    for number in 0..5 {
        assert_eq!(door.client(&door.key, "acme/main").raw("DELETE", &format!("/apps/a{number}"), &[], b"").unwrap().status, 200);
        door.events(|event| event["path"] == format!("/apps/a{number}") && event["status"] == 200);
    }
    assert_eq!(door.console.terminate(), Some(0));
    (rack, door)
}

const CHAIN: &str = "chain = (SELECT id FROM audit_chains WHERE slot = 1 AND org_id <> '')";

/// Runs SQL in which `CHAIN` stands for the server's chain of acme.
fn tamper(door: &Door, text: &str) {
    Database::open(door).run(text.replace("CHAIN", CHAIN).leak());
}

#[test]
fn an_untouched_log_is_whole_in_the_database_and_as_a_file() {
    let (_rack, door) = with_events();
    door.admin(&["user", "add", "bob@example.com"]);
    let found = verify(&door, &[]);
    assert!(found["whole"] == true && found["sealed"] == true && found["unchained"] == 0, "{found}");
    assert!(found["events"].as_i64() > Some(7), "changes of the Console are in it too: {found}");
    let acme = verify(&door, &["--org", "acme"]);
    assert!(acme["chains"].as_i64() < found["chains"].as_i64() && acme["whole"] == true, "{acme}");

    let file = door.dir.path().join("log.jsonl");
    std::fs::write(&file, export(&door, &["--org", "acme", "--format", "chain"])).unwrap();
    let file_text = file.to_str().unwrap();
    let of_file = verify(&door, &["--file", file_text]);
    assert_eq!((&of_file["events"], &of_file["sealed"], &of_file["heads"]), (&acme["events"], &true.into(), &acme["heads"]));
    // Anywhere else, without a database.
    let alone = Command::new(binary("convox-console"))
        .args(["audit", "verify", "--file", file_text])
        .env_remove("CONVOX_DATA")
        .env_remove("CONVOX_ROOT_KEY_FILE")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && words.contains("Whole.") && words.contains("Seals were not checked"), "{words}");
    // A part of it for others: what they may not see is there as its digest, and the rest can be checked.
    let part = export(&door, &["--org", "acme", "--format", "chain", "--effect", "console"]);
    assert!(!part.contains("/apps/a3") && part.contains("\"digest\":\""), "{part}");
    std::fs::write(&file, &part).unwrap();
    let of_part = verify(&door, &["--file", file_text]);
    assert!(of_part["whole"] == true && of_part["left_out"].as_i64() >= Some(10), "{of_part}");
    std::fs::write(&file, part.replace("RackAdd", "RackBad")).unwrap();
    assert_eq!(verify(&door, &["--file", file_text])["whole"], false);
}

#[test]
fn whatever_is_done_to_the_log_is_found_and_named() {
    let (_rack, door) = with_events();
    let copy = |name: &str| std::fs::copy(door.data().join("console.db"), door.dir.path().join(name)).unwrap();
    Database::open(&door).run("PRAGMA wal_checkpoint(TRUNCATE)");
    copy("whole.db");
    for (what, sql, number, words) in [
        (
            "an event is changed",
            "UPDATE audit SET event = replace(event, 'admin@example.com', 'other@example.com'), actor = 'other@example.com' WHERE number = 3 AND CHAIN",
            3,
            "was changed",
        ),
        ("an end is changed", "UPDATE audit_ends SET status = 503 WHERE number = 4 AND CHAIN", 4, "was changed"),
        ("an event is taken out", "DELETE FROM audit WHERE number = 5 AND CHAIN", 5, "missing"),
        (
            "the newest are taken out",
            "DELETE FROM audit WHERE number > 6 AND CHAIN; DELETE FROM audit_ends WHERE number > 6 AND CHAIN",
            7,
            "newest entries are missing",
        ),
        (
            "the oldest are taken out, as if they were old",
            "DELETE FROM audit WHERE number <= 2 AND CHAIN; DELETE FROM audit_ends WHERE number <= 2 AND CHAIN; UPDATE audit_chains SET anchor = 2 WHERE slot = 1 AND org_id <> ''",
            2,
            "beginning of the chain was not set by this Console",
        ),
        (
            "the newest are taken out, and the head set back",
            "DELETE FROM audit WHERE number > 6 AND CHAIN; DELETE FROM audit_ends WHERE number > 6 AND CHAIN; UPDATE audit_chains SET number = 6, link = (SELECT link FROM audit_ends WHERE number = 6 AND CHAIN) WHERE slot = 1 AND org_id <> ''",
            6,
            "head of the chain was not set by this Console",
        ),
        ("an event is hidden from lists", "UPDATE audit SET rack = 'other' WHERE number = 7 AND CHAIN", 7, "columns"),
        (
            "an event is put in",
            "INSERT INTO audit (id, at_ms, actor, org, rack, app, effect, decision, event) SELECT 'ffff' || id, at_ms + 1, actor, org, rack, app, effect, decision, event FROM audit WHERE number = 3 AND CHAIN",
            0,
            "in no chain",
        ),
        ("a chain is taken out", "DELETE FROM audit_chains WHERE slot = 1 AND org_id <> ''", 0, "in no chain"),
    ] {
        std::fs::copy(door.dir.path().join("whole.db"), door.data().join("console.db")).unwrap();
        for beside in ["console.db-wal", "console.db-shm"] {
            let _ = std::fs::remove_file(door.data().join(beside));
        }
        assert_eq!(verify(&door, &[])["whole"], true, "before {what}");
        tamper(&door, sql);
        let found = verify(&door, &[]);
        let faults = faults(&found);
        assert!(faults.iter().any(|(at, fault)| *at == number && fault.contains(words)), "{what}: {faults:?}");
    }
}

#[test]
fn old_events_go_as_the_rule_says_and_the_rest_can_be_checked() {
    let (_rack, mut door) = with_events();
    assert_eq!(door.admin(&["audit", "retention", "--org", "acme", "--keep", "1"])["keep_days"], 1);
    assert_eq!(door.admin(&["audit", "prune"])["removed"], 0);
    // Time does not pass in a test, so rows are made older.
    tamper(
        &door,
        "UPDATE audit SET at_ms = at_ms - 172800000 WHERE (number <= 5 AND CHAIN) \
         OR id = (SELECT MIN(id) FROM audit WHERE org_id <> '' AND org_id = (SELECT org_id FROM audit_chains WHERE slot = 1 AND org_id <> ''))",
    );
    door.admin(&["audit", "retention", "--org", "acme", "--hold", "on"]);
    assert_eq!(door.admin(&["audit", "prune"])["removed"], 0, "nothing goes on hold");
    door.admin(&["audit", "retention", "--org", "acme", "--hold", "off"]);
    let rules = door.admin(&["audit", "retention"]);
    assert_eq!((&rules[0]["organization"], &rules[0]["hold"]), (&"acme".into(), &false.into()));
    let removed = door.admin(&["audit", "prune"])["removed"].as_i64().unwrap();
    assert!(removed >= 6, "three events with their ends, and the first change: {removed}");
    let found = verify(&door, &[]);
    assert!(found["whole"] == true && found["removed"] == removed, "{found}");
    assert_eq!(door.events_now(|event| event["action"] == "AuditPrune").len(), 1, "it is in the log itself");
    // And the server goes on behind it.
    door.console.restart().unwrap();
    assert_eq!(door.client(&door.key, "acme/main").raw("DELETE", "/apps/later", &[], b"").unwrap().status, 200);
    assert_eq!(verify(&door, &[])["whole"], true, "while a server runs");
}

#[test]
fn an_export_has_a_line_for_each_event_however_hostile() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let hostile = r#"=cmd","decision":"allowed\u001b[31m\n"#;
    let head = door.head("GET /nope", &door.key, hostile, "User-Agent: x\r\n");
    assert_eq!(door.raw(head).status, 404);
    door.events(|event| event["action"] == "FindRack");
    let lines = export(&door, &[]);
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), door.events_now(|_| true).len());
    assert!(events.iter().any(|event| event["rack"].as_str().unwrap().contains("=cmd") && event["decision"] == "refused"), "{lines}");
    assert!(!lines.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{lines:?}");
    let csv = export(&door, &["--format", "csv"]);
    assert_eq!(csv.lines().count(), events.len() + 1, "one event is one line there too: {csv:?}");
    // A file is never overwritten, and is its owner's.
    let out = door.dir.path().join("out");
    export(&door, &["--out", out.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), events.len());
    let again = Command::new(binary("convox-console")).args(["audit", "export", "--data"]).arg(door.data()).arg("--out").arg(&out).output();
    assert!(String::from_utf8_lossy(&again.unwrap().stderr).contains("never overwritten"));
}

#[test]
fn a_chain_that_is_taken_out_as_a_whole_is_missed_and_so_is_an_end_that_is_put_in() {
    const ALL: &str =
        "DELETE FROM audit WHERE CHAIN; DELETE FROM audit_ends WHERE CHAIN; DELETE FROM audit_chains WHERE slot = 1 AND org_id <> ''";
    let (_rack, door) = with_events();
    // Anything that happens after it was there.
    door.admin(&["user", "add", "bob@example.com"]);
    tamper(
        &door,
        "INSERT INTO audit_ends (event_id, status, bytes_up, bytes_down, duration_ms, chain, number, link) VALUES ('x', 200, 0, 0, 0, 999, 1, x'')",
    );
    let found = faults(&verify(&door, &[]));
    assert!(found.len() == 1 && found[0].1.contains("the end of this event is in no chain"), "{found:?}");
    tamper(&door, "DELETE FROM audit_ends WHERE chain = 999");
    assert_eq!(verify(&door, &[])["whole"], true);
    // With its row, its events and how they ended: nothing of it is left to be wrong.
    tamper(&door, ALL);
    for args in [&[][..], &["--org", "acme"]] {
        let found = faults(&verify(&door, args));
        assert!(!found.is_empty() && found.iter().all(|(_, what)| what.contains("taken out as a whole")), "{args:?}: {found:?}");
    }
}

#[test]
fn the_register_misses_a_chain_that_nothing_followed_and_knows_an_event_that_was_backdated() {
    let (_rack, door) = with_events();
    let copy = door.dir.path().join("whole.db");
    Database::open(&door).run("PRAGMA wal_checkpoint(TRUNCATE)");
    std::fs::copy(door.data().join("console.db"), &copy).unwrap();
    for (what, sql, words) in [
        // No head has moved since.
        (
            "the newest chain",
            "DELETE FROM audit WHERE CHAIN; DELETE FROM audit_ends WHERE CHAIN; DELETE FROM audit_chains WHERE slot = 1 AND org_id <> ''",
            "taken out as a whole",
        ),
        (
            "a backdated event",
            "INSERT INTO audit (id, at_ms, actor, org, rack, app, effect, decision, event) SELECT '0000' || id, 1, actor, org, rack, app, effect, decision, event FROM audit WHERE number = 3 AND CHAIN",
            "as if they were from before there were chains",
        ),
        ("the register", "DELETE FROM audit_register", "the register of the chains was taken out"),
        ("the register's number", "UPDATE audit_register SET unchained = 1", "register of the chains was not set by this Console"),
    ] {
        std::fs::copy(&copy, door.data().join("console.db")).unwrap();
        for beside in ["console.db-wal", "console.db-shm"] {
            let _ = std::fs::remove_file(door.data().join(beside));
        }
        assert_eq!(verify(&door, &[])["whole"], true, "before {what}");
        tamper(&door, sql);
        // Twice: what opens the database does not make it good again.
        for args in [&[][..], &["--org", "acme"], &[]] {
            let found = faults(&verify(&door, args));
            assert!(found.iter().any(|(_, fault)| fault.contains(words)), "{what} {args:?}: {found:?}");
        }
    }
}
