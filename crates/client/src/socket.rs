//! WebSockets as the protocol uses them: text messages are bytes, the first binary message is the end of its direction.
//!
//! Two tasks own the connection, so pings are sent and answered whatever the caller is doing, and a direction that is
//! stuck never holds up the other. Every queue is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use convox_wire::socket::{self, Decoder, Op, Role};
use http::{HeaderName, HeaderValue, Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::call::{Body, Call};
use crate::connect::{peer, plain};
use crate::{Client, Error, exchange};

/// How often we ping.
const PING: Duration = Duration::from_secs(20);
/// A peer that has answered a ping before and is silent for this long is gone. (Originals never answer on log streams.)
const SILENCE: Duration = Duration::from_secs(65);
/// The originals drop what is beyond their read buffer; 1024 is what their clients send.
const LARGEST_MESSAGE: usize = 1024;
/// The largest frame that we take.
const LARGEST_FRAME: usize = 16 * 1024 * 1024;

/// An open socket; [`Socket::split`] it to use both directions at once.
pub struct Socket {
    reader: SocketReader,
    writer: SocketWriter,
}

/// A piece of a message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The bytes; not necessarily UTF-8.
    pub data: Bytes,
    /// Whether a message begins with it.
    pub first: bool,
    /// Whether a message ends with it.
    pub last: bool,
}

/// What the server sends.
pub struct SocketReader {
    pieces: mpsc::Receiver<Result<Piece, Error>>,
}

/// What we send; clones share the direction.
#[derive(Clone)]
pub struct SocketWriter {
    queue: mpsc::Sender<Outgoing>,
}

enum Outgoing {
    Data(Bytes),
    End,
    Pong(Bytes),
    Close,
}

/// What both tasks know of the peer.
struct Health {
    start: Instant,
    heard_ms: AtomicU64,
    has_ponged: AtomicBool,
    /// A write waits for the peer; then a ping of ours may not even have left, and silence proves nothing.
    is_writing: AtomicBool,
}

impl Health {
    fn heard(&self) {
        self.heard_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn is_lost(&self) -> bool {
        let silent = self.start.elapsed().saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)));
        silent > SILENCE && self.has_ponged.load(Ordering::Relaxed) && !self.is_writing.load(Ordering::Relaxed)
    }
}

impl Client {
    /// Opens a WebSocket. The call's options must be headers: nothing else travels on a handshake. A session is opened for it first where one
    /// is demanded.
    pub async fn socket(&self, call: Call) -> Result<Socket, Error> {
        let Call { path, headers, .. } = call;
        match self.opened(&path, &headers).await {
            Err(Error::Session { demand, host }) => {
                self.open(&demand, host).await?;
                self.opened(&path, &headers).await
            }
            outcome => outcome,
        }
    }

    async fn opened(&self, path: &str, more: &[(HeaderName, HeaderValue)]) -> Result<Socket, Error> {
        let host = peer(self.endpoint());
        let mut nonce = [0u8; 16];
        getrandom::fill(&mut nonce).map_err(|error| Error::input(format!("no random numbers from the system: {error}")))?;
        let key = base64::engine::general_purpose::STANDARD.encode(nonce);
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        let target = format!("{}{}", self.endpoint().prefix(), path);
        *request.uri_mut() = target.parse().map_err(|_| Error::input(format!("`{path}` is no path")))?;
        let headers = request.headers_mut();
        let bad = |_| Error::input("the host holds a character that cannot be sent");
        let origin = format!("{}://{}", self.endpoint().scheme().as_str(), self.endpoint().authority().to_ascii_lowercase());
        headers.insert("origin", HeaderValue::try_from(origin).map_err(bad)?);
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
        headers.insert("sec-websocket-key", HeaderValue::try_from(key.as_str()).map_err(bad)?);
        headers.extend(more.iter().cloned());
        let (response, upgraded) = exchange::upgrade(self, request).await?;
        let accepted = response.headers().get("sec-websocket-accept").and_then(|value| value.to_str().ok());
        if accepted != Some(socket::accept_key(&key).as_str()) {
            return Err(Error::Protocol { host, reason: "it opened something that is not our socket (Sec-WebSocket-Accept)".to_owned() });
        }
        Ok(Socket::start(host, TokioIo::new(upgraded)))
    }
}

impl Socket {
    fn start(host: String, io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (read, write) = tokio::io::split(io);
        let (queue, outgoing) = mpsc::channel(16);
        let (deliver, pieces) = mpsc::channel(16);
        let health = Arc::new(Health { start: Instant::now(), heard_ms: 0.into(), has_ponged: false.into(), is_writing: false.into() });
        tokio::spawn(write_all(write, outgoing, Arc::clone(&health)));
        let control = queue.downgrade();
        tokio::spawn(async move {
            let mut reading =
                Reading { host, decoder: Decoder::new(Role::Client, LARGEST_FRAME), deliver, control, health, text_open: false };
            let ended = reading.run(read).await;
            if let Err(error) = ended {
                let _ = reading.deliver.send(Err(error)).await;
            }
        });
        Self { reader: SocketReader { pieces }, writer: SocketWriter { queue } }
    }

