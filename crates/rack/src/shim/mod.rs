//! The hidden subcommands that run beside the Rack: `shim` (one per process) and `exec` (one per
//! exec session). Same binary, no server inside.

use std::process::ExitCode;

/// `convox-rack shim --state DIR`: supervises one process. Never returns before it is gone.
pub fn run_shim(state: &std::path::Path) -> ExitCode {
    let _ = state;
    ExitCode::FAILURE
}

/// `convox-rack exec-shim`: supervises one exec session whose spec comes on descriptor 0.
pub fn run_exec_shim() -> ExitCode {
    ExitCode::FAILURE
}
