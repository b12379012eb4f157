//! `rack`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use convox_tls::Fingerprint;

use super::Common;

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
