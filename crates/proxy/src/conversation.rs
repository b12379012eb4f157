//! One request and its reply on a connection to an upstream, in HTTP/1.1.
//!
//! It has no task of its own: whoever waits for the reply polls it, and so sends the rest of the request too. That saves two wake-ups and the channels between
//! tasks for each request, and makes what is read of an upstream stop when its caller stops reading.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::SizeHint;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::BoxError;
use crate::content::Content;
use crate::fault::Fault;
use crate::pool::Connection;
use crate::request_head::Length;
use crate::sending::Sending;
use crate::stream::Stream;
use crate::upload::Upload;
use crate::{reply_head, scratch};

/// Read at a time of a long body, straight into what is handed on.
const AT_ONCE: usize = 128 * 1024;
/// Bytes of a reply's head.
const MOST: usize = 256 * 1024;

/// A request as it is sent.
pub(crate) struct Request {
    pub(crate) head: Bytes,
    pub(crate) upload: Upload,
    pub(crate) length: Length,
    /// It is a HEAD, whose reply has no body.
    pub(crate) is_head: bool,
    /// It asks for nothing to change, and may be sent twice.
    pub(crate) is_idempotent: bool,
}

impl Request {
    /// The same request again, if it has no body.
    pub(crate) fn again(&self) -> Option<Self> {
        (self.length == Length::None).then(|| Self { head: self.head.clone(), upload: Upload::None, ..*self })
    }
}

/// A request and its reply. Dropped before both went through whole, it closes the connection.
pub(crate) struct Conversation {
    connection: Connection,
    sending: Sending,
    is_head: bool,
    /// Read and not yet taken.
    unread: Bytes,
    /// So many bytes of it hold no whole head.
    looked: usize,
    has_heard: bool,
    content: Content,
    is_kept: bool,
}

impl fmt::Debug for Conversation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Conversation").field("sending", &self.sending).field("content", &self.content).finish_non_exhaustive()
    }
}

impl Conversation {
    pub(crate) fn new(connection: Connection, request: Request) -> Self {
        Self {
            connection,
            sending: Sending::new(request.head, request.upload, request.length),
            is_head: request.is_head,
            unread: Bytes::new(),
            looked: 0,
            has_heard: false,
            content: Content::known(0),
            is_kept: false,
        }
    }

    /// Whether the same request may be sent once more after this failed: the upstream has said nothing, and had nothing, or was asked for no change.
    pub(crate) fn may_be_repeated(&self, again: &Request) -> bool {
        !self.has_heard && (again.is_idempotent || !self.sending.has_written())
    }

    /// Sends, and waits for the head of the reply. It may come before all is sent.
    ///
    /// # Errors
    /// There is no reply that could be passed on.
    pub(crate) fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<()>, Fault>> {
        if let Poll::Ready(Err(fault)) = self.sending.poll(context, &mut self.connection.stream) {
            return Poll::Ready(Err(fault));
        }
        loop {
            if let Some(head) = self.head()? {
                self.unread.advance(head.length);
                self.looked = 0;
                let status = head.response.status();
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    continue;
                }
                self.content = head.content;
                self.is_kept = head.is_kept;
                return Poll::Ready(Ok(head.response));
            }
            match ready!(self.poll_read(context)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(Fault::ClosedEarly)),
                Ok(_) => self.has_heard = true,
            }
        }
    }

    fn head(&mut self) -> Result<Option<reply_head::Head>, Fault> {
        let looked = std::mem::replace(&mut self.looked, self.unread.len());
        // One that comes in many pieces is read when it may be whole, not at each of them. The first is read, so that what is no HTTP is known early.
        if self.unread.is_empty() || (looked > 0 && self.unread.len() <= MOST && !reply_head::may_end(&self.unread, looked)) {
            return Ok(None);
        }
        match reply_head::read(&self.unread, self.is_head) {
            Ok(None) if self.unread.len() > MOST => Err(Fault::BadReply("its head is too long".to_owned())),
            read => read.map_err(|wrong| Fault::BadReply(wrong.to_owned())),
        }
    }

    /// The next piece of the reply's body, never an empty one; what is left of the request goes up meanwhile.
    pub(crate) fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        if !self.sending.is_over() && self.sending.poll(context, &mut self.connection.stream).map(|sent| sent.is_err()) == Poll::Ready(true)
        {
            return Poll::Ready(Some(Err("the body of the request ended early".into())));
        }
        loop {
            if let Some(piece) = self.content.take(&mut self.unread)? {
                return Poll::Ready(Some(Ok(piece)));
            }
            if self.content.is_over() {
                return Poll::Ready(None);
            }
            if ready!(self.poll_read(context))? == 0 {
                self.content.end()?;
            }
        }
    }

    /// Reads more, whatever it is, and says how many bytes; none at the end of the stream.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.connection.stream);
        if self.unread.is_empty() && self.content.expected() > scratch::SIZE as u64 {
            let most = usize::try_from(self.content.expected()).unwrap_or(AT_ONCE).min(AT_ONCE);
            let mut room = BytesMut::with_capacity(most);
            let count = ready!(poll_read_buf(stream, context, &mut room))?;
            // Little keeps little memory, however long its receiver takes.
            self.unread = if count < most / 4 { Bytes::copy_from_slice(&room) } else { room.freeze() };
            return Poll::Ready(Ok(count));
        }
        scratch::lend(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(stream.poll_read(context, &mut buffer))?;
            match (buffer.filled(), self.unread.is_empty()) {
                ([], _) => {}
                (new, true) => self.unread = Bytes::copy_from_slice(new),
                (new, false) => self.unread = Bytes::from([&*self.unread, new].concat()),
            }
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    /// All of the reply has been taken.
    pub(crate) fn is_over(&self) -> bool {
        self.content.is_over()
    }

    /// Bytes of the body that are left.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.content.left().map(SizeHint::with_exact).unwrap_or_default()
    }

    /// The connection is not used again.
    pub(crate) fn give_up(&mut self) {
        self.is_kept = false;
    }

    /// The connection, if both went through whole and it takes another request.
    pub(crate) fn into_idle(self) -> Option<Connection> {
        let is_idle = self.is_kept && self.sending.is_sent() && self.content.is_over() && self.unread.is_empty();
        is_idle.then_some(self.connection)
    }

    /// The stream after a 101, and what was read of it beyond the head; `None` if the request was not sent whole before.
    pub(crate) fn into_stream(self) -> Option<(Stream, Bytes)> {
        self.sending.is_sent().then_some((self.connection.stream, self.unread))
    }
}
