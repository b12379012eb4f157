//! One call as handlers see it, and what they give back.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use convox_db::DbError;
use convox_proxy::{Body, BoxError, RequestId};
use convox_wire::form::Params;
use convox_wire::options::{OptionError, Options, Source};
use convox_wire::routes::Match;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use serde::Serialize;

use crate::auth::Caller;

/// A form is options and an environment, no upload.
const LARGEST_FORM: usize = 8 << 20;
/// And is here after so long: who sends slower holds a decision open that may not hold any more.
const FORM_PATIENCE: Duration = Duration::from_mins(2);

/// Ends when a caller's right to be here does, and says why.
pub(crate) type Ended = Pin<Box<dyn Future<Output = &'static str> + Send + Sync>>;

/// A body that breaks off, visibly, when the caller's right to it ends.
pub(crate) struct While<B> {
    body: B,
    /// `None` when it has.
    ended: Option<Ended>,
}

impl<B> While<B> {
    pub(crate) fn new(body: B, ended: Ended) -> Self {
        Self { body, ended: Some(ended) }
    }
}

impl<B: hyper::body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin> hyper::body::Body for While<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.ended.as_mut().map(|ended| ended.as_mut().poll(context)) {
            None => Poll::Ready(None),
            Some(Poll::Ready(reason)) => {
                self.ended = None;
                Poll::Ready(Some(Err(reason.into())))
            }
            Some(Poll::Pending) => Pin::new(&mut self.body).poll_frame(context).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What a caller sends that is no form.
pub(crate) type Upload = While<Incoming>;

/// What a handler works with.
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) headers: HeaderMap,
    vars: Vec<(&'static str, String)>,
    form: Params,
    query: Params,
    body: Option<Upload>,
    from: IpAddr,
}

impl Call {
    /// Reads a form body at once; leaves any other body to the handler, for as long as the caller's right does not end.
    pub(crate) async fn read(
        found: &Match<'_>,
        request: Request<Incoming>,
        caller: Caller,
        ended: impl FnOnce() -> Ended,
    ) -> Result<Self, ApiError> {
        let vars = found.vars().map(|(name, value)| (name, unescaped(value))).collect();
        let (parts, body) = request.into_parts();
        let bad = |what: &str, error: &dyn std::fmt::Display| {
            ApiError::new(StatusCode::BAD_REQUEST, format!("the {what} cannot be read: {error}"))
        };
        let from = super::from(&parts.extensions);
        let query = Params::parse(parts.uri.query().unwrap_or_default()).map_err(|error| bad("query", &error))?;
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_form = kind.starts_with("application/x-www-form-urlencoded");
        let mut call = Self { caller, headers: parts.headers, vars, form: Params::new(), query, body: None, from };
        if is_form {
            let collected = tokio::time::timeout(FORM_PATIENCE, Limited::new(body, LARGEST_FORM).collect()).await;
            let slow =
                |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, format!("the form was not here within {} s", FORM_PATIENCE.as_secs()));
            let bytes = collected.map_err(slow)?.map_err(|error| bad("form", &error))?.to_bytes();
            let text = std::str::from_utf8(&bytes).map_err(|error| bad("form", &error))?;
            call.form = Params::parse(text).map_err(|error| bad("form", &error))?;
        } else {
            call.body = Some(While::new(body, ended()));
        }
        Ok(call)
    }

    /// A variable of the path; empty when the pattern has none of that name.
    pub(crate) fn var(&self, name: &str) -> &str {
        self.vars.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    /// The options of the call.
    pub(crate) fn options<O: Options>(&self) -> Result<O, ApiError> {
        O::decode(self).map_err(|error: OptionError| ApiError::new(StatusCode::BAD_REQUEST, error.to_string()))
    }

    /// A loose value: form or query, else a header of that name.
    pub(crate) fn loose(&self, name: &str) -> Option<&str> {
        convox_wire::options::loose(self, name)
    }

    /// The address of who is connected.
    pub(crate) fn peer(&self) -> IpAddr {
        self.from
    }

    /// The raw body; `None` when it was a form.
    pub(crate) fn take_body(&mut self) -> Option<Upload> {
        self.body.take()
    }
}

/// Percent escapes of a path variable; what is no UTF-8 stays as it is and is simply not found.
fn unescaped(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    // `+` means itself in a path.
    let form = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    Params::parse(&form).ok().and_then(|params| params.get("x").map(str::to_owned)).unwrap_or_else(|| text.to_owned())
}

impl Source for Call {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn form(&self, name: &str) -> Option<&str> {
        self.form.get(name).or_else(|| self.query.get(name))
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name)
    }
}

