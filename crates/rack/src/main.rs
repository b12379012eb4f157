//! `convox-rack`.

use std::process::ExitCode;

fn main() -> ExitCode {
    convox_rack::shim::intercept(std::env::args_os()).unwrap_or(ExitCode::FAILURE)
}
