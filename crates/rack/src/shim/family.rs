//! A child and everything that descends from it.
//!
//! The shim is a subreaper: whoever loses its parent becomes a child of the shim, so nobody gets
//! away by forking twice or by leaving the process group.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::runtime::process::procfs;

/// Rounds of SIGKILL before giving up on what cannot be killed (stuck in the kernel).
const KILL_ROUNDS: u32 = 250;
const KILL_PAUSE: Duration = Duration::from_millis(20);
/// How often to look whether everyone heeded SIGTERM, beside each child's end.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The child that matters, and its descendants.
pub(super) struct Family {
    main: Pid,
    code: Option<i32>,
    children: SignalStream,
}

impl Family {
    /// Starts the child. Must be called once per shim, inside its runtime.
    pub(super) fn start(command: &mut Command) -> std::io::Result<Self> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let children = signal(SignalKind::child())?;
        let child = command.spawn()?;
        let main = Pid::from_raw(child.id().cast_signed()).ok_or_else(|| std::io::Error::other("the child has no pid"))?;
        Ok(Self { main, code: None, children })
    }

    pub(super) fn main(&self) -> Pid {
        self.main
    }

    /// Waits for the child's end: its exit code, or 128 + the signal that ended it.
    pub(super) async fn ended(&mut self) -> i32 {
        loop {
            self.reap();
            if let Some(code) = self.code {
                return code;
            }
            // Once a second also without a signal: one may be lost to another's.
            let _ = timeout(Duration::from_secs(1), self.children.recv()).await;
        }
    }

    /// Sends a signal to the child's process group.
    pub(super) fn signal_group(&self, signal: Signal) {
        if self.code.is_none() {
            let _ = rustix::process::kill_process_group(self.main, signal);
        }
    }

    /// Ends whoever is left: SIGTERM now, SIGKILL at the deadline. Returns when all are gone.
    pub(super) async fn end_all(&mut self, deadline: Instant) {
        let me = std::process::id().cast_signed();
        let mut told = Vec::new();
        loop {
            self.reap();
            let left = procfs::descendants(me);
            if left.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                break;
            }
            for pid in left {
                if !told.contains(&pid) {
                    procfs::signal(pid, Signal::TERM);
                    told.push(pid);
                }
            }
            tokio::select! {
                _ = self.children.recv() => {}
                () = sleep(LOOK_AGAIN.min(deadline.saturating_duration_since(Instant::now()))) => {}
            }
        }
        for _ in 0..KILL_ROUNDS {
            let left = procfs::descendants(me);
            if left.is_empty() {
                break;
            }
            // Again each round: someone may have forked while we looked.
            for pid in left {
                procfs::signal(pid, Signal::KILL);
            }
            sleep(KILL_PAUSE).await;
            self.reap();
        }
        self.reap();
    }

    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.main {
                self.code = Some(exit_code(status));
            }
        }
    }
}

fn exit_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}

/// The code that shells give a command that could not be started.
pub(super) fn start_failure_code(error: &std::io::Error) -> i32 {
    if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
}

/// Why a command could not be started, for the person who wrote it.
pub(super) fn start_failure(command: &[String], dir: &std::path::Path, error: &std::io::Error) -> String {
    let program = command.first().map_or("", String::as_str);
    if !dir.is_dir() {
        return format!("directory {} is not there: deploy the app again", dir.display());
    }
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("command not found: {program}; install it on the Rack's machine or correct the service's command")
        }
        std::io::ErrorKind::PermissionDenied => format!("not executable: {program}; check its mode"),
        _ => format!("{program}: {error}"),
    }
}
