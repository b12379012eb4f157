//! Request and reply on one connection to an upstream: neither waits for the other, and nothing of one exchange is left for the next.

use tokio::io::AsyncWriteExt as _;

use crate::gate::{Proxy, request};
use crate::rack::{Rack, Seen};
use crate::raw::{Raw, once, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_and_its_reply_may_go_on_side_by_side() {
    // Answers each piece before it has the next.
    let rack = Rack::raw(|_, mut raw, _| async move {
        raw.head().await;
        raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        for _ in 0..50 {
            let piece = raw.exactly(7).await.unwrap();
            assert!(piece.starts_with(b"2\r\n"), "{piece:?}");
            raw.send(&piece).await;
        }
        assert_eq!(raw.exactly(5).await.unwrap(), b"0\r\n\r\n");
        raw.send("0\r\n\r\n").await;
        raw.rest().await;
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("POST", "/x", "alice", "Transfer-Encoding: chunked\r\n")).await;
    assert_eq!(raw.head().await.unwrap().status(), 200);
    for number in 10..60 {
        let piece = format!("2\r\n{number}\r\n");
        raw.send(&piece).await;
        assert_eq!(raw.exactly(piece.len()).await.unwrap(), piece.as_bytes());
    }
    raw.send("0\r\n\r\n").await;
    assert_eq!(raw.exactly(5).await.unwrap(), b"0\r\n\r\n");
    let outcome = proxy.state.outcome(1).await;
    assert_eq!((outcome.bytes_up, outcome.bytes_down, outcome.complete), (100, 100, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_upstream_says_unasked_reaches_nobody() {
    let rack = Rack::raw(|connection, mut raw, seen| async move {
        while let Some(message) = raw.request().await {
            seen.lock().unwrap().push(Seen { connection, message });
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
        }
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    for round in 1..5 {
        assert_eq!(once(proxy.address, request("GET", "/x", "alice", "Connection: close\r\n")).await.text(), "ok");
        assert_eq!(rack.connections(), round, "a connection with something left on it is not used again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_says_something_between_requests_is_not_believed() {
    let (say, mut said) = tokio::sync::mpsc::channel::<()>(1);
    let rack = Rack::raw(move |connection, mut raw, seen| {
        let say = say.clone();
        async move {
            while let Some(message) = raw.request().await {
                seen.lock().unwrap().push(Seen { connection, message });
                raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                // When nobody has asked.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                raw.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
                let _ = say.send(()).await;
            }
        }
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    for _ in 0..3 {
        raw.send(request("GET", "/x", "alice", "")).await;
        assert_eq!(raw.reply().await.unwrap().text(), "ok");
        soon("the unasked reply", said.recv()).await;
        // On loopback it has arrived when it is sent; the shard's own loop hears of it before it hears of the next request.
    }
    assert_eq!(rack.connections(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_instead_of_an_upgrade_is_whole() {
    const LENGTH: usize = 3 * 1024 * 1024;
    let rack = Rack::raw(|_, mut raw, _| async move {
        raw.head().await;
        raw.send(format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
        let mut body = vec![b'n'; LENGTH];
        body[LENGTH - 1] = b'!';
        raw.send(body).await;
        raw.rest().await;
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", "Connection: Upgrade\r\nUpgrade: websocket\r\n")).await;
    let reply = raw.reply().await.unwrap();
    assert_eq!((reply.status(), reply.body.len(), reply.body.last()), (403, LENGTH, Some(&b'!')));
    let _ = raw.stream.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_before_the_request_is_whole_is_no_switch() {
    let rack = Rack::raw(|_, mut raw, _| async move {
        raw.head().await;
        raw.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
        raw.rest().await;
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n")).await;
    let reply = raw.reply().await.unwrap();
    assert_eq!(reply.status(), 502, "{}", reply.text());
}
