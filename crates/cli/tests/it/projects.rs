//! What happens on this machine: editors, projects, racks of one's own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::person::Person;
use crate::server::{Answer, Request, Server, json, status};

fn script(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn app(request: &Request) -> Answer {
    match (request.method.as_str(), request.path.split('?').next().unwrap_or_default()) {
        ("GET", "/apps/shop/releases") => json(r#"[{"id":"R1"}]"#),
        ("GET", "/apps/shop/releases/R1") => json(r#"{"id":"R1","build":"B1","env":"A=1\nB=2"}"#),
        ("POST", "/apps/shop/releases") => json(r#"{"id":"R2"}"#),
        ("GET", "/apps/shop") => json(r#"{"name":"shop","status":"running","release":"R1"}"#),
        ("POST", "/apps/shop/releases/R2/promote") => status(200, "ok\n"),
        _ => status(404, ""),
    }
}

#[test]
fn env_is_edited_in_a_private_file_that_is_gone_afterwards() {
    let server = Server::start(app);
    let person = Person::at(&server);
    std::fs::create_dir_all(person.cwd().join(".convox")).unwrap();
    std::fs::write(person.cwd().join(".convox/app"), "shop\n").unwrap();
    let editor = person.cwd().join("editor");
    let noted = person.cwd().join("noted");
    script(
        &editor,
        &format!("#!/bin/sh\nstat -c '%a %n' \"$2\" > {0}\ncat \"$2\" >> {0}\nprintf 'B=3\\nC=x y\\n' > \"$2\"\n", noted.display()),
    );
    let person = person.with("EDITOR", &format!("{} --wait", editor.display()));
    assert_eq!(person.run(&["env", "edit"]).ok(), "Setting B, C... OK\nRelease: R2\n");
    assert_eq!(server.seen().last().unwrap().text(), "env=B%3D3%0AC%3Dx+y");
    let noted = std::fs::read_to_string(noted).unwrap();
    let (mode, rest) = noted.split_once(' ').unwrap();
    let (path, content) = rest.split_once('\n').unwrap();
    assert_eq!((mode, content), ("600", "A=1\nB=2"));
    assert!(path.ends_with("/shop.env") && !Path::new(path).exists() && !Path::new(path).parent().unwrap().exists());
    // An editor that fails changes nothing.
    server.forget();
    let person = person.with("EDITOR", "false");
    assert!(person.run(&["env", "edit"]).err().contains("nothing was changed"));
    assert!(!server.lines().iter().any(|line| line.starts_with("POST")));
}

#[test]
fn env_takes_arguments_and_lines_of_standard_input() {
    let server = Server::start(app);
    let person = Person::at(&server);
    let ran = person.feed(&["env", "set", "C=3", "-a", "shop"], b"# comment\nD=a=b\n\nA=9\n");
    assert_eq!(ran.ok(), "Setting A, C, D... OK\nRelease: R2\n");
    assert_eq!(server.seen().last().unwrap().text(), "env=A%3D9%0AB%3D2%0AC%3D3%0AD%3Da%3Db");
    let ran = person.run(&["env", "set", "--replace", "X=1", "-a", "shop", "--id"]);
    assert_eq!(ran.stderr, "Setting X... OK\nRelease: R2\n");
    assert_eq!(ran.ok(), "R2");
    assert_eq!(server.seen().last().unwrap().text(), "env=X%3D1");
    assert_eq!(person.run(&["env", "unset", "A", "-a", "shop", "--promote"]).ok(), "Unsetting A... OK\nRelease: R2\nPromoting R2... OK\n");
    assert!(person.run(&["env", "set", "nothing", "-a", "shop"]).err().contains("no key=value given"));
}

/// A `convox` with a `convox-rack` beside it that does what the real one says and does.
fn with_rack(person: &Person, args: &[&str], rack: &str) -> std::process::Output {
    let bin = person.cwd().join("bin");
    let convox = bin.join("convox");
    if !convox.exists() {
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy(env!("CARGO_BIN_EXE_convox"), &convox).unwrap();
    }
    script(&bin.join("convox-rack"), rack);
    let plain = person.command(args);
    let mut command = Command::new(convox);
    command.args(args).current_dir(person.cwd()).env_clear();
    for (key, value) in plain.get_envs() {
        command.env(key, value.unwrap_or_default());
    }
    command.output().unwrap()
}

#[test]
fn installing_a_rack_saves_its_key_and_moves_nobody_who_is_logged_in() {
    let server = Server::start(app);
    let fingerprint = format!("sha256:{}", "cd".repeat(32));
    let rack = format!(
        "#!/bin/sh\nif [ \"$1\" = stop-apps ]; then echo \"$@\" > stopped; exit 0; fi\necho 'listening on https://127.0.0.1:4444 fingerprint {fingerprint}'\nexec sleep 600\n"
    );
    let person = Person::at(&server);
    let output = with_rack(&person, &["rack", "install", "local", "--name", "desk"], &rack);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("Installing desk... OK\nHost:    127.0.0.1:4444\n"));
    assert_eq!(person.read("host"), server.host());
    let key = &person.map("auth")["127.0.0.1:4444"];
    assert!(key.len() >= 40 && key.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{key}");
    assert_eq!(person.map("self-managed")["desk"], "127.0.0.1:4444");
    assert_eq!(person.map("pins")["127.0.0.1:4444"], fingerprint);
    let home = person.config().join("local/desk");
    assert_eq!(std::fs::metadata(home.join("password")).unwrap().permissions().mode() & 0o777, 0o600);
    // A second installation finds the running one.
    let pid = std::fs::read_to_string(home.join("pid")).unwrap();
    assert!(with_rack(&person, &["rack", "install", "local", "--name", "desk"], &rack).status.success());
    assert_eq!(std::fs::read_to_string(home.join("pid")).unwrap(), pid);

    let output = with_rack(&person, &["rack", "uninstall", "local", "desk"], &rack);
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("ERROR: must use --force for non-interactive uninstall\n"));
    let output = with_rack(&person, &["rack", "uninstall", "local", "desk", "--force"], &rack);
    assert!(output.status.success(), "{output:?}");
    let number = pid.split(' ').next().unwrap();
    let state = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    assert!(!home.exists() && person.map("self-managed").is_empty() && person.map("pins").len() == 1);
    assert_eq!(person.map("auth").keys().collect::<Vec<_>>(), [&server.host()]);
    assert_eq!(person.read("host"), server.host());
}

#[test]
fn installing_a_rack_logs_in_somebody_who_is_not() {
    let rack = format!(
        "#!/bin/sh\n[ \"$1\" = stop-apps ] && exit 0\necho 'listening on https://127.0.0.1:4444 fingerprint sha256:{}'\nexec sleep 600\n",
        "cd".repeat(32)
    );
    let person = Person::new();
    assert!(with_rack(&person, &["rack", "install", "local"], &rack).status.success());
    assert_eq!((person.read("host"), person.read("console")), ("127.0.0.1:4444".to_owned(), "127.0.0.1:4444".to_owned()));
    assert!(with_rack(&person, &["rack", "uninstall", "local", "local", "-f"], &rack).status.success());
    assert!(person.run(&["apps"]).err().contains("login"));
}

#[test]
fn a_rack_that_cannot_start_says_why() {
    let person = Person::new();
    let output = with_rack(&person, &["rack", "install", "local"], "#!/bin/sh\necho 'the disk is on fire' >&2\nexit 3\n");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the disk is on fire") && said.contains("log"), "{said}");
    assert!(person.read("host").is_empty() && person.map("auth").is_empty());
}
