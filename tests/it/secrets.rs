//! Where a Rack's password never appears, and what a stolen or edited database is worth.

use std::fmt::Write as _;
use std::path::Path;

use convox_testkit::Stack;
use convox_testkit::go::Generation;
use convox_testkit::stack::RACK_PASSWORD;

pub(crate) fn every_file(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            every_file(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Files below `dir` that hold `needle`, as it is, in base64 or in hex.
fn holders(dir: &Path, needle: &str) -> Vec<std::path::PathBuf> {
    use base64::Engine as _;
    let mut forms = vec![needle.as_bytes().to_vec()];
    forms.push(base64::engine::general_purpose::STANDARD_NO_PAD.encode(needle).into_bytes());
    forms.push(base64::engine::general_purpose::STANDARD_NO_PAD.encode(format!("convox:{needle}")).into_bytes());
    let mut hex = String::new();
    for byte in needle.bytes() {
        write!(hex, "{byte:02x}").unwrap();
    }
    forms.push(hex.into_bytes());
    let mut files = Vec::new();
    every_file(dir, &mut files);
    assert!(!files.is_empty());
    files.retain(|path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        forms.iter().any(|form| bytes.windows(form.len()).any(|window| window == form.as_slice()))
    });
    files
}

#[test]
fn the_rack_password_is_in_no_file_log_argument_or_answer_of_the_console() {
    let stack = Stack::start().unwrap();
    let cli = stack.cli();
    let mut answers = String::new();
    for command in [
        &["racks"][..],
        &["racks", "--json"],
        &["rack"],
        &["rack", "params"],
        &["apps"],
        &["whoami"],
        &["apps", "create", "a"],
        &["apps", "info", "missing"],
        &["api", "get", "/system"],
        &["rack", "logs", "--no-follow"],
        &["apps", "delete", "a"],
    ] {
        let ran = cli.run(command);
        answers.push_str(&ran.stdout);
        answers.push_str(&ran.stderr);
    }
    for (method, path) in
        [("GET", "/racks/acme/main"), ("GET", "/auth"), ("GET", "/nope"), ("GET", "/api/v1/racks"), ("PUT", "/racks/acme/main")]
    {
        let reply = stack.go(Generation::V3).raw(method, path, &[], b"").unwrap();
        answers.push_str(&reply.text());
        answers.push_str(&format!("{:?}", reply.headers));
    }
    for command in [&["rack", "list"][..], &["audit", "list"], &["key", "list"], &["user", "list"]] {
        answers.push_str(&stack.admin(command).unwrap().to_string());
    }
    assert!(!answers.contains(RACK_PASSWORD), "an answer holds it");

    // With the server running: database, WAL, shared memory, audit, everything.
    assert_eq!(holders(&stack.console_data(), RACK_PASSWORD), Vec::<std::path::PathBuf>::new());
    assert!(!stack.console.log().contains(RACK_PASSWORD));
    assert!(!stack.rack.log().contains(RACK_PASSWORD));
    let arguments = std::fs::read(format!("/proc/{}/cmdline", stack.console.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(RACK_PASSWORD));
    // API keys are kept as keyed hashes only.
    assert_eq!(holders(&stack.console_data(), &stack.key), Vec::<std::path::PathBuf>::new());
    assert!(!stack.console.log().contains(&stack.key));
    // The search itself works: the password file of the test is found.
    assert_eq!(holders(stack.dir(), RACK_PASSWORD).len(), 1, "{:?}", holders(stack.dir(), RACK_PASSWORD));
}

#[test]
fn secrets_in_the_configuration_directory_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let stack = Stack::start().unwrap();
    let cli = stack.cli();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cli.config.join("auth")), 0o600);
    assert_eq!(mode(&stack.console_data().join("root.key")), 0o600);
    let mut files = Vec::new();
    every_file(&stack.console_data(), &mut files);
    for file in files.iter().filter(|file| file.to_string_lossy().contains(".db") || file.to_string_lossy().contains("key")) {
        assert_eq!(mode(file) & 0o077, 0, "{} can be read by others", file.display());
    }
}

#[test]
fn without_the_right_root_key_the_console_does_not_start() {
    let mut stack = Stack::start().unwrap();
    stack.console.terminate();
    let key = stack.console_data().join("root.key");
    let original = std::fs::read(&key).unwrap();
    for bad in ["", "short", "0000000000000000000000000000000000000000000000000000000000000000", "changeme"] {
        std::fs::write(&key, bad).unwrap();
        assert!(stack.console.restart().is_err(), "started with root key `{bad}`");
        assert!(stack.console.log().contains("root key"), "{}", stack.console.log());
    }
    std::fs::write(&key, original).unwrap();
    stack.console.restart().unwrap();
    stack.cli().run(&["apps"]).ok();
}
