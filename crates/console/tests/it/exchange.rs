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
        let mut running = next(1, &[]).unwrap();
        assert_eq!((&running.host, &running.metrics), (&host, &metrics), "on the same sockets");
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
