//! A tunnel exists only after a 101 of the upstream, and only for those who are let in (T2, T12).

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use tokio::io::AsyncWriteExt as _;

use crate::gate::{CREDENTIAL, Proxy, request};
use crate::rack::{Answer, Rack, Seen};
use crate::raw::{Raw, soon};

const SOCKET: &str =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches, and then sends back what it gets, until it gets the end.
async fn echoing() -> Rack {
    Rack::raw(|connection, mut raw, seen| async move {
        let Some(message) = raw.head().await else { return };
        seen.lock().unwrap().push(Seen { connection, message });
        raw.send(format!("{SWITCH}\u{81}")).await;
        let mut buffer = [0; 4096];
        let mut early = std::mem::take(&mut raw.buffer);
        loop {
            raw.send(&early).await;
            match tokio::io::AsyncReadExt::read(&mut raw.stream, &mut buffer).await {
                Ok(count) if count > 0 => early = buffer[..count].to_vec(),
                _ => break,
            }
        }
        raw.send("end").await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_after_the_101_and_each_side_may_end_first() {
    let rack = echoing().await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    // The first bytes come right behind the head.
    raw.send(request("GET", "/apps/a/processes/p/exec", "alice", &format!("{SOCKET}Command: sh\r\nOrigin: https://console\r\n")) + "early")
        .await;
    let reply = raw.reply().await.unwrap();
    assert_eq!(reply.line, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(reply.all("upgrade"), ["websocket"]);
    assert_eq!(reply.all("sec-websocket-accept"), ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
    assert_eq!(raw.exactly(2).await.unwrap(), "\u{81}".as_bytes());
    assert_eq!(raw.exactly(5).await.unwrap(), b"early");
    for size in [1, 100, 100_000] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        raw.send(&bytes).await;
        assert_eq!(raw.exactly(size).await.unwrap(), bytes);
    }
    raw.stream.shutdown().await.unwrap();
    assert_eq!(raw.rest().await, b"end", "the other direction outlives the first");

    let seen = &rack.seen()[0].message;
    assert_eq!(seen.all("connection"), ["Upgrade"]);
    assert_eq!(seen.all("upgrade"), ["websocket"]);
    assert_eq!(seen.all("authorization"), [CREDENTIAL]);
    assert_eq!(seen.all("command"), ["sh"]);
    assert_eq!(seen.all("origin"), [format!("http://{}", rack.address)]);
    assert_eq!(proxy.state.allowed.lock().unwrap()[0], "GET /apps/a/processes/p/exec alice socket");
    let outcome = proxy.state.outcome(1).await;
    assert_eq!((outcome.status.unwrap().as_u16(), outcome.complete), (101, true));
    assert_eq!((outcome.bytes_up, outcome.bytes_down), (100_106, 100_111));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_101_there_is_no_tunnel_and_no_second_request() {
    for status in ["200 OK", "401 Unauthorized", "403 Forbidden", "404 Not Found", "426 Upgrade Required"] {
        let rack = Rack::start(move |_| Answer::Keep(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno").into_bytes())).await;
        let proxy = Proxy::before(rack.address).await;
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(request("GET", "/first", "alice", SOCKET) + &request("GET", "/second", "alice", "")).await;
        let reply = raw.reply().await.unwrap();
        assert_eq!(reply.line, format!("HTTP/1.1 {status}"));
        assert_eq!(reply.text(), "no");
        raw.send(request("GET", "/third", "alice", "")).await;
        assert_eq!(raw.rest().await, b"", "{status}: closed after the answer");
        assert_eq!(rack.seen().len(), 1, "{status}");

        let mut raw = Raw::connect(proxy.address).await;
        raw.send(request("GET", "/fourth", "alice", "")).await;
        raw.reply().await.unwrap();
        let seen = rack.seen();
        assert_eq!(seen.len(), 2);
        assert_ne!(seen[0].connection, seen[1].connection, "{status}: the upstream connection is not used again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_unknown_gets_a_101_or_reaches_the_upstream() {
    let rack = echoing().await;
    let proxy = Proxy::before(rack.address).await;
    for authorization in ["", "Authorization: Bearer mallory\r\n", "Authorization: Basic YWxpY2U6\r\n"] {
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(format!("GET /x HTTP/1.1\r\nHost: c\r\n{authorization}{SOCKET}\r\n") + &request("GET", "/second", "alice", "")).await;
        assert_eq!(raw.reply().await.unwrap().status(), 401);
        assert_eq!(raw.rest().await, b"");
    }
    assert_eq!(rack.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_an_upgrade_is_refused_or_forwarded_as_a_plain_request() {
    let rack = Rack::start(crate::rack::echo).await;
    let proxy = Proxy::before(rack.address).await;
    for lines in [
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\n",
        "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    ] {
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(request("GET", "/x", "alice", lines) + &request("GET", "/second", "alice", "")).await;
        assert_eq!(raw.reply().await.unwrap().status(), 400, "{lines:?}");
        assert_eq!(raw.rest().await, b"");
    }
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("POST", "/x", "alice", SOCKET)).await;
    assert_eq!(raw.reply().await.unwrap().status(), 400);
    assert!(rack.seen().is_empty());

    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", "Connection: upgrade\r\nUpgrade: other/1\r\n") + &request("GET", "/second", "alice", "")).await;
    assert_eq!(raw.reply().await.unwrap().status(), 200);
    assert_eq!(raw.rest().await, b"");
    assert_eq!(rack.seen().len(), 1);
    assert!(rack.seen()[0].message.header("upgrade").is_none());
    assert_eq!(proxy.state.allowed.lock().unwrap().last().unwrap(), "GET /x alice request");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_switches_to_something_else_is_refused() {
    let rack =
        Rack::start(|_| Answer::Keep(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".to_vec())).await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", SOCKET)).await;
    assert_eq!(raw.reply().await.unwrap().status(), 502);
    assert_eq!(raw.rest().await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_goes_away_ends_the_tunnel() {
    let rack = Rack::raw(|_, mut raw, _| async move {
        raw.head().await;
        raw.send(format!("{SWITCH}last words")).await;
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", SOCKET)).await;
    assert_eq!(raw.reply().await.unwrap().status(), 101);
    assert_eq!(raw.rest().await, b"last words");
}

/// All tunnels of a thread read into one buffer: what a slow receiver leaves in it must neither be lost nor go to another.
#[tokio::test(flavor = "multi_thread")]
async fn tunnels_to_slow_receivers_lose_nothing_and_never_carry_each_others_bytes() {
    // Repeats after 251 bytes, so a chunk of a multiple of that is the same each time; what is read at a time is no multiple.
    const CHUNK: usize = 251 * 256;
    const CHUNKS: usize = 256;
    fn chunk(step: usize) -> Vec<u8> {
        (0..CHUNK).map(|at| (at * step % 251) as u8).collect()
    }
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let rack = Rack::raw(move |_, mut raw, _| {
        let counter = Arc::clone(&counter);
        async move {
            let Some(message) = raw.head().await else { return };
            let chunk = chunk(if message.line.contains("/one") { 1 } else { 7 });
            raw.send(SWITCH).await;
            for _ in 0..CHUNKS {
                if raw.stream.write_all(&chunk).await.is_err() {
                    return;
                }
                counter.fetch_add(1, SeqCst);
            }
        }
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut callers = Vec::new();
    for (path, step) in [("/one", 1), ("/other", 7)] {
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(request("GET", path, "alice", SOCKET)).await;
        assert_eq!(raw.reply().await.unwrap().status(), 101);
        callers.push((raw, chunk(step)));
    }
    // Nothing is read: what is sent stops at what the sockets hold.
    let mut last = usize::MAX;
    soon("the upstreams to be held back", async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let now = sent.load(SeqCst);
            if now == last {
                break;
            }
            last = now;
        }
    })
    .await;
    assert!(last < 2 * CHUNKS, "{last}");
    // In turns, so that each tunnel is held up in the middle again and again.
    for number in 0..CHUNKS {
        for (raw, chunk) in &mut callers {
            assert!(raw.exactly(CHUNK).await.unwrap() == *chunk, "chunk {number}");
        }
    }
}
