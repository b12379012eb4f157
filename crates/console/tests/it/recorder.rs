//! A Rack that keeps every byte it is sent, over real TLS. It knows one password, or two while that is rolled, answers what is asked, and serves
//! two kinds of WebSocket: shells that echo, and logs that never end.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use convox_proxy::tls_server;
use convox_tls::Fingerprint;
use convox_wire::basic::Basic;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Hit {
    /// Request line and headers, byte for byte.
    pub head: String,
}

impl Hit {
    /// Whether the Console looked for itself whether the Rack answers.
    pub(crate) fn is_a_look(&self) -> bool {
        (self.line() == "GET /system" || self.is("GET /system?")) && self.all("convox-actor").is_empty()
    }

    /// `METHOD TARGET`
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1")
    }

    /// All values of a header.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let field = |line: &'_ str| line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.head
            .lines()
            .skip(1)
            .filter(|line| field(line))
            .filter_map(|line| line.split_once(':'))
            .map(|(_, value)| value.trim())
            .collect()
    }

    fn is(&self, start: &str) -> bool {
        self.line().starts_with(start)
    }
}

type Look = Box<dyn FnMut(&Hit) + Send>;

#[derive(Default)]
struct Seen {
    /// `Authorization` headers that open it; the newest last.
    expected: Mutex<Vec<String>>,
    /// What it answers at some paths, whatever is asked.
    fixed: Mutex<Vec<(String, &'static str)>>,
    hits: Mutex<Vec<Hit>>,
    look: Mutex<Option<Look>>,
    /// WebSockets and endless downloads that are open now.
    open: AtomicUsize,
    connections: AtomicUsize,
    streams: Mutex<Vec<TcpStream>>,
    stop: AtomicBool,
}

/// The Rack.
pub(crate) struct Recorder {
    /// `127.0.0.1:PORT`
    pub host: String,
    pub fingerprint: Fingerprint,
    pub password: String,
    seen: Arc<Seen>,
}

impl Recorder {
    pub(crate) fn start(password: &str) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), password)
    }

    /// With a new certificate, at an address where another was. `None` while that is still taken.
    pub(crate) fn at(port: u16, password: &str) -> Option<Self> {
        TcpListener::bind(("127.0.0.1", port)).ok().map(|listener| Self::on(listener, password))
    }

    fn on(listener: TcpListener, password: &str) -> Self {
        let (cert, key) = tls_server::generate(&["127.0.0.1"]).unwrap();
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
        let fingerprint = Fingerprint::of(&chain[0]);
        let config = ServerConfig::builder_with_provider(convox_tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
            .unwrap();
        let config = Arc::new(config);
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Seen::default());
        seen.expected.lock().unwrap().push(Basic::header("convox", password));
        let accepting = Arc::clone(&seen);
        std::thread::spawn(move || {
            for tcp in listener.incoming().map_while(Result::ok) {
                if accepting.stop.load(Ordering::Relaxed) {
                    return;
                }
                accepting.connections.fetch_add(1, Ordering::Relaxed);
                accepting.streams.lock().unwrap().push(tcp.try_clone().unwrap());
                let (seen, config) = (Arc::clone(&accepting), Arc::clone(&config));
                std::thread::spawn(move || serve(tcp, &config, &seen));
            }
        });
        Self { host, fingerprint, password: password.to_owned(), seen }
    }

    /// Every request so far, but for the looks that the Console takes by itself.
    pub(crate) fn hits(&self) -> Vec<Hit> {
        let all = self.seen.hits.lock().unwrap();
        all.iter().filter(|hit| !hit.is_a_look()).cloned().collect()
    }

    /// The requests for `target` so far.
    pub(crate) fn hits_of(&self, target: &str) -> Vec<Hit> {
        self.hits().into_iter().filter(|hit| hit.line().split(' ').nth(1).is_some_and(|found| found == target)).collect()
    }

    /// TCP connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }

    /// Streams that are open now.
    pub(crate) fn open(&self) -> usize {
        self.seen.open.load(Ordering::Relaxed)
    }

    /// Answers with this status at a path from now on, whatever is asked; `None` as it would.
    pub(crate) fn fix(&self, path: &str, status: Option<&'static str>) {
        let mut fixed = self.seen.fixed.lock().unwrap();
        fixed.retain(|(known, _)| known != path);
        fixed.extend(status.map(|status| (path.to_owned(), status)));
    }

    /// Called with each request before it is answered.
    pub(crate) fn look(&self, look: impl FnMut(&Hit) + Send + 'static) {
        *self.seen.look.lock().unwrap() = Some(Box::new(look));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(&self.host);
        for stream in self.seen.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

fn serve(tcp: TcpStream, config: &Arc<ServerConfig>, seen: &Seen) {
    let _ = tcp.set_nodelay(true);
    let _ = tcp.set_read_timeout(Some(Duration::from_mins(1)));
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), tcp);
    while let Some(head) = read_head(&mut stream) {
        let hit = Hit { head };
        let Some(body) = read_body(&mut stream, &hit) else { return };
        if !hit.is_a_look()
            && let Some(look) = seen.look.lock().unwrap().as_mut()
        {
            look(&hit);
        }
        seen.hits.lock().unwrap().push(hit.clone());
        if answer(&mut stream, &hit, &body, seen).is_err() {
            return;
        }
    }
}

