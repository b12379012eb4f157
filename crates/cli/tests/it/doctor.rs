//! `doctor` names each of the usual faults, says what to do, and changes nothing. Each fault is a real one: of a server, a proxy, a file.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::person::Person;
use crate::server::{Answer, Identity, Request, Server, json, status};

/// A Console with one Rack, on whose clock it is `seconds` later than here.
fn console(seconds: i64) -> impl Fn(&Request) -> Answer {
    move |request| match request.path.as_str() {
        "/auth" => {
            let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
            let date = jiff::fmt::rfc2822::to_string(&now.to_zoned(jiff::tz::TimeZone::UTC)).unwrap();
            Answer::Reply(200, vec![("Date", date)], br#"{"id":"U1","email":"ada@example.com"}"#.to_vec())
        }
        "/racks" => json(r#"[{"name":"main","organization":{"name":"acme"},"status":"running","provider":"local"}]"#),
        "/system" => json(r#"{"name":"main","status":"running","version":"20260101000000"}"#),
        _ => status(404, ""),
    }
}

/// What was found at each step, as `status: found; advice`, and the exit code.
#[track_caller]
fn findings(person: &Person, args: &[&str]) -> (i32, BTreeMap<String, String>) {
    let ran = person.run(&[&["doctor", "--json"], args].concat());
    let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    assert_eq!(report["healthy"], ran.code == 0, "{ran:?}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = BTreeMap::<String, String>::new();
    for one in report["checks"].as_array().unwrap() {
        let line = format!("{}: {}; {}\n", text(&one["status"]), text(&one["found"]), text(&one["advice"]));
        all.entry(text(&one["check"])).or_default().push_str(&line);
    }
    (ran.code, all)
}

/// One fault: at that step, in these words, with the steps after it not reached.
#[track_caller]
fn fault(person: &Person, check: &str, words: &[&str]) {
    let (code, all) = findings(person, &[]);
    assert_eq!(code, 1, "{all:?}");
    let found = &all[check];
    assert!(found.starts_with("fault: ") && words.iter().all(|word| found.contains(word)), "{check} {words:?}: {all:?}");
    let faults: Vec<&String> = all.iter().filter(|(_, found)| found.contains("fault: ")).map(|(name, _)| name).collect();
    assert_eq!(faults, [check], "nothing else is blamed: {all:?}");
    assert!(all.values().all(|found| !found.contains("topsecret")), "{all:?}");
}

#[test]
fn where_all_is_well_it_says_so_and_changes_nothing() {
    let server = Server::start(console(0));
    let person = Person::at(&server);
    person.save("racks", &format!("{{\"{}\": \"acme/main\"}}", server.host()));
    let files = || std::fs::read_dir(person.config()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    for name in ["auth", "host", "pins", "racks"] {
        std::fs::set_permissions(person.config().join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let before = files();
    let (code, all) = findings(&person, &[]);
    assert_eq!((code, all.len()), (0, 8), "{all:?}");
    assert!(all["key"].contains("ada@example.com") && all["rack"].contains("acme/main is running"), "{all:?}");
    assert_eq!(files(), before);
    let ran = person.run(&["doctor"]);
    assert!(ran.code == 0 && ran.stdout.starts_with("CHECK          STATUS  FOUND\n"), "{ran:?}");
    // Another Rack, and none.
    let (code, all) = findings(&person, &["-r", "other"]);
    assert!(code == 1 && all["rack"].contains("could not find rack: other"), "{all:?}");
    person.save("racks", "{}");
    let (code, all) = findings(&person, &[]);
    assert!(code == 2 && all["rack"].contains("convox switch NAME"), "{all:?}");
}

#[test]
fn each_fault_of_the_way_there_has_its_name() {
    let nobody = Person::new();
    fault(&nobody, "target", &["convox login"]);
    let at = |host: &str| {
        let person = Person::new();
        person.save("host", host);
        person.save("auth", &format!("{{\"{host}\": \"topsecret\"}}"));
        std::fs::set_permissions(person.config().join("auth"), std::fs::Permissions::from_mode(0o600)).unwrap();
        person
    };
    fault(&at("no-such-host.invalid"), "network", &["could not look up no-such-host.invalid", "check the spelling"]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    fault(&at(&closed), "network", &["refused", "is the server running"]);
    // What listens does not speak TLS.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        for stream in plain.incoming().take(2) {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    fault(&at(&address), "certificate", &["check the port"]);
    answering.join().unwrap();
    // Another certificate than the one that is remembered: the key is not sent.
    let server = Server::start(console(0));
    let person = at(&server.host());
    person.save("pins", &format!("{{\"{}\": \"sha256:{}\"}}", server.host(), "ab".repeat(32)));
    fault(&person, "certificate", &["has changed", "somebody may be listening in"]);
    assert_eq!(server.application_bytes(), 0);
    // One that nobody vouches for is no fault, but nothing is sent to it, and nothing remembered.
    let person = at(&server.host());
    let (code, all) = findings(&person, &[]);
    assert_eq!((code, server.application_bytes()), (2, 0), "{all:?}");
    assert!(all["certificate"].contains(&format!("--fingerprint {}", server.fingerprint)) && all["key"].starts_with("skipped"), "{all:?}");
    assert!(person.map("pins").is_empty());
}

#[test]
fn clocks_that_differ_and_certificates_that_have_ended_are_told_apart() {
    for (seconds, words) in [(-7200, "ahead of"), (7200, "behind")] {
        let server = Server::start(console(seconds));
        let person = Person::at(&server);
        person.save("racks", &format!("{{\"{}\": \"acme/main\"}}", server.host()));
        std::fs::set_permissions(person.config().join("auth"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let (code, all) = findings(&person, &[]);
        assert!(code == 2 && all["clock"].starts_with("warning: ") && all["clock"].contains(words), "{all:?}");
        assert!(all["clock"].contains("timedatectl") && all["rack"].starts_with("ok"), "{all:?}");
    }
    // An authority that this machine trusts, and a certificate of it that ended long ago.
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(params, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut ended = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    (ended.not_before, ended.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    let certificate = ended.signed_by(&key, &issuer).unwrap();
    let identity = Identity { certificate: certificate.der().to_vec(), key: key.serialize_der() };
    let server = Server::with(&identity, &[None], console(0));
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), authority.pem()).unwrap();
    let person = Person::at(&server).with("SSL_CERT_FILE", roots.path().to_str().unwrap());
    person.save("pins", "{}");
    fault(&person, "certificate", &["2021-01-01", "this machine's clock says", "the server needs a new certificate"]);
}

#[test]
fn each_verdict_on_the_key_and_each_fault_of_the_rack_has_its_name() {
    let with = |path: &'static str, code: u16, body: &'static str| {
        let server = Server::start(move |request: &Request| if request.path == path { status(code, body) } else { console(0)(request) });
        let person = Person::at(&server);
        person.save("racks", &format!("{{\"{}\": \"acme/main\"}}", server.host()));
        std::fs::set_permissions(person.config().join("auth"), std::fs::Permissions::from_mode(0o600)).unwrap();
        (server, person)
    };
    let cases = [
        ("/auth", 401, "invalid credentials: this API key is unknown or was revoked\n", "key", &["was revoked", "convox login"][..]),
        ("/auth", 401, "cli token is expired: make a new one\n", "key", &["expired", "make a new key"]),
        ("/auth", 403, "this API key may not be used from 127.0.0.1\n", "key", &["may not be used from", "where it is meant for"]),
        ("/auth", 404, "", "key", &["a Convox Console or Rack?"]),
        ("/system", 502, "could not reach the rack\n", "rack", &["the Rack acme/main behind it does not", "whether it runs"]),
        ("/system", 403, "you may not do this\n", "rack", &["you may not do this"]),
    ];
    for (path, code, body, check, words) in cases {
        let (_server, person) = with(path, code, body);
        fault(&person, check, words);
    }
    // A key from a variable is not the saved one.
    let (_server, person) = with("/auth", 401, "invalid credentials\n");
    let person = person.with("CONVOX_PASSWORD", "topsecret");
    fault(&person, "key", &["CONVOX_PASSWORD in the environment", "take it away"]);
}

#[test]
fn files_that_others_can_read_and_files_that_are_none_are_named() {
    let server = Server::start(console(0));
    let person = Person::at(&server);
    person.save("racks", &format!("{{\"{}\": \"acme/main\"}}", server.host()));
    let auth = person.config().join("auth");
    std::fs::set_permissions(&auth, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::set_permissions(person.config(), std::fs::Permissions::from_mode(0o777)).unwrap();
    person.save("self-managed", "{}");
    let marks = person.config().join("self-managed");
    std::fs::set_permissions(&marks, std::fs::Permissions::from_mode(0o666)).unwrap();
    let (code, all) = findings(&person, &[]);
    let found = &all["configuration"];
    assert!(code == 2 && found.contains(&format!("chmod 600 {}", auth.display())) && found.contains("chmod go-w"), "{all:?}");
    assert!(found.contains(&format!("chmod go-w {}", marks.display())), "{all:?}");
    assert!(all["rack"].starts_with("ok"), "it goes on: {all:?}");
    person.save("auth", "{\"broken");
    let (code, all) = findings(&person, &[]);
    assert!(code == 1 && all["configuration"].contains("is not a JSON object") && all["configuration"].contains("repair it"), "{all:?}");
}

#[test]
fn a_proxy_that_does_not_let_us_through_is_blamed_and_not_the_server() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = proxy.accept().unwrap();
        let mut buffer = [0u8; 4096];
        let _ = stream.read(&mut buffer).unwrap();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").unwrap();
    });
    let at = |variable: &str, value: &str| {
        let person = Person::new().with(variable, value);
        person.save("host", "console.test");
        person.save("auth", r#"{"console.test": "topsecret"}"#);
        std::fs::set_permissions(person.config().join("auth"), std::fs::Permissions::from_mode(0o600)).unwrap();
        person
    };
    fault(&at("HTTPS_PROXY", &format!("http://user:topsecret@{address}")), "proxy", &["does not connect to console.test:443", "NO_PROXY"]);
    answering.join().unwrap();
    fault(&at("https_proxy", &format!("http://{address}")), "proxy", &["refused"]);
    fault(&at("HTTPS_PROXY", "socks5://user:topsecret@127.0.0.1"), "proxy", &["only http:// proxies"]);
    let person = at("HTTPS_PROXY", &format!("http://{address}")).with("NO_PROXY", ".test");
    let (_, all) = findings(&person, &[]);
    assert!(all["proxy"].contains("none for console.test") && all["network"].contains("could not look up"), "{all:?}");
}
