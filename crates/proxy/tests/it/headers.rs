//! What of a caller's head reaches the upstream (T4 to T7), and what of the reply reaches the caller.

use crate::gate::{CREDENTIAL, Proxy, request};
use crate::rack::{Answer, Rack, echo};
use crate::raw::{Message, once};

async fn sent(lines: &str) -> (Message, Option<Message>) {
    let rack = Rack::start(echo).await;
    let proxy = Proxy::before(rack.address).await;
    let reply = once(proxy.address, request("GET", "/apps?", "alice", lines)).await;
    (reply, rack.seen().first().map(|seen| seen.message.clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_sees_our_credential_and_actor_exactly_once() {
    let claims = "Convox-Actor: root\r\nX-Convox-Actor: root\r\nConvox-TID: t\r\nRack: org/prod\r\nSession: s\r\nCookie: a=b\r\n\
                  X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-User: root\r\nForwarded: for=127.0.0.1\r\nX-Real-IP: 10.0.0.1\r\n\
                  X-Original-URL: /racks\r\nImpersonate-User: root\r\nAuthorization: Basic eDp5\r\n";
    let (reply, seen) = sent(claims).await;
    assert_eq!(reply.status(), 200);
    let seen = seen.unwrap();
    assert_eq!(seen.all("authorization"), [CREDENTIAL]);
    assert_eq!(seen.all("convox-actor"), ["alice"]);
    for name in [
        "x-convox-actor",
        "convox-tid",
        "rack",
        "session",
        "cookie",
        "x-forwarded-for",
        "x-forwarded-user",
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "impersonate-user",
    ] {
        assert_eq!(seen.all(name), [""; 0], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_cannot_strip_what_we_add() {
    let lines = "Connection: authorization, rack, convox-actor, x-forwarded-for, session, host, content-length\r\n";
    let seen = sent(lines).await.1.unwrap();
    assert_eq!(seen.all("authorization"), [CREDENTIAL]);
    assert_eq!(seen.all("convox-actor"), ["alice"]);
    assert_eq!(seen.all("host").len(), 1);
    assert_eq!(seen.all("connection"), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn option_headers_and_the_empty_query_pass_unchanged() {
    let seen = sent("Command: sh -c 'echo  a,b'\r\nEnvironment: A=1&B=%20+\r\nTty: false\r\nVersion: dev\r\nUser-Agent: convox.go/dev\r\n")
        .await
        .1
        .unwrap();
    assert_eq!(seen.line, "GET /apps? HTTP/1.1");
    for (name, value) in [
        ("command", "sh -c 'echo  a,b'"),
        ("environment", "A=1&B=%20+"),
        ("tty", "false"),
        ("version", "dev"),
        ("user-agent", "convox.go/dev"),
    ] {
        assert_eq!(seen.all(name), [value]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_and_origin_become_the_upstreams() {
    let rack = Rack::start(echo).await;
    let proxy = Proxy::before(rack.address).await;
    once(proxy.address, request("GET", "/", "alice", "Origin: https://console\r\n")).await;
    let seen = &rack.seen()[0].message;
    assert_eq!(seen.all("host"), [rack.address.to_string()]);
    assert_eq!(seen.all("origin"), [format!("http://{}", rack.address)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_refused_before_the_upstream_hears_of_them() {
    for line in [
        "Convox_Actor: root\r\n",
        "X_Convox_Actor: root\r\n",
        "Rack_: x\r\n",
        "_: x\r\n",
        "Convox-Actor : root\r\n",
        "Convox-Actor\t: root\r\n",
        "Convox\0-Actor: root\r\n",
        "Convox-Actor: ro\0ot\r\n",
        "X: a\r\n b\r\n",
        " X: a\r\n",
        ": a\r\n",
        "X\r\n",
        "Host: other\r\n",
        "Convox-Actör: root\r\n",
    ] {
        let (reply, seen) = sent(line).await;
        assert_eq!(reply.status(), 400, "{line:?}");
        assert!(seen.is_none(), "{line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mixed_case_does_not_get_a_claim_through() {
    let seen = sent("cOnVoX-aCtOr: root\r\nRACK: x\r\nsEsSiOn: y\r\n").await.1.unwrap();
    assert_eq!(seen.all("convox-actor"), ["alice"]);
    assert!(seen.all("rack").is_empty() && seen.all("session").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replys_status_reason_headers_and_body_pass_unchanged() {
    let rack = Rack::start(|_| {
        Answer::Keep(
            b"HTTP/1.1 418 Short And Stout\r\nRelease-Id: R1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nRequest-Id: 0123456789ab\r\n\
              Connection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nLocation: /elsewhere\r\nContent-Length: 4\r\n\r\n\xff\x00a\n"
                .to_vec(),
        )
    })
    .await;
    let proxy = Proxy::before(rack.address).await;
    let reply = once(proxy.address, request("GET", "/", "alice", "")).await;
    assert_eq!(reply.line, "HTTP/1.1 418 Short And Stout");
    assert_eq!(reply.all("release-id"), ["R1"]);
    assert_eq!(reply.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(reply.all("request-id"), ["0123456789ab"]);
    assert_eq!(reply.all("location"), ["/elsewhere"]);
    assert!(reply.all("x-hop").is_empty() && reply.all("keep-alive").is_empty());
    assert_eq!(reply.body, b"\xff\x00a\n");
    assert_eq!(rack.seen().len(), 1, "a redirect is not followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_a_request_id() {
    let (reply, _) = sent("").await;
    assert_eq!(reply.header("request-id").unwrap().len(), 12);
}
