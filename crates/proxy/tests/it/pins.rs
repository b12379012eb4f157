//! A certificate that is not the pinned one is told nothing (T44).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use convox_proxy::{Limits, Nothing, TlsServer, Upstream, tls_server};
use convox_tls::{Trust, client_config};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::gate::{Proxy, request};
use crate::raw::{Raw, once, soon};

fn identity() -> (TlsServer, String, String) {
    let (cert, key) = tls_server::generate(&["localhost", "127.0.0.1"]).unwrap();
    (TlsServer::from_pem(cert.as_bytes(), key.as_bytes()).unwrap(), cert, key)
}

/// An upstream behind TLS that counts the application bytes it was sent and answers `ok`.
async fn rack(cert: &str, key: &str) -> (u16, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    use rustls_pki_types::pem::PemObject as _;
    let config = rustls::ServerConfig::builder_with_provider(convox_tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![rustls_pki_types::CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (bytes, tried): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let (counter, tries) = (Arc::clone(&bytes), Arc::clone(&tried));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, counter, tries) = (acceptor.clone(), Arc::clone(&counter), Arc::clone(&tries));
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut buffer = [0; 4096];
                    while let Ok(count) = stream.read(&mut buffer).await {
                        counter.fetch_add(count, SeqCst);
                        if count == 0 {
                            break;
                        }
                        if buffer[..count].ends_with(b"\r\n\r\n") {
                            let _ =
                                tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                        }
                    }
                }
                tries.fetch_add(1, SeqCst);
            });
        }
    });
    (port, bytes, tried)
}

async fn ask(upstream: Upstream) -> crate::raw::Message {
    let proxy = Proxy::with(upstream, Limits::default(), None, Nothing, 1).await;
    once(proxy.address, request("GET", "/x", "alice", "")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pinned_certificate_is_talked_to_whatever_its_name() {
    let (identity, cert, key) = identity();
    let (port, bytes, _) = rack(&cert, &key).await;
    let tls = client_config(&Trust::Pinned(identity.fingerprint())).unwrap();
    let reply = ask(Upstream::new("rack", 1, "127.0.0.1", port, Some(tls)).unwrap()).await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, "ok"));
    assert!(bytes.load(SeqCst) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_certificate_is_sent_no_byte() {
    let (pinned, ..) = identity();
    let (shown, cert, key) = identity();
    let (port, bytes, tried) = rack(&cert, &key).await;
    let tls = client_config(&Trust::Pinned(pinned.fingerprint())).unwrap();
    let reply = ask(Upstream::new("rack", 1, "127.0.0.1", port, Some(tls)).unwrap()).await;
    assert_eq!(reply.status(), 502);
    let text = reply.text();
    assert!(text.contains(&pinned.fingerprint().to_string()) && text.contains(&shown.fingerprint().to_string()), "{text}");
    soon("the end of the attempt", async {
        while tried.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(bytes.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_sent_no_byte() {
    let (_, cert, key) = identity();
    let (port, bytes, tried) = rack(&cert, &key).await;
    let (_, other, _) = identity();
    let root = rustls_pki_types::pem::PemObject::from_pem_slice(other.as_bytes()).unwrap();
    let tls = client_config(&Trust::Roots(vec![root])).unwrap();
    let reply = ask(Upstream::new("rack", 1, "127.0.0.1", port, Some(tls)).unwrap()).await;
    assert_eq!(reply.status(), 502);
    assert!(reply.text().contains("nothing was sent to it"), "{}", reply.text());
    soon("the end of the attempt", async {
        while tried.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(bytes.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_text_where_tls_is_due_is_a_tls_fault() {
    let rack = crate::rack::Rack::raw(|_, mut raw, _| async move {
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        raw.rest().await;
    })
    .await;
    let (pinned, ..) = identity();
    let tls = client_config(&Trust::Pinned(pinned.fingerprint())).unwrap();
    let reply = ask(Upstream::new("rack", 1, "127.0.0.1", rack.address.port(), Some(tls)).unwrap()).await;
    assert_eq!(reply.status(), 502);
    assert!(reply.text().contains("TLS"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_come_in_by_tls_and_resume_their_sessions() {
    let rack = crate::rack::Rack::start(crate::rack::echo).await;
    let (server, ..) = identity();
    let pin = server.fingerprint();
    let proxy = Proxy::with(crate::gate::upstream(rack.address), Limits::default(), Some(server), Nothing, 1).await;
    let config = client_config(&Trust::Pinned(pin)).unwrap();
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let tcp = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::clone(&config)).connect(name, tcp).await.unwrap();
        let mut raw = Raw::new(tls);
        raw.send(request("GET", "/x", "alice", "")).await;
        assert_eq!(raw.reply().await.unwrap().status(), 200);
        kinds.push(raw.stream.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds[0], rustls::HandshakeKind::Full);
    assert_eq!(kinds[1..], [rustls::HandshakeKind::Resumed; 2]);
}
