//! Releases: a build with an environment. A list carries no environments; one release does.

use std::sync::Arc;
use std::time::Duration;

use convox_wire::api::Release;
use convox_wire::options::{ReleaseCreateOptions, ReleaseListOptions, ReleasePromoteOptions};
use convox_wire::time::Time;
use convox_wire::{env, ids};
use http::StatusCode;

use super::{Answer, ApiError, Call, apps, builds};
use crate::rack::Rack;
use crate::scheduler::PromoteOptions;
use crate::state::ReleaseRow;

/// How many a list has when nothing is said.
pub(super) const DEFAULT_LIMIT: i64 = 10;
const MOST: i64 = 1000;

pub(super) fn limit(asked: Option<i64>) -> i64 {
    asked.unwrap_or(DEFAULT_LIMIT).clamp(1, MOST)
}

fn shape(row: ReleaseRow) -> Release {
    Release {
        id: row.id,
        app: row.app,
        build: row.build,
        env: row.env,
        manifest: row.manifest,
        description: row.description,
        created: Time::from_millis(row.created_ms),
    }
}

async fn find(rack: &Rack, app: &str, id: &str) -> Result<ReleaseRow, ApiError> {
    rack.state.release(app, id).await?.ok_or_else(|| ApiError::not_found("release", id))
}

/// Starts from the newest release (or the named parent) and replaces what is given.
pub(super) async fn create(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::usable(rack, call).await?;
    let options: ReleaseCreateOptions = call.options()?;
    let base = match options.parent_release.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => find(rack, &app.name, id).await?,
        None => rack.state.newest_release(&app.name).await?.unwrap_or_default(),
    };
    let mut row = ReleaseRow {
        id: new_id(),
        app: app.name.clone(),
        build: base.build.clone(),
        env: base.env.clone(),
        manifest: base.manifest.clone(),
        ..ReleaseRow::default()
    };
    if let Some(id) = options.build.filter(|id| !id.is_empty()) {
        let build = rack.state.build(&app.name, &id).await?.ok_or_else(|| ApiError::not_found("build", &id))?;
        builds::check_kept(rack, &app.name, &build.id).await?;
        row.build = build.id;
        row.manifest = build.manifest;
        row.description = build.description;
    }
    if let Some(text) = options.env {
        let (old, new) = (env::parse(&base.env), env::parse(&text));
        if text.contains('\0') {
            return Err(ApiError::bad("a value of the environment holds a zero byte, which no program can receive"));
        }
        row.env = env::format(&new);
        row.description = env::describe_change(&old, &new);
    }
    if let Some(description) = options.description.filter(|text| !text.is_empty()) {
        row.description = description;
    }
    Ok(Answer::json(&shape(rack.state.insert_release(&row).await?)))
}

pub(super) fn new_id() -> String {
    ids::release_id(convox_seal::random_bytes())
}

pub(super) async fn get(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    Ok(Answer::json(&shape(find(rack, &app.name, call.var("id")).await?)))
}

pub(super) async fn list(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let options: ReleaseListOptions = call.options()?;
    let rows = rack.state.releases(&app.name, limit(options.limit)).await?;
    Ok(Answer::json(&rows.into_iter().map(shape).collect::<Vec<_>>()))
}

/// Notes the promotion durably, answers, and carries it out. A crash in between resumes it.
pub(super) async fn promote(rack: &Arc<Rack>, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let options: ReleasePromoteOptions = call.options()?;
    let force = options.force.unwrap_or(false);
    let release = find(rack, &app.name, call.var("id")).await?;
    if release.manifest.is_empty() {
        return Err(ApiError::bad("can not promote a release with an empty manifest"));
    }
    if let Some(active) = rack.state.release(&app.name, &app.release).await?
        && release.seq < active.seq
    {
        return Err(ApiError::bad("can not promote an older release, try rollback"));
    }
    builds::check_kept(rack, &app.name, &release.build).await?;
    let desired = rack.desired(&release).await.map_err(|error| ApiError::bad(error.to_string()))?;
    if let Some(fault) = desired.manifest.refused.first() {
        return Err(ApiError::bad(format!("the manifest of release {}: {fault}", release.id)));
    }
    rack.check_certificates(&desired).await?;
    rack.scheduler.check_names(&desired).map_err(|error| ApiError::new(StatusCode::CONFLICT, error.to_string()))?;
    desired.manifest.check_environment(&desired.env).map_err(|error| ApiError::bad(error.to_string()))?;
    if force {
        rack.scheduler.cancel(&app.name);
    }
    if !rack.state.begin_promote(&app.name, &release.id, force).await? {
        builds::check_kept(rack, &app.name, &release.build).await?;
        return Err(ApiError::new(StatusCode::FORBIDDEN, "app is currently updating"));
    }
    let timeout = options.timeout.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0).map(Duration::from_secs);
    rack.promote(desired, PromoteOptions { timeout });
    Ok(Answer::Ok)
}
