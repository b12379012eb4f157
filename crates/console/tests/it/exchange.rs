//! A running Console is exchanged for another one, and nobody notices.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use convox_testkit::go::{Generation, GoClient, Message, connect, read_reply};
use convox_testkit::{Server, eventually};

use crate::{Door, Recorder};

/// What callers saw.
#[derive(Default)]
struct Seen {
    good: AtomicU64,
    bad: std::sync::Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Seen {
    fn note(&self, outcome: Result<u16, String>) {
        match outcome {
            Ok(200) => drop(self.good.fetch_add(1, Ordering::Relaxed)),
            Ok(status) => self.bad.lock().unwrap().push(status.to_string()),
            Err(error) => self.bad.lock().unwrap().push(error),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Waits for so many more requests.
    fn more(&self, count: u64) {
        let than = self.good.load(Ordering::Relaxed) + count;
        assert!(eventually(Duration::from_mins(1), || (self.good.load(Ordering::Relaxed) >= than).then_some(())).is_some());
    }
}

/// Whoever asks stops when the test does.
struct Stop<'a>(&'a Seen);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// A connection for each request.
fn anew(client: &GoClient, seen: &Seen) {
    while seen.goes_on() {
        seen.note(client.get("/apps", "").map(|reply| reply.status).map_err(|error| format!("anew: {error:#}")));
    }
}

/// One connection for as long as the server keeps it.
fn kept(client: &GoClient, seen: &Seen) {
    let credential = base64::engine::general_purpose::STANDARD.encode(format!("convox:{}", client.password));
    let ask = format!("GET /apps HTTP/1.1\r\nHost: {}\r\nRack: acme/main\r\nAuthorization: Basic {credential}\r\n\r\n", client.host);
    while seen.goes_on() {
        let mut stream = match connect(&client.host, &client.fingerprint) {
            Ok(stream) => stream,
            Err(error) => {
                seen.note(Err(format!("connect: {error:#}")));
                continue;
            }
        };
        while seen.goes_on() {
            let asked = stream.write_all(ask.as_bytes()).and_then(|()| stream.flush()).map_err(anyhow::Error::from);
            let reply = asked.and_then(|()| read_reply(&mut stream, false));
            let is_last = reply.as_ref().map_or(true, |reply| reply.header("connection") == Some("close"));
            seen.note(reply.map(|reply| reply.status).map_err(|error| format!("kept: {error:#}")));
            if is_last {
                break;
            }
        }
    }
}

#[test]
fn one_server_takes_over_from_another_without_a_failed_request() {
    let rack = Recorder::start("rackPassword1");
    let mut door = Door::open_with(&["--metrics-listen", "127.0.0.1:0", "--shards", "2"]);
    door.add_rack("acme", "main", &rack);
    let client = GoClient { generation: Generation::V3, ..door.client(&door.key, "acme/main") };
    let Ok(mut shell) = client.socket("/apps/web/processes/p1/exec", &[]).unwrap() else { panic!("opens") };
    let seen = Seen::default();
    let data = door.data();
    let next = |number: usize, more: &[&str]| {
        let args = ["serve", "--data", data.to_str().unwrap(), "--metrics-listen", "127.0.0.1:0", "--take-over"];
        Server::start("convox-console", &[&args[..], more].concat(), &door.dir.path().join(format!("log-{number}")))
    };
    // One that cannot start leaves the running one alone.
    assert!(next(0, &["--root-key-file", "/nowhere"]).is_err());
    let mut last = std::thread::scope(|scope| {
        let _stop = Stop(&seen);
        for _ in 0..2 {
            scope.spawn(|| anew(&client, &seen));
            scope.spawn(|| kept(&client, &seen));
        }
        seen.more(50);
        let (host, metrics) = (door.console.host.clone(), door.console.metrics.clone());
        let node = || {
            let (status, text) = crate::observed::get(metrics.as_deref().unwrap(), "/metrics");
            assert_eq!(status, 200);
            text.lines().find(|line| line.starts_with("convox_console_info")).unwrap().to_owned()
        };
        let before = node();
        let mut running = next(1, &[]).unwrap();
        assert_eq!((&running.host, &running.metrics), (&host, &metrics), "on the same sockets");
        let told = eventually(Duration::from_secs(5), || {
            let all: std::collections::BTreeSet<String> = (0..20).map(|_| node()).collect();
            (all.len() == 1 && !all.contains(&before)).then_some(())
        });
        assert!(told.is_some(), "whoever watches hears of the new one, and of it alone");
        let mut shell_ended = String::new();
        while let Message::Text(text) = shell.receive().unwrap() {
            shell_ended.push_str(&String::from_utf8_lossy(&text));
        }
        assert!(shell_ended.contains("restarting"), "what cannot be handed over is told why it ends: {shell_ended}");
        assert_eq!(door.console.wait(Duration::from_secs(30)), Some(0), "the old one ends by itself");
        for number in 2..4 {
            seen.more(50);
            let new = next(number, &[]).unwrap();
            assert_eq!(running.wait(Duration::from_secs(30)), Some(0));
            running = new;
        }
        seen.more(50);
        running
    });
    assert_eq!(last.terminate(), Some(0));
    let bad = seen.bad.lock().unwrap();
    let good = seen.good.load(Ordering::Relaxed);
    assert!(bad.is_empty(), "{} of {good} failed: {:?}", bad.len(), bad.iter().take(5).collect::<Vec<_>>());
    let nobody = next(9, &[]).map(|_| ()).unwrap_err().to_string();
    assert!(nobody.contains("no server runs on"), "{nobody}");
}

/// What a service manager hears, as systemd would listen.
struct Manager {
    socket: std::os::unix::net::UnixDatagram,
    path: String,
}

impl Manager {
    fn listen(dir: &std::path::Path) -> Self {
        let path = dir.join("notify").to_str().unwrap().to_owned();
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { socket, path }
    }

    fn heard(&self) -> String {
        let mut bytes = [0; 256];
        let count = self.socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }
}

#[test]
fn a_service_manager_is_told_which_process_serves() {
    let dir = tempfile::TempDir::new().unwrap();
    let manager = Manager::listen(dir.path());
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let program = convox_testkit::binary("convox-console");
    let key = data.join("root.key");
    assert!(std::process::Command::new(&program).args(["root-key", "--out"]).arg(&key).status().unwrap().success());
    let args = ["serve", "--data", data.to_str().unwrap()];
    let env = [("NOTIFY_SOCKET", manager.path.as_str())];
    let mut first = Server::start_with("convox-console", &args, &env, &dir.path().join("log")).unwrap();
    assert_eq!(manager.heard(), format!("MAINPID={}\nREADY=1", first.pid()));
    // As `ExecReload=` does: a command that ends, and leaves a server behind.
    let (host, log) = (first.host.clone(), dir.path().join("log-exchange"));
    let exchange = |more: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command.args(args).args(["--listen", &host, "--take-over", "--detach"]).args(more).env("NOTIFY_SOCKET", &manager.path);
        // The server that it leaves behind goes on to write there.
        let output = command.stderr(std::fs::File::create(&log).unwrap()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), std::fs::read_to_string(&log).unwrap())
    };
    let (code, _, words) = exchange(&["--root-key-file", "/nowhere"]);
    assert!(code == Some(1) && words.contains("/nowhere") && words.contains("the running one goes on"), "{words}");
    let (code, said, words) = exchange(&[]);
    assert!(code == Some(0) && said.ends_with("took over from the running server\n"), "{said}{words}");
    let told = manager.heard();
    let second = told.strip_prefix("MAINPID=").and_then(|rest| rest.strip_suffix("\nREADY=1")).unwrap().parse::<i32>().unwrap();
    assert_ne!(second.unsigned_abs(), first.pid());
    assert_eq!(first.wait(Duration::from_secs(30)), Some(0), "the old one ends");
    assert!(connect(&host, &first.fingerprint).is_ok(), "the new one serves");
    let pid = rustix::process::Pid::from_raw(second).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // The old one did not say that the service ends; this one does.
    assert_eq!(manager.heard(), "STOPPING=1");
    assert!(eventually(Duration::from_secs(30), || rustix::process::test_kill_process(pid).is_err().then_some(())).is_some());
}

