//! Builds from uploaded sources.

use std::sync::Arc;

use convox_proxy::Body;
use convox_seal::Secret;
use convox_wire::api::Build;
use convox_wire::options::{BuildCreateOptions, BuildImportImageOptions, BuildListOptions, BuildUpdateOptions};
use convox_wire::time::Time;
use convox_wire::{env, ids};
use futures_util::TryStreamExt as _;
use http::StatusCode;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::Semaphore;

use super::{Answer, ApiError, Call, apps, objects, releases};
use crate::builds::export::{self, BuildOptions, Described, Kind};
use crate::builds::{BuildError, BuildOutput, BuildRequest, Origin, RegistryLogin, context, registry_of, source_key};
use crate::files;
use crate::parameters;
use crate::rack::Rack;
use crate::state::{BuildRow, ReleaseRow, now_ms};

/// Room for looks at imports: each may take a thread for as long as it takes to unpack the longest.
static LOOKS: Semaphore = Semaphore::const_new(2);

pub(super) fn shape(row: BuildRow) -> Build {
    Build {
        id: row.id,
        app: row.app,
        description: row.description,
        entrypoint: row.entrypoint,
        git_sha: row.git_sha,
        logs: row.logs,
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
    let app = apps::usable(rack, call).await?;
    let options: BuildCreateOptions = call.options()?;
    if options.external.unwrap_or(false) {
        return external(rack, &app.name, options).await;
    }
    let url = call.loose("url").unwrap_or_default();
    let prefix = format!("object://{}/", app.name);
    let key =
        url.strip_prefix(&prefix).ok_or_else(|| ApiError::bad(format!("url must name an uploaded object of this app: {prefix}KEY")))?;
    let (row, request) = begin(rack, &app.name, key, options).await?;
    tokio::spawn(end(Arc::clone(rack), row.clone(), request));
    Ok(Answer::json(&shape(row)))
}

/// A build that waits for its manifest and its image.
async fn external(rack: &Rack, app: &str, options: BuildCreateOptions) -> Result<Answer, ApiError> {
    if !rack.builder.has_images() {
        return Err(ApiError::not_available("builds from images; it runs plain processes from a source"));
    }
    let row = BuildRow {
        id: ids::build_id(convox_seal::random_bytes()),
        app: app.to_owned(),
        description: options.description.unwrap_or_default(),
        git_sha: options.git_sha.unwrap_or_default(),
        status: "created".to_owned(),
        started_ms: now_ms(),
        ..BuildRow::default()
    };
    rack.state.put_build(&row).await?;
    Ok(Answer::json(&shape(row)))
}

/// Gets the image of a build that waits for one, with credentials that are used once and kept nowhere. Answered when it has begun.
pub(super) async fn import_image(rack: &Arc<Rack>, call: &Call) -> Result<Answer, ApiError> {
    let mut row = find(rack, call).await?;
    let options: BuildImportImageOptions = call.options()?;
    let image = call.loose("image").unwrap_or_default().to_owned();
    if !is_image(&image) {
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, format!("image: {image:?} is no name of an image")));
    }
    if row.manifest.trim().is_empty() {
        let message = format!("build {} has no manifest: send it before its image", row.id);
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    }
    row.started_ms = now_ms();
    if !rack.state.start_build(&row.app, &row.id, row.started_ms).await? {
        return Err(ApiError::new(StatusCode::CONFLICT, format!("build {} is {} and waits for no image", row.id, row.status)));
    }
    row.status = "running".to_owned();
    let mut registries = rack.state.registry_logins().await?;
    if let Some(password) = options.src_creds_pass.filter(|password| !password.is_empty()) {
        let login = RegistryLogin {
            server: registry_of(&image),
            username: options.src_creds_user.unwrap_or_default(),
            password: Arc::new(Secret::new(password)),
        };
        registries.insert(0, login);
    }
    let base = rack.state.newest_release(&row.app).await?.unwrap_or_default();
    let request =
        BuildRequest { id: row.id.clone(), app: row.app.clone(), env: env::parse(&base.env), registries, ..BuildRequest::default() };
    let rack = Arc::clone(rack);
    tokio::spawn(async move {
        let made = rack.builder.import(request, row.manifest.clone(), Origin::Image(&image)).await;
        note_end(&rack, row, made).await;
    });
    Ok(Answer::Status(StatusCode::ACCEPTED))
}

/// `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, as far as that keeps words that mean something else away from an engine.
fn is_image(text: &str) -> bool {
    let is_part = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric()) && !part.ends_with([':', '@']);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:/@+-".contains(c);
    text.len() <= 512 && text.chars().all(is_plain) && text.split('/').all(is_part)
}

