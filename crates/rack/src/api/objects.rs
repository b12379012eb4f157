//! Objects: uploaded bytes under a key of an app. On the disk before they are answered for.

use std::path::PathBuf;

use convox_proxy::Body;
use convox_wire::api::Object;
use convox_wire::ids;
use futures_util::TryStreamExt as _;
use http::StatusCode;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;

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

pub(super) async fn store(rack: &Rack, call: &mut Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let mut key = key(call)?;
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
pub(super) async fn keep(rack: &Rack, app: &str, key: &str, body: Option<Incoming>) -> Result<(), ApiError> {
    let Some(mut body) = body else {
        return Err(ApiError::bad("send the object as application/octet-stream, not as a form"));
    };
    let failed = |error: &std::io::Error| {
        ApiError::new(StatusCode::INSUFFICIENT_STORAGE, format!("the object could not be kept: {error} (is the disk full?)"))
    };
    let directory = rack.objects.join(app);
    files::make_private_directory(&directory).map_err(|error| failed(&error))?;
    let name = format!("{}{}", hex(), hex());
    let path = directory.join(&name);
    let written: Result<u64, ApiError> = async {
        let mut options = tokio::fs::OpenOptions::new();
        let mut file = options.create_new(true).write(true).mode(0o600).open(&path).await.map_err(|error| failed(&error))?;
        let mut size = 0u64;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::bad("the upload was cut off; nothing was kept"))?;
            let Ok(data) = frame.into_data() else { continue };
            size += data.len() as u64;
            if size > LARGEST {
                return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "an object has at most 8 GiB"));
            }
            file.write_all(&data).await.map_err(|error| failed(&error))?;
        }
        file.flush().await.map_err(|error| failed(&error))?;
        file.sync_all().await.map_err(|error| failed(&error))?;
        files::sync_directory(&path).map_err(|error| failed(&error))?;
        Ok(size)
    }
    .await;
    let size = match written {
        Ok(size) => size,
        Err(error) => {
            let _ = tokio::fs::remove_file(&path).await;
            return Err(error);
        }
    };
    replace(rack, app, key, &name, size).await
}

async fn replace(rack: &Rack, app: &str, key: &str, name: &str, size: u64) -> Result<(), ApiError> {
    if let Some(before) = rack.state.put_object(app, key, name, size).await? {
        let _ = tokio::fs::remove_file(rack.objects.join(app).join(before)).await;
    }
    Ok(())
}

/// The same bytes under a second key, without copying them.
pub(super) async fn link(rack: &Rack, app: &str, key: &str, other: &str) -> Result<(), ApiError> {
    let from = path(rack, app, key).await?;
    let name = format!("{}{}", hex(), hex());
    let to = rack.objects.join(app).join(&name);
    let linked = async {
        tokio::fs::hard_link(&from, &to).await?;
        files::sync_directory(&to)?;
        Ok::<u64, std::io::Error>(tokio::fs::metadata(&to).await?.len())
    };
    let size = linked.await.map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("object {key}: {error}")))?;
    replace(rack, app, other, &name, size).await
}

/// The file that holds an object.
pub(super) async fn path(rack: &Rack, app: &str, key: &str) -> Result<PathBuf, ApiError> {
    let file = rack.state.object(app, key).await?.ok_or_else(|| ApiError::not_found("object", key))?;
    Ok(rack.objects.join(app).join(file))
}

/// An object as a stream.
pub(super) async fn stream(rack: &Rack, app: &str, key: &str) -> Result<Answer, ApiError> {
    let path = path(rack, app, key).await?;
    let file = tokio::fs::File::open(&path)
        .await
        .map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("object {key} could not be opened: {error}")))?;
    let frames = ReaderStream::with_capacity(file, 64 * 1024).map_ok(Frame::data);
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
    let key = key(call)?;
    let file = rack.state.delete_object(&app.name, &key).await?.ok_or_else(|| ApiError::not_found("object", &key))?;
    let _ = tokio::fs::remove_file(rack.objects.join(&app.name).join(file)).await;
    Ok(Answer::Ok)
}
