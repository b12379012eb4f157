//! Connections to upstreams, kept by the shard that opened them.
//!
//! Thread-local, so that taking and giving costs neither a lock nor a wake-up on another core.

use std::cell::RefCell;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::io::{AsyncRead as _, ReadBuf};

use crate::stats::{self, Stat};
use crate::stream::Stream;
use crate::upstream::Upstream;

/// A connection to an upstream. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Stream,
}

impl Connection {
    /// True while the upstream neither closes it nor says anything, as one does that has not been asked. Asks the system only if the runtime has heard of something;
    /// nobody is woken for it from now on.
    fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut context = Context::from_waker(Waker::noop());
        let is_pending = Pin::new(&mut self.stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending();
        // A task that has done enough for now is told "nothing" without a look.
        is_pending && tokio::task::coop::has_budget_remaining()
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
        while let Some((_, mut connection)) = idle.connections.pop() {
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    })
}

/// Keeps a connection whose exchange has ended well, unless its upstream has closed it or says more than it was asked.
pub(crate) fn give(upstream: &Upstream, mut connection: Connection) {
    if !connection.is_quiet() {
        return;
    }
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
            idle.connections.retain_mut(|(since, connection)| now.wrapping_sub(*since) <= age && connection.is_quiet());
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
