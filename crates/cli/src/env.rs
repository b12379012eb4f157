//! The environment that a command runs in: variables, current directory, which streams are terminals. Read once.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// What surrounds the process; tests make their own.
#[derive(Clone, Debug)]
pub(crate) struct Env {
    vars: Option<HashMap<String, String>>,
    cwd: PathBuf,
    pub(crate) stdin_is_terminal: bool,
    pub(crate) stdout_is_terminal: bool,
    pub(crate) stderr_is_terminal: bool,
}

impl Env {
    /// The real one.
    pub(crate) fn of_process() -> Self {
        Self {
            vars: None,
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
        }
    }

    #[cfg(test)]
    pub(crate) fn fake(vars: &[(&str, &str)], cwd: &Path) -> Self {
        Self {
            vars: Some(vars.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
            cwd: cwd.to_path_buf(),
            stdin_is_terminal: false,
            stdout_is_terminal: false,
            stderr_is_terminal: false,
        }
    }

    /// A variable's trimmed text; `None` when it is unset, empty or not Unicode.
    pub(crate) fn var(&self, name: &str) -> Option<String> {
        let value = match &self.vars {
            Some(vars) => vars.get(name).cloned(),
            None => std::env::var(name).ok(),
        };
        value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Whether a variable is exactly `true`, the originals' only yes.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.var(name).as_deref() == Some("true")
    }

    pub(crate) fn cwd(&self) -> &Path {
        &self.cwd
    }
}
