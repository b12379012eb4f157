//! Certificates: nothing of the key is sent before one is accepted.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::person::Person;
use crate::server::{Answer, Identity, Request, Server, json};

fn anything(request: &Request) -> Answer {
    match request.path.as_str() {
        "/apps" => json("[]"),
        _ => json("{}"),
    }
}

#[test]
fn a_changed_certificate_is_refused_before_a_byte_is_sent() {
    let server = Server::start(anything);
    let person = Person::at(&server);
    let pinned = server.fingerprint.to_string();
    let other = "sha256:".to_owned() + &"ab".repeat(32);
    person.save("pins", &format!("{{\"{}\": \"{other}\"}}", server.host()));
    for args in [&["apps"][..], &["logs"], &["login", "-p", "x"], &["exec", "p", "sh"], &["whoami"]] {
        let said = person.run(args).err();
        assert!(said.contains("certificate has changed") && said.contains(&pinned) && said.contains(&other), "{said}");
        assert!(said.contains("convox trust "), "{said}");
    }
    assert_eq!(server.application_bytes(), 0);
    assert!(server.connections() > 0);
    // The way out that the hint names.
    person.run(&["trust", &server.host(), "--fingerprint", &pinned]).ok();
    assert_eq!(person.run(&["apps"]).ok(), "APP  STATUS  RELEASE\n");
}

#[test]
fn an_unknown_certificate_is_pinned_loudly_once() {
    let server = Server::start(anything);
    let person = Person::at(&server);
    person.save("pins", "{}");
    let ran = person.run(&["apps"]);
    assert!(ran.stderr.contains("WARNING") && ran.stderr.contains(&server.fingerprint.to_string()), "{ran:?}");
    assert_eq!(ran.ok(), "APP  STATUS  RELEASE\n");
    assert_eq!(person.map("pins")[&server.host()], server.fingerprint.to_string());
    assert_eq!(person.run(&["apps"]).stderr, "", "the second time is silent");
}

#[test]
fn strict_mode_and_a_wrong_fingerprint_trust_nothing_on_first_use() {
    let server = Server::start(anything);
    let person = Person::at(&server).with("CONVOX_STRICT_TLS", "true");
    person.save("pins", "{}");
    let said = person.run(&["apps"]).err();
    assert!(said.contains("vouches") && said.contains(&format!("--fingerprint {}", server.fingerprint)), "{said}");
    let wrong = "sha256:".to_owned() + &"00".repeat(32);
    let said = person.run(&["login", &server.host(), "-p", "x", "--fingerprint", &wrong]).err();
    assert!(said.contains("certificate has changed"), "{said}");
    assert_eq!((server.application_bytes(), person.map("pins").len()), (0, 0));
    person.run(&["login", &server.host(), "-p", "x", "--fingerprint", &server.fingerprint.to_string()]).ok();
    person.run(&["apps"]).ok();
}

#[test]
fn a_certificate_that_the_system_vouches_for_needs_no_pin() {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(params, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let identity = Identity { certificate: certificate.der().to_vec(), key: key.serialize_der() };
    let server = Server::with(&identity, &[None], anything);
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), authority.pem()).unwrap();
    let person = Person::at(&server).with("SSL_CERT_FILE", roots.path().to_str().unwrap()).with("CONVOX_STRICT_TLS", "true");
    person.save("pins", "{}");
    let ran = person.run(&["apps"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(person.map("pins").is_empty());
}

#[test]
fn rack_url_hosts_are_pinned_likewise_and_may_be_clear_text() {
    let server = Server::start(anything);
    let person = Person::new().with("RACK_URL", &format!("https://convox:pw@{}/prefix", server.host()));
    let ran = person.run(&["apps"]);
    assert!(ran.stderr.contains("WARNING"), "{ran:?}");
    assert_eq!(person.map("pins")[&server.host()], server.fingerprint.to_string());
    assert_eq!(server.lines(), ["GET /prefix/apps"]);

    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://convox:pw@{}", plain.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = plain.accept().unwrap();
        let mut buffer = [0u8; 4096];
        let count = stream.read(&mut buffer).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    });
    Person::new().with("RACK_URL", &url).run(&["apps"]).ok();
    assert!(answering.join().unwrap().contains("Authorization: Basic Y29udm94OnB3\r\n"));
}

#[test]
fn trust_shows_and_forgets() {
    let server = Server::start(anything);
    let person = Person::at(&server);
    let shown: serde_json::Value = serde_json::from_str(&person.run(&["trust", &server.host(), "--json"]).ok()).unwrap();
    assert_eq!(shown["shown"], shown["pinned"]);
    assert_eq!(shown["shown"], server.fingerprint.to_string());
    person.run(&["trust", &server.host(), "--forget"]).ok();
    assert!(person.map("pins").is_empty());
    assert_eq!(server.application_bytes(), 0);
}

#[test]
fn a_proxy_from_the_environment_is_connected_through_and_sees_no_key() {
    let server = Server::start(anything);
    let target = server.host();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let (send, heads) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in proxy.incoming().map_while(Result::ok) {
            let (target, send) = (target.clone(), send.clone());
            std::thread::spawn(move || relay(stream, &target, &send));
        }
    });
    let person = Person::new().with("HTTPS_PROXY", &format!("http://user:pw@{address}"));
    person.save("host", "rack.test:5443");
    person.save("auth", r#"{"rack.test:5443": "secretkey"}"#);
    person.save("pins", &format!("{{\"rack.test:5443\": \"{}\"}}", server.fingerprint));
    person.run(&["apps"]).ok();
    let head = heads.recv().unwrap();
    assert!(
        head.starts_with("CONNECT rack.test:5443 HTTP/1.1\r\n") && head.contains("Proxy-Authorization: Basic dXNlcjpwdw==\r\n"),
        "{head}"
    );
    assert!(!head.contains("secretkey"));
    assert_eq!(server.seen()[0].header("Host"), Some("rack.test:5443"));
    let person = person.with("NO_PROXY", "rack.test");
    let said = person.run(&["apps"]).err();
    assert!(said.contains("could not look up rack.test"), "{said}");
}

fn relay(mut client: TcpStream, target: &str, heads: &std::sync::mpsc::Sender<String>) {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read_exact(&mut byte).is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let _ = heads.send(String::from_utf8_lossy(&head).into_owned());
    let Ok(mut upstream) = TcpStream::connect(target) else { return };
    let _ = client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
    let (Ok(mut from), Ok(mut to)) = (client.try_clone(), upstream.try_clone()) else { return };
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let _ = std::io::copy(&mut upstream, &mut client);
}
