//! What can be typed: every command, argument and flag, and nothing about what they do.
//!
//! One file per group. [`parse()`] turns the command line into a [`Cli`], or into the text and exit code of the originals;
//! [`help`] renders help and the command list.

mod account;
mod apps;
mod builds;
mod configs;
mod elsewhere;
mod env;
mod flags;
pub(crate) mod help;
mod keys;
pub(crate) mod man;
mod parse;
mod platform;
mod processes;
mod rack;
mod releases;

use clap::{Parser, Subcommand};

pub(crate) use account::{Accounts, AccountsCommand, AccountsMove, Completion, Login, Logout, Man, Switch, Trust};
pub(crate) use apps::{AppName, Apps, AppsCommand, AppsParamsCommand, Create as AppsCreate};
pub(crate) use builds::{Build, BuildOptions, Builds, BuildsCommand, Deploy, Import as BuildsImport, ImportImage, Start};
pub(crate) use configs::{ConfigCommand, ConfigSet, Configs};
pub(crate) use env::{Env, EnvCommand, MaskCommand, OfRelease, Set as EnvSet};
pub(crate) use flags::{AppFlag, IdFlag, RackFlag, WatchFlag};
pub(crate) use keys::{Create as KeysCreate, Keys, KeysCommand};
pub(crate) use parse::{Outcome, parse};
pub(crate) use platform::{
    Certs, CertsCommand, Instances, InstancesCommand, Proxy, Registries, RegistriesCommand, Ssl, SslCommand, TlsFlag,
};
pub(crate) use processes::{
    Balancers, Cp, Exec, LogFlags, Logs, Ps, PsCommand, Resources, ResourcesCommand, Restart, Run, Scale, Services, ServicesCommand, Size,
    Test,
};
pub(crate) use rack::{
    Access, AccessCommand, AccessKey, Install, Rack, RackCommand, RackParamsCommand, RackPassword, RackScale, RuntimeCommand, Uninstall,
};
pub(crate) use releases::{CreateFrom, Releases, ReleasesCommand};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "convox", disable_version_flag = true, disable_help_subcommand = true, args_override_self = true)]
pub(crate) struct Cli {
    /// print one JSON document instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Every command, in the order of the alphabet.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// list accounts that are logged in
    #[command(after_help = "EXAMPLES\n  convox accounts\n  convox accounts move secretservice")]
    Accounts(Accounts),
    /// query the rack api
    #[command(subcommand)]
    Api(Api),
    /// list apps
    #[command(after_help = "EXAMPLES\n  convox apps\n  convox apps -r acme/staging --json")]
    Apps(Apps),
    /// list balancers for an app
    #[command(after_help = "EXAMPLES\n  convox balancers -a shop")]
    Balancers(Balancers),
    /// create a build
    #[command(after_help = "EXAMPLES\n  convox build -a shop\n  RELEASE=$(convox build -a shop --id)")]
    Build(Build),
    /// list builds
    #[command(after_help = "EXAMPLES\n  convox builds -a shop --limit 20")]
    Builds(Builds),
    /// list certificates
    #[command(after_help = "EXAMPLES\n  convox certs")]
    Certs(Certs),
    /// print a shell's completion script
    #[command(after_help = "EXAMPLES\n  convox completion bash > ~/.local/share/bash-completion/completions/convox")]
    Completion(Completion),
    /// texts that an app keeps by name (v3)
    #[command(subcommand)]
    Config(ConfigCommand),
    /// list the configs of an app
    #[command(after_help = "EXAMPLES\n  convox configs -a shop")]
    Configs(Configs),
    /// copy files
    #[command(
        after_help = "EXAMPLES\n  convox cp web-1a2b3c:/var/log/app.log . -a shop\n  convox cp ./fixtures web-1a2b3c:/tmp/fixtures -a shop"
    )]
    Cp(Cp),
    /// create and promote a build
    #[command(after_help = "EXAMPLES\n  convox deploy -a shop --wait\n  convox deploy ./web -a shop -r acme/staging")]
    Deploy(Deploy),
    /// find out what keeps commands from working, and what to do: exit code 0 when nothing does, 1 for a fault, 2 for a warning alone
    #[command(after_help = "EXAMPLES\n  convox doctor\n  convox doctor -r acme/production --json")]
    Doctor(RackFlag),
    /// list env vars
    #[command(after_help = "EXAMPLES\n  convox env -a shop\n  convox env -a shop --json")]
    Env(Env),
    /// execute a command in a running process
    #[command(after_help = "EXAMPLES\n  convox exec web-1a2b3c bash -a shop\n  convox exec web-1a2b3c -a shop -- ls -la")]
    Exec(Exec),
    /// list commands, or say more about one
    #[command(after_help = "EXAMPLES\n  convox help\n  convox help env set")]
    Help(Words),
    /// list instances
    #[command(after_help = "EXAMPLES\n  convox instances")]
    Instances(Instances),
    /// list your API keys
    #[command(after_help = "EXAMPLES\n  convox keys\n  convox keys --org acme")]
    Keys(Keys),
    /// authenticate with a Console or a Rack
    #[command(
        after_help = "EXAMPLES\n  convox login console.example.com\n  convox login console.example.com --device\n  convox login console.example.com --account work --store secretservice\n  convox login console.example.com --password-stdin < key\n  convox login 10.0.0.5:5443 --fingerprint sha256:..."
    )]
    Login(Login),
    /// forget the saved key of a host, and end it there if it was made for this machine
    #[command(after_help = "EXAMPLES\n  convox logout\n  convox logout console.example.com --account work")]
    Logout(Logout),
    /// get logs for an app
    #[command(
        after_help = "EXAMPLES\n  convox logs -a shop --since 1h --filter ERROR\n  convox logs -a shop --service web --tail 100 --no-follow"
    )]
    Logs(Logs),
    /// write the manual pages
    #[command(after_help = "EXAMPLES\n  convox man > convox.1\n  convox man /usr/local/share/man/man1")]
    Man(Man),
    /// proxy a connection inside the rack
    #[command(after_help = "EXAMPLES\n  convox proxy 10.0.1.5:5432\n  convox proxy 15432:database.internal:5432 -r acme/staging")]
    Proxy(Proxy),
    /// list app processes
    #[command(after_help = "EXAMPLES\n  convox ps -a shop\n  convox ps -a shop --service web --watch 5")]
    Ps(Ps),
    /// get information about the rack
    #[command(after_help = "EXAMPLES\n  convox rack\n  convox rack -r acme/staging")]
    Rack(Rack),
    /// list available racks
    #[command(after_help = "EXAMPLES\n  convox racks\n  convox racks --json")]
    Racks(WatchFlag),
    /// list private registries
    #[command(after_help = "EXAMPLES\n  convox registries")]
    Registries(Registries),
    /// list releases for an app
    #[command(after_help = "EXAMPLES\n  convox releases -a shop --limit 20")]
    Releases(Releases),
    /// list resources
    #[command(after_help = "EXAMPLES\n  convox resources -a shop")]
    Resources(Resources),
    /// restart an app
    #[command(after_help = "EXAMPLES\n  convox restart -a shop")]
    Restart(Restart),
    /// execute a command in a new process
    #[command(
        after_help = "EXAMPLES\n  convox run web sh -a shop\n  convox run web -a shop \"rake db:migrate\"\n  convox run web -a shop --detach -- ./job --all"
    )]
    Run(Run),
    /// scale a service
    #[command(
        after_help = "EXAMPLES\n  convox scale -a shop\n  convox scale web -a shop --watch 5\n  convox scale web --count 3 -a shop --wait"
    )]
    Scale(Scale),
    /// list services for an app
    #[command(after_help = "EXAMPLES\n  convox services -a shop")]
    Services(Services),
    /// list certificate associates for an app
    #[command(after_help = "EXAMPLES\n  convox ssl -a shop")]
    Ssl(Ssl),
    /// run an app on a rack of this machine, with its logs
    #[command(after_help = "EXAMPLES\n  convox start -r local\n  convox start web worker -a shop -r local")]
    Start(Start),
    /// switch current rack
    #[command(after_help = "EXAMPLES\n  convox switch acme/production\n  convox switch --account work\n  convox switch")]
    Switch(Switch),
    /// run the tests that convox.yml names
    #[command(after_help = "EXAMPLES\n  convox test -a shop\n  convox test -a shop --release RABCDEFGHIJ")]
    Test(Test),
    /// show or change which certificate of a host is trusted
    #[command(
        after_help = "EXAMPLES\n  convox trust 10.0.0.5:5443\n  convox trust 10.0.0.5:5443 --fingerprint sha256:...\n  convox trust 10.0.0.5:5443 --forget"
    )]
    Trust(Trust),
    /// display version information
    #[command(after_help = "EXAMPLES\n  convox version")]
    Version(RackFlag),
    /// say who you are, where requests go, and which setting decided that
    #[command(after_help = "EXAMPLES\n  convox whoami\n  convox whoami --json")]
    Whoami(RackFlag),
}

/// `api ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Api {
    /// query the rack api
    #[command(after_help = "EXAMPLES\n  convox api get /apps\n  convox api get '/apps/shop/releases?limit=1'")]
    Get {
        #[arg(value_name = "path")]
        path: String,
        #[command(flatten)]
        rack: RackFlag,
    },
}

/// Words that name a command.
#[derive(Debug, clap::Args)]
pub(crate) struct Words {
    #[arg(value_name = "command", num_args = 0..)]
    pub(crate) words: Vec<String>,
}
