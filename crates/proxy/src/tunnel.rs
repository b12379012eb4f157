//! After a 101: bytes both ways, until both sides are done, nothing moves for too long, or the permit is revoked.
//!
//! Content is copied, not understood. Only the ends of frames towards the caller are tracked, so that a cut can say why in
//! a close frame of its own. An idle tunnel owns no buffer: bytes are read into one that all tunnels of a thread share, and a
//! tunnel keeps only what its receiver does not take at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::frames::{self, Frames};
use crate::stream::Stream;
use crate::watch::{Phase, Watch};
use crate::{Permit, Reason, scratch};

/// How long a cut may take: to reach the end of a frame, and to say why.
const CUT: Duration = Duration::from_millis(500);

type Caller = TokioIo<Upgraded>;

/// The upstream's stream after its 101.
#[derive(Debug)]
pub(crate) struct Opened {
    stream: Stream,
    /// What came with the 101.
    ahead: Bytes,
}

impl Opened {
    pub(crate) fn new(stream: Stream, ahead: Bytes) -> Self {
        Self { stream, ahead }
    }
}

impl AsyncRead for Opened {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        buffer.put_slice(&this.ahead.split_to(this.ahead.len().min(buffer.remaining())));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Opened {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// What moved, and whether both sides ended it of their own accord.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub(crate) up: u64,
    pub(crate) down: u64,
    pub(crate) complete: bool,
}

/// Copies until the end. `stop` cuts tunnels that outlast the drain of the server.
pub(crate) async fn run<P: Permit>(caller: Upgraded, upstream: Opened, permit: &P, watch: &Arc<Watch>, stop: &CancellationToken) -> Moved {
    let mut tunnel = Tunnel { caller: TokioIo::new(caller), upstream, up: Pipe::default(), down: Pipe::default(), frames: Frames::new() };
    watch.enter(Phase::Tunnel);
    let reason = tokio::select! {
        biased;
        ended = std::future::poll_fn(|context| {
            watch.register(context.waker());
            if watch.is_ended() {
                return Poll::Ready(Some(Reason { code: 1001, text: "nothing moved for too long".to_owned(), messages: Vec::new() }));
            }
            match tunnel.poll_copy(context) {
                Poll::Ready(Ok(())) => {
                    tunnel.up.complete = true;
                    Poll::Ready(None)
                }
                Poll::Ready(Err(_)) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        }) => ended,
        reason = permit.revoked() => Some(reason),
        () = stop.cancelled() => Some(Reason { code: 1012, text: "the server is restarting".to_owned(), messages: Vec::new() }),
    };
    if let Some(reason) = reason {
        let _ = tokio::time::timeout(CUT, tunnel.cut(&reason)).await;
    }
    Moved { up: tunnel.up.bytes, down: tunnel.down.bytes, complete: tunnel.up.complete }
}

struct Tunnel {
    caller: Caller,
    upstream: Opened,
    up: Pipe,
    down: Pipe,
    /// Of what has been sent to the caller.
    frames: Frames,
}

impl Tunnel {
    fn poll_copy(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let up = self.up.poll(context, &mut self.caller, &mut self.upstream, |_| ())?;
        let down = self.down.poll(context, &mut self.upstream, &mut self.caller, |bytes| self.frames.pass(bytes))?;
        if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Takes nothing more from the caller, finishes the frame at hand, says why, and closes both sides.
    async fn cut(&mut self, reason: &Reason) -> io::Result<()> {
        while !self.frames.is_boundary() {
            if self.down.is_empty() && self.down.read(&mut self.upstream).await? == 0 {
                break;
            }
            let rest = self.frames.rest_of_frame(self.down.unsent());
            let frame = self.down.unsent().get(..rest).unwrap_or_default();
            self.caller.write_all(frame).await?;
            self.frames.pass(frame);
            self.down.sent(rest);
        }
        let mut last = Vec::new();
        if self.frames.is_between_messages() {
            for message in &reason.messages {
                last.extend_from_slice(&frames::text(message));
            }
        }
        if self.frames.is_boundary() {
            last.extend_from_slice(&frames::close(reason.code, &reason.text));
        }
        self.caller.write_all(&last).await?;
        self.caller.shutdown().await?;
        // The upstream hears of it now, not when the caller has read its last bytes.
        let _ = self.upstream.shutdown().await;
        // Closing over unread bytes would reset the connection, and the reason with it.
        let mut waste = [0; 1024];
        while self.caller.read(&mut waste).await? > 0 {}
        Ok(())
    }
}

/// One direction.
#[derive(Default)]
struct Pipe {
    /// Read and not yet taken by the receiver, from `from` on. Without memory while there is nothing.
    kept: Vec<u8>,
    from: usize,
    bytes: u64,
    ended: bool,
    complete: bool,
}

impl Pipe {
    fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn unsent(&self) -> &[u8] {
        self.kept.get(self.from..).unwrap_or_default()
    }

    fn sent(&mut self, count: usize) {
        self.from += count;
        self.bytes += count as u64;
        if self.from >= self.kept.len() {
            self.kept = Vec::new();
            self.from = 0;
        }
    }

    async fn read(&mut self, from: &mut Opened) -> io::Result<usize> {
        self.from = 0;
        self.kept = vec![0; scratch::SIZE];
        let count = from.read(&mut self.kept).await?;
        self.kept.truncate(count);
        Ok(count)
    }

    /// Copies what it can. Ready when `from` has ended, everything is sent, and `to` knows.
    fn poll<F, T>(&mut self, context: &mut Context<'_>, from: &mut F, to: &mut T, on_sent: impl FnMut(&[u8])) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        scratch::lend(|scratch| self.poll_through(scratch, context, from, to, on_sent))
    }

    fn poll_through<F, T>(
        &mut self,
        scratch: &mut [u8],
        context: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        mut on_sent: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>>
    where
        F: AsyncRead + Unpin,
        T: AsyncWrite + Unpin,
    {
        loop {
            while !self.is_empty() {
                let count = ready!(write(context, to, self.unsent()))?;
                on_sent(self.unsent().get(..count).unwrap_or_default());
                self.sent(count);
            }
            if self.ended {
                if !self.complete {
                    ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                    self.complete = true;
                }
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut *from).poll_read(context, &mut buffer) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    // TLS holds back what has been written until it is told that nothing follows for now.
                    return match Pin::new(&mut *to).poll_flush(context) {
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        _ => Poll::Pending,
                    };
                }
            }
            let mut rest = buffer.filled();
            self.ended = rest.is_empty();
            while !rest.is_empty() {
                let Poll::Ready(count) = write(context, to, rest)? else {
                    self.kept = rest.to_vec();
                    break;
                };
                let (taken, left) = rest.split_at(count.min(rest.len()));
                on_sent(taken);
                self.bytes += taken.len() as u64;
                rest = left;
            }
        }
    }
}

/// At least one byte of `data`.
fn write(context: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(context, data))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        count => Poll::Ready(Ok(count)),
    }
}