/// An export as the body, ours or an original's, or a source: the same as an upload and a build of it. Answered when it has ended, because the
/// clients read the release from the answer.
pub(super) async fn import(rack: &Arc<Rack>, call: &mut Call) -> Result<Answer, ApiError> {
    let app = apps::usable(rack, call).await?;
    let key = format!("tmp/import-{}.tgz", ids::process_id(convox_seal::random_bytes()));
    objects::keep(rack, &app.name, &key, call.take_body()).await?;
    let archive = objects::path(rack, &app.name, &key).await?;
    let broke = || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the look at the import broke off");
    let room = LOOKS.acquire().await.map_err(|_| broke())?;
    // The look goes on when the client does not wait for it, and so keeps its room.
    let look = move || {
        let _room = room;
        export::look(&archive)
    };
    let looked = tokio::task::spawn_blocking(look).await.map_err(|_| broke())?;
    let refused = |why| ApiError::bad(format!("the build could not be imported: {why}"));
    let (id, ended) = match looked.map_err(refused)? {
        Kind::Source => {
            let options = BuildCreateOptions { description: Some("import".to_owned()), ..BuildCreateOptions::default() };
            let (row, request) = begin(rack, &app.name, &key, options).await?;
            // A task of its own: the build ends as it should when the client does not wait for it.
            (row.id.clone(), tokio::spawn(end(Arc::clone(rack), row, request)))
        }
        Kind::Ours(described) => {
            let source = format!("{key}.source");
            let archive = objects::path(rack, &app.name, &key).await?;
            objects::make(rack, &app.name, &source, move |file| export::take_source(&archive, file)).await?;
            let asked = described.options.unwrap_or_default();
            let options = BuildCreateOptions {
                description: Some(described.description),
                git_sha: Some(described.git_sha),
                manifest: asked.manifest,
                build_args: Some(asked.build_args),
                development: Some(asked.development),
                ..BuildCreateOptions::default()
            };
            let (row, request) = begin(rack, &app.name, &source, options).await?;
            (row.id.clone(), tokio::spawn(end(Arc::clone(rack), row, request)))
        }
        Kind::Images(described, services) => {
            if !rack.builder.has_images() {
                let why = "it holds images, and this rack runs plain processes from a source: deploy the source, or start the rack with a container engine";
                return Err(refused(why.to_owned()));
            }
            let options = BuildCreateOptions {
                description: Some(described.description),
                git_sha: Some(described.git_sha),
                ..BuildCreateOptions::default()
            };
            let (row, request) = begin(rack, &app.name, &key, options).await?;
            let (id, rack) = (row.id.clone(), Arc::clone(rack));
            let made = async move {
                let made = rack.builder.import(request, described.manifest, Origin::Export(&services)).await;
                note_end(&rack, row, made).await;
            };
            (id, tokio::spawn(made))
        }
    };
    let row = match ended.await {
        Ok(()) => rack.state.build(&app.name, &id).await?.ok_or_else(|| ApiError::not_found("build", &id))?,
        Err(_) => return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the import of build {id} broke off"))),
    };
    if row.status == "failed" {
        return Err(refused(format!("{}; see the log of build {id}", row.reason)));
    }
    Ok(Answer::json(&shape(row)))
}

/// What a builder outside of the Rack says about a build. One that this Rack is making is told by this Rack alone.
pub(super) async fn update(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let mut row = find(rack, call).await?;
    let options: BuildUpdateOptions = call.options()?;
    if row.status == "created" && options.status.is_none() {
        // It waits for its image, and gets its manifest first.
        row.manifest = options.manifest.unwrap_or(row.manifest);
        rack.state.put_build(&row).await?;
        return Ok(Answer::json(&shape(row)));
    }
    if row.ended_ms.is_none() {
        let message = format!("build {} is running: this rack makes it, and says itself how it ends", row.id);
        return Err(ApiError::new(StatusCode::CONFLICT, message));
    }
    if let Some(status) = options.status {
        if !["complete", "failed"].contains(&status.as_str()) {
            return Err(ApiError::bad(format!("build {} has ended: its status is complete or failed", row.id)));
        }
        row.status = status;
    }
    if let Some(id) = options.release {
        if !id.is_empty() && rack.state.release(&row.app, &id).await?.is_none() {
            return Err(ApiError::not_found("release", &id));
        }
        row.release = id;
    }
    row.started_ms = options.started.and_then(|time| time.millis()).unwrap_or(row.started_ms);
    row.ended_ms = options.ended.and_then(|time| time.millis()).or(row.ended_ms);
    row.entrypoint = options.entrypoint.unwrap_or(row.entrypoint);
    row.logs = options.logs.unwrap_or(row.logs);
    row.manifest = options.manifest.unwrap_or(row.manifest);
    rack.state.put_build(&row).await?;
    Ok(Answer::json(&shape(row)))
}

/// Refuses what would need the files of a build that are not kept any more.
pub(super) async fn check_kept(rack: &Rack, app: &str, id: &str) -> Result<(), ApiError> {
    if !rack.state.is_removed(app, id).await? {
        return Ok(());
    }
    let keep = rack.keep_builds;
    Err(ApiError::new(
        StatusCode::GONE,
        format!("build {id} is not kept any more (this rack keeps the last {keep} of an app): deploy its source again"),
    ))
}

