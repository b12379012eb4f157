//! `convox-rack`: serves a Rack; also the shim beside each of its processes.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use convox_rack::{serve, shim};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A Rack: an API behind one password that builds, releases and runs apps.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage.
#[derive(Parser)]
#[command(name = "convox-rack", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a Rack.
    Serve(serve::Serve),
    /// End every process of a Rack that is not running. Apps outlive their Rack on purpose; this is how they end too.
    StopApps {
        /// Data directory of the Rack.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

fn main() -> ExitCode {
    // A shim is neither a server nor a person's command: no threads, no settings.
    if let Some(code) = shim::intercept(std::env::args_os()) {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let done = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::new).and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Command::Serve(args) => serve::run(args).await,
                Command::StopApps { data } => {
                    let stopped = serve::stop_apps(&data).await?;
                    Ok(writeln!(std::io::stdout(), "stopped {stopped} processes")?)
                }
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "ERROR: {error:#}");
            ExitCode::FAILURE
        }
    }
}
