//! Connections to upstreams, kept by the shard that opened them.
//!
//! Thread-local, so that taking and giving costs neither a lock nor a wake-up on another core.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use tokio::task::AbortHandle;

use crate::stats::{self, Stat};
use crate::upload::Upload;
use crate::upstream::Upstream;

/// How long a connection whose reply was read may take to be ready for the next request.
const SETTLE: Duration = Duration::from_secs(1);

/// A connection to an upstream. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Upload>,
    pub(crate) task: AbortHandle,
    /// Set by the stream when it reads a byte.
    pub(crate) heard: Arc<AtomicBool>,
    /// Has carried a request before.
    pub(crate) reused: bool,
}

impl Connection {
    /// True if the upstream has sent anything since the last request began.
    pub(crate) fn has_heard(&self) -> bool {
        self.heard.load(Relaxed)
    }

    pub(crate) fn begin(&self) {
        self.heard.store(false, Relaxed);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
struct Pool {
    bounds: Bounds,
    upstreams: HashMap<Arc<str>, Idle>,
    /// Ticks since the shard started.
    now: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    /// Connections per upstream.
    pub(crate) idle: usize,
    /// Ticks that an idle connection is kept.
    pub(crate) age: u32,
}

#[derive(Debug, Default)]
struct Idle {
    generation: u64,
    /// The longest idle first.
    connections: Vec<(u32, Connection)>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Sets up the pool of this thread.
pub(crate) fn start(bounds: Bounds) {
    POOL.with_borrow_mut(|pool| pool.bounds = bounds);
}

/// An idle connection of this upstream and generation, the most recently used one first.
pub(crate) fn take(upstream: &Upstream) -> Option<Connection> {
    POOL.with_borrow_mut(|pool| {
        let idle = pool.upstreams.get_mut(&upstream.id)?;
        if idle.generation != upstream.generation {
            return None;
        }
        while let Some((_, connection)) = idle.connections.pop() {
            if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    })
}

/// Keeps a connection whose exchange has ended well.
pub(crate) fn give(upstream: &Arc<Upstream>, mut connection: Connection) {
    if connection.sender.is_ready() {
        put(upstream, connection);
    } else if !connection.sender.is_closed() {
        // The reply was read before the connection's own task took note of its end.
        let upstream = Arc::clone(upstream);
        tokio::spawn(async move {
            if let Ok(Ok(())) = tokio::time::timeout(SETTLE, connection.sender.ready()).await {
                put(&upstream, connection);
            }
        });
    }
}

fn put(upstream: &Upstream, mut connection: Connection) {
    connection.reused = true;
    POOL.with_borrow_mut(|pool| {
        let (now, bounds) = (pool.now, pool.bounds);
        let idle = match pool.upstreams.get_mut(&upstream.id) {
            Some(idle) => idle,
            None => pool
                .upstreams
                .entry(Arc::clone(&upstream.id))
                .or_insert_with(|| Idle { generation: upstream.generation, ..Idle::default() }),
        };
        if idle.generation < upstream.generation {
            idle.connections.clear();
            idle.generation = upstream.generation;
        }
        if idle.generation == upstream.generation && idle.connections.len() < bounds.idle {
            idle.connections.push((now, connection));
        }
    });
}

/// Time has passed: closes what has been idle for too long.
pub(crate) fn tick(now: u32) {
    POOL.with_borrow_mut(|pool| {
        pool.now = now;
        let age = pool.bounds.age;
        pool.upstreams.retain(|_, idle| {
            idle.connections.retain(|(since, connection)| now.wrapping_sub(*since) <= age && !connection.sender.is_closed());
            !idle.connections.is_empty()
        });
        stats::note(Stat::Idle, pool.upstreams.values().map(|idle| idle.connections.len()).sum());
    });
}

/// Closes everything.
pub(crate) fn clear() {
    POOL.with_borrow_mut(|pool| pool.upstreams.clear());
    stats::note(Stat::Idle, 0);
}
