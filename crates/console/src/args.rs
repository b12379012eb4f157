//! The command line, as types: serving, and [`admin`].

pub(crate) mod admin;
pub(crate) mod audit;
pub(crate) mod keys;
pub(crate) mod people;
pub(crate) mod racks;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand};
use convox_model::Network;

pub(crate) use admin::Admin;

use crate::ops::passwords::PasswordRule;
use crate::ops::sessions::Rules;
use crate::root::kms;

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
    /// The Console's certificate
    #[command(subcommand)]
    Tls(Tls),
    #[command(flatten)]
    Admin(Admin),
}

#[derive(Subcommand)]
pub(crate) enum Tls {
    /// Go on with another certificate. Whoever pinned the old one follows: the old key signs the new one
    ///
    /// A running Console shows it within two seconds; what is open stays open. Both keys must be at hand: a certificate that is changed in any other
    /// way is refused by everybody who pinned the one before.
    #[command(after_help = "Examples:\n  convox-console tls roll --data /var/lib/convox\n  \
                                  convox-console tls roll --tls-cert cert.pem --tls-key key.pem --to-cert new.pem --to-key new.key")]
    Roll {
        /// Data directory, with the certificate that was made there
        #[arg(long, value_name = "DIR", env = "CONVOX_DATA", required_unless_present = "tls_cert")]
        data: Option<PathBuf>,
        /// The certificate that is served (PEM), where it was given to `serve`
        #[arg(long, value_name = "FILE", requires = "tls_key")]
        tls_cert: Option<PathBuf>,
        /// Its key
        #[arg(long, value_name = "FILE", requires = "tls_cert")]
        tls_key: Option<PathBuf>,
        /// Certificate to go on with (PEM, leaf first); made for the same names if none is given
        #[arg(long, value_name = "FILE", requires = "to_key")]
        to_cert: Option<PathBuf>,
        /// Its key
        #[arg(long, value_name = "FILE", requires = "to_cert")]
        to_key: Option<PathBuf>,
        /// Print one JSON value
        #[arg(long)]
        json: bool,
    },
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
    /// Takes the place of the server that runs on the same data directory, without a dropped request: takes its listening sockets over, and lets
    /// it end when this one is ready.
    #[arg(long)]
    pub(crate) take_over: bool,
    /// With --take-over: starts the new server as a process of its own, and returns when that has taken over, or with 1 when it could not. For
    /// `ExecReload=` of systemd.
    #[arg(long, requires = "take_over")]
    pub(crate) detach: bool,
    /// Goes on taking requests for so long after SIGTERM while `/ready` says that it ends, so that balancers turn away first: 5s.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = short_time)]
    pub(crate) leave_after: Duration,
    /// Threads of the data path; one per core if not given. Of a server that is taken over, as many as that had.
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<usize>,
    /// A proxy in front of the Console, as address or network: the last address in `X-Forwarded-For` that is not one of them is the
    /// caller's. May be given several times; without it the header is not looked at.
    #[arg(long, value_name = "NETWORK")]
    pub(crate) trusted_proxy: Vec<Network>,
    /// Address and port for monitoring: `/metrics`, `/health` and `/ready` in clear text. Never one that strangers reach; none if not given.
    #[arg(long, value_name = "ADDR", env = "CONVOX_METRICS_LISTEN")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) traces: crate::traces::export::TraceOptions,
    /// Directory on another disk for audit events while the database does not take them, so that changes go on: they are carried into the
    /// database afterwards. Without one, changes are refused meanwhile.
    #[arg(long, value_name = "DIR", env = "CONVOX_AUDIT_SPILL")]
    pub(crate) audit_spill: Option<PathBuf>,
    /// So many MiB of events may wait there; beyond that, changes are refused.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) audit_spill_limit: u64,
    /// What the password of a person must be.
    #[arg(long, value_name = "RULE", value_enum, default_value_t)]
    pub(crate) password_rule: PasswordRule,
    /// A browser is signed out when it is not used for so long: 30m, 12h.
    #[arg(long, value_name = "DURATION", default_value = "12h", value_parser = session_time)]
    pub(crate) session_idle: Duration,
    /// A browser is signed out so long after it was signed in.
    #[arg(long, value_name = "DURATION", default_value = "168h", value_parser = session_time)]
    pub(crate) session_longest: Duration,
    /// Address of this Console in links that it makes: `https://console.example.com`.
    #[arg(long, value_name = "URL", env = "CONVOX_CONSOLE_URL", value_parser = origin)]
    pub(crate) url: Option<String>,
    /// Mail server: smtps://USER:PASSWORD@HOST or smtp://HOST:PORT?tls=required. A URL with a password belongs into the variable.
    #[arg(long, value_name = "URL", env = "CONVOX_SMTP_URL", hide_env_values = true, requires = "url", requires = "mail_from")]
    pub(crate) smtp_url: Option<String>,
    /// Sender of mails: Console <console@example.com>.
    #[arg(long, value_name = "ADDR", env = "CONVOX_MAIL_FROM")]
    pub(crate) mail_from: Option<String>,
}

/// At most ten minutes.
fn short_time(text: &str) -> Result<Duration, String> {
    let time = convox_wire::duration::go_parse(text).map_err(|_| "write 5s or 1m".to_owned())?;
    if time <= Duration::from_mins(10) { Ok(time) } else { Err("give at most 10m".to_owned()) }
}

/// One second to a year.
fn session_time(text: &str) -> Result<Duration, String> {
    let time = convox_wire::duration::go_parse(text).map_err(|_| "write 30m or 12h".to_owned())?;
    if (Duration::from_secs(1)..=Duration::from_hours(366 * 24)).contains(&time) {
        Ok(time)
    } else {
        Err("give one second to a year".to_owned())
    }
}

/// `https://host` or `https://host:port`, nothing behind it.
pub(crate) fn origin(text: &str) -> Result<String, String> {
    let wrong = || "give https://HOST or https://HOST:PORT".to_owned();
    let host = text.strip_prefix("https://").ok_or_else(wrong)?.trim_end_matches('/');
    let uri: http::Uri = host.parse().map_err(|_| wrong())?;
    if host.is_empty() || uri.authority().is_none_or(|authority| authority.as_str() != host || host.contains('@')) {
        return Err(wrong());
    }
    Ok(format!("https://{host}"))
}

impl Serve {
    /// What the web asks of people.
    pub(crate) fn rules(&self) -> Rules {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Rules { password: self.password_rule, idle_ms: ms(self.session_idle), longest_ms: ms(self.session_longest) }
    }
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
    /// File with the root key; DIR/root.key if not given, and the variable CONVOX_ROOT_KEY is not set.
    #[arg(long, value_name = "FILE", env = "CONVOX_ROOT_KEY_FILE")]
    pub(crate) root_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) kms: kms::Options,
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
