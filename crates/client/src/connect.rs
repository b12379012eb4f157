//! From an endpoint to a byte stream: look up, connect (through a proxy if the environment names one), TLS.
//!
//! Each step has its own error and its own deadline. Nothing of the credential is known here, so whatever fails here
//! fails before a byte of it is sent.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use convox_tls::Fingerprint;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::proxy::Proxy;
use crate::{Endpoint, Error, Proxies, Scheme};

/// For the name lookup and for the TCP connection, each; the originals allow 30 s for both.
const DIAL: Duration = Duration::from_secs(30);
/// For the TLS handshake, and for a proxy's answer to `CONNECT`.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection that is ready to carry HTTP.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The certificate that the peer proved to hold; `None` in clear text.
    pub(crate) fn certificate(&self) -> Option<CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates()?.first().cloned().map(CertificateDer::into_owned),
        }
    }

    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.certificate().map(|certificate| Fingerprint::of(&certificate))
    }
}

/// `host:port` for messages: as the person wrote it.
pub(crate) fn peer(endpoint: &Endpoint) -> String {
    endpoint.authority().to_owned()
}

/// Connects. `tls` is made by the caller only if the scheme needs it, since loading the system's roots takes milliseconds.
pub(crate) async fn open(endpoint: &Endpoint, proxies: &Proxies, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Stream, Error> {
    let tcp = match proxies.of(endpoint.scheme(), endpoint.host(), endpoint.port())? {
        None => dial(endpoint.host(), endpoint.port(), &peer(endpoint)).await?,
        Some(proxy) => through(&proxy, endpoint).await?,
    };
    match (endpoint.scheme(), tls) {
        (Scheme::Http, _) | (_, None) => Ok(Stream::Plain(tcp)),
        (Scheme::Https, Some(config)) => handshake(tcp, config, endpoint).await,
    }
}

async fn dial(host: &str, port: u16, peer: &str) -> Result<TcpStream, Error> {
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        // No lookup, and no thread for it.
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => {
            let failed = |reason: String| Error::Lookup { host: host.to_owned(), reason };
            let found = timeout(DIAL, tokio::net::lookup_host((host, port)))
                .await
                .map_err(|_| failed("the resolver did not answer in time".to_owned()))?
                .map_err(|error| failed(plain(&error)))?;
            let found: Vec<SocketAddr> = found.take(16).collect();
            if found.is_empty() {
                return Err(failed("the name has no address".to_owned()));
            }
            found
        }
    };
    let each = DIAL / u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let mut last = Error::Timeout { host: peer.to_owned(), doing: "connecting" };
    for address in addresses {
        match timeout(each.max(Duration::from_secs(5)), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are small and answers are waited for.
                let _ = stream.set_nodelay(true);
                keep_alive(&stream);
                return Ok(stream);
            }
            Ok(Err(error)) => last = connect_error(peer, &error),
            Err(_) => last = Error::Timeout { host: peer.to_owned(), doing: "connecting" },
        }
    }
    Err(last)
}

/// Lets the kernel notice a peer that vanished, also while nothing but our own pings travels.
fn keep_alive(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let _ =
        socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10)));
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(Duration::from_mins(2)));
}

fn connect_error(peer: &str, error: &std::io::Error) -> Error {
    let host = peer.to_owned();
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => Error::Refused { host },
        std::io::ErrorKind::TimedOut => Error::Timeout { host, doing: "connecting" },
        _ => Error::Unreachable { host, reason: plain(error) },
    }
}

/// An I/O error without the `(os error 111)` that says nothing to people.
pub(crate) fn plain(error: &std::io::Error) -> String {
    // TLS has a page of words for it.
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return "it was cut".to_owned();
    }
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

async fn through(proxy: &Proxy, endpoint: &Endpoint) -> Result<TcpStream, Error> {
    let name = format!("{}:{}", proxy.host, proxy.port);
    let failed = |reason: String| Error::Proxy { proxy: name.clone(), reason };
    let mut stream = dial(&proxy.host, proxy.port, &name).await.map_err(|error| failed(error.to_string()))?;
    let (host, port) = (endpoint.host(), endpoint.port());
    let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str("Proxy-Authorization: ");
        request.push_str(authorization.expose());
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let reply = async {
        stream.write_all(request.as_bytes()).await?;
        // Byte by byte: what follows the head belongs to TLS.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < 16 * 1024 {
            head.push(stream.read_u8().await?);
        }
        Ok::<_, std::io::Error>(head)
    };
    let head = timeout(HANDSHAKE, reply)
        .await
        .map_err(|_| failed("it did not answer in time".to_owned()))?
        .map_err(|error| failed(plain(&error)))?;
    let head = String::from_utf8_lossy(&head);
    let first = head.lines().next().unwrap_or_default();
    match first.split(' ').nth(1) {
        Some(status) if status.starts_with('2') && status.len() == 3 => Ok(stream),
        Some("407") => Err(failed("it wants a user and a password: http://user:password@host:port".to_owned())),
        _ => Err(failed(format!("it does not connect to {target}: {first}"))),
    }
}

async fn handshake(tcp: TcpStream, config: Arc<rustls::ClientConfig>, endpoint: &Endpoint) -> Result<Stream, Error> {
    let host = peer(endpoint);
    let name =
        ServerName::try_from(endpoint.host().to_owned()).map_err(|_| Error::input(format!("`{}` is no host name", endpoint.host())))?;
    let connector = tokio_rustls::TlsConnector::from(config);
    match timeout(HANDSHAKE, connector.connect(name, tcp)).await {
        Err(_) => Err(Error::Timeout { host, doing: "TLS handshake" }),
        Ok(Ok(stream)) => Ok(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => Err(match convox_tls::classify(&error) {
            Some(fault) => Error::Tls { host, fault },
            None => match error.kind() {
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => Error::Tls {
                    host,
                    fault: convox_tls::TlsFault::Protocol("the other side closed the connection during the handshake".to_owned()),
                },
                _ => Error::Unreachable { host, reason: plain(&error) },
            },
        }),
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, data),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
