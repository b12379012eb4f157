//! Callers who hold connections without using them are let go (T36).

use std::time::{Duration, Instant};

use convox_proxy::Limits;

use crate::gate::{Proxy, request};
use crate::rack::{Answer, Rack, echo};
use crate::raw::Raw;

const SHORT: Duration = Duration::from_millis(500);

async fn limited(limits: Limits) -> (Rack, Proxy) {
    let rack = Rack::start(echo).await;
    let proxy = Proxy::limited(rack.address, limits).await;
    (rack, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_does_not_hold_a_connection() {
    let (_rack, proxy) = limited(Limits { head: SHORT, ..Limits::default() }).await;
    let mut raw = Raw::connect(proxy.address).await;
    let begun = Instant::now();
    let dripping = async {
        for byte in "GET /x HTTP/1.1\r\nHost: console\r\nX: ".bytes().chain(std::iter::repeat_n(b'x', 1000)) {
            if tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    dripping.await;
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed() {
    let (_rack, proxy) = limited(Limits { idle: SHORT, ..Limits::default() }).await;
    let mut fresh = Raw::connect(proxy.address).await;
    let mut used = Raw::connect(proxy.address).await;
    used.send(request("GET", "/x", "alice", "")).await;
    assert_eq!(used.reply().await.unwrap().status(), 200);
    assert_eq!(fresh.rest().await, b"");
    assert_eq!(used.rest().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let (_rack, proxy) = limited(Limits { body: SHORT, ..Limits::default() }).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("POST", "/x", "alice", "Content-Length: 10\r\n") + "hello").await;
    assert_eq!(raw.rest().await, b"");
    assert!(!proxy.state.outcome(1).await.complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_over_the_limit_are_refused() {
    let (rack, proxy) = limited(Limits { head_bytes: 16 * 1024, ..Limits::default() }).await;
    for lines in [format!("X: {}\r\n", "x".repeat(20_000)), "X: x\r\n".repeat(200)] {
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(request("GET", "/x", "alice", &lines)).await;
        assert_eq!(raw.reply().await.unwrap().status(), 431);
        assert_eq!(raw.rest().await, b"");
    }
    assert!(rack.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_answer_is_given_up_and_the_upstream_is_told() {
    let rack = Rack::start(|_| Answer::Keep(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello".to_vec())).await;
    let proxy = Proxy::limited(rack.address, Limits { stall: SHORT, ..Limits::default() }).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", "")).await;
    assert_eq!(raw.head().await.unwrap().status(), 200);
    assert_eq!(raw.rest().await, b"hello");
    assert!(!proxy.state.outcome(1).await.complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_upstream_connections_are_closed() {
    let (rack, proxy) = limited(Limits { pool_age: SHORT, ..Limits::default() }).await;
    let mut raw = Raw::connect(proxy.address).await;
    for connections in [1, 2] {
        raw.send(request("GET", "/x", "alice", "")).await;
        assert_eq!(raw.reply().await.unwrap().status(), 200);
        assert_eq!(rack.connections(), connections);
        tokio::time::sleep(SHORT * 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_beyond_the_limit_wait_until_one_leaves() {
    let (_rack, proxy) = limited(Limits { connections: 2, ..Limits::default() }).await;
    let mut first = Raw::connect(proxy.address).await;
    let mut second = Raw::connect(proxy.address).await;
    for raw in [&mut first, &mut second] {
        raw.send(request("GET", "/x", "alice", "")).await;
        assert_eq!(raw.reply().await.unwrap().status(), 200);
    }
    let mut third = Raw::connect(proxy.address).await;
    third.send(request("GET", "/x", "alice", "")).await;
    assert!(tokio::time::timeout(SHORT, third.head()).await.is_err());
    drop(first);
    assert_eq!(third.reply().await.unwrap().status(), 200);
}

/// Runs in a process of its own that may hold few files; see the next test.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the next test"]
async fn a_server_with_few_descriptors() {
    let (_rack, proxy) = limited(Limits { connections: 10_000, idle: Duration::from_secs(2), ..Limits::default() }).await;
    let mut callers = Vec::new();
    // Both ends of each connection count here: the accepting side is out of descriptors at some point.
    while let Ok(stream) = tokio::net::TcpStream::connect(proxy.address).await {
        callers.push(stream);
        assert!(callers.len() < 1000);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    callers.clear();
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", "")).await;
    assert_eq!(raw.reply().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_descriptors_pauses_and_goes_on() {
    let test = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 60 && exec \"$0\" --exact limits::a_server_with_few_descriptors --ignored"])
        .arg(test)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status = crate::raw::soon("the end of the child", tokio::task::spawn_blocking(move || child.wait())).await.unwrap().unwrap();
    assert!(status.success());
}
