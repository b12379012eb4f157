//! One request: asks the gate, and does what it says.

use std::convert::Infallible;
use std::net::SocketAddr;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::shard::Shard;
use crate::{Body, Gate, Local, LocalHint, Verdict};

pub(crate) async fn request<G: Gate, L: Local>(
    shard: &Shard<G, L>,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    Ok(match shard.gate.decide(&parts, peer).await {
        Verdict::Reply(response) => response,
        Verdict::Local(hint) => local(shard, Request::from_parts(parts, body), peer, hint).await,
        Verdict::Forward(_) => status(StatusCode::BAD_GATEWAY),
    })
}

/// Runs the application on its own runtime, so that it cannot hold up this shard.
async fn local<G: Gate, L: Local>(
    shard: &Shard<G, L>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    hint: LocalHint,
) -> Response<Body> {
    request.extensions_mut().extend(hint.0);
    let local = shard.local.clone();
    match shard.ordinary.spawn(async move { local.call(request, peer).await }).await {
        Ok(response) => response,
        // It panicked, and has been reported by the panic hook.
        Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
