//! One shard: accepts connections on its own socket and serves them on its own thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::caller::Caller;
use crate::stream::{Socket, Stream};
use crate::tls_server::HTTP_2;
use crate::watch::{TICK, Watch, Watches, ticks};
use crate::{Gate, Limits, Local, TlsServer, connect, multiplexed, pool, serve};

/// How long to wait before the next accept when the process or the machine is out of file descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// No queue of a listening socket is longer.
const LONGEST_QUEUE: usize = 65_535;
/// How long tunnels may take to say why they are cut, after the drain.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub(crate) struct Shard<G, L> {
    pub(crate) gate: Arc<G>,
    pub(crate) local: L,
    pub(crate) ordinary: Handle,
    pub(crate) tls: Option<TlsServer>,
    pub(crate) limits: Limits,
    /// Connections of callers at a time.
    pub(crate) connections: usize,
    pub(crate) stop: CancellationToken,
    /// Cuts what outlasts the drain.
    pub(crate) cut: CancellationToken,
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
        pool::start(pool::Bounds { idle: self.limits.pool_idle, age: ticks(self.limits.pool_age) });
        let watches = Arc::new(Watches::new(&self.limits));
        let ticker = tokio::spawn(tick(Arc::clone(&watches)));
        let shard = Arc::new(self);
        tokio::select! {
            biased;
            () = shard.stop.cancelled() => {}
            () = accept(&shard, &listener, &watches) => {}
        }
        // Those who have connected are served: a socket that closes throws its queue away, unless another process has it too.
        let acceptor = shard.acceptor();
        for (tcp, peer) in waiting(listener) {
            tokio::spawn(connection(Arc::clone(&shard), tcp, peer, acceptor.clone(), watches.add(), Arc::clone(&watches)));
        }
        watches.leave();
        watches.are_gone_within(shard.limits.leave.min(shard.limits.drain)).await;
        watches.drain();
        pool::clear();
        if !watches.are_gone_within(shard.limits.drain.saturating_sub(shard.limits.leave)).await {
            shard.cut.cancel();
            watches.are_gone_within(LAST_WORDS).await;
        }
        ticker.abort();
    }

    fn acceptor(&self) -> Option<TlsAcceptor> {
        self.tls.as_ref().map(|tls| TlsAcceptor::from(Arc::clone(&tls.config)))
    }
}

async fn tick(watches: Arc<Watches>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        watches.tick();
        pool::tick(watches.clock().now());
    }
}

async fn accept<G: Gate, L: Local>(shard: &Arc<Shard<G, L>>, listener: &TcpListener, watches: &Arc<Watches>) {
    let acceptor = shard.acceptor();
    let mut paused = false;
    loop {
        while watches.are(shard.connections) {
            if !std::mem::replace(&mut paused, true) {
                warn!(connections = shard.connections, "accepts no connections for now: there are as many as may be");
            }
            tokio::time::sleep(PAUSE).await;
        }
        match listener.accept().await {
            Ok((tcp, peer)) => {
                if std::mem::take(&mut paused) {
                    warn!("accepting connections again");
                }
                tokio::spawn(connection(Arc::clone(shard), tcp, peer, acceptor.clone(), watches.add(), Arc::clone(watches)));
            }
            Err(error) if is_of_the_connection(&error) => debug!(%error, "a caller went away before it was accepted"),
            Err(error) => {
                if !std::mem::replace(&mut paused, true) {
                    warn!(%error, "accepts no connections for now");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Everybody who waits to be accepted; closes the socket. The system is asked, not the runtime, which says "nobody" also when it was asked
/// often enough for now.
fn waiting(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let mut all = Vec::new();
    let listener = match listener.into_std() {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "those who wait cannot be accepted");
            return all;
        }
    };
    for _ in 0..LONGEST_QUEUE {
        let accepted = listener.accept().and_then(|(tcp, peer)| {
            tcp.set_nonblocking(true)?;
            Ok((TcpStream::from_std(tcp)?, peer))
        });
        match accepted {
            Ok(one) => all.push(one),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                warn!(%error, "not all who wait can be accepted");
                break;
            }
        }
    }
    all
}

/// True for errors that say something about one caller and nothing about the next.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted
    )
}

async fn connection<G: Gate, L: Local>(
    shard: Arc<Shard<G, L>>,
    tcp: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    watch: Arc<Watch>,
    watches: Arc<Watches>,
) {
    let _ = tcp.set_nodelay(true);
    connect::keep_alive(&tcp);
    let stream = match acceptor {
        None => Stream::Plain(Socket(tcp)),
        Some(acceptor) => match tokio::time::timeout(shard.limits.handshake, acceptor.accept(Socket(tcp))).await {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) => {
                let stream = Stream::Tls(Box::new(stream.into()));
                return Box::pin(multiplexed::serve(shard, stream, peer, watch, watches)).await;
            }
            Ok(Ok(stream)) => Stream::Tls(Box::new(stream.into())),
            Ok(Err(error)) => {
                debug!(%error, "TLS handshake failed");
                return;
            }
            Err(_) => return,
        },
    };
    let caller = TokioIo::new(Caller::new(stream, Arc::clone(&watch)));
    let service = hyper::service::service_fn(|request| serve::request(&shard, request, peer, &watch));
    let mut connection =
        std::pin::pin!(http1::Builder::new().max_header_size(shard.limits.head_bytes).serve_connection(caller, service).with_upgrades());
    let mut draining = false;
    let ended = std::future::poll_fn(|context| {
        watch.register(context.waker());
        if watch.is_ended() {
            return Poll::Ready(Ok(()));
        }
        if watch.is_draining() && !draining {
            draining = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    })
    .await;
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}
