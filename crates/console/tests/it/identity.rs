//! Who a Rack hears from is what the Console found out, never what the caller says (T4 to T7).

use crate::{Door, Recorder};

const PASSWORD: &str = "rackPassword1";

/// Everything by which servers are told who is calling, or where from.
const CLAIMS: &str = "Convox-Actor: root@example.com\r\nX-Convox-Actor: root@example.com\r\nConvox-TID: other\r\nX-Convox-TID: other\r\n\
     convox-actor: twice@example.com\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Proto: http\r\n\
     X-Forwarded-User: root\r\nX-Forwarded-Email: root@example.com\r\nX-Real-IP: 10.0.0.1\r\nX-Original-URL: /system\r\nX-Rewrite-URL: /system\r\n\
     X-Original-Method: DELETE\r\nX-HTTP-Method-Override: DELETE\r\nX-Method-Override: DELETE\r\nX-Remote-User: root\r\nImpersonate-User: root\r\n\
     Cookie: session=1\r\nSession: stolen\r\nRequest-Id: 000000000000\r\nTE: trailers\r\nProxy-Authorization: Basic eDp5\r\nProxy-Connection: keep-alive\r\n\
     Keep-Alive: timeout=5\r\nOrigin: https://evil.example\r\nCommand: ls -la\r\n";

/// What a Rack sees of such a request.
#[track_caller]
fn sees_only_us(rack: &Recorder, target: &str) {
    let hit = rack.hits_of(target).pop().expect("the request arrives");
    assert_eq!(hit.all("convox-actor"), ["admin@example.com"], "{}", hit.head);
    assert_eq!(hit.all("authorization"), [convox_wire::basic::Basic::header("convox", PASSWORD)], "{}", hit.head);
    assert_eq!(hit.all("host"), [rack.host.as_str()], "{}", hit.head);
    let [id] = hit.all("request-id")[..] else { panic!("one request id: {}", hit.head) };
    assert!(id.len() == 12 && id != "000000000000", "{id}");
    for gone in [
        "rack",
        "session",
        "cookie",
        "x-convox-actor",
        "convox-tid",
        "x-convox-tid",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-user",
        "x-forwarded-email",
        "x-real-ip",
        "x-original-url",
        "x-rewrite-url",
        "x-original-method",
        "x-http-method-override",
        "x-method-override",
        "x-remote-user",
        "impersonate-user",
        "te",
        "proxy-authorization",
        "proxy-connection",
        "keep-alive",
    ] {
        assert_eq!(hit.all(gone), Vec::<&str>::new(), "{gone} in {}", hit.head);
    }
    assert!(!hit.head.contains("root") && !hit.head.contains("twice@") && !hit.head.contains("evil"), "{}", hit.head);
}

#[test]
fn what_a_caller_says_of_itself_never_reaches_a_rack() {
    let rack = Recorder::start(PASSWORD);
    let door = Door::with_rack(&rack);
    let reply = door.raw(door.head("GET /apps/claims?a=b", &door.key, "acme/main", CLAIMS));
    assert_eq!(reply.status, 200, "{}", reply.text());
    sees_only_us(&rack, "/apps/claims?a=b");
    let hit = rack.hits_of("/apps/claims?a=b").pop().unwrap();
    assert_eq!(hit.all("command"), ["ls -la"], "what is meant for the Rack passes");
    // The id that the Rack heard is the one that the caller is told.
    assert_eq!(hit.all("request-id"), [reply.header("request-id").unwrap()]);
}

#[test]
fn a_connection_header_takes_nothing_of_ours_away() {
    let rack = Recorder::start(PASSWORD);
    let door = Door::with_rack(&rack);
    let further = format!("{CLAIMS}Connection: authorization, rack, convox-actor, x-forwarded-for, session, request-id, host\r\n");
    assert_eq!(door.raw(door.head("GET /apps/hop?", &door.key, "acme/main", &further)).status, 200);
    sees_only_us(&rack, "/apps/hop?");
}

#[test]
fn a_shell_is_opened_in_the_name_of_its_caller_only() {
    let rack = Recorder::start(PASSWORD);
    let door = Door::with_rack(&rack);
    let claims = [("Convox-Actor", "root@example.com"), ("X-Forwarded-User", "root"), ("Command", "sh")];
    let Ok(mut shell) = door.client(&door.key, "acme/main").socket("/apps/web/processes/p1/exec", &claims).unwrap() else {
        panic!("a shell opens")
    };
    shell.text(b"hello").unwrap();
    assert_eq!(shell.receive().unwrap(), convox_testkit::go::Message::Text(b"hello".to_vec()));
    sees_only_us(&rack, "/apps/web/processes/p1/exec");
    let hit = rack.hits_of("/apps/web/processes/p1/exec").pop().unwrap();
    assert_eq!(hit.all("origin"), [format!("https://{}", rack.host)], "a Rack compares it with Host");
}

#[test]
fn headers_that_servers_read_differently_are_refused() {
    let rack = Recorder::start(PASSWORD);
    let door = Door::with_rack(&rack);
    for odd in [
        "Convox_Actor: root\r\n",
        "X_Convox_Actor: root\r\n",
        "Rack_: acme/main\r\n",
        "Rack : acme/main\r\n",
        "Convox-Actor : root\r\n",
        "X-A: b\r\n Convox-Actor: root\r\n",
        "X-A: b\0\r\n",
        "X-A\0: b\r\n",
        "Rack: acme/other\r\n",
        "Rack: acme/main\r\n",
        "Authorization: Bearer x\r\n",
    ] {
        let reply = door.raw(door.head("GET /apps?", &door.key, "acme/main", odd));
        assert_eq!(reply.status, 400, "{odd:?}: {}", reply.text());
    }
    // Requests, not connections: the Console looks at its Racks by itself.
    assert!(rack.hits().is_empty(), "{:?}", rack.hits());
}

#[test]
fn the_log_knows_the_caller_by_their_connection() {
    let rack = Recorder::start(PASSWORD);
    let door = Door::with_rack(&rack);
    assert_eq!(door.raw(door.head("DELETE /apps/gone?", &door.key, "acme/main", CLAIMS)).status, 200);
    let events = door.events(|event| event["path"] == "/apps/gone");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["actor"], "admin@example.com");
    assert_eq!(events[0]["peer"], "127.0.0.1");
    assert_eq!(events[0]["method"], "DELETE");
}
