//! One request: checks its head, asks the gate, and does what it says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::fault::text_response;
use crate::headers::{self, Refusal};
use crate::relay::{self, close, relay};
use crate::reply::Reply;
use crate::shard::Shard;
use crate::watch::Watch;
use crate::{Body, Gate, Local, LocalHint, RequestId, Verdict};

pub(crate) async fn request<G: Gate, L: Local>(
    shard: &Shard<G, L>,
    request: Request<Incoming>,
    peer: SocketAddr,
    watch: &Arc<Watch>,
) -> Result<Response<Reply<G::Permit>>, Infallible> {
    watch.begin();
    let (head, body) = request.into_parts();
    let unread = !body.is_end_stream();
    let checked = if watch.is_ambiguous() { Err(Refusal("the framing of the request is ambiguous")) } else { headers::check(&head) };
    let upgrading = match checked {
        Ok(upgrading) => upgrading,
        Err(Refusal(why)) => {
            watch.set_unread();
            let mut response = text_response(StatusCode::BAD_REQUEST, format!("bad request: {why}\n"), Some(RequestId::next()));
            close(&mut response);
            return Ok(made(response, watch));
        }
    };
    let mut response = match shard.gate.decide(&head, peer).await {
        Verdict::Forward(forward) => {
            let context = relay::Context { limits: &shard.limits, watch, cut: &shard.cut, upgrading, peer };
            relay(context, head, body, forward).await
        }
        Verdict::Local(hint) => made(local(shard, Request::from_parts(head, body), peer, hint).await, watch),
        Verdict::Reply(response) => {
            if unread {
                watch.set_unread();
            }
            made(response, watch)
        }
    };
    if watch.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        close(&mut response);
    }
    // After an upgrade that did not come about, bytes may follow that were meant for the other protocol.
    if upgrading && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        watch.set_unread();
        close(&mut response);
    }
    Ok(response)
}

fn made<P: crate::Permit>(response: Response<Body>, watch: &Arc<Watch>) -> Response<Reply<P>> {
    response.map(|body| Reply::made(body, Arc::clone(watch)))
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
        Err(_) => text_response(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n", Some(RequestId::next())),
    }
}
