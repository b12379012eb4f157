//! One line of a log file: `{time} {stream} {message}`, so that people can read and grep it.

use jiff::Timestamp;

use super::LogLine;

/// Longest message of one line, in bytes; longer ones are split.
pub const MESSAGE_CAP: usize = 64 * 1024;

/// Adds one record to a block. `message` has no line end; what is not UTF-8 is kept as it is.
pub fn encode(block: &mut Vec<u8>, time: Timestamp, stream: &str, message: &[u8]) {
    block.extend_from_slice(time.to_string().as_bytes());
    block.push(b' ');
    block.extend(stream.bytes().map(|byte| if byte <= b' ' || byte == 0x7f { b'-' } else { byte }));
    block.push(b' ');
    block.extend_from_slice(message);
    block.push(b'\n');
}

/// Reads one record without its line end. `None` for what no writer of ours wrote whole.
pub(super) fn decode(record: &[u8]) -> Option<LogLine> {
    let first = record.iter().position(|byte| *byte == b' ')?;
    let (time, rest) = record.split_at_checked(first)?;
    let rest = rest.get(1..)?;
    let second = rest.iter().position(|byte| *byte == b' ')?;
    let (stream, message) = rest.split_at_checked(second)?;
    let time: Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
    Some(LogLine {
        time,
        stream: std::str::from_utf8(stream).ok()?.to_owned(),
        message: String::from_utf8_lossy(message.get(1..)?).into_owned(),
    })
}

/// Cuts a stream of bytes into messages: at line ends, and where a line gets longer than the cap.
#[derive(Debug, Default)]
pub struct LineSplitter {
    rest: Vec<u8>,
}

impl LineSplitter {
    /// Takes more bytes and hands each whole message to `each`.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, after) = bytes.split_at(end);
            bytes = after.get(1..).unwrap_or_default();
            if self.rest.is_empty() {
                split_long(without_return(line), &mut each);
            } else {
                self.rest.extend_from_slice(line);
                let whole = std::mem::take(&mut self.rest);
                split_long(without_return(&whole), &mut each);
            }
        }
        self.rest.extend_from_slice(bytes);
        while self.rest.len() > MESSAGE_CAP {
            let cut = cut_at(&self.rest);
            let after = self.rest.split_off(cut);
            each(&self.rest);
            self.rest = after;
        }
    }

    /// Hands over what came after the last line end.
    pub fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            split_long(without_return(&rest), &mut each);
        }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn split_long(mut line: &[u8], each: &mut impl FnMut(&[u8])) {
    while line.len() > MESSAGE_CAP {
        let (head, tail) = line.split_at(cut_at(line));
        each(head);
        line = tail;
    }
    each(line);
}

/// Where to cut a longer line: at the cap, or a few bytes before it so as not to cut a character.
fn cut_at(line: &[u8]) -> usize {
    let is_boundary = |at: &usize| line.get(*at).is_none_or(|byte| byte & 0xC0 != 0x80);
    (MESSAGE_CAP - 3..=MESSAGE_CAP).rev().find(is_boundary).unwrap_or(MESSAGE_CAP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::default();
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push(line.to_vec()));
        }
        splitter.finish(|line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let time: Timestamp = "2026-01-02T03:04:05.006Z".parse().unwrap();
        let mut block = Vec::new();
        encode(&mut block, time, "service/web/a1", b"GET /  200");
        assert_eq!(block, b"2026-01-02T03:04:05.006Z service/web/a1 GET /  200\n");
        let line = decode(block.strip_suffix(b"\n").unwrap()).unwrap();
        assert_eq!((line.time, line.stream.as_str(), line.message.as_str()), (time, "service/web/a1", "GET /  200"));
    }

    #[test]
    fn a_stream_name_cannot_forge_a_record() {
        let mut block = Vec::new();
        encode(&mut block, Timestamp::UNIX_EPOCH, "a b\nc", b"m");
        assert_eq!(block, b"1970-01-01T00:00:00Z a-b-c m\n");
    }

    #[test]
    fn lines_are_found_across_reads_and_the_unfinished_last_one_is_kept() {
        assert_eq!(split(&[b"on", b"e\r\ntw", b"o\n\nlast"]), [&b"one"[..], b"two", b"", b"last"]);
    }

    #[test]
    fn a_long_line_is_split_between_characters() {
        let text = "ä".repeat(MESSAGE_CAP);
        let lines = split(&[b"x", text.as_bytes(), b"\n"]);
        assert!(lines.len() > 1);
        assert!(lines.iter().all(|line| line.len() <= MESSAGE_CAP && std::str::from_utf8(line).is_ok()));
        assert_eq!(lines.concat(), format!("x{text}").as_bytes());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_the_bytes_arrive(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let whole = chunks.concat();
            let parts: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(split(&parts), split(&[&whole]));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
