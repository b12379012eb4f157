//! The client: one target, one connection kept between calls, every answer turned into a value or a named error.
//!
//! We drive the connection ourselves (TCP, TLS, handshake) instead of using a ready-made client, so that each step's
//! failure keeps its own name, and so that nothing of the key is written before the certificate has been accepted.

use std::sync::{Arc, Mutex};

use convox_tls::{Fingerprint, TlsError, TlsFault, Trust};
use convox_wire::basic::Basic;
use convox_wire::session::SessionDemand;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use http::{Method, Request, Response};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::call::{Body, Call};
use crate::connect::{self, Stream, peer};
use crate::reply::{ANSWER, Idle, Kept, Reply, explain, lock, refusal};
use crate::session::Answerer;
use crate::{Endpoint, Error, Proxies, Scheme};

/// The longest JSON answer that is read.
const LONGEST_VALUE: usize = 256 * 1024 * 1024;
/// How much of an error's body is read.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// Every released original sends this, so it is the only value that their servers have ever seen.
const VERSION_HEADER: &str = "dev";

/// What travels with every request besides the key.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The Rack that a Console is to forward to, as `org/rack`.
    pub rack: Option<String>,
    /// The id of a session with a second factor, if there is one.
    pub session: Option<String>,
    /// `X-Convox-Actor`: who asks, where a Rack is spoken to directly.
    pub actor: Option<String>,
    /// Proxies from the environment.
    pub proxies: Proxies,
    /// Who answers when a server demands a session; without one the demand is an error.
    pub answerer: Option<Answerer>,
}

/// Speaks to one Console or Rack.
pub struct Client {
    endpoint: Endpoint,
    trust: Trust,
    context: Context,
    tls: Mutex<Option<Arc<rustls::ClientConfig>>>,
    idle: Idle,
    seen: Mutex<Option<Fingerprint>>,
    /// The session as it is now: one that was demanded meanwhile takes the place of the context's.
    session: Mutex<Option<String>>,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(endpoint: Endpoint, trust: Trust, context: Context) -> Self {
        let session = Mutex::new(context.session.clone());
        Self { endpoint, trust, context, tls: Mutex::new(None), idle: Arc::default(), seen: Mutex::new(None), session }
    }

    /// Where it speaks to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The Rack named in each request, if any.
    pub fn rack(&self) -> Option<&str> {
        self.context.rack.as_deref()
    }

    /// The same connection and key, with every further request meant for `rack` (of a Console).
    #[must_use]
    pub fn with_rack(mut self, rack: String) -> Self {
        self.context.rack = Some(rack);
        self
    }

