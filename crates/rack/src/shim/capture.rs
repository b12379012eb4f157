//! What a process says, line by line into its app's log.

use jiff::Timestamp;

use crate::logs::{LineSplitter, LogWriter, encode};
use crate::runtime::process::files::SpecFile;

/// Writes what the process says to its app's log. Never makes the process wait for a full disk:
/// what cannot be written is counted, and the count is written when there is room again.
pub(super) struct Capture {
    writer: LogWriter,
    stream: String,
    lost: u64,
}

impl Capture {
    pub(super) fn new(spec: &SpecFile) -> Self {
        Self { writer: LogWriter::new(&spec.log_dir, spec.log_limits()), stream: spec.stream(), lost: 0 }
    }

    /// Takes more of what one pipe gave.
    pub(super) fn take(&mut self, splitter: &mut LineSplitter, bytes: &[u8]) {
        let (mut block, mut lines, now) = (Vec::new(), 0, Timestamp::now());
        splitter.push(bytes, |line| {
            lines += 1;
            encode(&mut block, now, &self.stream, line);
        });
        self.write(block, lines);
    }

    /// Takes what came after the last line end.
    pub(super) fn finish(&mut self, splitter: &mut LineSplitter) {
        let (mut block, mut lines, now) = (Vec::new(), 0, Timestamp::now());
        splitter.finish(|line| {
            lines += 1;
            encode(&mut block, now, &self.stream, line);
        });
        self.write(block, lines);
    }

    /// A line of the shim's own.
    pub(super) fn say(&mut self, text: &str) {
        let mut block = Vec::new();
        encode(&mut block, Timestamp::now(), &self.stream, text.replace(['\n', '\r'], " ").as_bytes());
        self.write(block, 1);
    }

    fn write(&mut self, mut block: Vec<u8>, lines: u64) {
        if lines == 0 {
            return;
        }
        let mut whole = Vec::new();
        if self.lost > 0 {
            let note = format!("{} lines of output could not be written before this one", self.lost);
            encode(&mut whole, Timestamp::now(), &self.stream, note.as_bytes());
        }
        whole.append(&mut block);
        match self.writer.write(&whole) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += lines,
        }
    }
}
