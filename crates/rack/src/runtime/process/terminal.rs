//! A pseudo-terminal as two streams.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::runtime::TerminalSize;

/// What a terminal in its usual mode takes for the end of the input.
const END_OF_FILE: u8 = 4;

/// The Rack's end of a terminal, and the program's.
pub(super) fn open(size: TerminalSize) -> io::Result<(TerminalInput, TerminalOutput, OwnedFd)> {
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
    let input = TerminalInput { to: Sender::from_owned_fd_unchecked(master)?, mid_line: false, ends: None };
    Ok((input, output, slave))
}

/// What the program reads.
pub(super) struct TerminalInput {
    to: Sender,
    /// Something was written after the last line end.
    mid_line: bool,
    /// End-of-file characters still to be written.
    ends: Option<u8>,
}

impl AsyncWrite for TerminalInput {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.to).poll_write(cx, bytes))?;
        if let Some(last) = bytes.get(..count).and_then(<[u8]>::last) {
            self.mid_line = !matches!(*last, b'\n' | b'\r');
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal cannot be closed from one side: the program is told as a person would tell it.
    /// In the middle of a line the first such character only sends what is there.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut left = self.ends.unwrap_or(if self.mid_line { 2 } else { 1 });
        while left > 0 {
            self.ends = Some(left);
            ready!(Pin::new(&mut self.to).poll_write(cx, &[END_OF_FILE]))?;
            left -= 1;
        }
        self.ends = Some(0);
        Poll::Ready(Ok(()))
    }
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
