//! A caller that writes bytes and reads replies, without a library that would tidy them up.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not happen in time"))
}

/// A message's first line, headers and body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    pub(crate) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub(crate) struct Raw<S = TcpStream> {
    pub(crate) stream: S,
    pub(crate) buffer: Vec<u8>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // An answer may have come, and the connection be closed, before everything is sent.
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk).await?;
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    /// A head, or `None` if the connection ends before one.
    pub(crate) async fn head(&mut self) -> Option<Message> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            match soon("a head", self.fill()).await {
                Ok(count) if count > 0 => {}
                _ => return None,
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?} in {text:?}"));
                (name.to_owned(), value.trim().to_owned())
            })
            .collect();
        Some(Message { line, headers, body: Vec::new() })
    }

    pub(crate) async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            match soon("more bytes", self.fill()).await {
                Ok(count) if count > 0 => {}
                _ => return None,
            }
        }
        Some(self.buffer.drain(..count).collect())
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            match soon("a line", self.fill()).await {
                Ok(count) if count > 0 => {}
                _ => return None,
            }
        }
    }

    /// The body that `message` announces; `None` if it is cut short.
    pub(crate) async fn body(&mut self, message: &Message) -> Option<Vec<u8>> {
        if message.header("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16).ok()?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    return Some(body);
                }
                body.extend(self.exactly(size).await?);
                assert_eq!(self.line().await?, "", "a chunk ends with its line");
            }
        }
        let length = message.header("content-length").map_or(0, |length| length.parse().unwrap());
        self.exactly(length).await
    }

    /// A request with its body.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        let mut message = self.head().await?;
        message.body = self.body(&message).await?;
        Some(message)
    }

    /// A reply with its body; to a `HEAD` if `no_body`.
    pub(crate) async fn reply_to(&mut self, no_body: bool) -> Option<Message> {
        let mut message = self.head().await?;
        let status = message.status();
        if no_body || status == 204 || status == 304 || status == 101 {
            return Some(message);
        }
        if message.header("transfer-encoding").is_none() && message.header("content-length").is_none() {
            message.body = self.rest().await;
            return Some(message);
        }
        message.body = self.body(&message).await?;
        Some(message)
    }

    pub(crate) async fn reply(&mut self) -> Option<Message> {
        self.reply_to(false).await
    }

    /// Everything until the connection ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while matches!(soon("the end", self.fill()).await, Ok(count) if count > 0) {}
        std::mem::take(&mut self.buffer)
    }
}

/// One request on a connection of its own.
pub(crate) async fn once(address: SocketAddr, request: impl AsRef<[u8]>) -> Message {
    let mut raw = Raw::connect(address).await;
    raw.send(request).await;
    raw.reply().await.expect("a reply")
}
