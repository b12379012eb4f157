//! `build`, `builds ...`, `deploy`

use clap::{Args, Subcommand};

use super::flags::{AppFlag, IdFlag, RackFlag, WaitFlag, WatchFlag};

/// What shapes a build.
#[derive(Args, Debug)]
pub(crate) struct BuildOptions {
    #[arg(value_name = "dir")]
    pub(crate) dir: Option<String>,
    /// build argument (may be given several times)
    #[arg(long = "build-args", value_name = "KEY=VALUE")]
    pub(crate) build_args: Vec<String>,
    /// description
    #[arg(short = 'd', long, value_name = "text")]
    pub(crate) description: Option<String>,
    /// path of the manifest in the source
    #[arg(short = 'm', long, value_name = "file")]
    pub(crate) manifest: Option<String>,
    /// build without the cache
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// build with the Docker of this machine instead of the Rack's (refused)
    #[arg(long)]
    pub(crate) external: bool,
    /// build with a wildcard domain
    #[arg(long)]
    pub(crate) wildcard_domain: bool,
    #[command(flatten)]
    pub(crate) id: IdFlag,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}

/// `build [dir]`
#[derive(Args, Debug)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) options: BuildOptions,
    /// build the development target
    #[arg(long)]
    pub(crate) development: bool,
}

/// `deploy [dir]`
#[derive(Args, Debug)]
pub(crate) struct Deploy {
    #[command(flatten)]
    pub(crate) options: BuildOptions,
    /// build the development target
    #[arg(long)]
    pub(crate) development: bool,
    /// promote even if the app is not running
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) wait: WaitFlag,
}

/// `builds`
#[derive(Args, Debug)]
pub(crate) struct Builds {
    #[command(flatten)]
    pub(crate) rack: RackFlag,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    /// number of builds to list
    #[arg(short = 'l', long, value_name = "limit")]
    pub(crate) limit: Option<i64>,
    #[command(flatten)]
    pub(crate) watch: WatchFlag,
    #[command(subcommand)]
    pub(crate) command: Option<BuildsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildsCommand {
    /// export a build
    #[command(after_help = "EXAMPLES\n  convox builds export BABCDEFGHIJ -a shop -f build.tgz")]
    Export {
        #[arg(value_name = "build")]
        build: String,
        /// export to file
        #[arg(short = 'f', long, value_name = "file")]
        file: Option<String>,
    },
    /// import a build
    #[command(
        after_help = "EXAMPLES\n  convox builds import -a shop -f build.tgz\n  convox builds export B1 -a shop -r acme/staging | convox builds import -a shop -r acme/production"
    )]
    Import(Import),
    /// import a prebuilt container image into a new build
    #[command(
        name = "import-image",
        after_help = "EXAMPLES\n  convox builds import-image registry.example.com/shop:1.2 -a shop\n  convox builds import-image registry.example.com/shop:1.2 -a shop --src-creds-user ci --src-creds-pass-stdin < password"
    )]
    ImportImage(ImportImage),
    /// get information about a build
    #[command(after_help = "EXAMPLES\n  convox builds info BABCDEFGHIJ -a shop")]
    Info {
        #[arg(value_name = "build")]
        build: String,
    },
    /// get logs for a build
    #[command(after_help = "EXAMPLES\n  convox builds logs BABCDEFGHIJ -a shop")]
    Logs {
        #[arg(value_name = "build")]
        build: String,
    },
}

/// `builds import`
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// import from file
    #[arg(short = 'f', long, value_name = "file")]
    pub(crate) file: Option<String>,
    #[command(flatten)]
    pub(crate) id: IdFlag,
}

/// `builds import-image`
#[derive(Args, Debug)]
pub(crate) struct ImportImage {
    #[arg(value_name = "source-image")]
    pub(crate) image: String,
    /// path to the manifest (convox.yml)
    #[arg(short = 'm', long, value_name = "file")]
    pub(crate) manifest: Option<String>,
    /// source registry username
    #[arg(long, value_name = "user")]
    pub(crate) src_creds_user: Option<String>,
    /// source registry password (visible to others on this machine: prefer the next two)
    #[arg(long, value_name = "password")]
    pub(crate) src_creds_pass: Option<String>,
    /// read source registry password from named environment variable
    #[arg(long, value_name = "variable", conflicts_with = "src_creds_pass")]
    pub(crate) src_creds_pass_env: Option<String>,
    /// read source registry password from standard input
    #[arg(long, conflicts_with_all = ["src_creds_pass", "src_creds_pass_env"])]
    pub(crate) src_creds_pass_stdin: bool,
}

/// `start [service]...`
#[derive(Args, Debug)]
pub(crate) struct Start {
    /// show the logs of these services only
    #[arg(value_name = "service")]
    pub(crate) services: Vec<String>,
    /// path of the manifest in the source
    #[arg(short = 'm', long, value_name = "file")]
    pub(crate) manifest: Option<String>,
    /// start the newest release, build nothing
    #[arg(long)]
    pub(crate) no_build: bool,
    /// build without the cache
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// build with the Docker of this machine instead of the Rack's (refused)
    #[arg(short = 'e', long)]
    pub(crate) external: bool,
    /// generation of the app (2)
    #[arg(short = 'g', long, value_name = "generation")]
    pub(crate) generation: Option<String>,
    /// do not sync changed files into what runs (nothing is ever synced)
    #[arg(long)]
    pub(crate) no_sync: bool,
    /// shift the ports of an app of generation 1 (refused)
    #[arg(short = 's', long, value_name = "count", allow_negative_numbers = true)]
    pub(crate) shift: Option<i64>,
    #[command(flatten)]
    pub(crate) app: AppFlag,
    #[command(flatten)]
    pub(crate) rack: RackFlag,
}
