//! Asking the person at the terminal.

#[cfg(unix)]
use std::io::Read;
use std::io::{self, BufRead, Write};

use crate::error::Failure;
#[cfg(unix)]
use crate::term::Raw;

/// Reads a secret without showing it. Only for a standard input that is a terminal.
///
/// The terminal is silent before the question appears: what is typed (or pasted) at once must not be shown either.
#[cfg(unix)]
pub(crate) fn secret(question: &str) -> Result<String, Failure> {
    let cannot = |error: io::Error| Failure::new(format!("could not read from the terminal: {error}"));
    let raw = Raw::silent().map_err(|error| cannot(error.into()))?;
    let mut err = io::stderr().lock();
    let _ = write!(err, "{question}");
    let _ = err.flush();
    let typed = typed_line().map_err(cannot);
    drop(raw);
    let _ = writeln!(err);
    match typed? {
        Some(text) => Ok(text.trim().to_owned()),
        None => Err(Failure::new("interrupted").code(130)),
    }
}

/// Bytes up to the end of the line, with the keys that people use to correct themselves; `None` for Ctrl-C.
#[cfg(unix)]
fn typed_line() -> io::Result<Option<String>> {
    let mut line: Vec<u8> = Vec::new();
    let mut byte = [0u8; 1];
    loop {
        if io::stdin().lock().read(&mut byte)? == 0 {
            break;
        }
        match byte[0] {
            b'\r' | b'\n' => break,
            0x03 => return Ok(None),
            0x04 if line.is_empty() => break,
            0x7f | 0x08 => {
                // A whole character, however many bytes it has.
                while line.pop().is_some_and(|last| last & 0xc0 == 0x80) {}
            }
            0x15 => line.clear(),
            other => line.push(other),
        }
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// Reads a secret without showing it. Only for a standard input that is a terminal.
#[cfg(not(unix))]
pub(crate) fn secret(question: &str) -> Result<String, Failure> {
    rpassword::prompt_password(question)
        .map(|text| text.trim().to_owned())
        .map_err(|error| Failure::new(format!("could not read from the terminal: {error}")))
}

/// A question that only `yes` (or `y`) affirms.
pub(crate) fn confirm(question: &str) -> Result<bool, Failure> {
    Ok(matches!(line(&format!("{question} (yes/no) "))?.to_lowercase().as_str(), "y" | "yes"))
}

/// One line of text, asked for on standard error.
pub(crate) fn line(question: &str) -> Result<String, Failure> {
    let mut err = io::stderr().lock();
    let _ = err.write_all(question.as_bytes());
    let _ = err.flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().to_owned())
}
