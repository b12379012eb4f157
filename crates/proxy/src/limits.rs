//! How long each phase may take, and how much may be held.

use std::time::Duration;

/// Limits of a server. The defaults suit a Console and a Rack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// A kept-alive connection without a request.
    pub idle: Duration,
    /// Name lookup, and each attempt to connect upstream.
    pub connect: Duration,
    /// A TLS handshake, on either side.
    pub handshake: Duration,
    /// From the end of a request to the head of the upstream's reply. Generous, since some calls work for minutes.
    pub reply: Duration,
    /// An answer or a tunnel in which nothing moves. Generous, since a log can be silent for long.
    pub stall: Duration,
    /// A caller who owes the rest of a body and sends nothing.
    pub body: Duration,
    /// How long a caller who was still sending may take to read an early answer.
    pub linger: Duration,
    /// How long open exchanges may take to end after the server was asked to stop.
    pub drain: Duration,
    /// How long a kept-alive connection may still bring a request once the server was asked to stop: its answer says that the connection
    /// closes, so that a caller who sends at this very moment is not cut off.
    pub leave: Duration,
    /// Connections of callers on all shards together; more wait in the backlog. 0 gives them not quite half of this process's
    /// file descriptors, so that each has one upstream and files have the rest.
    pub connections: usize,
    /// Bytes of a request head.
    pub head_bytes: usize,
    /// Idle upstream connections kept per upstream and shard.
    pub pool_idle: usize,
    /// How long an idle upstream connection is kept. Below the idle limits of common servers (60 s and up).
    pub pool_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            idle: Duration::from_secs(75),
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            reply: Duration::from_hours(1),
            stall: Duration::from_hours(1),
            body: Duration::from_mins(5),
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(10),
            leave: Duration::from_secs(2),
            connections: 0,
            head_bytes: 256 * 1024,
            pool_idle: 128,
            pool_age: Duration::from_secs(50),
        }
    }
}

impl Limits {
    /// Connections of callers per shard.
    pub(crate) fn per_shard(&self, shards: usize) -> usize {
        let all = if self.connections == 0 { share_of_descriptors() } else { self.connections };
        (all / shards.max(1)).max(1)
    }
}

fn share_of_descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(callers(limit)).unwrap_or(usize::MAX))
}

/// How many callers fit into so many descriptors: each may need one more upstream, and what else a server has open (its database, files, idle
/// connections to upstreams) does not grow with them.
fn callers(limit: u64) -> u64 {
    (limit - (limit / 20).clamp(64, 1000).min(limit / 2)) / 2
}

/// Lets this process open as many files as it may ask for, and says how many. Many systems start programs with 1024.
///
/// # Errors
/// The system refuses.
pub fn raise_descriptor_limit() -> std::io::Result<u64> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
    }
    Ok(limit.current.unwrap_or(u64::MAX))
}

/// Forbids dumps of this process's memory, and that another process of the same user reads it: keys lie open in there. Processes that it starts
/// are not concerned.
///
/// # Errors
/// When the system refuses; then nothing has changed.
pub fn close_memory() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::callers;

    #[test]
    fn callers_and_their_upstreams_leave_something_for_everything_else() {
        assert_eq!([20_000, 1024, 1_000_000].map(callers), [9_500, 480, 499_500]);
        for limit in (0..300).chain([1024, 4096, 65_536, u64::MAX]) {
            assert!(callers(limit).checked_mul(2).is_some_and(|taken| taken <= limit), "{limit}");
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod memory {
    #[test]
    fn nobody_reads_the_memory_of_a_server() {
        super::close_memory().unwrap();
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), rustix::process::DumpableBehavior::NotDumpable);
    }
}
