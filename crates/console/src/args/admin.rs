//! Commands of administration. Each help page ends with an example that works as it stands, with `CONVOX_DATA` set.

use std::path::PathBuf;

use clap::Subcommand;

use super::Common;
use super::audit::{AuditCommand, MaybePlace};
use super::keys::{KeyCommand, KeysCommand};
use super::people::{Invitation, Member, Org, User};
use super::racks::Rack;
use crate::root::kms;

#[derive(Subcommand)]
pub(crate) enum Admin {
    /// Make a root key. An existing file is never overwritten
    ///
    /// Without the root key everything that is sealed is lost: keep a copy apart from the database and its backups.
    #[command(after_help = "Example:\n  convox-console root-key --out /etc/convox/root.key")]
    RootKey {
        /// File to make, readable by its owner only
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        kms: kms::Options,
    },
    /// Make the first organization and its administrator with the one-time code that the server printed
    ///
    /// Prints the administrator's API key, once.
    #[command(after_help = "Examples:\n  convox-console setup --org acme --email ada@example.com < code\n  \
                            convox-console setup --code cxs_... --org acme --email ada@example.com --json")]
    Setup {
        /// The code; asked for, or read from standard input, if not given. It is of no use to anybody afterwards
        #[arg(long)]
        code: Option<String>,
        /// Name of the organization: lower case letters, digits and dashes
        #[arg(long, value_name = "NAME")]
        org: String,
        /// Address of the administrator
        #[arg(long)]
        email: String,
        #[command(flatten)]
        common: Common,
    },
    /// Users: people and machines with an address of their own
    #[command(subcommand)]
    User(User),
    /// Organizations
    #[command(subcommand)]
    Org(Org),
    /// Members of organizations and their roles
    #[command(subcommand)]
    Member(Member),
    /// Invitations: links that make one address a member, once
    #[command(subcommand)]
    Invitation(Invitation),
    /// API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// The keys that seal: the root key, and the data keys of organizations
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Racks
    #[command(subcommand)]
    Rack(Rack),
    /// The audit log
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Carry everything into another database: from a file to PostgreSQL, or back
    ///
    /// No server may use either. Every table is read again where it arrived and must be the same, in one transaction; the source stays as it is.
    #[command(
        after_help = "Examples:\n  convox-console migrate --from sqlite:/var/lib/convox --to postgres://convox@db.internal/convox\n  \
                                  CONVOX_MIGRATE_TO=postgres://convox:PASSWORD@db.internal/convox convox-console migrate --from sqlite:/var/lib/convox"
    )]
    Migrate {
        /// sqlite:DIR, sqlite:FILE or a PostgreSQL URL
        #[arg(long, value_name = "URL", env = "CONVOX_MIGRATE_FROM", hide_env_values = true)]
        from: String,
        /// The same; without anything in it. A URL with a password belongs into the variable: arguments can be read by others
        #[arg(long, value_name = "URL", env = "CONVOX_MIGRATE_TO", hide_env_values = true)]
        to: String,
        /// Print one JSON value
        #[arg(long)]
        json: bool,
    },
    /// Write everything into one file, as it is at this moment. Servers go on meanwhile
    ///
    /// The root key is not in it, and no key or password in it can be used without that. Addresses of people and the audit log can be read:
    /// keep it as you keep the database.
    #[command(after_help = "Example:\n  convox-console backup --out /backup/console-2026-11-27.backup --data /var/lib/convox")]
    Backup {
        /// File to make, readable by its owner only; never overwritten
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        place: MaybePlace,
        /// Print one JSON value
        #[arg(long)]
        json: bool,
    },
    /// Put a backup into a database that is empty, of either kind
    ///
    /// All or nothing: a file that is damaged changes nothing. Says which root key it needs; if that is at hand, it must fit.
    #[command(after_help = "Example:\n  convox-console restore --from /backup/console-2026-11-27.backup --data /var/lib/convox")]
    Restore {
        /// The backup
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        #[command(flatten)]
        place: MaybePlace,
        /// Print one JSON value
        #[arg(long)]
        json: bool,
    },
}
