//! Just enough of HTTP/1.1 and of WebSockets over TLS to ask, to answer and to listen until somebody ends it. Blocking, so that a time that
//! is taken is the time of the thing and not of a scheduler.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use convox_tls::Trust;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};

/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A kept connection to a Console.
pub(crate) struct Connection(BufReader<StreamOwned<ClientConnection, TcpStream>>);

/// What came back.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// How a WebSocket ended.
pub(crate) struct Ending {
    /// Close code and reason; 0 without a close frame.
    pub(crate) code: u16,
    pub(crate) reason: String,
    /// Text before the end, without the lines of the log.
    pub(crate) text: String,
}

impl Connection {
    pub(crate) fn open(address: &str, fingerprint: &str) -> anyhow::Result<Self> {
        let pin = fingerprint.parse().map_err(|_| anyhow::anyhow!("the fingerprint {fingerprint} cannot be read"))?;
        let config = convox_tls::client_config(&Trust::Pinned(pin))?;
        let tcp = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
        Ok(Self(BufReader::new(StreamOwned::new(ClientConnection::new(config, host.try_into()?)?, tcp))))
    }

    fn send(&mut self, head: &str, body: &str) -> anyhow::Result<()> {
        let stream = self.0.get_mut();
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
        Ok(stream.flush()?)
    }

    /// Asks with a key, for the Rack of the bench.
    pub(crate) fn ask(&mut self, method: &str, path: &str, key: &str, body: &str) -> anyhow::Result<Reply> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\nRack: {}\r\nContent-Type: application/json\r\n",
            crate::contender::RACK
        );
        self.send(&head, body)?;
        let (status, length) = self.head()?;
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(Reply { status, body: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// Sends a request that is made already and reads the answer; its status.
    pub(crate) fn again(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        let stream = self.0.get_mut();
        stream.write_all(request)?;
        stream.flush()?;
        let (status, mut left) = self.head()?;
        while left > 0 {
            let there = self.0.fill_buf()?.len().min(left);
            anyhow::ensure!(there > 0, "the answer was cut off");
            self.0.consume(there);
            left -= there;
        }
        Ok(status)
    }

    /// Status and length of the body.
    fn head(&mut self) -> anyhow::Result<(u16, usize)> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).with_context(|| format!("no status line: {line:?}"))?;
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                Some(_) => {}
                None => return Ok((status, length)),
            }
        }
    }

    /// Opens a WebSocket.
    pub(super) fn upgrade(&mut self, path: &str, key: &str) -> anyhow::Result<()> {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\nRack: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            crate::contender::RACK
        );
        let stream = self.0.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.flush()?;
        match self.head()? {
            (101, _) => Ok(()),
            (status, _) => bail!("{path} did not open: {status}"),
        }
    }

    /// Reads until the other side ends it.
    pub(super) fn listen(&mut self) -> Ending {
        let mut ending = Ending { code: 0, reason: String::new(), text: String::new() };
        while let Ok((opcode, payload)) = self.frame() {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            match opcode {
                8 => {
                    if let Some((code, reason)) = payload.split_first_chunk::<2>() {
                        ending.code = u16::from_be_bytes(*code);
                        ending.reason = text(reason);
                    }
                    break;
                }
                1 | 2 if payload != LINE => ending.text.push_str(&text(&payload)),
                _ => {}
            }
        }
        ending
    }

    fn frame(&mut self) -> anyhow::Result<(u8, Vec<u8>)> {
        let mut start = [0; 2];
        self.0.read_exact(&mut start)?;
        let [first, second] = start;
        let length = match second & 0x7f {
            126 => {
                let mut length = [0; 2];
                self.0.read_exact(&mut length)?;
                usize::from(u16::from_be_bytes(length))
            }
            127 => bail!("longer than anything here"),
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload)?;
        Ok((first & 0x0f, payload))
    }
}

const LINE: &[u8] = b"line\n";

/// A Rack that answers everything, lets WebSockets be open and remembers which paths it was asked for.
pub(super) struct Rack {
    pub(super) port: u16,
    paths: Arc<Mutex<Vec<String>>>,
    open: Arc<AtomicUsize>,
}

impl Rack {
    pub(super) fn start(certificate: &str, key: &str) -> anyhow::Result<Self> {
        let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
        let config = ServerConfig::builder_with_provider(convox_tls::provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain?, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?;
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0")?);
        let rack = Self { port: listener.local_addr()?.port(), paths: Arc::default(), open: Arc::default() };
        let (paths, open) = (Arc::clone(&rack.paths), Arc::clone(&rack.open));
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                let (config, paths, open) = (Arc::clone(&config), Arc::clone(&paths), Arc::clone(&open));
                std::thread::spawn(move || serve(tcp, config, &paths, &open));
            }
        });
        Ok(rack)
    }

    /// The paths since the last time.
    pub(super) fn take_paths(&self) -> Vec<String> {
        std::mem::take(&mut self.paths.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// WebSockets that are open now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

fn serve(tcp: TcpStream, config: Arc<ServerConfig>, paths: &Mutex<Vec<String>>, open: &AtomicUsize) -> anyhow::Result<()> {
    tcp.set_nodelay(true)?;
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, tcp));
    loop {
        let (mut line, mut length, mut is_socket) = (String::new(), 0, false);
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().trim_end_matches('?').to_owned();
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.trim().parse()?,
                Some((name, _)) if name.eq_ignore_ascii_case("upgrade") => is_socket = true,
                Some(_) => {}
                None => break,
            }
        }
        std::io::copy(&mut (&mut stream).take(length), &mut std::io::sink())?;
        paths.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        if is_socket {
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n";
            stream.get_mut().write_all(head.as_bytes())?;
            stream.get_mut().flush()?;
            open.fetch_add(1, Ordering::SeqCst);
            let _ = socket(stream.get_mut(), path.ends_with("/logs"));
            open.fetch_sub(1, Ordering::SeqCst);
            return Ok(());
        }
        let body = r#"{"name":"rack","provider":"bench","status":"running","version":"20260101000000"}"#;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.get_mut().write_all(answer.as_bytes())?;
        stream.get_mut().flush()?;
    }
}

/// Sends a line now and then if it is a log, until the other side is gone.
fn socket(stream: &mut StreamOwned<ServerConnection, TcpStream>, is_log: bool) -> anyhow::Result<()> {
    stream.sock.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut bytes = [0; 256];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        if is_log {
            let mut frame = vec![0x81, u8::try_from(LINE.len())?];
            frame.extend_from_slice(LINE);
            stream.write_all(&frame)?;
            stream.flush()?;
        }
    }
}