#[test]
fn writes_and_revocations_go_on_while_a_server_is_exchanged() {
    let rack = Recorder::start("rackPassword1");
    let mut door = Door::with_rack(&rack);
    let data = door.data();
    let writes = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let (admin, worker) = (door.client(&door.key, "acme/main"), door.client(&door.key, "acme/main"));
    let mut last = std::thread::scope(|scope| {
        // Everybody stops when this thread does, whatever ends it.
        let writing = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let number = writes.load(Ordering::Relaxed);
                let reply = worker.form("POST", "/apps", &[("name", &format!("app-{number}"))]).map_err(|error| format!("{error:#}"))?;
                if reply.status != 200 {
                    return Err(format!("write {number}: {} {}", reply.status, reply.text()));
                }
                writes.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        // A key is made, used, revoked, and dead when that is answered, whichever server answers.
        let revoking = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let made = admin.send("POST", "/api/v1/keys", "", "application/json", &[], br#"{"name":"short"}"#).unwrap();
                let made: serde_json::Value = serde_json::from_str(&made.text()).unwrap();
                let client = GoClient {
                    generation: Generation::V3,
                    host: admin.host.clone(),
                    fingerprint: admin.fingerprint,
                    user: admin.user.clone(),
                    password: made["api_key"].as_str().unwrap().to_owned(),
                    rack: admin.rack.clone(),
                };
                assert_eq!(client.get("/apps", "").unwrap().status, 200);
                let path = format!("/api/v1/keys/{}", made["id"].as_str().unwrap());
                let revoked = admin.send("DELETE", &path, "", "application/json", &[], b"").unwrap();
                assert_eq!(revoked.status, 200, "{}", revoked.text());
                for _ in 0..4 {
                    // So many refusals that the network is told to wait; good keys are not.
                    let status = client.get("/apps", "").unwrap().status;
                    assert!(matches!(status, 401 | 429), "{status} after its revocation was answered");
                }
                count += 1;
            }
            count
        });
        let mut running = None;
        let exchanged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for number in 1..4 {
                let than = writes.load(Ordering::Relaxed) + 20;
                let goes_on = || (writes.load(Ordering::Relaxed) >= than || writing.is_finished() || revoking.is_finished()).then_some(());
                eventually(Duration::from_secs(30), goes_on).expect("writes go on");
                let args = ["serve", "--data", data.to_str().unwrap(), "--take-over"];
                let new = Server::start("convox-console", &args, &door.dir.path().join(format!("log-{number}"))).unwrap();
                let mut old = running.replace(new);
                assert_eq!(old.as_mut().unwrap_or(&mut door.console).wait(Duration::from_secs(30)), Some(0));
            }
        }));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(writing.join().unwrap(), Ok(()));
        assert!(revoking.join().unwrap() > 3);
        exchanged.unwrap();
        running.unwrap()
    });
    // What was answered is in the log, once, and the log is whole.
    let events = door.admin(&["audit", "list", "--limit", "100000"]);
    let of = |action: &str| events.as_array().unwrap().iter().filter(|event| event["action"] == action).count() as u64;
    assert_eq!(of("AppCreate"), writes.load(Ordering::Relaxed));
    assert_eq!(of("KeyRevoke"), of("KeyCreate"), "each that was made was revoked");
    assert_eq!(door.admin(&["audit", "verify"])["whole"], true);
    assert_eq!(last.terminate(), Some(0));
}

#[test]
fn a_server_that_is_to_end_says_so_before_it_takes_nothing_new() {
    let mut door = Door::open_with(&["--leave-after", "1s", "--metrics-listen", "127.0.0.1:0"]);
    let client = door.client("", "");
    assert_eq!(client.get("/ready", "").unwrap().status, 200);
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| door.console.terminate());
        // New connections are taken all the while.
        let told = eventually(Duration::from_secs(5), || {
            let ready = client.get("/ready", "").unwrap();
            (ready.status == 503).then(|| ready.text())
        });
        assert!(told.unwrap().contains("it ends"));
        assert_eq!(client.get("/health", "").unwrap().status, 200);
        assert_eq!(ending.join().unwrap(), Some(0));
    });
}
