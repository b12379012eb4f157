//! What each command does. One file per group; no clap, no HTTP, no files of settings by hand.

mod accounts;
mod api;
mod apps;
mod builds;
mod bundle;
mod certs;
mod configs;
mod doctor;
mod env;
mod exec;
mod files;
mod instances;
mod keys;
mod login;
mod logs;
mod mask;
mod meta;
mod mv;
mod proxy;
mod ps;
mod rack;
mod rack_keys;
mod racks;
mod registries;
mod releases;
mod resources;
mod scale;
mod services;
mod start;
mod switch;
mod test;
mod trust;
mod wait;
mod watch;
mod whoami;

mod local;

use crate::Ctx;
use crate::args::{Api, AppFlag, Command};
use crate::error::Failure;
use crate::target;

/// Runs a command; gives the exit code.
pub(crate) async fn run(ctx: &Ctx, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Accounts(args) => accounts::run(ctx, args),
        Command::Api(Api::Get { path, rack }) => api::get(ctx, &path, &rack).await,
        Command::Apps(args) => apps::run(ctx, args).await,
        Command::Build(args) => builds::build(ctx, args).await,
        Command::Builds(args) => builds::run(ctx, args).await,
        Command::Certs(args) => certs::run(ctx, args).await,
        Command::Completion(args) => meta::completion(ctx, &args),
        Command::Config(args) => configs::run(ctx, args).await,
        Command::Configs(args) => configs::list(ctx, args).await,
        Command::Cp(args) => files::run(ctx, args).await,
        Command::Deploy(args) => builds::deploy(ctx, args).await,
        Command::Doctor(rack) => doctor::run(ctx, &rack).await,
        Command::Env(args) => env::run(ctx, args).await,
        Command::Exec(args) => exec::exec(ctx, args).await,
        Command::Help(words) => meta::help(ctx, &words.words),
        Command::Instances(args) => instances::run(ctx, args).await,
        Command::Keys(args) => keys::run(ctx, args).await,
        Command::Login(args) => login::login(ctx, args).await,
        Command::Logout(args) => login::logout(ctx, &args).await,
        Command::Logs(args) => logs::app(ctx, args).await,
        Command::Man(words) => meta::man(ctx, &words),
        Command::Proxy(args) => proxy::run(ctx, args).await,
        Command::Ps(args) => ps::run(ctx, args).await,
        Command::Rack(args) => rack::run(ctx, args).await,
        Command::Racks(watch) => racks::list(ctx, watch).await,
        Command::Registries(args) => registries::run(ctx, args).await,
        Command::Releases(args) => releases::run(ctx, args).await,
        Command::Resources(args) => resources::run(ctx, args).await,
        Command::Restart(args) => services::restart_all(ctx, args).await,
        Command::Run(args) => exec::run(ctx, args).await,
        Command::Scale(args) => scale::run(ctx, args).await,
        Command::Balancers(args) => services::balancers(ctx, args).await,
        Command::Services(args) => services::run(ctx, args).await,
        Command::Ssl(args) => certs::ssl(ctx, args).await,
        Command::Start(args) => start::run(ctx, args).await,
        Command::Switch(args) => switch::run(ctx, &args).await,
        Command::Test(args) => test::run(ctx, args).await,
        Command::Trust(args) => trust::run(ctx, args).await,
        Command::Version(rack) => meta::version(ctx, &rack).await,
        Command::Whoami(rack) => whoami::run(ctx, &rack).await,
    }
}

impl Ctx {
    /// The app that a command means.
    fn app(&self, flag: &AppFlag) -> Result<String, Failure> {
        target::app(&self.env, flag.app.as_deref())
    }

    /// The same, for commands that take `[app]` too.
    fn app_or(&self, argument: Option<&str>, flag: &AppFlag) -> Result<String, Failure> {
        target::app(&self.env, argument.filter(|name| !name.trim().is_empty()).or(flag.app.as_deref()))
    }
}

/// `Key=Value` words as a map; the originals' error for a word without `=`.
fn pairs(words: &[String]) -> Result<std::collections::BTreeMap<String, String>, Failure> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::new(format!("Key=Value expected: {word}"))),
        })
        .collect()
}
