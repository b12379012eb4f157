//! What a person is told when something is wrong: each fault by its own name, with what to do, and nothing lost.

use std::net::TcpListener;

use convox_testkit::stack::start_rack;
use convox_testkit::{Cli, Stack};

fn auth_of(cli: &Cli) -> String {
    std::fs::read_to_string(cli.config.join("auth")).unwrap_or_default()
}

#[test]
fn a_wrong_key_is_refused_and_keeps_the_old_one() {
    let stack = Stack::start().unwrap();
    let cli = stack.cli();
    let before = auth_of(&cli);
    let said = cli.run(&["login", &stack.console.host, "--password", "cxu_wrong"]).err();
    assert!(said.starts_with("ERROR: "), "{said}");
    assert!(said.contains(&stack.console.host), "the error names the host: {said}");
    assert_eq!(auth_of(&cli), before, "the old key is kept");
    cli.run(&["racks"]).ok();
}

#[test]
fn each_fault_of_a_login_has_its_own_words() {
    let stack = Stack::start().unwrap();
    let cli = stack.person();
    let mut said = Vec::new();

    said.push(cli.run(&["login", "no-such-host.invalid", "--password", "x"]).err());
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    said.push(cli.run(&["login", &closed, "--password", "x"]).err());
    // A server that does not speak TLS.
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = plain.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        use std::io::Write;
        if let Ok((mut socket, _)) = plain.accept() {
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    said.push(cli.run(&["login", &address, "--password", "x"]).err());
    server.join().unwrap();
    said.push(cli.run(&["login", &stack.console.host, "--password", "x"]).err());

    for (text, word) in said.iter().zip(["look", "refused", "TLS", "401"]) {
        assert!(text.to_lowercase().contains(&word.to_lowercase()), "`{word}` is not in: {text}");
    }
    let distinct: std::collections::BTreeSet<_> = said.iter().collect();
    assert_eq!(distinct.len(), said.len(), "{said:?}");
    assert!(auth_of(&cli).is_empty() || auth_of(&cli) == "{}", "nothing was written");
}

#[test]
fn a_saved_key_that_the_server_refuses_is_reported_and_not_reused_in_silence() {
    let stack = Stack::start().unwrap();
    let cli = stack.cli();
    stack.admin(&["key", "regenerate", "--email", "admin@example.com"]).unwrap();
    let said = cli.run(&["login", &stack.console.host]).err();
    assert!(said.contains("saved"), "it says that the saved key was refused: {said}");
    let said = cli.run(&["apps"]).err();
    assert!(said.contains("login"), "it says what to do: {said}");
}

#[test]
fn a_changed_certificate_is_refused_before_the_key_is_sent() {
    let mut stack = Stack::start().unwrap();
    let cli = stack.direct();
    let port = stack.rack.host.clone();
    stack.rack.kill();
    // Somebody else answers at the address, with a certificate of their own, and records what arrives after the handshake.
    let other = tempfile::tempdir().unwrap();
    let mut imposter = start_rack(other.path(), "imposter").unwrap();
    imposter.terminate();
    imposter.host = port;
    imposter.restart().unwrap();
    let said = cli.run(&["apps"]).err();
    assert!(said.contains("certificate"), "{said}");
    assert!(said.contains(&stack.rack.fingerprint.to_string()), "it shows the pinned fingerprint: {said}");
    assert!(said.contains(&imposter.fingerprint.to_string()), "and the one that it found: {said}");
    // The Console refuses it too, and says so to its caller with a request id.
    let person = stack.cli();
    let said = person.run(&["apps"]).err();
    assert!(said.to_lowercase().contains("certificate"), "{said}");
}

#[test]
fn a_rack_is_added_only_when_it_answers_with_the_right_password_and_certificate() {
    let stack = Stack::start().unwrap();
    let wrong = stack.dir().join("wrong.password");
    std::fs::write(&wrong, "notThePasswordOfThatRackAtAll123456").unwrap();
    let add = |host: &str, password: &std::path::Path, pin: &str| {
        stack
            .admin(&["rack", "add", "second", "--org", "acme", "--host", host, "--password-file", password.to_str().unwrap(), "--pin", pin])
            .map(|_| String::new())
            .unwrap_or_else(|error| error.to_string())
            .to_lowercase()
    };
    let (host, pin) = (stack.rack.host.clone(), stack.rack.fingerprint.to_string());
    let right = stack.password_file();
    assert!(add(&host, &wrong, &pin).contains("password"), "a wrong password says so");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert!(add(&closed, &right, &pin).contains("refused"), "a closed port says so");
    assert!(add("no-such-host.invalid", &right, &pin).contains("look"), "an unknown name says so");
    let other = format!("sha256:{}", "ab".repeat(32));
    assert!(add(&host, &right, &other).contains("certificate"), "another certificate says so");
    for bad in ["convox:pw@127.0.0.1:1", "127.0.0.1:1/path", "https://127.0.0.1:1"] {
        assert!(!add(bad, &right, &pin).is_empty(), "{bad} is no host");
    }
    assert_eq!(stack.cli().run(&["racks", "--json"]).json().as_array().map(Vec::len), Some(1), "none of them was added");
    assert_eq!(add(&host, &right, &pin), "");
}

#[test]
fn a_person_without_rights_is_told_so_and_a_stranger_learns_nothing() {
    let stack = Stack::start().unwrap();
    let developer = stack.member("dev@example.com", "developer").unwrap();
    stack.admin(&["org", "create", "other"]).unwrap();
    stack.admin(&["user", "add", "stranger@example.com"]).unwrap();
    stack.admin(&["member", "add", "stranger@example.com", "--org", "other", "--role", "administrator"]).unwrap();
    let stranger = stack.admin(&["key", "create", "--email", "stranger@example.com", "--name", "test"]).unwrap();

    let cli = stack.person();
    cli.feed(&["login", &stack.console.host, "--password-stdin"], developer.as_bytes()).ok();
    cli.run(&["switch", "main"]).ok();
    cli.run(&["apps", "create", "mine"]).ok();
    let said = cli.run(&["rack", "access", "key", "rotate"]).err();
    assert!(said.contains("administrator"), "it says what is missing: {said}");
    cli.run(&["apps", "delete", "mine"]).ok();

    let cli = stack.person();
    cli.feed(&["login", &stack.console.host, "--password-stdin"], stranger["api_key"].as_str().unwrap().as_bytes()).ok();
    assert_eq!(cli.run(&["racks", "--json"]).json().as_array().map(Vec::len), Some(0));
    let hidden = cli.run(&["apps", "-r", "acme/main"]).err();
    let unknown = cli.run(&["apps", "-r", "acme/nope"]).err();
    assert_eq!(hidden.replace("main", "X"), unknown.replace("nope", "X"), "a hidden Rack looks like none");
}
