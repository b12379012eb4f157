//! A second, stricter reader of request framing, beside hyper's.
//!
//! hyper is right about where a request ends, but forgives what others read differently: both lengths at once, the same
//! length twice, codings before `chunked`, lines that end in a bare LF. Whoever stands before or behind us may not agree, and
//! that disagreement is request smuggling. This reader sees the bytes as they come in, holds none of them but the beginning
//! of an unfinished line, and only ever says "ambiguous".

use memchr::memchr;

/// The beginning of an unfinished line that is kept: enough for any framing header that we accept.
const HELD: usize = 64;

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Nothing to object to.
    Clear,
    /// The head of a request is ambiguous; its body, if any, has not been read.
    Head,
    /// The body of a request is ambiguous; what comes after it cannot be trusted either.
    Body,
}

#[derive(Debug)]
pub(crate) struct Framing {
    at: At,
    line: [u8; HELD],
    /// Length of the unfinished line; only `HELD` bytes of it are kept, and its last.
    length: usize,
    last: u8,
    head: Head,
    finding: Finding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before a request line.
    Start,
    /// In header lines.
    Head,
    /// In a body with this many bytes left.
    Body(u64),
    /// In the line that says a chunk's size.
    Size,
    /// In a chunk with this many bytes left.
    Chunk(u64),
    /// In the line end after a chunk.
    ChunkEnd,
    /// In the lines after the last chunk.
    Trailers,
    /// No longer HTTP, or no longer of interest.
    Off,
}

#[derive(Clone, Copy, Debug, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Framing {
    pub(crate) const fn new() -> Self {
        Self {
            at: At::Start,
            line: [0; HELD],
            length: 0,
            last: 0,
            head: Head { length: None, chunked: false, upgrade: false },
            finding: Finding::Clear,
        }
    }

    /// True while bytes of a request's body are still to come.
    pub(crate) fn in_body(&self) -> bool {
        matches!(self.at, At::Body(_) | At::Size | At::Chunk(_) | At::ChunkEnd | At::Trailers)
    }

    /// Takes note of the next bytes. The finding is for good: the connection is not to be used after the request at hand.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Finding {
        while !bytes.is_empty() {
            bytes = match self.at {
                At::Off => return self.finding,
                At::Body(left) => self.skip(bytes, left, At::Body, At::Start),
                At::Chunk(left) => self.skip(bytes, left, At::Chunk, At::ChunkEnd),
                At::Start | At::Head | At::Size | At::ChunkEnd | At::Trailers => self.lines(bytes),
            };
        }
        self.finding
    }

    fn skip<'b>(&mut self, bytes: &'b [u8], left: u64, more: fn(u64) -> At, then: At) -> &'b [u8] {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - take as u64;
        self.at = if left == 0 { then } else { more(left) };
        bytes.get(take..).unwrap_or_default()
    }

    /// Takes one line, or the unfinished rest.
    fn lines<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some(end) = memchr(b'\n', bytes) else {
            self.hold(bytes);
            return &[];
        };
        let (line, rest) = bytes.split_at(end);
        if self.length == 0 {
            self.line(line, line.len());
        } else {
            self.hold(line);
            let (held, length) = (self.line, self.length);
            self.length = 0;
            // A line that was not kept whole misses its CR; only its beginning is looked at then.
            let mut kept = held.get(..length.min(HELD)).unwrap_or_default();
            if length > HELD {
                if self.last != b'\r' {
                    self.object();
                }
                kept = held.get(..HELD).unwrap_or_default();
            }
            self.line(kept, length);
        }
        rest.get(1..).unwrap_or_default()
    }

    fn hold(&mut self, bytes: &[u8]) {
        if let Some(free) = self.line.get_mut(self.length.min(HELD)..) {
            let take = free.len().min(bytes.len());
            if let (Some(to), Some(from)) = (free.get_mut(..take), bytes.get(..take)) {
                to.copy_from_slice(from);
            }
        }
        self.last = bytes.last().copied().unwrap_or(self.last);
        self.length = self.length.saturating_add(bytes.len());
    }

    /// A whole line without its LF. `length` is more than `line` where the line was too long to keep.
    fn line(&mut self, line: &[u8], length: usize) {
        let whole = line.len() == length;
        let line = match (whole, line.split_last()) {
            (true, Some((b'\r', text))) => text,
            (true, _) => return self.object(),
            (false, _) => line,
        };
        match self.at {
            // Empty lines before a request line are to be ignored.
            At::Start if line.is_empty() => {}
            At::Start => {
                self.head = Head::default();
                self.at = At::Head;
            }
            At::Head if line.is_empty() => self.begin_body(),
            At::Head => self.header(line, whole),
            At::Size => match (whole, chunk_size(line)) {
                (true, Some(0)) => self.at = At::Trailers,
                (true, Some(size)) => self.at = At::Chunk(size),
                _ => self.object(),
            },
            At::ChunkEnd if line.is_empty() => self.at = At::Size,
            At::ChunkEnd => self.object(),
            At::Trailers if line.is_empty() => self.at = At::Start,
            At::Trailers | At::Body(_) | At::Chunk(_) | At::Off => {}
        }
    }

    fn header(&mut self, line: &[u8], whole: bool) {
        let Some(first) = line.first() else { return };
        match first | 0x20 {
            b'c' => {
                if let Some(value) = value_of(line, b"content-length") {
                    match (whole, self.head.length, length(value)) {
                        (true, None, Some(length)) => self.head.length = Some(length),
                        _ => self.object(),
                    }
                }
            }
            b't' => {
                if let Some(value) = value_of(line, b"transfer-encoding") {
                    if !whole || self.head.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        self.object();
                    }
                    self.head.chunked = true;
                }
            }
            b'u' => self.head.upgrade |= value_of(line, b"upgrade").is_some(),
            _ if matches!(first, b' ' | b'\t') => self.object(),
            _ => {}
        }
    }

    fn begin_body(&mut self) {
        if self.finding != Finding::Clear {
            self.at = At::Off;
            return;
        }
        self.at = match self.head {
            // What follows may be another protocol. If it is not, the connection is closed after the answer.
            Head { upgrade: true, .. } => At::Off,
            Head { chunked: true, length: Some(_), .. } => return self.object(),
            Head { chunked: true, length: None, .. } => At::Size,
            Head { length: Some(length), .. } if length > 0 => At::Body(length),
            _ => At::Start,
        };
    }

    fn object(&mut self) {
        if self.finding == Finding::Clear {
            self.finding = if self.in_body() { Finding::Body } else { Finding::Head };
        }
        self.at = At::Off;
    }
}

