//! Who one is and where one works: login, logout, accounts, switch, trust; and what belongs to the program itself: completion, man.

use clap::{Args, Subcommand};
use convox_tls::Fingerprint;

/// `login [hostname]`
#[derive(Args, Debug, Default)]
pub(crate) struct Login {
    #[arg(value_name = "hostname")]
    pub(crate) host: Option<String>,
    /// password or API key (visible to others on this machine: prefer --password-stdin)
    #[arg(short = 'p', long, value_name = "password")]
    pub(crate) password: Option<String>,
    /// the same, as v3 calls it
    #[arg(short = 't', long, value_name = "token", conflicts_with = "password")]
    pub(crate) token: Option<String>,
    /// read the password or API key from standard input
    #[arg(long, conflicts_with_all = ["password", "token"])]
    pub(crate) password_stdin: bool,
    /// accept this certificate only, and remember it
    #[arg(long, value_name = "sha256:...")]
    pub(crate) fingerprint: Option<Fingerprint>,
    /// log in as another account of the same host, and use it from now on
    #[arg(long, value_name = "name")]
    pub(crate) account: Option<String>,
    /// where to keep the key: file, or NAME of a docker-credential-NAME; remembered for further logins
    #[arg(long, value_name = "place")]
    pub(crate) store: Option<String>,
    /// sign in by a short code, with a browser on any device
    #[arg(long, conflicts_with_all = ["password", "token", "password_stdin"])]
    pub(crate) device: bool,
    /// sign in by a browser on this machine, but only show its address
    #[arg(long, conflicts_with_all = ["password", "token", "password_stdin", "device"])]
    pub(crate) no_browser: bool,
}

/// `logout [hostname]`
#[derive(Args, Debug)]
pub(crate) struct Logout {
    #[arg(value_name = "hostname")]
    pub(crate) host: Option<String>,
    /// which account of the host, if not the one that commands use
    #[arg(long, value_name = "name")]
    pub(crate) account: Option<String>,
}

/// `accounts ...`
#[derive(Args, Debug)]
pub(crate) struct Accounts {
    #[command(subcommand)]
    pub(crate) command: Option<AccountsCommand>,
}

/// `accounts ...`
#[derive(Debug, Subcommand)]
pub(crate) enum AccountsCommand {
    /// keep keys elsewhere
    #[command(after_help = "EXAMPLES\n  convox accounts move secretservice\n  convox accounts move file --account work")]
    Move(AccountsMove),
}

/// `accounts move place`
#[derive(Args, Debug)]
pub(crate) struct AccountsMove {
    /// file, or NAME of a docker-credential-NAME
    #[arg(value_name = "place")]
    pub(crate) place: String,
    /// only those of this host
    #[arg(long, value_name = "hostname")]
    pub(crate) host: Option<String>,
    /// only the one of this name
    #[arg(long, value_name = "name")]
    pub(crate) account: Option<String>,
}

/// `switch [rack]`
#[derive(Args, Debug)]
pub(crate) struct Switch {
    #[arg(value_name = "rack")]
    pub(crate) rack: Option<String>,
    /// use another account of the host from now on
    #[arg(long, value_name = "name")]
    pub(crate) account: Option<String>,
}

/// `trust hostname`
#[derive(Args, Debug)]
pub(crate) struct Trust {
    #[arg(value_name = "hostname")]
    pub(crate) host: String,
    /// accept this certificate only, and remember it
    #[arg(long, value_name = "sha256:...", conflicts_with = "forget")]
    pub(crate) fingerprint: Option<Fingerprint>,
    /// forget what was remembered; the system's authorities decide again
    #[arg(long)]
    pub(crate) forget: bool,
}

/// `completion SHELL`
#[derive(Args, Debug)]
pub(crate) struct Completion {
    #[arg(value_name = "shell")]
    pub(crate) shell: clap_complete::Shell,
}

/// `man [dir]`
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// where one page per command goes; without it, the program's own page goes to standard output
    #[arg(value_name = "dir")]
    pub(crate) dir: Option<std::path::PathBuf>,
}
