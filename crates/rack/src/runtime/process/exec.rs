//! Running a command beside a process, for a client that may go away at any time.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::watched::Watched;
use super::{Entry, procfs, terminal};
use crate::runtime::{ExecSpec, ExecStream, RuntimeError, TerminalSize};
use crate::shim::ExecRequest;

/// How long the exec shim may take to read its request.
const HAND_OVER: Duration = Duration::from_secs(10);

type Input = Box<dyn AsyncWrite + Send + Unpin>;
type Output = Box<dyn AsyncRead + Send + Unpin>;

pub(super) async fn exec(program: &Path, entry: &Arc<Entry>, spec: ExecSpec) -> Result<ExecStream, RuntimeError> {
    let (id, dir) = {
        let state = entry.state.borrow();
        if state.status.is_final() {
            return Err(RuntimeError::NotRunning(state.id.clone()));
        }
        (state.id.clone(), state.dir.clone())
    };
    let io = |doing: &'static str| {
        let id = id.clone();
        move |source| RuntimeError::Io { doing: format!("{doing} for exec in process {id}"), source }
    };
    let mut env = entry.dir.env().map_err(io("reading the environment"))?;
    if spec.tty.is_some() {
        env.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
    }
    env.extend(spec.env);
    let request = ExecRequest { command: vec!["sh".into(), "-c".into(), spec.command], env, dir, tty: spec.tty.is_some() };
    let request = request.encode().map_err(io("encoding the request"))?;

    let process = Arc::clone(entry);
    let ended = async move { drop(process.ended().await) };
    session(program, &id, request, spec.tty, spec.no_input, ended)
}

/// Runs a command of the machine's own, beside no process.
pub(crate) fn on_machine(program: &Path, command: Vec<String>, tty: Option<TerminalSize>) -> Result<ExecStream, RuntimeError> {
    let kept = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ"];
    let mut env: BTreeMap<String, String> =
        kept.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect();
    if tty.is_some() {
        env.insert("TERM".to_owned(), "xterm".to_owned());
    }
    let dir = env.get("HOME").map(PathBuf::from).filter(|home| home.is_dir()).unwrap_or_else(|| PathBuf::from("/"));
    let request = ExecRequest { command, env, dir, tty: tty.is_some() };
    let request = request.encode().map_err(|source| RuntimeError::Io { doing: "encoding the request of a shell".to_owned(), source })?;
    session(program, "of the machine", request, tty, false, std::future::pending())
}

/// Runs what is requested in a shim of its own until it, its client, or `outlived` ends.
fn session(
    program: &Path,
    id: &str,
    request: Vec<u8>,
    tty: Option<TerminalSize>,
    no_input: bool,
    outlived: impl Future<Output = ()> + Send + 'static,
) -> Result<ExecStream, RuntimeError> {
    let io = |doing: &'static str| {
        let id = id.to_owned();
        move |source| RuntimeError::Io { doing: format!("{doing} for exec in process {id}"), source }
    };
    let (leash, theirs) = std::os::unix::net::UnixStream::pair().map_err(io("making a socket"))?;
    let (input, output, stdin, stdout) = match tty {
        Some(size) => {
            let (input, output, slave) = terminal::open(size).map_err(io("opening a terminal"))?;
            let second = slave.try_clone().map_err(io("opening a terminal"))?;
            (Box::new(input) as Input, Box::new(output) as Output, slave, second)
        }
        None => pipes(no_input).map_err(io("making pipes"))?,
    };
    let child = Command::new(program)
        .arg("exec-shim")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::from(stdout))
        .stderr(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(io("starting the shim"))?;
    let watched = Watched::child(&child).map_err(io("watching the shim"))?;

    let (client, client_gone) = oneshot::channel::<()>();
    let (code, exit) = oneshot::channel();
    let mut leash = leash.set_nonblocking(true).and_then(|()| UnixStream::from_std(leash)).map_err(io("using the socket"))?;
    // From here on the task looks after the shim, whatever happens to us.
    let handing_over = async move {
        let outcome = timeout(HAND_OVER, leash.write_all(&request)).await;
        (leash, outcome.is_ok_and(|written| written.is_ok()))
    };
    tokio::spawn(async move {
        // On a failure the shim sees the end of its socket, and ends.
        let (leash, true) = handing_over.await else {
            let _ = code.send(conclude(child, watched).await);
            return;
        };
        tokio::select! {
            () = watched.ended() => {}
            _ = client_gone => {}
            () = outlived => {}
        }
        drop(leash);
        let _ = code.send(conclude(child, watched).await);
    });
    let exit = Box::pin(async move {
        let _client = client;
        exit.await.unwrap_or(255)
    });
    Ok(ExecStream { input, output, exit })
}

fn pipes(no_input: bool) -> std::io::Result<(Input, Output, OwnedFd, OwnedFd)> {
    let (output, stdout) = std::io::pipe()?;
    let output = Box::new(pipe::Receiver::from_owned_fd(output.into())?);
    if no_input {
        let null = std::fs::File::open("/dev/null")?;
        return Ok((Box::new(tokio::io::sink()), output, null.into(), stdout.into()));
    }
    let (stdin, input) = std::io::pipe()?;
    let input = Box::new(pipe::Sender::from_owned_fd(input.into())?);
    Ok((Box::new(PipeInput(Some(*input))), output, stdin.into(), stdout.into()))
}

/// A pipe that is closed by shutting it down, as a socket is.
struct PipeInput(Option<pipe::Sender>);

impl AsyncWrite for PipeInput {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        match &mut self.0 {
            Some(pipe) => std::pin::Pin::new(pipe).poll_write(cx, bytes),
            None => std::task::Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, _cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: std::pin::Pin<&mut Self>, _cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        self.0 = None;
        std::task::Poll::Ready(Ok(()))
    }
}

/// Waits for the shim's end and gives the command's exit code.
async fn conclude(mut child: Child, watched: Watched) -> i32 {
    watched.ended().await;
    match child.wait() {
        Ok(status) => status.code().unwrap_or_else(|| {
            // The shim itself was killed, so nobody has ended what it started.
            procfs::kill_session(watched.birth());
            137
        }),
        Err(_) => 255,
    }
}
