//! WebSockets as the protocol uses them: text messages are bytes, the first binary message is the end of its direction.
//!
//! Two tasks own the connection, so pings are sent and answered whatever the caller is doing, and a direction that is
//! stuck never holds up the other. Every queue is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::{Bytes, BytesMut};
use convox_wire::socket::{self, Decoder, Op, Role};
use http::{HeaderValue, Method, Request};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

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

type Io = TokioIo<Upgraded>;

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
    /// Opens a WebSocket. The call's options must be headers: nothing else travels on a handshake.
    pub async fn socket(&self, call: Call) -> Result<Socket, Error> {
        let host = peer(self.endpoint());
        let mut nonce = [0u8; 16];
        getrandom::fill(&mut nonce).map_err(|error| Error::input(format!("no random numbers from the system: {error}")))?;
        let key = base64::engine::general_purpose::STANDARD.encode(nonce);
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::GET;
        let target = format!("{}{}", self.endpoint().prefix(), call.path);
        *request.uri_mut() = target.parse().map_err(|_| Error::input(format!("`{}` is no path", call.path)))?;
        let headers = request.headers_mut();
        let bad = |_| Error::input("the host holds a character that cannot be sent");
        let origin = format!("{}://{}", self.endpoint().scheme().as_str(), self.endpoint().authority().to_ascii_lowercase());
        headers.insert("origin", HeaderValue::try_from(origin).map_err(bad)?);
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
        headers.insert("sec-websocket-key", HeaderValue::try_from(key.as_str()).map_err(bad)?);
        headers.extend(call.headers);
        let (response, upgraded) = exchange::upgrade(self, request).await?;
        let accepted = response.headers().get("sec-websocket-accept").and_then(|value| value.to_str().ok());
        if accepted != Some(socket::accept_key(&key).as_str()) {
            return Err(Error::Protocol { host, reason: "it opened something that is not our socket (Sec-WebSocket-Accept)".to_owned() });
        }
        Ok(Socket::start(host, TokioIo::new(upgraded)))
    }
}

impl Socket {
    fn start(host: String, io: Io) -> Self {
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
    async fn run(&mut self, mut read: ReadHalf<Io>) -> Result<(), Error> {
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

async fn write_all(mut write: WriteHalf<Io>, mut queue: mpsc::Receiver<Outgoing>, health: Arc<Health>) {
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
