//! The hidden subcommands that run beside the Rack: `shim --state DIR`, one per process, and
//! `exec-shim`, one per exec session. The same binary, with no server inside.
//!
//! A shim is the parent of what it runs (or, where that is a container, the one who asked the engine for it), the reaper of everything that descends from it, and in a
//! session of its own: it outlives the Rack, and nothing that it started outlives it.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, getrlimit, setrlimit};

mod capture;
mod container;
mod exec;
mod family;
mod process;

pub(crate) use exec::ExecRequest;
pub(crate) use process::Report;

/// Files that a process may have open, unless it asks for more.
const OPEN_FILES: u64 = 65_536;

/// Runs a shim if that is what the program was started for: `shim --state DIR` or `exec-shim`.
/// To be called first thing in `main`, before threads, runtimes and settings.
pub fn intercept(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    let first = arguments.next()?;
    if first != "exec-shim" && first != "shim" {
        return None;
    }
    limit_open_files();
    if first == "exec-shim" {
        return Some(exec::run());
    }
    let state = arguments.nth(1).unwrap_or_default();
    Some(process::run(Path::new(&state)))
}

/// The Rack raises its own limit as far as it may go, and some programs look at every descriptor
/// that they could have: they get a limit that is enough and not more.
fn limit_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES)));
    // Fails for nobody: it only lowers, or raises within what is allowed.
    let _ = setrlimit(Resource::Nofile, limit);
}
