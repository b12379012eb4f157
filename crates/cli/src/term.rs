//! The terminal in raw mode for `exec` and `run`: entered for as long as a value lives, left on every way to end.
//!
//! Leaving happens in `Drop`: a return, an error, a panic, and every signal that can be caught, since those are turned into returns
//! ([`crate::signals`]). Only `kill -9` leaves a terminal raw; `reset` or `stty sane` helps then.

#[cfg(unix)]
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;

use crate::env::Env;

/// Restores the terminal when dropped.
pub(crate) struct Raw {
    #[cfg(unix)]
    before: Option<Termios>,
    /// Whether somebody else moved the cursor meanwhile.
    #[cfg(unix)]
    is_moved: bool,
}

impl Raw {
    /// Makes standard input raw if it is a terminal; else does nothing.
    pub(crate) fn enter(env: &Env) -> Self {
        #[cfg(unix)]
        {
            let stdin = io::stdin();
            if !env.stdin_is_terminal || !isatty(&stdin) {
                return Self::nothing();
            }
            let Ok(before) = tcgetattr(&stdin) else { return Self::nothing() };
            let mut raw = before.clone();
            raw.make_raw();
            match tcsetattr(&stdin, OptionalActions::Now, &raw) {
                Ok(()) => Self { before: Some(before), is_moved: true },
                Err(_) => Self::nothing(),
            }
        }
        #[cfg(not(unix))]
        {
            let _ = env;
            Self {}
        }
    }
}

#[cfg(unix)]
impl Raw {
    fn nothing() -> Self {
        Self { before: None, is_moved: false }
    }

    /// Makes standard input give single keys and show none of them, Ctrl-C included; output stays as it is.
    pub(crate) fn silent() -> rustix::io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(&stdin, OptionalActions::Now, &silent)?;
        Ok(Self { before: Some(before), is_moved: false })
    }
}

#[cfg(unix)]
impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
            if !self.is_moved {
                return;
            }
            // The remote cursor may stand anywhere in the line.
            use io::Write;
            let mut err = io::stderr().lock();
            let _ = err.write_all(b"\r");
            let _ = err.flush();
        }
    }
}

/// Rows and columns of standard output, if it is a terminal that knows.
pub(crate) fn size(env: &Env) -> Option<(u16, u16)> {
    #[cfg(unix)]
    if env.stdout_is_terminal {
        let size = tcgetwinsize(io::stdout()).ok()?;
        return (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col));
    }
    #[cfg(not(unix))]
    let _ = env;
    None
}
