//! Objects: uploaded bytes under a key of an app. On the disk before they are answered for.

use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use convox_proxy::Body;
use convox_wire::api::Object;
use convox_wire::ids;
use futures_util::TryStreamExt as _;
use http::StatusCode;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;

use super::call::Upload;
use super::{Answer, ApiError, Call, apps};
use crate::files;
use crate::rack::Rack;

/// Larger uploads are refused, bytes.
const LARGEST: u64 = 8 << 30;

/// The key of the path: no leading slashes, no dot segments, bounded.
fn key(call: &Call) -> Result<String, ApiError> {
    let key = call.var("key").trim_start_matches('/');
    let is_sound = key.len() <= 512 && !key.split('/').any(|part| part == "." || part == "..") && !key.chars().any(char::is_control);
    if is_sound { Ok(key.to_owned()) } else { Err(ApiError::bad("an object's key is a plain path of at most 512 characters")) }
}

/// Where the Rack keeps the sources of builds. Callers may read there; what a build was made from does not change.
const OWN: &str = "build/";

/// As [`key`], for callers that change something.
fn changeable_key(call: &Call) -> Result<String, ApiError> {
    let key = key(call)?;
    if key.starts_with(OWN) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, format!("keys that begin with {OWN} belong to the rack; choose another")));
    }
    Ok(key)
}

pub(super) async fn store(rack: &Rack, call: &mut Call) -> Result<Answer, ApiError> {
    let app = apps::usable(rack, call).await?;
    let mut key = changeable_key(call)?;
    if key.is_empty() {
        key = format!("tmp/{}{}{}", hex(), hex(), &hex()[..6]);
    }
    keep(rack, &app.name, &key, call.take_body()).await?;
    Ok(Answer::json(&Object { url: format!("object://{}/{key}", app.name) }))
}

fn hex() -> String {
    ids::process_id(convox_seal::random_bytes())
}

/// Streams a body to the disk and notes it under `key`.
pub(super) async fn keep(rack: &Rack, app: &str, key: &str, body: Option<Upload>) -> Result<(), ApiError> {
    let Some(mut body) = body else {
        return Err(ApiError::bad("send the object as application/octet-stream, not as a form"));
    };
    let too_large = || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "an object has at most 8 GiB");
    // What says so itself need not be sent first.
    if hyper::body::Body::size_hint(&body).lower() > LARGEST {
        return Err(too_large());
    }
    let failed = |error: std::io::Error| {
        ApiError::new(StatusCode::INSUFFICIENT_STORAGE, format!("the object could not be kept: {error} (is the disk full?)"))
    };
    let path = new_file(rack, app).await.map_err(failed)?;
    let kept = async {
        let mut options = tokio::fs::OpenOptions::new();
        let mut file = options.create_new(true).write(true).mode(0o600).open(&path).await.map_err(failed)?;
        let mut size = 0u64;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::bad("the upload was cut off; nothing was kept"))?;
            let Ok(data) = frame.into_data() else { continue };
            size += data.len() as u64;
            if size > LARGEST {
                return Err(too_large());
            }
            file.write_all(&data).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        files::sync_entry(&path).await.map_err(failed)?;
        note(rack, app, key, &path, size).await
    };
    or_gone(kept.await, &path).await
}

/// Leaves nothing at `path` of what could not be kept.
async fn or_gone(kept: Result<(), ApiError>, path: &Path) -> Result<(), ApiError> {
    if kept.is_err() {
        let _ = tokio::fs::remove_file(path).await;
    }
    kept
}

/// A name for a new file of an app, in a directory that is there.
async fn new_file(rack: &Rack, app: &str) -> std::io::Result<PathBuf> {
    let directory = rack.objects.join(app);
    let path = directory.join(format!("{}{}", hex(), hex()));
    if !tokio::fs::try_exists(&directory).await? {
        files::make_lasting_directory(directory).await?;
    }
    Ok(path)
}