    /// Both directions, for use at once.
    pub fn split(self) -> (SocketReader, SocketWriter) {
        (self.reader, self.writer)
    }
}

impl SocketReader {
    /// The next piece; `None` when the server has said that it is done.
    ///
    /// # Errors
    /// [`Error::Closed`] when the connection ended without that, with the reason if the other side gave one.
    pub async fn next(&mut self) -> Result<Option<Piece>, Error> {
        self.pieces.recv().await.transpose()
    }
}

impl SocketWriter {
    /// Sends bytes; waits while the other side is slow. `false` when the connection is gone.
    pub async fn send(&self, data: Bytes) -> bool {
        data.is_empty() || self.queue.send(Outgoing::Data(data)).await.is_ok()
    }

    /// Says that nothing more will come in this direction.
    pub async fn end(&self) {
        let _ = self.queue.send(Outgoing::End).await;
    }

    /// Takes leave politely, and waits a moment for that to have been sent.
    pub async fn close(self) {
        let _ = self.queue.send(Outgoing::Close).await;
        let _ = timeout(Duration::from_millis(500), self.queue.closed()).await;
    }
}

struct Reading {
    host: String,
    decoder: Decoder,
    deliver: mpsc::Sender<Result<Piece, Error>>,
    control: mpsc::WeakSender<Outgoing>,
    health: Arc<Health>,
    text_open: bool,
}

impl Reading {
    /// Ends with `Ok` at the server's end of data.
    async fn run(&mut self, mut read: impl AsyncRead + Unpin) -> Result<(), Error> {
        let mut buffer = BytesMut::with_capacity(32 * 1024);
        let closed = |reason: String| Error::Closed { host: self.host.clone(), reason };
        loop {
            buffer.clear();
            match timeout(PING, read.read_buf(&mut buffer)).await {
                Err(_) if self.health.is_lost() => return Err(closed("it stopped answering".to_owned())),
                Err(_) => continue,
                Ok(Ok(0)) => return Err(closed("it was cut".to_owned())),
                Ok(Ok(_)) => self.health.heard(),
                Ok(Err(error)) => return Err(closed(plain(&error))),
            }
            self.decoder.push(&buffer);
            loop {
                let frame = self.decoder.next().map_err(|error| Error::Protocol { host: self.host.clone(), reason: error.to_string() })?;
                let Some(frame) = frame else { break };
                let payload = Bytes::from(frame.payload);
                match frame.op {
                    Op::Text | Op::Continuation => {
                        let first = frame.op == Op::Text;
                        self.text_open = !frame.fin;
                        if self.deliver.send(Ok(Piece { data: payload, first, last: frame.fin })).await.is_err() {
                            // Nobody reads any more.
                            return Ok(());
                        }
                    }
                    Op::Binary => return Ok(()),
                    Op::Ping => {
                        // Under pressure a pong may be left out; the next ping asks again.
                        if let Some(queue) = self.control.upgrade() {
                            let _ = queue.try_send(Outgoing::Pong(payload));
                        }
                    }
                    Op::Pong => self.health.has_ponged.store(true, Ordering::Relaxed),
                    Op::Close => return self.farewell(&payload),
                }
            }
        }
    }

    /// A normal close is an end; any other says that something was cut short, perhaps with words for the person.
    fn farewell(&self, payload: &[u8]) -> Result<(), Error> {
        let code = payload.first_chunk::<2>().map_or(1000, |code| u16::from_be_bytes(*code));
        if matches!(code, 1000 | 1001) {
            return Ok(());
        }
        let words = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
        let words: String = words.chars().filter(|char| !char.is_control()).collect();
        let reason = if words.is_empty() { format!("closed by the server with code {code}") } else { words };
        Err(Error::Closed { host: self.host.clone(), reason })
    }
}

async fn write_all(mut write: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Outgoing>, health: Arc<Health>) {
    let mut buffer = Vec::new();
    let mut ping = tokio::time::interval(PING);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ping.tick().await;
    loop {
        buffer.clear();
        let next = tokio::select! {
            next = queue.recv() => Some(next),
            _ = ping.tick() => None,
        };
        let mut leaving = false;
        match next {
            None => masked(Op::Ping, &[], &mut buffer),
            Some(Some(Outgoing::Data(data))) => {
                for piece in data.chunks(LARGEST_MESSAGE) {
                    masked(Op::Text, piece, &mut buffer);
                }
            }
            Some(Some(Outgoing::End)) => masked(Op::Binary, &[], &mut buffer),
            Some(Some(Outgoing::Pong(data))) => masked(Op::Pong, &data, &mut buffer),
            Some(Some(Outgoing::Close) | None) => {
                masked(Op::Close, &1000u16.to_be_bytes(), &mut buffer);
                leaving = true;
            }
        }
        health.is_writing.store(true, Ordering::Relaxed);
        let sent = async {
            write.write_all(&buffer).await?;
            write.flush().await
        };
        // A process that does not read its input may hold us up for as long as it likes; taking leave may not take long.
        let done = if leaving { timeout(Duration::from_secs(1), sent).await.unwrap_or(Ok(())) } else { sent.await };
        health.is_writing.store(false, Ordering::Relaxed);
        if leaving || done.is_err() {
            return;
        }
    }
}

