//! When the power goes, what was confirmed is there, what was revoked stays revoked, and nothing is there by half (T35). A real server works under
//! `strace`, is killed and works again; then its disk is put together as it might be after a cut at thousands of moments, with any part of what
//! was not synced (`convox_testkit::power`).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use convox_testkit::power::{Choices, Disk, Recording, now_us, recorder};
use convox_testkit::{Server, binary};
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use crate::limits::{Browser, half_way, with_password};
use crate::{Door, Recorder};

/// Ready again, by the promise.
const READY: Duration = Duration::from_secs(2);
/// What each caller does in each of the two runs of the server.
const STEPS: usize = 12;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What one caller saw, one step after the other.
struct Lane {
    /// Of what it changes, in SQL: one text.
    observed: &'static str,
    /// Before the first step.
    first: String,
    steps: Vec<Step>,
    /// Every key that it was given, by its last four characters.
    keys: BTreeMap<String, String>,
}

struct Step {
    sent_us: u64,
    answered_us: u64,
    /// From then on, until the next step is sent.
    state: String,
}

impl Lane {
    fn new(observed: &'static str, first: &str) -> Self {
        Self { observed, first: first.to_owned(), steps: Vec::new(), keys: BTreeMap::new() }
    }

    /// Does something, which leads to a state.
    fn step(&mut self, act: impl FnOnce(&mut BTreeMap<String, String>) -> String) {
        let sent_us = now_us();
        let state = act(&mut self.keys);
        self.steps.push(Step { sent_us, answered_us: now_us(), state });
    }

    /// The states that are right when nothing happened from `until_us` on: that of the last answer, and those of what was sent and not answered.
    fn right(&self, until_us: Option<u64>) -> Vec<&str> {
        let until_us = until_us.unwrap_or(u64::MAX);
        let confirmed = self.steps.iter().take_while(|step| step.answered_us < until_us).count();
        let sent = self.steps.iter().take_while(|step| step.sent_us < until_us).count();
        let state = |count: usize| count.checked_sub(1).and_then(|last| self.steps.get(last)).map_or(&*self.first, |step| &step.state);
        (confirmed..=sent).map(state).collect()
    }
}

const KEYS: [&str; 2] = [
    "SELECT COALESCE(GROUP_CONCAT(name || '=' || last4, ' '), '') FROM (SELECT name, last4 FROM keys WHERE name LIKE 'a-%' ORDER BY name)",
    "SELECT COALESCE(GROUP_CONCAT(name || '=' || last4, ' '), '') FROM (SELECT name, last4 FROM keys WHERE name LIKE 'b-%' ORDER BY name)",
];
const RACK: &str = "SELECT COALESCE(GROUP_CONCAT(orgs.name), '') FROM racks JOIN orgs ON orgs.id = racks.org_id WHERE racks.name = 'main'";
const REQUESTS: &str = "SELECT CAST(COUNT(*) AS TEXT) FROM audit WHERE event LIKE '%\"/apps/power-%'";

fn text(keys: &BTreeMap<String, (String, String)>) -> String {
    keys.iter().map(|(name, (_, last4))| format!("{name}={last4}")).collect::<Vec<_>>().join(" ")
}

/// Creates, rolls and revokes keys.
fn keys(door: &Door, lane: &mut Lane, letter: char, run: usize, alive: &mut BTreeMap<String, (String, String)>) {
    for step in 0..STEPS {
        lane.step(|made| {
            let (method, path, name) = match step % 4 {
                0 | 1 => ("POST", "/keys".to_owned(), format!("{letter}-{run}-{step:03}")),
                2 => {
                    let (name, (id, _)) = alive.iter().next().unwrap();
                    ("POST", format!("/keys/{id}/roll"), name.clone())
                }
                _ => {
                    let (name, (id, _)) = alive.iter().next_back().unwrap();
                    ("DELETE", format!("/keys/{id}"), name.clone())
                }
            };
            let body = if path == "/keys" { json!({ "name": name }) } else { Value::Null };
            let (status, answer) = door.api(&door.key, method, &path, &body);
            assert_eq!(status, 200, "{method} {path}: {answer}");
            let words = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
            if method == "DELETE" {
                alive.remove(&name);
            } else {
                made.insert(words("last4"), words("api_key"));
                alive.insert(name, (words("id"), words("last4")));
            }
            text(alive)
        });
    }
}

