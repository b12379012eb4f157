//! One health check of one process.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::manifest::Service;

/// A forwarder that finds nobody behind it closes sooner.
const CLOSED_SOON: Duration = Duration::from_millis(200);
/// Longest status line that is read.
const LINE_CAP: usize = 1024;

/// Asks a process whether it is well: an HTTP request if the service has a path and speaks HTTP,
/// else a connection, with TLS where its port is `https:`. The error says what was seen.
pub(super) async fn check(port: u16, service: &Service) -> Result<(), String> {
    let path = service.health.path.as_deref().filter(|_| service.speaks_http());
    let outcome = timeout(service.health.timeout, async {
        let stream = connect(port).await?;
        match (path, service.scheme() == "https") {
            (Some(path), false) => get(stream, port, path).await,
            (Some(path), true) => get(secured(stream).await?, port, path).await,
            (None, false) => stays(stream).await,
            (None, true) => stays(secured(stream).await?).await,
        }
    });
    outcome.await.unwrap_or_else(|_| Err(format!("no answer within {} s", service.health.timeout.as_secs()))).map_err(|seen| match path {
        Some(path) => format!("GET {path} on port {port}: {seen}"),
        None => format!("connecting to port {port}: {seen}"),
    })
}

async fn connect(port: u16) -> Result<TcpStream, String> {
    let connected = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
    connected.map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "nothing listens there (the process must listen on the port in $PORT)".to_owned(),
        _ => error.to_string(),
    })
}

/// Whose certificate it is does not matter, as it does not to the router.
async fn secured(stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let config = convox_tls::unverified_config().map_err(|error| error.to_string())?;
    let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        format!("no TLS there: {error} (`port: https:...` says that the process speaks it; leave `https:` out for one that does not)")
    })
}

/// Whether a connection that was opened stays: an engine that forwards a port accepts for a process that does not listen yet, and closes then.
async fn stays(mut stream: impl AsyncRead + Unpin) -> Result<(), String> {
    let mut byte = [0];
    match timeout(CLOSED_SOON, stream.read(&mut byte)).await {
        Ok(Ok(0)) => Err("the connection was closed at once (the process must listen on its port, on all addresses)".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        // It waits for us, or greets.
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, port: u16, path: &str) -> Result<(), String> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: convox-health\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut head = Vec::new();
    while !head.contains(&b'\n') {
        let count = stream.read_buf(&mut head).await.map_err(|error| error.to_string())?;
        if count == 0 || head.len() > LINE_CAP {
            break;
        }
    }
    match status(&head) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("status {status}")),
        None => Err("an answer that is not HTTP".to_owned()),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    async fn answer(text: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
        });
        port
    }

    fn service(health: &str) -> Service {
        at("80", health)
    }

    fn at(port: &str, health: &str) -> Service {
        Manifest::parse(&format!("services:\n  web:\n    port: {port}\n{health}")).unwrap().services.remove(0)
    }

    /// The same behind TLS, with a certificate that nobody signed and whose name is another.
    async fn answer_secured(text: &'static str) -> u16 {
        use tokio_rustls::rustls::ServerConfig;
        use tokio_rustls::rustls::pki_types::pem::PemObject as _;
        use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let (certificate, key) = convox_proxy::tls_server::generate(&["somebody.example.com"]).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(convox_tls::provider()).with_safe_default_protocol_versions().unwrap();
        let acceptor =
            tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn a_process_that_speaks_tls_is_asked_by_tls_and_one_that_does_not_is_told_apart() {
        for (text, is_healthy) in [("HTTP/1.1 200 OK\r\n\r\n", true), ("HTTP/1.1 500 No\r\n\r\n", false)] {
            let port = answer_secured(text).await;
            assert_eq!(check(port, &at("https:80", "    health: /up\n")).await.is_ok(), is_healthy, "{text}");
            assert_eq!(check(port, &at("https:80", "")).await, Ok(()), "{text}");
        }
        let clear = check(answer("HTTP/1.1 400 Bad Request\r\n\r\n").await, &at("https:80", "    health: /up\n")).await.unwrap_err();
        assert!(clear.contains("no TLS there") && clear.contains("leave `https:` out"), "{clear}");
    }

    #[tokio::test]
    async fn a_status_from_200_to_399_is_healthy() {
        let service = service("    health: /up\n");
        for (text, is_healthy) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.0 302 Found\n\n", true),
            ("HTTP/1.1 404 Not Found\r\n\r\n", false),
            ("HTTP/1.1 500 Oops\r\n\r\n", false),
            ("SSH-2.0\r\n", false),
            ("", false),
        ] {
            assert_eq!(check(answer(text).await, &service).await.is_ok(), is_healthy, "{text}");
        }
    }

    #[tokio::test]
    async fn without_a_path_a_connection_is_enough() {
        let port = answer("").await;
        assert!(check(port, &service("")).await.is_ok());
    }

    #[tokio::test]
    async fn a_forwarder_with_nobody_behind_it_is_not_healthy() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        let told = check(port, &service("")).await.unwrap_err();
        assert!(told.contains("closed at once"), "{told}");
    }

    #[tokio::test]
    async fn what_was_seen_is_told() {
        let port = answer("HTTP/1.1 503 No\r\n\r\n").await;
        assert_eq!(check(port, &service("    health: /up\n")).await.unwrap_err(), format!("GET /up on port {port}: status 503"));
    }

    #[tokio::test]
    async fn a_process_that_never_answers_is_not_waited_for_longer_than_the_timeout() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = check(port, &service("    health: {path: /up, timeout: 1}\n")).await.unwrap_err();
        assert!(told.ends_with("no answer within 1 s"), "{told}");
    }
}
