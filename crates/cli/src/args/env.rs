//! `env ...`

use clap::{Args, Subcommand};

use super::flags::{AppFlag, IdFlag, RackFlag, WaitFlag, WatchFlag};

/// `env`
#[derive(Args, Debug)]
pub(crate) struct Env {
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    /// show the values of masked keys on a terminal too
    #[arg(long)]
    pub(crate) reveal: bool,
    #[command(flatten)]
    pub(crate) of: OfRelease,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(subcommand)]
    pub(crate) command: Option<EnvCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EnvCommand {
    /// edit env interactively
    #[command(after_help = "EXAMPLES\n  EDITOR=nano convox env edit -a shop --promote")]
    Edit {
        #[command(flatten)]
        of: OfRelease,
        #[command(flatten)]
        after: After,
    },
    /// get an env var
    #[command(after_help = "EXAMPLES\n  convox env get DATABASE_URL -a shop")]
    Get {
        #[arg(value_name = "var")]
        key: String,
        #[command(flatten)]
        of: OfRelease,
    },
    /// list keys whose values are not shown on a terminal
    #[command(after_help = "EXAMPLES\n  convox env mask -a shop")]
    Mask {
        #[command(subcommand)]
        command: Option<MaskCommand>,
    },
    /// set env var(s)
    #[command(after_help = "EXAMPLES\n  convox env set COLOR=blue DEBUG=1 -a shop --promote\n  convox env set -a shop --replace < .env")]
    Set(Set),
    /// unset env var(s)
    #[command(after_help = "EXAMPLES\n  convox env unset DEBUG -a shop --promote --wait")]
    Unset {
        #[arg(value_name = "key", required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        of: OfRelease,
        #[command(flatten)]
        id: IdFlag,
        #[command(flatten)]
        after: After,
    },
}

/// `env set key=value...`
#[derive(Args, Debug)]
pub(crate) struct Set {
    #[arg(value_name = "key=value")]
    pub(crate) pairs: Vec<String>,
    /// replace all environment variables with given ones
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) of: OfRelease,
    #[command(flatten)]
    pub(crate) id: IdFlag,
    #[command(flatten)]
    pub(crate) after: After,
}

/// `--release`
#[derive(Args, Clone, Debug)]
pub(crate) struct OfRelease {
    /// of this release instead of the newest one; what is made goes on from it (v3)
    #[arg(long, value_name = "release")]
    pub(crate) release: Option<String>,
}

/// What follows a change of the environment.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct After {
    /// promote the release
    #[arg(short = 'p', long)]
    pub(crate) promote: bool,
    #[command(flatten)]
    pub(crate) wait: WaitFlag,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MaskCommand {
    /// mark env keys as masked
    #[command(after_help = "EXAMPLES\n  convox env mask set DATABASE_URL API_KEY -a shop")]
    Set {
        #[arg(value_name = "key", required = true)]
        keys: Vec<String>,
    },
    /// unmark masked env keys
    #[command(after_help = "EXAMPLES\n  convox env mask unset API_KEY -a shop")]
    Unset {
        #[arg(value_name = "key", required = true)]
        keys: Vec<String>,
    },
}
