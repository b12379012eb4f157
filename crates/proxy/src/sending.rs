//! A request on its way to an upstream: its head, then its body as the caller brings it.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::Body as _;
use tokio::io::AsyncWrite;

use crate::fault::Fault;
use crate::request_head::Length;
use crate::upload::Upload;

const LINE_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What is sent next, in this order: the head, the size of a chunk, content, and the end of a chunk.
type Queue = [Bytes; 4];

pub(crate) struct Sending {
    queue: Queue,
    upload: Upload,
    length: Length,
    state: State,
    has_written: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More of the body comes, or may come.
    Open,
    /// All is in the queue.
    Last,
    /// All is sent.
    Sent,
    /// The upstream takes nothing more. It may have answered all the same.
    Refused,
}

impl fmt::Debug for Sending {
    /// Without what is sent: the credential is in there.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Sending").field("length", &self.length).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Sending {
    /// `length` is what `head` says of `upload`.
    pub(crate) fn new(head: Bytes, upload: Upload, length: Length) -> Self {
        let state = if length == Length::None { State::Last } else { State::Open };
        Self { queue: [head, Bytes::new(), Bytes::new(), Bytes::new()], upload, length, state, has_written: false }
    }

    /// Something of it may be with the upstream.
    pub(crate) fn has_written(&self) -> bool {
        self.has_written
    }

    /// The whole request is with the upstream.
    pub(crate) fn is_sent(&self) -> bool {
        self.state == State::Sent
    }

    /// Nothing more is sent, for whatever reason.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Sent | State::Refused)
    }

    /// Sends what it can; ready when nothing more is sent.
    ///
    /// # Errors
    /// The caller's body ended early, or is another one than its head said. The upstream has a part of a request, and must not be told that this was
    /// all.
    pub(crate) fn poll<S: AsyncWrite + Unpin>(&mut self, context: &mut Context<'_>, stream: &mut S) -> Poll<Result<(), Fault>> {
        while !self.is_over() {
            let waits = self.state == State::Open && self.is_content_sent() && self.fill(context)?.is_pending();
            match self.write(context, stream) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => {
                    self.state = State::Refused;
                    // What is left of it takes no more of its caller's window.
                    self.upload = Upload::None;
                }
                Poll::Ready(Ok(())) if self.state == State::Last => self.state = State::Sent,
                Poll::Ready(Ok(())) if waits => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    fn is_content_sent(&self) -> bool {
        let [_, rest @ ..] = &self.queue;
        rest.iter().all(Bytes::is_empty)
    }

    /// Puts the next piece of the body into the queue. Called when there is none in it; the head may be.
    fn fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let [_, size, content, end] = &mut self.queue;
        let piece = match ready!(Pin::new(&mut self.upload).poll_frame(context)) {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(_)) => return Poll::Ready(Err(Fault::BadRequestBody)),
            None => {
                match self.length {
                    Length::Known(left) if left > 0 => return Poll::Ready(Err(Fault::BadRequestBody)),
                    Length::Chunked => *end = Bytes::from_static(LAST_CHUNK),
                    Length::Known(_) | Length::None => {}
                }
                self.state = State::Last;
                return Poll::Ready(Ok(()));
            }
        };
        match &mut self.length {
            // An empty chunk would be the last one.
            _ if piece.is_empty() => return Poll::Ready(Ok(())),
            Length::Chunked => {
                *size = Bytes::from(format!("{:x}\r\n", piece.len()));
                *end = Bytes::from_static(LINE_END);
            }
            Length::Known(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(Fault::BadRequestBody)?;
                // So that the end is known without another look, which the caller's side may not take.
                if *left == 0 {
                    self.state = State::Last;
                }
            }
            Length::None => return Poll::Ready(Err(Fault::BadRequestBody)),
        }
        *content = piece;
        Poll::Ready(Ok(()))
    }

    /// Ready when the queue is empty and the stream holds nothing back.
    fn write<S: AsyncWrite + Unpin>(&mut self, context: &mut Context<'_>, stream: &mut S) -> Poll<io::Result<()>> {
        loop {
            let mut some = self.queue.iter().filter(|part| !part.is_empty());
            let count = match (some.next(), some.next()) {
                (None, _) => break,
                (Some(only), None) => ready!(Pin::new(&mut *stream).poll_write(context, only))?,
                _ => {
                    let parts = self.queue.each_ref().map(|part| IoSlice::new(part));
                    ready!(Pin::new(&mut *stream).poll_write_vectored(context, &parts))?
                }
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.has_written = true;
            sent(&mut self.queue, count);
        }
        Pin::new(stream).poll_flush(context)
    }
}

fn sent(queue: &mut Queue, mut count: usize) {
    for part in queue {
        let of_this = count.min(part.len());
        part.advance(of_this);
        count -= of_this;
    }
}
