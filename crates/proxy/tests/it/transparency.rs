//! One test per oddity of HTTP/1 that must go through unharmed (T3).

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use convox_proxy::{Limits, Upstream};
use tokio::io::AsyncWriteExt as _;

use crate::gate::{Proxy, request};
use crate::rack::{Answer, Rack, Seen, echo};
use crate::raw::{Raw, once, soon};

async fn answering(bytes: &'static [u8]) -> (Rack, Proxy) {
    let rack = Rack::start(move |_| Answer::Keep(bytes.to_vec())).await;
    let proxy = Proxy::before(rack.address).await;
    (rack, proxy)
}

async fn echoing() -> (Rack, Proxy) {
    let rack = Rack::start(echo).await;
    let proxy = Proxy::before(rack.address).await;
    (rack, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_reused_on_both_sides() {
    let (rack, proxy) = echoing().await;
    let mut raw = Raw::connect(proxy.address).await;
    for number in 0..10 {
        raw.send(request("GET", "/apps", "alice", &format!("Id: {number}\r\n"))).await;
        assert_eq!(raw.reply().await.unwrap().header("id"), Some(number.to_string().as_str()));
    }
    assert_eq!(rack.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let (_rack, proxy) = echoing().await;
    let mut raw = Raw::connect(proxy.address).await;
    let requests: String = (0..20).map(|number| request("GET", "/apps", "alice", &format!("Id: {number}\r\n"))).collect();
    raw.send(requests).await;
    for number in 0..20 {
        assert_eq!(raw.reply().await.unwrap().header("id"), Some(number.to_string().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_line_passes_byte_by_byte() {
    let (rack, proxy) = echoing().await;
    for path in ["/apps?", "/apps", "/apps?a=b&c=%2F+d", "/apps/a/objects//tmp/x.tgz", "/a/%2e%2e/b;x", "/a/../b/./c", "/?q={a:1}|~!$'()*"]
    {
        once(proxy.address, request("GET", path, "alice", "")).await;
        assert_eq!(rack.seen().last().unwrap().message.line, format!("GET {path} HTTP/1.1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_passes() {
    let (rack, proxy) = echoing().await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
        assert_eq!(once(proxy.address, request(method, "/x", "alice", "")).await.status(), 200);
        assert!(rack.seen().last().unwrap().message.line.starts_with(method));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_every_framing_go_up() {
    let (rack, proxy) = echoing().await;
    for method in ["POST", "GET", "DELETE"] {
        once(proxy.address, request(method, "/x", "alice", "Content-Length: 5\r\n") + "hello").await;
        let seen = rack.seen().pop().unwrap().message;
        assert_eq!((seen.text().as_str(), seen.header("content-length")), ("hello", Some("5")), "{method}");
        once(
            proxy.address,
            request(method, "/x", "alice", "Transfer-Encoding: chunked\r\n") + "5;ext=1\r\nhello\r\n4\r\n you\r\n0\r\n\r\n",
        )
        .await;
        let seen = rack.seen().pop().unwrap().message;
        assert_eq!((seen.text().as_str(), seen.header("transfer-encoding")), ("hello you", Some("chunked")), "{method}");
    }
    once(proxy.address, request("POST", "/x", "alice", "Content-Length: 0\r\n")).await;
    let seen = rack.seen().pop().unwrap().message;
    assert_eq!(seen.all("content-length"), ["0"]);
    assert!(seen.header("transfer-encoding").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn request_trailers_do_not_become_headers() {
    let (rack, proxy) = echoing().await;
    let body = "5\r\nhello\r\n0\r\nConvox-Actor: root\r\n\r\n";
    once(proxy.address, request("POST", "/x", "alice", "Trailer: convox-actor\r\nTransfer-Encoding: chunked\r\n") + body).await;
    let seen = rack.seen().pop().unwrap().message;
    assert_eq!((seen.all("convox-actor"), seen.text().as_str()), (vec!["alice"], "hello"));
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_to_head_keep_their_length_and_have_no_body() {
    let (_rack, proxy) = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    let mut raw = Raw::connect(proxy.address).await;
    for _ in 0..3 {
        raw.send(request("HEAD", "/x", "alice", "")).await;
        let reply = raw.reply_to(true).await.unwrap();
        assert_eq!((reply.status(), reply.header("content-length")), (200, Some("1234")));
    }
    assert!(raw.buffer.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_without_a_body_leave_the_connection_in_step() {
    for reply in [
        &b"HTTP/1.1 204 No Content\r\n\r\n"[..],
        b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (_rack, proxy) = answering(reply).await;
        let mut raw = Raw::connect(proxy.address).await;
        for _ in 0..3 {
            raw.send(request("GET", "/x", "alice", "")).await;
            let line = String::from_utf8_lossy(reply).lines().next().unwrap().to_owned();
            assert_eq!(raw.reply().await.unwrap().line, line);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_replies_stay_chunked() {
    let (rack, proxy) =
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nTrailer: x\r\n\r\n").await;
    let mut raw = Raw::connect(proxy.address).await;
    for _ in 0..3 {
        raw.send(request("GET", "/x", "alice", "")).await;
        let reply = raw.reply().await.unwrap();
        assert_eq!((reply.text().as_str(), reply.header("transfer-encoding")), ("hello!", Some("chunked")));
    }
    assert_eq!(rack.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_end_with_the_connection_are_whole() {
    for version in ["1.0", "1.1"] {
        let rack = Rack::start(move |_| Answer::Close(format!("HTTP/{version} 200 OK\r\n\r\nuntil the end").into_bytes())).await;
        let proxy = Proxy::before(rack.address).await;
        let mut raw = Raw::connect(proxy.address).await;
        for round in 1..4 {
            raw.send(request("GET", "/x", "alice", "")).await;
            let reply = raw.reply().await.unwrap();
            assert_eq!((reply.line.as_str(), reply.text().as_str()), ("HTTP/1.1 200 OK", "until the end"));
            assert_eq!(rack.connections(), round, "it is not used again");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_is_cut_short_is_not_made_to_look_whole() {
    for reply in
        [&b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"[..], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
    {
        let rack = Rack::start(|_| Answer::Close(reply.to_vec())).await;
        let proxy = Proxy::before(rack.address).await;
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(request("GET", "/x", "alice", "")).await;
        assert_eq!(raw.reply().await, None);
        assert!(!proxy.state.outcome(1).await.complete);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn informational_replies_are_skipped() {
    let (_rack, proxy) = answering(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let reply = once(proxy.address, request("GET", "/x", "alice", "")).await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_http_1_0_is_answered_in_kind() {
    let (rack, proxy) = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send("GET /x HTTP/1.0\r\nAuthorization: Bearer alice\r\n\r\n").await;
    let reply = raw.reply().await.unwrap();
    assert_eq!((reply.line.as_str(), reply.text().as_str()), ("HTTP/1.0 200 OK", "hello"));
    assert!(reply.header("transfer-encoding").is_none());
    assert_eq!(rack.seen()[0].message.line, "GET /x HTTP/1.1");

    let (_rack, proxy) = echoing().await;
    let mut raw = Raw::connect(proxy.address).await;
    for number in 0..3 {
        raw.send(format!("GET /x HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: Bearer alice\r\nId: {number}\r\n\r\n")).await;
        assert_eq!(raw.reply().await.unwrap().header("id"), Some(number.to_string().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn continue_is_said_only_once_the_request_is_allowed() {
    let (rack, proxy) = echoing().await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("POST", "/x", "alice", "Content-Length: 5\r\nExpect: 100-continue\r\n")).await;
    assert_eq!(raw.head().await.unwrap().line, "HTTP/1.1 100 Continue");
    raw.send("hello").await;
    assert_eq!(raw.reply().await.unwrap().status(), 200);
    assert_eq!(rack.seen()[0].message.text(), "hello");

    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("POST", "/x", "mallory", "Content-Length: 5\r\nExpect: 100-continue\r\n")).await;
    assert_eq!(raw.reply().await.unwrap().status(), 401);
    assert_eq!(rack.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_reply_reaches_a_caller_that_is_still_sending() {
    let rack = Rack::raw(|_, mut raw, _| async move {
        raw.head().await;
        raw.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig").await;
        raw.stream.shutdown().await.unwrap();
        raw.rest().await;
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("POST", "/x", "alice", "Content-Length: 100000000\r\n")).await;
    let (mut read, mut write) = raw.stream.into_split();
    let sender = tokio::spawn(async move {
        let chunk = vec![b'x'; 64 * 1024];
        while write.write_all(&chunk).await.is_ok() {}
    });
    let mut bytes = Vec::new();
    soon("the reply", async {
        let mut chunk = [0; 1024];
        while !bytes.ends_with(b"big") {
            let count = tokio::io::AsyncReadExt::read(&mut read, &mut chunk).await.unwrap();
            assert!(count > 0, "{:?}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&chunk[..count]);
        }
    })
    .await;
    assert!(bytes.starts_with(b"HTTP/1.1 413 "));
    sender.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_caller_that_is_still_sending() {
    let (rack, proxy) = echoing().await;
    for _ in 0..20 {
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(request("POST", "/x", "mallory", "Content-Length: 10000000\r\n") + &"x".repeat(200_000)).await;
        assert_eq!(raw.reply().await.expect("an answer, not a reset").status(), 401);
    }
    assert!(rack.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_stream_both_ways_without_being_kept() {
    const SIZE: usize = 64 * 1024 * 1024;
    let rack = Rack::raw(|_, mut raw, _| async move {
        let head = raw.head().await.unwrap();
        raw.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.header("content-length").unwrap())).await;
        let mut left = SIZE;
        while left > 0 {
            let part = left.min(1024 * 1024);
            let bytes = raw.exactly(part).await.unwrap();
            raw.send(&bytes).await;
            left -= part;
        }
        raw.rest().await;
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("POST", "/x", "alice", &format!("Content-Length: {SIZE}\r\n"))).await;
    let (read, mut write) = raw.stream.into_split();
    let sender = tokio::spawn(async move {
        let chunk: Vec<u8> = (0..1024 * 1024).map(|at| (at % 251) as u8).collect();
        for _ in 0..SIZE / chunk.len() {
            write.write_all(&chunk).await.unwrap();
        }
        write
    });
    let mut raw = Raw::new(tokio::io::join(read, tokio::io::sink()));
    let head = raw.head().await.unwrap();
    assert_eq!(head.status(), 200);
    for _ in 0..SIZE / (1024 * 1024) {
        let bytes = raw.exactly(1024 * 1024).await.unwrap();
        assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    }
    drop(sender.await.unwrap());
    let outcome = proxy.state.outcome(1).await;
    assert_eq!((outcome.bytes_up, outcome.bytes_down, outcome.complete), (SIZE as u64, SIZE as u64, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_slows_the_upstream_down() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let rack = Rack::raw(move |_, mut raw, _| {
        let counter = Arc::clone(&counter);
        async move {
            raw.head().await;
            raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            for _ in 0..1024 {
                if raw.stream.write_all(chunk.as_bytes()).await.is_err() {
                    return;
                }
                counter.fetch_add(chunk.len(), SeqCst);
            }
        }
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", "")).await;
    raw.head().await.unwrap();
    // Nothing is read: what is sent stops at what the sockets hold.
    let mut last = usize::MAX;
    soon("the upstream to be held back", async {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = sent.load(SeqCst);
            if now == last {
                break;
            }
            last = now;
        }
    })
    .await;
    assert!(last < 48 * 1024 * 1024, "{last}");
    raw.send("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_reaches_the_caller_while_it_is_still_being_made() {
    let rack = Rack::raw(|_, mut raw, _| async move {
        raw.head().await;
        raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        // Until the caller has gone.
        raw.rest().await;
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/x", "alice", "")).await;
    assert_eq!(raw.head().await.unwrap().status(), 200);
    assert_eq!(raw.exactly(10).await.unwrap(), b"5\r\nfirst\r\n");
    drop(raw);
    assert!(!proxy.state.outcome(1).await.complete, "the upstream is let go when the caller is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_connection_that_was_closed_meanwhile_is_no_error() {
    // Takes one request per connection, says nothing of closing, and closes when the next one comes.
    let rack = Rack::raw(|connection, mut raw, seen| async move {
        let message = raw.request().await.unwrap();
        seen.lock().unwrap().push(Seen { connection, message });
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        raw.head().await;
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    for round in 1..5 {
        raw.send(request("GET", "/x", "alice", "")).await;
        assert_eq!(raw.reply().await.unwrap().status(), 200);
        assert_eq!(rack.connections(), round);
    }
    raw.send(request("POST", "/x", "alice", "Content-Length: 2\r\n") + "hi").await;
    let reply = raw.reply().await.unwrap();
    assert_eq!(reply.status(), 502, "what may have been acted on is not sent twice");
    assert!(reply.text().contains("closed the connection before it answered"), "{}", reply.text());
    assert_eq!(rack.seen().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_not_sent_twice_once_a_byte_of_reply_has_come() {
    let rack = Rack::raw(|connection, mut raw, seen| async move {
        while let Some(message) = raw.request().await {
            let first = message.line.contains("/first");
            seen.lock().unwrap().push(Seen { connection, message });
            if !first {
                raw.send("HTTP/1.1 2").await;
                return;
            }
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let mut raw = Raw::connect(proxy.address).await;
    raw.send(request("GET", "/first", "alice", "")).await;
    assert_eq!(raw.reply().await.unwrap().status(), 200);
    raw.send(request("GET", "/second", "alice", "")).await;
    assert_eq!(raw.reply().await.unwrap().status(), 502);
    assert_eq!(rack.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_generation_does_not_use_the_connections_of_the_old() {
    let (rack, proxy) = echoing().await;
    let mut raw = Raw::connect(proxy.address).await;
    for (generation, connections) in [(1, 1), (1, 1), (2, 2), (2, 2), (3, 3)] {
        let upstream = Upstream::new("rack", generation, "127.0.0.1", rack.address.port(), None).unwrap();
        *proxy.state.upstream.lock().unwrap() = Some(Arc::new(upstream));
        raw.send(request("GET", "/x", "alice", "")).await;
        assert_eq!(raw.reply().await.unwrap().status(), 200);
        assert_eq!(rack.connections(), connections);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_an_upstream_has_a_text_of_its_own() {
    async fn text(proxy: &Proxy) -> (u16, String) {
        let reply = once(proxy.address, request("GET", "/x", "alice", "")).await;
        let id = reply.header("request-id").unwrap().to_owned();
        let text = reply.text();
        assert!(text.contains(&id) && !text.contains('%') && !text.contains("cGFzc3dvcmQ"), "{text}");
        (reply.status(), text)
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let (status, refused) = text(&Proxy::before(nobody).await).await;
    assert_eq!(status, 502);
    assert!(refused.contains("connection refused"), "{refused}");

    let unknown = Upstream::new("rack", 1, "no-such-host.invalid", 443, None).unwrap().with_label("Rack org/prod");
    let proxy = Proxy::with(unknown, Limits::default(), None, convox_proxy::Nothing, 1).await;
    let (status, lookup) = text(&proxy).await;
    assert_eq!(status, 502);
    assert!(lookup.contains("Rack org/prod") && lookup.contains("name lookup failed"), "{lookup}");

    let rack = Rack::raw(|_, mut raw, _| async move {
        raw.head().await;
    })
    .await;
    let (status, closed) = text(&Proxy::before(rack.address).await).await;
    assert_eq!(status, 502);
    assert!(closed.contains("closed the connection before it answered"), "{closed}");

    let (_rack, proxy) = answering(b"SSH-2.0-OpenSSH_9\r\n\r\n").await;
    let (status, bad) = text(&proxy).await;
    assert_eq!(status, 502);
    assert!(bad.contains("cannot be passed on"), "{bad}");

    let (_rack, proxy) = answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n").await;
    let (status, switched) = text(&proxy).await;
    assert_eq!(status, 502);
    assert!(switched.contains("nobody asked for"), "{switched}");

    let (_rack, proxy) = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(text(&proxy).await.0, 502);

    let rack = Rack::raw(|_, mut raw, _| async move {
        raw.head().await;
        raw.rest().await;
    })
    .await;
    let limits = Limits { reply: Duration::from_millis(500), ..Limits::default() };
    let (status, late) = text(&Proxy::limited(rack.address, limits).await).await;
    assert_eq!(status, 504);
    assert!(late.contains("did not answer in time"), "{late}");
}

/// Odd exchanges, each followed by a good one that must get its own answer. `CONVOX_PAIRS` sets how many.
#[tokio::test(flavor = "multi_thread")]
async fn no_reply_is_mixed_up_with_another() {
    let pairs: usize = std::env::var("CONVOX_PAIRS").ok().and_then(|pairs| pairs.parse().ok()).unwrap_or(2000);
    let rack = Rack::start(|seen| {
        let id = seen.message.header("id").unwrap_or("-").to_owned();
        match seen.message.line.split(' ').nth(1).unwrap() {
            "/length" => Answer::Keep(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nId: {id}\r\n\r\n{id}", id.len()).into_bytes()),
            "/chunked" => Answer::Keep(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nId: {id}\r\n\r\n{:x}\r\n{id}\r\n0\r\n\r\n", id.len()).into_bytes()),
            "/close" => Answer::Close(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nId: {id}\r\n\r\n{id}").into_bytes()),
            "/old" => Answer::Close(format!("HTTP/1.0 200 OK\r\nId: {id}\r\n\r\n{id}").into_bytes()),
            "/old-kept" => {
                Answer::Keep(format!("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: {}\r\nId: {id}\r\n\r\n{id}", id.len()).into_bytes())
            }
            "/none" => Answer::Keep(format!("HTTP/1.1 204 No Content\r\nId: {id}\r\n\r\n").into_bytes()),
            // A byte too many: whoever uses the connection again reads it as the beginning of the next reply.
            "/more" => Answer::Keep(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nId: {id}\r\n\r\n{id}HTTP/1.1 200 OK\r\nContent-Length: 6\r\nId: wrong\r\n\r\nwrong!", id.len()).into_bytes()),
            "/early" => Answer::Keep(format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: {}\r\nId: {id}\r\n\r\n{id}", id.len()).into_bytes()),
            other => panic!("{other}"),
        }
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = Vec::new();
    for _ in 0..8 {
        let (wrong, next, address) = (Arc::clone(&wrong), Arc::clone(&next), proxy.address);
        workers.push(tokio::spawn(async move {
            let mut raw = Raw::connect(address).await;
            loop {
                let number = next.fetch_add(1, SeqCst);
                if number >= pairs {
                    return;
                }
                let odd = ["/chunked", "/close", "/old", "/old-kept", "/none", "/more", "/early"][number % 7];
                let version = if number % 5 == 0 { "HTTP/1.0\r\nConnection: keep-alive" } else { "HTTP/1.1" };
                let (lines, body) = match number % 4 {
                    0 if number % 5 != 0 => ("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
                    1 => ("Content-Length: 3\r\n", "abc"),
                    _ => ("", ""),
                };
                for (path, id, lines, body, method) in
                    [(odd, format!("odd-{number}"), lines, body, "POST"), ("/length", format!("good-{number}"), "", "", "GET")]
                {
                    raw.send(format!(
                        "{method} {path} {version}\r\nHost: c\r\nAuthorization: Bearer alice\r\nId: {id}\r\n{lines}\r\n{body}"
                    ))
                    .await;
                    let Some(reply) = raw.reply().await else {
                        wrong.lock().unwrap().push(format!("{path} {id}: no reply"));
                        raw = Raw::connect(address).await;
                        continue;
                    };
                    // A connection that was closed while it lay idle may fail a POST, and only that.
                    let failed = reply.status() == 502 && method == "POST";
                    if !failed && (reply.header("id") != Some(id.as_str()) || (reply.status() != 204 && reply.text() != id)) {
                        wrong.lock().unwrap().push(format!("{path} {id}: {reply:?}"));
                    }
                    if reply.header("connection") == Some("close")
                        || (reply.header("content-length").is_none()
                            && reply.header("transfer-encoding").is_none()
                            && reply.status() != 204)
                    {
                        raw = Raw::connect(address).await;
                    }
                }
            }
        }));
    }
    for worker in workers {
        tokio::time::timeout(Duration::from_mins(10), worker).await.unwrap().unwrap();
    }
    let wrong = wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{} of {pairs}: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
}

/// What was decided about is what is forwarded (T8). `CONVOX_PATHS` sets how many are tried.
#[tokio::test(flavor = "multi_thread")]
async fn the_path_that_was_decided_about_is_the_path_that_is_forwarded() {
    const PIECES: &[&str] = &[
        "/",
        "//",
        "/.",
        "/..",
        "/./",
        "/../",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        "%2e",
        "%2e%2e/",
        "%00",
        "%",
        "%zz",
        ";",
        ";x=y",
        "?",
        "?a=b",
        "&",
        "#",
        "#/x",
        "@",
        ":",
        "*",
        "+",
        "~",
        "$",
        "apps",
        "a",
        "processes",
        "\u{e9}",
        "\u{2044}",
        "\t",
        "\"",
        "<",
        ">",
        "|",
        "^",
        "`",
        "{",
        "}",
        "[",
        "]",
        "=",
        ",",
        "http://",
        "%c0%af",
        "%25%32%66",
    ];
    let count: usize = std::env::var("CONVOX_PATHS").ok().and_then(|count| count.parse().ok()).unwrap_or(2000);
    let (rack, proxy) = echoing().await;
    let mut state = 1_u64;
    let mut pick = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let mut raw = Raw::connect(proxy.address).await;
    let mut forwarded = 0;
    for _ in 0..count {
        let path: String = std::iter::once("/").chain((0..pick(8)).map(|_| PIECES[pick(PIECES.len())]).collect::<Vec<_>>()).collect();
        raw.send(request("GET", &path, "alice", "")).await;
        let reply = raw.reply().await.unwrap();
        if reply.status() == 400 {
            raw = Raw::connect(proxy.address).await;
            continue;
        }
        forwarded += 1;
        let allowed = proxy.state.allowed.lock().unwrap().last().unwrap().clone();
        let seen = rack.seen().last().unwrap().message.line.clone();
        assert_eq!(allowed, format!("{} alice request", seen.trim_end_matches(" HTTP/1.1")), "{path:?}");
        // A fragment is no part of a request; everything else goes through as it came.
        assert_eq!(seen, format!("GET {} HTTP/1.1", path.split('#').next().unwrap()), "{path:?}");
    }
    assert!(forwarded > count / 4, "{forwarded} of {count}");
}
