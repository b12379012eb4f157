//! Nothing that was confirmed is lost: `kill -9` of Console and Rack at random moments of a scripted workload. Every answer
//! given before the kill is there after it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use convox_testkit::go::{Generation, GoClient};
use convox_testkit::{Stack, eventually};

/// Kills of each server; `CONVOX_TEST_KILLS` for longer runs.
fn kills() -> u32 {
    std::env::var("CONVOX_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// Ready again after a crash, by the promise (T35).
const READY: Duration = Duration::from_secs(2);

/// A small generator of random moments, seeded so that a failure can be run again.
struct Moments(u64, u64);

impl Moments {
    fn new() -> Self {
        let seed = std::env::var("CONVOX_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64 | 1)
        });
        println!("CONVOX_TEST_SEED={seed}");
        Self(seed, seed)
    }

    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// What the server confirmed: app -> parameter value and newest release, or `None` for a confirmed deletion.
type Confirmed = BTreeMap<String, Option<(Option<String>, Option<String>)>>;

/// Creates, changes and deletes apps until told to stop, and keeps what was confirmed. An unanswered request confirms
/// nothing: its app is left out of the comparison from then on.
fn work(client: &GoClient, round: u32, confirmed: &mut Confirmed, stop: &AtomicBool) {
    for step in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let app = format!("r{round}s{step}");
        let Ok(made) = client.form("POST", "/apps", &[("name", &app)]) else { return };
        if made.status != 200 {
            return;
        }
        confirmed.insert(app.clone(), Some((None, None)));
        let path = format!("/apps/{app}");
        let value = (1 + step % 3650).to_string();
        let before = confirmed.remove(&app);
        let Ok(changed) = client.form("PUT", &path, &[("parameters", &format!("LogRetention={value}"))]) else { return };
        if changed.status != 200 {
            return;
        }
        if let Some(Some((_, release))) = before {
            confirmed.insert(app.clone(), Some((Some(value), release)));
        }
        let before = confirmed.remove(&app);
        let Ok(released) = client.form("POST", &format!("{path}/releases"), &[("env", &format!("STEP={step}"))]) else { return };
        if released.status != 200 {
            return;
        }
        let id = released.json()["id"].as_str().map(str::to_owned);
        if let Some(Some((value, _))) = before {
            confirmed.insert(app.clone(), Some((value, id)));
        }
        if step % 3 == 2 {
            confirmed.remove(&app);
            match client.raw("DELETE", &path, &[], b"") {
                Ok(reply) if reply.status == 200 => confirmed.insert(app, None),
                _ => return,
            };
        }
    }
}

/// Everything in `confirmed` is as it was said.
fn verify(client: &GoClient, confirmed: &Confirmed) {
    for (app, expected) in confirmed {
        let reply = client.get(&format!("/apps/{app}"), "").unwrap();
        let Some((value, release)) = expected else {
            // Deletion was confirmed; it may still be under way, but never undone.
            let gone = eventually(Duration::from_secs(10), || {
                let reply = client.get(&format!("/apps/{app}"), "").unwrap();
                (reply.status == 404).then_some(())
            });
            assert!(gone.is_some(), "{app} was deleted and is back: {}", reply.text());
            continue;
        };
        assert_eq!(reply.status, 200, "{app} was confirmed and is lost: {}", reply.text());
        if let Some(value) = value {
            assert_eq!(reply.json()["parameters"]["LogRetention"], value.as_str(), "{app}");
        }
        if let Some(release) = release {
            let found = client.get(&format!("/apps/{app}/releases/{release}"), "").unwrap();
            assert_eq!(found.json()["id"], release.as_str(), "{app}: a confirmed release is lost");
        }
    }
}

/// For `bench/crash`.
fn tell(what: &str, confirmed: usize, slowest: Duration, begun: Instant, moments: &Moments) {
    convox_testkit::figures(&serde_json::json!({
        "what": what, "kills": kills(), "changes": confirmed, "slowest_start_ms": slowest.as_millis() as u64,
        "seconds": begun.elapsed().as_secs_f64(), "seed": moments.1,
    }));
}

#[test]
fn crash_of_the_rack_loses_nothing_that_it_confirmed() {
    let mut stack = Stack::start().unwrap();
    let mut moments = Moments::new();
    let client = stack.go_direct(Generation::V3);
    let (mut confirmed, mut slowest, begun) = (Confirmed::new(), Duration::ZERO, Instant::now());
    for round in 0..kills() {
        let stop = AtomicBool::new(false);
        let wait = Duration::from_micros(moments.next(120_000));
        let mut here = Confirmed::new();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| work(&client, round, &mut here, &stop));
            std::thread::sleep(wait);
            stack.rack.kill();
            stop.store(true, Ordering::Relaxed);
            worker.join().unwrap();
        });
        stack.rack.restart().unwrap_or_else(|error| panic!("round {round}: {error}"));
        slowest = slowest.max(stack.rack.ready_after);
        assert!(slowest <= READY, "round {round}: ready after {slowest:?}");
        verify(&client, &here);
        confirmed.extend(here);
    }
    verify(&client, &confirmed);
    println!("{} confirmed changes over {} kills of the Rack; slowest start {slowest:?}", confirmed.len(), kills());
    tell("kills of the Rack", confirmed.len(), slowest, begun, &moments);
    assert!(!confirmed.is_empty(), "the workload confirmed nothing, so nothing was tested");
}

