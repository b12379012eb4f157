//! Framing that two servers may read differently gets no request past the gate (T1).

use std::collections::HashMap;

use crate::gate::{Proxy, request};
use crate::rack::{Rack, echo};
use crate::raw::Raw;

/// What an attacker hopes will be taken for a request of bob's.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: console\r\nConvox-Actor: bob\r\nAuthorization: Basic Zm9yZ2Vk\r\n\r\n";

struct Mutation {
    bytes: Vec<u8>,
    /// Must be answered 400 at once.
    ambiguous: bool,
}

fn post(lines: &str, body: &str) -> String {
    request("POST", "/mutated", "alice", lines) + body
}

fn mutations() -> Vec<Mutation> {
    let mut all = Vec::new();
    let mut add = |bytes: String, ambiguous: bool| all.push(Mutation { bytes: bytes.into_bytes(), ambiguous });
    let length = HIDDEN.len();
    let hidden_chunk = format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n");

    // Both framings, in both orders, with every spelling of either.
    let codings = [
        "Transfer-Encoding: chunked",
        "transfer-encoding: chunked",
        "TRANSFER-ENCODING: CHUNKED",
        "Transfer-Encoding:chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding:  chunked  ",
        "Transfer-Encoding: Chunked",
        "tRANSFER-eNCODING: cHUNKED",
    ];
    let lengths = ["0", "5", "6", "1", "4294967297"].map(|length| format!("Content-Length: {length}"));
    for coding in codings {
        for length in &lengths {
            for body in ["0\r\n\r\n", &hidden_chunk] {
                add(post(&format!("{coding}\r\n{length}\r\n"), &format!("{body}{HIDDEN}")), true);
                add(post(&format!("{length}\r\n{coding}\r\n"), &format!("{body}{HIDDEN}")), true);
                add(post(&format!("{length}\r\nX: y\r\n{coding}\r\n"), &format!("{body}{HIDDEN}")), true);
            }
        }
    }
    // Codings that somebody may take for chunked, or not.
    for coding in [
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "\"chunked\"",
        "'chunked'",
        "chunked;q=1",
        "chu nked",
        "chunke",
        "chunkedd",
        "cow",
        "\u{b}chunked",
        "chunked\u{b}",
        "\0chunked",
        "chunked\0",
        "",
        "x, chunked",
    ] {
        for also in ["", "Content-Length: 6\r\n"] {
            add(post(&format!("Transfer-Encoding: {coding}\r\n{also}"), &format!("0\r\n\r\n{HIDDEN}")), true);
            add(post(&format!("{also}Transfer-Encoding: chunked\r\nTransfer-Encoding: {coding}\r\n"), &format!("0\r\n\r\n{HIDDEN}")), true);
            add(post(&format!("{also}Transfer-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n"), &format!("0\r\n\r\n{HIDDEN}")), true);
        }
    }
    // Names that somebody may take for the framing header.
    for name in [
        "Transfer-Encoding ",
        "Transfer-Encoding\t",
        " Transfer-Encoding",
        "\tTransfer-Encoding",
        "Transfer_Encoding",
        "Transfer-Encoding\0",
        "Transfer-Encoding\u{b}",
        "X\nTransfer-Encoding",
        "X\rTransfer-Encoding",
    ] {
        for also in ["", "Content-Length: 6\r\n"] {
            add(post(&format!("{also}{name}: chunked\r\n"), &format!("0\r\n\r\n{HIDDEN}")), true);
        }
    }
    for name in ["Content-Length ", " Content-Length", "Content_Length", "Content-Length\0", "X\nContent-Length"] {
        add(post(&format!("{name}: {length}\r\n"), HIDDEN), true);
    }
    // Lengths that somebody may read differently.
    for value in [
        "+5",
        "-5",
        "0x5",
        "5 5",
        "5,5",
        "5, 5",
        "5;5",
        "5.0",
        "5e0",
        " ",
        "",
        "\u{b}5",
        "5\0",
        "0b101",
        "99999999999999999999",
        "18446744073709551616",
        "१",
        "5,",
        ",5",
        "\"5\"",
    ] {
        add(post(&format!("Content-Length: {value}\r\n"), &format!("hello{HIDDEN}")), true);
        add(post(&format!("Content-Length: {value}\r\nContent-Length: 5\r\n"), &format!("hello{HIDDEN}")), true);
        add(post(&format!("Content-Length: 5\r\nContent-Length: {value}\r\n"), &format!("hello{HIDDEN}")), true);
    }
    for (first, second) in [("5", "5"), ("5", "6"), ("0", "5"), ("5", "0"), ("5", "05")] {
        add(post(&format!("Content-Length: {first}\r\nContent-Length: {second}\r\n"), &format!("hello{HIDDEN}")), true);
        add(post(&format!("Content-Length: {first}\r\nX: y\r\ncontent-length: {second}\r\n"), &format!("hello{HIDDEN}")), true);
    }
    // Line ends.
    for head in [
        "POST /mutated HTTP/1.1\nHost: c\nAuthorization: Bearer alice\nContent-Length: 5\n\nhello",
        "POST /mutated HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer alice\r\nContent-Length: 5\r\n\nhello",
        "POST /mutated HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer alice\r\nX: a\rContent-Length: 5\r\n\r\nhello",
        "POST /mutated HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer alice\r\nX: a\r\n Content-Length: 5\r\n\r\nhello",
        "POST /mutated HTTP/1.1\r\nHost: c\r\nAuthorization: Bearer alice\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ] {
        add(format!("{head}{HIDDEN}"), true);
    }
    // Request lines.
    for line in [
        "POST http://console/mutated HTTP/1.1",
        "POST  /mutated HTTP/1.1",
        "POST /mutated  HTTP/1.1",
        "POST\t/mutated HTTP/1.1",
        "POST /mutated HTTP/1.2",
        "POST /mutated HTTP/2.0",
        "POST /mutated http/1.1",
        "POST /mutated",
        "POST /mutated HTTP/1.1 x",
        "POST /muta ted HTTP/1.1",
        "CONNECT console:443 HTTP/1.1",
        "POST console:443 HTTP/1.1",
        " POST /mutated HTTP/1.1",
        "PO\0ST /mutated HTTP/1.1",
        "POST /mut\0ated HTTP/1.1",
    ] {
        add(format!("{line}\r\nHost: c\r\nAuthorization: Bearer alice\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"), true);
    }
    // HTTP/1.0 has no chunks.
    add(
        format!("POST /mutated HTTP/1.0\r\nHost: c\r\nAuthorization: Bearer alice\r\nTransfer-Encoding: chunked\r\n\r\n{hidden_chunk}"),
        true,
    );
    add(
        format!(
            "POST /mutated HTTP/1.0\r\nHost: c\r\nAuthorization: Bearer alice\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello{HIDDEN}"
        ),
        true,
    );
    // Hosts.
    for hosts in [
        "Host: a\r\nHost: b\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a b\r\n",
        "Host: a, b\r\n",
        "Host:\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host : a\r\n",
        "",
    ] {
        add(format!("POST /mutated HTTP/1.1\r\n{hosts}Authorization: Bearer alice\r\nContent-Length: {length}\r\n\r\n{HIDDEN}"), true);
    }
    // Chunks: the head is fine, so the request goes up, and must never look whole there unless it is.
    for chunk in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";\r\nhello\r\n0\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloworld\r\n0\r\n\r\n",
        "5\r\nhel\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
    ] {
        add(post("Transfer-Encoding: chunked\r\n", &format!("{chunk}{HIDDEN}")), false);
    }
    // Nothing wrong: what is hidden in a body stays a body, and what follows is a request of its own.
    add(post(&format!("Content-Length: {length}\r\n"), HIDDEN), false);
    add(post("Transfer-Encoding: chunked\r\n", &hidden_chunk), false);
    add(post("Content-Length: 5\r\n", &format!("hello{HIDDEN}")), false);
    add(post("", HIDDEN), false);
    add(request("GET", "/mutated", "alice", "") + HIDDEN, false);
    add(request("HEAD", "/mutated", "alice", &format!("Content-Length: {length}\r\n")) + HIDDEN, false);
    add(format!("\r\n\r\n{}", request("GET", "/mutated", "alice", "")), false);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mutation_gets_a_request_past_the_gate() {
    let rack = Rack::start(echo).await;
    let proxy = Proxy::before(rack.address).await;
    let mutations = mutations();
    assert!(mutations.len() > 500, "{}", mutations.len());
    let mut bob = Raw::connect(proxy.address).await;
    for (number, Mutation { bytes, ambiguous }) in mutations.iter().enumerate() {
        let shown = String::from_utf8_lossy(bytes);
        // Half of them come on a connection that has served before.
        let mut raw = Raw::connect(proxy.address).await;
        if number % 2 == 0 {
            raw.send(request("GET", "/before", "alice", "Id: before\r\n")).await;
            assert_eq!(raw.reply().await.unwrap().header("id"), Some("before"));
        }
        // And a third of them in two pieces.
        if number % 3 == 0 {
            let (one, two) = bytes.split_at(bytes.len() / 2);
            raw.send(one).await;
            tokio::task::yield_now().await;
            raw.send(two).await;
        } else {
            raw.send(bytes).await;
        }
        if *ambiguous {
            let reply = raw.reply().await.unwrap_or_else(|| panic!("no answer to {shown:?}"));
            assert_eq!(reply.status(), 400, "{shown:?}");
            assert_eq!(raw.rest().await, b"", "closed after {shown:?}");
        } else {
            // Ends whatever is still expected.
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut raw.stream).await;
            raw.rest().await;
        }
        // The other user of the same upstream connections gets answers to nothing but their own questions.
        bob.send(request("GET", "/bob", "bob", &format!("Id: bob-{number}\r\n"))).await;
        let reply = bob.reply().await.unwrap();
        assert_eq!(reply.header("id"), Some(format!("bob-{number}").as_str()), "after {shown:?}");
    }

    // Every request that the upstream saw was let through as that user, as often as that.
    let mut allowed: HashMap<String, usize> = HashMap::new();
    for line in proxy.state.allowed.lock().unwrap().iter() {
        *allowed.entry(line.clone()).or_default() += 1;
    }
    for seen in rack.seen() {
        let mut words = seen.message.line.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let line = format!("{method} {path} {} request", seen.message.all("convox-actor").join("+"));
        let left = allowed.get_mut(&line).unwrap_or_else(|| panic!("never allowed: {line}"));
        assert!(*left > 0, "seen more often than allowed: {line}");
        *left -= 1;
        assert_ne!(path, "/hidden");
        assert_eq!(seen.message.all("authorization"), [crate::gate::CREDENTIAL]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_chunk_never_looks_whole_to_the_upstream() {
    let rack = Rack::start(echo).await;
    let proxy = Proxy::before(rack.address).await;
    for chunk in ["5\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5;\nhello\r\n0\r\n\r\n"] {
        let mut raw = Raw::connect(proxy.address).await;
        raw.send(post("Transfer-Encoding: chunked\r\n", chunk)).await;
        raw.rest().await;
        assert!(rack.seen().is_empty(), "{chunk:?}");
    }
}
