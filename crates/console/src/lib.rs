//! The one door: people, organizations, keys and roles, and an identifying, authorising, auditing proxy to Racks.
//!
//! **A request walks one way, and the types hold it to that** ([`relay`] is where to start reading):
//!
//! ```text
//! front        what is it for: the Console itself, or a Rack, and which one?
//! authn        who is it?         -> Verified, or 401
//! authz        may they?          -> Permit, or 403/404
//! audit        write it down      durably before forwarding, unless it only reads
//! credentials  with what?         -> the Rack's own credential and checked address
//! relay        forward            takes the Permit by value, and is cut when it ends
//! ```
//!
//! No database and no lock from end to end: the walk reads [`snapshot`], which follows the store. Beside the walk: [`ops`] (use cases:
//! authorise, change, write down), called by [`api`] and [`cmd`] alike; [`serve`] starts and ends a server; [`jobs`] is what it does by itself;
//! [`meters`], [`traces`] and [`readiness`] tell how it fares; [`state`] is what its rooms share; [`mail`] sends links where there is a mail server.
//!
//! [`passkeys`] is the one room that speaks WebAuthn.
//!
//! The pages ([`web`]) ask Racks too: by [`reach`], which makes the same steps for a call of its own.
//!
//! `front`, `authn`, `authz`, `audit`, `credentials` and `relay` never write to the store, but for audit events; `api` and `cmd` never
//! decide about rights: that is for `ops` and `model`.

mod api;
mod args;
mod audit;
mod authn;
mod authz;
mod cmd;
mod credentials;
mod feed;
mod front;
mod hex;
mod jobs;
mod mail;
mod meters;
mod ops;
mod passkeys;
mod peer;
mod reach;
mod readiness;
mod relay;
mod reply;
mod root;
mod serve;
mod snapshot;
mod state;
mod strangers;
mod table;
mod traces;
mod views;
mod web;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

/// Runs the command line of this process: serves, or carries out one command of administration.
pub fn main() -> ExitCode {
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
            args::Command::Tls(command) => cmd::tls::run(command),
            args::Command::Admin(command) => cmd::run(command).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // What failed; what to do about it.
    let words = format!("{error:#}");
    let (what, next) = words.split_once("; ").map_or((words.as_str(), None), |(what, next)| (what, Some(next)));
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "ERROR: {what}");
    if let Some(next) = next {
        let _ = writeln!(stderr, "hint: {next}");
    }
    ExitCode::FAILURE
}