/// Moves the Rack between two organizations.
fn moves(lane: &mut Lane, browser: &mut Browser) {
    for _ in 0..STEPS {
        let here = lane.right(None)[0].to_owned();
        let there = if here == "acme" { "other" } else { "acme" };
        lane.step(|_| {
            let reply = browser.post(&format!("/console/racks/{here}/main/move"), &format!("organization={there}"));
            assert_eq!(reply.status, 303, "{}", reply.text());
            there.to_owned()
        });
    }
}

/// Changes something at a Rack: the line is on the disk before.
fn requests(door: &Door, lane: &mut Lane, run: usize) {
    for step in 0..STEPS {
        let before: usize = lane.right(None)[0].parse().unwrap();
        lane.step(|_| {
            let rack = if step % 2 == 0 { "lab" } else { "acme/lab" };
            assert_eq!(door.client(&door.key, rack).raw("DELETE", &format!("/apps/power-{run}-{step}"), &[], b"").unwrap().status, 200);
            (before + 1).to_string()
        });
    }
}

/// Everything that is wrong with a disk.
async fn wrong(dir: &Path, disk: &Disk, lanes: &[Lane], is_thorough: bool) -> Vec<String> {
    let path = dir.join("console.db");
    let mut wrong = Vec::new();
    {
        let mut database = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).disable_statement_logging().connect().await.unwrap();
        let check: Vec<(String,)> = sqlx::query_as("PRAGMA integrity_check").fetch_all(&mut database).await.unwrap();
        let strays: Vec<(String,)> =
            sqlx::query_as("SELECT \"table\" FROM pragma_foreign_key_check").fetch_all(&mut database).await.unwrap();
        if check != [("ok".to_owned(),)] || !strays.is_empty() {
            wrong.push(format!("{check:?} {strays:?}"));
        }
        for lane in lanes {
            let (found,): (String,) = sqlx::query_as(lane.observed).fetch_one(&mut database).await.unwrap();
            let right = lane.right(disk.until_us);
            if !right.contains(&&*found) {
                wrong.push(format!("{found:?} is none of {right:?}"));
            }
        }
        database.close().await.unwrap();
    }
    if is_thorough {
        // As the server opens it.
        let store = convox_store::Store::new(convox_db::Db::open_sqlite(&path).await.unwrap()).await.unwrap();
        for chain in store.list_chains(None).await.unwrap() {
            wrong.extend(store.check_chain(&chain).await.unwrap().1.into_iter().map(|fault| format!("{fault:?}")));
        }
        wrong.extend(store.check_outside(None).await.unwrap().1.into_iter().map(|fault| format!("{fault:?}")));
        store.close().await;
    }
    wrong
}

/// A real server on that disk: how long it took to be ready.
fn starts(door: &Door, disk: &Disk, lanes: &[Lane]) -> Duration {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::copy(door.data().join("root.key"), data.join("root.key")).unwrap();
    disk.write(&data).unwrap();
    let verified = Command::new(binary("convox-console")).args(["audit", "verify", "--json", "--data"]).arg(&data).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    let server = Server::start("convox-console", &["serve", "--data", data.to_str().unwrap()], &dir.path().join("log")).unwrap();
    for lane in lanes {
        let right = lane.right(disk.until_us);
        for (last4, key) in &lane.keys {
            let client =
                convox_testkit::GoClient { host: server.host.clone(), fingerprint: server.fingerprint, ..door.client(key, "acme/lab") };
            let (status, may) = (client.get("/auth", "").unwrap().status, |state: &&&str| state.contains(&format!("={last4}")));
            match right.iter().filter(may).count() {
                0 => assert_eq!(status, 401, "a key that was revoked, or not made, is good after the cut"),
                all if all == right.len() => assert_eq!(status, 200, "a key that was confirmed is gone"),
                _ => assert!(matches!(status, 200 | 401), "{status}"),
            }
        }
    }
    server.ready_after
}

