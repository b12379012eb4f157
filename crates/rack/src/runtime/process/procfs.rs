//! Who is who on this machine, from `/proc`.
//!
//! A pid alone proves nothing: it may have been given to another process meanwhile. A pid with
//! its start time and the machine's boot does.

use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// One process for all time: pid, start time in clock ticks since boot, and which boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Birth {
    pub(crate) pid: i32,
    pub(crate) start: u64,
    pub(crate) boot: String,
}

impl Birth {
    /// The process that has this pid now.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = Stat::of(pid)?;
        Ok(Self { pid, start: stat.start, boot: boot_id()? })
    }

    /// Whether this very process still runs (a zombie does not).
    pub(crate) fn is_alive(&self) -> bool {
        Stat::of(self.pid).is_ok_and(|stat| stat.start == self.start && !stat.is_dead()) && boot_id().is_ok_and(|boot| boot == self.boot)
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.pid)
    }
}

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    state: u8,
    parent: i32,
    session: i32,
    start: u64,
}

impl Stat {
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let text = std::fs::read(Path::new("/proc").join(pid.to_string()).join("stat"))?;
        Self::parse(pid, &text).ok_or_else(|| io::Error::other("/proc/PID/stat has an unknown form"))
    }

    /// The name in parentheses may hold anything, so fields count from the last parenthesis.
    fn parse(pid: i32, text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let text = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
        })
    }

    fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn everyone() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(|pid| Stat::of(pid).ok()).collect()
}

/// All living descendants of a process, the process itself not included.
pub(crate) fn descendants(of: i32) -> Vec<i32> {
    let everyone = everyone();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(everyone.iter().filter(|stat| stat.parent == parent && stat.pid != of).map(|stat| stat.pid));
        next += 1;
        if next > everyone.len() {
            break;
        }
    }
    let is_dead = |pid: i32| everyone.iter().any(|stat| stat.pid == pid && stat.is_dead());
    found.into_iter().skip(1).filter(|pid| !is_dead(*pid)).collect()
}

/// Sends SIGKILL to whatever is left of the session that a dead shim led. A session's number is
/// not given away while anyone is in it; if its leader lives again, it is not ours.
pub(crate) fn kill_session(leader: &Birth) {
    let everyone = everyone();
    if everyone.iter().any(|stat| stat.pid == leader.pid && stat.start != leader.start) {
        return;
    }
    for stat in everyone.iter().filter(|stat| stat.session == leader.pid) {
        signal(stat.pid, Signal::KILL);
    }
}

/// Sends a signal; who is gone already needs none.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 1) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let text = b"42 (a) R (b c) S 7 8 9 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        let stat = Stat::parse(42, text).unwrap();
        assert_eq!(stat, Stat { pid: 42, state: b'S', parent: 7, session: 9, start: 12345 });
    }

    #[test]
    fn a_pid_with_another_start_time_is_somebody_else() {
        let me = Birth::of(std::process::id().cast_signed()).unwrap();
        assert!(me.is_alive());
        assert!(!Birth { start: me.start + 1, ..me.clone() }.is_alive());
        assert!(!Birth { boot: "another".into(), ..me }.is_alive());
    }
}
