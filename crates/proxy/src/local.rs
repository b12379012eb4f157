//! The seam to an ordinary application that answers requests itself.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tower_service::Service;

use crate::{Body, BoxError};

/// An application on the ordinary multi-thread runtime. Cloned once per request.
///
/// A call runs to its end even if the caller goes away, so that a change is never half made; its request body then
/// yields an error. `hyper::upgrade::on(request)` works as with hyper itself.
pub trait Local: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn call(&self, request: Request<Incoming>, peer: SocketAddr) -> impl Future<Output = Response<Body>> + Send;
}

/// Address of the TCP connection that a request came by; an extension of requests that go through [`Tower`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Makes a [`Local`] of a tower service, such as an axum `Router`.
#[derive(Clone, Debug)]
pub struct Tower<S>(pub S);

impl<S, B> Local for Tower<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    async fn call(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        request.extensions_mut().insert(Peer(peer));
        let mut service = self.0.clone();
        let ready = std::future::poll_fn(|context| service.poll_ready(context)).await;
        let answer = match ready {
            Ok(()) => service.call(request).await,
            Err(never) => Err(never),
        };
        match answer {
            Ok(response) => response.map(Body::new),
            Err(never) => match never {},
        }
    }
}

/// For a server without an application: knows no path.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Local for Nothing {
    async fn call(&self, _request: Request<Incoming>, _peer: SocketAddr) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }
}
