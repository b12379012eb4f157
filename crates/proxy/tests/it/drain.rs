//! A server that is asked to stop finishes what it has begun.

use std::time::Duration;

use convox_proxy::Limits;

use crate::gate::{Proxy, request};
use crate::rack::{Rack, echo};
use crate::raw::{Raw, soon};

const SOCKET: &str =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Answers only when told to.
async fn waiting() -> (Rack, tokio::sync::watch::Sender<bool>) {
    let (go, may_go) = tokio::sync::watch::channel(false);
    let rack = Rack::raw(move |connection, mut raw, seen| {
        let mut may_go = may_go.clone();
        async move {
            let Some(message) = raw.request().await else { return };
            seen.lock().unwrap().push(crate::rack::Seen { connection, message });
            let _ = may_go.wait_for(|go| *go).await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            raw.rest().await;
        }
    })
    .await;
    (rack, go)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_request_is_answered_and_new_connections_are_refused() {
    let (rack, go) = waiting().await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", "")).await;
    rack.has_seen(1).await;
    proxy.stop();
    soon("the listener to close", async {
        while tokio::net::TcpStream::connect(proxy.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    go.send(true).unwrap();
    let reply = raw.reply().await.unwrap();
    assert_eq!((reply.status(), reply.header("connection")), (200, Some("close")));
    assert_eq!(raw.rest().await, b"");
    proxy.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_the_end() {
    let rack = Rack::start(echo).await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", "")).await;
    raw.reply().await.unwrap();
    let _silent = Raw::connect(proxy.address).await;
    let begun = std::time::Instant::now();
    proxy.stop();
    assert_eq!(raw.rest().await, b"");
    proxy.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_outlasts_the_drain_is_told_so() {
    let rack = Rack::raw(|_, mut raw, _| async move {
        raw.head().await;
        raw.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n").await;
        raw.rest().await;
    })
    .await;
    let limits = Limits { drain: Duration::from_millis(300), ..Limits::default() };
    let proxy = Proxy::limited(rack.address, limits).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", SOCKET)).await;
    assert_eq!(raw.reply().await.unwrap().status(), 101);
    proxy.stop();
    let last = raw.rest().await;
    assert_eq!(last[..4], [0x88, last.len() as u8 - 2, 0x03, 0xf4], "code 1012");
    assert!(String::from_utf8_lossy(&last).contains("restarting"));
    proxy.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_outlasts_the_drain_is_cut() {
    let (rack, _go) = waiting().await;
    let limits = Limits { drain: Duration::from_millis(300), ..Limits::default() };
    let proxy = Proxy::limited(rack.address, limits).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", "")).await;
    rack.has_seen(1).await;
    proxy.stop();
    assert!(raw.reply().await.is_none());
    proxy.ended().await;
}
