//! Commands of the audit log.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};

use super::{Common, Place};
use crate::root::kms;

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// List events, newest first. With --json whole events, else a table
    #[command(after_help = "Examples:\n  convox-console audit list --org acme --since 24h --decision refused\n  \
                            convox-console audit list --actor bob@example.com --effect shell --json")]
    List {
        #[command(flatten)]
        wanted: Wanted,
        /// At most so many
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=100_000))]
        limit: i64,
        #[command(flatten)]
        common: Common,
    },
    /// Check that no event was changed, removed or put in since it was written
    ///
    /// Says which one broke its chain, and exits with 1 then. Works on the database, while a server runs, or on a file that `audit export
    /// --format chain` made: on any machine, without a database. With the root key of the Console it also checks that the chains
    /// were not written anew by somebody else. Note the printed heads elsewhere to be able to tell later that the log was not set back.
    #[command(
        after_help = "Examples:\n  convox-console audit verify --json\n  convox-console audit verify --audit-spill /mnt/other/convox-audit\n  \
                            convox-console audit verify --file acme.jsonl"
    )]
    Verify {
        /// Name of the organization; all if not given
        #[arg(long, value_name = "NAME", conflicts_with = "file")]
        org: Option<String>,
        /// An export in form `chain`
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The second log of a server on this machine: what waits there is checked and counted too
        #[arg(long, value_name = "DIR", env = "CONVOX_AUDIT_SPILL")]
        audit_spill: Option<PathBuf>,
        #[command(flatten)]
        place: MaybePlace,
        /// Print one JSON value.
        #[arg(long)]
        json: bool,
    },
    /// Write events as lines of JSON, as CSV, or as chains that can be checked elsewhere
    ///
    /// `lines` and `csv` are newest first. `chain` is in the order of the chains; what the filter leaves out stands there as its digest
    /// only, so that the rest can be checked by whoever may not see all.
    #[command(after_help = "Examples:\n  convox-console audit export --org acme --since 720h --format csv --out acme.csv\n  \
                            convox-console audit export --org acme --format chain > acme.jsonl")]
    Export {
        #[command(flatten)]
        wanted: Wanted,
        /// lines, csv or chain
        #[arg(long, value_enum, default_value = "lines")]
        format: Format,
        /// File to make, readable by its owner only; standard output if not given
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Show or set how long events are kept; for ever by default
    ///
    /// Old ones are removed by the server, once an hour, or by `audit prune`. What is left can still be checked. Without --keep and
    /// --hold all rules are listed.
    #[command(after_help = "Examples:\n  convox-console audit retention --org acme --keep 365\n  \
                            convox-console audit retention --org acme --hold on\n  convox-console audit retention --json")]
    Retention {
        /// Name of the organization; without one, for what belongs to none, such as sign-ins
        #[arg(long, value_name = "NAME")]
        org: Option<String>,
        /// A number of days, or forever
        #[arg(long, value_name = "DAYS")]
        keep: Option<String>,
        /// on: nothing is removed, whatever its age
        #[arg(long, value_enum)]
        hold: Option<Hold>,
        #[command(flatten)]
        common: Common,
    },
    /// Remove now what is older than the rules keep
    #[command(after_help = "Example:\n  convox-console audit prune")]
    Prune {
        #[command(flatten)]
        common: Common,
    },
}

/// Which events.
#[derive(clap::Args, Clone)]
pub(crate) struct Wanted {
    /// Address of the user
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) actor: String,
    /// Name of the organization; all if not given
    #[arg(long, value_name = "NAME")]
    pub(crate) org: Option<String>,
    /// Name of the Rack at that time
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) rack: String,
    /// App that was named
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) app: String,
    /// What it would do
    #[arg(long, default_value = "", hide_default_value = true,
          value_parser = ["", "read", "read-secret", "write", "shell", "admin", "console"], hide_possible_values = true,
          help = "read, read-secret, write, shell, admin or console")]
    pub(crate) effect: String,
    /// How it was decided
    #[arg(long, default_value = "", hide_default_value = true, value_parser = ["", "allowed", "refused"],
          hide_possible_values = true, help = "allowed or refused")]
    pub(crate) decision: String,
    /// Not older than this: 30m, 24h
    #[arg(long, value_name = "DURATION")]
    pub(crate) since: Option<String>,
    /// Older than this
    #[arg(long, value_name = "DURATION")]
    pub(crate) until: Option<String>,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One event, one line of JSON.
    Lines,
    /// For spreadsheets.
    Csv,
    /// With their links, to be checked.
    Chain,
}

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hold {
    /// It does.
    On,
    /// It does not.
    Off,
}

/// Where the Console's data and root key are, if they are here.
#[derive(clap::Args, Clone)]
pub(crate) struct MaybePlace {
    /// Data directory.
    #[arg(long, value_name = "DIR", env = "CONVOX_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// PostgreSQL URL, or sqlite:PATH; DIR/console.db if not given
    #[arg(long, value_name = "URL", env = "CONVOX_DATABASE", hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// File with the root key; DIR/root.key if not given.
    #[arg(long, value_name = "FILE", env = "CONVOX_ROOT_KEY_FILE")]
    pub(crate) root_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) kms: kms::Options,
}

impl MaybePlace {
    /// All of it, as every other command wants it.
    pub(crate) fn whole(&self) -> Result<Place> {
        let data = self.data.clone().context("where is the Console's data? give --data, or --file for an exported log")?;
        Ok(Place { data, database: self.database.clone(), root_key_file: self.root_key_file.clone(), kms: self.kms.clone() })
    }

    /// Whether a database with its root key is here.
    pub(crate) fn has_data(&self) -> bool {
        let is_there = |path: &PathBuf| path.exists();
        let key = self.root_key_file.clone().or_else(|| self.data.as_ref().map(|data| data.join("root.key")));
        let database = self.database.is_some() || self.data.as_ref().is_some_and(|data| data.join("console.db").exists());
        database && key.as_ref().is_some_and(is_there)
    }
}
