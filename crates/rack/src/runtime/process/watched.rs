//! A handle on one exact process that need not be our child: signals reach it or nobody, and its
//! end can be awaited.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::net::unix::pipe::Receiver;

use super::procfs::Birth;

#[derive(Debug)]
pub(super) struct Watched {
    birth: Birth,
    pidfd: OwnedFd,
}

impl Watched {
    /// A handle on a child of ours. It has not been waited for, so its pid is still its own.
    pub(super) fn child(child: &Child) -> std::io::Result<Self> {
        let birth = Birth::of(child.id().cast_signed())?;
        Ok(Self { pidfd: open(&birth)?, birth })
    }

    /// A handle on a process of an earlier run; `None` if that very process is gone.
    pub(super) fn found(birth: &Birth) -> Option<Self> {
        let pidfd = open(birth).ok()?;
        // In this order: what the pidfd holds cannot change any more, so if its pid has our
        // start time now, it is the one.
        birth.is_alive().then(|| Self { birth: birth.clone(), pidfd })
    }

    pub(super) fn birth(&self) -> &Birth {
        &self.birth
    }

    pub(super) fn signal(&self, signal: Signal) {
        // Fails for who is gone already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) {
        let pidfd = self.pidfd.try_clone().and_then(Receiver::from_owned_fd_unchecked);
        if let Ok(pidfd) = pidfd {
            // Not a pipe, but to be waited for in the same way: readable means ended.
            let _ = pidfd.readable().await;
        }
        // Readiness may be a false alarm, and without a descriptor to spare there was none.
        while self.birth.is_alive() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn open(birth: &Birth) -> std::io::Result<OwnedFd> {
    let pid: Pid = birth.pid().ok_or_else(|| std::io::Error::other("not a pid"))?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}
