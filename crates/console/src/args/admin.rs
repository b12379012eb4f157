//! Commands of administration. Each help page ends with an example that works as it stands, with `CONVOX_DATA` set.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use convox_model::Role;
use convox_tls::Fingerprint;

use super::Common;
use super::audit::{AuditCommand, MaybePlace};
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

#[derive(Subcommand)]
pub(crate) enum User {
    /// Add a user, who is a member of nothing yet
    #[command(after_help = "Example:\n  convox-console user add ci@example.com")]
    Add {
        /// Their address
        email: String,
        #[command(flatten)]
        common: Common,
    },
    /// List users
    #[command(after_help = "Example:\n  convox-console user list --json")]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Make a link with which somebody who forgot their password chooses a new one. It works once, within an hour
    #[command(after_help = "Example:\n  convox-console user reset-link bob@example.com --url https://console.example.com")]
    ResetLink {
        /// Their address
        email: String,
        /// Address of the Console
        #[arg(long, value_name = "URL", env = "CONVOX_CONSOLE_URL", value_parser = super::origin)]
        url: String,
        #[command(flatten)]
        common: Common,
    },
    /// Remove all second factors of somebody who lost them, and sign them out everywhere
    ///
    /// They sign in with their password, and add new ones. Their API keys stay; where a second factor is required they open nothing meanwhile.
    #[command(after_help = "Example:\n  convox-console user reset-factor bob@example.com")]
    ResetFactor {
        /// Their address
        email: String,
        #[command(flatten)]
        common: Common,
    },
    /// Sign somebody out everywhere, or everybody: browsers, and what a second factor opened for command lines. Keys stay
    ///
    /// At once, on all servers.
    #[command(after_help = "Examples:\n  convox-console user sign-out bob@example.com\n  convox-console user sign-out --all")]
    SignOut {
        /// Their address
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        email: Option<String>,
        /// Everybody
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a user with all memberships and keys; what they have open is cut
    #[command(after_help = "Example:\n  convox-console user remove bob@example.com")]
    Remove {
        /// Their address
        email: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(crate) enum Org {
    /// Make an organization
    #[command(after_help = "Example:\n  convox-console org create acme")]
    Create {
        /// Its name: lower case letters, digits and dashes
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// List organizations
    #[command(after_help = "Example:\n  convox-console org list")]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Require a second factor of all members of an organization, or no longer
    ///
    /// Whoever has none is led to add one when they sign in, and their API keys open nothing before. Deploy keys go on: a machine cannot answer.
    #[command(after_help = "Examples:\n  convox-console org require-factor acme\n  convox-console org require-factor acme --off")]
    RequireFactor {
        /// Its name
        name: String,
        /// Require it no longer
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Give an organization another name. Its Racks are `NEW/rack` from then on
    #[command(after_help = "Example:\n  convox-console org rename acme --to acme-labs")]
    Rename {
        /// Its name
        name: String,
        /// Its new name
        #[arg(long, value_name = "NAME")]
        to: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(crate) enum Member {
    /// Add a member; somebody unknown becomes a user
    #[command(after_help = "Example:\n  convox-console member add bob@example.com --org acme --role developer")]
    Add {
        /// Their address
        email: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        /// developer, operator or administrator
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        common: Common,
    },
    /// List members
    #[command(after_help = "Example:\n  convox-console member list --org acme")]
    List {
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
    /// Give a member another role
    #[command(after_help = "Example:\n  convox-console member role bob@example.com --org acme --role operator")]
    Role {
        /// Their address
        email: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        /// developer, operator or administrator
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a member; what they have open on the organization's Racks is cut
    ///
    /// The keys of somebody who is then a member of no organization end too.
    #[command(after_help = "Example:\n  convox-console member remove bob@example.com --org acme")]
    Remove {
        /// Their address
        email: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(crate) enum Invitation {
    /// Invite somebody; prints the link once. It works once, within a week
    #[command(after_help = "Example:\n  convox-console invitation create bob@example.com --org acme --role developer \\\n    \
                            --url https://console.example.com")]
    Create {
        /// Their address
        email: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        /// developer, operator or administrator
        #[arg(long)]
        role: Role,
        /// Address of the Console
        #[arg(long, value_name = "URL", env = "CONVOX_CONSOLE_URL", value_parser = super::origin)]
        url: String,
        #[command(flatten)]
        common: Common,
    },
    /// List open invitations
    #[command(after_help = "Example:\n  convox-console invitation list --org acme")]
    List {
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
    /// Withdraw an invitation
    #[command(after_help = "Example:\n  convox-console invitation withdraw 0199... --org acme")]
    Withdraw {
        /// As `invitation list` shows it
        id: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
}

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

#[derive(Subcommand)]
pub(crate) enum Rack {
    /// Add a Rack. It is contacted first
    ///
    /// A wrong password, an unreachable host and a certificate that is not accepted each say so, and nothing is kept then. The password is
    /// sent only after the certificate was accepted: by this machine's authorities, or because it is the pinned one.
    #[command(after_help = "Examples:\n  convox-console rack add prod --org acme --host rack.example.com --password-file pw\n  \
                                  convox-console rack add lab --org acme --host 10.0.0.7:5443 --password-stdin --trust-on-first-use < pw")]
    Add {
        /// Its name in the organization: lower case letters, digits and dashes
        name: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        /// HOST or HOST:PORT
        #[arg(long)]
        host: String,
        /// File that holds the Rack's password
        #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
        password_file: Option<PathBuf>,
        /// Read the Rack's password from standard input. Without this and without a file it is asked for
        #[arg(long)]
        password_stdin: bool,
        /// Fingerprint (sha256:...) that its certificate must have, now and from now on
        #[arg(long, value_name = "FINGERPRINT", conflicts_with = "trust_on_first_use")]
        pin: Option<Fingerprint>,
        /// Pin whatever certificate it shows now. Compare the printed fingerprint with the Rack's own
        #[arg(long)]
        trust_on_first_use: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Roll the password of a Rack. No request fails meanwhile
    ///
    /// The Rack accepts a new password beside the old one, every server of the Console switches, and after the window the old one is refused.
    /// What is cut off, whoever is killed, is taken up by a running server or by this command said again.
    #[command(after_help = "Examples:\n  convox-console rack roll prod --org acme\n  \
                                  convox-console rack roll prod --org acme --window 24h --no-wait\n  \
                                  convox-console rack roll prod --org acme --undo")]
    Roll {
        /// Its name
        name: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        /// How long both passwords are accepted after the switch
        #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
        window: Duration,
        /// When the old password ends, end what was opened with it too, by whomever
        #[arg(long)]
        cut_streams: bool,
        /// Return when it has begun; a running server carries it on
        #[arg(long, conflicts_with_all = ["undo", "status"])]
        no_wait: bool,
        /// Go back to the old password
        #[arg(long, conflicts_with = "status")]
        undo: bool,
        /// Only say how far it is
        #[arg(long)]
        status: bool,
        /// From now on, roll it whenever it is so many days old; 0 for not by itself
        #[arg(long, value_name = "N", conflicts_with_all = ["undo", "status", "no_wait"])]
        every_days: Option<i64>,
        #[command(flatten)]
        common: Common,
    },
    /// List Racks
    #[command(after_help = "Example:\n  convox-console rack list --org acme")]
    List {
        /// Name of the organization; all if not given
        #[arg(long, value_name = "NAME")]
        org: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Ask a Rack for itself, with the stored credential
    #[command(after_help = "Example:\n  convox-console rack probe prod --org acme")]
    Probe {
        /// Its name in the organization
        name: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
    /// Give a Rack another name
    #[command(after_help = "Example:\n  convox-console rack rename lab --org acme --to staging")]
    Rename {
        /// Its name in the organization
        name: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        /// Its new name
        #[arg(long, value_name = "NAME")]
        to: String,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a Rack from the Console; the Rack itself goes on
    #[command(after_help = "Example:\n  convox-console rack remove lab --org acme")]
    Remove {
        /// Its name in the organization
        name: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    convox_wire::duration::go_parse(text).map_err(|_| "write 30s, 15m or 24h".to_owned())
}
