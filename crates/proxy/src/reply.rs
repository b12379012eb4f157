//! The body of an answer on its way to the caller: made here, or relayed from an upstream.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::exchange::Exchange;
use crate::watch::{Cut, Phase, Watch};
use crate::{Body, BoxError, Permit, Reason};

/// Body of any answer. Holds the connection's turn: when it is dropped, the connection waits for the next request.
#[derive(Debug)]
pub(crate) struct Reply<P: Permit> {
    kind: Kind<P>,
    turn: Turn,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one, and in a box each request would pay for one more piece of memory"
)]
enum Kind<P: Permit> {
    Made(Body),
    Relayed(Relayed<P>),
    /// One that takes more than a moment, and may have to end while nobody asks for its next piece.
    Long(Arc<Long<P>>),
}

/// A relayed body that can be cut from outside: HTTP does not ask for more while the caller reads nothing, and would never hear of a revocation.
struct Long<P: Permit> {
    relayed: Mutex<Option<Relayed<P>>>,
    /// The permit did not hold at the look before: whoever asks for the next piece meanwhile is told why.
    doomed: AtomicBool,
}

impl<P: Permit> Cut for Long<P> {
    fn is_cut(&self) -> bool {
        let mut relayed = self.relayed();
        let is_revoked = relayed.as_ref().is_some_and(|relayed| relayed.exchange.permit().is_none_or(Permit::is_revoked));
        if !is_revoked || !self.doomed.swap(true, Relaxed) {
            return false;
        }
        // Not reused: the upstream is to hear of it.
        if let Some(mut relayed) = relayed.take() {
            relayed.exchange.conversation = None;
        }
        true
    }
}

impl<P: Permit> Long<P> {
    fn relayed(&self) -> MutexGuard<'_, Option<Relayed<P>>> {
        self.relayed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Permit> fmt::Debug for Long<P> {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Long").finish_non_exhaustive()
    }
}

struct Relayed<P: Permit> {
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

    /// The rest of the exchange's conversation. `complete` of the exchange is settled here; everything else of it is the caller's to set.
    pub(crate) fn relayed(exchange: Exchange<P>, watch: Arc<Watch>) -> Self {
        watch.enter(Phase::Answering);
        let mut relayed = Relayed { exchange, revoked: None };
        relayed.exchange.complete = relayed.is_over();
        Self { kind: Kind::Relayed(relayed), turn: Turn(watch) }
    }

    fn make_long(&mut self) {
        let kind = match std::mem::replace(&mut self.kind, Kind::Made(Body::empty())) {
            Kind::Relayed(relayed) => {
                let long = Arc::new(Long { relayed: Mutex::new(Some(relayed)), doomed: AtomicBool::new(false) });
                let cut: Arc<dyn Cut> = long.clone();
                self.turn.0.set_answer(Arc::downgrade(&cut));
                Kind::Long(long)
            }
            other => other,
        };
        self.kind = kind;
    }
}

impl<P: Permit> Drop for Reply<P> {
    fn drop(&mut self) {
        if let Kind::Long(_) = self.kind {
            self.turn.0.forget_answer();
        }
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
                self.exchange.conversation = None;
                return Poll::Ready(Some(Err(reason.text.into())));
            }
        }
        let Some((_, conversation)) = &mut self.exchange.conversation else {
            return Poll::Ready(Some(Err("it was revoked".into())));
        };
        let polled = ready!(conversation.poll_body(context));
        match &polled {
            Some(Ok(data)) => {
                self.exchange.bytes_down += data.len() as u64;
                self.exchange.complete = conversation.is_over();
            }
            Some(Err(_)) => {}
            None => self.exchange.complete = true,
        }
        Poll::Ready(polled.map(|piece| piece.map(Frame::data)))
    }

    fn is_over(&self) -> bool {
        self.exchange.conversation.as_ref().is_some_and(|(_, conversation)| conversation.is_over())
    }

    fn size_hint(&self) -> SizeHint {
        self.exchange.conversation.as_ref().map(|(_, conversation)| conversation.size_hint()).unwrap_or_default()
    }
}

impl<P: Permit> http_body::Body for Reply<P> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let watch = &this.turn.0;
        let (polled, is_over) = match &mut this.kind {
            Kind::Made(body) => return Pin::new(body).poll_frame(context),
            Kind::Relayed(relayed) => (relayed.poll(context, watch), relayed.exchange.complete),
            Kind::Long(long) => match long.relayed().as_mut() {
                Some(relayed) => (relayed.poll(context, watch), relayed.exchange.complete),
                None => return Poll::Ready(Some(Err("it was revoked".into()))),
            },
        };
        let handed = matches!(polled, Poll::Ready(Some(Ok(_)))) && !is_over;
        if handed && let Kind::Relayed(_) = this.kind {
            this.make_long();
        }
        if let Kind::Long(_) = this.kind {
            this.turn.0.set_handed(handed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Made(body) => body.is_end_stream(),
            Kind::Relayed(relayed) => relayed.is_over(),
            Kind::Long(long) => long.relayed().as_ref().is_some_and(Relayed::is_over),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Made(body) => body.size_hint(),
            Kind::Relayed(relayed) => relayed.size_hint(),
            Kind::Long(long) => long.relayed().as_ref().map(Relayed::size_hint).unwrap_or_default(),
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
