//! The hidden subcommands that run beside the Rack: `shim --state DIR`, one per process, and
//! `exec-shim`, one per exec session. The same binary, with no server inside.
//!
//! A shim is the parent of what it runs, the reaper of everything that descends from it, and in a
//! session of its own: it outlives the Rack, and nothing that it started outlives it.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

mod exec;
mod family;
mod process;

pub(crate) use exec::ExecRequest;
pub(crate) use process::Report;

/// Runs a shim if that is what the program was started for: `shim --state DIR` or `exec-shim`.
/// To be called first thing in `main`, before threads, runtimes and settings.
pub fn intercept(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    let first = arguments.next()?;
    if first == "exec-shim" {
        return Some(exec::run());
    }
    if first != "shim" {
        return None;
    }
    let state = arguments.nth(1).unwrap_or_default();
    Some(process::run(Path::new(&state)))
}
