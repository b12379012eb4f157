//! `convox-console`: the one door. People, organizations, keys, and an authenticating, authorising, auditing proxy to Racks.
//!
//! The map: a request walks `front -> authn -> authz -> audit -> credentials -> relay` ([`relay`] is where to start reading). Beside the walk: `ops`
//! (use cases, called by `api` and `cmd`), `snapshot` (what the walk knows in memory), `serve` (starting and ending).

mod api;
mod args;
mod audit;
mod authn;
mod authz;
mod cmd;
mod credentials;
mod front;
mod ops;
mod relay;
mod reply;
mod serve;
mod snapshot;
mod state;
mod views;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error)),
    };
    let done = runtime.block_on(async {
        match args.command {
            args::Command::Serve(serve) => serve::run(serve).await,
            args::Command::Admin(command) => cmd::run(command).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "ERROR: {error:#}");
    ExitCode::FAILURE
}
