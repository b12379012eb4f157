//! A running Console, watched: metrics at an address of their own, and whether it takes requests.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use convox_testkit::eventually;
use serde_json::Value;

use crate::console::Database;
use crate::{Door, Recorder};

const WATCHED: &[&str] = &["--metrics-listen", "127.0.0.1:0"];

/// Status and body of a GET in clear text.
pub(crate) fn get(host: &str, path: &str) -> (u16, String) {
    let mut socket = std::net::TcpStream::connect(host).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    socket.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn metrics(door: &Door) -> String {
    let (status, text) = get(door.console.metrics.as_deref().unwrap(), "/metrics");
    assert_eq!(status, 200);
    text
}

/// Every line with a value, by name and labels.
fn values(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

/// Words in `text` that are names of metrics.
fn names(text: &str) -> Vec<&str> {
    let is_name = |word: &&str| word.starts_with("convox_console_") || (word.starts_with("process_") && word.len() > 8);
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(is_name).collect()
}

#[test]
fn what_is_forwarded_refused_and_written_is_counted_and_timed() {
    let rack = Recorder::start("main");
    let door = Door::open_with(WATCHED);
    door.add_rack("acme", "main", &rack);
    let client = door.client(&door.key, "acme/main");
    for _ in 0..3 {
        assert_eq!(client.get("/apps", "").unwrap().status, 200);
    }
    assert_eq!(client.form("POST", "/apps", &[("name", "web")]).unwrap().status, 200);
    let stranger = door.client("cxk_unknown", "acme/main");
    assert_eq!(stranger.get("/apps", "").unwrap().status, 401);
    let developer = door.client(&door.person("dev@example.com", Some(("acme", "developer"))), "acme/main");
    assert_eq!(developer.form("POST", "/system/jwt/token", &[("role", "admin")]).unwrap().status, 403);

    let id = door.admin(&["rack", "list", "--org", "acme"])[0]["id"].as_str().unwrap_or_default().to_owned();
    let text = eventually(Duration::from_secs(5), || {
        let text = metrics(&door);
        // The last byte of an answer is sent before it is counted.
        (values(&text)["convox_console_request_seconds_count"] >= 4.0).then_some(text)
    });
    let text = text.expect("finished requests are timed");
    let all = values(&text);
    let requests =
        |effect: &str, decision: &str| all[&format!("convox_console_requests_total{{effect=\"{effect}\",decision=\"{decision}\"}}")];
    assert!((requests("read", "forwarded") - 3.0).abs() < 0.1);
    assert!((requests("write", "forwarded") - 1.0).abs() < 0.1);
    assert!((requests("admin", "refused") - 1.0).abs() < 0.1);
    assert!((requests("unknown", "unidentified") - 1.0).abs() < 0.1);
    let racks: Vec<_> = all.iter().filter(|(name, _)| name.starts_with("convox_console_rack_requests_total")).collect();
    assert!(racks.len() == 1 && (racks[0].1 - 4.0).abs() < 0.1 && racks[0].0.contains(&id), "{racks:?}");
    for (timed, least) in
        [("request_decision", 4.0), ("request_audit", 1.0), ("request_upstream", 4.0), ("request", 4.0), ("audit_commit", 1.0)]
    {
        let name = format!("convox_console_{timed}_seconds");
        assert!(all[&format!("{name}_count")] >= least && all[&format!("{name}_sum")] > 0.0, "{name}");
        // Buckets grow to the count.
        let buckets: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}_bucket")))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(buckets.is_sorted() && buckets.last() == all.get(&format!("{name}_count")), "{name}");
    }
    assert!(all["convox_console_snapshot_keys"] >= 2.0 && (all["convox_console_snapshot_racks"] - 1.0).abs() < 0.1);
    assert!(all["convox_console_audit_written_total"] >= 1.0 && all["process_resident_memory_bytes"] > 1e6);
    assert!(all["convox_console_feed_lag_seconds"] < 5.0 && (all["convox_console_ready"] - 1.0).abs() < 0.1);
    for secret in [door.key.as_str(), &rack.password, "admin@example.com", &rack.host] {
        assert!(!text.contains(secret), "{secret}");
    }
    // Each name is explained once.
    for name in names(&text) {
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|base| text.contains(&format!("# TYPE {base} histogram")))
            .unwrap_or(name);
        assert_eq!(text.matches(&format!("# TYPE {base} ")).count(), 1, "{name}");
    }
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_metrics_that_there_are() {
    let rack = Recorder::start("main");
    let door = Door::open_with(WATCHED);
    door.add_rack("acme", "main", &rack);
    door.client(&door.key, "acme/main").get("/apps", "").unwrap();
    let all = metrics(&door);
    let known: std::collections::BTreeSet<&str> = names(&all).into_iter().collect();
    let dashboard = include_str!("../../../../docs/grafana/console.json");
    let panels: Value = serde_json::from_str(dashboard).unwrap();
    assert!(panels["panels"].as_array().unwrap().len() > 15);
    let alerts = include_str!("../../../../docs/grafana/alerts.yml");
    let asked: Vec<&str> = names(dashboard).into_iter().chain(names(alerts)).collect();
    assert!(asked.len() > 40);
    for name in asked {
        assert!(known.contains(name), "{name} is asked for, and there is none");
    }
    // And nothing is told that nobody can look at.
    let guide = include_str!("../../../../docs/console-admin.md");
    for name in known.iter().filter(|name| !["_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))) {
        assert!(dashboard.contains(name) || guide.contains(name), "{name} is neither on the dashboard nor in the guide");
    }
}

#[test]
fn readiness_is_told_at_both_doors_and_metrics_at_one() {
    let door = Door::open_with(WATCHED);
    let inside = door.console.metrics.clone().unwrap();
    for (status, body) in [get(&inside, "/ready"), {
        let reply = door.client("", "").get("/ready", "").unwrap();
        (reply.status, reply.text())
    }] {
        let ready: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &ready["ready"]), (200, &Value::Bool(true)), "{body}");
        let names: Vec<&str> = ready["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["database", "root_key", "running", "audit_log"]);
    }
    assert_eq!(get(&inside, "/health").0, 200);
    assert_ne!(door.client(&door.key, "acme/main").get("/metrics", "").unwrap().status, 200, "never at the public one");
}

#[test]
fn one_damaged_organization_takes_no_server_away_from_the_others() {
    let door = Door::open();
    for number in 0..6 {
        door.admin(&["org", "create", &format!("org{number}")]);
    }
    let database = Database::open(&door);
    let client = door.client("", "");
    let ready = || {
        let reply = client.get("/ready", "").unwrap();
        (reply.status, reply.text())
    };
    assert_eq!(ready().0, 200);
    // Every other one is damaged, whichever the server looks at first.
    database.run(
        "UPDATE feed SET seq = seq + 1; \
         UPDATE data_keys SET wrapped = zeroblob(60) WHERE owner IN (SELECT id FROM orgs WHERE name IN ('acme', 'org1', 'org3'))",
    );
    database.run("UPDATE feed SET seq = seq + 1; UPDATE orgs SET name = 'seen' WHERE name = 'org5'");
    let seen = || door.client(&door.key, "").get("/organizations", "").unwrap().text();
    eventually(Duration::from_secs(5), || seen().contains("seen").then_some(()));
    for _ in 0..20 {
        let (status, words) = ready();
        assert_eq!(status, 200, "{words}");
    }
    // All of them: then it is the root key.
    database.run("UPDATE feed SET seq = seq + 1; UPDATE data_keys SET wrapped = zeroblob(60) WHERE owner IN (SELECT id FROM orgs)");
    let told = eventually(Duration::from_secs(5), || Some(ready()).filter(|(status, _)| *status == 503));
    assert!(told.is_some_and(|(_, words)| words.contains("it does not open what is sealed")));
}

/// Listens as a collector does, and keeps every span that it is sent.
fn collector() -> (String, std::sync::Arc<std::sync::Mutex<Vec<Value>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, spans) = (format!("http://{}", listener.local_addr().unwrap()), std::sync::Arc::<std::sync::Mutex<Vec<Value>>>::default());
    let kept = std::sync::Arc::clone(&spans);
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut bytes = Vec::new();
            let mut chunk = [0; 4096];
            let body = loop {
                let read = socket.read(&mut chunk).unwrap_or(0);
                bytes.extend_from_slice(&chunk[..read]);
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let head = head.to_ascii_lowercase();
                assert!(head.starts_with("post /v1/traces http/1.1") && head.contains("content-type: application/json"), "{head}");
                assert_eq!(head.lines().filter(|line| line.starts_with("content-type:")).count(), 1, "{head}");
                let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap();
                if body.len() >= length {
                    break body.to_owned();
                }
                assert_ne!(read, 0);
            };
            let message: Value = serde_json::from_str(&body).unwrap();
            let scope = &message["resourceSpans"][0]["scopeSpans"][0];
            kept.lock().unwrap().extend(scope["spans"].as_array().unwrap().iter().cloned());
            let _ =
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        }
    });
    (url, spans)
}

