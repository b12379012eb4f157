//! Asking the person at the terminal.

use std::io::{self, BufRead, Write};

use crate::error::Failure;

/// Reads a secret without showing it. Only for a standard input that is a terminal.
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
