//! Accounts, and where their keys are kept: in the file of the originals, or by a program that keeps keychains. Helpers here are real programs
//! that speak docker's protocol: one that the test writes, and those of the Secret Service and of `pass` where they are installed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::person::Person;
use crate::server::{Answer, Request, Server, json, status};

/// Accepts every key that begins with `good`, and says whose it is.
fn console(request: &Request) -> Answer {
    use base64::Engine as _;
    let basic = request.header("Authorization").and_then(|value| value.strip_prefix("Basic ")).unwrap_or_default();
    let pair = base64::engine::general_purpose::STANDARD.decode(basic).unwrap_or_default();
    let key = String::from_utf8_lossy(&pair).split_once(':').map(|(_, key)| key.to_owned()).unwrap_or_default();
    match (request.path.as_str(), key.strip_prefix("good")) {
        ("/auth", Some(rest)) => json(&format!("{{\"id\":\"U{rest}\",\"email\":\"u{rest}@example.com\"}}")),
        ("/racks", Some(_)) => json("[]"),
        _ => status(401, "invalid credentials\n"),
    }
}

/// A helper that keeps keys in files of a directory and notes with what it was called.
fn helper(dir: &Path, more: &str) {
    let script = format!(
        r#"#!/bin/sh
umask 077
store={store}
mkdir -p "$store"
echo "$0 $*" >> "$store/log"
{more}
input=$(cat)
case $1 in
  store)
    url=$(printf %s "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/')
    printf %s "$input" > "$store/$(printf %s "$url" | tr '/:' '__')" ;;
  get)
    file="$store/$(printf %s "$input" | tr '/:' '__')"
    if [ -f "$file" ]; then cat "$file"; else echo "credentials not found in native keychain"; exit 1; fi ;;
  erase)
    file="$store/$(printf %s "$input" | tr '/:' '__')"
    if [ -f "$file" ]; then rm "$file"; else echo "credentials not found in native keychain"; exit 1; fi ;;
esac
"#,
        store = dir.join("store").display()
    );
    std::fs::create_dir_all(dir).unwrap();
    let path = dir.join("docker-credential-box");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn with_helper(more: &str) -> Person {
    let person = Person::new();
    let dir = person.cwd().join("bin");
    helper(&dir, more);
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    person.with("PATH", &path)
}

