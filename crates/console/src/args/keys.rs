//! `key`: what lets people and machines in. `keys`: what seals.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Common;

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a named key; prints it once
    #[command(
        after_help = "Examples:\n  convox-console key create --email ada@example.com --name github --kind deploy --org acme --preset ci-legacy\n  \
                      convox-console key create --email ada@example.com --name graphs --org acme --rack main --may read --network 10.0.0.0/8 \\\n    \
                      --expires-in-hours 720"
    )]
    Create {
        /// Whose
        #[arg(long)]
        email: String,
        /// By which its owner knows it; unique among their keys
        #[arg(long)]
        name: String,
        /// user, or deploy for a machine: that one cannot change the Console
        #[arg(long, default_value = "user", value_parser = ["user", "deploy"])]
        kind: String,
        /// Hours until it ends; never if not given
        #[arg(long, value_name = "N")]
        expires_in_hours: Option<i64>,
        #[command(flatten)]
        scope: ScopeFlags,
        #[command(flatten)]
        common: Common,
    },
    /// List keys of one user, deploy keys of an organization, or all
    #[command(after_help = "Examples:\n  convox-console key list --email ada@example.com\n  convox-console key list --org acme --json")]
    List {
        /// Whose
        #[arg(long, conflicts_with = "org")]
        email: Option<String>,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Make a user's own key anew; the old one is dead when this returns. Prints it once
    #[command(after_help = "Example:\n  convox-console key regenerate --email ada@example.com")]
    Regenerate {
        /// Whose
        #[arg(long)]
        email: String,
        /// For so long the old one is still good: 1h, 30m
        #[arg(long, value_name = "DURATION", value_parser = overlap)]
        overlap: Option<Duration>,
        #[command(flatten)]
        common: Common,
    },
    /// Put a new key in the place of one that is there, with the same scope and as long a life. Prints it once
    #[command(after_help = "Example:\n  convox-console key roll 0199... --overlap 1h")]
    Roll {
        /// As `key list` shows it
        id: String,
        /// For so long the old one is still good: 1h, 30m
        #[arg(long, value_name = "DURATION", value_parser = overlap)]
        overlap: Option<Duration>,
        #[command(flatten)]
        common: Common,
    },
    /// Revoke a key; what it has open is cut
    #[command(after_help = "Example:\n  convox-console key revoke 0199...")]
    Revoke {
        /// As `key list` shows it
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

/// What a key is limited to.
#[derive(Args, Clone)]
pub(crate) struct ScopeFlags {
    /// Organization that it is for; needed for a deploy key that its administrators are to manage
    #[arg(long, value_name = "NAME")]
    pub(crate) org: Option<String>,
    /// Rack of that organization; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) rack: Vec<String>,
    /// App; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Vec<String>,
    /// Set of commands: ci-legacy (what a deploy key of the original Console may do), deploy-only, read-only
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// Effect (read, read-secret, write, shell) or command (build, deploy, logs, run, ...); may be given several times
    #[arg(long, value_name = "WORD")]
    pub(crate) may: Vec<String>,
    /// Network that it may be used from, such as 10.0.0.0/8 or 2001:db8::/32; may be given several times
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Vec<String>,
}

/// Go's form of a duration.
fn overlap(text: &str) -> Result<Duration, String> {
    convox_wire::duration::go_parse(text).map_err(|_| "write 1h or 30m".to_owned())
}

#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// List data keys with their versions and the root key that each is under
    #[command(after_help = "Example:\n  convox-console keys list --json")]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Roll the data key of an organization, or of all: everything is sealed anew, and the old key is destroyed
    ///
    /// Servers go on meanwhile. When it is cut off, run it again: it goes on where it was.
    #[command(after_help = "Examples:\n  convox-console keys roll-data\n  convox-console keys roll-data --org acme")]
    RollData {
        /// Name of the organization; all if not given
        #[arg(long, value_name = "NAME")]
        org: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Roll the root key: every data key is wrapped anew, and the old root key is taken away
    ///
    /// Servers go on meanwhile. When it is cut off, run it again: it goes on where it was. Keep a copy of the file with the root key when it
    /// is done: older copies open older backups only.
    #[command(after_help = "Examples:\n  convox-console keys roll-root\n  convox-console keys roll-root --new-root-key-file next.key")]
    RollRoot {
        /// File with the next root key; one is made if not given
        #[arg(long, value_name = "FILE")]
        new_root_key_file: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Roll the key of device cookies: those that were given are void at once, on all servers
    ///
    /// A device cookie opens nothing: a browser in which its owner signed in before has tries at their password of its own. After this every browser is
    /// a stranger's until somebody signs in there again. When it is cut off, run it again: it goes on where it was.
    #[command(after_help = "Example:\n  convox-console keys roll-cookies")]
    RollCookies {
        #[command(flatten)]
        common: Common,
    },
    /// Look whether each sealed text is the present one of its place, or an older one that somebody put back
    ///
    /// Prints the number of the register, which never goes back: note it elsewhere, and give it the next time. Exits with 1 when something is
    /// not as it should be; what was put back is refused in any case.
    #[command(
        after_help = "Examples:\n  convox-console keys check\n  convox-console keys check --at-least 1204\n  convox-console keys check --accept"
    )]
    Check {
        /// After you looked at what was put back: take what is sealed now for the present texts
        #[arg(long)]
        accept: bool,
        /// Number of the register that was noted before
        #[arg(long, value_name = "NUMBER")]
        at_least: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
}
