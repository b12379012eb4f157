//! One exec session: a command on a terminal or on pipes, for as long as its client is there.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::family::{Family, start_failure, start_failure_code};

/// What is left over may end in, after the command ended or its client went away.
const AFTER_END: Duration = Duration::from_secs(1);
/// Longest request: a command and an environment, as the kernel takes them.
const REQUEST_CAP: u64 = 8 << 20;

/// What the Rack writes to the socket: its length (8 bytes, big-endian), then this as JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    /// The argument vector.
    pub(crate) command: Vec<String>,
    /// The whole environment.
    pub(crate) env: BTreeMap<String, String>,
    /// Working directory.
    pub(crate) dir: PathBuf,
    /// Whether descriptors 0 and 1 are a terminal to take as the controlling one.
    pub(crate) tty: bool,
}

impl ExecRequest {
    /// The bytes for the socket.
    pub(crate) fn encode(&self) -> std::io::Result<Vec<u8>> {
        let body = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        let mut bytes = (body.len() as u64).to_be_bytes().to_vec();
        bytes.extend(body);
        Ok(bytes)
    }

    fn read(mut socket: impl Read) -> std::io::Result<Self> {
        let mut length = [0; 8];
        socket.read_exact(&mut length)?;
        let length = u64::from_be_bytes(length);
        if length > REQUEST_CAP {
            return Err(std::io::Error::other("the request is too long"));
        }
        let mut body = Vec::new();
        socket.take(length).read_to_end(&mut body)?;
        serde_json::from_slice(&body).map_err(std::io::Error::other)
    }
}

pub(super) fn run() -> ExitCode {
    match prepare() {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            say(&format!("could not start: {error}\n"));
            ExitCode::from(126)
        }
    }
}

fn prepare() -> std::io::Result<i32> {
    let socket = std::os::unix::net::UnixStream::from(std::io::stderr().as_fd().try_clone_to_owned()?);
    let request = ExecRequest::read(&socket)?;
    socket.set_nonblocking(true)?;
    // The Rack does not make us a group leader, so this cannot fail.
    rustix::process::setsid()?;
    if request.tty {
        rustix::process::ioctl_tiocsctty(std::io::stdin())?;
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(supervise(socket, request))
}

async fn supervise(socket: std::os::unix::net::UnixStream, request: ExecRequest) -> std::io::Result<i32> {
    // The terminal sends its signals to the foreground group, which on a terminal is ours too.
    // Taking them keeps us alive; the command gets the defaults back when it is executed.
    let _taken =
        [SignalKind::interrupt(), SignalKind::quit(), SignalKind::hangup()].into_iter().map(signal).collect::<std::io::Result<Vec<_>>>()?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut client = UnixStream::from_std(socket)?;

    let (program, words) = request.command.split_first().map_or(("", &[][..]), |(p, w)| (p.as_str(), w));
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .envs(&request.env)
        .current_dir(&request.dir)
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .stderr(Stdio::from(std::io::stdout().as_fd().try_clone_to_owned()?));
    if !request.tty {
        command.process_group(0);
    }
    let mut family = match Family::start(&mut command) {
        Ok(family) => family,
        Err(error) => {
            say(&format!("{}\n", start_failure(&request.command, &request.dir, &error)));
            return Ok(start_failure_code(&error));
        }
    };
    drop(command);
    // The command alone reads its input: an end of file must reach nobody else first.
    if !request.tty {
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(null)?;
    }

    let mut gone = [0; 1];
    let code = tokio::select! {
        code = family.ended() => code,
        // The Rack sends nothing more: whatever comes is the end.
        _ = client.read(&mut gone) => {
            family.signal_group(Signal::HUP);
            family.end_all(Instant::now() + AFTER_END).await;
            family.ended().await
        }
        _ = stop.recv() => {
            family.end_all(Instant::now() + AFTER_END).await;
            family.ended().await
        }
    };
    family.end_all(Instant::now() + AFTER_END).await;
    Ok(code)
}

/// To the client, as the command's output.
fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
