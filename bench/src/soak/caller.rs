//! Whoever asks: a kept connection to a Console for one organization's Rack, and just enough of HTTP/1.1 and WebSockets.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use convox_tls::{Trust, client_config};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// For one answer. Longer than the Console waits for its audit log.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where, and with what.
#[derive(Clone)]
pub(super) struct Door {
    address: String,
    tls: Arc<rustls::ClientConfig>,
    head: String,
}

impl Door {
    pub(super) fn new(address: &str, pin: &str, key: &str, org: usize) -> anyhow::Result<Self> {
        let pin = pin.parse().map_err(|_| anyhow::anyhow!("the fingerprint {pin} cannot be read"))?;
        let head = format!("Host: soak\r\nAuthorization: Bearer {key}\r\nRack: org{org}/main\r\n");
        Ok(Self { address: address.to_owned(), tls: client_config(&Trust::Pinned(pin))?, head })
    }

    async fn connect(&self) -> anyhow::Result<Stream> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(ServerName::try_from("localhost")?, tcp).await?;
        Ok(BufReader::new(stream))
    }
}

type Stream = BufReader<TlsStream<TcpStream>>;

/// One connection at a time, made anew when it broke.
pub(super) struct Caller {
    door: Door,
    kept: Option<Stream>,
}

impl Caller {
    pub(super) fn new(door: Door) -> Self {
        Self { door, kept: None }
    }

    /// Sends `METHOD /path` with a form; status and body.
    pub(super) async fn send(&mut self, line: &str, form: &str) -> anyhow::Result<(u16, String)> {
        let asked = tokio::time::timeout(PATIENCE, self.exchange(line, form)).await;
        let asked = asked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())));
        if asked.is_err() {
            self.kept = None;
        }
        asked
    }

    async fn exchange(&mut self, line: &str, form: &str) -> anyhow::Result<(u16, String)> {
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => self.door.connect().await.context("connecting")?,
        };
        let kind = if form.is_empty() { "" } else { "Content-Type: application/x-www-form-urlencoded\r\n" };
        let head = &self.door.head;
        let text = format!("{line} HTTP/1.1\r\n{head}{kind}Content-Length: {}\r\n\r\n{form}", form.len());
        stream.write_all(text.as_bytes()).await.context("sending")?;
        stream.flush().await.context("sending")?;
        let Head { status, length, closes } = read_head(&mut stream).await.context("reading")?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.context("reading")?;
        if !closes {
            self.kept = Some(stream);
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

struct Head {
    status: u16,
    length: usize,
    closes: bool,
}

async fn read_head(stream: &mut Stream) -> anyhow::Result<Head> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).with_context(|| format!("no status line: {line:?}"))?;
    let mut head = Head { status, length: 0, closes: false };
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            bail!("the head broke off");
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok(head) };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.trim().parse()?,
            "connection" => head.closes = value.trim().eq_ignore_ascii_case("close"),
            "transfer-encoding" => bail!("an answer without a length"),
            _ => {}
        }
    }
}

/// An open log.
pub(super) struct Log(Stream);

impl Log {
    pub(super) async fn open(door: &Door) -> anyhow::Result<Self> {
        tokio::time::timeout(PATIENCE, Self::opened(door)).await.context("the log did not open in time")?
    }

    async fn opened(door: &Door) -> anyhow::Result<Self> {
        let mut stream = door.connect().await.context("connecting")?;
        let text = format!(
            "GET /system/logs HTTP/1.1\r\n{}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            door.head
        );
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await?;
        match read_head(&mut stream).await?.status {
            101 => Ok(Self(stream)),
            status => bail!("{status}"),
        }
    }

    /// The next text; an error is the end, and says how.
    pub(super) async fn next(&mut self) -> anyhow::Result<String> {
        loop {
            let [first, second] = [self.0.read_u8().await?, self.0.read_u8().await?];
            let length = match second & 0x7f {
                126 => usize::from(self.0.read_u16().await?),
                127 => bail!("longer than anything here"),
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await?;
            match first & 0x0f {
                0..=2 => return Ok(String::from_utf8_lossy(&payload).into_owned()),
                8 => bail!("closed: {}", String::from_utf8_lossy(payload.get(2..).unwrap_or_default())),
                9 => {
                    // Masked with nothing, as a client's frames are.
                    let mut pong = vec![0x8a, 0x80 | u8::try_from(length)?, 0, 0, 0, 0];
                    pong.extend_from_slice(&payload);
                    self.0.write_all(&pong).await?;
                    self.0.flush().await?;
                }
                _ => {}
            }
        }
    }
}
