//! `apps ...`

use convox_wire::options::{AppCreateOptions, AppUpdateOptions, ReleaseCreateOptions};

use super::{bundle, pairs, wait};
use crate::Ctx;
use crate::args::{AppFlag, AppName, Apps, AppsCommand, AppsCreate, AppsParamsCommand};
use crate::error::Failure;
use crate::output::Style;
use crate::reach::Reached;
use crate::table::{Info, Table};

pub(super) async fn run(ctx: &Ctx, args: Apps) -> Result<u8, Failure> {
    let name = |name: &AppName| ctx.app_or(name.app_name.as_deref(), &args.app);
    match &args.command {
        None => {
            let rack = ctx.rack(&args.rack).await?;
            ctx.watched(args.watch, async || list(ctx, &rack).await).await?;
        }
        Some(AppsCommand::Cancel { name: app, wait }) => {
            let app = name(app)?;
            cancel(ctx, &ctx.rack(&args.rack).await?, &app, wait.wait).await?;
        }
        Some(AppsCommand::Create(create_args)) => {
            let app = ctx.app_or(create_args.app_name.as_deref(), &args.app)?;
            create(ctx, &ctx.rack(&args.rack).await?, &app, create_args).await?;
        }
        Some(AppsCommand::Delete { app_name, wait }) => delete(ctx, &ctx.rack(&args.rack).await?, app_name, wait.wait).await?,
        Some(AppsCommand::Export { name: app, file }) => {
            let app = name(app)?;
            bundle::export(ctx, &ctx.rack(&args.rack).await?, &app, file.as_deref()).await?;
        }
        Some(AppsCommand::Import { name: app, file }) => {
            let app = name(app)?;
            bundle::import(ctx, &ctx.rack(&args.rack).await?, &app, file.as_deref()).await?;
        }
        Some(AppsCommand::Info(app)) => {
            let app = name(app)?;
            info(ctx, &ctx.rack(&args.rack).await?, &app).await?;
        }
        Some(AppsCommand::Lock(app)) => lock(ctx, &ctx.rack(&args.rack).await?, &name(app)?, true).await?,
        Some(AppsCommand::Unlock(app)) => lock(ctx, &ctx.rack(&args.rack).await?, &name(app)?, false).await?,
        Some(AppsCommand::Params { name: app, command: None }) => params(ctx, &ctx.rack(&args.rack).await?, &name(app)?).await?,
        Some(AppsCommand::Params { command: Some(AppsParamsCommand::Set { params, wait }), .. }) => {
            params_set(ctx, &args.app, &ctx.rack(&args.rack).await?, params, wait.wait).await?;
        }
        Some(AppsCommand::Wait(app)) => {
            let app = name(app)?;
            wait_for(ctx, &ctx.rack(&args.rack).await?, &app).await?;
        }
    }
    Ok(0)
}

async fn list(ctx: &Ctx, rack: &Reached) -> Result<(), Failure> {
    let apps = rack.client.apps().await?;
    if ctx.out.is_json() {
        return ctx.out.json(&apps);
    }
    let mut table = Table::new(&["APP", "STATUS", "RELEASE"]);
    for app in &apps {
        table.row([&app.name, &app.status, &app.release]);
    }
    ctx.out.table(&table)
}

async fn cancel(ctx: &Ctx, rack: &Reached, app: &str, is_waited: bool) -> Result<(), Failure> {
    ctx.out.progress(&format!("Cancelling deployment of {}...\n", ctx.out.paint(Style::App, app)))?;
    rack.client.app_cancel(app).await?;
    ctx.out.progress("Rewriting last active release... \n")?;
    let failed = |failure: Failure| failure.while_doing("failed to fetch last active release");
    let latest = rack.client.releases(app, Some(1)).await.map_err(|error| failed(error.into()))?;
    // The originals fall over an app without releases.
    let latest = latest.first().ok_or_else(|| failed(Failure::new("the app has no release")))?;
    let release = rack.client.release(app, &latest.id).await.map_err(|error| failed(error.into()))?;
    let options = ReleaseCreateOptions {
        build: Some(release.build),
        description: Some(release.description),
        env: Some(release.env),
        ..ReleaseCreateOptions::default()
    };
    let made = rack.client.release_create(app, &options).await?;
    if is_waited {
        ctx.out.progress("\n")?;
        wait::app_with_logs(&rack.client, &ctx.out, app, true).await?;
    }
    ctx.out.ok()?;
    ctx.out.result(&made.id, &serde_json::json!({"app": app, "release": made.id}))
}

