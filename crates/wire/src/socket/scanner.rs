//! Where frames end in a stream of bytes, without keeping any payload: what a tunnel needs to put a ping, or a reason and a close,
//! between two frames of others.

/// The longest head: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;

/// Follows one direction of a tunnel. It judges nothing and never fails; bytes that are no frames only make it miss boundaries.
#[derive(Clone, Debug, Default)]
pub struct FrameScanner {
    head: [u8; LONGEST_HEAD],
    /// Bytes of the head seen so far.
    have: usize,
    /// Bytes of the payload still to come.
    payload: u64,
    in_message: bool,
}

impl FrameScanner {
    /// At the start of a stream, which is a boundary.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the stream stands between two frames, so that a control frame may be put in.
    pub fn at_boundary(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// Whether the stream is inside a message in several frames; then a boundary admits control frames, but no new message.
    pub fn in_message(&self) -> bool {
        self.in_message
    }

    /// Takes the next bytes. Gives the position in `bytes` behind the last frame that ends in them.
    pub fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        let mut end = None;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.payload > 0 {
                let skipped = self.payload.min(rest.len() as u64);
                self.payload -= skipped;
                at += skipped as usize;
            } else {
                at += self.take_head(rest);
            }
            if self.at_boundary() {
                end = Some(at);
            }
        }
        end
    }

    /// Takes the next byte of a head. Gives how many bytes were taken.
    fn take_head(&mut self, rest: &[u8]) -> usize {
        let (Some(byte), Some(place)) = (rest.first(), self.head.get_mut(self.have)) else { return rest.len() };
        *place = *byte;
        self.have += 1;
        let [first, second, ..] = self.head;
        if self.have < 2 {
            return 1;
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if self.have < 2 + extended + mask {
            return 1;
        }
        let [_, _, length @ ..] = self.head;
        self.payload = match extended {
            0 => u64::from(second & 0x7f),
            extended => length.iter().take(extended).fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        self.have = 0;
        if first & 0x08 == 0 {
            self.in_message = first & 0x80 == 0;
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{messages, pieces};
    use super::super::{encode, encode_close};
    use super::*;

    #[test]
    fn a_boundary_is_where_a_frame_ends() {
        let mut scanner = FrameScanner::new();
        assert!(scanner.at_boundary());
        assert_eq!(scanner.push(b"\x01"), None);
        assert!(!scanner.at_boundary());
        assert_eq!(scanner.push(b"\x02a"), None);
        assert_eq!(scanner.push(b"b\x80"), Some(1));
        assert!(!scanner.at_boundary() && scanner.in_message());
        assert_eq!(scanner.push(b"\x00"), Some(1), "an empty frame has no payload to wait for");
        assert!(scanner.at_boundary() && !scanner.in_message());
        let close = encode_close(1000, "bye");
        assert_eq!(scanner.push(&close), Some(close.len()));
        assert_eq!(scanner.push(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff"), None, "a frame without end");
    }

    proptest! {
        #[test]
        fn boundaries_are_those_of_the_encoder(
            frames in messages(),
            mask in prop::option::of(any::<[u8; 4]>()),
            cuts in prop::collection::vec(1usize..300, 1..20),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![(0, false)];
            let mut in_message = false;
            for frame in &frames {
                encode(frame, mask, &mut bytes);
                in_message = if frame.op.is_control() { in_message } else { !frame.fin };
                ends.push((bytes.len(), in_message));
            }
            let mut scanner = FrameScanner::new();
            let mut at = 0;
            for piece in pieces(&bytes, &cuts) {
                let found = scanner.push(piece).map(|end| at + end);
                let expected = ends.iter().map(|(end, _)| *end).rfind(|end| (at + 1..=at + piece.len()).contains(end));
                prop_assert_eq!(found, expected);
                at += piece.len();
                let here = ends.iter().find(|(end, _)| *end == at);
                prop_assert_eq!(scanner.at_boundary(), here.is_some());
                if let Some((_, in_message)) = here {
                    prop_assert_eq!(scanner.in_message(), *in_message);
                }
            }
            prop_assert!(scanner.at_boundary());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 1usize..50) {
            let mut scanner = FrameScanner::new();
            for piece in bytes.chunks(cut) {
                prop_assert!(scanner.push(piece).is_none_or(|end| end <= piece.len()));
            }
        }
    }
}
