//! Keys: kept, never lost, never reused in silence.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::person::Person;
use crate::server::{Answer, Identity, Request, Server, json, status};

/// Accepts the key `good`.
fn console(request: &Request) -> Answer {
    // Basic convox:good
    match (request.path.as_str(), request.header("Authorization")) {
        ("/auth", Some("Basic Y29udm94Omdvb2Q=")) => json(r#"{"id":"U1"}"#),
        ("/racks", Some("Basic Y29udm94Omdvb2Q=")) => json("[]"),
        _ => status(401, "invalid credentials\n"),
    }
}

#[test]
fn login_saves_what_both_generations_read() {
    let server = Server::start(console);
    let person = Person::new();
    person.save("rack", "old/selection");
    let host = server.host();
    let ran = person.run(&["login", &host, "-p", "good"]);
    assert!(ran.stderr.contains(&server.fingerprint.to_string()), "{ran:?}");
    assert_eq!(ran.ok(), format!("Authenticating with {host}... OK\n"));
    assert_eq!(person.read("auth"), format!("{{\n  \"{host}\": \"good\"\n}}"));
    assert_eq!((person.read("host"), person.read("console"), person.read("id")), (host.clone(), host.clone(), "U1".to_owned()));
    assert!(!person.config().join("rack").exists());
    assert_eq!(person.map("pins")[&host], server.fingerprint.to_string());
    // No Rack and no session on this one request.
    let request = &server.seen()[0];
    assert_eq!((request.line().as_str(), request.header("Rack"), request.header("Session")), ("GET /auth", None, None));
}

#[test]
fn the_key_is_taken_from_flag_then_input_then_environment_then_file() {
    let server = Server::start(console);
    let host = server.host();
    let fingerprint = server.fingerprint.to_string();
    let login = |person: &Person, args: &[&str], input: &[u8]| {
        let all: Vec<&str> = ["login", host.as_str(), "--fingerprint", &fingerprint].into_iter().chain(args.iter().copied()).collect();
        person.feed(&all, input)
    };
    login(&Person::new(), &["-p", "good"], b"").ok();
    login(&Person::new(), &["-t", "good"], b"").ok();
    login(&Person::new(), &["--password=good"], b"").ok();
    login(&Person::new(), &["--password-stdin"], b"good\n").ok();
    login(&Person::new().with("CONVOX_PASSWORD", "good"), &[], b"").ok();
    login(&Person::new().with("CONVOX_TOKEN", "good"), &[], b"").ok();
    login(&Person::new().with("CONVOX_PASSWORD", "bad"), &["-p", "good"], b"").ok();
    let person = Person::new();
    person.save("auth", &format!("{{\"{host}\": \"good\"}}"));
    login(&person, &[], b"").ok();
    let person = person.with("CONVOX_PASSWORD", "bad");
    assert!(login(&person, &[], b"").err().contains("401"));
    assert_eq!(person.map("auth")[&host], "good", "the old key stays until a new one is accepted");
}

#[test]
fn a_saved_key_that_is_refused_is_reported_and_kept() {
    let server = Server::start(console);
    let person = Person::at(&server);
    let said = person.run(&["login"]).err();
    assert!(said.starts_with("ERROR: the saved key was refused: "), "{said}");
    assert!(said.contains("hint: "), "{said}");
    assert_eq!(person.map("auth")[&server.host()], "k");
}

#[test]
fn without_a_key_and_a_terminal_login_says_how_to_give_one() {
    let server = Server::start(console);
    let said = Person::new().run(&["login", &server.host()]).err();
    assert!(said.contains("--password-stdin"), "{said}");
    assert!(server.seen().is_empty());
}

#[test]
fn logout_forgets_the_key_and_commands_then_say_login() {
    let server = Server::start(console);
    let person = Person::at(&server);
    person.save("session", &format!("{{\"{}\": \"s\"}}", server.host()));
    person.run(&["logout"]).ok();
    assert!(person.map("auth").is_empty() && person.map("session").is_empty());
    let said = person.run(&["apps"]).err();
    assert!(said.contains(&format!("not logged in to {}", server.host())) && said.contains("convox login"), "{said}");
    assert!(person.run(&["logout"]).err().contains("not logged in"));
}

#[test]
fn two_hundred_logins_at_once_keep_two_hundred_keys() {
    let server = Server::with(&Identity::self_signed(), &[None; 200], console);
    let fingerprint = server.fingerprint.to_string();
    let person = Person::new();
    let hosts = server.hosts();
    let children: Vec<_> = hosts
        .iter()
        .map(|host| {
            let mut command = person.command(&["login", host, "-p", "good", "--fingerprint", &fingerprint]);
            command.stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for name in ["auth", "pins"] {
        let kept = person.map(name);
        assert_eq!(kept.len(), 200, "{name}");
        assert!(hosts.iter().all(|host| kept.contains_key(host)));
    }
    assert!(hosts.contains(&person.read("host")));
    let left = std::fs::read_dir(person.config())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with(".tmp"));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_killed_login_leaves_every_file_whole() {
    let server = Server::start(console);
    let person = Person::at(&server);
    let host = server.host();
    let fingerprint = server.fingerprint.to_string();
    // How long a whole login takes here, so that kills fall before, into and after its writes.
    let start = Instant::now();
    person.run(&["login", &host, "-p", "good", "--fingerprint", &fingerprint]).ok();
    let whole = start.elapsed();
    for round in 0..60u32 {
        person.save("auth", &format!("{{\"{host}\": \"k\", \"other\": \"kept\"}}"));
        let mut child = person.command(&["login", &host, "-p", "good", "--fingerprint", &fingerprint]).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(round) / 50.0).min(Duration::from_secs(2)));
        let _ = child.kill();
        let _ = child.wait();
        let auth = person.map("auth");
        assert_eq!(auth.get("other").map(String::as_str), Some("kept"), "round {round}");
        assert!(["k", "good"].contains(&auth[&host].as_str()));
        assert_eq!(person.read("host"), host);
        assert_eq!(person.map("pins")[&host], fingerprint);
    }
    // And nobody holds the lock.
    person.run(&["login", &host, "-p", "good"]).ok();
}

#[test]
fn a_full_disk_keeps_the_old_files_whole_and_is_reported() {
    let server = Server::start(console);
    let person = Person::at(&server);
    let login = person.command(&["login", "-p", "good"]);
    // No file may grow: what a full disk does to a write, for this process alone.
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]).arg(login.get_program()).args(login.get_args());
    limited.env_clear().envs(login.get_envs().filter_map(|(key, value)| Some((key, value?)))).current_dir(person.cwd());
    let output = limited.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("could not write") && said.contains("the old content is kept"), "{said}");
    assert_eq!(person.map("auth")[&server.host()], "k");
    let left = std::fs::read_dir(person.config())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".tmp"));
    assert_eq!(left.count(), 0);
    // And parallel logins and switches do not get in each other's way afterwards.
    person.run(&["login", "-p", "good"]).ok();
}

#[test]
fn a_read_only_directory_is_named_and_nothing_is_half_done() {
    if rustix::process::geteuid().is_root() {
        // Root may write everywhere; a file where the directory should be does the same.
        let server = Server::start(console);
        let person = Person::new();
        std::fs::write(person.config(), "").unwrap();
        let said = person.run(&["login", &server.host(), "-p", "good"]).err();
        assert!(said.contains("config"), "{said}");
        return;
    }
    let server = Server::start(console);
    let person = Person::at(&server);
    let mut permissions = std::fs::metadata(person.config()).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(person.config(), permissions).unwrap();
    let said = person.run(&["login", "-p", "good"]).err();
    assert!(said.contains(&person.config().display().to_string()), "{said}");
}
