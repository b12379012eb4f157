//! `convox`: logs in to a Console or straight to a Rack, switches between Racks, and runs commands on the active one.
//!
//! A command walks one way: [`args`] (what was typed) -> [`target`] (which host and Rack, and why) -> [`reach`] (connected,
//! certificate accepted) -> [`cmd`] (what it does) -> [`output`] (what it says) -> exit code.

mod accounts;
mod ago;
mod args;
mod cmd;
mod env;
mod error;
mod output;
mod param_groups;
mod pins;
mod progress;
mod prompt;
mod reach;
mod second_factor;
mod settings;
mod sign_in;
mod signals;
mod source;
mod table;
mod target;
mod term;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use crate::args::Outcome;
use crate::env::Env;
use crate::error::Failure;
use crate::output::{Form, Printer};
use crate::settings::{Settings, location};

/// What `convox version` says of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What every command has at hand.
pub(crate) struct Ctx {
    pub(crate) env: Env,
    pub(crate) settings: Settings,
    pub(crate) out: Printer,
}

fn main() -> ExitCode {
    let env = Env::of_process();
    let plain = Printer::new(&env, Form::Text);
    match run(env) {
        Ok(code) => ExitCode::from(code),
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            plain.failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(env: Env) -> Result<u8, Failure> {
    let words = std::env::args_os()
        .map(|word| word.into_string().map_err(|word| Failure::new(format!("an argument is not UTF-8: {}", word.to_string_lossy()))))
        .collect::<Result<Vec<_>, _>>()?;
    let cli = match args::parse(words)? {
        Outcome::Run(cli) => cli,
        Outcome::Say(text) => {
            std::io::stdout().lock().write_all(text.as_bytes())?;
            return Ok(0);
        }
    };
    let out = Printer::new(&env, if cli.json { Form::Json } else { Form::Text });
    let settings = Settings::new(location::find(&env)?);
    let ctx = Ctx { env, settings, out };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("could not start: {error}")))?;
    let outcome = runtime.block_on(cmd::run(&ctx, cli.command));
    // A thread that waits for standard input or for a resolver must not hold up the end.
    runtime.shutdown_timeout(Duration::ZERO);
    outcome
}
