//! Exchanging a running server for another without a dropped request: the new one takes the listening sockets over (ADR 0031).
//!
//! ```text
//! new --take-over                  running
//!   connects to DIR/serve.sock  ->
//!                               <-  listening sockets (SCM_RIGHTS), how many are for whom
//!   loads, gets ready
//!   "ready"                     ->  takes nothing new, finishes what is open, ends
//! ```
//!
//! Both share the same sockets and so the same queues of callers: nobody who has connected is lost. If the new one fails before it is ready,
//! the running one goes on as if nothing had been.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};

const GREETING: &[u8] = b"convox take-over 1\n";
const READY: &[u8] = b"ready\n";
/// Sockets of one message; Linux allows 253.
const MOST: usize = 250;
/// How long either side waits for a word of the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a new server may take to get ready.
const START: Duration = Duration::from_mins(5);

fn path(data: &Path) -> PathBuf {
    data.join("serve.sock")
}

/// What is handed over.
pub(super) struct Sockets {
    pub(super) public: Vec<TcpListener>,
    pub(super) metrics: Vec<TcpListener>,
    /// Another server had them before.
    pub(super) are_taken: bool,
}

/// The connection to a server whose sockets were taken.
pub(super) struct Taken {
    stream: UnixStream,
    pub(super) sockets: Sockets,
}

impl Taken {
    /// Takes the sockets of the server that runs on this data directory.
    pub(super) async fn from(data: &Path) -> Result<Self> {
        let path = path(data);
        let none = || format!("no server runs on {}, so none can be taken over; start without --take-over", data.display());
        let mut stream = UnixStream::connect(&path).await.with_context(none)?;
        let talk = async {
            stream.write_all(GREETING).await?;
            stream.async_io(Interest::READABLE, || receive(stream.as_fd())).await
        };
        let sockets = tokio::time::timeout(PATIENCE, talk).await.context("the running server does not hand its sockets over")??;
        Ok(Self { stream, sockets })
    }

    /// From here on the running server takes nothing new.
    pub(super) async fn ready(mut self) -> Result<()> {
        self.stream.write_all(READY).await.context("the running server ended before it could be told to")
    }
}

/// Offers the sockets of this server to whoever comes, and returns when somebody has taken over.
pub(super) async fn offer(data: &Path, sockets: Sockets) {
    let path = path(data);
    // One that was just taken over may still be there, and is not asked any more.
    let listener = match if sockets.are_taken { bind(&path) } else { listen(&path).await } {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "this server cannot be taken over by another");
            return std::future::pending().await;
        }
    };
    loop {
        let taken = async {
            let (stream, _) = listener.accept().await?;
            give(stream, &sockets).await
        };
        match taken.await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "another server wanted to take over and did not: going on");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Listens, unless another server does.
async fn listen(path: &Path) -> Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        bail!("another server runs on the same data directory");
    }
    bind(path)
}

fn bind(path: &Path) -> Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| format!("could not listen on {}", path.display()))?;
    // The directory is its owner's already.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn give(mut stream: UnixStream, sockets: &Sockets) -> Result<()> {
    let mut greeting = [0; GREETING.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut greeting)).await.context("it said nothing")??;
    if greeting != GREETING {
        bail!("it is of a version that hands over in another way");
    }
    stream.async_io(Interest::WRITABLE, || send(stream.as_fd(), sockets)).await?;
    let mut ready = [0; READY.len()];
    tokio::time::timeout(START, stream.read_exact(&mut ready)).await.context("it was not ready in time")?.context("it ended")?;
    Ok(())
}

fn send(stream: BorrowedFd<'_>, sockets: &Sockets) -> std::io::Result<()> {
    let all: Vec<BorrowedFd<'_>> = sockets.public.iter().chain(&sockets.metrics).map(TcpListener::as_fd).take(MOST).collect();
    let count = |many: usize| u8::try_from(many).unwrap_or(u8::MAX);
    let counts = [count(sockets.public.len()), count(sockets.metrics.len())];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !message.push(SendAncillaryMessage::ScmRights(&all)) {
        return Err(std::io::Error::other("too many sockets to hand over"));
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(&counts)], &mut message, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: BorrowedFd<'_>) -> std::io::Result<Sockets> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut counts = [0; 2];
    rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut counts)], &mut message, RecvFlags::CMSG_CLOEXEC)?;
    let mut all: Vec<OwnedFd> = Vec::new();
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = part {
            all.extend(sockets);
        }
    }
    let [public, metrics] = counts.map(usize::from);
    if public == 0 || all.len() != public + metrics {
        return Err(std::io::Error::other("the running server did not hand its sockets over"));
    }
    let mut public: Vec<TcpListener> = all.into_iter().map(TcpListener::from).collect();
    let metrics = public.split_off(public.len() - metrics);
    Ok(Sockets { public, metrics, are_taken: true })
}
