//! The command line, as types: serving, and [`admin`].

pub(crate) mod admin;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

pub(crate) use admin::Admin;

/// The one door: people, organizations, keys and roles, and an authenticating proxy to Racks.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage.
#[derive(Parser)]
#[command(name = "convox-console", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serve the Console.
    Serve(Serve),
    #[command(flatten)]
    Admin(Admin),
}

/// Serve the Console. Prints one line when it is ready, and on a new database the one-time setup code.
///
/// Example: convox-console serve --listen 0.0.0.0:443 --data /var/lib/convox --root-key-file /etc/convox/root.key
#[derive(ClapArgs)]
pub(crate) struct Serve {
    /// Address and port to listen on; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Certificate (PEM, leaf first); made and kept in DIR/tls if none is given.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Further names for a certificate that is made.
    #[arg(long, value_name = "HOST")]
    pub(crate) name: Vec<String>,
    /// Threads of the data path; one per core if not given.
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<usize>,
}

/// Where the Console's data and root key are.
#[derive(ClapArgs, Clone)]
pub(crate) struct Place {
    /// Data directory.
    #[arg(long, value_name = "DIR", env = "CONVOX_DATA")]
    pub(crate) data: PathBuf,
    /// PostgreSQL URL, or sqlite:PATH; DIR/console.db if not given. A URL with a password belongs into the variable: arguments can be
    /// read by others
    #[arg(long, value_name = "URL", env = "CONVOX_DATABASE", hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// File with the root key; DIR/root.key if not given.
    #[arg(long, value_name = "FILE", env = "CONVOX_ROOT_KEY_FILE")]
    pub(crate) root_key_file: Option<PathBuf>,
}

/// For all commands of administration.
#[derive(ClapArgs, Clone)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Print one JSON value.
    #[arg(long)]
    pub(crate) json: bool,
}
