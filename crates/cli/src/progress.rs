//! How far something is that takes its time: a line on standard error that is drawn over itself, at a terminal only.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::output::{Form, Printer, Style};

/// Between two drawings.
const PAUSE: Duration = Duration::from_millis(250);
/// What is smaller is over before anybody has read a line.
const WORTH: u64 = 1024 * 1024;

/// Counts bytes for as long as it lives; dropped, it leaves the line as it was.
pub(crate) struct Progress {
    label: String,
    total: Option<u64>,
    count: u64,
    drawn: Option<Instant>,
    is_shown: bool,
    /// What stood on the line before, and `OK` is to follow.
    before: String,
}

impl Progress {
    /// Of the line that `out` has [started](Printer::start) with the same text, wherever that went.
    pub(crate) fn of(out: &Printer, label: &str, total: Option<u64>) -> Self {
        // With `--json` and `--id` it went to standard error, where this is drawn.
        let is_inline = out.form() != Form::Text || io::stdout().is_terminal();
        Self::new(label, total, if is_inline { format!("{}... ", out.paint(Style::Start, label)) } else { String::new() })
    }

    /// With a line of its own, which is gone at the end.
    pub(crate) fn alone(label: &str, total: Option<u64>) -> Self {
        Self::new(label, total, String::new())
    }

    fn new(label: &str, total: Option<u64>, before: String) -> Self {
        let is_shown = io::stderr().is_terminal();
        Self { label: label.to_owned(), total: total.filter(|total| *total > 0), count: 0, drawn: None, is_shown, before }
    }

    /// So many bytes more.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.count += bytes as u64;
        let is_due = self.count >= WORTH && self.drawn.is_none_or(|drawn| drawn.elapsed() > PAUSE);
        if self.is_shown && is_due {
            self.drawn = Some(Instant::now());
            // Nobody is left to be told if standard error is closed.
            let _ = write!(io::stderr().lock(), "\r\u{1b}[K{}... {}", self.label, self.how_far());
        }
    }

    fn how_far(&self) -> String {
        let megabytes = |bytes: u64| format!("{}.{}", bytes / WORTH, bytes % WORTH * 10 / WORTH);
        match self.total {
            Some(total) => format!("{}% of {} MB", (self.count.min(total)) * 100 / total, megabytes(total)),
            None => format!("{} MB", megabytes(self.count)),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr().lock(), "\r\u{1b}[K{}", self.before);
        }
    }
}

/// Counts what is read.
pub(crate) struct Counted<'a, R> {
    inner: R,
    progress: &'a mut Progress,
}

impl<'a, R> Counted<'a, R> {
    pub(crate) fn new(inner: R, progress: &'a mut Progress) -> Self {
        Self { inner, progress }
    }
}

impl<R: io::Read> io::Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.progress.add(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_far_and_of_how_much() {
        let mut known = Progress::alone("x", Some(3 * WORTH));
        known.add(WORTH as usize);
        assert_eq!(known.how_far(), "33% of 3.0 MB");
        known.add(usize::try_from(WORTH).unwrap() * 5);
        assert_eq!(known.how_far(), "100% of 3.0 MB");
        let mut unknown = Progress::alone("x", Some(0));
        unknown.add(WORTH as usize * 3 / 2);
        assert_eq!(unknown.how_far(), "1.5 MB");
    }
}