async fn create(ctx: &Ctx, rack: &Reached, app: &str, args: &AppsCreate) -> Result<(), Failure> {
    let options = AppCreateOptions { generation: args.generation.clone(), timeout: args.timeout };
    ctx.out.start(&format!("Creating {}", ctx.out.paint(Style::App, app)))?;
    let mut made = rack.client.app_create(app, &options).await?;
    if args.wait.wait && made.status != "running" {
        wait::app_running(&rack.client, app, false).await?;
        made = rack.client.app(app).await?;
    }
    ctx.out.ok()?;
    ctx.out.result(app, &made)
}

async fn delete(ctx: &Ctx, rack: &Reached, app: &str, is_waited: bool) -> Result<(), Failure> {
    ctx.announce(rack);
    ctx.out.start(&format!("Deleting {}", ctx.out.paint(Style::App, app)))?;
    rack.client.app_delete(app).await?;
    if is_waited {
        wait::app_deleted(&rack.client, app).await?;
    }
    ctx.out.ok()?;
    ctx.out.result(app, &serde_json::json!({"app": app, "deleted": true}))
}

async fn info(ctx: &Ctx, rack: &Reached, app: &str) -> Result<(), Failure> {
    let app = rack.client.app(app).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&app);
    }
    let mut info = Info::new();
    info.add("Name", &app.name).add("Status", &app.status).add("Generation", &app.generation);
    info.add("Locked", app.locked.to_string()).add("Release", &app.release);
    if !app.router.is_empty() {
        info.add("Router", &app.router);
    }
    ctx.out.info(&info)
}

async fn lock(ctx: &Ctx, rack: &Reached, app: &str, locked: bool) -> Result<(), Failure> {
    let verb = if locked { "Locking" } else { "Unlocking" };
    ctx.out.start(&format!("{verb} {}", ctx.out.paint(Style::App, app)))?;
    rack.client.app_update(app, &AppUpdateOptions { lock: Some(locked), ..AppUpdateOptions::default() }).await?;
    ctx.out.ok()?;
    ctx.out.result(app, &serde_json::json!({"app": app, "locked": locked}))
}

async fn params(ctx: &Ctx, rack: &Reached, app: &str) -> Result<(), Failure> {
    let app = rack.client.app(app).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&app.parameters);
    }
    let mut info = Info::new();
    for (key, value) in &app.parameters {
        info.add(key, value);
    }
    ctx.out.info(&info)
}

async fn params_set(ctx: &Ctx, app: &AppFlag, rack: &Reached, words: &[String], is_waited: bool) -> Result<(), Failure> {
    let app = ctx.app(app)?;
    let parameters = pairs(words)?;
    ctx.out.start("Updating parameters")?;
    let options = AppUpdateOptions { parameters: Some(parameters.clone()), ..AppUpdateOptions::default() };
    rack.client.app_update(&app, &options).await?;
    if is_waited {
        ctx.out.progress("\n")?;
        wait::app_with_logs(&rack.client, &ctx.out, &app, false).await?;
        let now = rack.client.app(&app).await?.parameters;
        // An empty value takes one away.
        if parameters.iter().any(|(key, value)| now.get(key).map_or("", String::as_str) != value) {
            return Err(Failure::new("rollback").hint(format!("see why: convox logs -a {app} --no-follow --since 10m")));
        }
    }
    ctx.out.ok()?;
    ctx.out.result(&app, &serde_json::json!({"app": app, "parameters": parameters}))
}

async fn wait_for(ctx: &Ctx, rack: &Reached, app: &str) -> Result<(), Failure> {
    ctx.out.start("Waiting for app")?;
    ctx.out.progress("\n")?;
    wait::app_with_logs(&rack.client, &ctx.out, app, false).await?;
    ctx.out.ok()?;
    if ctx.out.is_json() {
        return ctx.out.json(&rack.client.app(app).await?);
    }
    Ok(())
}
