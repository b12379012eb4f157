//! One shard: accepts connections on its own socket and serves them on its own thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::stream::Stream;
use crate::{Gate, Limits, Local, TlsServer, serve};

/// How long to wait before the next accept when the process or the machine is out of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Shard<G, L> {
    pub(crate) gate: Arc<G>,
    pub(crate) local: L,
    pub(crate) ordinary: Handle,
    pub(crate) tls: Option<TlsServer>,
    pub(crate) limits: Limits,
    pub(crate) stop: CancellationToken,
}

impl<G: Gate, L: Local> Shard<G, L> {
    pub(crate) async fn run(self, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                warn!(%error, "the listening socket cannot be watched");
                return;
            }
        };
        let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.config)));
        let tracker = TaskTracker::new();
        let limits = self.limits;
        let stop = self.stop.clone();
        let shard = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, peer)) => {
                    tracker.spawn(connection(Arc::clone(&shard), tcp, peer, acceptor.clone()));
                }
                Err(error) if is_of_the_connection(&error) => debug!(%error, "a caller went away before it was accepted"),
                Err(error) => {
                    warn!(%error, "cannot accept connections for now");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(listener);
        tracker.close();
        let _ = tokio::time::timeout(limits.drain, tracker.wait()).await;
    }
}

/// True for errors that say something about one caller and nothing about the next.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted
    )
}

async fn connection<G: Gate, L: Local>(shard: Arc<Shard<G, L>>, tcp: TcpStream, peer: SocketAddr, acceptor: Option<TlsAcceptor>) {
    let _ = tcp.set_nodelay(true);
    let stream = match acceptor {
        None => Stream::Plain(tcp),
        Some(acceptor) => match tokio::time::timeout(shard.limits.handshake, acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => Stream::Tls(Box::new(stream.into())),
            Ok(Err(error)) => {
                debug!(%error, "TLS handshake failed");
                return;
            }
            Err(_) => return,
        },
    };
    let service = hyper::service::service_fn(|request| serve::request(&shard, request, peer));
    let mut connection = std::pin::pin!(
        http1::Builder::new().max_header_size(shard.limits.head_bytes).serve_connection(TokioIo::new(stream), service).with_upgrades()
    );
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = shard.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}
