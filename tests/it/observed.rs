//! A Rack, watched: whether it lives and is ready is told to whoever asks, and what it writes down names the caller's trace.

use convox_testkit::Stack;
use convox_testkit::go::Generation;
use serde_json::Value;

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
