//! A Console that asks for a second factor: a code at the terminal, or the browser, whose answer nobody else can bring (T21).

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::person::Person;
use crate::server::{Answer, Request, Server, json, status};
use crate::terminal::Session;

const CHALLENGE: &str = r#"{"publicKey":{"challenge":"Y2g=","rpId":"console.example.com","allowCredentials":[]}}"#;
const RACKS: &str = r#"[{"name":"main","organization":{"name":"acme"},"provider":"local","status":"running"}]"#;

/// Demands a session, and takes the code 123456 or an authenticator's answer for one. `answers` is what it says of itself.
fn console(answers: &'static str) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    move |request: &Request| {
        let with = |answers: &str| {
            let mut headers = vec![("Challenge", "c1".to_owned())];
            if !answers.is_empty() {
                headers.push(("Session-Answers", answers.to_owned()));
            }
            headers
        };
        match request.line().as_str() {
            "GET /session" => Answer::Reply(200, with(answers), CHALLENGE.as_bytes().to_vec()),
            "POST /session" if request.header("Challenge") != Some("c1") => status(409, "no such challenge\n"),
            "POST /session" => match request.text().as_str() {
                r#"{"code":"123456"}"# | r#"{"id":"signed"}"# => json(r#"{"id":"s1"}"#),
                _ => status(403, "that code is wrong, or was used before; wait for the next one\n"),
            },
            _ if request.header("Session") == Some("s1") => json(RACKS),
            _ => Answer::Reply(401, vec![("WWW-Authenticate", r#"Session path="/session" token="true""#.to_owned())], Vec::new()),
        }
    }
}

#[test]
fn a_code_at_the_terminal_opens_a_session_that_later_commands_use() {
    let server = Server::start(console("browser, code"));
    let person = Person::at(&server);
    let mut session = Session::start(&person, &["racks"]);
    session.expect("Code of your authenticator app (Enter: use the browser): ");
    session.type_in("000000\n");
    session.expect("wait for the next one");
    // The question that follows, not the one before: the terminal is silent only by then.
    let until = session.so_far.find("wait for the next one").unwrap();
    session.so_far.drain(..until);
    session.expect("use the browser): ");
    session.type_in("123456\n");
    let (code, shown) = session.finish();
    assert!(code == 0 && shown.contains("acme/main"), "{code}: {shown}");
    assert!(!shown.contains("123456"), "what is typed is not shown: {shown}");
    assert_eq!(person.map("session")[&server.host()], "s1");
    server.forget();
    // Without a terminal too.
    assert!(person.run(&["racks"]).ok().contains("acme/main"));
    assert_eq!(server.lines(), ["GET /racks"]);
}

#[test]
fn without_a_terminal_nobody_can_be_asked_and_nothing_is_begun() {
    let server = Server::start(console("browser, code"));
    let person = Person::at(&server);
    let said = person.run(&["racks"]).err();
    assert!(said.contains("asks for your second factor, and there is no terminal to ask you at"), "{said}");
    assert!(said.contains("machines use deploy keys"), "{said}");
    assert_eq!(server.lines(), ["GET /racks"]);
}

/// One request to the address where the command line waits.
fn call(address: &str, head: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return "refused".to_owned() };
    let _ = stream.write_all(head.as_bytes());
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    reply.lines().next().unwrap_or_default().to_owned()
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let pair = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap());
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn the_browsers_answer_is_taken_once_on_loopback_and_from_nobody_else() {
    // As the original Console: it says nothing of codes.
    let server = Server::start(console(""));
    let person = Person::at(&server);
    let mut session = Session::start(&person, &["racks"]);
    session.expect("Waiting, at most five minutes");
    let url = session.so_far.split_whitespace().find(|word| word.contains("/login/u2f?")).unwrap().to_owned();
    assert!(url.starts_with(&format!("https://{}/login/u2f?callback_url=", server.host())), "{url}");
    let field = |name: &str| decoded(url.split(['?', '&']).find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap());
    assert_eq!(STANDARD.decode(field("token")).unwrap(), CHALLENGE.as_bytes());
    let callback = field("callback_url");
    let (address, path) = callback.strip_prefix("http://").unwrap().split_once('/').unwrap();
    assert!(address.starts_with("127.0.0.1:") && path.len() >= 22, "{callback}");
    let port = address.rsplit_once(':').unwrap().1;

    let data = STANDARD.encode(r#"{"id":"signed"}"#).replace('=', "%3D").replace('+', "%2B");
    let get = |path: &str, host: &str, more: &str| call(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"));
    for (path, host, more) in [
        (format!("/?data={data}"), address, ""),
        (format!("/{path}x?data={data}"), address, ""),
        (format!("/{path}"), address, ""),
        (format!("/{path}?data="), address, ""),
        (format!("/{path}?data={data}&data={data}"), address, ""),
        // A name of somebody else's that was made to resolve to this machine.
        (format!("/{path}?data={data}"), "evil.example", ""),
        (format!("/{path}?data={data}"), &format!("localhost:{port}"), ""),
        // A page in the background.
        (format!("/{path}?data={data}"), address, "Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n"),
    ] {
        let reply = get(&path, host, more);
        assert!(reply.starts_with("HTTP/1.1 4"), "{path} {host} {more}: {reply}");
    }
    assert!(call(address, &format!("POST /{path}?data={data} HTTP/1.1\r\nHost: {address}\r\n\r\n")).starts_with("HTTP/1.1 405"));
    assert_eq!(call(&format!("127.0.0.2:{port}"), ""), "refused", "no other address of this machine");
    assert!(!server.lines().contains(&"POST /session".to_owned()), "{:?}", server.lines());

    assert!(
        get(&format!("/{path}?data={data}"), address, "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n")
            .starts_with("HTTP/1.1 200")
    );
    let (code, shown) = session.finish();
    assert!(code == 0 && shown.contains("acme/main"), "{code}: {shown}");
    assert_eq!(get(&format!("/{path}?data={data}"), address, ""), "refused", "nobody listens any more");
    let posted: Vec<Request> = server.seen().into_iter().filter(|request| request.line() == "POST /session").collect();
    assert_eq!(posted.len(), 1);
    assert_eq!((posted[0].text().as_str(), posted[0].header("Challenge")), (r#"{"id":"signed"}"#, Some("c1")));
    assert_eq!(person.map("session")[&server.host()], "s1");
}
