//! Sends one request upstream and brings the answer back: the data path. Start reading here.
//!
//! A connection of this shard's pool is used if there is one. A request is sent a second time only if the first attempt
//! cannot have been acted on: it was never written, or it asks for nothing to change, has no body, and went out on a used
//! connection that was closed without a byte of reply.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::exchange::Exchange;
use crate::fault::{Fault, REQUEST_ID};
use crate::gate::{Forward, Permit};
use crate::pool::{self, Connection};
use crate::reply::Reply;
use crate::stats::{self, Stat};
use crate::upload::{Progress, Upload};
use crate::upstream::Upstream;
use crate::watch::{Phase, Watch};
use crate::websocket::{self, is_websocket};
use crate::{Limits, RequestId, connect, headers, tunnel};

/// How long both sides of an upgrade may take to hand over their connection.
const HAND_OVER: Duration = Duration::from_secs(10);

/// What a relay needs to know of its shard.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) watch: &'a Arc<Watch>,
    /// Cuts tunnels that outlast the drain.
    pub(crate) cut: &'a CancellationToken,
    /// The request has an `Upgrade` header.
    pub(crate) upgrading: bool,
    pub(crate) peer: SocketAddr,
}

/// Forwards `head` and `body`, and answers with the upstream's reply or with why there is none.
pub(crate) async fn relay<P: Permit>(context: Context<'_>, mut head: Parts, body: Incoming, forward: Forward<P>) -> Response<Reply<P>> {
    let Forward { permit, upstream, authorization, path_and_query, add, request_id } = forward;
    let mut exchange = Exchange::new(permit);
    let upgrade = if context.upgrading && is_websocket(&head) { head.extensions.remove::<OnUpgrade>() } else { None };
    let upload = if body.is_end_stream() {
        Upload::None
    } else {
        let progress = Arc::new(Progress::default());
        exchange.upload = Some(Arc::clone(&progress));
        let watch = (head.version == Version::HTTP_2).then(|| Arc::clone(context.watch));
        Upload::Body { incoming: body, progress, watch }
    };
    let chunked = !upload.is_end_stream() && upload.size_hint().exact().is_none();
    headers::to_upstream(&mut head, &upstream, authorization, add, upgrade.is_some(), chunked);
    if let Some(path_and_query) = path_and_query {
        head.uri = Uri::from(path_and_query);
    }
    head.extensions.clear();
    let request = Request::from_parts(head, upload);

    context.watch.enter(Phase::Upstream);
    let sent = {
        let attempt = std::pin::pin!(send(&upstream, context.limits, exchange.permit(), request, upgrade.is_some()));
        watched(context.watch, exchange.permit(), attempt).await
    };
    match sent {
        Ok((response, connection, upstream)) => answer(context, upstream, connection, response, exchange, upgrade, request_id),
        Err(fault) => failed(context, &upstream, &fault, exchange, request_id),
    }
}

/// Polls `attempt` until it ends, is overdue, or the permit is revoked.
async fn watched<P: Permit, T>(
    watch: &Arc<Watch>,
    permit: Option<&P>,
    mut attempt: std::pin::Pin<&mut impl Future<Output = Result<T, Fault>>>,
) -> Result<T, Fault> {
    let mut revoked = None;
    std::future::poll_fn(|context| {
        if let Poll::Ready(sent) = attempt.as_mut().poll(context) {
            return Poll::Ready(sent);
        }
        if watch.is_attended() {
            if watch.is_overdue() {
                return Poll::Ready(Err(Fault::ReplyTimedOut));
            }
            if revoked.is_none() {
                revoked = permit.map(Permit::revoked);
            }
            if let Some(revoked) = &mut revoked
                && let Poll::Ready(reason) = revoked.as_mut().poll(context)
            {
                return Poll::Ready(Err(Fault::Revoked(reason)));
            }
        }
        Poll::Pending
    })
    .await
}

/// An answer, the connection that it came on, and whose that is.
type Sent = (Response<Incoming>, Connection, Arc<Upstream>);

async fn send<P: Permit>(
    upstream: &Arc<Upstream>,
    limits: &Limits,
    permit: Option<&P>,
    mut request: Request<Upload>,
    upgrade: bool,
) -> Result<Sent, Fault> {
    // What the gate did last may have taken a while, in which the right may have ended.
    if permit.is_none_or(Permit::is_revoked) {
        return Err(Fault::RevokedBefore);
    }
    if !upgrade && let Some(mut connection) = pool::take(upstream) {
        let spare = (request.method().is_idempotent() && request.body().is_end_stream()).then(|| copy(&request));
        connection.begin();
        stats::add(Stat::Reused, 1);
        match connection.sender.try_send_request(request).await {
            Ok(response) => return Ok((response, connection, Arc::clone(upstream))),
            Err(mut error) => match (error.take_message(), spare) {
                (Some(unsent), _) => request = unsent,
                (None, Some(spare)) if !connection.has_heard() => request = spare,
                (None, _) => return Err(Fault::of_exchange(&error.into_error())),
            },
        }
    }
    Box::pin(send_anew(upstream, limits, permit, request, upgrade)).await
}

