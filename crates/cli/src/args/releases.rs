//! `releases ...`

use clap::{Args, Subcommand};

use super::flags::{AppFlag, IdFlag, RackFlag, WaitFlag, WatchFlag};

/// `releases`
#[derive(Args, Debug)]
pub(crate) struct Releases {
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    /// number of releases to list
    #[arg(short = 'l', long, value_name = "limit")]
    pub(crate) limit: Option<i64>,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(subcommand)]
    pub(crate) command: Option<ReleasesCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReleasesCommand {
    /// create a new release with the build of one release and the environment of another
    #[command(
        name = "create-from",
        after_help = "EXAMPLES\n  convox releases create-from --build-from RABCDEFGHIJ --use-active-release-env -a shop --promote"
    )]
    CreateFrom(CreateFrom),
    /// get information about a release
    #[command(after_help = "EXAMPLES\n  convox releases info RABCDEFGHIJ -a shop")]
    Info {
        #[arg(value_name = "release")]
        release: String,
        /// show the values of masked keys on a terminal too
        #[arg(long)]
        reveal: bool,
    },
    /// get manifest for a release
    #[command(after_help = "EXAMPLES\n  convox releases manifest RABCDEFGHIJ -a shop > convox.yml")]
    Manifest {
        #[arg(value_name = "release")]
        release: String,
    },
    /// promote a release
    #[command(after_help = "EXAMPLES\n  convox releases promote RABCDEFGHIJ -a shop --wait\n  convox releases promote -a shop")]
    Promote {
        #[arg(value_name = "release")]
        release: Option<String>,
        /// promote even if the app is not running
        #[arg(short = 'f', long)]
        force: bool,
        #[command(flatten)]
        wait: WaitFlag,
    },
    /// copy an old release forward and promote it
    #[command(after_help = "EXAMPLES\n  convox releases rollback RABCDEFGHIJ -a shop --wait")]
    Rollback {
        #[arg(value_name = "release")]
        release: String,
        /// promote even if the app is not running
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        id: IdFlag,
        #[command(flatten)]
        wait: WaitFlag,
    },
}

/// `releases create-from`
#[derive(Args, Debug)]
pub(crate) struct CreateFrom {
    /// release whose build is taken
    #[arg(long, value_name = "release")]
    pub(crate) build_from: Option<String>,
    /// take the build of the active release
    #[arg(long)]
    pub(crate) use_active_release_build: bool,
    /// release whose environment is taken
    #[arg(long, value_name = "release")]
    pub(crate) env_from: Option<String>,
    /// take the environment of the active release
    #[arg(long)]
    pub(crate) use_active_release_env: bool,
    /// promote the release
    #[arg(short = 'p', long)]
    pub(crate) promote: bool,
    #[command(flatten)]
    pub(crate) wait: WaitFlag,
}
