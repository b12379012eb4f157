//! Sends one request upstream and brings the answer back: the data path. Start reading here.
//!
//! A connection of this shard's pool is used if there is one. A request is sent a second time only if the first attempt
//! cannot have been acted on: it has no body, went out on a used connection that was closed without a byte of reply, and asks for
//! nothing to change or was not written at all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, Uri, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::conversation::{Conversation, Request};
use crate::exchange::Exchange;
use crate::fault::{Fault, REQUEST_ID};
use crate::gate::{Forward, Permit};
use crate::pool;
use crate::reply::Reply;
use crate::request_head::Length;
use crate::stats::{self, Stat};
use crate::tunnel::Opened;
use crate::upload::{Progress, Upload};
use crate::upstream::Upstream;
use crate::watch::{Phase, Watch};
use crate::websocket::{self, is_websocket};
use crate::{Limits, RequestId, connect, headers, request_head, tunnel};

/// How long the caller's side of an upgrade may take to hand over its connection.
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
    let length = match (&upload, upload.size_hint().exact()) {
        (Upload::None, _) => Length::None,
        (Upload::Body { .. }, Some(length)) => Length::Known(length),
        (Upload::Body { .. }, None) => Length::Chunked,
    };
    headers::to_upstream(&mut head, &upstream, authorization, add, upgrade.is_some());
    if let Some(path_and_query) = path_and_query {
        head.uri = Uri::from(path_and_query);
    }
    let (is_head, is_idempotent) = (head.method == Method::HEAD, head.method.is_idempotent());
    let request = Request { head: request_head::write(&head, length), upload, length, is_head, is_idempotent };

    context.watch.enter(Phase::Upstream);
    let sent = {
        let attempt = std::pin::pin!(send(&upstream, context.limits, exchange.permit(), request, upgrade.is_some()));
        watched(context.watch, exchange.permit(), attempt).await
    };
    match sent {
        Ok((response, conversation, upstream)) => answer(context, upstream, conversation, response, exchange, upgrade, request_id),
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

/// The head of an answer, the conversation whose rest its body is, and with whom.
type Sent = (Response<()>, Conversation, Arc<Upstream>);

async fn send<P: Permit>(
    upstream: &Arc<Upstream>,
    limits: &Limits,
    permit: Option<&P>,
    mut request: Request,
    upgrade: bool,
) -> Result<Sent, Fault> {
    // What the gate did last may have taken a while, in which the right may have ended.
    if permit.is_none_or(Permit::is_revoked) {
        return Err(Fault::RevokedBefore);
    }
    if !upgrade && let Some(connection) = pool::take(upstream) {
        stats::add(Stat::Reused, 1);
        let again = request.again();
        let mut conversation = Conversation::new(connection, request);
        match (std::future::poll_fn(|context| conversation.poll_head(context)).await, again) {
            (Ok(response), _) => return Ok((response, conversation, Arc::clone(upstream))),
            (Err(Fault::ClosedEarly), Some(again)) if conversation.may_be_repeated(&again) => request = again,
            (Err(fault), _) => return Err(fault),
        }
    }
    Box::pin(send_anew(upstream, limits, permit, request)).await
}

async fn send_anew<P: Permit>(upstream: &Arc<Upstream>, limits: &Limits, permit: Option<&P>, request: Request) -> Result<Sent, Fault> {
    let mut upstream = Arc::clone(upstream);
    let connection = loop {
        match connect::open(&upstream, limits).await {
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
    let mut conversation = Conversation::new(connection, request);
    let response = std::future::poll_fn(|context| conversation.poll_head(context)).await?;
    Ok((response, conversation, upstream))
}

fn answer<P: Permit>(
    context: Context<'_>,
    upstream: Arc<Upstream>,
    mut conversation: Conversation,
    mut response: Response<()>,
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
            let Some((stream, ahead)) = conversation.into_stream() else {
                let fault = Fault::BadReply("it switched protocols before it had the whole request".to_owned());
                return failed(context, &upstream, &fault, exchange, request_id);
            };
            let (watch, cut, peer) = (Arc::clone(context.watch), context.cut.clone(), context.peer);
            tokio::spawn(tunnel(caller, Opened::new(stream, ahead), exchange, watch, cut, peer));
            response.map(|()| Reply::made(crate::Body::empty(), Arc::clone(context.watch)))
        }
        Some(_) => {
            // What follows on the caller's connection may be meant for the tunnel that is not, and on the upstream's too.
            close(&mut response);
            context.watch.set_unread();
            conversation.give_up();
            exchange.conversation = Some((upstream, conversation));
            response.map(|()| Reply::relayed(exchange, Arc::clone(context.watch)))
        }
        None => {
            if exchange.upload.as_ref().is_some_and(|progress| !progress.is_complete()) {
                context.watch.set_unread();
            }
            exchange.conversation = Some((upstream, conversation));
            response.map(|()| Reply::relayed(exchange, Arc::clone(context.watch)))
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
    upstream: Opened,
    mut exchange: Exchange<P>,
    watch: Arc<Watch>,
    cut: CancellationToken,
    peer: SocketAddr,
) {
    let Ok(Ok(caller)) = tokio::time::timeout(HAND_OVER, caller).await else {
        debug!(%peer, "a tunnel ended before it began");
        return;
    };
    let Some(permit) = exchange.permit() else { return };
    let _open = stats::Open::new(Stat::Tunnels);
    let moved = tunnel::run(caller, upstream, permit, &watch, &cut).await;
    exchange.bytes_up = moved.up;
    exchange.bytes_down = moved.down;
    exchange.complete = moved.complete;
}