/// Notes that a file, which is on the disk, holds an object; the one that held it before goes.
async fn note(rack: &Rack, app: &str, key: &str, path: &Path, size: u64) -> Result<(), ApiError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(before) = rack.state.put_object(app, key, &name, size).await? {
        let _ = tokio::fs::remove_file(path.with_file_name(before)).await;
    }
    Ok(())
}

/// The same bytes under a second key, without copying them.
pub(super) async fn link(rack: &Rack, app: &str, key: &str, other: &str) -> Result<(), ApiError> {
    let from = path(rack, app, key).await?;
    let failed = |error: std::io::Error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("object {key}: {error}"));
    let to = new_file(rack, app).await.map_err(failed)?;
    let linked = async {
        tokio::fs::hard_link(&from, &to).await?;
        files::sync_entry(&to).await?;
        Ok(tokio::fs::metadata(&to).await?.len())
    };
    let size = linked.await.map_err(failed)?;
    note(rack, app, other, &to, size).await
}

/// Keeps what `write` writes under a key, on a thread that may block.
pub(super) async fn make(
    rack: &Rack,
    app: &str,
    key: &str,
    write: impl FnOnce(&mut std::fs::File) -> std::io::Result<()> + Send + 'static,
) -> Result<(), ApiError> {
    let failed = |error: std::io::Error| {
        ApiError::new(StatusCode::INSUFFICIENT_STORAGE, format!("the object could not be kept: {error} (is the disk full?)"))
    };
    let path = new_file(rack, app).await.map_err(failed)?;
    let file = path.clone();
    let made = files::blocking(move || {
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(file)?;
        write(&mut file)?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    });
    let kept = async {
        let size = made.await.map_err(failed)?;
        files::sync_entry(&path).await.map_err(failed)?;
        note(rack, app, key, &path, size).await
    };
    or_gone(kept.await, &path).await
}

/// The file that holds an object.
pub(super) async fn path(rack: &Rack, app: &str, key: &str) -> Result<PathBuf, ApiError> {
    let file = rack.state.object(app, key).await?.ok_or_else(|| ApiError::not_found("object", key))?;
    Ok(rack.objects.join(app).join(file))
}

/// An object as a stream.
pub(super) async fn stream(rack: &Rack, app: &str, key: &str) -> Result<Answer, ApiError> {
    let file = match tokio::fs::File::open(path(rack, app, key).await?).await {
        // Replaced just now: the row names the new file.
        Err(error) if error.kind() == ErrorKind::NotFound => tokio::fs::File::open(path(rack, app, key).await?).await,
        opened => opened,
    };
    let failed = |error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("object {key} could not be opened: {error}"));
    let frames = ReaderStream::with_capacity(file.map_err(failed)?, 64 * 1024).map_ok(Frame::data);
    Ok(Answer::Stream(Body::new(StreamBody::new(frames))))
}

pub(super) async fn fetch(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    stream(rack, &app.name, &key(call)?).await
}

/// 200 or 404, where the originals always said yes.
pub(super) async fn exists(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let found = rack.state.object(&app.name, &key(call)?).await?.is_some();
    Ok(Answer::Status(if found { StatusCode::OK } else { StatusCode::NOT_FOUND }))
}

pub(super) async fn list(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let prefix = call.loose("prefix").unwrap_or_default().trim_start_matches('/').to_owned();
    let mut keys = rack.state.objects(&app.name).await?;
    keys.retain(|key| key.starts_with(&prefix));
    Ok(Answer::json(&keys))
}

pub(super) async fn delete(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let key = changeable_key(call)?;
    let file = rack.state.delete_object(&app.name, &key).await?.ok_or_else(|| ApiError::not_found("object", &key))?;
    let _ = tokio::fs::remove_file(rack.objects.join(&app.name).join(file)).await;
    Ok(Answer::Ok)
}
