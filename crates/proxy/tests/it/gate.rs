//! A gate that knows callers by `Authorization: Bearer NAME`, keeps what it allowed, and can revoke; and a server with it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use convox_proxy::{
    Body, Forward, Gate, Limits, Local, LocalHint, Outcome, Permit, Reason, RequestId, Server, TlsServer, Upstream, Verdict, is_websocket,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::raw::soon;

pub(crate) const CREDENTIAL: &str = "Basic Y29udm94OnJhY2stcGFzc3dvcmQ=";

#[derive(Default)]
pub(crate) struct State {
    pub(crate) upstream: Mutex<Option<Arc<Upstream>>>,
    revoked: Mutex<HashMap<String, CancellationToken>>,
    /// `METHOD path actor` of everything that was let through.
    pub(crate) allowed: Mutex<Vec<String>>,
    pub(crate) outcomes: Mutex<Vec<Outcome>>,
}

impl State {
    fn token(&self, name: &str) -> CancellationToken {
        self.revoked.lock().unwrap().entry(name.to_owned()).or_default().clone()
    }

    pub(crate) fn revoke(&self, name: &str) {
        self.token(name).cancel();
    }

    pub(crate) async fn outcome(&self, count: usize) -> Outcome {
        soon("the outcome", async {
            loop {
                if let Some(outcome) = self.outcomes.lock().unwrap().get(count - 1) {
                    return outcome.clone();
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

#[derive(Clone)]
pub(crate) struct Names(pub(crate) Arc<State>);

pub(crate) struct Named {
    state: Arc<State>,
    revoked: CancellationToken,
}

impl Permit for Named {
    fn revoked(&self) -> Pin<Box<dyn Future<Output = Reason> + Send>> {
        let revoked = self.revoked.clone();
        Box::pin(async move {
            revoked.cancelled().await;
            Reason { messages: vec!["ERROR: the key was revoked\n".to_owned()], ..Reason::policy("the key was revoked") }
        })
    }

    fn is_revoked(&self) -> bool {
        self.revoked.is_cancelled()
    }

    fn finished(self, outcome: Outcome) {
        self.state.outcomes.lock().unwrap().push(outcome);
    }
}

impl Gate for Names {
    type Permit = Named;

    async fn decide(&self, head: &Parts, _peer: SocketAddr) -> Verdict<Named> {
        if head.uri.path().starts_with("/local") {
            return Verdict::Local(LocalHint::default());
        }
        let name = head.headers.get("authorization").and_then(|value| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
        let Some(name) = name.filter(|name| ["alice", "bob"].contains(name)) else {
            let mut response = Response::new(Body::from("who are you?\n"));
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            return Verdict::Reply(response);
        };
        let kind = if is_websocket(head) { "socket" } else { "request" };
        let path = head.uri.path_and_query().map_or("*", |path| path.as_str());
        self.0.allowed.lock().unwrap().push(format!("{} {path} {name} {kind}", head.method));
        // The right ends while the gate is still at work.
        if path.starts_with("/late") {
            self.0.revoke(name);
        }
        Verdict::Forward(Forward {
            permit: Named { state: Arc::clone(&self.0), revoked: self.0.token(name) },
            upstream: Arc::clone(self.0.upstream.lock().unwrap().as_ref().unwrap()),
            authorization: HeaderValue::from_static(CREDENTIAL),
            path_and_query: None,
            add: vec![(HeaderName::from_static("convox-actor"), HeaderValue::from_str(name).unwrap())],
            request_id: RequestId::next(),
        })
    }
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Proxy {
    pub(crate) async fn before(rack: SocketAddr) -> Self {
        Self::with(upstream(rack), Limits::default(), None, convox_proxy::Nothing, 1).await
    }

    pub(crate) async fn limited(rack: SocketAddr, limits: Limits) -> Self {
        Self::with(upstream(rack), limits, None, convox_proxy::Nothing, 1).await
    }

    pub(crate) async fn with(upstream: Upstream, limits: Limits, tls: Option<TlsServer>, local: impl Local, shards: usize) -> Self {
        let state = Arc::new(State::default());
        *state.upstream.lock().unwrap() = Some(Arc::new(upstream));
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), shards, tls).unwrap().with_limits(limits);
        let address = server.local_addr();
        let stop = CancellationToken::new();
        let ended = tokio::spawn(server.run(Names(Arc::clone(&state)), local, stop.clone().cancelled_owned()));
        Self { address, state, stop, ended }
    }

    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    pub(crate) async fn ended(self) {
        soon("the end of the server", self.ended).await.unwrap().unwrap();
    }
}

pub(crate) fn upstream(rack: SocketAddr) -> Upstream {
    Upstream::new("rack", 1, &rack.ip().to_string(), rack.port(), None).unwrap()
}

/// A request of `name`, with these further header lines, each ended by CRLF.
pub(crate) fn request(method: &str, path: &str, name: &str, lines: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: console\r\nAuthorization: Bearer {name}\r\n{lines}\r\n")
}
