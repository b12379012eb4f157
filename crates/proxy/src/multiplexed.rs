//! A caller's connection that speaks HTTP/2: many requests at a time, each with a watch of its own.
//!
//! What is known of a connection of HTTP/1.1 (its phase, who is slow, what is revoked) is known of each stream here. Upstreams are spoken to
//! in HTTP/1.1 either way, so a head is made to look like one: `:authority` becomes `Host`, and cookies are one header again.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tracing::debug;

use crate::fault::text_response;
use crate::reply::Reply;
use crate::shard::Shard;
use crate::stream::Stream;
use crate::watch::{Phase, Watch, Watches};
use crate::{BoxError, Gate, Local, Permit, RequestId, serve};

/// Streams that one connection may have open.
const STREAMS: u32 = 128;
/// Bytes that a caller may send ahead of us, per stream and per connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of an answer that wait for a slow reader, per stream.
const SEND_BUFFER: usize = 64 * 1024;
/// A peer that is silent for so long is asked whether it is there, and must say so within as long again.
const ALIVE: Duration = Duration::from_secs(20);

/// Serves one connection until its end.
pub(crate) async fn serve<G: Gate, L: Local>(
    shard: Arc<Shard<G, L>>,
    stream: Stream,
    peer: SocketAddr,
    watch: Arc<Watch>,
    watches: Arc<Watches>,
) {
    let open = Arc::new(Open { count: AtomicUsize::new(0), watch: Arc::clone(&watch) });
    let limits = shard.limits;
    let service = hyper::service::service_fn(move |request| {
        let turn = Open::begin(&open);
        stream_of(Arc::clone(&shard), request, peer, watches.add(), turn)
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(ALIVE)
        .keep_alive_timeout(ALIVE);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut closing = false;
    let ended = std::future::poll_fn(|context| {
        watch.register(context.waker());
        // Idle for too long, or the server ends: the caller is told, and what is open may finish.
        if (watch.is_ended() || watch.is_leaving()) && !closing {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    })
    .await;
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}

/// The streams of a connection that are open.
#[derive(Debug)]
struct Open {
    count: AtomicUsize,
    watch: Arc<Watch>,
}

/// One of them; the connection is idle after the last.
#[derive(Debug)]
struct Turn(Arc<Open>);

impl Open {
    fn begin(this: &Arc<Self>) -> Turn {
        if this.count.fetch_add(1, Relaxed) == 0 {
            this.watch.enter(Phase::Waiting);
        }
        Turn(Arc::clone(this))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Relaxed) == 1 {
            self.0.watch.enter(Phase::Idle);
        }
    }
}

/// The stream took too long; it is reset.
#[derive(Debug, thiserror::Error)]
#[error("a stream took too long")]
struct TooLong;

async fn stream_of<G: Gate, L: Local>(
    shard: Arc<Shard<G, L>>,
    request: Request<Incoming>,
    peer: SocketAddr,
    watch: Arc<Watch>,
    turn: Turn,
) -> Result<Response<Streamed<G::Permit>>, TooLong> {
    let request = match plain(request) {
        Ok(request) => request,
        Err(why) => {
            let response = text_response(StatusCode::BAD_REQUEST, format!("bad request: {why}\n"), Some(RequestId::next()));
            return Ok(response.map(|body| Streamed { reply: Reply::made(body, Arc::clone(&watch)), watch, _turn: turn }));
        }
    };
    let mut answer = std::pin::pin!(serve::request(&shard, request, peer, &watch));
    let answered = std::future::poll_fn(|context| {
        watch.register(context.waker());
        if watch.is_ended() {
            return Poll::Ready(Err(TooLong));
        }
        answer.as_mut().poll(context).map(|answered| answered.map_err(|never| match never {}))
    })
    .await;
    let mut response = answered?;
    // A stream has no connection of its own to close, and no other to become.
    response.headers_mut().remove(header::CONNECTION);
    let watch = Arc::clone(&watch);
    Ok(response.map(|reply| Streamed { reply, watch, _turn: turn }))
}

/// A request as HTTP/1.1 would have it: a path, one `Host`, one `Cookie`.
fn plain(mut request: Request<Incoming>) -> Result<Request<Incoming>, &'static str> {
    let uri = request.uri();
    // A CONNECT is refused with the words for it.
    let Some(path_and_query) = uri.path_and_query().cloned() else { return Ok(request) };
    if let Some(authority) = uri.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "the authority is not valid")?;
        if request.headers().get_all(header::HOST).iter().any(|other| other != host) {
            return Err("the authority and the Host header differ");
        }
        request.headers_mut().insert(header::HOST, host);
    } else if !request.headers().contains_key(header::HOST) {
        return Err("the authority is missing");
    }
    *request.uri_mut() = Uri::from(path_and_query);
    if request.headers().get_all(header::COOKIE).iter().nth(1).is_some() {
        let pieces: Vec<&[u8]> = request.headers().get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let mut whole = HeaderValue::from_bytes(&pieces.join(&b"; "[..])).map_err(|_| "the cookies are not valid")?;
        whole.set_sensitive(true);
        request.headers_mut().insert(header::COOKIE, whole);
    }
    Ok(request)
}

/// The body of an answer, which is polled by the task of its stream rather than of its connection.
#[derive(Debug)]
struct Streamed<P: Permit> {
    reply: Reply<P>,
    watch: Arc<Watch>,
    _turn: Turn,
}

impl<P: Permit> http_body::Body for Streamed<P> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.watch.register(context.waker());
        if this.watch.is_ended() {
            return Poll::Ready(Some(Err(TooLong.into())));
        }
        let polled = Pin::new(&mut this.reply).poll_frame(context);
        if polled.is_ready() {
            this.watch.moved();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}
