//! A WebSocket of the server's side: the handshake, and two tasks that move frames. Knows nothing of what is streamed.

use std::time::Duration;

use convox_wire::socket::{Decoder, Frame, Op, Role, accept_key, encode};
use http::header::{HOST, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ApiError;

/// Clients send messages of at most 1024 bytes; nobody needs longer frames.
const LARGEST_FRAME: usize = 1 << 20;
/// How often this side asks whether the other one lives.
const PING: Duration = Duration::from_secs(20);
/// Frames that may wait for a slow reader; then the source waits.
const QUEUE: usize = 16;
/// Longest time for one write to get through to a reader.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Checks the handshake; gives the accept key.
pub(super) fn handshake(headers: &HeaderMap) -> Result<String, ApiError> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Some(origin) = text(ORIGIN) {
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        if !text(HOST).is_some_and(|own| own.eq_ignore_ascii_case(host)) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "the origin of the WebSocket is another host"));
        }
    }
    if text(SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(ApiError::bad("only WebSocket version 13 is spoken here"));
    }
    text(SEC_WEBSOCKET_KEY).map(accept_key).ok_or_else(|| ApiError::bad("the WebSocket key is missing"))
}

/// The WebSocket: a task reads frames, another one writes them.
pub(super) struct Wire {
    frames: mpsc::Sender<Frame>,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    /// The other side is gone, or closed.
    pub(super) gone: CancellationToken,
}

impl Wire {
    /// Starts both tasks; the second value ends when the last frame is written.
    pub(super) fn start<S: AsyncRead + AsyncWrite + Send + 'static>(stream: S) -> (Self, tokio::task::JoinHandle<()>) {
        let (read, write) = tokio::io::split(stream);
        let (frames, queue) = mpsc::channel(QUEUE);
        let (typed, input) = mpsc::channel(QUEUE);
        let gone = CancellationToken::new();
        let end = tokio::spawn(writer(write, queue, gone.clone()));
        tokio::spawn(reader(read, typed, frames.downgrade(), gone.clone()));
        (Self { frames, input: Some(input), gone }, end)
    }

    /// Sends one message of the stream, whole.
    pub(super) async fn text(&self, bytes: Vec<u8>) {
        let _ = self.frames.send(Frame::text(bytes)).await;
    }

    /// What the other side sends, until its end of input.
    pub(super) fn take_input(&mut self) -> mpsc::Receiver<Vec<u8>> {
        self.input.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// The end: an empty binary message, then a close.
    pub(super) async fn end(self) {
        let _ = self.frames.send(Frame::end()).await;
        let _ = self.frames.send(Frame::close(1000, "")).await;
    }
}

async fn writer<W: AsyncWrite + Unpin>(mut write: W, mut queue: mpsc::Receiver<Frame>, gone: CancellationToken) {
    let mut bytes = Vec::new();
    let mut ping = tokio::time::interval(PING);
    ping.tick().await;
    loop {
        let frame = tokio::select! {
            frame = queue.recv() => match frame {
                Some(frame) => frame,
                None => break,
            },
            _ = ping.tick() => Frame { fin: true, op: Op::Ping, payload: Vec::new() },
        };
        let last = frame.op == Op::Close;
        bytes.clear();
        encode(&frame, None, &mut bytes);
        let written = tokio::time::timeout(PATIENCE, async {
            write.write_all(&bytes).await?;
            write.flush().await
        });
        if !matches!(written.await, Ok(Ok(()))) {
            gone.cancel();
            return;
        }
        if last {
            break;
        }
    }
    let _ = tokio::time::timeout(Duration::from_secs(1), write.shutdown()).await;
    gone.cancel();
}

async fn reader<R: AsyncRead + Unpin>(mut read: R, typed: mpsc::Sender<Vec<u8>>, frames: mpsc::WeakSender<Frame>, gone: CancellationToken) {
    let mut typed = Some(typed);
    let mut decoder = Decoder::new(Role::Server, LARGEST_FRAME);
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let read = tokio::select! {
            read = tokio::time::timeout(PING * 3, read.read(&mut buffer)) => read,
            () = gone.cancelled() => return,
        };
        // Clients ping every five seconds and answer our pings: silence for a minute is the end.
        let Ok(Ok(count @ 1..)) = read else { break };
        decoder.push(buffer.get(..count).unwrap_or_default());
        loop {
            match decoder.next() {
                Ok(None) => break,
                Err(_) => {
                    gone.cancel();
                    return;
                }
                Ok(Some(frame)) => match frame.op {
                    Op::Text | Op::Continuation => {
                        if let Some(typed) = &typed {
                            // A full queue makes the client wait; a consumer that is gone makes this wait no more.
                            tokio::select! {
                                _ = typed.send(frame.payload) => {}
                                () = gone.cancelled() => return,
                            }
                        }
                    }
                    // The end of the other side's input.
                    Op::Binary => typed = None,
                    Op::Ping => {
                        if let Some(frames) = frames.upgrade() {
                            let _ = frames.try_send(Frame { fin: true, op: Op::Pong, payload: frame.payload });
                        }
                    }
                    Op::Pong => {}
                    Op::Close => {
                        gone.cancel();
                        return;
                    }
                },
            }
        }
    }
    gone.cancel();
}