#[test]
fn what_a_collector_does_not_take_is_counted() {
    let rack = Recorder::start("rackPassword1");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let door = Door::open_with(&[WATCHED, &["--otlp-endpoint", &format!("http://{nobody}")]].concat());
    door.add_rack("acme", "main", &rack);
    for _ in 0..3 {
        assert_eq!(door.client(&door.key, "acme/main").get("/apps", "").unwrap().status, 200);
    }
    let lost = || values(&metrics(&door))["convox_console_traces_lost_total"];
    assert!(eventually(Duration::from_secs(10), || (lost() > 2.5).then_some(())).is_some(), "{}", lost());
    assert!(values(&metrics(&door))["convox_console_traces_sent_total"] < 0.5);
}

#[test]
fn a_trace_goes_on_at_the_rack_and_is_told_to_a_collector() {
    let (url, spans) = collector();
    let rack = Recorder::start("rackPassword1");
    let door = Door::open_with(&["--otlp-endpoint", &url]);
    door.add_rack("acme", "main", &rack);
    let client = door.client(&door.key, "acme/main");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let asks = |path: &str, parent: &str| {
        let headers = [("Traceparent", parent), ("Tracestate", "vendor=1")];
        assert_eq!(client.send("GET", path, "", "text/plain", &headers, b"").unwrap().status, 200);
        let hits = rack.hits_of(&format!("{path}?"));
        let said = hits[0].all("traceparent");
        assert_eq!(said.len(), 1, "{}", hits[0].head);
        (said[0].to_owned(), hits[0].all("tracestate").join(""))
    };
    let (passed, state) = asks("/apps/one", &format!("00-{trace}-00f067aa0ba902b7-01"));
    assert!(passed.starts_with(&format!("00-{trace}-")) && passed.ends_with("-01") && !passed.contains("00f067aa0ba902b7"), "{passed}");
    assert_eq!(state, "vendor=1");
    let (anew, state) = asks("/apps/two", "00-not-a-trace");
    assert!(anew.len() == 55 && !anew.contains(trace) && state.is_empty(), "{anew} {state}");
    // And one that the caller does not want told.
    asks("/apps/three", &format!("00-{trace}-00f067aa0ba902b7-00"));

    let of = |path: &str| -> Vec<Value> {
        let has = |span: &&Value| span["attributes"].as_array().unwrap().iter().any(|one| one["value"]["stringValue"] == path);
        spans.lock().unwrap().iter().filter(has).cloned().collect()
    };
    assert!(eventually(Duration::from_secs(10), || (of("/apps/one").len() == 2 && of("/apps/two").len() == 2).then_some(())).is_some());
    let one = of("/apps/one");
    let (server, asked) = if one[0]["kind"] == 2 { (&one[0], &one[1]) } else { (&one[1], &one[0]) };
    assert_eq!((server["traceId"].as_str(), server["parentSpanId"].as_str()), (Some(trace), Some("00f067aa0ba902b7")));
    assert_eq!(asked["parentSpanId"], server["spanId"]);
    assert!(passed.contains(asked["spanId"].as_str().unwrap()), "what the Rack was told is the span that asked it");
    let nanos = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
    assert!(
        nanos(server, "startTimeUnixNano") <= nanos(asked, "startTimeUnixNano")
            && nanos(asked, "startTimeUnixNano") < nanos(asked, "endTimeUnixNano")
    );
    let told = serde_json::to_string(&*spans.lock().unwrap()).unwrap();
    assert!(of("/apps/three").is_empty());
    for secret in [door.key.as_str(), "rackPassword1", "admin@example.com"] {
        assert!(!told.contains(secret));
    }
}

