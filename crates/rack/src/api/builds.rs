//! Builds from uploaded sources.

use std::sync::Arc;

use convox_wire::api::Build;
use convox_wire::options::{BuildCreateOptions, BuildListOptions};
use convox_wire::time::Time;
use convox_wire::{env, ids};

use super::{Answer, ApiError, Call, apps, objects, releases};
use crate::builds::BuildRequest;
use crate::rack::Rack;
use crate::state::{BuildRow, ReleaseRow, now_ms};

pub(super) fn shape(row: BuildRow) -> Build {
    Build {
        logs: format!("object://{}/build/{}/logs", row.app, row.id),
        id: row.id,
        app: row.app,
        description: row.description,
        git_sha: row.git_sha,
        manifest: row.manifest,
        release: row.release,
        reason: row.reason,
        status: row.status,
        started: Time::from_millis(row.started_ms),
        ended: row.ended_ms.map(Time::from_millis).unwrap_or_default(),
        ..Build::default()
    }
}

pub(super) async fn find(rack: &Rack, call: &Call) -> Result<BuildRow, ApiError> {
    let app = apps::find(rack, call).await?;
    let id = call.var("id");
    rack.state.build(&app.name, id).await?.ok_or_else(|| ApiError::not_found("build", id))
}

pub(super) async fn get(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    Ok(Answer::json(&shape(find(rack, call).await?)))
}

pub(super) async fn list(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let options: BuildListOptions = call.options()?;
    let rows = rack.state.builds(&app.name, releases::limit(options.limit)).await?;
    Ok(Answer::json(&rows.into_iter().map(shape).collect::<Vec<_>>()))
}

pub(super) async fn create(rack: &Arc<Rack>, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let url = call.loose("url").unwrap_or_default();
    let prefix = format!("object://{}/", app.name);
    let key =
        url.strip_prefix(&prefix).ok_or_else(|| ApiError::bad(format!("url must name an uploaded object of this app: {prefix}KEY")))?;
    let options: BuildCreateOptions = call.options()?;
    if options.development.unwrap_or(false) {
        return Err(ApiError::bad("this rack makes no development builds"));
    }
    begin(rack, &app.name, key, options).await
}

/// A source archive as the body: the same as an upload and a build of it.
pub(super) async fn import(rack: &Arc<Rack>, call: &mut Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let key = format!("tmp/import-{}.tgz", ids::process_id(convox_seal::random_bytes()));
    objects::keep(rack, &app.name, &key, call.take_body()).await?;
    begin(rack, &app.name, &key, BuildCreateOptions { description: Some("import".to_owned()), ..BuildCreateOptions::default() }).await
}

/// The source archive that a build was made from, which `builds import` takes.
pub(super) async fn export(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let build = find(rack, call).await?;
    objects::stream(rack, &build.app, &source_key(&build.id)).await
}

fn source_key(build: &str) -> String {
    format!("build/{build}/source.tgz")
}

async fn begin(rack: &Arc<Rack>, app: &str, key: &str, options: BuildCreateOptions) -> Result<Answer, ApiError> {
    let id = ids::build_id(convox_seal::random_bytes());
    // The build keeps its source under its own name: what is uploaded to the key later must not change it.
    objects::link(rack, app, key, &source_key(&id)).await?;
    let archive = objects::path(rack, app, &source_key(&id)).await?;
    let row = BuildRow {
        id: id.clone(),
        app: app.to_owned(),
        description: options.description.unwrap_or_default(),
        git_sha: options.git_sha.unwrap_or_default(),
        status: "running".to_owned(),
        started_ms: now_ms(),
        ..BuildRow::default()
    };
    rack.state.put_build(&row).await?;
    let base = rack.state.newest_release(app).await?.unwrap_or_default();
    let request = BuildRequest { id, app: app.to_owned(), archive, env: env::parse(&base.env), manifest: options.manifest };
    let task = Arc::clone(rack);
    let started = row.clone();
    tokio::spawn(async move {
        if let Err(error) = finish(&task, started, request).await {
            tracing::error!(message = %error.message, "the end of a build could not be kept");
        }
    });
    Ok(Answer::json(&shape(row)))
}

async fn finish(rack: &Arc<Rack>, mut row: BuildRow, request: BuildRequest) -> Result<(), ApiError> {
    match rack.builder.build(request).await {
        Ok(output) => {
            row.manifest = output.manifest_text;
            rack.state.put_build(&row).await?;
            let base = rack.state.newest_release(&row.app).await?.unwrap_or_default();
            let release = ReleaseRow {
                app: row.app.clone(),
                build: row.id.clone(),
                env: base.env,
                manifest: row.manifest.clone(),
                description: row.description.clone(),
                ..ReleaseRow::default()
            };
            row.release = releases::insert(rack, release).await?.id;
            row.status = "complete".to_owned();
        }
        Err(error) => {
            row.reason = error.to_string();
            row.status = "failed".to_owned();
        }
    }
    row.ended_ms = Some(now_ms());
    Ok(rack.state.put_build(&row).await?)
}
