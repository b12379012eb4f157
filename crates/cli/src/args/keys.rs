//! `keys ...`: API keys at a Console.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::flags::duration;

/// `keys`
#[derive(Args, Debug)]
pub(crate) struct Keys {
    #[command(subcommand)]
    pub(crate) command: Option<KeysCommand>,
    #[command(flatten)]
    pub(crate) org: OrgFlag,
}

/// `--org/-o`
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct OrgFlag {
    /// organization whose deploy keys are meant; you are its administrator
    #[arg(short = 'o', long, global = true, value_name = "organization")]
    pub(crate) org: Option<String>,
}

/// `keys ...`
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// make a key and print it once
    #[command(
        after_help = "EXAMPLES\n  convox keys create laptop --expires 720h\n  convox keys create github --deploy --org acme --preset ci-legacy --network 192.0.2.0/24\n  convox keys create graphs --org acme --rack prod --app shop --may read"
    )]
    Create(Create),
    /// put a new key in the place of an old one, by default of the one in use
    #[command(
        after_help = "EXAMPLES\n  convox keys roll\n  convox keys roll --overlap 1h\n  convox keys roll github --org acme --overlap 24h"
    )]
    Roll {
        /// name or id; the key in use if not given
        #[arg(value_name = "key")]
        key: Option<String>,
        /// for so long the old one is still good
        #[arg(long, value_name = "duration", value_parser = duration)]
        overlap: Option<Duration>,
    },
    /// end a key and everything that it has open
    #[command(after_help = "EXAMPLES\n  convox keys revoke laptop\n  convox keys revoke github --org acme")]
    Revoke {
        /// name or id
        #[arg(value_name = "key")]
        key: String,
    },
}

/// `keys create NAME`
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// unique among its owner's keys
    #[arg(value_name = "name")]
    pub(crate) name: String,
    /// for a machine: it works on Racks, and cannot change the Console
    #[arg(long)]
    pub(crate) deploy: bool,
    /// ends after this time; never if not given
    #[arg(long, value_name = "duration", value_parser = duration)]
    pub(crate) expires: Option<Duration>,
    /// only this Rack of the organization; may be given several times
    #[arg(short = 'r', long, value_name = "rack")]
    pub(crate) rack: Vec<String>,
    /// only this app; may be given several times
    #[arg(short = 'a', long, value_name = "app")]
    pub(crate) app: Vec<String>,
    /// only these commands: ci-legacy, deploy-only or read-only
    #[arg(long, value_name = "preset")]
    pub(crate) preset: Option<String>,
    /// only this effect (read, read-secret, write, shell) or command (build, deploy, logs, run, ...); may be given several times
    #[arg(long, value_name = "word")]
    pub(crate) may: Vec<String>,
    /// only from this network, such as 10.0.0.0/8; may be given several times
    #[arg(long, value_name = "network")]
    pub(crate) network: Vec<String>,
}
