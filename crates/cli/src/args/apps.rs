//! `apps ...`

use clap::{Args, Subcommand};

use super::flags::{AppFlag, RackFlag, WaitFlag, WatchFlag};

/// `apps`
#[derive(Args, Debug)]
pub(crate) struct Apps {
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(subcommand)]
    pub(crate) command: Option<AppsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AppsCommand {
    /// cancel an app update
    #[command(after_help = "EXAMPLES\n  convox apps cancel -a shop --wait")]
    Cancel {
        #[command(flatten)]
        name: AppName,
        #[command(flatten)]
        wait: WaitFlag,
    },
    /// create an app
    #[command(after_help = "EXAMPLES\n  convox apps create shop --wait")]
    Create(Create),
    /// delete an app
    #[command(after_help = "EXAMPLES\n  convox apps delete shop")]
    Delete {
        #[arg(value_name = "app")]
        app_name: String,
        #[command(flatten)]
        wait: WaitFlag,
    },
    /// export an app
    #[command(
        after_help = "EXAMPLES\n  convox apps export shop -f shop.tgz\n  convox apps export shop -r acme/old | convox apps import shop -r acme/new"
    )]
    Export {
        #[command(flatten)]
        name: AppName,
        /// export to file
        #[arg(short = 'f', long, value_name = "file")]
        file: Option<String>,
    },
    /// import an app
    #[command(after_help = "EXAMPLES\n  convox apps import shop -f shop.tgz")]
    Import {
        #[command(flatten)]
        name: AppName,
        /// import from file
        #[arg(short = 'f', long, value_name = "file")]
        file: Option<String>,
    },
    /// get information about an app
    #[command(after_help = "EXAMPLES\n  convox apps info -a shop\n  convox apps info shop --json")]
    Info(AppName),
    /// enable termination protection
    #[command(after_help = "EXAMPLES\n  convox apps lock shop")]
    Lock(AppName),
    /// display app parameters
    #[command(after_help = "EXAMPLES\n  convox apps params -a shop")]
    Params {
        #[command(flatten)]
        name: AppName,
        #[command(subcommand)]
        command: Option<AppsParamsCommand>,
    },
    /// disable termination protection
    #[command(after_help = "EXAMPLES\n  convox apps unlock shop")]
    Unlock(AppName),
    /// wait for an app to finish updating
    #[command(after_help = "EXAMPLES\n  convox apps wait shop")]
    Wait(AppName),
}

#[derive(Debug, Subcommand)]
pub(crate) enum AppsParamsCommand {
    /// set app parameters
    #[command(after_help = "EXAMPLES\n  convox apps params set Timeout=120 -a shop")]
    Set {
        #[arg(value_name = "Key=Value", required = true)]
        params: Vec<String>,
        #[command(flatten)]
        wait: WaitFlag,
    },
}

/// `[app]`
#[derive(Args, Debug)]
pub(crate) struct AppName {
    #[arg(value_name = "app")]
    pub(crate) app_name: Option<String>,
}

/// `apps create [name]`
#[derive(Args, Debug)]
pub(crate) struct Create {
    #[arg(value_name = "name")]
    pub(crate) app_name: Option<String>,
    /// generation
    #[arg(short = 'g', long, value_name = "generation")]
    pub(crate) generation: Option<String>,
    /// seconds that a release of the app may take to become healthy (v3)
    #[arg(long, value_name = "seconds")]
    pub(crate) timeout: Option<i64>,
    #[command(flatten)]
    pub(crate) wait: WaitFlag,
}
