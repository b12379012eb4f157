//! Starts the shards and ends them: binds, runs one thread and runtime per shard, drains.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::shard::Shard;
use crate::{Gate, Limits, Local, TlsServer, Verdict, gate, listen};

/// A bound server that does not serve yet.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    listeners: Vec<TcpListener>,
    tls: Option<TlsServer>,
    limits: Limits,
}

impl Server {
    /// Binds `shards` (at least one) listening sockets to one address. Port 0 picks a free port. Without `tls` the server
    /// speaks clear text.
    pub fn bind(address: SocketAddr, shards: usize, tls: Option<TlsServer>) -> io::Result<Self> {
        let (address, listeners) = listen::bind(address, shards.max(1))?;
        Ok(Self { address, listeners, tls, limits: Limits::default() })
    }

    /// A server on sockets that listen already: those of another process, which handed them over. One shard for each.
    ///
    /// # Errors
    /// There is none, or one of them does not listen.
    pub fn on(listeners: Vec<TcpListener>, tls: Option<TlsServer>) -> io::Result<Self> {
        let address = listeners.first().ok_or_else(|| io::Error::other("no socket to listen on"))?.local_addr()?;
        for listener in &listeners {
            listener.set_nonblocking(true)?;
        }
        Ok(Self { address, listeners, tls, limits: Limits::default() })
    }

    /// The listening sockets once more, to be handed over to another process. As long as one copy of them is open, callers can connect.
    ///
    /// # Errors
    /// They cannot be copied.
    pub fn listeners(&self) -> io::Result<Vec<TcpListener>> {
        self.listeners.iter().map(TcpListener::try_clone).collect()
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The address that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` resolves and open exchanges have ended or [`Limits::drain`] is over.
    ///
    /// Call it on a multi-thread runtime: `local` runs there, each shard on a thread of its own.
    ///
    /// # Errors
    /// A thread or its runtime could not be started.
    pub async fn run<G: Gate, L: Local>(self, gate: G, local: L, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        self.run_shared(Arc::new(gate), local, shutdown).await
    }

    /// Like [`run`](Self::run), without a gate: every request goes to `local`.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub async fn run_local<L: Local>(self, local: L, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        self.run(AllLocal, local, shutdown).await
    }

    /// Like [`run`](Self::run), for a gate that others hold too.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub async fn run_shared<G: Gate, L: Local>(self, gate: Arc<G>, local: L, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let stop = CancellationToken::new();
        // Shards that have begun are stopped if a later one cannot be, and if this future is dropped.
        let _stop_on_drop = stop.clone().drop_guard();
        let ordinary = tokio::runtime::Handle::current();
        let connections = self.limits.per_shard(self.listeners.len());
        let mut ended = Vec::new();
        for (number, listener) in self.listeners.into_iter().enumerate() {
            let (done, end) = oneshot::channel::<()>();
            ended.push(end);
            let shard = Shard {
                gate: Arc::clone(&gate),
                local: local.clone(),
                ordinary: ordinary.clone(),
                tls: self.tls.clone(),
                limits: self.limits,
                connections,
                stop: stop.clone(),
                cut: CancellationToken::new(),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
                runtime.block_on(shard.run(listener));
                // What is still open after the drain is cut here.
                runtime.shutdown_background();
                drop(done);
            })?;
        }
        shutdown.await;
        stop.cancel();
        for end in ended {
            let _ = end.await;
        }
        Ok(())
    }
}

/// The gate of a server without one.
struct AllLocal;

impl Gate for AllLocal {
    type Permit = gate::Never;

    async fn decide(&self, _head: &http::request::Parts, _peer: SocketAddr) -> Verdict<Self::Permit> {
        Verdict::Local(crate::LocalHint::default())
    }
}
