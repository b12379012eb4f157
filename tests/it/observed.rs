//! A Rack, watched: whether it lives and is ready is told to whoever asks, and what it writes down names the caller's trace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use convox_testkit::go::Generation;
use convox_testkit::{Stack, eventually};
use serde_json::Value;

use crate::{by_name, example, free};

#[test]
fn a_rack_says_whether_it_is_ready_to_anybody_and_nothing_else() {
    let stack = Stack::start().unwrap();
    let mut stranger = stack.go_direct(Generation::V3);
    stranger.password = "nobody".to_owned();
    assert_eq!(stranger.get("/system", "").unwrap().status, 401);
    let health = stranger.get("/health", "").unwrap();
    assert_eq!((health.status, health.text().as_str()), (200, "ok\n"));
    let ready = stranger.get("/ready", "").unwrap();
    let told: Value = serde_json::from_str(&ready.text()).unwrap();
    assert_eq!((ready.status, &told["ready"], ready.header("cache-control")), (200, &Value::Bool(true), Some("no-store")));
    let names: Vec<&str> = told["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["database", "running", "router"]);
    assert!(!ready.text().contains("main"), "not even its name: {}", ready.text());
    // Only asking for it is free.
    for (method, path) in [("POST", "/ready"), ("GET", "/ready/now"), ("GET", "/healthy")] {
        assert!(stranger.send(method, path, "", "text/plain", &[], b"").unwrap().status >= 400, "{method} {path}");
    }
    // Through the Console it is the Console's own.
    let own: Value = serde_json::from_str(&stack.go(Generation::V3).get("/ready", "").unwrap().text()).unwrap();
    assert!(own["checks"].as_array().unwrap().iter().any(|check| check["name"] == "root_key"), "{own}");
}

#[test]
fn a_rack_names_the_trace_that_the_console_passes_on() {
    let stack = Stack::start().unwrap();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let within = [("Traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))];
    let within: Vec<(&str, &str)> = within.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let client = stack.go(Generation::V3);
    let form = "application/x-www-form-urlencoded";
    assert_eq!(client.send("POST", "/apps", "", form, &within, b"name=traced").unwrap().status, 200);
    let again = client.send("POST", "/apps", "", form, &within, b"name=traced").unwrap();
    assert!(again.status >= 400 && again.header("trace-id") == Some(trace), "{} {}", again.status, again.text());
    let log = stack.direct().run(&["rack", "logs", "--no-follow"]).ok();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("POST /apps")).collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.contains(&format!(" trace {trace}"))), "{log}");
}

/// Every line with a value, by name and labels. What is no line of the format is none.
fn values(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with("# HELP ") && !line.starts_with("# TYPE "));
    let pair = |line: &str| line.rsplit_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    lines.map(|line| pair(line).unwrap_or_else(|| panic!("no line of a metric: {line}"))).collect()
}

/// Words in `text` that are names of a Rack's metrics.
fn names(text: &str) -> BTreeSet<&str> {
    let is_name = |word: &&str| word.starts_with("convox_rack_") || (word.starts_with("process_") && word.len() > 8);
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(is_name).collect()
}