fn masked(op: Op, payload: &[u8], buffer: &mut Vec<u8>) {
    let mut mask = [0u8; 4];
    // The mask protects proxies from forged requests inside TLS, where none can look. Without randomness it is zero.
    let _ = getrandom::fill(&mut mask);
    socket::encode(&socket::Frame { fin: true, op, payload: payload.to_vec() }, Some(mask), buffer);
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    fn pair() -> (SocketReader, SocketWriter, DuplexStream) {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (reader, writer) = Socket::start("h".to_owned(), near).split();
        (reader, writer, far)
    }

    async fn say(far: &mut DuplexStream, frames: &[socket::Frame]) {
        let mut bytes = Vec::new();
        for frame in frames {
            socket::encode(frame, None, &mut bytes);
        }
        far.write_all(&bytes).await.unwrap();
    }

    /// What the client sent until `done` says so.
    async fn heard(far: &mut DuplexStream, done: impl Fn(&[socket::Frame]) -> bool) -> Vec<socket::Frame> {
        let mut decoder = Decoder::new(Role::Server, 1 << 20);
        let mut frames = Vec::new();
        let mut buffer = [0u8; 4096];
        while !done(&frames) {
            let count = far.read(&mut buffer).await.unwrap();
            assert!(count > 0, "closed after {frames:?}");
            decoder.push(&buffer[..count]);
            while let Some(frame) = decoder.next().unwrap() {
                frames.push(frame);
            }
        }
        frames
    }

    #[tokio::test]
    async fn bytes_pass_unchanged_in_messages_that_the_originals_can_read() {
        let (mut reader, writer, mut far) = pair();
        let sent: Vec<u8> = (0..5000u32).map(|number| number as u8).collect();
        assert!(writer.send(Bytes::from(sent.clone())).await);
        writer.end().await;
        let frames = heard(&mut far, |frames| frames.last().is_some_and(|frame| frame.op == Op::Binary)).await;
        assert!(frames.iter().all(|frame| frame.payload.len() <= LARGEST_MESSAGE));
        let text: Vec<u8> = frames.iter().filter(|frame| frame.op == Op::Text).flat_map(|frame| frame.payload.clone()).collect();
        assert_eq!(text, sent);
        // A message in two pieces, cut inside a character, with a ping between them.
        let first = socket::Frame { fin: false, op: Op::Text, payload: vec![b'a', 0xc3] };
        let ping = socket::Frame { fin: true, op: Op::Ping, payload: b"p".to_vec() };
        let rest = socket::Frame { fin: true, op: Op::Continuation, payload: vec![0xbc] };
        say(&mut far, &[first, ping, rest, socket::Frame::end()]).await;
        let piece = reader.next().await.unwrap().unwrap();
        assert_eq!((piece.data.as_ref(), piece.first, piece.last), (&[b'a', 0xc3][..], true, false));
        let piece = reader.next().await.unwrap().unwrap();
        assert_eq!((piece.data.as_ref(), piece.first, piece.last), (&[0xbc][..], false, true));
        assert_eq!(reader.next().await.unwrap(), None);
        let pong = heard(&mut far, |frames| frames.iter().any(|frame| frame.op == Op::Pong)).await;
        assert!(pong.iter().any(|frame| frame.payload == b"p"));
    }

    #[tokio::test]
    async fn a_close_with_words_is_an_error_with_those_words() {
        let (mut reader, _writer, mut far) = pair();
        say(&mut far, &[socket::Frame::close(1008, "your key was revoked")]).await;
        assert_eq!(reader.next().await.unwrap_err().to_string(), "the connection to h ended early: your key was revoked");
        let (mut reader, _writer, mut far) = pair();
        say(&mut far, &[socket::Frame::text("x"), socket::Frame::close(1000, "")]).await;
        assert_eq!(reader.next().await.unwrap().unwrap().data.as_ref(), b"x");
        assert_eq!(reader.next().await.unwrap(), None);
        let (mut reader, _writer, far) = pair();
        drop(far);
        assert!(reader.next().await.unwrap_err().to_string().contains("it was cut"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stops_answering_pings_is_given_up() {
        let (mut reader, _writer, mut far) = pair();
        let start = Instant::now();
        let frames = heard(&mut far, |frames| !frames.is_empty()).await;
        assert_eq!((frames[0].op, start.elapsed().as_secs()), (Op::Ping, 20));
        say(&mut far, &[socket::Frame { fin: true, op: Op::Pong, payload: Vec::new() }]).await;
        let error = reader.next().await.unwrap_err().to_string();
        assert!(error.contains("stopped answering"), "{error}");
        assert!((80..140).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_answers_pings_may_be_silent_for_long() {
        let (mut reader, _writer, mut far) = pair();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_hours(2)).await;
            say(&mut far, &[socket::Frame::text("late"), socket::Frame::end()]).await;
            std::future::pending::<()>().await;
        });
        assert_eq!(reader.next().await.unwrap().unwrap().data.as_ref(), b"late");
    }
}
