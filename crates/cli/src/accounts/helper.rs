//! Keys kept by a program: `docker-credential-NAME` on the `PATH`, or a path. The protocol is docker's: the operation is the argument (`get`,
//! `store`, `erase`), everything else travels over standard input and output, so a key is never in a list of processes.
//!
//! The helpers for the keychains of macOS and Windows, for the Secret Service of Linux desktops, and for `pass` exist and are packaged; see
//! docs/adr. A key is filed under its host and account.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use convox_client::Key;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::Failure;

/// More than any answer.
const LONGEST: usize = 256 * 1024;
/// Somebody may have to find their password for the keychain; nobody waits longer.
const PATIENCE: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_mins(3) };
/// How helpers say that they have no such key: on standard output, with a failure.
const ABSENT: &str = "credentials not found";

#[derive(Serialize)]
struct Stored<'a> {
    #[serde(rename = "ServerURL")]
    server: &'a str,
    #[serde(rename = "Username")]
    user: &'a str,
    #[serde(rename = "Secret")]
    secret: &'a str,
}

#[derive(Deserialize)]
struct Found {
    #[serde(rename = "Secret")]
    secret: String,
}

/// A name or path of a helper.
pub(crate) fn checked(name: &str) -> Result<String, Failure> {
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if is_name || Path::new(name).is_absolute() {
        Ok(name.to_owned())
    } else {
        Err(Failure::new(format!("`{name}` names no place for keys"))
            .hint("`file`, the NAME of a docker-credential-NAME on the PATH (secretservice, pass, osxkeychain, wincred), or the whole path of one"))
    }
}

/// What is run.
pub(crate) fn program(name: &str) -> String {
    if Path::new(name).is_absolute() { name.to_owned() } else { format!("docker-credential-{name}") }
}

/// Whether it is there at all: asked before anybody signs in, so that no key is made that cannot be kept.
pub(crate) fn is_there(name: &str) -> Result<(), Failure> {
    let program = program(name);
    let found = if Path::new(&program).is_absolute() {
        Path::new(&program).is_file()
    } else {
        let dirs: Vec<PathBuf> = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
        dirs.iter().any(|dir| [program.clone(), format!("{program}.exe")].iter().any(|file| dir.join(file).is_file()))
    };
    if found {
        return Ok(());
    }
    Err(Failure::new(format!("{program} is not there, so the key cannot be kept as you asked; nothing was written"))
        .hint("install it (Debian: golang-docker-credential-helpers), or keep keys in a file that only you can read: --store file"))
}

/// How a helper files the key of an account.
fn server(host: &str, account: &str) -> String {
    format!("https://{host}/convox/{account}")
}

/// The key of an account; `None` when the helper has none.
pub(crate) fn get(name: &str, host: &str, account: &str) -> Result<Option<Key>, Failure> {
    let (is_done, answer) = run(name, "get", server(host, account).as_bytes())?;
    if !is_done {
        return if answer.to_lowercase().contains(ABSENT) { Ok(None) } else { Err(failed(name, "get", &answer)) };
    }
    // What the answer holds is a key: a fault is told without it.
    let found: Found = serde_json::from_str(&answer)
        .map_err(|_| Failure::new(format!("{} answered `get` in a way that is not understood", program(name))))?;
    Ok(Some(Key::new(found.secret)).filter(|key| !key.is_empty()))
}

/// Keeps the key of an account, and looks whether it is there.
pub(crate) fn store(name: &str, host: &str, account: &str, key: &Key) -> Result<(), Failure> {
    let server = server(host, account);
    let stored = Stored { server: &server, user: account, secret: key.expose() };
    let input = Zeroizing::new(serde_json::to_vec(&stored).unwrap_or_default());
    let (is_done, answer) = run(name, "store", &input)?;
    if !is_done {
        return Err(failed(name, "store", &answer));
    }
    match get(name, host, account)? {
        Some(found) if found == *key => Ok(()),
        _ => Err(Failure::new(format!("{} says that it kept the key, and does not give it back", program(name)))),
    }
}

/// Forgets the key of an account; that it is not there is no fault.
pub(crate) fn erase(name: &str, host: &str, account: &str) -> Result<(), Failure> {
    let (is_done, answer) = run(name, "erase", server(host, account).as_bytes())?;
    if is_done || answer.to_lowercase().contains(ABSENT) { Ok(()) } else { Err(failed(name, "erase", &answer)) }
}