#[test]
fn a_rack_tells_monitoring_what_it_and_its_router_do() {
    let (http, https) = (free(), free());
    let (by_http, by_https) = (http.to_string(), https.to_string());
    let options = [&by_name(&by_http, &by_https)[..], &["--metrics-listen", "127.0.0.1:0"]].concat();
    let mut stack = Stack::start_rack_with(&options).unwrap();
    let cli = stack.direct();
    let source = example(&stack, "hello-web");
    let manifest = std::fs::read_to_string(source.join("convox.yml")).unwrap();
    std::fs::write(source.join("convox.yml"), manifest.replace("    port: 3000\n", "    port: 3000\n    tls: {redirect: false}\n"))
        .unwrap();
    cli.run(&["apps", "create", "shop"]).ok();
    cli.at(&source).run(&["deploy", "-a", "shop", "--wait"]).ok();
    cli.run(&["certs", "generate", "shop.example.com"]).ok();
    assert!(cli.run(&["apps", "info", "nothing"]).err().contains("not found"));
    let ask =
        |name: &str| crate::request(&by_http, &format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n")).unwrap_or_default();
    let name = "web.shop.apps.example.org";
    assert!(eventually(Duration::from_secs(30), || ask(name).starts_with("HTTP/1.1 200").then_some(())).is_some(), "{}", ask(name));
    for _ in 0..3 {
        ask(name);
    }
    assert!(ask("nobody.example.com").starts_with("HTTP/1.1 404"));

    let metrics = |stack: &Stack| {
        let host = stack.rack.metrics.clone().expect("it says where");
        let reply = crate::request(&host, &format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).unwrap();
        let (head, text) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
        text.to_owned()
    };
    let router = "convox_rack_router_requests_total{app=\"shop\",service=\"web\",status=\"2xx\"}";
    // The last byte of an answer is sent before it is counted.
    let text = eventually(Duration::from_secs(10), || Some(metrics(&stack)).filter(|text| values(text)[router] >= 4.0));
    let text = text.unwrap_or_else(|| metrics(&stack));
    let all = values(&text);
    let value = |name: &str| *all.get(&format!("convox_rack_{name}")).unwrap_or_else(|| panic!("no {name} in:\n{text}"));
    assert!(
        value("requests_total{effect=\"write\",status=\"2xx\"}") >= 4.0 && value("requests_total{effect=\"read\",status=\"4xx\"}") >= 1.0
    );
    assert!(value("request_seconds_count") >= 8.0 && value("request_seconds_sum") > 0.0);
    assert!((value("processes{app=\"shop\",state=\"running\"}") - 1.0).abs() < 0.1);
    assert!(value("builds_running").abs() < 0.1 && value("log_bytes{log=\"shop\"}") > 100.0 && value("log_bytes{log=\"_rack\"}") > 100.0);
    let days = all
        .iter()
        .find(|(name, _)| name.starts_with("convox_rack_certificate_days_left{") && name.ends_with("domain=\"shop.example.com\"}"));
    assert!(days.is_some_and(|(_, days)| *days > 30.0), "{text}");
    assert!(value("router_requests_total{app=\"\",service=\"\",status=\"4xx\"}") >= 1.0);
    assert!(value("router_request_seconds_bucket{app=\"shop\",service=\"web\",le=\"+Inf\"}") >= 4.0);
    assert!((value("router_answers") - 1.0).abs() < 0.1 && (value("ready") - 1.0).abs() < 0.1);
    assert!(all["process_resident_memory_bytes"] > 1e6);

    // Each has one head. The dashboard and the alerts ask for what there is, and nothing is told that nobody looks at.
    let known = names(&text);
    let base = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        base.filter(|base| text.contains(&format!("# TYPE {base} histogram"))).unwrap_or(name).to_owned()
    };
    for name in &known {
        assert_eq!(text.matches(&format!("# TYPE {} ", base(name))).count(), 1, "{name}");
    }
    let (dashboard, alerts) = (include_str!("../../docs/grafana/rack.json"), include_str!("../../docs/grafana/alerts.yml"));
    assert!(serde_json::from_str::<Value>(dashboard).unwrap()["panels"].as_array().unwrap().len() > 10);
    let asked: BTreeSet<&str> = names(dashboard).into_iter().chain(names(alerts)).collect();
    assert!(asked.len() > 15 && asked.is_subset(&known), "{:?}", asked.difference(&known));
    let guide = include_str!("../../docs/rack.md");
    for name in &known {
        assert!(guide.contains(&base(name)), "{name} is not in the guide");
    }

    // The router goes on counting while the Rack is away, and nothing but what was asked for is told.
    stack.rack.kill();
    assert!(ask(name).starts_with("HTTP/1.1 200"));
    stack.rack.restart().unwrap();
    let before = all[router];
    let now = eventually(Duration::from_secs(10), || values(&metrics(&stack)).get(router).copied().filter(|now| *now > before));
    assert!(now.is_some(), "{}", metrics(&stack));
    let host = stack.rack.metrics.clone().unwrap();
    for path in ["/", "/apps", "/metrics/x"] {
        let reply = crate::request(&host, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).unwrap();
        assert!(reply.starts_with("HTTP/1.1 404"), "{reply}");
    }
}
