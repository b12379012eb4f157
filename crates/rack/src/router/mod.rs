//! Traffic to apps: by host name over HTTP and HTTPS, and on a port of each service's own.
//!
//! Two halves. [`process`] listens and forwards, in a process of its own that outlives the Rack; [`table`] is what it has to
//! know. [`Router`] is the Rack's half: it says what to route, and starts the other half if it is not there. See
//! `docs/adr/0020`.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

mod balancer;
mod gate;
mod process;
mod table;

pub(crate) use gate::lets_in;
pub(crate) use table::{CLASSES, Certificate, Counted, Route, Table, Target, class};
use table::{Order, Report};

/// Router and Rack must be of one build: they speak a language of their own.
const PROGRAM: &str = concat!(env!("CARGO_PKG_VERSION"), "+", "3");
/// How long a router may take to listen.
const START: Duration = Duration::from_secs(30);
/// How long a router may take to say what it counted.
const COUNT: Duration = Duration::from_secs(2);
/// Pause before a router that ended is started again.
const AGAIN: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Runs the router if that is what the program was started for: `router --dir DIR`. To be called first thing in `main`.
pub fn intercept(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != "router" {
        return None;
    }
    Some(process::run(Path::new(&arguments.nth(1)?)))
}

/// Where apps are reached from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterConfig {
    /// Where HTTP is answered.
    pub http: Option<SocketAddr>,
    /// Where HTTPS is answered.
    pub https: Option<SocketAddr>,
    /// Domain below which every service has a name, `SERVICE.APP.DOMAIN`.
    pub domain: Option<String>,
}

/// What the router said last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    pub(crate) http: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
    /// Addresses on which it could not listen, and why.
    pub(crate) failures: Vec<(SocketAddr, String)>,
    /// Of the table that it routes.
    pub(crate) serial: u64,
}

/// The Rack's half.
pub(crate) struct Router {
    table: watch::Sender<Table>,
    drains: mpsc::UnboundedSender<Target>,
    /// Who asks what was counted.
    asks: mpsc::UnboundedSender<oneshot::Sender<Counted>>,
    waiting: Arc<Waiting>,
    applied: watch::Receiver<Applied>,
    stop: CancellationToken,
}

type Waiting = Mutex<HashMap<Target, Vec<oneshot::Sender<()>>>>;

impl Drop for Router {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Router {
    /// Finds the router of `dir`, or starts one from `program`. It goes on with what it routes until it is told otherwise;
    /// that is given too. `base` is where to listen, without routes.
    pub(crate) async fn start(dir: &Path, program: &Path, base: Table) -> io::Result<(Self, Table)> {
        let place = Place { dir: dir.to_owned(), program: program.to_owned() };
        let link = place.connect().await?;
        let earlier = link.table.clone();
        let (routes, certificates) = (earlier.routes.clone(), earlier.certificates.clone());
        // Nobody is let in for the moment until the Rack has read who may be.
        let table = Table { serial: earlier.serial + 1, routes, certificates, allowed: earlier.allowed.clone(), ..base };
        let (drains, to_drain) = mpsc::unbounded_channel();
        let (asks, asked) = mpsc::unbounded_channel();
        let (heard, applied) = watch::channel(Applied::default());
        let router =
            Self { table: watch::Sender::new(table), drains, asks, waiting: Arc::default(), applied, stop: CancellationToken::new() };
        let task = Task {
            place,
            table: router.table.subscribe(),
            to_drain,
            asked,
            waiting: Arc::clone(&router.waiting),
            heard,
            stop: router.stop.clone(),
        };
        tokio::spawn(task.run(link));
        if router.settled().await { Ok((router, earlier)) } else { Err(io::Error::other("the router does not answer")) }
    }

    /// Waits until every change so far is carried out; `false` if that takes too long.
    pub(crate) async fn settled(&self) -> bool {
        let serial = self.table.borrow().serial;
        let mut applied = self.applied.clone();
        matches!(timeout(START, applied.wait_for(|applied| applied.serial >= serial)).await, Ok(Ok(_)))
    }

    /// Changes what is routed; `change` says whether it did.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Table) -> bool) {
        self.table.send_if_modified(|table| {
            let is_changed = change(table);
            table.serial += u64::from(is_changed);
            is_changed
        });
    }

    /// Waits until nobody is connected to a process that is not among the targets any more.
    pub(crate) async fn drained(&self, target: Target) {
        let (done, wait) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(target.clone()).or_default().push(done);
        let _ = self.drains.send(target);
        let _ = wait.await;
    }

    /// What the router did since it began; `None` if it does not say.
    pub(crate) async fn counted(&self) -> Option<Counted> {
        let (tell, told) = oneshot::channel();
        self.asks.send(tell).ok()?;
        timeout(COUNT, told).await.ok()?.ok()
    }

    /// Lets go of the router, which goes on routing.
    pub(crate) fn leave(&self) {
        self.stop.cancel();
    }

    /// What the router says, from now on.
    pub(crate) fn applied(&self) -> watch::Receiver<Applied> {
        self.applied.clone()
    }
}