    /// Fingerprint of the certificate that the last connection proved; `None` before, and in clear text.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        *lock(&self.seen)
    }

    /// Connects and does the TLS handshake, and sends nothing. The connection serves the next call.
    pub async fn connect(&self) -> Result<(), Error> {
        if lock(&self.idle).as_ref().is_some_and(|kept| !kept.sender.is_closed()) {
            return Ok(());
        }
        let sender = self.dial().await?;
        *lock(&self.idle) = Some(Kept { sender, is_used: false });
        Ok(())
    }

    /// Sends a request and gives the answer as soon as its head is there. A status from 300 up is an error; but if the server demands a
    /// session and there is somebody to answer for one, the request is sent again with it.
    pub async fn send(&self, call: Call) -> Result<Reply, Error> {
        let again = self.context.answerer.is_some().then(|| call.again()).flatten();
        match (self.attempted(call).await, again) {
            (Err(Error::Session { demand, host }), Some(again)) => {
                self.open(&demand, host).await?;
                self.attempted(again).await
            }
            (outcome, _) => outcome,
        }
    }

    /// Answers a demand for a session: what is sent from now on carries it.
    pub(crate) async fn open(&self, demand: &SessionDemand, host: String) -> Result<(), Error> {
        let Some(Answerer(answerer)) = &self.context.answerer else { return Err(Error::Session { host, demand: demand.clone() }) };
        let id = answerer.answer(self, demand).await?;
        *lock(&self.session) = Some(id);
        Ok(())
    }

    /// Sends a request once, whatever comes back.
    pub(crate) async fn attempted(&self, call: Call) -> Result<Reply, Error> {
        let reply = self.exchange(call).await?;
        self.accept(reply).await
    }

    /// Sends a request and decodes the JSON answer.
    pub async fn value<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let reply = self.send(call).await?;
        let host = peer(&self.endpoint);
        let bytes = reply.bytes(LONGEST_VALUE).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::Protocol { host, reason: format!("not the JSON that was expected ({error})") })
    }

    /// Sends a request whose answer says nothing but that it worked.
    pub async fn done(&self, call: Call) -> Result<(), Error> {
        self.send(call).await?.bytes(LONGEST_VALUE).await.map(drop)
    }

    pub(crate) async fn stream(&self) -> Result<Stream, Error> {
        let tls = match self.endpoint.scheme() {
            Scheme::Http => None,
            Scheme::Https => Some(self.tls_config()?),
        };
        let stream = connect::open(&self.endpoint, &self.context.proxies, tls).await?;
        *lock(&self.seen) = stream.fingerprint();
        Ok(stream)
    }

    fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>, Error> {
        let mut kept = lock(&self.tls);
        if let Some(config) = &*kept {
            return Ok(Arc::clone(config));
        }
        let config = convox_tls::client_config(&self.trust).map_err(|error| match error {
            // A machine without authorities trusts nobody; a pin still works there.
            TlsError::NoRoots(_) => Error::Tls { host: peer(&self.endpoint), fault: TlsFault::UnknownIssuer },
            other => Error::input(other.to_string()),
        })?;
        *kept = Some(Arc::clone(&config));
        Ok(config)
    }

    async fn dial(&self) -> Result<SendRequest<Body>, Error> {
        let stream = self.stream().await?;
        let (sender, connection) = handshake(stream, &self.endpoint).await?;
        tokio::spawn(async move {
            // Its error reaches whoever waits for the answer.
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// Headers of protocol section 1.2, for plain requests and for WebSockets.
    pub(crate) fn common_headers(&self, headers: &mut HeaderMap) -> Result<(), Error> {
        let bad = |what: &str| Error::input(format!("{what} holds a character that cannot be sent"));
        headers.insert(HOST, HeaderValue::from_str(self.endpoint.authority()).map_err(|_| bad("the host"))?);
        if let Some(password) = self.endpoint.password() {
            let mut value = HeaderValue::from_str(&Basic::header(self.endpoint.user(), password.expose())).map_err(|_| bad("the key"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("convox/", env!("CARGO_PKG_VERSION"))));
        headers.insert("version", HeaderValue::from_static(VERSION_HEADER));
        let session = lock(&self.session).clone();
        for (name, value) in [("rack", &self.context.rack), ("session", &session), ("x-convox-actor", &self.context.actor)] {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| bad(name))?);
            }
        }
        Ok(())
    }

    fn request(&self, call: Call) -> Result<Request<Body>, Error> {
        let mut target = format!("{}{}", self.endpoint.prefix(), call.path);
        if !call.query.is_empty() {
            target.push('?');
            target.push_str(&call.query);
        }
        let mut request = Request::new(call.body);
        *request.method_mut() = call.method;
        *request.uri_mut() = target.parse().map_err(|_| Error::input(format!("`{}` is no path", call.path)))?;
        let headers = request.headers_mut();
        self.common_headers(headers)?;
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let kind = if !call.form.is_empty() { "application/x-www-form-urlencoded" } else { "application/octet-stream" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        // What a call says takes the place of what is said without it; it may say several of one name.
        for (name, _) in &call.headers {
            headers.remove(name);
        }
        headers.extend(call.headers);
        Ok(request)
    }

    pub(crate) async fn exchange(&self, call: Call) -> Result<Reply, Error> {
        let safe = matches!(call.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let mut request = self.request(call)?;
        let kept = lock(&self.idle).take().filter(|kept| !kept.sender.is_closed());
        if let Some(Kept { mut sender, is_used }) = kept
            && timeout(ANSWER, sender.ready()).await.is_ok_and(|ready| ready.is_ok())
        {
            let again = if safe && is_used { again(&request) } else { None };
            match self.attempt(sender, request).await {
                Ok(reply) => return Ok(reply),
                // The server closed the kept connection meanwhile. What was not sent may be sent again; what was may, if it changes nothing.
                Err((_, Some(unsent))) => request = *unsent,
                Err((error @ Error::Closed { .. }, None)) => match again {
                    Some(copy) => request = copy,
                    None => return Err(error),
                },
                Err((error, None)) => return Err(error),
            }
        }
        let sender = self.dial().await?;
        self.attempt(sender, request).await.map_err(|(error, _)| error)
    }

    /// One request on one connection. On failure, the request comes back if not a byte of it was sent.
    async fn attempt(
        &self,
        mut sender: SendRequest<Body>,
        mut request: Request<Body>,
    ) -> Result<Reply, (Error, Option<Box<Request<Body>>>)> {
        let host = peer(&self.endpoint);
        let moved = request.body_mut().watch();
        let sending = sender.try_send_request(request);
        tokio::pin!(sending);
        let answered = loop {
            match timeout(ANSWER, &mut sending).await {
                Ok(answered) => break answered,
                // A slow upload is not a silent server.
                Err(_) if moved.since() < ANSWER => {}
                Err(_) => return Err((Error::Timeout { host, doing: "waiting for the answer" }, None)),
            }
        };
        match answered {
            Ok(response) => {
                let (head, body) = response.into_parts();
                Ok(Reply {
                    status: head.status.as_u16(),
                    headers: head.headers,
                    host,
                    body,
                    sender: Some(sender),
                    idle: Arc::clone(&self.idle),
                })
            }
            Err(mut failed) => {
                let unsent = failed.take_message().map(Box::new);
                let error = failed.into_error();
                Err((explain(&peer(&self.endpoint), &error), unsent))
            }
        }
    }

    /// Turns every status that is not a success into its error.
    pub(crate) async fn accept(&self, reply: Reply) -> Result<Reply, Error> {
        if (200..300).contains(&reply.status) {
            return Ok(reply);
        }
        let host = peer(&self.endpoint);
        if (300..400).contains(&reply.status) {
            let location = reply.headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("an unnamed place");
            return Err(Error::Redirect { host, location: location.chars().filter(|char| !char.is_control()).take(300).collect() });
        }
        let (status, headers) = (reply.status, reply.headers.clone());
        let body = reply.bytes(LONGEST_MESSAGE).await.unwrap_or_default();
        Err(refusal(host, status, &headers, &body))
    }
}

pub(crate) async fn handshake(
    stream: Stream,
    endpoint: &Endpoint,
) -> Result<(SendRequest<Body>, http1::Connection<TokioIo<Stream>, Body>), Error> {
    http1::Builder::new()
        .title_case_headers(true)
        .max_headers(200)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| explain(&peer(endpoint), &error))
}

fn again(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().again()?);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}

