//! One request before it is sent: method, escaped path, headers, query, body.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use convox_wire::form::Params;
use convox_wire::options::{Options, Placed};
use futures_util::Stream;
use http::{HeaderName, HeaderValue, Method};
use http_body::{Frame, SizeHint};

use crate::Error;
use crate::reply::lock;

/// A request in the making. Paths are given in pieces, each of which becomes exactly one segment.
#[derive(Debug)]
pub struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) query: String,
    pub(crate) body: Body,
    pub(crate) form: Params,
}

impl Call {
    /// `method /a/b/c` from `["a", "b", "c"]`.
    ///
    /// # Errors
    /// [`Error::Input`] when a piece is empty, `.` or `..`: such a piece would name something else than it says.
    pub fn new(method: Method, pieces: &[&str]) -> Result<Self, Error> {
        let mut path = String::new();
        for piece in pieces {
            if piece.is_empty() || *piece == "." || *piece == ".." {
                return Err(Error::input(match *piece {
                    "" => "a name in the request is empty".to_owned(),
                    dots => format!("`{dots}` is no name"),
                }));
            }
            path.push('/');
            escape_segment(piece, &mut path);
        }
        if path.is_empty() {
            path.push('/');
        }
        Ok(Self::raw(method, path))
    }

    /// A path that is already escaped: from a server's header, or from `convox api get`.
    pub fn raw(method: Method, path: String) -> Self {
        Self { method, path, headers: Vec::new(), query: String::new(), body: Body::empty(), form: Params::new() }
    }

    /// The same again, unless its body is a stream.
    pub(crate) fn again(&self) -> Option<Self> {
        Some(Self {
            method: self.method.clone(),
            path: self.path.clone(),
            headers: self.headers.clone(),
            query: self.query.clone(),
            body: self.body.again()?,
            form: self.form.clone(),
        })
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its path, escaped, without the query.
    pub fn path(&self) -> &str {
        self.path.split_once('?').map_or(&self.path, |(path, _)| path)
    }

    /// `GET`, from pieces; see [`Call::new`].
    pub fn get(pieces: &[&str]) -> Result<Self, Error> {
        Self::new(Method::GET, pieces)
    }

    /// `POST`, from pieces; see [`Call::new`].
    pub fn post(pieces: &[&str]) -> Result<Self, Error> {
        Self::new(Method::POST, pieces)
    }

    /// `PUT`, from pieces; see [`Call::new`].
    pub fn put(pieces: &[&str]) -> Result<Self, Error> {
        Self::new(Method::PUT, pieces)
    }

    /// `DELETE`, from pieces; see [`Call::new`].
    pub fn delete(pieces: &[&str]) -> Result<Self, Error> {
        Self::new(Method::DELETE, pieces)
    }

    /// Adds one header.
    ///
    /// # Errors
    /// [`Error::Input`] when the value cannot stand in a header (a line break).
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, Error> {
        let bad = || Error::input(format!("the value for {name} holds a line break or another control character"));
        let header = HeaderName::try_from(name).map_err(|_| bad())?;
        self.headers.push((header, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad())?));
        Ok(self)
    }

    /// Sets the query string.
    #[must_use]
    pub fn query(mut self, params: &Params) -> Self {
        self.query = params.encode();
        self
    }

    /// Sends `params` as a form.
    #[must_use]
    pub fn form(mut self, params: &Params) -> Self {
        self.body = Body::from(params.encode());
        self.form = params.clone();
        self
    }

    /// Adds one field to the form.
    #[must_use]
    pub(crate) fn form_value(self, key: &str, value: &str) -> Self {
        let form = self.form.clone().with(key, value);
        self.form(&form)
    }

    /// Puts every option where its field says: header, form or query.
    ///
    /// # Errors
    /// [`Error::Input`] when a value cannot stand in a header.
    pub fn options(mut self, options: &impl Options) -> Result<Self, Error> {
        let Placed { headers, form, query } = options.encode();
        for (name, value) in headers {
            self = self.header(name, &value)?;
        }
        if !query.is_empty() {
            self = self.query(&query);
        }
        if !form.is_empty() {
            self = self.form(&form);
        }
        Ok(self)
    }

    /// Sends raw bytes or a stream.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self.form = Params::new();
        self
    }
}

/// Go's path escape, and `/` too: a piece is one segment whatever is in it.
pub(crate) fn escape_segment(piece: &str, path: &mut String) {
    for byte in piece.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+=:@!,;()*'".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
}

type Chunks = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// A request body: nothing, bytes, or a stream that is sent in chunks as it comes.
pub struct Body {
    kind: Kind,
    moved: Option<Moved>,
}

/// Bytes are handed out in pieces of this size, so that a slow upload can be told from a silent server.
const PIECE: usize = 64 * 1024;

enum Kind {
    Bytes(Option<Bytes>),
    Chunks(Chunks),
}

impl Body {
    /// No body; `Content-Length: 0` on methods that carry one.
    pub fn empty() -> Self {
        Self { kind: Kind::Bytes(None), moved: None }
    }

    /// A stream of unknown length. A failing stream ends the request; the server sees it as cut off.
    pub fn stream(chunks: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Self {
        Self { kind: Kind::Chunks(Box::pin(chunks)), moved: None }
    }

    /// Lets the sender see when something last moved.
    pub(crate) fn watch(&mut self) -> Moved {
        self.moved.get_or_insert_with(Moved::new).clone()
    }

    /// The same again, if it was not a stream; for one retry.
    pub(crate) fn again(&self) -> Option<Self> {
        match &self.kind {
            Kind::Bytes(bytes) => Some(Self { kind: Kind::Bytes(bytes.clone()), moved: None }),
            Kind::Chunks(_) => None,
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let bytes: Bytes = bytes.into();
        Self { kind: Kind::Bytes((!bytes.is_empty()).then_some(bytes)), moved: None }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.kind {
            Kind::Bytes(bytes) => write!(f, "Body({} bytes)", bytes.as_ref().map_or(0, Bytes::len)),
            Kind::Chunks(_) => f.write_str("Body(stream)"),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let this = self.get_mut();
        if let Some(moved) = &this.moved {
            moved.now();
        }
        match &mut this.kind {
            Kind::Bytes(kept) => Poll::Ready(kept.take().map(|mut bytes| {
                if bytes.len() > PIECE {
                    let piece = bytes.split_to(PIECE);
                    *kept = Some(bytes);
                    return Ok(Frame::data(piece));
                }
                Ok(Frame::data(bytes))
            })),
            Kind::Chunks(chunks) => chunks.as_mut().poll_next(context).map(|next| next.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.kind, Kind::Bytes(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Chunks(_) => SizeHint::default(),
        }
    }
}

/// When a body last gave something away.
#[derive(Clone, Debug)]
pub(crate) struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(crate) fn now(&self) {
        *lock(&self.0) = Instant::now();
    }

    pub(crate) fn since(&self) -> Duration {
        lock(&self.0).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_one_segment_whatever_is_in_it() {
        let call = Call::get(&["apps", "a/b?c#d e%2f", "objects"]).unwrap();
        assert_eq!(call.path, "/apps/a%2Fb%3Fc%23d%20e%252f/objects");
        for bad in ["", ".", ".."] {
            assert!(Call::get(&["apps", bad]).is_err());
        }
    }

    #[test]
    fn a_header_with_a_line_break_is_refused() {
        assert!(Call::get(&["x"]).unwrap().header("Command", "a\r\nRack: b").is_err());
        assert!(Call::get(&["x"]).unwrap().header("Command", "grüße").is_ok());
    }
}
