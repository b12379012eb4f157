//! Answers of the Console itself, in the forms that the clients read (protocol 1.6, 1.7).

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// An error: plain text with a newline, or `{"error":...}` for those who accept exactly JSON. An empty message is an empty body.
pub(crate) fn error(status: StatusCode, message: &str, wants_json: bool) -> Response<String> {
    let message = convox_wire::error::safe_message(message);
    let (body, kind) = match (message.is_empty(), wants_json) {
        (true, _) => (String::new(), "text/plain; charset=utf-8"),
        (false, true) => (convox_wire::error::json_body(&message), "application/json"),
        (false, false) => (format!("{message}\n"), "text/plain; charset=utf-8"),
    };
    build(status, kind, body)
}

/// Whether a caller asks for errors as JSON: only if it accepts exactly that, as the originals decide.
pub(crate) fn wants_json(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_some_and(|accept| accept == "application/json")
}

/// A value as JSON in Go's form.
pub(crate) fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<String> {
    build(status, "application/json", convox_wire::api::to_go_json(value).unwrap_or_default())
}

/// Text as it is.
pub(crate) fn text(body: impl Into<String>) -> Response<String> {
    build(StatusCode::OK, "text/plain; charset=utf-8", body.into())
}

fn build(status: StatusCode, kind: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    response
}
