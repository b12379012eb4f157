//! A small server over real TLS that records every request and answers as the test says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use convox_tls::Fingerprint;
use convox_wire::socket::{Decoder, Frame, Op, Role, accept_key, encode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// One request, as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names as they were sent.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What to answer.
pub(crate) enum Answer {
    Reply(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// As a reply, but the connection is closed after it, without having said so.
    Last(Vec<u8>),
    /// Frames after a 101; then the socket stays open until the client goes.
    Frames(Vec<Frame>),
    /// Everything that the client sends until its end comes back, then exit code 0.
    Echo,
    /// The connection is cut after the 101 and these frames.
    Cut(Vec<Frame>),
    /// The same, but only when the client has sent something.
    CutLater(Vec<Frame>),
    /// A body in pieces, with so long between them.
    Slow(Vec<Vec<u8>>, Duration),
    /// The connection is cut at once.
    Nothing,
}

pub(crate) fn json(text: &str) -> Answer {
    Answer::Reply(200, vec![("Content-Type", "application/json".to_owned())], text.as_bytes().to_vec())
}

pub(crate) fn status(status: u16, text: &str) -> Answer {
    Answer::Reply(status, Vec::new(), text.as_bytes().to_vec())
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// Listens on loopback until the test ends.
pub(crate) struct Server {
    addresses: Vec<SocketAddr>,
    pub(crate) fingerprint: Fingerprint,
    seen: Arc<Mutex<Vec<Request>>>,
    /// Bytes of HTTP that arrived, after any handshake.
    application_bytes: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

/// A certificate and its key, DER.
pub(crate) struct Identity {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl Identity {
    pub(crate) fn self_signed() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        Self { certificate: made.cert.der().to_vec(), key: made.signing_key.serialize_der() }
    }
}

impl Server {
    /// On one free port, with a certificate of its own that nobody vouches for.
    pub(crate) fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(&Identity::self_signed(), &[None], handler)
    }

    /// On given (or free) ports, with a given certificate.
    pub(crate) fn with(identity: &Identity, ports: &[Option<u16>], handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.clone()));
        let config = ServerConfig::builder_with_provider(convox_tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(identity.certificate.clone())], key)
            .unwrap();
        let config = Arc::new(config);
        let handler: Arc<Handler> = Arc::new(handler);
        let mut server = Self {
            addresses: Vec::new(),
            fingerprint: Fingerprint::of(&identity.certificate),
            seen: Arc::default(),
            application_bytes: Arc::default(),
            connections: Arc::default(),
        };
        for port in ports {
            let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(0))).unwrap();
            server.addresses.push(listener.local_addr().unwrap());
            let (config, handler) = (Arc::clone(&config), Arc::clone(&handler));
            let (seen, bytes, count) = (Arc::clone(&server.seen), Arc::clone(&server.application_bytes), Arc::clone(&server.connections));
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    count.fetch_add(1, Ordering::SeqCst);
                    let (config, handler, seen, bytes) = (Arc::clone(&config), Arc::clone(&handler), Arc::clone(&seen), Arc::clone(&bytes));
                    std::thread::spawn(move || connection(stream, config, &*handler, &seen, &bytes));
                }
            });
        }
        server
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> String {
        self.addresses[0].to_string()
    }

    pub(crate) fn hosts(&self) -> Vec<String> {
        self.addresses.iter().map(ToString::to_string).collect()
    }

    /// Every request so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// `METHOD PATH` of every request so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Request::line).collect()
    }

    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    pub(crate) fn application_bytes(&self) -> usize {
        self.application_bytes.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

type Tls = StreamOwned<ServerConnection, TcpStream>;

fn connection(stream: TcpStream, config: Arc<ServerConfig>, handler: &Handler, seen: &Mutex<Vec<Request>>, bytes: &AtomicUsize) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let _ = stream.set_nodelay(true);
    let Ok(session) = ServerConnection::new(config) else { return };
    let mut tls = StreamOwned::new(session, stream);
    while let Some(request) = read_request(&mut tls, bytes) {
        seen.lock().unwrap().push(request.clone());
        match handler(&request) {
            Answer::Nothing => return,
            Answer::Last(body) => {
                let _ = tls.write_all(format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
                let _ = tls.write_all(&body).and_then(|()| tls.flush());
                return;
            }
            Answer::Reply(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                head.push_str("\r\n");
                let is_head = request.method == "HEAD";
                if tls.write_all(head.as_bytes()).is_err() || (!is_head && tls.write_all(&body).is_err()) || tls.flush().is_err() {
                    return;
                }
            }
            Answer::Slow(pieces, pause) => {
                let length: usize = pieces.iter().map(Vec::len).sum();
                let _ = tls.write_all(format!("HTTP/1.1 200 X\r\nContent-Length: {length}\r\n\r\n").as_bytes());
                for piece in pieces {
                    if tls.write_all(&piece).is_err() || tls.flush().is_err() {
                        return;
                    }
                    std::thread::sleep(pause);
                }
            }
            answer => return socket(&mut tls, &request, answer, seen),
        }
    }
}

fn read_request(tls: &mut Tls, bytes: &AtomicUsize) -> Option<Request> {
    let mut head = Vec::new();
    let mut byte = [0u8; 1];
    while !head.ends_with(b"\r\n\r\n") {
        tls.read_exact(&mut byte).ok()?;
        bytes.fetch_add(1, Ordering::SeqCst);
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let mut request = Request { method: first.next()?.to_owned(), path: first.next()?.to_owned(), ..Request::default() };
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        request.headers.push((name.to_owned(), value.to_owned()));
    }
    if request.header("Transfer-Encoding") == Some("chunked") {
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                tls.read_exact(&mut byte).ok()?;
                line.push(byte[0]);
            }
            let size = usize::from_str_radix(String::from_utf8(line).ok()?.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            tls.read_exact(&mut chunk).ok()?;
            chunk.truncate(size);
            request.body.extend(chunk);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = request.header("Content-Length").and_then(|length| length.parse().ok()) {
        request.body = vec![0; length];
        let mut body = std::mem::take(&mut request.body);
        tls.read_exact(&mut body).ok()?;
        request.body = body;
    }
    Some(request)
}

fn socket(tls: &mut Tls, request: &Request, answer: Answer, seen: &Mutex<Vec<Request>>) {
    let accept = accept_key(request.header("Sec-WebSocket-Key").unwrap_or_default());
    let head =
        format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
    let _ = tls.write_all(head.as_bytes());
    let is_cut_later = matches!(answer, Answer::CutLater(_));
    let (frames, echo, cut) = match answer {
        Answer::Frames(frames) | Answer::CutLater(frames) => (frames, false, false),
        Answer::Cut(frames) => (frames, false, true),
        _ => (Vec::new(), true, false),
    };
    let mut out = Vec::new();
    for frame in &frames {
        encode(frame, None, &mut out);
    }
    if tls.write_all(&out).is_err() || tls.flush().is_err() || cut {
        return;
    }
    let mut decoder = Decoder::new(Role::Server, 1 << 20);
    let mut buffer = [0u8; 4096];
    let mut input = Vec::new();
    loop {
        match tls.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => decoder.push(&buffer[..count]),
        }
        while let Ok(Some(frame)) = decoder.next() {
            match frame.op {
                Op::Text if is_cut_later => return,
                Op::Text => input.extend(frame.payload),
                Op::Binary if echo => {
                    let mut out = Vec::new();
                    encode(&Frame::text(input.clone()), None, &mut out);
                    encode(&Frame::text(convox_wire::exit::marker(0)), None, &mut out);
                    encode(&Frame::end(), None, &mut out);
                    let _ = tls.write_all(&out);
                    let _ = tls.flush();
                }
                _ => {}
            }
        }
    }
    // What was typed belongs to the handshake's record.
    if let Some(record) = seen.lock().unwrap().iter_mut().rev().find(|record| record.path == request.path && record.body.is_empty()) {
        record.body = input;
    }
}
