//! A running Console, watched: metrics at an address of their own, and whether it takes requests.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use convox_testkit::eventually;
use serde_json::Value;

use crate::{Door, Recorder};

const WATCHED: &[&str] = &["--metrics-listen", "127.0.0.1:0"];

/// Status and body of a GET in clear text.
fn get(host: &str, path: &str) -> (u16, String) {
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