/// Switches a connection to another protocol: sends `request`, wants 101.
pub(crate) async fn upgrade(client: &Client, mut request: Request<Body>) -> Result<(Response<()>, hyper::upgrade::Upgraded), Error> {
    let host = peer(client.endpoint());
    let stream = client.stream().await?;
    client.common_headers(request.headers_mut())?;
    let (mut sender, connection) = handshake(stream, client.endpoint()).await?;
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    let response = timeout(ANSWER, sender.send_request(request))
        .await
        .map_err(|_| Error::Timeout { host: host.clone(), doing: "opening a socket" })?
        .map_err(|error| explain(&host, &error))?;
    if response.status().as_u16() == 101 {
        let (head, ()) = Response::new(()).into_parts();
        let mut bare = Response::from_parts(head, ());
        bare.headers_mut().clone_from(response.headers());
        let upgraded = timeout(ANSWER, hyper::upgrade::on(response))
            .await
            .map_err(|_| Error::Timeout { host: host.clone(), doing: "opening a socket" })?
            .map_err(|error| explain(&host, &error))?;
        return Ok((bare, upgraded));
    }
    let (head, body) = response.into_parts();
    let status = head.status.as_u16();
    let reply = Reply { status, headers: head.headers, host: host.clone(), body, sender: None, idle: Arc::default() };
    match client.accept(reply).await {
        Ok(_) => Err(Error::Protocol { host, reason: format!("it answered {status} instead of opening a socket") }),
        Err(error) => Err(error),
    }
}
