//! The original clients, byte by byte: Go's request heads, their form encodings, their WebSocket handshake and frames.
//!
//! Written against captures of the unmodified v2 and v3 clients, and on purpose without our own codecs: what our client and
//! our servers might get wrong together shows here.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use convox_tls::{Fingerprint, Trust};
use rustls::{ClientConnection, StreamOwned};

/// Which of the two original clients speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// `convox/rack`
    V2,
    /// `convox/convox`
    V3,
}

/// An original client with its stored host, key and Rack.
#[derive(Clone)]
pub struct GoClient {
    /// Which one.
    pub generation: Generation,
    /// `HOST:PORT`
    pub host: String,
    /// The originals verify nothing; the tests pin, so that they never talk to a stranger.
    pub fingerprint: Fingerprint,
    /// `convox`, `jwt`, or a Rack in base64.
    pub user: String,
    /// API key, Rack password or token.
    pub password: String,
    /// Value of the `Rack` header; v2 sends what was typed, v3 the full name.
    pub rack: Option<String>,
}

/// An answer, taken apart.
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Without framing.
    pub body: Vec<u8>,
}

impl Reply {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` when it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// One TLS connection, pinned to `fingerprint`.
pub fn connect(host: &str, fingerprint: &Fingerprint) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let config = convox_tls::client_config(&Trust::Pinned(*fingerprint))?;
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned();
    let connection = ClientConnection::new(Arc::clone(&config), name.try_into()?)?;
    let socket = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    socket.set_nodelay(true)?;
    Ok(StreamOwned::new(connection, socket))
}

/// Go's `url.UserPassword(..).String()`: what remains of a password in the header (protocol 1.3).
fn userinfo(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,;=".contains(&byte) {
            out.push(char::from(byte));
        } else if byte == b' ' {
            out.push('+');
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// `url.Values.Encode()`: sorted keys, space as plus.
pub fn form(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        let mut out = String::new();
        for byte in text.bytes() {
            match byte {
                b' ' => out.push('+'),
                byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => out.push(char::from(byte)),
                byte => {
                    let _ = write!(out, "%{byte:02X}");
                }
            }
        }
        out
    };
    let mut sorted = pairs.to_vec();
    sorted.sort_unstable();
    sorted.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect::<Vec<_>>().join("&")
}

impl GoClient {
    fn authorization(&self) -> String {
        STANDARD.encode(format!("{}:{}", userinfo(&self.user), userinfo(&self.password)))
    }

    /// Headers of every request, sorted as Go writes them, `extra` among them.
    fn headers(&self, extra: &[(&str, &str)]) -> String {
        let mut all: Vec<(String, String)> =
            vec![("Authorization".into(), format!("Basic {}", self.authorization())), ("Version".into(), "dev".into())];
        if let Some(rack) = &self.rack {
            all.push(("Rack".into(), rack.clone()));
        }
        // v2 sends the header with an empty value when no session is stored; v3 does so towards a Console.
        if self.generation == Generation::V2 || self.rack.is_some() {
            all.push(("Session".into(), String::new()));
        }
        all.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        all.sort();
        let mut text = String::from("User-Agent: convox.go/dev\r\n");
        for (key, value) in all {
            let _ = write!(text, "{key}: {value}\r\n");
        }
        text
    }

    /// One request with a body, as `stdsdk` sends it. `query` without the question mark, which is always there.
    pub fn send(&self, method: &str, path: &str, query: &str, kind: &str, extra: &[(&str, &str)], body: &[u8]) -> Result<Reply> {
        let mut headers = vec![("Accept", "*/*"), ("Content-Type", kind)];
        headers.extend_from_slice(extra);
        let mut head = format!("{method} {path}?{query} HTTP/1.1\r\nHost: {}\r\n", self.host);
        let fields = self.headers(&headers);
        head.push_str(&fields);
        if !body.is_empty() || method == "POST" || method == "PUT" {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        if method != "HEAD" {
            head.push_str("Accept-Encoding: gzip\r\n");
        }
        head.push_str("\r\n");
        let mut stream = connect(&self.host, &self.fingerprint)?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        stream.flush()?;
        read_reply(&mut stream, method == "HEAD")
    }

    /// A request whose body of `length` bytes is still to be written, to the connection that this gives.
    pub fn begin(&self, method: &str, path: &str, kind: &str, length: usize) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let fields = self.headers(&[("Content-Type", kind)]);
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{fields}Content-Length: {length}\r\n\r\n", self.host);
        let mut stream = connect(&self.host, &self.fingerprint)?;
        stream.write_all(head.as_bytes())?;
        stream.flush()?;
        Ok(stream)
    }

    /// `GET path?query`
    pub fn get(&self, path: &str, query: &str) -> Result<Reply> {
        self.send("GET", path, query, "application/octet-stream", &[], b"")
    }

    /// A form, as the clients post their parameters.
    pub fn form(&self, method: &str, path: &str, pairs: &[(&str, &str)]) -> Result<Reply> {
        self.send(method, path, "", "application/x-www-form-urlencoded", &[], form(pairs).as_bytes())
    }

    /// An octet stream with option headers.
    pub fn raw(&self, method: &str, path: &str, options: &[(&str, &str)], body: &[u8]) -> Result<Reply> {
        self.send(method, path, "", "application/octet-stream", options, body)
    }

    /// `GET /racks` first, as both clients do, then the handshake with option headers. `Err` of the outer result is
    /// transport; the inner one is the answer when it was not 101.
    pub fn socket(&self, path: &str, options: &[(&str, &str)]) -> Result<Result<Socket, Reply>> {
        let _ = self.get("/racks", "")?;
        let mut headers = vec![
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
            ("Upgrade", "websocket"),
        ];
        let origin = format!("https://{}", self.host.to_lowercase());
        headers.push(("Origin", &origin));
        headers.extend_from_slice(options);
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{}\r\n", self.host, self.headers(&headers));
        let mut stream = connect(&self.host, &self.fingerprint)?;
        stream.write_all(head.as_bytes())?;
        stream.flush()?;
        let (status, fields) = read_head(&mut stream)?;
        if status != 101 {
            let body = read_body(&mut stream, &fields, false)?;
            return Ok(Err(Reply { status, headers: fields, body }));
        }
        let accept = fields.iter().find(|(key, _)| key == "sec-websocket-accept").map(|(_, value)| value.as_str());
        ensure!(accept == Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "wrong Sec-WebSocket-Accept: {accept:?}");
        Ok(Ok(Socket { stream }))
    }
}

/// An open WebSocket of an original client.
pub struct Socket {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

/// A message as the client sees it.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// Bytes of the stream.
    Text(Vec<u8>),
    /// End of that direction.
    End,
    /// Close frame (code, reason), or the connection dropped (`None`).
    Close(Option<(u16, String)>),
}

impl Socket {
    fn frame(&mut self, opcode: u8, payload: &[u8]) -> Result<()> {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 0x7e);
                frame.extend_from_slice(&u16::try_from(length)?.to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        self.stream.write_all(&frame)?;
        Ok(self.stream.flush()?)
    }

    /// Standard input, in messages of at most 1024 bytes.
    pub fn text(&mut self, bytes: &[u8]) -> Result<()> {
        bytes.chunks(1024).try_for_each(|chunk| self.frame(1, chunk))
    }

    /// End of standard input: an empty binary message.
    pub fn end(&mut self) -> Result<()> {
        self.frame(2, b"")
    }

    /// The empty ping that the clients send every five seconds.
    pub fn ping(&mut self) -> Result<()> {
        self.frame(9, b"")
    }

    /// The next message; pings and pongs are passed over, fragments are put together.
    pub fn receive(&mut self) -> Result<Message> {
        let mut whole = Vec::new();
        let mut kind = 0;
        loop {
            let mut start = [0u8; 2];
            if self.stream.read_exact(&mut start).is_err() {
                return Ok(Message::Close(None));
            }
            let [first, second] = start;
            ensure!(second & 0x80 == 0, "a server must not mask");
            let length = match second & 0x7f {
                126 => {
                    let mut more = [0; 2];
                    self.stream.read_exact(&mut more)?;
                    u64::from(u16::from_be_bytes(more))
                }
                127 => {
                    let mut more = [0; 8];
                    self.stream.read_exact(&mut more)?;
                    u64::from_be_bytes(more)
                }
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(length)?];
            self.stream.read_exact(&mut payload)?;
            match first & 0x0f {
                8 => {
                    return Ok(Message::Close(
                        payload
                            .split_first_chunk::<2>()
                            .map(|(code, reason)| (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned())),
                    ));
                }
                9 | 10 => continue,
                0 => whole.extend_from_slice(&payload),
                opcode => {
                    kind = opcode;
                    whole = payload;
                }
            }
            if first & 0x80 != 0 {
                return Ok(if kind == 2 { Message::End } else { Message::Text(whole) });
            }
        }
    }

    /// All text until the end, as the clients print it, and the exit code as they find it: everything after the marker in
    /// the chunk that holds it.
    pub fn drain(&mut self) -> Result<(Vec<u8>, Option<i32>)> {
        const MARKER: &[u8] = b"F1E49A85-0AD7-4AEF-A618-C249C6E6568D:";
        let mut out = Vec::new();
        let mut code = None;
        loop {
            match self.receive()? {
                Message::Text(text) => match text.windows(MARKER.len()).position(|window| window == MARKER) {
                    Some(at) => {
                        ensure!(at == 0, "the marker must travel in a message of its own");
                        let rest = String::from_utf8_lossy(text.get(MARKER.len()..).unwrap_or_default()).trim().to_owned();
                        code = Some(rest.parse().with_context(|| format!("unable to read exit code: {rest}"))?);
                    }
                    None => out.extend_from_slice(&text),
                },
                Message::End | Message::Close(_) => return Ok((out, code)),
            }
        }
    }
}

fn read_head(stream: &mut impl Read) -> Result<(u16, Vec<(String, String)>)> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 65_536, "the head of the answer has no end");
        stream.read_exact(&mut byte).context("the answer's head")?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("status line")?.parse()?;
    let headers =
        lines.filter_map(|line| line.split_once(':')).map(|(key, value)| (key.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Ok((status, headers))
}

fn read_body(stream: &mut impl Read, headers: &[(String, String)], without: bool) -> Result<Vec<u8>> {
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if without {
        return Ok(body);
    }
    if let Some(length) = header("content-length") {
        body.resize(length.parse()?, 0);
        stream.read_exact(&mut body)?;
    } else if header("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = Vec::new();
            let mut byte = [0u8; 1];
            while !line.ends_with(b"\r\n") {
                stream.read_exact(&mut byte)?;
                line.push(byte[0]);
            }
            let size = usize::from_str_radix(String::from_utf8(line)?.trim(), 16)?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            chunk.truncate(size);
            body.extend_from_slice(&chunk);
        }
    } else {
        let mut chunk = [0u8; 8192];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => body.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                // A peer that closes without a TLS goodbye has still said all.
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                Err(error) => bail!(error),
            }
        }
    }
    Ok(body)
}

/// Reads one answer, whatever its framing.
pub fn read_reply(stream: &mut impl Read, without_body: bool) -> Result<Reply> {
    let (status, headers) = read_head(stream)?;
    let body = read_body(stream, &headers, without_body || status == 204 || status == 304)?;
    Ok(Reply { status, headers, body })
}
