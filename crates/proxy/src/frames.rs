//! Where one WebSocket frame ends and the next begins, in a stream of bytes that is copied and not kept.

/// Tracks the frames of one direction of a tunnel.
#[derive(Debug)]
pub(crate) struct Frames {
    at: At,
    /// A message has begun whose last frame has not.
    in_message: bool,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Boundary,
    /// In a header: bytes so far and how many.
    Header([u8; 14], usize),
    Payload(u64),
}

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Set in the opcodes of control frames, which may stand inside a message.
const CONTROL: u8 = 0x08;

impl Frames {
    pub(crate) const fn new() -> Self {
        Self { at: At::Boundary, in_message: false }
    }

    /// True between two frames.
    pub(crate) fn is_boundary(&self) -> bool {
        matches!(self.at, At::Boundary)
    }

    /// True between two frames of which none belongs to a message that goes on.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.is_boundary() && !self.in_message
    }

    /// Takes note of bytes that were passed on.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.step(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    /// How many of these bytes belong to the frame at hand; all of them if it does not end here.
    pub(crate) fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let mut ahead = Self { at: self.at, in_message: self.in_message };
        let mut passed = 0;
        while passed < bytes.len() && !ahead.is_boundary() {
            passed += ahead.step(bytes.get(passed..).unwrap_or_default());
        }
        passed
    }

    /// Takes some of `bytes`, which are not empty, and says how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        match self.at {
            At::Payload(left) => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                let left = left - taken as u64;
                self.at = if left == 0 { At::Boundary } else { At::Payload(left) };
                taken
            }
            At::Boundary => self.header([0; 14], 0, bytes),
            At::Header(header, length) => self.header(header, length, bytes),
        }
    }

    fn header(&mut self, mut header: [u8; 14], mut length: usize, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for byte in bytes {
            if let Some(slot) = header.get_mut(length) {
                *slot = *byte;
            }
            length += 1;
            taken += 1;
            if let Some(payload) = payload(&header, length) {
                let first = header.first().copied().unwrap_or_default();
                if first & CONTROL == 0 {
                    self.in_message = first & FIN == 0;
                }
                self.at = if payload == 0 { At::Boundary } else { At::Payload(payload) };
                return taken;
            }
        }
        self.at = At::Header(header, length);
        taken
    }
}

/// Length of the payload, once the header is whole.
fn payload(header: &[u8; 14], length: usize) -> Option<u64> {
    let [_, second, rest @ ..] = header;
    if length < 2 {
        return None;
    }
    let mask = if second & MASKED != 0 { 4 } else { 0 };
    let (extended, payload) = match second & !MASKED {
        126 => (2, rest.iter().take(2).fold(0, |value, byte| value << 8 | u64::from(*byte))),
        127 => (8, rest.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))),
        short => (0, u64::from(short)),
    };
    (length == 2 + extended + mask).then_some(payload)
}

/// An unmasked text frame, as a server sends it.
pub(crate) fn text(message: &str) -> Vec<u8> {
    frame(0x1, message.as_bytes())
}

/// An unmasked close frame. The reason is cut to what fits, at the end of a character.
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
    frame(0x8, &payload)
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![FIN | opcode];
    match payload.len() {
        short @ ..=125 => frame.push(short as u8),
        middle @ 126..=0xffff => {
            frame.push(126);
            frame.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(opcode: u8, fin: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(opcode, payload);
        if !fin {
            bytes[0] &= !FIN;
        }
        bytes[1] |= MASKED;
        let at = bytes.len() - payload.len();
        bytes.splice(at..at, [1, 2, 3, 4]);
        bytes
    }

    #[test]
    fn boundaries_are_found_for_every_length_and_cut() {
        for size in [0, 1, 125, 126, 127, 65_535, 65_536] {
            for frame in [frame(2, &vec![7; size]), masked(2, true, &vec![7; size])] {
                let mut frames = Frames::new();
                for (at, byte) in frame.iter().enumerate() {
                    assert_eq!(frames.is_boundary(), at == 0, "{size} at {at}");
                    frames.pass(&[*byte]);
                }
                assert!(frames.is_boundary());
                let mut twice = frame.clone();
                twice.extend_from_slice(&frame);
                let mut frames = Frames::new();
                frames.pass(&twice[..1]);
                assert_eq!(frames.rest_of_frame(&twice[1..]), frame.len() - 1);
                assert_eq!(frames.rest_of_frame(&frame[1..2]), 1);
                frames.pass(&twice[1..]);
                assert!(frames.is_between_messages());
            }
        }
    }

    #[test]
    fn a_message_in_pieces_is_one_message() {
        let mut frames = Frames::new();
        frames.pass(&masked(1, false, b"a"));
        assert!(frames.is_boundary() && !frames.is_between_messages());
        frames.pass(&frame(9, b"ping"));
        assert!(!frames.is_between_messages());
        frames.pass(&masked(0, true, b"b"));
        assert!(frames.is_between_messages());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close(1008, &"ü".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn cutting_a_stream_anywhere_changes_nothing(bytes: Vec<u8>, cut: proptest::sample::Index) {
            let cut = cut.index(bytes.len() + 1);
            let (mut whole, mut pieces) = (Frames::new(), Frames::new());
            whole.pass(&bytes);
            pieces.pass(&bytes[..cut]);
            pieces.pass(&bytes[cut..]);
            proptest::prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }
    }
}
