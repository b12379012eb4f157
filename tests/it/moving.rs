//! The Console's database, moved: into a backup and out of it, and from a file to a server. People go on with the keys that they have.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use convox_testkit::go::{Generation, GoClient};
use convox_testkit::stack::RACK_PASSWORD;
use convox_testkit::{Server, Stack, binary, eventually};

/// Standard output or, of a command that failed, standard error.
fn console(args: &[&str]) -> Result<String, String> {
    let ran = Command::new(binary("convox-console")).args(args).env_remove("CONVOX_DATABASE").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if ran.status.success() { Ok(text(&ran.stdout)) } else { Err(text(&ran.stderr)) }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn holds(path: &Path, needle: &str) -> bool {
    std::fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// What everybody does who was there before: log in with the key they have, reach the Rack with it, and find the log whole.
fn works(stack: &Stack, server: &Server, place: &[&str]) {
    let cli = stack.person();
    cli.feed(&["login", &server.host, "--password-stdin"], stack.key.as_bytes()).ok();
    cli.run(&["switch", "acme/main"]).ok();
    assert!(cli.run(&["apps"]).ok().contains("kept"));
    let verified = console(&[&["audit", "verify", "--json"], place].concat()).unwrap();
    let verified: serde_json::Value = serde_json::from_str(&verified).unwrap();
    assert!(verified["faults"].as_array().unwrap().is_empty() && verified["events"].as_u64().unwrap() >= 3, "{verified}");
}

#[test]
fn a_backup_of_a_running_console_is_restored_and_nobody_notices() {
    let stack = Stack::start().unwrap();
    let client = stack.go(Generation::V3);
    assert_eq!(client.form("POST", "/apps", &[("name", "kept")]).unwrap().status, 200);
    let file = stack.dir().join("console.backup");
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Somebody writes all the while.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.form("PUT", "/apps/kept", &[("lock", "false")]).unwrap().status, 200);
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
        let more = |than: u64| eventually(Duration::from_secs(20), || (written.load(Ordering::Relaxed) > than).then_some(()));
        more(1).expect("somebody writes");
        let made = stack.admin(&["backup", "--out", text(&file)]).unwrap();
        more(written.load(Ordering::Relaxed)).expect("and goes on");
        stop.store(true, Ordering::Relaxed);
        assert!(made["rows"].as_u64().unwrap() > 10, "{made}");
    });
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    for secret in [RACK_PASSWORD, &stack.key] {
        assert!(!holds(&file, secret), "what is sealed or hashed stays so");
    }
    // Nothing beside it, and never over another.
    assert_eq!(std::fs::read_dir(stack.dir()).unwrap().filter(|one| format!("{one:?}").contains(".part")).count(), 0);
    assert!(stack.admin(&["backup", "--out", text(&file)]).unwrap_err().to_string().contains("never overwritten"));

    let data = stack.dir().join("again");
    std::fs::create_dir(&data).unwrap();
    let restore = ["restore", "--from", text(&file), "--data", text(&data), "--json"];
    let wrong = stack.dir().join("wrong.key");
    console(&["root-key", "--out", text(&wrong)]).unwrap();
    let refused = console(&[&restore[..], &["--root-key-file", text(&wrong)]].concat()).unwrap_err();
    assert!(refused.contains("needs the root key"), "{refused}");
    assert!(!data.join("console.db").exists(), "before anything is written");
    let restored: serde_json::Value = serde_json::from_str(&console(&restore).unwrap()).unwrap();
    assert_eq!(restored["root_key_here"], false);
    assert_eq!(restored["root_keys"].as_array().unwrap().len(), 1);
    assert!(console(&restore).unwrap_err().contains("not empty"));

    std::fs::copy(stack.console_data().join("root.key"), data.join("root.key")).unwrap();
    let server = Server::start("convox-console", &["serve", "--data", text(&data)], &stack.dir().join("again.log")).unwrap();
    works(&stack, &server, &["--data", text(&data)]);
}

#[test]
fn a_console_moves_from_a_file_to_postgresql_and_back() {
    let Ok(postgres) = std::env::var("CONVOX_TEST_POSTGRES") else { return };
    let mut stack = Stack::start().unwrap();
    let client = stack.go(Generation::V3);
    assert_eq!(client.form("POST", "/apps", &[("name", "kept")]).unwrap().status, 200);
    let name = format!("moving_{}", std::process::id());
    let psql = |sql: &str| assert!(Command::new("psql").args([&postgres, "-qc", sql]).status().unwrap().success());
    psql(&format!("CREATE DATABASE {name}"));
    let url = format!("{}/{name}", postgres.rsplit_once('/').unwrap().0);
    let data = stack.console_data();
    let migrate = |from: &str, to: &str| console(&["migrate", "--from", from, "--to", to, "--json"]);
    let source = format!("sqlite:{}", text(&data));
    let refused = migrate(&source, &url).unwrap_err();
    assert!(refused.contains("a server used the source") && refused.contains("hint: end it"), "{refused}");
    assert_eq!(stack.console.terminate(), Some(0));
    let before = std::fs::read(data.join("console.db")).unwrap();
    let moved: serde_json::Value = serde_json::from_str(&migrate(&source, &url).unwrap()).unwrap();
    assert!(moved["tables"].as_array().unwrap().iter().any(|table| table["table"] == "audit" && table["rows"].as_u64() >= Some(3)));
    assert!(std::fs::read(data.join("console.db")).unwrap() == before, "the source is as it was");
    let place = ["--data", text(&data), "--database", &url];
    let mut server = Server::start("convox-console", &[&["serve"], &place[..]].concat(), &stack.dir().join("moved.log")).unwrap();
    works(&stack, &server, &place);
    // And back, with what happened meanwhile.
    let on_server = GoClient { host: server.host.clone(), fingerprint: server.fingerprint, ..client };
    assert_eq!(on_server.form("POST", "/apps", &[("name", "meanwhile")]).unwrap().status, 200);
    server.terminate();
    let back = stack.dir().join("back");
    std::fs::create_dir(&back).unwrap();
    std::fs::copy(data.join("root.key"), back.join("root.key")).unwrap();
    migrate(&url, &format!("sqlite:{}", text(&back))).unwrap();
    let server = Server::start("convox-console", &["serve", "--data", text(&back)], &stack.dir().join("back.log")).unwrap();
    works(&stack, &server, &["--data", text(&back)]);
    psql(&format!("DROP DATABASE {name}"));
}
