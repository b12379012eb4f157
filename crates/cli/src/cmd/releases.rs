//! `releases ...`, and promoting, which deploy and env do too.

use convox_wire::options::{ReleaseCreateOptions, ReleasePromoteOptions};
use serde::Serialize;

use super::{mask, wait};
use crate::Ctx;
use crate::ago::ago;
use crate::args::{CreateFrom, Releases, ReleasesCommand};
use crate::error::Failure;
use crate::output::{Printer, Style};
use crate::reach::Reached;
use crate::table::{Info, Table};

/// What a change that makes or promotes a release gives back as JSON.
#[derive(Serialize)]
pub(super) struct Made<'a> {
    pub(super) app: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) build: Option<&'a str>,
    pub(super) release: &'a str,
    pub(super) promoted: bool,
    /// Where it happened.
    pub(super) target: String,
}

pub(super) async fn run(ctx: &Ctx, args: Releases) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    match &args.command {
        None => ctx.watched(args.watch, async || list(ctx, &rack, &app, args.limit).await).await?,
        Some(ReleasesCommand::CreateFrom(from)) => create_from(ctx, &rack, &app, from).await?,
        Some(ReleasesCommand::Info { release, reveal }) => info(ctx, &rack, &app, release, *reveal).await?,
        Some(ReleasesCommand::Manifest { release }) => manifest(ctx, &rack, &app, release).await?,
        Some(ReleasesCommand::Promote { release, force, wait }) => {
            promote_given(ctx, &rack, &app, release.as_deref(), *force, wait.wait).await?;
        }
        Some(ReleasesCommand::Rollback { release, force, id, wait }) => {
            let out = ctx.out.with_id(id.id);
            ctx.announce(&rack);
            rollback(&out, &rack, &app, release, *force, wait.wait).await?;
        }
    }
    Ok(0)
}

async fn list(ctx: &Ctx, rack: &Reached, app: &str, limit: Option<i64>) -> Result<(), Failure> {
    let active = rack.client.app(app).await?.release;
    let releases = rack.client.releases(app, limit).await?;
    if ctx.out.is_json() {
        #[derive(Serialize)]
        struct Row<'a> {
            #[serde(flatten)]
            release: &'a convox_wire::api::Release,
            active: bool,
        }
        let rows: Vec<Row> = releases.iter().map(|release| Row { active: release.id == active, release }).collect();
        return ctx.out.json(&rows);
    }
    let mut table = Table::new(&["ID", "STATUS", "BUILD", "CREATED", "DESCRIPTION"]);
    for release in &releases {
        let status = if release.id == active { "active" } else { "" };
        table.row([&release.id, status, &release.build, &ago(release.created), &release.description]);
    }
    ctx.out.table(&table)
}

async fn info(ctx: &Ctx, rack: &Reached, app: &str, id: &str, reveal: bool) -> Result<(), Failure> {
    let release = rack.client.release(app, id).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&release);
    }
    let mut info = Info::new();
    let created = release.created.timestamp().map_or_else(
        || "0001-01-01T00:00:00Z".to_owned(),
        // To the second, as the originals show it.
        |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    );
    info.add("Id", &release.id).add("Build", &release.build).add("Created", created);
    let env = if reveal { release.env } else { mask::applied_to_text(ctx, rack, app, release.env).await };
    info.add("Description", &release.description).add("Env", env);
    ctx.out.info(&info)
}

/// The build of one release with the environment of another.
async fn create_from(ctx: &Ctx, rack: &Reached, app: &str, args: &CreateFrom) -> Result<(), Failure> {
    let one_of = |given: Option<&str>, is_active: bool, flags: &str| match (given, is_active) {
        (Some(id), false) => Ok(Some(id.to_owned())),
        (None, true) => Ok(None),
        _ => Err(Failure::new(format!("must specify either {flags}"))),
    };
    let build_from = one_of(args.build_from.as_deref(), args.use_active_release_build, "--build-from or --use-active-release-build")?;
    let env_from = one_of(args.env_from.as_deref(), args.use_active_release_env, "--env-from or --use-active-release-env")?;
    let active = rack.client.app(app).await?.release;
    let id = |given: Option<String>| {
        given.or_else(|| Some(active.clone())).filter(|id| !id.is_empty()).ok_or_else(|| Failure::new("the app has no active release"))
    };
    let of_build = rack.client.release(app, &id(build_from)?).await?;
    let of_env = rack.client.release(app, &id(env_from)?).await?;
    let out = ctx.out;
    out.progress(&format!("Using build from release: {}\nUsing env from release: {}\n", of_build.id, of_env.id))?;
    let options = ReleaseCreateOptions {
        description: Some(format!("Created from build release: {} and environment release: {}", of_build.id, of_env.id)),
        build: Some(of_build.build),
        env: Some(of_env.env),
        ..ReleaseCreateOptions::default()
    };
    let made = rack.client.release_create(app, &options).await?;
    out.progress(&format!("Created release: {}\n", out.paint(Style::Release, &made.id)))?;
    if args.promote {
        ctx.announce(rack);
        promote(&out, rack, app, &made.id, false, args.wait.wait).await?;
    } else {
        out.ok()?;
    }
    out.result(&made.id, &Made { app, build: None, release: &made.id, promoted: args.promote, target: rack.target.describe() })
}

