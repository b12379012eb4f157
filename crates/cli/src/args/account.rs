//! Who one is and where one works: login, logout, switch, trust; and what belongs to the program itself: completion, man.

use clap::Args;
use convox_tls::Fingerprint;

/// `login [hostname]`
#[derive(Args, Debug)]
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
}

/// `logout [hostname]`
#[derive(Args, Debug)]
pub(crate) struct Logout {
    #[arg(value_name = "hostname")]
    pub(crate) host: Option<String>,
}

/// `switch [rack]`
#[derive(Args, Debug)]
pub(crate) struct Switch {
    #[arg(value_name = "rack")]
    pub(crate) rack: Option<String>,
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
