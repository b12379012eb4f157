//! `start`: an app on a Rack of this machine, from its source to its logs, in one command.

use convox_wire::options::AppCreateOptions;

use super::releases::promote;
use super::{builds, logs, wait};
use crate::Ctx;
use crate::args::{AppFlag, BuildOptions, IdFlag, LogFlags, RackFlag, Start};
use crate::error::Failure;
use crate::output::Style;
use crate::reach::Reached;

pub(super) async fn run(ctx: &Ctx, args: Start) -> Result<u8, Failure> {
    let filter = match args.services.as_slice() {
        [] => None,
        [one] => Some(format!("service/{one}/")),
        _ => return Err(Failure::new("name one service, or none for all of them").hint("convox start web")),
    };
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    // What is meant for a machine of one's own must not land where others work.
    let provider = rack.client.system().await?.provider;
    if provider != "local" {
        return Err(Failure::new(format!("{} is a rack on {provider}; start runs apps on a rack of this machine", rack.target.describe()))
            .hint("convox rack install local, then convox start -r local; elsewhere: convox deploy"));
    }
    prepared(ctx, &rack, &app).await?;
    let release = if args.no_build { newest(&rack, &app).await? } else { built(ctx, &rack, &app, &args).await? };
    promote(&ctx.out, &rack, &app, &release, false, true).await?;
    for service in rack.client.services(&app).await?.iter().filter(|service| !service.domain.is_empty()) {
        ctx.out.talk(&format!("{} answers at {}", service.name, service.domain));
    }
    ctx.out.talk("The log follows; Ctrl-C ends it, and the app goes on.");
    let flags = LogFlags { filter, no_follow: false, since: None };
    logs::show(&ctx.out, rack.client.app_logs(&app, &logs::options(&flags)).await?).await?;
    Ok(0)
}

/// The app is there, if need be as of now.
async fn prepared(ctx: &Ctx, rack: &Reached, app: &str) -> Result<(), Failure> {
    match rack.client.app(app).await {
        Ok(_) => return Ok(()),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    ctx.out.start(&format!("Creating {}", ctx.out.paint(Style::App, app)))?;
    let made = rack.client.app_create(app, &AppCreateOptions::default()).await?;
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
        wildcard_domain: false,
        id: IdFlag::default(),
        app: AppFlag::default(),
        rack: RackFlag::default(),
    };
    Ok(builds::make(&ctx.out, rack, app, &options, false).await?.release)
}
