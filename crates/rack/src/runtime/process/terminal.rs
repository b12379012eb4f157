//! A pseudo-terminal as two streams.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::runtime::{TerminalInput, TerminalSize};

/// The Rack's end of a terminal, and the program's.
pub(super) fn open(size: TerminalSize) -> io::Result<(TerminalInput<Sender>, TerminalOutput, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    let mut modes = tcgetattr(&slave)?;
    // So that erasing a character erases all of its bytes.
    modes.input_modes |= InputModes::IUTF8;
    tcsetattr(&slave, OptionalActions::Now, &modes)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    // Not a pipe, but read, written and waited for in the same way.
    let output = TerminalOutput(Receiver::from_owned_fd_unchecked(master.try_clone()?)?);
    let input = TerminalInput::new(Sender::from_owned_fd_unchecked(master)?);
    Ok((input, output, slave))
}

/// What the program writes. Ends when nobody has the terminal open any more.
pub(super) struct TerminalOutput(Receiver);

impl AsyncRead for TerminalOutput {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_read(cx, buf)) {
            // How Linux says that the other side is closed.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Poll::Ready(Ok(())),
            other => Poll::Ready(other),
        }
    }
}