/// The value, if this line is a header of this lower-case name.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')))
}

/// Size of a chunk; its extensions are let pass.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?;
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    digits.iter().try_fold(0_u64, |size, &digit| char::from(digit).to_digit(16).map(|digit| size * 16 + u64::from(digit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Finding {
        let whole = Framing::new().feed(text.as_bytes());
        for step in [1, 2, 7, 63, 64, 65] {
            let mut framing = Framing::new();
            let mut last = Finding::Clear;
            for piece in text.as_bytes().chunks(step) {
                last = framing.feed(piece);
            }
            assert_eq!(last, whole, "in pieces of {step}: {text:?}");
        }
        whole
    }

    #[test]
    fn ordinary_requests_are_clear() {
        let long = "x".repeat(300);
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nPOST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\nGET / HTTP/1.1\r\nContent-Length:0\r\n\r\n",
            &format!("GET /{long} HTTP/1.1\r\nCookie: {long}\r\nContent-Lengths: x\r\n\r\n"),
        ] {
            assert_eq!(read(text), Finding::Clear, "{text:?}");
        }
    }

    #[test]
    fn ambiguous_heads_are_found() {
        let long = "0".repeat(100);
        for header in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length:\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "A: b\n",
            "A: b\r\n c\r\n",
            &format!("Content-Length: {long}5\r\n"),
        ] {
            assert_eq!(read(&format!("POST / HTTP/1.1\r\nHost: a\r\n{header}\r\nhello")), Finding::Head, "{header:?}");
        }
    }

    #[test]
    fn ambiguous_chunks_are_found() {
        for body in [
            "5\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            " 5\r\nhello\r\n",
            "5\r\nhelloX\r\n",
            "5 \r\nhello\r\n",
            "\r\nhello",
            "5\r\nhello\n0\r\n\r\n",
        ] {
            assert_eq!(read(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}")), Finding::Body, "{body:?}");
        }
    }

    #[test]
    fn after_an_upgrade_nothing_is_read() {
        assert_eq!(read("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n\n\n\u{0} Content-Length: x\n"), Finding::Clear);
    }

    #[test]
    fn the_body_is_known_to_be_on_its_way() {
        let mut framing = Framing::new();
        framing.feed(b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell");
        assert!(framing.in_body());
        framing.feed(b"o");
        assert!(!framing.in_body());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_upset_it(bytes: Vec<u8>, step in 1_usize..70) {
            let whole = Framing::new().feed(&bytes);
            let mut framing = Framing::new();
            let mut last = Finding::Clear;
            for piece in bytes.chunks(step) {
                last = framing.feed(piece);
            }
            proptest::prop_assert_eq!(last, whole);
        }
    }
}
