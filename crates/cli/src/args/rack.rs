//! `rack ...`

use std::time::Duration;

use clap::{Args, Subcommand};

use super::flags::{RackFlag, WaitFlag, WatchFlag};
use super::processes::LogFlags;

/// `rack`
#[derive(Args, Debug)]
pub(crate) struct Rack {
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(subcommand)]
    pub(crate) command: Option<RackCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RackCommand {
    /// get rack access creds
    #[command(after_help = "EXAMPLES\n  export $(convox rack access --role read --duration-in-hours 1)")]
    Access(Access),
    /// install a rack
    #[command(after_help = "EXAMPLES\n  convox rack install local\n  convox rack install local --name staging")]
    Install(Install),
    /// get logs for the rack
    #[command(after_help = "EXAMPLES\n  convox rack logs --since 1h --no-follow")]
    Logs(LogFlags),
    /// move a rack into a Console's organization, or out of it
    #[command(after_help = "EXAMPLES\n  convox rack mv staging acme/staging\n  convox rack mv acme/staging staging")]
    Mv {
        #[arg(value_name = "from")]
        from: String,
        #[arg(value_name = "to")]
        to: String,
        /// do not ask
        #[arg(short = 'f', long)]
        force: bool,
    },
    /// display rack parameters
    #[command(after_help = "EXAMPLES\n  convox rack params\n  convox rack params --group network")]
    Params {
        /// only the parameters of this group
        #[arg(short = 'g', long, value_name = "group")]
        group: Option<String>,
        /// show secret values on a terminal too
        #[arg(long)]
        reveal: bool,
        #[command(subcommand)]
        command: Option<RackParamsCommand>,
    },
    /// the password by which a console reaches the rack
    #[command(subcommand)]
    Password(RackPassword),
    /// list rack processes
    #[command(after_help = "EXAMPLES\n  convox rack ps\n  convox rack ps --all")]
    Ps {
        /// show all processes, of apps too
        #[arg(short = 'a', long)]
        all: bool,
    },
    /// list rack version history
    #[command(after_help = "EXAMPLES\n  convox rack releases")]
    Releases,
    /// list attachable runtime integrations
    #[command(after_help = "EXAMPLES\n  convox rack runtimes -r acme/staging")]
    Runtimes,
    /// runtime integrations of the rack
    #[command(subcommand)]
    Runtime(RuntimeCommand),
    /// scale the rack
    #[command(after_help = "EXAMPLES\n  convox rack scale\n  convox rack scale --count 3 --wait")]
    Scale(RackScale),
    /// let the Console look up the rack's address anew
    #[command(after_help = "EXAMPLES\n  convox rack sync -r acme/staging")]
    Sync {
        /// name of the rack's stack in AWS
        #[arg(short = 'n', long, value_name = "name")]
        name: Option<String>,
    },
    /// uninstall a rack
    #[command(after_help = "EXAMPLES\n  convox rack uninstall local staging")]
    Uninstall(Uninstall),
    /// update the rack
    #[command(after_help = "EXAMPLES\n  convox rack update 3.1.0 --wait")]
    Update {
        #[arg(value_name = "version")]
        version: Option<String>,
        /// update even where the Rack holds it unsafe (v3)
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        wait: WaitFlag,
    },
    /// wait for rack to finish updating
    #[command(after_help = "EXAMPLES\n  convox rack wait")]
    Wait,
}

/// `rack access`
#[derive(Args, Debug)]
pub(crate) struct Access {
    /// read or write; admin where the rack knows it
    #[arg(long, value_name = "role")]
    pub(crate) role: Option<String>,
    /// how long the credential lasts
    #[arg(long, value_name = "hours")]
    pub(crate) duration_in_hours: Option<u32>,
    #[command(subcommand)]
    pub(crate) command: Option<AccessCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccessCommand {
    /// the key that signs access credentials
    #[command(subcommand)]
    Key(AccessKey),
    /// list access credentials that could still be used
    #[command(after_help = "EXAMPLES\n  convox rack access list --json")]
    List,
    /// revoke an access credential and those that it made
    #[command(after_help = "EXAMPLES\n  convox rack access revoke 0f3c...\n  convox rack access revoke --all")]
    Revoke {
        #[arg(value_name = "id", required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// all of them
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccessKey {
    /// rotate access key
    #[command(after_help = "EXAMPLES\n  convox rack access key rotate\n  convox rack access key rotate --overlap 24h")]
    Rotate {
        /// how long credentials signed with the old key still work (none)
        #[arg(long, value_name = "duration", value_parser = duration)]
        overlap: Option<Duration>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RackPassword {
    /// roll the rack's password; nobody sees the new one
    #[command(after_help = "EXAMPLES\n  convox rack password roll\n  convox rack password roll --window 24h --no-wait")]
    Roll {
        /// how long both passwords work after the switch (30s)
        #[arg(long, value_name = "duration", value_parser = duration)]
        window: Option<Duration>,
        /// end what was opened with the old one too
        #[arg(long)]
        cut_streams: bool,
        /// do not wait until it is over
        #[arg(long)]
        no_wait: bool,
    },
    /// how far a roll is, and when it is done by itself
    #[command(after_help = "EXAMPLES\n  convox rack password status --json")]
    Status,
    /// go back to the old password
    #[command(after_help = "EXAMPLES\n  convox rack password undo")]
    Undo,
}

fn duration(text: &str) -> Result<Duration, String> {
    convox_wire::duration::go_parse(text).map_err(|_| "write 30s, 15m or 24h".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum RackParamsCommand {
    /// set rack parameters
    #[command(after_help = "EXAMPLES\n  convox rack params set LogRetention=30 --wait")]
    Set {
        #[arg(value_name = "Key=Value", required = true)]
        params: Vec<String>,
        /// send them without checking that they make sense together
        #[arg(short = 'f', long)]
        force: bool,
        #[command(flatten)]
        wait: WaitFlag,
    },
}

/// `rack install type`
#[derive(Args, Debug)]
pub(crate) struct Install {
    #[arg(value_name = "type")]
    pub(crate) kind: String,
    #[arg(value_name = "Parameter=Value")]
    pub(crate) params: Vec<String>,
    /// rack name
    #[arg(short = 'n', long, value_name = "name", default_value = "local", hide_default_value = true)]
    pub(crate) name: String,
    /// address to listen on (127.0.0.1, a free port)
    #[arg(long, value_name = "address")]
    pub(crate) listen: Option<String>,
}

/// `rack scale`
#[derive(Args, Debug)]
pub(crate) struct RackScale {
    /// instance count
    #[arg(short = 'c', long, value_name = "count")]
    pub(crate) count: Option<i64>,
    /// instance type
    #[arg(short = 't', long = "type", value_name = "type")]
    pub(crate) kind: Option<String>,
    #[command(flatten)]
    pub(crate) wait: WaitFlag,
}

/// `rack uninstall type name`
#[derive(Args, Debug)]
pub(crate) struct Uninstall {
    #[arg(value_name = "type")]
    pub(crate) kind: String,
    #[arg(value_name = "name")]
    pub(crate) name: String,
    /// do not ask
    #[arg(short = 'f', long)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RuntimeCommand {
    /// attach runtime integration
    #[command(after_help = "EXAMPLES\n  convox rack runtime attach 1a2b3c -r acme/staging")]
    Attach {
        #[arg(value_name = "runtime")]
        runtime: String,
    },
}
