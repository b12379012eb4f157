//! One call as handlers see it, and what they give back.

use bytes::Bytes;
use convox_db::DbError;
use convox_proxy::{Body, RequestId};
use convox_wire::form::Params;
use convox_wire::options::{OptionError, Options, Source};
use convox_wire::routes::Match;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Serialize;

use crate::auth::Caller;

/// A form is options and an environment, no upload.
const LARGEST_FORM: usize = 8 << 20;

/// What a handler works with.
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) headers: HeaderMap,
    vars: Vec<(&'static str, String)>,
    form: Params,
    query: Params,
    body: Option<Incoming>,
}

impl Call {
    /// Reads a form body at once; leaves any other body to the handler.
    pub(crate) async fn read(found: &Match<'_>, request: Request<Incoming>, caller: Caller) -> Result<Self, ApiError> {
        let vars = found.vars().map(|(name, value)| (name, unescaped(value))).collect();
        let (parts, body) = request.into_parts();
        let bad = |what: &str, error: &dyn std::fmt::Display| {
            ApiError::new(StatusCode::BAD_REQUEST, format!("the {what} cannot be read: {error}"))
        };
        let query = Params::parse(parts.uri.query().unwrap_or_default()).map_err(|error| bad("query", &error))?;
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_form = kind.starts_with("application/x-www-form-urlencoded");
        let mut call = Self { caller, headers: parts.headers, vars, form: Params::new(), query, body: None };
        if is_form {
            let bytes = Limited::new(body, LARGEST_FORM).collect().await.map_err(|error| bad("form", &error))?.to_bytes();
            let text = std::str::from_utf8(&bytes).map_err(|error| bad("form", &error))?;
            call.form = Params::parse(text).map_err(|error| bad("form", &error))?;
        } else {
            call.body = Some(body);
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

    /// The raw body; `None` when it was a form.
    pub(crate) fn take_body(&mut self) -> Option<Incoming> {
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
            tracing::error!(request.id = %id, status = self.status.as_u16(), message = %self.message, "a request failed");
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

impl From<crate::scheduler::SchedulerError> for ApiError {
    fn from(error: crate::scheduler::SchedulerError) -> Self {
        use crate::runtime::RuntimeError;
        use crate::scheduler::SchedulerError;
        let status = match &error {
            SchedulerError::NoService(_) | SchedulerError::NoApp(_) | SchedulerError::Runtime(RuntimeError::NotFound(_)) => {
                StatusCode::NOT_FOUND
            }
            SchedulerError::Environment(_) | SchedulerError::Manifest(_) => StatusCode::BAD_REQUEST,
            SchedulerError::Runtime(RuntimeError::NotRunning(_) | RuntimeError::Exists(_)) => StatusCode::CONFLICT,
            SchedulerError::Resource(_) => StatusCode::BAD_REQUEST,
            SchedulerError::Runtime(_) | SchedulerError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