fn failed(name: &str, doing: &str, answer: &str) -> Failure {
    let words: String = answer.trim().chars().filter(|c| !c.is_control()).take(300).collect();
    let words = if words.is_empty() { "it failed, and said nothing".to_owned() } else { words };
    Failure::new(format!("{} could not {doing} the key: {words}", program(name)))
        .hint("unlock the keychain and try again; or move keys elsewhere: convox accounts move file")
}

/// Runs it; whether it succeeded, and what it said on standard output. Its standard error is the person's: it may ask there.
fn run(name: &str, operation: &str, input: &[u8]) -> Result<(bool, Zeroizing<String>), Failure> {
    let program = program(name);
    let cannot = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new(format!("{program} is not there, and it is what keeps this key"))
            .hint("install it again; or log in anew, and keep the key elsewhere: convox login HOST --store file"),
        _ => Failure::new(format!("could not run {program}: {error}")),
    };
    let mut child = Command::new(&program)
        .arg(operation)
        .env_remove("CONVOX_PASSWORD")
        .env_remove("CONVOX_TOKEN")
        .env_remove("RACK_URL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that ends without reading says why by itself.
        let _ = stdin.write_all(input);
    }
    let (said, heard) = std::sync::mpsc::channel();
    let stdout = child.stdout.take();
    std::thread::spawn(move || {
        let mut answer = Zeroizing::new(Vec::new());
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(LONGEST as u64 + 1).read_to_end(&mut answer));
        let _ = said.send(read.map(|_| answer));
    });
    let Ok(answer) = heard.recv_timeout(PATIENCE) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(Failure::new(format!("{program} did not answer within {} s", PATIENCE.as_secs()))
            .hint("is it waiting to be unlocked somewhere else? or move keys elsewhere: convox accounts move file"));
    };
    let answer = answer.map_err(cannot)?;
    let status = child.wait().map_err(cannot)?;
    if answer.len() > LONGEST {
        return Err(Failure::new(format!("{program} answered with more than any key has")));
    }
    Ok((status.success(), Zeroizing::new(String::from_utf8_lossy(&answer).into_owned())))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn helper(script: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("helper");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let name = path.to_str().unwrap().to_owned();
        (dir, name)
    }

    #[test]
    fn no_answer_of_a_helper_is_shown_that_may_be_a_key() {
        let (_dir, name) = helper("cat > /dev/null; echo 'cxu_looks_like_a_key'");
        let failure = get(&name, "h", "a").map(drop).unwrap_err();
        assert!(!failure.to_string().contains("cxu_"), "{failure}");
    }

    #[test]
    fn a_helper_without_the_key_is_told_from_one_that_fails() {
        let (_dir, name) = helper("cat > /dev/null; echo 'credentials not found in native keychain'; exit 1");
        assert!(get(&name, "h", "a").unwrap().is_none());
        erase(&name, "h", "a").unwrap();
        let (_dir, name) = helper("cat > /dev/null; printf 'the collection is\\033[2J locked'; exit 1");
        let failure = get(&name, "h", "a").map(drop).unwrap_err();
        assert!(failure.to_string().ends_with("could not get the key: the collection is[2J locked"), "{failure}");
        let (_dir, name) = helper("cat > /dev/null; exit 0");
        let failure = store(&name, "h", "a", &Key::new("k")).unwrap_err();
        assert!(failure.to_string().contains("not understood"), "{failure}");
        let failure = store("no-such-helper", "h", "a", &Key::new("k")).unwrap_err();
        assert!(failure.to_string().contains("docker-credential-no-such-helper is not there"), "{failure}");
    }

    #[test]
    fn a_helper_that_hangs_is_not_waited_for_for_ever() {
        let (_dir, name) = helper("cat > /dev/null; exec sleep 60");
        let failure = get(&name, "h", "a").map(drop).unwrap_err();
        assert!(failure.to_string().contains("did not answer within"), "{failure}");
    }

    #[test]
    fn a_helper_is_a_name_or_a_whole_path() {
        assert!(checked("secretservice").is_ok() && checked("/opt/helper").is_ok());
        for bad in ["", "../x", "a b", "a;b", "./helper", "$(x)"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
