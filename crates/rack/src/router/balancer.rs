//! One service's processes, and its own port: connections go round robin to healthy processes only.
//!
//! The port forwards bytes and knows nothing of what they mean, so a kept-alive connection stays with its
//! process until one of them closes it. HTTP by host name is the [`gate`](super::gate)'s.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use convox_meters::Histogram;
use convox_proxy::Upstream;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::table::{CLASSES, Requests, Target, class};

/// Connections of one service at the same time; more wait to be accepted.
const CONNECTIONS: usize = 8192;
const CONNECT: Duration = Duration::from_secs(3);
/// How long a connection waits for a process to become healthy, as in a restart.
pub(super) const NONE_HEALTHY: Duration = Duration::from_secs(10);
/// Pause after the machine refused to accept (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 55\r\nConnection: close\r\n\r\nno healthy process of this service; see `convox logs`.\n";

/// One process as a target, with the connections that it has.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) target: Target,
    /// The same for the proxy.
    pub(super) upstream: Arc<Upstream>,
    connections: watch::Sender<usize>,
}

impl Backend {
    pub(super) fn new(target: Target) -> io::Result<Arc<Self>> {
        // Nobody else answers on a port of this machine that the Rack gave to a process: its certificate would prove nothing more, and most
        // have one that nobody signed. The originals do not look at it either.
        let tls = target.tls.then(convox_tls::unverified_config).transpose().map_err(io::Error::other)?;
        let upstream = Upstream::new(format!("{}:{}", target.process, target.port), 1, "127.0.0.1", target.port, tls);
        let upstream = Arc::new(upstream.map_err(io::Error::other)?.transparent().with_label("the app"));
        let backend = Arc::new(Self { target, upstream, connections: watch::Sender::new(0) });
        let mut live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|backend| backend.strong_count() > 0);
        live.push(Arc::downgrade(&backend));
        Ok(backend)
    }

    /// Waits until nobody is connected.
    pub(super) async fn idle(&self) {
        // Cannot fail: the sender is ours.
        let _ = self.connections.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Every process that is a target or has connections, so that one can be asked about that is a target no more.
static LIVE: Mutex<Vec<Weak<Backend>>> = Mutex::new(Vec::new());

/// The process, if anyone still knows it.
pub(super) fn known(target: &Target) -> Option<Arc<Backend>> {
    let live = LIVE.lock().unwrap_or_else(PoisonError::into_inner);
    live.iter().filter_map(Weak::upgrade).find(|backend| backend.target.is_of(target))
}

/// Counts one connection or exchange for as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(pub(super) Arc<Backend>);

impl Counted {
    pub(super) fn new(backend: Arc<Backend>) -> Self {
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

/// The processes of one service.
#[derive(Debug)]
pub(super) struct Pool {
    backends: watch::Sender<Backends>,
    turn: AtomicUsize,
    by_class: [AtomicU64; CLASSES],
    times: Histogram,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self {
            backends: watch::Sender::new(Backends::default()),
            turn: AtomicUsize::new(0),
            by_class: Default::default(),
            times: Histogram::default(),
        }
    }

    /// One more request, which was answered with this status, or not at all, after so long.
    pub(super) fn answered(&self, status: Option<StatusCode>, took: Duration) {
        let class = status.map_or(0, |status| class(status.as_u16()));
        if let Some(count) = self.by_class.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // A WebSocket lasts as long as its ends like.
        if class != 1 {
            self.times.add(took);
        }
    }

    /// What was answered so far, of the service of this name.
    pub(super) fn requests(&self, app: &str, service: &str) -> Requests {
        let by_class = std::array::from_fn(|class| self.by_class.get(class).map_or(0, |count| count.load(Ordering::Relaxed)));
        Requests { app: app.to_owned(), service: service.to_owned(), by_class, times: self.times.read() }
    }

    /// New connections go to these from now on. A process that stays keeps its count.
    pub(super) fn set(&self, targets: &[Target]) -> io::Result<()> {
        let current = Arc::clone(&*self.backends.borrow());
        let known = |target: &Target| current.iter().find(|backend| backend.target == *target).cloned();
        let wanted = targets.iter().map(|target| known(target).map_or_else(|| Backend::new(target.clone()), Ok));
        let wanted: Vec<_> = wanted.collect::<io::Result<_>>()?;
        let same = current.len() == wanted.len() && current.iter().zip(&wanted).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            self.backends.send_replace(wanted.into());
        }
        Ok(())
    }

    #[cfg(test)]
    fn backends(&self) -> Backends {
        Arc::clone(&*self.backends.borrow())
    }

    /// The next process whose turn it is, other than those that were tried. Counted before [`set`](Self::set) can take it away:
    /// who is told that a process is idle may rely on it.
    pub(super) fn next(&self, tried: &[Target]) -> Option<Counted> {
        let backends = self.backends.borrow();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut in_turn = (0..backends.len()).filter_map(|step| backends.get(first.wrapping_add(step) % backends.len()));
        in_turn.find(|backend| !tried.contains(&backend.target)).map(|backend| Counted::new(Arc::clone(backend)))
    }

    /// The same, waiting a while for one to become healthy.
    pub(super) async fn next_soon(&self) -> Option<Counted> {
        if let Some(counted) = self.next(&[]) {
            return Some(counted);
        }
        let mut changes = self.backends.subscribe();
        timeout(NONE_HEALTHY, changes.wait_for(|backends| !backends.is_empty())).await.ok()?.ok()?;
        self.next(&[])
    }

    /// Connects to the next process, or to another one if that one does not answer.
    async fn connect(&self) -> Option<(TcpStream, Counted)> {
        let mut changes = self.backends.subscribe();
        let deadline = tokio::time::Instant::now() + NONE_HEALTHY;
        loop {
            changes.borrow_and_update();
            let mut tried = Vec::new();
            while let Some(counted) = self.next(&tried) {
                tried.push(counted.0.target.clone());
                if let Ok(Ok(process)) = timeout(CONNECT, TcpStream::connect((Ipv4Addr::LOCALHOST, counted.0.target.port))).await {
                    return Some((process, counted));
                }
            }
            tokio::time::timeout_at(deadline, changes.changed()).await.ok()?.ok()?;
        }
    }
}

/// The own port of one service on one address. Stops accepting when dropped; connections that are there live on.
#[derive(Debug)]
pub(super) struct Port {
    accepting: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Port {
    /// Begins to accept. `speaks_http` says whether a client may be told in HTTP that nobody is there.
    pub(super) fn open(address: SocketAddr, pool: Arc<Pool>, speaks_http: bool) -> io::Result<Self> {
        let listener = TcpListener::from_std(listen(address)?)?;
        Ok(Self { accepting: tokio::spawn(accept(listener, pool, speaks_http)) })
    }
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if !address.ip().is_loopback() && address.is_ipv4() {
        // The machine's address in the containers' network is there only once a container is.
        socket.set_freebind_v4(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

async fn accept(listener: TcpListener, pool: Arc<Pool>, speaks_http: bool) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let pool = Arc::clone(&pool);
                tokio::spawn(async move {
                    serve(client, &pool, speaks_http).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(mut client: TcpStream, pool: &Pool, speaks_http: bool) {
    match pool.connect().await {
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

    async fn answers(text: &'static str) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        });
        Target { process: text.to_owned(), port, tls: false }
    }

    struct Service {
        address: SocketAddr,
        pool: Arc<Pool>,
        _port: Port,
    }

    fn service() -> Service {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let pool = Arc::new(Pool::new());
        let port = Port::open(address, Arc::clone(&pool), true).unwrap();
        Service { address, pool, _port: port }
    }

    async fn ask(service: &Service) -> String {
        let mut stream = TcpStream::connect(service.address).await.unwrap();
        let mut text = String::new();
        timeout(Duration::from_secs(20), stream.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }

    #[tokio::test]
    async fn connections_take_turns_and_skip_who_does_not_answer() {
        let service = service();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let closed = Target { process: "closed".to_owned(), port: closed, tls: false };
        service.pool.set(&[answers("a").await, closed, answers("b").await]).unwrap();
        let mut seen = String::new();
        for _ in 0..6 {
            seen.push_str(&ask(&service).await);
        }
        assert_eq!((seen.len(), seen.contains('a'), seen.contains('b')), (6, true, true));
    }

    #[tokio::test]
    async fn a_connection_waits_a_moment_for_the_first_healthy_process() {
        let service = service();
        let target = answers("late").await;
        let (text, ()) = tokio::join!(ask(&service), async {
            tokio::task::yield_now().await;
            service.pool.set(&[target]).unwrap();
        });
        assert_eq!(text, "late");
    }

    #[tokio::test]
    async fn nobody_there_is_said_in_http() {
        let text = ask(&service()).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 "));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }

    #[tokio::test]
    async fn a_backend_is_idle_when_its_last_connection_ends() {
        let service = service();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { process: "p".to_owned(), port: listener.local_addr().unwrap().port(), tls: false };
        service.pool.set(&[target]).unwrap();
        let backend = Arc::clone(&service.pool.backends()[0]);
        let client = TcpStream::connect(service.address).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        assert!(timeout(Duration::from_millis(50), backend.idle()).await.is_err());
        drop((client, server));
        timeout(Duration::from_secs(10), backend.idle()).await.unwrap();
    }
}
