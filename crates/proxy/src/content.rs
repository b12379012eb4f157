//! The body of an upstream's reply: where it ends in what is read.

use std::io;

use bytes::{Buf as _, Bytes};
use memchr::memchr;

use crate::reply_head::Wrong;

/// Bytes of a line that says a chunk's size, and of all lines after the last chunk.
const LONGEST: usize = 16 * 1024;
/// Of a size.
const DIGITS: usize = 15;

/// A body, as far as it has been taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    at: At,
    /// Bytes of lines around chunks beyond what a size needs, less the content since. Each piece keeps the memory of all that came with it, so
    /// that there must not be much more around it.
    padding: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum At {
    /// In a body with this many bytes left.
    Known(u64),
    /// In the line that says a chunk's size.
    Size,
    /// In a chunk with this many bytes left.
    Chunk(u64),
    /// In the line end after a chunk.
    ChunkEnd,
    /// In the lines after the last chunk, with so many bytes of them passed over.
    Trailers(usize),
    /// In a body that ends with its connection.
    ToEnd,
    Over,
}

impl Content {
    const fn new(at: At) -> Self {
        Self { at, padding: 0 }
    }

    pub(crate) const fn known(length: u64) -> Self {
        Self::new(if length == 0 { At::Over } else { At::Known(length) })
    }

    pub(crate) const fn chunked() -> Self {
        Self::new(At::Size)
    }

    pub(crate) const fn to_end() -> Self {
        Self::new(At::ToEnd)
    }

    pub(crate) fn is_to_end(&self) -> bool {
        self.at == At::ToEnd
    }

    pub(crate) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Bytes that are certainly content if they come now.
    pub(crate) fn expected(&self) -> u64 {
        match self.at {
            At::Known(left) | At::Chunk(left) => left,
            At::ToEnd => u64::MAX,
            _ => 0,
        }
    }

    /// All bytes of the body that are left, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.at {
            At::Known(left) => Some(left),
            At::Over => Some(0),
            _ => None,
        }
    }

    /// Takes the next piece out of what has been read, never an empty one; `None` if there is none yet, or it is over.
    ///
    /// # Errors
    /// It is not framed as it says.
    pub(crate) fn take(&mut self, unread: &mut Bytes) -> Result<Option<Bytes>, Wrong> {
        self.pass(unread)?;
        if unread.is_empty() {
            return Ok(None);
        }
        let piece = match &mut self.at {
            At::Known(left) | At::Chunk(left) => {
                let piece = unread.split_to(usize::try_from(*left).unwrap_or(usize::MAX).min(unread.len()));
                *left -= piece.len() as u64;
                self.padding = self.padding.saturating_sub(piece.len());
                piece
            }
            At::ToEnd => std::mem::take(unread),
            _ => return Ok(None),
        };
        match self.at {
            At::Known(0) => self.at = At::Over,
            At::Chunk(0) => self.at = At::ChunkEnd,
            _ => {}
        }
        // So that the end is known with the last piece, where it has come with it.
        self.pass(unread)?;
        Ok(Some(piece))
    }

    /// Passes over what is not content.
    fn pass(&mut self, unread: &mut Bytes) -> Result<(), Wrong> {
        const BAD: Wrong = "its chunks are not well-formed";
        while matches!(self.at, At::Size | At::ChunkEnd | At::Trailers(_)) {
            let Some(end) = memchr(b'\n', unread) else {
                return if unread.len() > LONGEST { Err(BAD) } else { Ok(()) };
            };
            let line = unread.split_to(end);
            unread.advance(1);
            let line = line.strip_suffix(b"\r").ok_or(BAD)?;
            if self.at == At::Size {
                self.padding += line.len().saturating_sub(DIGITS);
                if self.padding > LONGEST {
                    return Err(BAD);
                }
            }
            self.at = match self.at {
                At::Size => match size(line).ok_or(BAD)? {
                    0 => At::Trailers(0),
                    size => At::Chunk(size),
                },
                At::Trailers(_) if line.is_empty() => At::Over,
                At::Trailers(passed) if passed + line.len() < LONGEST => At::Trailers(passed + line.len() + 1),
                _ if line.is_empty() => At::Size,
                _ => return Err(BAD),
            };
        }
        Ok(())
    }

    /// Nothing more will come.
    ///
    /// # Errors
    /// Something should have.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        match self.at {
            At::ToEnd | At::Over => {
                self.at = At::Over;
                Ok(())
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Size of a chunk; its extensions are let pass.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii_end();
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    digits.iter().try_fold(0_u64, |size, &digit| char::from(digit).to_digit(16).map(|digit| size * 16 + u64::from(digit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body that comes in pieces of `step` bytes, what is left of the input, and whether it is over.
    fn taken(mut content: Content, input: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>, bool), Wrong> {
        let (mut body, mut unread) = (Vec::new(), Bytes::new());
        for piece in input.chunks(step) {
            unread = Bytes::from([&*unread, piece].concat());
            while let Some(piece) = content.take(&mut unread)? {
                assert!(!piece.is_empty());
                body.extend_from_slice(&piece);
            }
        }
        let is_over = content.is_over();
        Ok((body, unread.to_vec(), is_over))
    }

    fn all(content: fn() -> Content, input: &str) -> Result<(String, String, bool), Wrong> {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let whole = taken(content(), input.as_bytes(), usize::MAX);
        for step in [1, 2, 3, 7] {
            assert_eq!(taken(content(), input.as_bytes(), step), whole, "in pieces of {step}: {input:?}");
        }
        whole.map(|(body, left, is_over)| (text(body), text(left), is_over))
    }

    #[test]
    fn bodies_end_where_they_say() {
        let five = || Content::known(5);
        for (content, input, expected) in [
            (five as fn() -> Content, "hello", ("hello", "", true)),
            (five, "helloHTTP", ("hello", "HTTP", true)),
            (five, "hel", ("hel", "", false)),
            (Content::chunked, "5\r\nhello\r\n0\r\n\r\n", ("hello", "", true)),
            (Content::chunked, "3;a=b\r\nhel\r\n002 \r\nlo\r\n0\r\nTrailer: x\r\n\r\nHTTP", ("hello", "HTTP", true)),
            (Content::chunked, "5\r\nhello\r\n0\r\n", ("hello", "", false)),
            (Content::to_end, "hello", ("hello", "", false)),
        ] {
            let (body, left, is_over) = all(content, input).unwrap();
            assert_eq!((&*body, &*left, is_over), expected, "{input:?}");
        }
    }

    #[test]
    fn chunks_that_are_none_are_refused() {
        let endless = format!("5;{}", "x".repeat(LONGEST + 1));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(LONGEST / 4));
        let padded = "1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\nX\r\n".repeat(LONGEST / 8);
        for input in ["5\nhello", "x\r\n", "\r\n", "-1\r\n", "5\r\nhelloX\r\n", "1000000000000000\r\n", &endless, &trailers, &padded] {
            assert!(all(Content::chunked, input).is_err(), "{input:?}");
        }
    }

    #[test]
    fn only_some_bodies_may_end_with_their_connection() {
        assert!(Content::to_end().end().is_ok());
        assert!(Content::known(0).end().is_ok());
        assert!(Content::known(1).end().is_err());
        assert!(Content::chunked().end().is_err());
    }

    proptest::proptest! {
        #[test]
        fn pieces_make_no_difference(bytes: Vec<u8>, step in 1_usize..70) {
            let input = [b"2\r\nab\r\n", &*bytes].concat();
            proptest::prop_assert_eq!(taken(Content::chunked(), &input, step), taken(Content::chunked(), &input, usize::MAX));
        }
    }
}
