//! What a person is told when something is wrong: each fault by its own name, with what to do, and nothing lost.

use std::net::TcpListener;

use std::path::Path;
use std::time::Duration;

use convox_testkit::go::{Generation, read_reply};
use convox_testkit::stack::{RACK_PASSWORD, start_rack};
use convox_testkit::{Cli, Server, SmallDisk, Stack, eventually, repository};

use crate::page;

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

/// A Rack alone, on a small disk of its own.
struct OnSmallDisk {
    // In the order in which they go.
    rack: Server,
    disk: SmallDisk,
    dir: tempfile::TempDir,
}

impl OnSmallDisk {
    fn start(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("main");
        std::fs::create_dir(&data).unwrap();
        let disk = SmallDisk::mount(&data, size);
        Self { rack: start_rack(dir.path(), "main").unwrap(), disk, dir }
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("main")
    }
}

impl Drop for OnSmallDisk {
    fn drop(&mut self) {
        // Whoever stops its apps has room.
        self.disk.empty();
    }
}

#[test]
fn a_rack_with_a_full_disk_refuses_changes_serves_on_and_recovers() {
    if !SmallDisk::is_possible() {
        return;
    }
    let small = OnSmallDisk::start("48m");
    let cli = Cli::new(&small.dir.path().join("person"));
    cli.feed(&["login", &small.rack.host, "--password-stdin"], RACK_PASSWORD.as_bytes()).ok();
    let source = repository().join("examples/hello-web");
    cli.run(&["apps", "create", "shop"]).ok();
    cli.at(&source).run(&["deploy", "-a", "shop", "--wait"]).ok();
    let address = cli.run(&["services", "-a", "shop", "--json"]).json()[0]["domain"].as_str().unwrap().to_owned();
    assert!(eventually(Duration::from_secs(20), || page(&address, "/")).is_some());
    let env = cli.run(&["env", "-a", "shop"]).ok();
    let releases = |cli: &Cli| cli.run(&["releases", "-a", "shop", "--json"]).json().as_array().unwrap().len();
    let before = releases(&cli);

    small.disk.fill();
    for change in [
        &["build", "-a", "shop"][..],
        &["deploy", "-a", "shop"],
        &["env", "set", "GREETING=late", "-a", "shop"],
        &["apps", "create", "other"],
        &["apps", "delete", "shop"],
    ] {
        small.disk.fill();
        let said = cli.at(&source).run(change).err();
        assert!(said.contains("disk") && said.contains("full"), "{change:?}: {said}");
    }
    // Reads, and the app itself, need no room.
    assert!(page(&address, "/").is_some(), "the app answers");
    assert_eq!(cli.run(&["env", "-a", "shop"]).ok(), env);
    assert!(cli.run(&["logs", "-a", "shop", "--no-follow"]).ok().contains("GET /"), "what was logged before is there");
    assert_eq!(releases(&cli), before, "nothing is half there");
    assert_eq!(cli.run(&["apps", "info", "shop", "--json"]).json()["status"], "running");

    // Room again, and all goes on by itself; what was cut off left nothing.
    small.disk.empty();
    cli.run(&["env", "set", "GREETING=late", "-a", "shop", "--promote", "--wait"]).ok();
    assert!(eventually(Duration::from_secs(20), || page(&address, "/").filter(|page| page.contains("late"))).is_some());
    cli.at(&source).run(&["deploy", "-a", "shop", "--wait"]).ok();
    cli.run(&["apps", "delete", "shop"]).ok();
    assert!(eventually(Duration::from_secs(20), || (cli.run(&["apps"]).ok().lines().count() == 1).then_some(())).is_some());
    let left = |name: &str| {
        std::fs::read_dir(small.data().join(name)).map_or(0, |dir| dir.flatten().filter(|entry| holds_something(&entry.path())).count())
    };
    assert_eq!((left("objects"), left("builds")), (0, 0));
}

fn holds_something(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

#[test]
fn an_object_that_says_it_is_too_large_is_refused_before_it_is_sent() {
    let stack = Stack::start().unwrap();
    stack.direct().run(&["apps", "create", "shop"]).ok();
    for generation in [Generation::V2, Generation::V3] {
        let mut stream =
            stack.go_direct(generation).begin("POST", "/apps/shop/objects/large", "application/octet-stream", (8 << 30) + 1).unwrap();
        let reply = read_reply(&mut stream, false).unwrap();
        assert_eq!((reply.status, reply.text().contains("8 GiB")), (413, true), "{}", reply.text());
    }
}
