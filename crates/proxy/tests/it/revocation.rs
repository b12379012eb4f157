//! A revoked permit ends what it let in: shells, logs, downloads, uploads and calls without an answer yet (T26).

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::gate::{Proxy, request};
use crate::rack::{Answer, Rack};
use crate::raw::Raw;

const SOCKET: &str =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

/// What a client reads when its tunnel is cut between messages.
fn farewell() -> Vec<u8> {
    let (text, reason) = ("ERROR: the key was revoked\n", "the key was revoked");
    let mut bytes = vec![0x81, text.len() as u8];
    bytes.extend(text.as_bytes());
    bytes.extend([0x88, 2 + reason.len() as u8, 0x03, 0xf0]);
    bytes.extend(reason.as_bytes());
    bytes
}

/// Sends `sent` after the 101 and then only listens; the test hears when the connection has ended.
async fn tunnel(sent: &'static [u8]) -> (Rack, Proxy, Raw, tokio::sync::mpsc::Receiver<Vec<u8>>) {
    let (ended, end) = tokio::sync::mpsc::channel(1);
    let rack = Rack::raw(move |_, mut raw, _| {
        let ended = ended.clone();
        async move {
            raw.head().await;
            raw.send(SWITCH).await;
            raw.send(sent).await;
            let rest = raw.rest().await;
            let _ = ended.send(rest).await;
        }
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/exec", "alice", SOCKET)).await;
    assert_eq!(raw.reply().await.unwrap().status(), 101);
    (rack, proxy, raw, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_shell_is_told_why_and_cut_on_both_sides_within_a_second() {
    let (_rack, proxy, mut raw, mut end) = tunnel(b"\x81\x05hello").await;
    assert_eq!(raw.exactly(7).await.unwrap(), b"\x81\x05hello");
    let begun = Instant::now();
    proxy.state.revoke("alice");
    assert_eq!(raw.rest().await, farewell());
    assert_eq!(end.recv().await.unwrap(), b"");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(!proxy.state.outcome(1).await.complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_typed_after_the_revocation_reaches_the_upstream() {
    let (_rack, proxy, mut raw, mut end) = tunnel(b"").await;
    proxy.state.revoke("alice");
    assert_eq!(raw.exactly(farewell().len()).await.unwrap(), farewell());
    raw.send("rm -rf /\n").await;
    assert_eq!(end.recv().await.unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_frame_is_not_followed_by_a_close_frame() {
    // A frame of ten bytes of which five never come.
    let (_rack, proxy, mut raw, mut end) = tunnel(b"\x81\x0ahello").await;
    assert_eq!(raw.exactly(7).await.unwrap(), b"\x81\x0ahello");
    let begun = Instant::now();
    proxy.state.revoke("alice");
    assert_eq!(raw.rest().await, b"", "no byte that would be taken for payload");
    assert_eq!(end.recv().await.unwrap(), b"");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_message_is_closed_without_a_new_one_in_its_middle() {
    let (_rack, proxy, mut raw, _end) = tunnel(b"\x01\x05hello").await;
    assert_eq!(raw.exactly(7).await.unwrap(), b"\x01\x05hello");
    proxy.state.revoke("alice");
    assert_eq!(raw.rest().await[..2], [0x88, 21], "only a close frame may stand inside a message");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_cut_visibly() {
    let rack = Rack::raw(|_, mut raw, _| async move {
        raw.head().await;
        raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        raw.rest().await;
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/logs", "alice", "")).await;
    raw.head().await.unwrap();
    assert_eq!(raw.exactly(10).await.unwrap(), b"5\r\nhello\r\n");
    let begun = Instant::now();
    proxy.state.revoke("alice");
    assert_eq!(raw.rest().await, b"", "no last chunk: the caller sees that it is not whole");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(!proxy.state.outcome(1).await.complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_does_not_read_keeps_nothing_open() {
    let (ended, mut end) = tokio::sync::mpsc::channel(1);
    let written = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&written);
    let rack = Rack::raw(move |_, mut raw, _| {
        let (ended, count) = (ended.clone(), std::sync::Arc::clone(&count));
        async move {
            raw.head().await;
            raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let chunk = format!("1000\r\n{}\r\n", "x".repeat(4096));
            while raw.stream.write_all(chunk.as_bytes()).await.is_ok() {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            let _ = ended.send(()).await;
        }
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/logs", "alice", "")).await;
    raw.head().await.unwrap();
    // Until nothing moves any more: every buffer on the way is full.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = written.load(std::sync::atomic::Ordering::Relaxed);
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    let begun = Instant::now();
    proxy.state.revoke("alice");
    end.recv().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(!proxy.state.outcome(1).await.complete);
    let read = raw.rest().await;
    assert!(!read.ends_with(b"0\r\n\r\n"), "the caller sees that it is not whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_for_its_answer_is_refused() {
    let (ended, mut end) = tokio::sync::mpsc::channel(1);
    let (arrived, mut arrival) = tokio::sync::mpsc::channel(1);
    let rack = Rack::raw(move |_, mut raw, _| {
        let (ended, arrived) = (ended.clone(), arrived.clone());
        async move {
            raw.request().await;
            let _ = arrived.send(()).await;
            raw.rest().await;
            let _ = ended.send(()).await;
        }
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("POST", "/promote", "alice", "Content-Length: 0\r\n")).await;
    arrival.recv().await.unwrap();
    let begun = Instant::now();
    proxy.state.revoke("alice");
    let reply = raw.reply().await.unwrap();
    assert_eq!(reply.status(), 403);
    assert!(reply.text().contains("the key was revoked"), "{}", reply.text());
    end.recv().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_cut() {
    let (ended, mut end) = tokio::sync::mpsc::channel(1);
    let rack = Rack::raw(move |_, mut raw, _| {
        let ended = ended.clone();
        async move {
            let rest = raw.rest().await;
            let _ = ended.send(rest).await;
        }
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("POST", "/objects", "alice", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n").await;
    while rack.connections() == 0 {
        tokio::task::yield_now().await;
    }
    proxy.state.revoke("alice");
    assert_eq!(raw.reply().await.unwrap().status(), 403);
    raw.send("5\r\nworld\r\n0\r\n\r\n").await;
    let seen = String::from_utf8(end.recv().await.unwrap()).unwrap();
    assert!(!seen.contains("world") && !seen.ends_with("0\r\n\r\n"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_before_it_is_sent_goes_over_no_connection() {
    let rack = Rack::start(|_| Answer::Keep(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())).await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    for (name, path, status) in [("alice", "/apps", 200), ("alice", "/late", 403), ("bob", "/apps", 200)] {
        raw.send(request("POST", path, name, "Content-Length: 0\r\n")).await;
        let reply = raw.reply().await.unwrap();
        assert_eq!(reply.status(), status, "{}", reply.text());
    }
    let seen: Vec<String> = rack.seen().into_iter().map(|seen| seen.message.line).collect();
    assert_eq!((seen, rack.connections()), (vec!["POST /apps HTTP/1.1".to_owned(); 2], 1), "a connection was there for it");
    // Nor over one that is opened for it.
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/late", "alice", "")).await;
    let reply = raw.reply().await.unwrap();
    assert!(reply.status() == 403 && reply.text().contains("revoked before"), "{}", reply.text());
    assert_eq!(rack.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn others_are_left_alone() {
    let (_rack, proxy, mut raw, _end) = tunnel(b"\x81\x05hello").await;
    assert_eq!(raw.exactly(7).await.unwrap(), b"\x81\x05hello");
    proxy.state.revoke("bob");
    let quiet = tokio::time::timeout(Duration::from_millis(600), raw.exactly(1)).await;
    assert!(quiet.is_err(), "{quiet:?}");
}
