//! The caller's side of a connection: the stream, read by the framing checks and noted by the watch.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::framing::{Finding, Framing};
use crate::stream::Stream;
use crate::watch::{Phase, Watch};

/// Bytes that are read and thrown away at the end of a connection whose caller was still sending.
const LINGER_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Caller {
    stream: Stream,
    watch: Arc<Watch>,
    framing: Framing,
    /// Bytes thrown away so far, once the stream is shut down.
    lingered: Option<usize>,
}

impl Caller {
    pub(crate) fn new(stream: Stream, watch: Arc<Watch>) -> Self {
        Self { stream, watch, framing: Framing::new(), lingered: None }
    }
}

impl AsyncRead for Caller {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(context, buffer);
        if result.is_pending() {
            this.watch.owe(this.framing.in_body());
            return Poll::Pending;
        }
        this.watch.owe(false);
        let new = buffer.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            this.watch.moved();
            if this.watch.phase() == Phase::Idle {
                this.watch.enter(Phase::Head);
            }
            match this.framing.feed(new) {
                Finding::Clear => {}
                Finding::Head => this.watch.set_ambiguous(),
                // Its request has been forwarded in part: it must not end as if it were whole.
                Finding::Body => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "ambiguous framing of a request body")));
                }
            }
        }
        result
    }
}

impl AsyncWrite for Caller {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(context, data);
        if result.is_ready() {
            this.watch.moved();
        }
        result
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(context, data);
        if result.is_ready() {
            this.watch.moved();
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    /// Shuts down, and then, if the caller was still sending, reads on for a while. Closing over unread bytes makes the kernel
    /// send a reset, which can destroy the answer before the caller has read it.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut lingered = match this.lingered {
            Some(lingered) => lingered,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                if !this.watch.is_unread() || this.watch.is_draining() {
                    return Poll::Ready(Ok(()));
                }
                this.watch.enter(Phase::Linger);
                0
            }
        };
        let mut waste = [0; 8192];
        while lingered < LINGER_BYTES {
            this.lingered = Some(lingered);
            let mut buffer = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut this.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => lingered += buffer.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