/// Ends the router of a Rack that does not run. Says whether there was one.
pub(crate) async fn end(dir: &Path) -> io::Result<bool> {
    let deadline = Instant::now() + START;
    let stream = loop {
        match UnixStream::connect(dir.join("router.sock")).await {
            Ok(stream) => break stream,
            // Its Rack was killed while it began: it will listen.
            Err(_) if is_running(dir) && Instant::now() < deadline => sleep(LOOK_AGAIN).await,
            Err(_) => return Ok(false),
        }
    };
    let (mut from, mut to) = stream.into_split();
    write(&mut to, &Order::End).await?;
    // It ends the link when it has closed everything.
    timeout(START, async { tokio::io::copy(&mut from, &mut tokio::io::sink()).await }).await??;
    Ok(true)
}

/// Whether a router holds the lock of its directory.
fn is_running(dir: &Path) -> bool {
    let lock = std::fs::File::open(dir.join("router.lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}

/// Where the router is.
struct Place {
    dir: PathBuf,
    program: PathBuf,
}

struct Link {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
    table: Table,
}

impl Place {
    async fn connect(&self) -> io::Result<Link> {
        let deadline = Instant::now() + START;
        let mut started = false;
        loop {
            if let Ok(stream) = UnixStream::connect(self.dir.join("router.sock")).await {
                let link = greet(stream).await?;
                match link {
                    Some(link) => return Ok(link),
                    // Of another version: it makes room. Its open connections are finished.
                    None => drop(end(&self.dir).await),
                }
            }
            if !started {
                self.spawn()?;
                started = true;
            }
            if Instant::now() >= deadline {
                return Err(io::Error::other(format!("the router does not listen in {}", self.dir.display())));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    fn spawn(&self) -> io::Result<()> {
        let mut child = Command::new(&self.program)
            .arg("router")
            .arg("--dir")
            .arg(&self.dir)
            // Nothing of the Rack's own environment: it may hold the Rack's password.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // Only clears it from the process table if it ends before the Rack.
        std::thread::spawn(move || child.wait());
        Ok(())
    }
}

async fn greet(stream: UnixStream) -> io::Result<Option<Link>> {
    let (from, to) = stream.into_split();
    let mut from = BufReader::new(from);
    match timeout(START, read(&mut from)).await?? {
        Some(Report::Hello { version, table, .. }) if version == PROGRAM => Ok(Some(Link { from, to, table })),
        _ => Ok(None),
    }
}

async fn read(from: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Report>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(io::Error::other)
}

async fn write(to: &mut OwnedWriteHalf, order: &Order) -> io::Result<()> {
    let mut line = serde_json::to_vec(order).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line).await
}

/// Keeps the router at what the Rack wants, and another one if it ends.
struct Task {
    place: Place,
    table: watch::Receiver<Table>,
    to_drain: mpsc::UnboundedReceiver<Target>,
    asked: mpsc::UnboundedReceiver<oneshot::Sender<Counted>>,
    waiting: Arc<Waiting>,
    heard: watch::Sender<Applied>,
    stop: CancellationToken,
}

impl Task {
    async fn run(mut self, first: Link) {
        let stop = self.stop.clone();
        let mut link = Some(first);
        loop {
            let current = match link.take() {
                Some(link) => Ok(link),
                None => self.place.connect().await,
            };
            let outcome = match current {
                Ok(link) => tokio::select! {
                    outcome = self.serve(link) => outcome,
                    () = stop.cancelled() => return,
                },
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::error!(%error, "the router is gone; starting another");
            }
            // Whoever waited for connections to end: they have.
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn serve(&mut self, link: Link) -> io::Result<()> {
        let Link { mut from, mut to, .. } = link;
        let (waiting, heard) = (Arc::clone(&self.waiting), self.heard.clone());
        // Answers come in order. Whose answer does not come any more is let go of with this.
        let askers = Mutex::new(VecDeque::new());
        let listening = async {
            loop {
                match read(&mut from).await? {
                    None => return Err::<(), _>(io::ErrorKind::UnexpectedEof.into()),
                    Some(Report::Applied { serial, http, https, failures }) => {
                        heard.send_replace(Applied { http, https, failures, serial });
                    }
                    Some(Report::Drained(target)) => {
                        for done in waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&target).into_iter().flatten() {
                            let _ = done.send(());
                        }
                    }
                    Some(Report::Counted(counted)) => {
                        let asker: Option<oneshot::Sender<Counted>> = askers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        if let Some(asker) = asker {
                            let _ = asker.send(counted);
                        }
                    }
                    Some(Report::Hello { .. }) => {}
                }
            }
        };
        let telling = async {
            let table = self.table.borrow_and_update().clone();
            write(&mut to, &Order::Table(table)).await?;
            loop {
                tokio::select! {
                    // A table goes before the drains that it makes sense of.
                    biased;
                    changed = self.table.changed() => {
                        if changed.is_err() {
                            return Ok(());
                        }
                        let table = self.table.borrow_and_update().clone();
                        write(&mut to, &Order::Table(table)).await?;
                    }
                    target = self.to_drain.recv() => match target {
                        Some(target) => write(&mut to, &Order::Drain(target)).await?,
                        None => return Ok(()),
                    },
                    asker = self.asked.recv() => match asker {
                        Some(asker) => {
                            askers.lock().unwrap_or_else(PoisonError::into_inner).push_back(asker);
                            write(&mut to, &Order::Count).await?;
                        }
                        None => return Ok(()),
                    },
                }
            }
        };
        tokio::select! {
            outcome = listening => outcome,
            outcome = telling => outcome,
        }
    }
}
