//! `configs` and `config ...`: named texts of an app, as v3 has them.

use clap::{Args, Subcommand};

use super::flags::{AppFlag, RackFlag, WatchFlag};

/// `configs`
#[derive(Args, Debug)]
pub(crate) struct Configs {
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}

/// `config ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// get the config
    #[command(after_help = "EXAMPLES\n  convox config get nginx -a shop > nginx.conf")]
    Get {
        #[arg(value_name = "name")]
        name: String,
        #[command(flatten)]
        app: AppFlag,
        #[command(flatten)]
        rack: RackFlag,
    },
    /// set the config
    #[command(
        after_help = "EXAMPLES\n  convox config set nginx --file nginx.conf -a shop --restart\n  convox config set motd --value 'Hello' -a shop"
    )]
    Set(ConfigSet),
}

/// `config set name`
#[derive(Args, Debug)]
pub(crate) struct ConfigSet {
    #[arg(value_name = "name")]
    pub(crate) name: String,
    /// the text is in this file
    #[arg(short = 'f', long, value_name = "file", conflicts_with = "value")]
    pub(crate) file: Option<String>,
    /// the text; what is piped in wins over it
    #[arg(long, value_name = "text")]
    pub(crate) value: Option<String>,
    /// restart the app
    #[arg(long)]
    pub(crate) restart: bool,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}
