//! The router as a process of its own: listens, and does what the Rack says over a private socket.
//!
//! It outlives the Rack as the shims do, and goes on with what it was told last: a Rack that is killed, restarted or replaced
//! costs no request.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use convox_proxy::{Nothing, Server, TlsServer, tls_server};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::balancer::{Pool, Port};
use super::gate::{Door, Names, Site};
use super::table::{CLASSES, Counted, LINE_CAP, Order, Report, Table, Target};

/// Reports on their way to the Rack.
const REPORTS: usize = 1024;

pub(crate) fn run(dir: &Path) -> ExitCode {
    // One router per Rack: whoever holds the lock is it.
    let lock = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("router.lock"));
    let Ok(lock) = lock else { return ExitCode::FAILURE };
    if lock.try_lock().is_err() {
        return ExitCode::FAILURE;
    }
    // Fails only for who leads a session already, which is as good.
    let _ = rustix::process::setsid();
    let _ = convox_proxy::raise_descriptor_limit();
    let outcome = tokio::runtime::Builder::new_multi_thread().enable_all().build().and_then(|runtime| {
        let outcome = runtime.block_on(serve(dir));
        runtime.shutdown_background();
        outcome
    });
    drop(lock);
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn serve(dir: &Path) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    // Taken so that they do not end us: the terminal of a Rack's administrator has them.
    let _taken = [SignalKind::interrupt(), SignalKind::hangup()].into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
    let mut term = signal(SignalKind::terminate())?;
    let path = dir.join("router.sock");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    let router = Arc::new(Router::new()?);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let router = Arc::clone(&router);
                tokio::spawn(async move {
                    // How a link ends is seen by the Rack, which makes another.
                    let _ = link(&router, stream).await;
                });
            }
            () = router.end.cancelled() => break,
            _ = term.recv() => break,
        }
    }
    drop(listener);
    let _ = std::fs::remove_file(&path);
    router.close().await;
    Ok(())
}

async fn link(router: &Arc<Router>, stream: UnixStream) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let (reports, mut queue) = mpsc::channel::<Report>(REPORTS);
    let writer = tokio::spawn(async move {
        while let Some(report) = queue.recv().await {
            let mut line = serde_json::to_vec(&report).map_err(io::Error::other)?;
            line.push(b'\n');
            to.write_all(&line).await?;
        }
        Ok::<_, io::Error>(())
    });
    let hello = Report::Hello { version: super::PROGRAM.to_owned(), pid: std::process::id(), table: router.routed().table.clone() };
    let _ = reports.send(hello).await;
    let mut lines = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        let count = (&mut lines).take(LINE_CAP as u64).read_until(b'\n', &mut line).await?;
        if count == 0 {
            break;
        }
        match serde_json::from_slice(&line).map_err(io::Error::other)? {
            Order::Table(table) => {
                let applied = router.apply(table).await;
                let _ = reports.send(applied).await;
            }
            Order::Drain(target) => {
                let (router, reports) = (Arc::clone(router), reports.clone());
                tokio::spawn(async move {
                    router.drained(&target).await;
                    let _ = reports.send(Report::Drained(target)).await;
                });
            }
            Order::Count => {
                let _ = reports.send(Report::Counted(router.counted())).await;
            }
            Order::End => router.end.cancel(),
        }
    }
    drop(reports);
    writer.await.map_err(io::Error::other)?
}

/// What is served.
struct Router {
    routed: Mutex<Routed>,
    names: Arc<ArcSwap<Names>>,
    /// The port on which HTTPS is answered, or 0.
    https: Arc<AtomicU16>,
    tls: TlsServer,
    own: Arc<[AtomicU64; CLASSES]>,
    end: CancellationToken,
}

#[derive(Default)]
struct Routed {
    table: Table,
    pools: BTreeMap<(String, String), Arc<Pool>>,
    ports: HashMap<SocketAddr, Port>,
    http: Option<Front>,
    https: Option<Front>,
}