async fn manifest(ctx: &Ctx, rack: &Reached, app: &str, id: &str) -> Result<(), Failure> {
    let release = rack.client.release(app, id).await?;
    if release.build.is_empty() {
        return Err(Failure::new(format!("no build for release: {id}")));
    }
    let build = rack.client.build(app, &release.build).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&serde_json::json!({"release": id, "build": build.id, "manifest": build.manifest}));
    }
    ctx.out.raw(format!("{}\n", build.manifest.trim()).as_bytes())
}

async fn promote_given(ctx: &Ctx, rack: &Reached, app: &str, id: Option<&str>, force: bool, is_waited: bool) -> Result<(), Failure> {
    let id = match id.filter(|id| !id.is_empty()) {
        Some(id) => id.to_owned(),
        None => {
            let latest = rack.client.releases(app, Some(1)).await?;
            latest.first().map(|release| release.id.clone()).ok_or_else(|| Failure::new("no releases to promote"))?
        }
    };
    ctx.announce(rack);
    promote(&ctx.out, rack, app, &id, force, is_waited).await?;
    ctx.out.result(&id, &Made { app, build: None, release: &id, promoted: true, target: rack.target.describe() })
}

/// Waits until the app is ready, promotes, and if asked waits until the release is active.
pub(super) async fn promote(out: &Printer, rack: &Reached, app: &str, id: &str, force: bool, is_waited: bool) -> Result<(), Failure> {
    if id.is_empty() {
        return Err(Failure::new("no release to promote"));
    }
    if !force && rack.client.app(app).await?.status != "running" {
        out.start("Waiting for app to be ready")?;
        wait::app_running(&rack.client, app, false).await?;
        out.ok()?;
    }
    out.start(&format!("Promoting {}", out.paint(Style::Release, id)))?;
    let options = ReleasePromoteOptions { force: force.then_some(true), ..ReleasePromoteOptions::default() };
    rack.client.release_promote(app, id, &options).await?;
    if is_waited {
        settled(out, rack, app, id).await?;
    }
    out.ok()
}

/// Waits with logs; the release must then be the active one.
async fn settled(out: &Printer, rack: &Reached, app: &str, id: &str) -> Result<(), Failure> {
    out.progress("\n")?;
    wait::app_with_logs(&rack.client, out, app, false).await?;
    if rack.client.app(app).await?.release != id {
        return Err(Failure::new("rollback")
            .hint(format!("release {id} did not become active; see why: convox logs -a {app} --no-follow --since 10m")));
    }
    Ok(())
}

async fn rollback(out: &Printer, rack: &Reached, app: &str, id: &str, force: bool, is_waited: bool) -> Result<(), Failure> {
    out.start(&format!("Rolling back to {}", out.paint(Style::Release, id)))?;
    let old = rack.client.release(app, id).await?;
    let options = ReleaseCreateOptions { build: Some(old.build), env: Some(old.env), ..ReleaseCreateOptions::default() };
    let new = rack.client.release_create(app, &options).await?;
    out.ok_with(&new.id)?;
    out.start(&format!("Promoting {}", out.paint(Style::Release, &new.id)))?;
    let options = ReleasePromoteOptions { force: force.then_some(true), ..ReleasePromoteOptions::default() };
    rack.client.release_promote(app, &new.id, &options).await?;
    if is_waited {
        settled(out, rack, app, &new.id).await?;
    }
    out.ok()?;
    out.result(&new.id, &Made { app, build: None, release: &new.id, promoted: true, target: rack.target.describe() })
}
