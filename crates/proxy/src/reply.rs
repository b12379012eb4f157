//! The body of an answer on its way to the caller: made here, or relayed from an upstream.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::exchange::Exchange;
use crate::watch::{Phase, Watch};
use crate::{Body, BoxError, Permit, Reason};

/// Body of any answer. Holds the connection's turn: when it is dropped, the connection waits for the next request.
#[derive(Debug)]
pub(crate) struct Reply<P: Permit> {
    kind: Kind<P>,
    turn: Turn,
}

#[derive(Debug)]
enum Kind<P: Permit> {
    Made(Body),
    Relayed(Relayed<P>),
}

struct Relayed<P: Permit> {
    incoming: Incoming,
    exchange: Exchange<P>,
    revoked: Option<Pin<Box<dyn Future<Output = Reason> + Send>>>,
}

#[derive(Debug)]
struct Turn(Arc<Watch>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

impl<P: Permit> Reply<P> {
    pub(crate) fn made(body: Body, watch: Arc<Watch>) -> Self {
        watch.enter(Phase::Answering);
        Self { kind: Kind::Made(body), turn: Turn(watch) }
    }

    /// `complete` of the exchange is settled here; everything else of it is the caller's to set.
    pub(crate) fn relayed(incoming: Incoming, mut exchange: Exchange<P>, watch: Arc<Watch>) -> Self {
        watch.enter(Phase::Answering);
        exchange.complete = http_body::Body::is_end_stream(&incoming);
        Self { kind: Kind::Relayed(Relayed { incoming, exchange, revoked: None }), turn: Turn(watch) }
    }
}

impl<P: Permit> Relayed<P> {
    fn poll(&mut self, context: &mut Context<'_>, watch: &Watch) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if watch.is_attended() {
            if self.revoked.is_none() {
                self.revoked = self.exchange.permit().map(Permit::revoked);
            }
            if let Some(revoked) = &mut self.revoked
                && let Poll::Ready(reason) = revoked.as_mut().poll(context)
            {
                self.revoked = None;
                // Not reused, and closed now: the upstream is to hear of it.
                self.exchange.connection = None;
                return Poll::Ready(Some(Err(reason.text.into())));
            }
        }
        loop {
            match ready!(Pin::new(&mut self.incoming).poll_frame(context)) {
                Some(Ok(frame)) => {
                    // Trailers do not pass: nothing here needs them, and they are headers that nobody checked.
                    let Some(data) = frame.data_ref() else { continue };
                    self.exchange.bytes_down += data.len() as u64;
                    self.exchange.complete = http_body::Body::is_end_stream(&self.incoming);
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => {
                    self.exchange.complete = true;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

impl<P: Permit> http_body::Body for Reply<P> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match &mut this.kind {
            Kind::Made(body) => Pin::new(body).poll_frame(context),
            Kind::Relayed(relayed) => relayed.poll(context, &this.turn.0),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Made(body) => body.is_end_stream(),
            Kind::Relayed(relayed) => relayed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Made(body) => body.size_hint(),
            Kind::Relayed(relayed) => relayed.incoming.size_hint(),
        }
    }
}

// Holds no pinned field in place.
impl<P: Permit> Unpin for Reply<P> {}

impl<P: Permit> fmt::Debug for Relayed<P> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Relayed").field("status", &self.exchange.status).finish_non_exhaustive()
    }
}
