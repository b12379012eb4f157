//! An answer on its way to a value: its body in pieces, and the named error that every refusal stands for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use convox_wire::session::SessionDemand;
use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::time::timeout;

use crate::call::Body;
use crate::{Error, connect};

/// How long a server may take for its answer's head, or between two pieces of a body, while nothing moves.
pub(crate) const ANSWER: Duration = Duration::from_mins(5);

/// The connection that waits for the next call.
pub(crate) type Idle = Arc<Mutex<Option<Kept>>>;

pub(crate) struct Kept {
    pub(crate) sender: SendRequest<Body>,
    /// Whether it has served a call already; the server may then close it at any moment, and means nothing by it.
    pub(crate) is_used: bool,
}

/// An answer whose body has not been read yet.
pub struct Reply {
    /// The HTTP status, below 400.
    pub status: u16,
    /// The answer's headers.
    pub headers: HeaderMap,
    pub(crate) host: String,
    pub(crate) body: Incoming,
    /// Goes back to the client when the body has been read to its end.
    pub(crate) sender: Option<SendRequest<Body>>,
    pub(crate) idle: Idle,
}

impl Reply {
    /// The next piece of the body; `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(ANSWER, self.body.frame())
                .await
                .map_err(|_| Error::Timeout { host: self.host.clone(), doing: "reading the answer" })?;
            match frame {
                None => {
                    self.give_back();
                    return Ok(None);
                }
                Some(Err(error)) => return Err(explain(&self.host, &error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The whole body, if it is not longer than `limit`.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, Error> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > limit {
                return Err(Error::Protocol { host: self.host.clone(), reason: format!("the answer is longer than {limit} bytes") });
            }
            if all.is_empty() && hyper::body::Body::is_end_stream(&self.body) {
                self.give_back();
                return Ok(chunk);
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// A header's value as text, if it has one.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn give_back(&mut self) {
        if let Some(sender) = self.sender.take()
            && !sender.is_closed()
        {
            *lock(&self.idle) = Some(Kept { sender, is_used: true });
        }
    }
}

/// The error that a status from 400 up stands for.
pub(crate) fn refusal(host: String, status: u16, headers: &HeaderMap, body: &[u8]) -> Error {
    let message = convox_wire::error::body_message(status, body);
    let demand = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).find_map(SessionDemand::parse);
    match status {
        401 if message.contains("cli token is expired") => Error::Expired { host, message },
        401 => match demand {
            Some(demand) => Error::Session { host, demand },
            // A Rack's words for a token whose role does not reach; the token itself is fine.
            None if message == "you are unauthorized to access this" => Error::Forbidden { message },
            None => Error::Unauthorized { host, message },
        },
        403 => Error::Forbidden { message },
        404 => Error::NotFound { message },
        _ => {
            let id = headers.get("request-id").and_then(|value| value.to_str().ok());
            let id = id.filter(|id| status >= 500 && id.len() <= 64 && !message.contains(id)).map(str::to_owned);
            Error::Server { status, message, request_id: id }
        }
    }
}

pub(crate) fn explain(host: &str, error: &hyper::Error) -> Error {
    let host = host.to_owned();
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            if error.is_user() {
                return Error::Source(std::io::Error::new(io.kind(), io.to_string()));
            }
            // TLS 1.3 lets a server refuse after the client's handshake is done.
            if let Some(fault) = convox_tls::classify(io) {
                return Error::Tls { host, fault };
            }
            return Error::Closed { host, reason: connect::plain(io) };
        }
        source = cause.source();
    }
    if error.is_parse() {
        return Error::Protocol { host, reason: "not HTTP".to_owned() };
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return Error::Closed { host, reason: "it was closed before the answer was complete".to_owned() };
    }
    Error::Protocol { host, reason: error.to_string() }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
