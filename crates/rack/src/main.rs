//! `convox-rack`: serves a Rack; also the shim beside each of its processes.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use convox_proxy::TlsFiles;
use convox_rack::credentials::{self, PasswordCommand};
use convox_rack::{router, serve, shim};

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
    Serve(Box<serve::Serve>),
    /// End every process of a Rack that is not running. Apps outlive their Rack on purpose; this is how they end too.
    StopApps {
        /// Data directory of the Rack.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// The Rack's certificate.
    #[command(subcommand)]
    Tls(Tls),
    /// The Rack's password, on its own machine. When a Console knows the Rack, roll it there instead: `convox-console rack roll`.
    #[command(subcommand)]
    Password(Password),
}

#[derive(Subcommand)]
enum Tls {
    /// Go on with another certificate. Whoever pinned the old one follows: the old key signs the new one.
    ///
    /// A running Rack shows it within two seconds; what is open stays open. Both keys must be at hand: a certificate that is changed in any other way is
    /// refused by every Console and client that pinned the one before.
    #[command(after_help = "Example:\n  convox-rack tls roll --data /var/lib/convox-rack")]
    Roll {
        /// Data directory, with the certificate that was made there.
        #[arg(long, value_name = "DIR", required_unless_present = "tls_cert")]
        data: Option<PathBuf>,
        /// The certificate that is served (PEM), where it was given to `serve`.
        #[arg(long, value_name = "FILE", requires = "tls_key")]
        tls_cert: Option<PathBuf>,
        /// Its key.
        #[arg(long, value_name = "FILE", requires = "tls_cert")]
        tls_key: Option<PathBuf>,
        /// Certificate to go on with (PEM, leaf first); made for the same names if none is given.
        #[arg(long, value_name = "FILE", requires = "to_key")]
        to_cert: Option<PathBuf>,
        /// Its key.
        #[arg(long, value_name = "FILE", requires = "to_cert")]
        to_key: Option<PathBuf>,
    },
}

/// Works on files alone; a running Rack notices.
fn roll_tls(command: Tls) -> anyhow::Result<()> {
    let Tls::Roll { data, tls_cert, tls_key, to_cert, to_key } = command;
    let files = match (tls_cert, tls_key, data) {
        (Some(cert), Some(key), _) => TlsFiles::new(cert, key),
        (_, _, Some(data)) => TlsFiles::in_directory(&data.join("tls")),
        _ => anyhow::bail!("give --data, or --tls-cert and --tls-key"),
    };
    let given = to_cert.zip(to_key).map(|(cert, key)| TlsFiles::new(cert, key));
    let rolled = files.roll(given.as_ref())?;
    let out = &mut std::io::stdout();
    writeln!(out, "The certificate was {} and is {}.", rolled.from, rolled.to)?;
    Ok(writeln!(out, "The old key signed the new one: Consoles and clients of ours that pinned the old one follow, and say so.")?)
}

#[derive(Subcommand)]
enum Password {
    /// Roll it: write a new one into a file, accept both for a while, then refuse the old one.
    #[command(
        after_help = "Example:\n  convox-rack password roll --data /var/lib/convox-rack --out /etc/convox/rack.password.new --window 1h"
    )]
    Roll {
        /// Data directory of the Rack.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// File for the new password; made, for its owner only.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// How long the old one is accepted too: 30s, 1h.
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
        window: Duration,
    },
    /// Refuse the old one now.
    Retire {
        /// Data directory of the Rack.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// End what was opened with it, too: for a password that was stolen.
        #[arg(long)]
        cut_streams: bool,
    },
    /// Take the new one back.
    Undo {
        /// Data directory of the Rack.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    convox_wire::duration::go_parse(text).map_err(|_| "write 30s, 15m or 1h".to_owned())
}

fn main() -> ExitCode {
    // A shim or a router is neither a server nor a person's command: no settings.
    if let Some(code) = shim::intercept(std::env::args_os()).or_else(|| router::intercept(std::env::args_os())) {
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
                Command::Serve(args) => serve::run(*args).await,
                Command::StopApps { data } => {
                    let stopped = serve::stop_apps(&data).await?;
                    Ok(writeln!(std::io::stdout(), "stopped {stopped} processes")?)
                }
                Command::Tls(command) => roll_tls(command),
                Command::Password(command) => {
                    let (data, command) = match command {
                        Password::Roll { data, out, window } => (data, PasswordCommand::Roll { out, window }),
                        Password::Retire { data, cut_streams } => (data, PasswordCommand::Retire { cut: cut_streams }),
                        Password::Undo { data } => (data, PasswordCommand::Undo),
                    };
                    Ok(writeln!(std::io::stdout(), "{}", credentials::password(&data, command).await?)?)
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
