//! `start`: an app on a Rack of this machine, from its source to its logs, in one command.

use convox_wire::options::AppCreateOptions;

use super::releases::promote;
use super::{builds, local, logs, wait};
use crate::Ctx;
use crate::args::{AppFlag, BuildOptions, IdFlag, LogFlags, RackFlag, Start};
use crate::error::Failure;
use crate::output::Style;
use crate::reach::Reached;
use crate::target::{self, Source, Target};

pub(super) async fn run(ctx: &Ctx, args: Start) -> Result<u8, Failure> {
    if args.generation.as_deref() == Some("1") || args.shift.is_some() {
        return Err(Failure::new("apps of generation 1 are not supported")
            .hint("leave --shift and --generation 1 out; apps are described in convox.yml"));
    }
    builds::refuse_external(args.external)?;
    let app = ctx.app(&args.app)?;
    let rack = here(ctx, &args.rack).await?;
    ctx.out.talk(&format!("Starting {app} on {}", rack.target.describe()));
    prepared(ctx, &rack, &app, args.generation.as_deref()).await?;
    let release = if args.no_build { newest(&rack, &app).await? } else { built(ctx, &rack, &app, &args).await? };
    promote(&ctx.out, &rack, &app, &release, false, true).await?;
    let services = rack.client.services(&app).await?;
    for service in services.iter().filter(|service| !service.domain.is_empty()) {
        ctx.out.talk(&format!("{} answers at {}", service.name, service.domain));
    }
    if let Some(unknown) = args.services.iter().find(|name| !services.iter().any(|service| service.name == **name)) {
        let known: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
        return Err(Failure::new(format!("{app} has no service {unknown}, so there is no log to show"))
            .hint(format!("the app runs; its services: {}", known.join(", "))));
    }
    ctx.out.talk("The log follows; Ctrl-C ends it, and the app goes on.");
    let socket = rack.client.app_logs(&app, &logs::options(&LogFlags::default())).await?;
    logs::show_of(&ctx.out, socket, logs::Services::new(&args.services)).await?;
    Ok(0)
}

/// The Rack, if it is one of this machine that is spoken to directly: what is meant for a machine of one's own must not land where others work.
/// Every Rack of ours says that its provider is `local`, wherever it stands, so that its word alone proves nothing.
async fn here(ctx: &Ctx, flag: &RackFlag) -> Result<Reached, Failure> {
    let target = target::resolve(&ctx.env, &ctx.settings, flag.rack.as_deref())?;
    let elsewhere = |target: &Target, why: &str| {
        Failure::new(format!("{} {why}; start runs apps on a rack of this machine only", target.describe()))
            .hint("convox rack install local, then convox start -r local; elsewhere: convox deploy")
    };
    let name = target.rack.as_ref().map(|rack| rack.value.as_str());
    let is_installed = target.host.source == Source::Machine("self-managed")
        && name.is_some_and(|name| local::stands_at(ctx, name, target.endpoint.authority()));
    if !is_installed && !convox_client::is_loopback(target.endpoint.host()) {
        return Err(elsewhere(&target, "is not on this machine"));
    }
    let rack = ctx.reach(target).await?;
    // A Console of this machine leads to Racks anywhere.
    match rack.client.racks().await {
        Ok(_) => return Err(elsewhere(&rack.target, "is behind a Console")),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let provider = rack.client.system().await?.provider;
    if provider != "local" {
        return Err(elsewhere(&rack.target, &format!("is a rack on {provider}")));
    }
    Ok(rack)
}

/// The app is there, if need be as of now.
async fn prepared(ctx: &Ctx, rack: &Reached, app: &str, generation: Option<&str>) -> Result<(), Failure> {
    match rack.client.app(app).await {
        Ok(_) => return Ok(()),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    ctx.out.start(&format!("Creating {}", ctx.out.paint(Style::App, app)))?;
    let made =
        rack.client.app_create(app, &AppCreateOptions { generation: generation.map(str::to_owned), ..AppCreateOptions::default() }).await?;
    if made.status != "running" {
        wait::app_running(&rack.client, app, false).await?;
    }
    ctx.out.ok()
}

async fn newest(rack: &Reached, app: &str) -> Result<String, Failure> {
    let newest = rack.client.releases(app, Some(1)).await?;
    newest
        .first()
        .map(|release| release.id.clone())
        .ok_or_else(|| Failure::new(format!("{app} has no release yet")).hint("leave --no-build out"))
}

async fn built(ctx: &Ctx, rack: &Reached, app: &str, args: &Start) -> Result<String, Failure> {
    let options = BuildOptions {
        dir: None,
        build_args: Vec::new(),
        description: None,
        manifest: args.manifest.clone(),
        no_cache: args.no_cache,
        external: false,
        wildcard_domain: false,
        id: IdFlag::default(),
        app: AppFlag::default(),
        rack: RackFlag::default(),
    };
    Ok(builds::make(&ctx.out, rack, app, &options, false).await?.release)
}
