//! The bytes of an exec session, as they are: no line, frame or text that a program writes is read for meaning here.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::UnixStream;

use super::Engine;
use crate::runtime::TerminalInput;

/// Longest error text that is read.
const ERROR_CAP: usize = 64 * 1024;

pub(super) type Input = Box<dyn AsyncWrite + Send + Unpin>;
pub(super) type Output = Box<dyn AsyncRead + Send + Unpin>;
type Stream = TokioIo<Upgraded>;

/// Starts an exec that was created, and gives its two ends.
pub(super) async fn start(engine: &Engine, exec: &str, tty: bool) -> io::Result<(Input, Output)> {
    let stream = UnixStream::connect(engine.socket()).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::post(format!("{}/exec/{exec}/start", engine.version_path()))
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .body(Full::new(Bytes::from(format!("{{\"Detach\":false,\"Tty\":{tty}}}"))))
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let text = Limited::new(response.into_body(), ERROR_CAP).collect().await.map_err(io::Error::other)?.to_bytes();
        return Err(io::Error::other(format!("the engine answered {status}: {}", String::from_utf8_lossy(&text).trim())));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(io::Error::other)?;
    let (read, write) = tokio::io::split(TokioIo::new(upgraded));
    Ok(if tty {
        (Box::new(TerminalInput::new(write)), Box::new(Raw { stream: read }))
    } else {
        (Box::new(Pipe { stream: write }), Box::new(Demultiplexed { stream: read, head: [0; 8], have: 0, left: 0 }))
    })
}

/// Standard input without a terminal.
struct Pipe {
    stream: WriteHalf<Stream>,
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a terminal shows.
struct Raw {
    stream: ReadHalf<Stream>,
}

impl AsyncRead for Raw {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

/// Standard output and standard error, which come in frames: the pipe's number, three zeros, the length (4 bytes,
/// big-endian), the bytes.
struct Demultiplexed {
    stream: ReadHalf<Stream>,
    head: [u8; 8],
    have: usize,
    left: usize,
}

impl AsyncRead for Demultiplexed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.left == 0 {
            let mut rest = ReadBuf::new(this.head.get_mut(this.have..).unwrap_or_default());
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut rest))?;
            let count = rest.filled().len();
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            this.have += count;
            if this.have == this.head.len() {
                let [_, _, _, _, length @ ..] = this.head;
                this.left = u32::from_be_bytes(length) as usize;
                this.have = 0;
            }
        }
        let room = this.left.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        this.left -= count;
        buf.advance(count);
        Poll::Ready(Ok(()))
    }
}