/// Disks come and go by the thousand.
fn in_memory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

#[test]
fn a_cut_of_the_power_at_any_moment_loses_nothing_that_was_confirmed_and_leaves_nothing_by_half() {
    let (cuts, seed) = (number("CONVOX_TEST_CUTS", 300) as usize, number("CONVOX_TEST_SEED", now_us()));
    println!("CONVOX_TEST_SEED={seed}");
    let rack = Recorder::start("rackPassword1");
    let mut door = Door::with_rack(&rack);
    door.add_rack("acme", "lab", &rack);
    let (status, made) = door.api(&door.key, "POST", "/organizations", &json!({ "name": "other" }));
    assert_eq!(status, 200, "{made}");
    with_password(&door, "admin@example.com");
    assert_eq!(door.console.terminate(), Some(0));
    let base = Recording::before(&door.data(), "console.db").unwrap();

    let mut lanes = [Lane::new(KEYS[0], ""), Lane::new(KEYS[1], ""), Lane::new(RACK, "acme"), Lane::new(REQUESTS, "0")];
    let (mut alive, mut traces) = ([BTreeMap::new(), BTreeMap::new()], Vec::new());
    for run in 0..2 {
        let trace = door.dir.path().join(format!("trace{run}"));
        door.console.run_under(recorder(&trace));
        door.console.restart().unwrap();
        traces.push(trace);
        {
            let (door, [a, b, c, d], [alive_a, alive_b]) = (&door, &mut lanes, &mut alive);
            std::thread::scope(|scope| {
                scope.spawn(|| keys(door, a, 'a', run, alive_a));
                scope.spawn(|| keys(door, b, 'b', run, alive_b));
                scope.spawn(|| moves(c, &mut half_way(&door.console)));
                scope.spawn(|| requests(door, d, run));
            });
        }
        // What it wrote and did not sync stays as it is, and is picked up by the next one.
        door.console.kill();
    }
    let recording = Recording::read(base, &door.data(), "console.db", &traces).unwrap();
    let (writes, syncs) = recording.counts();
    assert!(writes > 500 && syncs > 100, "{writes} writes and {syncs} syncs: the recording is not whole");

    let begun = Instant::now();
    let (next, thorough) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= cuts {
                        return;
                    }
                    let mut choices = Choices::new(seed.wrapping_add(number as u64));
                    let moment = choices.below(recording.moments() as u64 + 1) as usize;
                    let disk = recording.cut(moment, &mut choices);
                    let dir = in_memory();
                    disk.write(dir.path()).unwrap();
                    let is_thorough = number % 10 == 0;
                    thorough.fetch_add(usize::from(is_thorough), Ordering::Relaxed);
                    let wrong = runtime.block_on(wrong(dir.path(), &disk, &lanes, is_thorough));
                    assert!(wrong.is_empty(), "seed {seed}, cut {number} at moment {moment}: {wrong:?}");
                }
            });
        }
    });
    let checked = begun.elapsed();
    let mut slowest = Duration::ZERO;
    let real = (cuts / 100).clamp(2, 40);
    for number in 0..real {
        let mut choices = Choices::new(seed.wrapping_sub(number as u64 + 1));
        let moment = choices.below(recording.moments() as u64 + 1) as usize;
        slowest = slowest.max(starts(&door, &recording.cut(moment, &mut choices), &lanes));
    }
    assert!(slowest <= READY, "a server was ready after {slowest:?}");
    let steps: usize = lanes.iter().map(|lane| lane.steps.len()).sum();
    println!("{cuts} cuts among {writes} writes and {syncs} syncs of {steps} confirmed changes in {checked:?}; slowest start {slowest:?}");
    convox_testkit::figures(&json!({
        "what": "cuts", "cuts": cuts, "writes": writes, "syncs": syncs, "changes": steps, "started": real, "thorough": thorough.into_inner(),
        "slowest_start_ms": slowest.as_millis() as u64, "seconds": checked.as_secs_f64(), "seed": seed,
    }));
}
