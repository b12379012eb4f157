//! The engine's call to build an image. By our own hand: the client library knows no control group to build in, and no more than 31
//! bits of memory.

use std::io;

use bytes::{Bytes, BytesMut};
use convox_wire::form::Params;
use futures_util::{Stream, StreamExt as _};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::Engine;

/// Logins of registries, by host.
const LOGINS: &str = "X-Registry-Config";
/// Longest answer that is one piece: an engine's word on one step, or on why it builds nothing.
const PIECE_CAP: usize = 1 << 20;

/// One thing that an engine says while it builds.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Step {
    stream: Option<String>,
    status: Option<String>,
    error: Option<String>,
    #[serde(rename = "errorDetail")]
    detail: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    message: String,
}

/// Builds from this archive. What comes is what the engine says, until its end or its error. Dropped, the call ends.
pub(crate) async fn build(
    engine: &Engine,
    options: &Params,
    logins: HeaderValue,
    archive: mpsc::Receiver<io::Result<Bytes>>,
) -> Result<impl Stream<Item = Result<String, String>> + use<>, String> {
    let broken = |error: &dyn std::error::Error| chain(error);
    let stream = UnixStream::connect(engine.socket()).await.map_err(|error| broken(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move { connection.await.map_err(|error| chain(&error)) }));
    let request = Request::post(format!("{}/build?{}", engine.version_path(), options.encode()))
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/x-tar")
        .header(LOGINS, logins)
        .body(StreamBody::new(pieces(archive).map(|piece| piece.map(Frame::data))))
        .map_err(|error| broken(&error))?;
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = response.status();
    if !status.is_success() {
        let text = Limited::new(response.into_body(), PIECE_CAP).collect().await.map_err(|error| chain(&*error))?.to_bytes();
        let message =
            serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|told| Some(told.get("message")?.as_str()?.to_owned()));
        return Err(message.unwrap_or_else(|| format!("the engine answered {status}: {}", String::from_utf8_lossy(&text).trim())));
    }
    let said = Said { body: response.into_body(), have: BytesMut::new(), _connection: connection };
    Ok(futures_util::stream::unfold(said, |mut said| async move { Some((said.next().await?, said)) }))
}

/// What comes back: a JSON value on each line.
struct Said {
    body: Incoming,
    have: BytesMut,
    _connection: AbortOnDropHandle<Result<(), String>>,
}

impl Said {
    async fn next(&mut self) -> Option<Result<String, String>> {
        loop {
            if let Some(end) = self.have.iter().position(|byte| *byte == b'\n') {
                let line = self.have.split_to(end + 1);
                match read(&line) {
                    Some(told) => return Some(told),
                    None => continue,
                }
            }
            if self.have.len() > PIECE_CAP {
                return Some(Err(format!("the engine said more than {PIECE_CAP} bytes at once")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.have.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref())),
                Some(Err(error)) => return Some(Err(chain(&error))),
                // The last value may have no line of its own.
                None => return read(&std::mem::take(&mut self.have)),
            }
        }
    }
}

/// One value: text for the log, or the error. `None` of a blank line.
fn read(line: &[u8]) -> Option<Result<String, String>> {
    if line.trim_ascii().is_empty() {
        return None;
    }
    let step: Step = match serde_json::from_slice(line) {
        Ok(step) => step,
        Err(_) => return Some(Err(format!("the engine said what is no JSON: {}", String::from_utf8_lossy(line).trim()))),
    };
    Some(match step.detail.map(|detail| detail.message).or(step.error) {
        Some(error) => Err(error.trim().to_owned()),
        None => Ok(step.stream.or(step.status.map(|status| status + "\n")).unwrap_or_default()),
    })
}

/// What a channel brings, as a stream.
pub(crate) fn pieces<T>(mut from: mpsc::Receiver<T>) -> impl Stream<Item = T> {
    futures_util::stream::poll_fn(move |context| from.poll_recv(context))
}

/// An error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engines_words_are_text_or_an_error() {
        let of = |line: &str| read(line.as_bytes());
        assert_eq!(of("{\"stream\":\"STEP 1\\n\"}\r\n"), Some(Ok("STEP 1\n".into())));
        assert_eq!(of("{\"status\":\"Pulling\"}"), Some(Ok("Pulling\n".into())));
        assert_eq!(of("{\"errorDetail\":{\"code\":1,\"message\":\"no \"},\"error\":\"x\"}"), Some(Err("no".into())));
        assert_eq!(of("{\"error\":\"no\"}"), Some(Err("no".into())));
        assert_eq!(of("{\"aux\":{\"ID\":\"sha256:0\"}}"), Some(Ok(String::new())));
        assert_eq!(of("\r\n"), None);
        assert!(of("<html>").unwrap().unwrap_err().contains("no JSON"));
    }
}