/// Files below the person's configuration that hold `needle`.
fn holders(person: &Person, needle: &str) -> Vec<String> {
    let entries = std::fs::read_dir(person.config()).into_iter().flatten().flatten();
    entries
        .filter(|entry| std::fs::read(entry.path()).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(needle)))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn login(person: &Person, server: &Server, args: &[&str], key: &str) -> crate::person::Ran {
    let fingerprint = server.fingerprint.to_string();
    let mut words = vec!["login".to_owned(), server.host(), "--fingerprint".to_owned(), fingerprint, "--password-stdin".to_owned()];
    words.extend(args.iter().map(|word| (*word).to_owned()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    person.feed(&words, key.as_bytes())
}

/// Which key a command sends now.
fn user(person: &Person, env: &[(&str, &str)]) -> String {
    let mut command = person.command(&["whoami", "--json"]);
    let output = command.envs(env.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    value["email"].as_str().unwrap().to_owned()
}

#[test]
fn accounts_of_one_host_are_chosen_by_environment_directory_and_switch() {
    let server = Server::start(console);
    let person = Person::new();
    let host = server.host();
    login(&person, &server, &[], "good1").ok();
    assert_eq!(user(&person, &[]), "u1@example.com");
    let said = login(&person, &server, &["--account", "work"], "good2");
    assert!(said.stderr.contains("Logged in as u2@example.com, account work"), "{said:?}");
    login(&person, &server, &["--account", "home"], "good3").ok();
    assert_eq!(user(&person, &[]), "u3@example.com");
    assert_eq!(person.map("auth")[&host], "good3", "the originals see the active one");
    assert_eq!(user(&person, &[("CONVOX_ACCOUNT", "work")]), "u2@example.com");
    person.run(&["switch", "--account", "default"]).ok();
    assert_eq!((user(&person, &[]), person.map("auth")[&host].as_str()), ("u1@example.com".to_owned(), "good1"));

    std::fs::create_dir_all(person.cwd().join(".convox")).unwrap();
    std::fs::write(person.cwd().join(".convox/account"), "work\n").unwrap();
    assert_eq!(user(&person, &[]), "u2@example.com");
    assert_eq!(user(&person, &[("CONVOX_ACCOUNT", "home")]), "u3@example.com", "the environment is nearer");
    let said = person.run(&["switch", "--account", "home"]);
    assert!(said.stderr.contains("commands here still use the account work, from ./.convox/account"), "{said:?}");
    let list: serde_json::Value = serde_json::from_str(&person.run(&["accounts", "--json"]).ok()).unwrap();
    let active: Vec<&str> =
        list.as_array().unwrap().iter().filter(|row| row["active"] == true).map(|row| row["account"].as_str().unwrap()).collect();
    assert_eq!((list.as_array().unwrap().len(), active), (3, vec!["work"]), "{list}");
    assert!(person.run(&["accounts"]).ok().contains("now (./.convox/account)"));
    let shown = person.run(&["whoami"]).ok();
    assert!(shown.contains("work (./.convox/account)") && shown.contains("readable by you only"), "{shown}");

    // An account that is not there is an error, never another account.
    std::fs::write(person.cwd().join(".convox/account"), "nobody").unwrap();
    let before = server.seen().len();
    let said = person.run(&["apps"]).err();
    assert!(said.contains("has no account nobody (from ./.convox/account)") && said.contains("--account nobody"), "{said}");
    std::fs::write(person.cwd().join(".convox/account"), "../../etc/passwd").unwrap();
    assert!(person.run(&["apps"]).err().contains("is no name for an account"));
    assert_eq!(server.seen().len(), before);
    std::fs::remove_file(person.cwd().join(".convox/account")).unwrap();

    person.run(&["logout", "--account", "work"]).ok();
    assert_eq!(user(&person, &[]), "u3@example.com");
    person.run(&["logout"]).ok();
    assert!(person.map("auth").is_empty());
    let said = person.run(&["apps"]).err();
    assert!(said.contains("switch --account default"), "{said}");
    person.run(&["switch", "--account", "default"]).ok();
    assert_eq!(user(&person, &[]), "u1@example.com");
    assert!(person.run(&["switch", "--account", "work"]).err().contains("has no account work (known: default)"));
}

#[test]
fn a_key_for_a_keychain_is_never_in_a_file_and_never_in_an_argument() {
    let server = Server::start(console);
    let person = with_helper("");
    login(&person, &server, &[], "good-in-clear").ok();
    let said = login(&person, &server, &["--store", "box"], "good-secret");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(holders(&person, "good-").is_empty(), "{:?}", holders(&person, "good-"));
    assert_eq!(user(&person, &[]), "u-secret@example.com");
    assert!(person.run(&["whoami"]).ok().contains("docker-credential-box"));
    let log = std::fs::read_to_string(person.cwd().join("bin/store/log")).unwrap();
    assert!(!log.contains("good-") && log.contains("store") && log.contains("get"), "{log}");
    // Remembered for further logins, of other accounts too; and moved together.
    login(&person, &server, &["--account", "work"], "good-work").ok();
    assert!(holders(&person, "good-").is_empty());
    person.run(&["switch", "--account", "default"]).ok();
    assert_eq!(user(&person, &[]), "u-secret@example.com");
    person.run(&["accounts", "move", "file"]).ok();
    assert_eq!(person.map("auth")[&server.host()], "good-secret");
    assert_eq!(user(&person, &[("CONVOX_ACCOUNT", "work")]), "u-work@example.com");
    let left = || std::fs::read_dir(person.cwd().join("bin/store")).unwrap().count();
    assert_eq!(left(), 1, "only its log: what was moved away is erased there");
    person.run(&["accounts", "move", "box"]).ok();
    assert!(holders(&person, "good-").is_empty(), "{:?}", holders(&person, "good-"));
    assert_eq!(
        (user(&person, &[]), user(&person, &[("CONVOX_ACCOUNT", "work")])),
        ("u-secret@example.com".to_owned(), "u-work@example.com".to_owned())
    );
    person.run(&["logout"]).ok();
    person.run(&["logout", "--account", "work"]).ok();
    assert_eq!(left(), 1);
    assert!(person.run(&["accounts", "--json"]).ok().trim() == "[]");
}

#[test]
fn where_the_keychain_cannot_keep_it_nothing_is_written_and_it_is_said() {
    let server = Server::start(console);
    let person = Person::new();
    let said = login(&person, &server, &["--store", "no-such-box"], "good1").err();
    assert!(said.contains("docker-credential-no-such-box is not there") && said.contains("nothing was written"), "{said}");
    assert!(server.seen().is_empty(), "found out before anybody signed in");
    let said = login(&person, &server, &["--store", "../box"], "good1").err();
    assert!(said.contains("names no place for keys"), "{said}");
    for (fault, words) in [
        ("echo 'the keychain is locked'; exit 1", "the keychain is locked"),
        ("exit 0", "not understood"),
        ("[ $1 = get ] && { echo '{\"ServerURL\":\"x\",\"Username\":\"x\",\"Secret\":\"other\"}'; exit 0; }", "does not give it back"),
        ("kill -9 $$", "said nothing"),
    ] {
        let person = with_helper(fault);
        login(&person, &server, &[], "good1").ok();
        let said = login(&person, &server, &["--store", "box"], "good-secret").err();
        assert!(said.contains(words) && !said.contains("good-secret"), "{said}");
        assert!(holders(&person, "good-secret").is_empty());
        assert_eq!(person.map("auth")[&server.host()], "good1", "what was there is kept");
        // And once the key is there, a keychain that fails is no reason to look elsewhere.
    }
    let person = with_helper("[ -f \"$store/broken\" ] && { echo 'locked'; exit 1; }");
    login(&person, &server, &["--store", "box"], "good2").ok();
    std::fs::write(person.cwd().join("bin/store/broken"), "").unwrap();
    let before = server.seen().len();
    let said = person.run(&["apps"]).err();
    assert!(said.contains("could not get the key: locked"), "{said}");
    assert_eq!(server.seen().len(), before);
}

#[test]
fn two_hundred_accounts_at_once_are_all_kept() {
    let server = Server::start(console);
    let fingerprint = server.fingerprint.to_string();
    let person = Person::new();
    let host = server.host();
    login(&person, &server, &["--account", "first"], "good-first").ok();
    let children: Vec<_> = (0..200)
        .map(|number| {
            let (account, key) = (format!("a{number}"), format!("good{number}"));
            let mut command = person.command(&["login", &host, "-p", &key, "--fingerprint", &fingerprint, "--account", &account]);
            command.stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let book: serde_json::Value = serde_json::from_str(&person.read("accounts")).unwrap();
    let accounts = book["hosts"][&host]["accounts"].as_object().unwrap();
    let active = book["hosts"][&host]["active"].as_str().unwrap();
    assert_eq!(accounts.len(), 201);
    for number in 0..200 {
        let name = format!("a{number}");
        let key = if name == active { person.map("auth")[&host].clone() } else { accounts[&name]["key"].as_str().unwrap().to_owned() };
        assert_eq!(key, format!("good{number}"), "{name}");
    }
    let mode = std::fs::metadata(person.config().join("accounts")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn killed_in_the_middle_of_a_switch_each_account_still_has_its_own_key() {
    let server = Server::start(console);
    let person = Person::new();
    let host = server.host();
    login(&person, &server, &["--account", "a"], "good-a").ok();
    login(&person, &server, &["--account", "b"], "good-b").ok();
    let start = Instant::now();
    person.run(&["switch", "--account", "a"]).ok();
    let whole = start.elapsed();
    for round in 0..40u32 {
        let next = if round % 2 == 0 { "b" } else { "a" };
        let mut child = person.command(&["switch", "--account", next]).spawn().unwrap();
        std::thread::sleep(whole.mul_f64(f64::from(round) / 32.0).min(Duration::from_secs(2)));
        let _ = child.kill();
        let _ = child.wait();
        let book: serde_json::Value = serde_json::from_str(&person.read("accounts")).unwrap();
        let active = book["hosts"][&host]["active"].as_str().unwrap().to_owned();
        for name in ["a", "b"] {
            let aside = book["hosts"][&host]["accounts"][name]["key"].as_str().map(str::to_owned);
            let key = aside.or_else(|| (name == active).then(|| person.map("auth")[&host].clone()));
            assert_eq!(key, Some(format!("good-{name}")), "round {round}");
        }
    }
    person.run(&["switch", "--account", "b"]).ok();
    assert_eq!(
        (user(&person, &[]), user(&person, &[("CONVOX_ACCOUNT", "a")])),
        ("u-b@example.com".to_owned(), "u-a@example.com".to_owned())
    );
}

#[test]
fn on_a_full_disk_no_account_loses_its_key() {
    let server = Server::start(console);
    let person = Person::new();
    login(&person, &server, &["--account", "a"], "good-a").ok();
    login(&person, &server, &["--account", "b"], "good-b").ok();
    for args in [&["switch", "--account", "a"][..], &["logout", "--account", "a"], &["accounts", "move", "file", "--account", "a"]] {
        let whole = person.command(args);
        // No file may grow: what a full disk does to a write, for this process alone.
        let mut limited = std::process::Command::new("sh");
        limited.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""]).arg(whole.get_program()).args(whole.get_args());
        limited.env_clear().envs(whole.get_envs().filter_map(|(key, value)| Some((key, value?)))).current_dir(person.cwd());
        let output = limited.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if args[0] != "accounts" {
            assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
            assert!(said.contains("could not write") && said.contains("the old content is kept"), "{said}");
        }
        assert_eq!(
            (user(&person, &[]), user(&person, &[("CONVOX_ACCOUNT", "a")])),
            ("u-b@example.com".to_owned(), "u-a@example.com".to_owned())
        );
    }
}

#[test]
fn a_link_that_somebody_else_planted_gets_no_key() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = Server::start(console);
    let person = Person::new();
    login(&person, &server, &["--account", "work"], "good1").ok();
    let trap = person.cwd().join("trap");
    std::fs::write(&trap, "").unwrap();
    for name in ["accounts", "auth"] {
        std::fs::remove_file(person.config().join(name)).unwrap();
        let link = person.config().join(name);
        std::os::unix::fs::symlink(&trap, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(65534), Some(65534)).unwrap();
    }
    login(&person, &server, &["--account", "work"], "good2").ok();
    assert_eq!(std::fs::read_to_string(&trap).unwrap(), "");
    assert_eq!(user(&person, &[]), "u2@example.com");
}

/// The real Secret Service of Linux desktops: `gnome-keyring` on a bus of its own, by docker's own helper.
#[test]
fn the_secret_service_keeps_a_key() {
    let is_there =
        |program: &str| std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(program).is_file());
    if !["docker-credential-secretservice", "gnome-keyring-daemon", "dbus-run-session"].iter().all(|program| is_there(program)) {
        // bin/test installs them.
        return;
    }
    let server = Server::start(console);
    let person = Person::new();
    let script = r#"echo pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1
for i in $(seq 100); do docker-credential-secretservice list >/dev/null 2>&1 && break; sleep 0.1; done
set -e
printf %s good-secret | "$0" login "$HOST" --fingerprint "$PIN" --password-stdin --store secretservice
"$0" whoami --json
printf %s good-work | "$0" login "$HOST" --password-stdin --account work
"$0" accounts --json
"$0" switch --account default
"$0" whoami --json
"$0" logout
"$0" logout --account work
"$0" accounts --json
"#;
    let plain = person.command(&[]);
    let mut command = std::process::Command::new("dbus-run-session");
    command.args(["--", "sh", "-c", script]).arg(plain.get_program()).current_dir(person.cwd()).env_clear();
    for (key, value) in plain.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    command.env("HOST", server.host()).env("PIN", server.fingerprint.to_string());
    command.env("XDG_DATA_HOME", person.cwd()).env("XDG_RUNTIME_DIR", person.cwd());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("u-secret@example.com").count(), 3, "{said}");
    assert!(said.contains("docker-credential-secretservice") && said.contains("[]"), "{said}");
    assert!(holders(&person, "good-").is_empty());
}

#[test]
fn a_host_without_a_way_in_by_browser_says_so() {
    let server = Server::start(console);
    let fingerprint = server.fingerprint.to_string();
    for flag in ["--device", "--no-browser"] {
        let said = Person::new().run(&["login", &server.host(), "--fingerprint", &fingerprint, flag]).err();
        assert!(said.contains("does not let a command line sign in by a browser") && said.contains("--password-stdin"), "{said}");
    }
    assert!(server.seen().iter().all(|request| request.header("Authorization").is_none()), "nothing is sent of who one is");
}

/// As [`console`], and gives a key `good-old` a new one, `good-new`. `at_finish` is called when the roll is to be finished.
fn rolling(at_finish: impl Fn() + Send + Sync + 'static) -> Server {
    use base64::Engine as _;
    let basic = |key: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("convox:{key}")));
    Server::start(move |request| match (request.path.as_str(), request.header("Authorization")) {
        ("/api/v1/keys/roll", Some(sent)) if sent == basic("good-old") => {
            json(r#"{"id":"2","name":"default","kind":"user","api_key":"good-new","last4":"-new","expires":null}"#)
        }
        ("/api/v1/keys/roll/finish", Some(sent)) if sent == basic("good-new") => {
            at_finish();
            json(r#"{"rolled":true}"#)
        }
        _ => console(request),
    })
}

#[test]
fn a_key_in_a_keychain_is_rolled_there_and_comes_into_no_file() {
    let person = with_helper("[ \"$1\" = store ] && [ -f \"$store/broken\" ] && { echo 'the keychain is locked'; exit 1; }");
    let (store, seen) = (person.cwd().join("bin/store"), std::sync::Arc::new(std::sync::Mutex::new(String::new())));
    let kept = {
        let store = store.clone();
        move || {
            let entries = std::fs::read_dir(&store).into_iter().flatten().flatten();
            entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect::<String>()
        }
    };
    let server = rolling({
        let (seen, kept) = (std::sync::Arc::clone(&seen), kept.clone());
        move || *seen.lock().unwrap() = kept()
    });
    login(&person, &server, &["--store", "box", "--account", "work"], "good-work").ok();
    login(&person, &server, &["--account", "home"], "good-old").ok();

    // A keychain that cannot take it: nothing is lost, and the old key is not ended.
    std::fs::write(store.join("broken"), "").unwrap();
    let said = person.run(&["keys", "roll"]).err();
    assert!(said.contains("the keychain is locked") && !said.contains("good-"), "{said}");
    assert!(!server.lines().contains(&"POST /api/v1/keys/roll/finish".to_owned()));
    assert_eq!(user(&person, &[]), "u-old@example.com");

    std::fs::remove_file(store.join("broken")).unwrap();
    let ran = person.run(&["keys", "roll"]);
    assert!(ran.code == 0 && ran.stdout.is_empty() && ran.stderr.contains("the new key is saved"), "{ran:?}");
    assert!(seen.lock().unwrap().contains("good-new"), "in the keychain before the old one ends");
    assert!(!kept().contains("good-old"));
    assert_eq!(holders(&person, "good-"), Vec::<String>::new());
    assert_eq!(
        (user(&person, &[]), user(&person, &[("CONVOX_ACCOUNT", "work")])),
        ("u-new@example.com".to_owned(), "u-work@example.com".to_owned())
    );
}

#[test]
fn a_key_of_an_account_that_is_not_active_is_rolled_where_it_is() {
    let server = rolling(|| ());
    let person = Person::new();
    login(&person, &server, &["--account", "work"], "good-old").ok();
    login(&person, &server, &["--account", "home"], "good-home").ok();
    let output = person.command(&["keys", "roll"]).env("CONVOX_ACCOUNT", "work").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(person.map("auth")[&server.host()], "good-home", "the active one's stays");
    assert_eq!((holders(&person, "good-old"), holders(&person, "good-new")), (Vec::new(), vec!["accounts".to_owned()]));
    assert_eq!(
        (user(&person, &[]), user(&person, &[("CONVOX_ACCOUNT", "work")])),
        ("u-home@example.com".to_owned(), "u-new@example.com".to_owned())
    );
}