#[test]
fn an_error_names_the_callers_trace_in_the_answer_and_in_the_log() {
    let rack = Recorder::start("rackPassword1");
    let door = Door::with_rack(&rack);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let said = format!("00-{trace}-00f067aa0ba902b7-01");
    let client = door.client(&door.key, "acme/main");
    let ask = |client: &convox_testkit::go::GoClient, method: &str, path: &str, said: &[(&str, &str)]| {
        client.send(method, path, "", "text/plain", said, b"").unwrap()
    };
    let within = [("Traceparent", said.as_str())];
    // Refused by the Console itself, at the data path and at its API.
    let stranger = door.client("cxk_unknown", "acme/main");
    for (client, path) in [(&stranger, "/apps"), (&stranger, "/api/v1/keys"), (&client, "/nowhere"), (&client, "/api/v1/nowhere")] {
        let reply = ask(client, "GET", path, &within);
        assert!(reply.status >= 400, "{path}: {}", reply.status);
        assert_eq!(reply.header("trace-id"), Some(trace), "{path}");
        assert_eq!(reply.header("request-id").map(str::len), Some(12), "{path}");
        assert_eq!(ask(client, "GET", path, &[]).header("trace-id"), None, "{path}: the caller is in none");
    }
    assert_eq!(ask(&client, "GET", "/apps", &within).status, 200);
    // The Rack is gone: the trace is that which it would have been told.
    drop(rack);
    let reply = ask(&client, "GET", "/apps", &within);
    assert_eq!((reply.status, reply.header("trace-id")), (502, Some(trace)));
    let anew = ask(&client, "GET", "/apps", &[]);
    assert!(anew.status == 502 && anew.header("trace-id").is_some_and(|anew| anew.len() == 32 && anew != trace));
    // And where a fault is logged, both names are there.
    Database::open(&door).run("ALTER TABLE keys RENAME TO gone");
    let reply = ask(&client, "GET", "/api/v1/keys", &within);
    let id = reply.header("request-id").unwrap();
    assert_eq!((reply.status, reply.header("trace-id")), (500, Some(trace)));
    let log = door.console.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(id)).collect();
    assert!(lines.len() >= 2 && lines.iter().all(|line| line.contains(trace)), "{lines:?}");
}
