//! The seam through which the decision comes in: head of a request -> [`Verdict`].
//!
//! A request is forwarded only with a [`Permit`], taken by value and held until the last byte of the answer. The permit
//! ends the exchange early when it is revoked, and hears of the outcome.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderName, HeaderValue, Response, StatusCode};

use crate::{Body, RequestId, Upstream};

/// Decides on each request, on the shard. Shared by all shards: what it reads should need no lock.
pub trait Gate: Send + Sync + 'static {
    /// What a forwarded request carries to its end.
    type Permit: Permit;

    /// Decides on one request. `head` is as the caller sent it, after the framing checks; `peer` is the address of the TCP
    /// connection. Whether the request opens a WebSocket is told by [`is_websocket`](crate::is_websocket) and by nothing else.
    ///
    /// No byte of the body has been read, and none is read while this waits.
    fn decide(&self, head: &Parts, peer: SocketAddr) -> impl Future<Output = Verdict<Self::Permit>> + Send;
}

/// What is done with a request.
#[derive(Debug)]
pub enum Verdict<P> {
    /// Send it on.
    Forward(Forward<P>),
    /// Hand it to the [`Local`](crate::Local) application, with what was learnt of it.
    Local(LocalHint),
    /// Answer at once.
    Reply(Response<Body>),
}

/// What the gate learnt of a request that the local application answers: merged into the request's extensions.
#[derive(Debug, Default)]
pub struct LocalHint(pub Extensions);

/// Where a request goes, and with what.
///
/// Everything that the caller said of who it is (`Authorization`, `Cookie`, `Session`, `Rack`, actor and forwarding
/// headers) has been taken out before the headers of this are put in. `Host` and `Origin` are rewritten.
#[derive(Debug)]
pub struct Forward<P> {
    /// Held until the exchange ends.
    pub permit: P,
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// The upstream's own credential. Marked sensitive by the relay if it is not yet.
    pub authorization: HeaderValue,
    /// Another path and query than the caller's, if it is to change.
    pub path_and_query: Option<PathAndQuery>,
    /// Headers to set, each replacing what the caller sent under the name.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Named in error texts and, if the upstream sends none, as `Request-Id` of the answer.
    pub request_id: RequestId,
}

/// Proof of a decision.
pub trait Permit: Send + Sync + 'static {
    /// Resolves when the decision no longer holds, and never before. Asked for only when an exchange takes longer than
    /// about a quarter of a second; a decision that was revoked by then must resolve at once.
    fn revoked(&self) -> Pin<Box<dyn Future<Output = Reason> + Send>>;

    /// Whether the decision no longer holds, without waiting. Asked just before the request is written, and again when a connection had
    /// to be opened for it first, which may have taken seconds.
    fn is_revoked(&self) -> bool {
        false
    }

    /// Another upstream that the decision also allows, asked for when no connection to `failed` could be opened. Nothing was
    /// sent to it, so sending the request elsewhere is safe whatever it asks for.
    fn instead(&self, _failed: &Upstream) -> Option<Arc<Upstream>> {
        None
    }

    /// Called once, when the exchange has ended however it did. Runs on the shard: hand over, don't write.
    fn finished(self, outcome: Outcome);
}

/// Why an open stream is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Close code of a WebSocket: 1008 for a policy, 1012 for a restart.
    pub code: u16,
    /// For a person: text of the close frame (cut to 123 bytes), or body of an answer that has not begun.
    pub text: String,
    /// Text messages sent to a WebSocket client just before the close frame, where no message is half sent. Clients that
    /// ignore close frames take their exit code from these.
    pub messages: Vec<String>,
}

impl Reason {
    /// A cut for a reason of policy.
    pub fn policy(text: impl Into<String>) -> Self {
        Self { code: 1008, text: text.into(), messages: Vec::new() }
    }
}

/// How an exchange ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Status sent to the caller; `None` if it went away before there was one. 101 for a tunnel.
    pub status: Option<StatusCode>,
    /// Body bytes from caller to upstream; for a tunnel, bytes after the 101.
    pub bytes_up: u64,
    /// Body bytes from upstream to caller; for a tunnel, bytes after the 101.
    pub bytes_down: u64,
    /// From the verdict to the end.
    pub duration: Duration,
    /// From the verdict to the head of the upstream's answer; `None` if there was none.
    pub answered_after: Option<Duration>,
    /// False if the answer was cut: by revocation, by either side, or by a limit.
    pub complete: bool,
}

/// The permit of a server that never forwards.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Never {}

impl Permit for Never {
    fn revoked(&self) -> Pin<Box<dyn Future<Output = Reason> + Send>> {
        match *self {}
    }

    fn finished(self, _outcome: Outcome) {
        match self {}
    }
}
