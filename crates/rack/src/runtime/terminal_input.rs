//! What a program on a terminal reads, however the terminal is reached.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// What a terminal in its usual mode takes for the end of the input.
const END_OF_FILE: u8 = 4;

/// Writes to a terminal, and ends its input as a person would: a terminal cannot be closed from one side.
pub(crate) struct TerminalInput<W> {
    to: W,
    /// Something was written after the last line end.
    mid_line: bool,
    /// End-of-file characters still to be written.
    ends: Option<u8>,
}

impl<W> TerminalInput<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, mid_line: false, ends: None }
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for TerminalInput<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.to).poll_write(cx, bytes))?;
        if let Some(last) = bytes.get(..count).and_then(<[u8]>::last) {
            self.mid_line = !matches!(*last, b'\n' | b'\r');
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.to).poll_flush(cx)
    }

    /// In the middle of a line the first such character only sends what is there.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut left = self.ends.unwrap_or(if self.mid_line { 2 } else { 1 });
        while left > 0 {
            self.ends = Some(left);
            ready!(Pin::new(&mut self.to).poll_write(cx, &[END_OF_FILE]))?;
            left -= 1;
        }
        self.ends = Some(0);
        Pin::new(&mut self.to).poll_flush(cx)
    }
}