#[test]
fn crash_of_the_console_loses_nothing_that_it_confirmed() {
    let mut stack = Stack::start().unwrap();
    let mut moments = Moments::new();
    let mut keys: Vec<(String, String, bool)> = Vec::new(); // name, key, alive
    let (mut rack_side, mut slowest, begun) = (Confirmed::new(), Duration::ZERO, Instant::now());
    for round in 0..kills() {
        let admin = stack.go(Generation::V3);
        let wait = Duration::from_micros(moments.next(400_000));
        let stop = AtomicBool::new(false);
        let mut here = Confirmed::new();
        let mut made = Vec::new();
        let api = GoClient { rack: None, ..admin.clone() };
        std::thread::scope(|scope| {
            // Half of the work is Console's own: keys made and revoked through its API. Half goes through it to the Rack.
            let through = scope.spawn(|| work(&admin, round, &mut here, &stop));
            let own = scope.spawn(|| {
                for step in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("r{round}s{step}");
                    let Ok(reply) =
                        api.send("POST", "/api/v1/keys", "", "application/json", &[], format!("{{\"name\":\"{name}\"}}").as_bytes())
                    else {
                        return;
                    };
                    if reply.status / 100 != 2 {
                        return;
                    }
                    let json = reply.json();
                    let (Some(id), Some(key)) = (json["id"].as_str(), json["api_key"].as_str()) else { panic!("{json}") };
                    if step % 2 == 0 {
                        made.push((name, key.to_owned(), true));
                        continue;
                    }
                    match api.raw("DELETE", &format!("/api/v1/keys/{id}"), &[], b"") {
                        Ok(reply) if reply.status / 100 == 2 => made.push((name, key.to_owned(), false)),
                        _ => return,
                    }
                }
            });
            std::thread::sleep(wait);
            stack.console.kill();
            stop.store(true, Ordering::Relaxed);
            through.join().unwrap();
            own.join().unwrap();
        });
        stack.console.restart().unwrap_or_else(|error| panic!("round {round}: {error}"));
        slowest = slowest.max(stack.console.ready_after);
        assert!(slowest <= READY, "round {round}: ready after {slowest:?}");
        for (name, key, alive) in &made {
            let reply = GoClient { password: key.clone(), ..api.clone() }.get("/auth", "").unwrap();
            assert_eq!(reply.status, if *alive { 200 } else { 401 }, "round {round}: key {name}");
        }
        verify(&admin, &here);
        keys.extend(made);
        rack_side.extend(here);
    }
    let admin = stack.go(Generation::V3);
    verify(&admin, &rack_side);
    println!("{} keys and {} apps confirmed over {} kills of the Console; slowest start {slowest:?}", keys.len(), rack_side.len(), kills());
    tell("kills of the Console", keys.len() + rack_side.len(), slowest, begun, &moments);
    assert!(!keys.is_empty() && !rack_side.is_empty(), "the workload confirmed nothing, so nothing was tested");
    // Promise 2: what reached the Rack was in the audit log before.
    let audit = stack.admin(&["audit", "list", "--limit", "100000"]).unwrap().to_string();
    for app in rack_side.keys() {
        assert!(audit.contains(&format!("/apps/{app}")) || rack_side.is_empty(), "{app} changed without an audit event");
    }
}

#[test]
fn crash_of_the_rack_leaves_its_apps_running_and_finds_them_again() {
    let mut stack = Stack::start().unwrap();
    let source = crate::example(&stack, "hello-web");
    let cli = stack.direct();
    cli.run(&["apps", "create", "lasting"]).ok();
    cli.at(&source).run(&["deploy", "-a", "lasting", "--wait"]).ok();
    let pids = |cli: &convox_testkit::Cli| cli.run(&["ps", "-a", "lasting", "--json"]).json();
    let before = pids(&cli);
    for _ in 0..3 {
        stack.rack.kill();
        stack.rack.restart().unwrap();
        let found = eventually(Duration::from_secs(10), || {
            let now = pids(&cli);
            (now[0]["id"] == before[0]["id"] && now[0]["status"] == "running").then_some(())
        });
        assert!(found.is_some(), "the same process is found again: {before} {}", pids(&cli));
    }
    cli.run(&["apps", "delete", "lasting"]).ok();
}
