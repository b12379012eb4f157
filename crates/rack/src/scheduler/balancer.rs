//! One stable port per service, forwarding connections round robin to healthy processes only.
//!
//! Forwards bytes and knows nothing of what they mean, so a kept-alive connection stays with its
//! process until one of them closes it.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Connections of one service at the same time; more wait to be accepted.
const CONNECTIONS: usize = 8192;
const CONNECT: Duration = Duration::from_secs(3);
/// How long a connection waits for a process to become healthy, as in a restart.
const NONE_HEALTHY: Duration = Duration::from_secs(3);
/// Pause after the machine refused to accept (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 55\r\nConnection: close\r\n\r\nno healthy process of this service; see `convox logs`.\n";

/// One process as a target, with the connections that it has.
#[derive(Debug)]
pub(super) struct Backend {
    port: u16,
    connections: watch::Sender<usize>,
}

impl Backend {
    pub(super) fn new(port: u16) -> Arc<Self> {
        Arc::new(Self { port, connections: watch::Sender::new(0) })
    }

    /// Waits until nobody is connected.
    pub(super) async fn idle(&self) {
        // Cannot fail: the sender is ours.
        let _ = self.connections.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Counts one connection for as long as it lives.
struct Counted(Arc<Backend>);

impl Counted {
    fn new(backend: Arc<Backend>) -> Self {
        backend.connections.send_modify(|count| *count += 1);
        Self(backend)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.send_modify(|count| *count = count.saturating_sub(1));
    }
}

type Backends = Arc<[Arc<Backend>]>;

/// The balancer of one service. Stops accepting when dropped; connections there are live on.
#[derive(Debug)]
pub(super) struct Balancer {
    port: u16,
    backends: watch::Sender<Backends>,
    accepting: JoinHandle<()>,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Balancer {
    /// Begins to accept. `speaks_http` says whether a client may be told in HTTP that nobody is
    /// there.
    pub(super) fn start(listener: std::net::TcpListener, speaks_http: bool) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let port = listener.local_addr()?.port();
        let (backends, targets) = watch::channel(Backends::default());
        let accepting = tokio::spawn(accept(listener, targets, speaks_http));
        Ok(Self { port, backends, accepting })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Stops accepting; the port is free when this returns.
    pub(super) async fn close(mut self) {
        self.accepting.abort();
        // An error is what an aborted task gives.
        let _ = (&mut self.accepting).await;
    }

    /// New connections go to these from now on.
    pub(super) fn set(&self, backends: Vec<Arc<Backend>>) {
        self.backends.send_if_modified(|current| {
            let same = current.len() == backends.len() && current.iter().zip(&backends).all(|(a, b)| Arc::ptr_eq(a, b));
            if !same {
                *current = backends.into();
            }
            !same
        });
    }
}

async fn accept(listener: TcpListener, targets: watch::Receiver<Backends>, speaks_http: bool) {
    let turn = Arc::new(AtomicUsize::new(0));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let (targets, turn) = (targets.clone(), Arc::clone(&turn));
                tokio::spawn(async move {
                    serve(client, targets, &turn, speaks_http).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(mut client: TcpStream, targets: watch::Receiver<Backends>, turn: &AtomicUsize, speaks_http: bool) {
    match connect(targets, turn).await {
        Some((mut process, _counted)) => {
            // Small messages are not to wait for larger ones, in either direction.
            let _ = client.set_nodelay(true);
            let _ = process.set_nodelay(true);
            // How a connection ends is a matter of its two ends.
            let _ = tokio::io::copy_bidirectional(&mut client, &mut process).await;
        }
        None if speaks_http => refuse(client).await,
        None => {}
    }
}

/// Connects to the next process, or to another one if that one does not answer.
async fn connect(mut targets: watch::Receiver<Backends>, turn: &AtomicUsize) -> Option<(TcpStream, Counted)> {
    let deadline = tokio::time::Instant::now() + NONE_HEALTHY;
    loop {
        let backends = Arc::clone(&*targets.borrow_and_update());
        let first = turn.fetch_add(1, Ordering::Relaxed);
        for step in 0..backends.len() {
            let Some(backend) = backends.get(first.wrapping_add(step) % backends.len()) else { continue };
            // Counted before it connects, so that nobody stops the process in between.
            let counted = Counted::new(Arc::clone(backend));
            if let Ok(Ok(process)) = timeout(CONNECT, TcpStream::connect((Ipv4Addr::LOCALHOST, backend.port))).await {
                return Some((process, counted));
            }
        }
        tokio::time::timeout_at(deadline, targets.changed()).await.ok()?.ok()?;
    }
}

/// Answers and closes so that the answer arrives: unread input would turn the close into a reset.
async fn refuse(mut client: TcpStream) {
    let answer = async {
        client.write_all(UNAVAILABLE).await?;
        client.shutdown().await?;
        let mut rest = [0; 1024];
        while client.read(&mut rest).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(CONNECT, answer).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answers(text: &'static str) -> Arc<Backend> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        Backend::new(port)
    }

    async fn ask(balancer: &Balancer) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", balancer.port())).await.unwrap();
        let mut text = String::new();
        timeout(Duration::from_secs(10), stream.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }

    fn balancer() -> Balancer {
        Balancer::start(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), true).unwrap()
    }

    #[tokio::test]
    async fn connections_take_turns_and_skip_who_does_not_answer() {
        let balancer = balancer();
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Backend::new(listener.local_addr().unwrap().port())
        };
        balancer.set(vec![answers("a").await, closed, answers("b").await]);
        let mut seen = String::new();
        for _ in 0..6 {
            seen.push_str(&ask(&balancer).await);
        }
        assert_eq!((seen.len(), seen.contains('a'), seen.contains('b')), (6, true, true));
    }

    #[tokio::test]
    async fn a_connection_waits_a_moment_for_the_first_healthy_process() {
        let balancer = balancer();
        let backend = answers("late").await;
        let (text, ()) = tokio::join!(ask(&balancer), async {
            tokio::task::yield_now().await;
            balancer.set(vec![backend]);
        });
        assert_eq!(text, "late");
    }

    #[tokio::test]
    async fn nobody_there_is_said_in_http() {
        let text = ask(&balancer()).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 "));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }

    #[tokio::test]
    async fn a_backend_is_idle_when_its_last_connection_ends() {
        let balancer = balancer();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = Backend::new(listener.local_addr().unwrap().port());
        balancer.set(vec![Arc::clone(&backend)]);
        let client = TcpStream::connect(("127.0.0.1", balancer.port())).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert!(timeout(Duration::from_millis(50), backend.idle()).await.is_err());
        drop((client, server));
        timeout(Duration::from_secs(10), backend.idle()).await.unwrap();
    }
}
