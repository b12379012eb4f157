//! Exchanging a running server for another without a dropped request: the new one takes the listening sockets over (ADR 0031).
//!
//! ```text
//! new --take-over                  running
//!   connects to DIR/serve.sock  ->
//!                               <-  listening sockets (SCM_RIGHTS), how many are for whom
//!   loads, gets ready
//!   "ready"                     ->  takes nothing new, finishes what is open, ends
//!                               <-  "taken"
//! ```
//!
//! Both share the same sockets and so the same queues of callers: nobody who has connected is lost. If the new one fails before it is ready,
//! the running one goes on as if nothing had been; if the running one is gone by then, the new one has its sockets and goes on alone.

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
const TAKEN: &[u8] = b"taken\n";
/// Printed when it is done.
pub(super) const DONE: &str = "took over from the running server";
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
    pub(super) async fn ready(mut self, data: &Path) -> Result<()> {
        let talk = async {
            self.stream.write_all(READY).await?;
            let mut taken = [0; TAKEN.len()];
            self.stream.read_exact(&mut taken).await?;
            Ok::<_, std::io::Error>(taken == TAKEN)
        };
        if let Ok(Ok(true)) = tokio::time::timeout(PATIENCE, talk).await {
            return Ok(());
        }
        // It ended meanwhile: nobody else serves those who have connected.
        if UnixStream::connect(path(data)).await.is_err() {
            tracing::warn!("the running server ended before it was told to: going on alone");
            return Ok(());
        }
        bail!("the running server goes on, and this one ends: it was not ready in time, or another one took over")
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
    // One that does not hear it finds nobody to ask again.
    let _ = tokio::time::timeout(PATIENCE, stream.write_all(TAKEN)).await;
    Ok(())
}

/// Starts this very command as a process of its own and returns when that one has taken over: for service managers, which wait for the
/// command that exchanges a server.
pub(super) fn detached() -> Result<()> {
    use std::io::{BufRead as _, Write as _};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};
    let program = std::env::current_exe().context("the path of this program")?;
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1).filter(|word| word != "--detach"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("could not start the new server")?;
    let said = child.stdout.take().context("nothing to read")?;
    for line in std::io::BufReader::new(said).lines().map_while(Result::ok) {
        writeln!(std::io::stdout(), "{line}")?;
        if line == DONE {
            return Ok(());
        }
    }
    bail!("the new server did not take over ({}): what it says of that is above; the running one goes on", child.wait()?)
}

fn send(stream: BorrowedFd<'_>, sockets: &Sockets) -> std::io::Result<()> {
    let all: Vec<BorrowedFd<'_>> = sockets.public.iter().chain(&sockets.metrics).map(TcpListener::as_fd).collect();
    let count = |many: usize| u8::try_from(many).unwrap_or(u8::MAX);
    let counts = [count(sockets.public.len()), count(sockets.metrics.len())];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if all.len() > MOST || !message.push(SendAncillaryMessage::ScmRights(&all)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(count: usize) -> Sockets {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        Sockets { public: (0..count).map(|_| one.try_clone().unwrap()).collect(), metrics: Vec::new(), are_taken: false }
    }

    async fn take(data: &Path) -> Taken {
        for _ in 0..500 {
            match Taken::from(data).await {
                Ok(taken) => return taken,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("nobody offers anything")
    }

    #[tokio::test]
    async fn a_server_ends_when_another_one_is_ready_and_not_when_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_owned();
        let running = tokio::spawn({
            let data = data.clone();
            async move { offer(&data, sockets(2)).await }
        });
        let failed = take(&data).await;
        assert_eq!(failed.sockets.public.len(), 2);
        drop(failed);
        assert!(!running.is_finished());
        take(&data).await.ready(&data).await.unwrap();
        running.await.unwrap();
        assert!(Taken::from(&data).await.err().unwrap().to_string().contains("no server runs on"));
    }

    #[tokio::test]
    async fn one_whose_predecessor_is_gone_goes_on_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_owned();
        let running = tokio::spawn({
            let data = data.clone();
            async move { offer(&data, sockets(1)).await }
        });
        let taken = take(&data).await;
        // Killed, or asked to end, while the new one gets ready.
        running.abort();
        assert!(running.await.is_err());
        taken.ready(&data).await.unwrap();
    }

    #[tokio::test]
    async fn one_whose_predecessor_goes_on_ends() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_owned();
        let listener = bind(&path(&data)).unwrap();
        let running = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; GREETING.len()]).await.unwrap();
            stream.async_io(Interest::WRITABLE, || send(stream.as_fd(), &sockets(1))).await.unwrap();
            // Its patience is over.
            drop(stream);
            listener
        });
        let taken = take(&data).await;
        let _goes_on = running.await.unwrap();
        let error = taken.ready(&data).await.unwrap_err().to_string();
        assert!(error.contains("the running server goes on"), "{error}");
    }

    #[test]
    fn more_sockets_than_a_message_holds_are_not_handed_over_in_part() {
        let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(send(near.as_fd(), &sockets(MOST + 1)).is_err());
        send(near.as_fd(), &sockets(MOST)).unwrap();
    }
}