/// What a handler gives back.
pub(crate) enum Answer {
    /// `ok` and a newline.
    Ok,
    /// JSON in Go's form.
    Json(String),
    /// Just a status.
    Status(StatusCode),
    /// A stream of bytes.
    Stream(Body),
}

impl Answer {
    pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        Self::Json(convox_wire::api::to_go_json(value).unwrap_or_default())
    }

    /// A stream that breaks off when the caller's right to it ends.
    pub(crate) fn ending(self, ended: impl FnOnce() -> Ended) -> Self {
        match self {
            Self::Stream(body) => Self::Stream(Body::new(While::new(body, ended()))),
            other => other,
        }
    }

    pub(crate) fn response(self) -> Response<Body> {
        let plain = |body: Body, kind: Option<&'static str>| {
            let mut response = Response::new(body);
            if let Some(kind) = kind {
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            response
        };
        match self {
            Self::Ok => plain(Body::from("ok\n"), Some("text/plain; charset=utf-8")),
            Self::Json(text) => plain(Body::from(text), Some("application/json")),
            Self::Stream(body) => plain(body, None),
            Self::Status(status) => {
                let mut response = plain(Body::empty(), None);
                *response.status_mut() = status;
                response
            }
        }
    }
}

/// A refusal or fault: status and words for the caller.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The empty 404 that clients know as "this Rack has no such route".
    pub(crate) fn unknown_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "")
    }

    pub(crate) fn not_found(what: &str, name: &str) -> Self {
        let name: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
        Self::new(StatusCode::NOT_FOUND, format!("{what} not found: {name}"))
    }

    /// For what the route table knows and this Rack cannot do. Never a success that does nothing.
    pub(crate) fn not_available(what: &str) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, format!("not available on this rack: {what}"))
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn response(self, wants_json: bool, id: RequestId) -> Response<Body> {
        if self.status.is_server_error() {
            let trace = id.trace().map(tracing::field::display);
            tracing::error!(request.id = %id, trace.id = trace, status = self.status.as_u16(), message = %self.message, "a request failed");
        }
        let message = convox_wire::error::safe_message(&self.message);
        let (body, kind) = match (message.is_empty(), wants_json) {
            (true, _) => (Bytes::new(), "text/plain; charset=utf-8"),
            (false, true) => (Bytes::from(convox_wire::error::json_body(&message)), "application/json"),
            (false, false) => (Bytes::from(format!("{message}\n")), "text/plain; charset=utf-8"),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        let status = match error.kind() {
            convox_db::Kind::Conflict => StatusCode::CONFLICT,
            convox_db::Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            convox_db::Kind::Storage => StatusCode::INSUFFICIENT_STORAGE,
            convox_db::Kind::Other => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, format!("the rack's state cannot be used: {error}"))
    }
}

impl From<crate::rack::CertificateError> for ApiError {
    fn from(error: crate::rack::CertificateError) -> Self {
        match error {
            crate::rack::CertificateError::Unusable(reason) => Self::bad(reason),
            crate::rack::CertificateError::Database(error) => error.into(),
        }
    }
}

impl From<crate::state::Gone> for ApiError {
    fn from(crate::state::Gone: crate::state::Gone) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid authentication: what you came in by has ended meanwhile; nothing was changed")
    }
}

impl From<crate::scheduler::SchedulerError> for ApiError {
    fn from(error: crate::scheduler::SchedulerError) -> Self {
        use crate::runtime::RuntimeError;
        use crate::scheduler::SchedulerError;
        let status = match &error {
            SchedulerError::NoService(_) | SchedulerError::NoApp(_) | SchedulerError::Runtime(RuntimeError::NotFound(_)) => {
                StatusCode::NOT_FOUND
            }
            SchedulerError::Environment(_) | SchedulerError::Manifest(_) => StatusCode::BAD_REQUEST,
            SchedulerError::Held { .. } | SchedulerError::Runtime(RuntimeError::NotRunning(_) | RuntimeError::Exists(_)) => {
                StatusCode::CONFLICT
            }
            SchedulerError::Resource(_) => StatusCode::BAD_REQUEST,
            SchedulerError::Runtime(_) | SchedulerError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_breaks_off_when_the_right_to_it_ends() {
        let frames = futures_util::stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"hello")))]);
        let endless = http_body_util::StreamBody::new(futures_util::StreamExt::chain(frames, futures_util::stream::pending()));
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let mut body = While::new(Box::pin(endless), Box::pin(async move { ended.await.map_or("dropped", |()| "revoked") }));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
        end.send(()).unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "revoked");
        assert!(body.frame().await.is_none(), "and that is all");
    }
}