fn answer(stream: &mut Stream, hit: &Hit, body: &[u8], seen: &Seen) -> std::io::Result<()> {
    let path = hit.line().split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
    let brought = hit.all("authorization").join(",");
    if !seen.expected.lock().unwrap().contains(&brought) {
        return say(stream, "401 Unauthorized", "invalid authentication\n");
    }
    let fixed = seen.fixed.lock().unwrap().iter().find(|(fixed, _)| *fixed == path).map(|(_, status)| *status);
    if let Some(status) = fixed {
        return say(stream, status, "as the test says\n");
    }
    let mut expected = seen.expected.lock().unwrap();
    match (hit.line().split(' ').next().unwrap_or_default(), path.as_str()) {
        ("PUT", "/system/password") => {
            let form = String::from_utf8_lossy(body).into_owned();
            let next = form.strip_prefix("password=").expect("a form with the next password");
            let next = Basic::header("convox", next);
            expected.retain(|known| *known == brought || *known == next);
            if !expected.contains(&next) {
                expected.push(next);
            }
        }
        ("POST", "/system/password/retire") => expected.retain(|known| *known == brought),
        ("DELETE", "/system/password") => expected.truncate(1),
        _ => {}
    }
    drop(expected);
    if !hit.all("upgrade").is_empty() {
        let accept = convox_wire::socket::accept_key(hit.all("sec-websocket-key").first().copied().unwrap_or_default());
        write!(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )?;
        stream.flush()?;
        seen.open.fetch_add(1, Ordering::Relaxed);
        let _ = if path.ends_with("/logs") { endless(stream, |stream, line| frame(stream, 1, line)) } else { echo(stream) };
        seen.open.fetch_sub(1, Ordering::Relaxed);
        return Err(ErrorKind::ConnectionAborted.into());
    }
    if path.ends_with("tgz") && hit.line().starts_with("GET ") {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        seen.open.fetch_add(1, Ordering::Relaxed);
        let _ = endless(stream, |stream, line| {
            write!(stream, "{:x}\r\n", line.len())?;
            stream.write_all(line)?;
            stream.write_all(b"\r\n")
        });
        seen.open.fetch_sub(1, Ordering::Relaxed);
        return Err(ErrorKind::ConnectionAborted.into());
    }
    match path.as_str() {
        "/system" => say(stream, "200 OK", r#"{"name":"main","provider":"local","status":"running","version":"20260101000000"}"#),
        "/apps/slow" => {
            // Long enough for a signal to arrive meanwhile.
            std::thread::sleep(Duration::from_millis(700));
            say(stream, "200 OK", "{}")
        }
        _ => say(stream, "200 OK", "{}"),
    }
}

fn say(stream: &mut Stream, status: &str, body: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    stream.flush()
}

/// Lines until the other side is gone.
fn endless(stream: &mut Stream, mut send: impl FnMut(&mut Stream, &[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    stream.sock.set_read_timeout(Some(Duration::from_millis(30)))?;
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
        send(stream, b"line\n")?;
        stream.flush()?;
    }
}

/// Sends each text message back, until the end.
fn echo(stream: &mut Stream) -> std::io::Result<()> {
    loop {
        let mut start = [0; 2];
        stream.read_exact(&mut start)?;
        let length = usize::from(start[1] & 0x7f);
        assert!(length < 126, "the tests send short messages");
        let mut mask = [0; 4];
        stream.read_exact(&mut mask)?;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload)?;
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        match start[0] & 0x0f {
            8 => return Ok(()),
            1 => frame(stream, 1, &payload)?,
            _ => {}
        }
        stream.flush()?;
    }
}

fn frame(stream: &mut Stream, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
    stream.write_all(&[0x80 | opcode, u8::try_from(payload.len()).unwrap()])?;
    stream.write_all(payload)
}

fn read_head(stream: &mut Stream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

fn read_body(stream: &mut Stream, hit: &Hit) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    if let Some(length) = hit.all("content-length").first() {
        all = vec![0; length.parse().ok()?];
        stream.read_exact(&mut all).ok()?;
    } else if !hit.all("transfer-encoding").is_empty() {
        loop {
            let mut line = Vec::new();
            let mut byte = [0];
            while !line.ends_with(b"\r\n") {
                stream.read_exact(&mut byte).ok()?;
                line.push(byte[0]);
            }
            let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            all.extend_from_slice(&chunk[..size]);
        }
    }
    Some(all)
}