/// A listening address for HTTP by name.
struct Front {
    asked: SocketAddr,
    bound: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Router {
    fn new() -> io::Result<Self> {
        // For callers who ask for a name that has no certificate: they get one that nobody trusts.
        let (certificate, key) = tls_server::generate(&["convox-router"]).map_err(io::Error::other)?;
        let tls = TlsServer::from_pem(certificate.as_bytes(), key.as_bytes()).map_err(io::Error::other)?;
        Ok(Self {
            routed: Mutex::default(),
            names: Arc::default(),
            https: Arc::default(),
            tls,
            own: Arc::default(),
            end: CancellationToken::new(),
        })
    }

    fn routed(&self) -> MutexGuard<'_, Routed> {
        self.routed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Routes a new table. What did not change is not touched: its connections never notice.
    async fn apply(&self, table: Table) -> Report {
        let mut failures = Vec::new();
        let closed = {
            let mut routed = self.routed();
            let mut pools = BTreeMap::new();
            let mut wanted = HashMap::new();
            let mut names =
                Names { challenges: table.challenges.iter().cloned().collect(), allowed: table.allowed.clone(), ..Names::default() };
            for route in &table.routes {
                let key = (route.app.clone(), route.service.clone());
                let pool = routed.pools.get(&key).cloned().unwrap_or_else(|| Arc::new(Pool::new()));
                if let Err(error) = pool.set(&route.targets) {
                    failures.push((SocketAddr::from(([127, 0, 0, 1], route.port)), error.to_string()));
                }
                for ip in &table.inside {
                    wanted.insert(SocketAddr::new(*ip, route.port), (Arc::clone(&pool), route.http));
                }
                let site = Site { pool: Arc::clone(&pool), allowed: route.allowed.as_slice().into(), plain_http: route.plain_http };
                for host in &route.hosts {
                    // Of two that claim a name the earlier one has it, whoever let the later one in.
                    names.sites.entry(host.clone()).or_insert_with(|| site.clone());
                }
                pools.insert(key, pool);
            }
            // A port that changed hands begins anew.
            let is_same = |routed: &Routed, address: &SocketAddr| {
                let of = |table: &Table| {
                    table.routes.iter().find(|route| route.port == address.port()).map(|route| (route.app.clone(), route.service.clone()))
                };
                of(&routed.table) == of(&table)
            };
            let stale: Vec<_> =
                routed.ports.keys().filter(|address| !wanted.contains_key(address) || !is_same(&routed, address)).copied().collect();
            for address in stale {
                routed.ports.remove(&address);
            }
            for (address, (pool, http)) in wanted {
                if routed.ports.contains_key(&address) {
                    continue;
                }
                match Port::open(address, pool, http) {
                    Ok(port) => drop(routed.ports.insert(address, port)),
                    Err(error) => failures.push((address, error.to_string())),
                }
            }
            // They are read and checked anew, which a process that comes or goes is no reason for.
            if routed.table.certificates != table.certificates {
                let certificates = table.certificates.iter();
                let certificates = certificates.map(|one| (&*one.domains, one.certificate.as_bytes(), one.key.as_bytes()));
                self.tls.set_names(certificates);
            }
            self.names.store(Arc::new(names));
            routed.pools = pools;
            let closed = [(table.http, false), (table.https, true)].map(|(asked, is_tls)| {
                let front = if is_tls { &mut routed.https } else { &mut routed.http };
                if front.as_ref().map(|front| front.asked) == asked { None } else { front.take() }
            });
            routed.table = table.clone();
            closed
        };
        for front in closed.into_iter().flatten() {
            front.close().await;
        }
        for (asked, is_tls) in [(table.http, false), (table.https, true)] {
            let is_open = {
                let routed = self.routed();
                if is_tls { routed.https.is_some() } else { routed.http.is_some() }
            };
            let (Some(asked), false) = (asked, is_open) else { continue };
            match self.open(asked, is_tls) {
                Ok(front) => {
                    let mut routed = self.routed();
                    *(if is_tls { &mut routed.https } else { &mut routed.http }) = Some(front);
                }
                Err(error) => failures.push((asked, error.to_string())),
            }
        }
        let routed = self.routed();
        let bound = |front: &Option<Front>| front.as_ref().map(|front| front.bound);
        self.https.store(bound(&routed.https).map_or(0, |address| address.port()), Ordering::Relaxed);
        Report::Applied { serial: routed.table.serial, http: bound(&routed.http), https: bound(&routed.https), failures }
    }

    fn open(&self, asked: SocketAddr, is_tls: bool) -> io::Result<Front> {
        let shards = std::thread::available_parallelism().map_or(1, usize::from);
        let server = Server::bind(asked, shards, is_tls.then(|| self.tls.clone()))?;
        let (bound, stop) = (server.local_addr(), CancellationToken::new());
        let scheme = if is_tls { "https" } else { "http" };
        let door =
            Door { names: Arc::clone(&self.names), scheme, port: bound.port(), https: Arc::clone(&self.https), own: Arc::clone(&self.own) };
        let shutdown = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move {
            let _ = server.run(door, Nothing, shutdown).await;
        });
        Ok(Front { asked, bound, stop, serving })
    }

    fn counted(&self) -> Counted {
        let stats = convox_proxy::stats();
        let services = self.routed().pools.iter().map(|((app, service), pool)| pool.requests(app, service)).collect();
        let own = std::array::from_fn(|class| self.own.get(class).map_or(0, |count| count.load(Ordering::Relaxed)));
        Counted { services, own, callers: stats.callers, tunnels: stats.tunnels, failed: stats.failed }
    }

    async fn drained(&self, target: &Target) {
        // Not among the targets any more, so only those who are connected already count: they hold on to it themselves.
        let backend = super::balancer::known(target);
        if let Some(backend) = backend {
            backend.idle().await;
        }
    }

    async fn close(&self) {
        let (http, https) = {
            let mut routed = self.routed();
            routed.ports.clear();
            (routed.http.take(), routed.https.take())
        };
        for front in [http, https].into_iter().flatten() {
            front.close().await;
        }
    }
}

impl Front {
    async fn close(self) {
        self.stop.cancel();
        let _ = self.serving.await;
    }
}
