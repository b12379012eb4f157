//! The body of a forwarded request, on its way up.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::BoxError;
use crate::watch::Watch;

/// What has gone up, for the other side of the exchange to read.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: AtomicU64,
    complete: AtomicBool,
}

impl Progress {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Relaxed)
    }
}

/// A request body: none, or the caller's as it comes. Trailers do not pass.
#[derive(Debug)]
pub(crate) enum Upload {
    None,
    Body {
        incoming: Incoming,
        progress: Arc<Progress>,
        /// Of a stream of HTTP/2, to note whether its caller owes bytes; the connection itself knows that of HTTP/1.1.
        watch: Option<Arc<Watch>>,
    },
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::None => Poll::Ready(None),
            Self::Body { incoming, progress, watch } => loop {
                let polled = Pin::new(&mut *incoming).poll_frame(context);
                if let Some(watch) = watch {
                    watch.owe(polled.is_pending());
                    if polled.is_ready() {
                        watch.moved();
                    }
                }
                match ready!(polled) {
                    Some(Ok(frame)) => {
                        let Some(data) = frame.data_ref() else { continue };
                        progress.bytes.fetch_add(data.len() as u64, Relaxed);
                        if http_body::Body::is_end_stream(incoming) {
                            progress.complete.store(true, Relaxed);
                        }
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                    // hyper calls it an end also when a stream of HTTP/2, or its connection, is given up with NO_ERROR.
                    None if watch.is_some() && !http_body::Body::is_end_stream(incoming) => {
                        return Poll::Ready(Some(Err("its stream was given up".into())));
                    }
                    None => {
                        progress.complete.store(true, Relaxed);
                        return Poll::Ready(None);
                    }
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Body { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Body { incoming, .. } => incoming.size_hint(),
        }
    }
}
