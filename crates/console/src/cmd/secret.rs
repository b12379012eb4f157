//! Secrets for commands: from a file, from standard input, or asked for at the terminal. Never from the command line, which every process
//! of the machine can read, but for the setup code, which is of no use to anybody afterwards.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use convox_seal::Secret;

/// Longest secret that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// From a file, without the white space around it.
pub(super) fn from_file(path: &Path) -> Result<Secret> {
    let at = || format!("could not read {}", path.display());
    read(std::fs::File::open(path).with_context(at)?).with_context(at)
}

/// From standard input, to its end.
pub(super) fn from_stdin() -> Result<Secret> {
    read(std::io::stdin().lock()).context("could not read standard input")
}

/// Asked for without an echo when there is somebody to ask; else from standard input.
pub(super) fn asked(question: &str) -> Result<Secret> {
    if !std::io::stdin().is_terminal() {
        return from_stdin();
    }
    let secret = Secret::new(rpassword::prompt_password(question).context("could not ask at the terminal")?.trim().to_owned());
    if secret.is_empty() {
        bail!("nothing was entered");
    }
    Ok(secret)
}

fn read(source: impl std::io::Read) -> Result<Secret> {
    let mut text = String::new();
    source.take(LONGEST).read_to_string(&mut text)?;
    // Held as a secret before anything is made of it, so that the buffer is wiped.
    let whole = Secret::new(text);
    let secret = Secret::new(whole.expose().trim().to_owned());
    if secret.is_empty() {
        bail!("it is empty");
    }
    Ok(secret)
}