async fn send_anew<P: Permit>(
    upstream: &Arc<Upstream>,
    limits: &Limits,
    permit: Option<&P>,
    request: Request<Upload>,
    upgrade: bool,
) -> Result<Sent, Fault> {
    let mut upstream = Arc::clone(upstream);
    let mut connection = loop {
        match connect::open(&upstream, limits, upgrade).await {
            Ok(connection) => break connection,
            // Nothing was sent, so another one may have it.
            Err(fault) => {
                stats::add(Stat::Failed, 1);
                match permit.and_then(|permit| permit.instead(&upstream)) {
                    Some(other) => upstream = other,
                    None => return Err(fault),
                }
            }
        }
    };
    stats::add(Stat::Opened, 1);
    if permit.is_none_or(Permit::is_revoked) {
        return Err(Fault::RevokedBefore);
    }
    match connection.sender.send_request(request).await {
        Ok(response) => Ok((response, connection, upstream)),
        Err(error) => Err(Fault::of_exchange(&error)),
    }
}

/// The same request again, for one without a body.
fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::None);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}

fn answer<P: Permit>(
    context: Context<'_>,
    upstream: Arc<Upstream>,
    connection: Connection,
    mut response: Response<Incoming>,
    mut exchange: Exchange<P>,
    upgrade: Option<OnUpgrade>,
    request_id: RequestId,
) -> Response<Reply<P>> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let checked = if switched && (upgrade.is_none() || !websocket::names(response.headers(), header::UPGRADE, "websocket")) {
        Err("it switched to a protocol that nobody asked for")
    } else {
        headers::to_caller(response.headers_mut())
    };
    *response.version_mut() = Version::HTTP_11;
    match checked {
        Ok(true) => {}
        Ok(false) => {
            response.headers_mut().insert(REQUEST_ID, request_id.header());
        }
        Err(why) => return failed(context, &upstream, &Fault::BadReply(why.to_owned()), exchange, request_id),
    }
    exchange.answered(response.status());
    match upgrade {
        Some(caller) if switched => {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            let upstream = hyper::upgrade::on(&mut response);
            let (watch, cut, peer) = (Arc::clone(context.watch), context.cut.clone(), context.peer);
            tokio::spawn(tunnel(caller, upstream, connection, exchange, watch, cut, peer));
            response.map(|_| Reply::made(crate::Body::empty(), Arc::clone(context.watch)))
        }
        Some(_) => {
            // What follows on the caller's connection may be meant for the tunnel that is not.
            close(&mut response);
            context.watch.set_unread();
            response.map(|incoming| Reply::relayed(incoming, exchange, Arc::clone(context.watch)))
        }
        None => {
            if exchange.upload.as_ref().is_some_and(|progress| !progress.is_complete()) {
                context.watch.set_unread();
            }
            exchange.connection = Some((upstream, connection));
            response.map(|incoming| Reply::relayed(incoming, exchange, Arc::clone(context.watch)))
        }
    }
}

fn failed<P: Permit>(
    context: Context<'_>,
    upstream: &Upstream,
    fault: &Fault,
    mut exchange: Exchange<P>,
    request_id: RequestId,
) -> Response<Reply<P>> {
    debug!(%request_id, upstream = upstream.id(), ?fault, "no reply to pass on");
    let mut response = fault.response(upstream, request_id);
    exchange.status = Some(response.status());
    // Part of a body may have gone to nowhere.
    if exchange.upload.is_some() {
        close(&mut response);
        context.watch.set_unread();
    }
    response.map(|body| Reply::made(body, Arc::clone(context.watch)))
}

pub(crate) fn close<B>(response: &mut Response<B>) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

async fn tunnel<P: Permit>(
    caller: OnUpgrade,
    upstream: OnUpgrade,
    connection: Connection,
    mut exchange: Exchange<P>,
    watch: Arc<Watch>,
    cut: CancellationToken,
    peer: SocketAddr,
) {
    let both = async { tokio::try_join!(caller, upstream) };
    let Ok(Ok((caller, upstream))) = tokio::time::timeout(HAND_OVER, both).await else {
        debug!(%peer, "a tunnel ended before it began");
        return;
    };
    // Its task has handed the stream over and ended.
    drop(connection);
    let Some(permit) = exchange.permit() else { return };
    let _open = stats::Open::new(Stat::Tunnels);
    let moved = tunnel::run(caller, upstream, permit, &watch, &cut).await;
    exchange.bytes_up = moved.up;
    exchange.bytes_down = moved.down;
    exchange.complete = moved.complete;
}