/// A file that `builds import` takes: what a build was made from, and how it was asked for.
pub(super) async fn export(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let build = find(rack, call).await?;
    check_kept(rack, &build.app, &build.id).await?;
    let key = source_key(&build.id);
    if rack.state.object(&build.app, &key).await?.is_none() {
        let why = format!("build {} was made from an image of a registry, which is not kept here: get it from there", build.id);
        return Err(ApiError::new(StatusCode::NOT_FOUND, why));
    }
    let path = objects::path(rack, &build.app, &key).await?;
    let failed = |error: std::io::Error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("build {}: {error}", build.id));
    let archive = path.clone();
    // What came as an export goes as the same one. What cannot be read failed as a build for that, and goes as it is.
    if files::blocking(move || Ok(export::is_export(&archive).unwrap_or(true))).await.map_err(failed)? {
        return objects::stream(rack, &build.app, &key).await;
    }
    let asked = rack.state.build_options(&build.app, &build.id).await?;
    let options: BuildOptions = asked.and_then(|text| serde_json::from_str(text.expose()).ok()).unwrap_or_default();
    let mut source = files::blocking(move || std::fs::File::open(path)).await.map_err(failed)?;
    let described = Described {
        id: build.id,
        app: build.app,
        description: build.description,
        git_sha: build.git_sha,
        manifest: build.manifest,
        options: Some(options),
    };
    let mut pieces = context::pieces_of(move |out| export::write(&described, &mut source, out));
    let frames = futures_util::stream::poll_fn(move |context| pieces.poll_recv(context)).map_ok(Frame::data);
    Ok(Answer::Stream(Body::new(StreamBody::new(frames))))
}

/// Notes a build as running; what it needs to be made.
async fn begin(rack: &Rack, app: &str, key: &str, options: BuildCreateOptions) -> Result<(BuildRow, BuildRequest), ApiError> {
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
    let base = rack.state.newest_release(app).await?.unwrap_or_default();
    let parameters = apps::named(rack, app).await?.parameters;
    let asked = BuildOptions {
        manifest: options.manifest.clone().filter(|name| !name.is_empty()),
        build_args: options.build_args.clone().unwrap_or_default(),
        development: options.development.unwrap_or(false),
    };
    let text = serde_json::to_string(&asked).map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    rack.state.begin_build(&row, &Secret::new(text)).await?;
    let request = BuildRequest {
        id,
        app: app.to_owned(),
        archive,
        env: env::parse(&base.env),
        manifest: options.manifest,
        build_args: options.build_args.unwrap_or_default(),
        memory: parameters::build_memory(&rack.state.parameters().await?, &parameters),
        no_cache: options.no_cache.unwrap_or(false),
        development: options.development.unwrap_or(false),
        registries: rack.state.registry_logins().await?,
    };
    Ok((row, request))
}

/// Makes the build and keeps how it ended.
async fn end(rack: Arc<Rack>, row: BuildRow, request: BuildRequest) {
    let made = rack.builder.build(request).await;
    note_end(&rack, row, made).await;
}

async fn note_end(rack: &Arc<Rack>, row: BuildRow, made: Result<BuildOutput, BuildError>) {
    if let Err(error) = finish(rack, row, made).await {
        tracing::error!(message = %error.message, "the end of a build could not be kept");
    }
    if let Err(error) = rack.give_up_old().await {
        tracing::warn!(%error, "old builds could not be given up");
    }
}

async fn finish(rack: &Arc<Rack>, mut row: BuildRow, made: Result<BuildOutput, BuildError>) -> Result<(), ApiError> {
    let failure = match made {
        Ok(output) => {
            row.manifest = output.manifest_text;
            row.release = releases::new_id();
            row.status = "complete".to_owned();
            row.ended_ms = Some(now_ms());
            let release = ReleaseRow {
                id: row.release.clone(),
                app: row.app.clone(),
                build: row.id.clone(),
                manifest: row.manifest.clone(),
                description: row.description.clone(),
                ..ReleaseRow::default()
            };
            let Err(error) = rack.state.complete_build(&row, &release).await else { return Ok(()) };
            // The disk is full, or the app is gone: without its release nobody can use what was built.
            if let Err(error) = rack.builder.remove(&row.app, &row.id).await {
                tracing::warn!(%error, "what a build left could not be deleted");
            }
            row.release.clear();
            format!("the build could not be kept: {error}")
        }
        Err(error) => error.to_string(),
    };
    row.reason = failure;
    row.status = "failed".to_owned();
    row.ended_ms = Some(now_ms());
    Ok(rack.state.put_build(&row).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_names_and_nothing_else_has() {
        for good in ["nginx", "docker.io/library/nginx:1.27", "host:5000/a/b@sha256:ab", "a/b+c:1"] {
            assert!(is_image(good), "{good}");
        }
        for bad in ["", "-x", "a b", "a//b", "a/-b", "nginx:", "a/", "$(x)", "a@"] {
            assert!(!is_image(bad), "{bad}");
        }
    }
}
