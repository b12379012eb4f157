//! The command line, as types.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use convox_model::Role;
use convox_tls::Fingerprint;

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
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// PostgreSQL URL, or sqlite:PATH; DIR/console.db if not given.
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

#[derive(Subcommand)]
pub(crate) enum Admin {
    /// Make a root key; it is never overwritten. Without it everything that is sealed is lost: keep a copy elsewhere.
    RootKey {
        /// File to make, readable by its owner only.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make the first organization and its administrator with the one-time code that the server printed; prints the API key once.
    Setup {
        /// The code; read from standard input if not given.
        #[arg(long)]
        code: Option<String>,
        /// Name of the organization.
        #[arg(long, value_name = "NAME")]
        org: String,
        /// Address of the administrator.
        #[arg(long)]
        email: String,
        #[command(flatten)]
        common: Common,
    },
    /// Users.
    #[command(subcommand)]
    User(User),
    /// Organizations.
    #[command(subcommand)]
    Org(Org),
    /// Members of organizations and their roles.
    #[command(subcommand)]
    Member(Member),
    /// API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Racks.
    #[command(subcommand)]
    Rack(Rack),
    /// The audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
}

#[derive(Subcommand)]
pub(crate) enum User {
    /// Add a user.
    Add {
        email: String,
        #[command(flatten)]
        common: Common,
    },
    /// List users.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Remove a user with all memberships and keys; what they have open is cut.
    Remove {
        email: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(crate) enum Org {
    /// Make an organization.
    Create {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// List organizations.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Give an organization another name.
    Rename {
        name: String,
        #[arg(long, value_name = "NAME")]
        to: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(crate) enum Member {
    /// Add a member; somebody unknown becomes a user.
    Add {
        email: String,
        #[arg(long, value_name = "NAME")]
        org: String,
        /// developer, operator or administrator.
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        common: Common,
    },
    /// List members.
    List {
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
    /// Give a member another role.
    Role {
        email: String,
        #[arg(long, value_name = "NAME")]
        org: String,
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a member; what they have open on the organization's Racks is cut.
    Remove {
        email: String,
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a named key; prints it once.
    Create {
        #[arg(long)]
        email: String,
        #[arg(long)]
        name: String,
        /// user or deploy.
        #[arg(long, default_value = "user")]
        kind: String,
        /// Hours until it ends; never if not given.
        #[arg(long, value_name = "N")]
        expires_in_hours: Option<i64>,
        #[command(flatten)]
        common: Common,
    },
    /// List keys of one user or of all.
    List {
        #[arg(long)]
        email: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Make a user's own key anew; the old one is dead when this returns. Prints it once.
    Regenerate {
        #[arg(long)]
        email: String,
        #[command(flatten)]
        common: Common,
    },
    /// Revoke a key; what it has open is cut.
    Revoke {
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(crate) enum Rack {
    /// Add a Rack. It is contacted first: a wrong password, an unreachable host and another certificate each say so.
    ///
    /// Example: convox-console rack add prod --org acme --host rack.example.com --password-file pw --trust-on-first-use --data DIR
    Add {
        name: String,
        #[arg(long, value_name = "NAME")]
        org: String,
        /// HOST or HOST:PORT.
        #[arg(long)]
        host: String,
        /// File that holds the Rack's password.
        #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
        password_file: Option<PathBuf>,
        /// Read the Rack's password from standard input.
        #[arg(long)]
        password_stdin: bool,
        /// Fingerprint (sha256:...) that its certificate must have.
        #[arg(long, value_name = "FINGERPRINT", conflicts_with = "trust_on_first_use")]
        pin: Option<Fingerprint>,
        /// Pin whatever certificate it shows now. Compare the printed fingerprint with the Rack's own.
        #[arg(long)]
        trust_on_first_use: bool,
        #[command(flatten)]
        common: Common,
    },
    /// List Racks.
    List {
        #[arg(long, value_name = "NAME")]
        org: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Ask a Rack for itself, with the stored credential.
    Probe {
        name: String,
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
    /// Give a Rack another name.
    Rename {
        name: String,
        #[arg(long, value_name = "NAME")]
        org: String,
        #[arg(long, value_name = "NAME")]
        to: String,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a Rack from the Console; the Rack itself goes on.
    Remove {
        name: String,
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// List events, newest first.
    List {
        #[arg(long, default_value = "")]
        actor: String,
        #[arg(long, default_value = "", value_name = "NAME")]
        org: String,
        #[arg(long, default_value = "")]
        rack: String,
        #[arg(long, default_value = "")]
        app: String,
        /// read, read-secret, write, shell, admin or console.
        #[arg(long, default_value = "")]
        effect: String,
        /// allowed or refused.
        #[arg(long, default_value = "")]
        decision: String,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: i64,
        #[command(flatten)]
        common: Common,
    },
}
