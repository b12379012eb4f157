//! Both ends of what is measured, in this program: a Rack that gives and takes bodies of any size and upgrades whatever asks for it,
//! and connections to whoever stands before it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::contender::{Contender, Ground};

pub(crate) trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

/// As many descriptors as may be had; children inherit it.
pub(crate) fn descriptors() -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).context("descriptors")
}

/// Where a contender is, and what it is shown.
#[derive(Clone)]
pub(crate) struct Callee {
    address: String,
    pub(crate) secret: String,
}

impl Contender {
    pub(crate) fn caller(&self) -> Callee {
        let address = self.base.rsplit('/').next().unwrap_or_default().to_owned();
        Callee { address, secret: self.secret.clone() }
    }
}

impl Callee {
    pub(crate) async fn connect(&self, connector: Option<&TlsConnector>) -> anyhow::Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(match connector {
            Some(connector) => Box::new(connector.connect(ServerName::try_from("localhost")?, tcp).await?),
            None => Box::new(tcp),
        })
    }
}

/// Starts a contender by its name. It waits for its child, whom the Rack must be able to answer meanwhile.
pub(crate) async fn contender(ground: &Ground, name: &str, console: Option<PathBuf>, port: u16, tls: bool) -> anyhow::Result<Contender> {
    let (ground, name) = (ground.clone(), name.to_owned());
    tokio::task::spawn_blocking(move || match (name.as_str(), console) {
        ("nginx", _) => ground.nginx_proxy(port, tls),
        ("haproxy", _) => ground.haproxy(port, tls),
        ("convox-proxy", _) => ground.gate(port, tls),
        (_, Some(console)) => ground.console(&console, port),
        (other, None) => bail!("nothing is called {other}"),
    })
    .await?
}

/// Reads up to the blank line, byte by byte: nothing after it is taken.
pub(crate) async fn head_of(stream: &mut (impl tokio::io::AsyncRead + Unpin + ?Sized)) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Starts the Rack. `GET .../builds/N.tgz` is answered by N bytes; a body is read to its end; what asks for an upgrade gets back what it
/// sends; anything else is answered as `/system` is.
pub(crate) async fn start(ground: &Ground, tls: bool) -> anyhow::Result<u16> {
    let acceptor = if tls {
        let chain = rustls::pki_types::pem::PemObject::pem_file_iter(ground.path("cert.pem"))?.collect::<Result<Vec<_>, _>>()?;
        let key = rustls::pki_types::pem::PemObject::from_pem_file(ground.path("key.pem"))?;
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        Some(TlsAcceptor::from(Arc::new(config)))
    } else {
        None
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                match acceptor {
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(tcp).await {
                            drop(answer(stream).await);
                        }
                    }
                    None => drop(answer(tcp).await),
                }
            });
        }
    });
    Ok(port)
}

async fn answer(stream: impl Stream) -> anyhow::Result<()> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let head = head_of(&mut stream).await?.to_ascii_lowercase();
        if head.contains("\r\nupgrade: websocket\r\n") {
            break;
        }
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok());
        let mut owed = number(head.lines().find_map(|line| line.strip_prefix("content-length:"))).unwrap_or(0);
        while owed > 0 {
            let most = usize::try_from(owed).unwrap_or(usize::MAX).min(buffer.len());
            let count = stream.read(buffer.get_mut(..most).unwrap_or_default()).await?;
            anyhow::ensure!(count > 0, "the body ended early");
            owed -= count as u64;
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        let wanted = number(path.rsplit('/').next().and_then(|name| name.strip_suffix(".tgz")));
        let json = r#"{"name":"rack","provider":"local","status":"running","version":"20260101000000"}"#;
        let length = wanted.unwrap_or(json.len() as u64);
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(reply.as_bytes()).await?;
        match wanted {
            None => stream.write_all(json.as_bytes()).await?,
            Some(mut left) => {
                buffer.fill(b'x');
                while left > 0 {
                    let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    stream.write_all(buffer.get(..most).unwrap_or_default()).await?;
                    left -= most as u64;
                }
            }
        }
        stream.flush().await?;
    }
    drop(buffer);
    // The answer to the key that every stream here sends, by the example of RFC 6455, section 1.3.
    let reply = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    stream.write_all(reply.as_bytes()).await?;
    stream.flush().await?;
    let mut little = [0; 64];
    loop {
        let count = stream.read(&mut little).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(little.get(..count).unwrap_or_default()).await?;
        stream.flush().await?;
    }
}
