//! While the database takes no events a second log does, and service goes on; each event is in the chains afterwards, once (T34).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use convox_testkit::{SmallDisk, binary, eventually};
use serde_json::Value;
use tempfile::TempDir;

use crate::console::Database;
use crate::{Door, Recorder};

/// A Console with a second log of at most one MiB, and a Rack behind it.
struct Ground {
    rack: Recorder,
    door: Door,
    dir: TempDir,
    key: String,
}

impl Ground {
    fn start() -> Self {
        Self::start_on(|_| {})
    }

    fn start_on(prepare: impl FnOnce(&std::path::Path)) -> Self {
        let (rack, dir) = (Recorder::start("rackPassword1"), TempDir::new().unwrap());
        let spill = dir.path().join("spill");
        let door = Door::open_prepared(&["--audit-spill", spill.to_str().unwrap(), "--audit-spill-limit", "1"], prepare);
        door.add_rack("acme", "main", &rack);
        let key = door.key.clone();
        Self { rack, door, dir, key }
    }

    fn delete(&self, path: &str) -> (u16, String) {
        let reply = self.door.client(&self.key, "acme/main").raw("DELETE", path, &[], b"").unwrap();
        (reply.status, reply.text())
    }

    /// So many requests from four callers, all of them served.
    fn delete_all(&self, prefix: &str, count: usize) {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for number in (thread..count).step_by(4) {
                        let (status, text) = self.delete(&format!("/apps/{prefix}{number}"));
                        assert_eq!(status, 200, "{text}");
                    }
                });
            }
        });
    }

    /// What `/ready` says about the log; empty when nothing is wrong.
    fn fault(&self) -> String {
        let ready = self.door.client("", "").get("/ready", "").unwrap();
        assert_eq!(ready.status, 200, "{}", ready.text());
        let ready = ready.json();
        let check = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == "audit_log").unwrap().clone();
        check["fault"].as_str().unwrap_or_default().to_owned()
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.dir.path().join("spill")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn text(&self) -> String {
        self.files().iter().map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
    }

    /// Until everything is in the database.
    #[track_caller]
    fn carried(&self) {
        let empty = eventually(Duration::from_secs(30), || (self.fault().is_empty() && self.text().is_empty()).then_some(()));
        assert!(empty.is_some(), "{} {}", self.fault(), self.text().len());
    }

    /// What `audit verify --json` says, whole or not.
    fn verify(&self) -> Value {
        let output = Command::new(binary("convox-console"))
            .args(["audit", "verify", "--json", "--audit-spill"])
            .arg(self.dir.path().join("spill"))
            .arg("--data")
            .arg(self.door.data())
            .output()
            .unwrap();
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.success(), value["whole"] == true, "{value}");
        value
    }

    /// How often each request that a Rack was told of is in the log.
    fn lines(&self) -> BTreeMap<String, usize> {
        let all = self.door.admin(&["audit", "list", "--limit", "100000"]);
        let mut lines = BTreeMap::new();
        for event in all.as_array().unwrap().iter().filter(|event| event["action"] == "AppDelete" && event["status"] != 503) {
            *lines.entry(event["path"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        lines
    }

    /// Each request that reached the Rack is in the log, once.
    #[track_caller]
    fn each_is_there_once(&self) {
        let lines = self.lines();
        let hits = self.rack.hits();
        let seen: Vec<&str> =
            hits.iter().filter_map(|hit| hit.line().strip_prefix("DELETE ")).map(|path| path.trim_end_matches('?')).collect();
        assert!(seen.len() > 5);
        let wrong: Vec<&&str> = seen.iter().filter(|path| lines.get(**path) != Some(&1)).collect();
        assert!(wrong.is_empty(), "{wrong:?} of {}", seen.len());
        let found = self.verify();
        assert!(found["whole"] == true && found["waiting"] == 0, "{found}");
    }
}

#[test]
fn while_the_database_takes_no_events_the_second_log_does_and_service_goes_on() {
    let ground = Ground::start();
    // What is in the second log when the Rack hears of a request.
    let (spill, durable): (_, Arc<Mutex<Vec<bool>>>) = (ground.dir.path().join("spill"), Arc::default());
    let kept = Arc::clone(&durable);
    ground.rack.look(move |hit| {
        let Some(path) = hit.line().strip_prefix("DELETE /apps/a").map(|rest| format!("/apps/a{}\"", rest.trim_end_matches('?'))) else {
            return;
        };
        let files = std::fs::read_dir(&spill).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default());
        kept.lock().unwrap().push(files.into_iter().any(|text| text.contains(&path)));
    });
    assert_eq!(ground.delete("/apps/before").0, 200);
    assert!(ground.fault().is_empty() && ground.text().is_empty(), "not used before it is needed");
    let database = Database::open(&ground.door);
    database.run("BEGIN IMMEDIATE");
    let begun = Instant::now();
    ground.delete_all("a", 40);
    let client = ground.door.client(&ground.key, "acme/main");
    assert!(client.socket("/apps/web/processes/p1/exec", &[]).unwrap().is_ok(), "shells too");
    assert!(begun.elapsed() < Duration::from_secs(8), "only the first ones waited: {:?}", begun.elapsed());
    assert_eq!(*durable.lock().unwrap(), [true; 40], "each line is there before its request is at the Rack");
    assert!(ground.fault().contains("wait in the second log"), "{}", ground.fault());
    database.run("ROLLBACK");
    drop(database);
    ground.carried();
    assert_eq!(ground.delete("/apps/after").0, 200);
    ground.each_is_there_once();
    let ended = ground.door.events(|event| event["path"] == "/apps/a7" && event["status"] == 200);
    assert_eq!((ended.len(), &ended[0]["decision"]), (1, &"allowed".into()), "with how it ended");
    assert!(ground.door.console.log().contains("events go to the second log"));
}

#[test]
fn a_full_disk_is_one_too_many_only_when_both_are() {
    if !SmallDisk::is_possible() {
        return;
    }
    let mut disk = None;
    let ground = Ground::start_on(|data| disk = Some(SmallDisk::mount(data, "8m")));
    let small = disk.as_ref().unwrap();
    // Until the database has used up what its files had left.
    let used = eventually(Duration::from_mins(1), || {
        small.fill();
        assert_eq!(ground.delete("/apps/x").0, 200);
        ground.fault().contains("second log").then_some(())
    });
    assert!(used.is_some());
    ground.delete_all("a", 20);
    small.empty();
    ground.carried();
    let lines = ground.lines();
    assert!((0..20).all(|number| lines.get(&format!("/apps/a{number}")) == Some(&1)), "{lines:?}");
    assert_eq!(ground.verify()["whole"], true);
    drop((ground, disk));
}

#[test]
fn when_neither_can_be_written_nothing_but_reads_is_forwarded() {
    let ground = Ground::start();
    let database = Database::open(&ground.door);
    database.run("BEGIN IMMEDIATE");
    let long = "x".repeat(400);
    let refused: Vec<String> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|thread| {
                let (ground, long) = (&ground, &long);
                scope.spawn(move || {
                    for number in 0..2000 {
                        let path = format!("/apps/{long}{thread}-{number}");
                        match ground.delete(&path) {
                            (200, _) => {}
                            (503, text) => {
                                assert!(text.contains("audit log") && text.contains("not forwarded"), "{text}");
                                return path;
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                    panic!("the second log has no bound")
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    for path in &refused {
        assert!(ground.rack.hits_of(&format!("{path}?")).is_empty(), "{path} was refused, and the Rack saw it");
    }
    assert!(ground.text().len() <= 1 << 20, "{}", ground.text().len());
    assert_eq!(ground.door.client(&ground.key, "acme/main").get("/apps/read", "").unwrap().status, 200, "reads need no log");
    // The end of a request is shorter than its beginning, and may still find room.
    let told = eventually(Duration::from_secs(15), || {
        let is_refused = ground.delete(&format!("/apps/{long}")).0 == 503;
        (is_refused && ground.fault().contains("only reads are forwarded")).then_some(())
    });
    assert!(told.is_some(), "{}", ground.fault());
    database.run("ROLLBACK");
    drop(database);
    let again = eventually(Duration::from_secs(15), || (ground.delete("/apps/again").0 == 200).then_some(()));
    assert!(again.is_some());
    ground.carried();
    ground.each_is_there_once();
}

#[test]
fn no_kill_loses_or_doubles_what_waits() {
    let mut ground = Ground::start();
    let database = Database::open(&ground.door);
    database.run("BEGIN IMMEDIATE");
    // More than one batch, with how they ended.
    ground.delete_all("a", 300);
    ground.door.console.kill();
    database.run("ROLLBACK");
    let found = ground.verify();
    assert!(found["whole"] == true && found["waiting"].as_u64() > Some(300), "{found}");
    for round in 0..8_u64 {
        ground.door.console.restart().unwrap();
        // In the middle of carrying, at another moment each time.
        std::thread::sleep(Duration::from_millis(round * 7));
        ground.door.console.kill();
        assert_eq!(ground.verify()["whole"], true, "round {round}");
    }
    ground.door.console.restart().unwrap();
    ground.carried();
    ground.each_is_there_once();
    assert_eq!(ground.lines().len(), 300);
}

#[test]
fn an_edited_line_is_found_and_never_carried_and_those_around_it_are() {
    let mut ground = Ground::start();
    let database = Database::open(&ground.door);
    database.run("BEGIN IMMEDIATE");
    ground.delete_all("a", 10);
    ground.door.console.kill();
    database.run("ROLLBACK");
    drop(database);
    assert_eq!(ground.verify()["whole"], true);
    let file = ground.files().into_iter().find(|path| std::fs::metadata(path).unwrap().len() > 0).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("/apps/a3\"", "/apps/b3\"", 1)).unwrap();
    let found = ground.verify();
    let faults = found["faults"].as_array().unwrap();
    assert!(faults.len() == 1 && faults[0]["what"].as_str().unwrap().contains("was changed"), "{found}");
    ground.door.console.restart().unwrap();
    let told = eventually(Duration::from_secs(20), || ground.fault().contains("changed by somebody").then_some(()));
    assert!(told.is_some(), "{}", ground.fault());
    let lines = ground.lines();
    assert_eq!(lines.len(), 9, "{lines:?}");
    assert!(!lines.contains_key("/apps/a3") && !lines.contains_key("/apps/b3"), "{lines:?}");
    assert!(ground.text().contains("/apps/b3"), "it stays where it can be looked at");
    assert_eq!(ground.verify()["faults"].as_array().unwrap().len(), 1);
}

#[test]
fn a_line_that_the_database_refuses_waits_and_holds_nobody_up() {
    let mut ground = Ground::start();
    let database = Database::open(&ground.door);
    database.run("CREATE TRIGGER cursed BEFORE INSERT ON audit WHEN NEW.app = 'cursed' BEGIN SELECT RAISE(ABORT, 'no'); END");
    for path in ["/apps/cursed", "/apps/good"] {
        assert_eq!(ground.delete(path).0, 200, "{path}");
    }
    let told = eventually(Duration::from_secs(20), || ground.fault().contains("refuses").then_some(()));
    assert!(told.is_some(), "{}", ground.fault());
    let found = ground.verify();
    assert!(found["whole"] == true && found["waiting"].as_u64() >= Some(1), "{found}");
    assert_eq!(ground.lines().keys().collect::<Vec<_>>(), ["/apps/good"]);
    database.run("DROP TRIGGER cursed");
    drop(database);
    assert_eq!(ground.door.console.terminate(), Some(0));
    ground.door.console.restart().unwrap();
    ground.carried();
    assert_eq!(ground.lines().keys().collect::<Vec<_>>(), ["/apps/cursed", "/apps/good"]);
    assert_eq!(ground.verify()["waiting"], 0);
}
