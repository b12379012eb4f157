//! RFC 6455 frames without sockets, and without looking into text: streams travel in text frames that need not be UTF-8, which
//! is why no common WebSocket library will do (docs/adr). Protocol 2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

mod scanner;

pub use scanner::FrameScanner;

/// Which side reads: a server accepts masked frames only, a client unmasked ones only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads what clients send.
    Server,
    /// Reads what servers send.
    Client,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// More of the message before.
    Continuation,
    /// Bytes of the stream.
    Text,
    /// End of that direction, whatever is in it.
    Binary,
    /// Code and reason.
    Close,
    /// To be answered by a pong with the same payload.
    Ping,
    /// The answer.
    Pong,
}

impl Op {
    fn code(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong: short, never fragmented.
    pub fn is_control(self) -> bool {
        self.code() >= 8
    }
}

/// One frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether it is the last of its message.
    pub fin: bool,
    /// What it is.
    pub op: Op,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A whole message of text.
    pub fn text(payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, op: Op::Text, payload: payload.into() }
    }

    /// The empty binary message that ends a direction.
    pub fn end() -> Self {
        Self { fin: true, op: Op::Binary, payload: Vec::new() }
    }

    /// A close frame; the reason is cut to what fits into a control frame, at a character boundary.
    pub fn close(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
        Self { fin: true, op: Op::Close, payload }
    }
}

/// Why bytes are no frames. The connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Reserved bits or an unknown opcode: an extension that nobody asked for.
    #[error("a WebSocket frame with reserved bits or an unknown type")]
    Reserved,
    /// Masked when it must not be, or the other way round.
    #[error("a WebSocket frame with the wrong masking")]
    Mask,
    /// A control frame that is long or fragmented.
    #[error("a WebSocket control frame that is too long or in pieces")]
    Control,
    /// Longer than this side accepts.
    #[error("a WebSocket frame that is too long")]
    TooLong,
    /// A continuation of nothing, or a new message inside another.
    #[error("a WebSocket message in the wrong order")]
    Order,
}

/// Turns bytes, in whatever pieces they arrive, into frames.
pub struct Decoder {
    role: Role,
    max_payload: usize,
    buffer: Vec<u8>,
    read: usize,
    in_message: bool,
    failed: Option<FrameError>,
}

struct Head {
    fin: bool,
    op: Op,
    mask: Option<[u8; 4]>,
    length: usize,
    size: usize,
}

impl Decoder {
    /// A decoder for the given side that refuses payloads above `max_payload` bytes.
    pub fn new(role: Role, max_payload: usize) -> Self {
        Self { role, max_payload, buffer: Vec::new(), read: 0, in_message: false, failed: None }
    }

    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 && (self.read == self.buffer.len() || self.read > 64 * 1024) {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` when more bytes are needed. Call it until then after each [`Self::push`].
    ///
    /// # Errors
    /// [`FrameError`], and the same one for ever after.
    #[expect(clippy::should_implement_trait, reason = "an iterator would hide that errors are final and more bytes may come")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.step().inspect_err(|error| self.failed = Some(*error))
    }

    fn step(&mut self) -> Result<Option<Frame>, FrameError> {
        let pending = self.buffer.get(self.read..).unwrap_or_default();
        let Some(head) = parse_head(pending)? else { return Ok(None) };
        if head.mask.is_some() != (self.role == Role::Server) {
            return Err(FrameError::Mask);
        }
        if head.length > self.max_payload {
            return Err(FrameError::TooLong);
        }
        if !head.op.is_control() && (head.op == Op::Continuation) != self.in_message {
            return Err(FrameError::Order);
        }
        let Some(payload) = pending.get(head.size..head.size.saturating_add(head.length)) else { return Ok(None) };
        let mut payload = payload.to_vec();
        if let Some(mask) = head.mask {
            apply_mask(&mut payload, mask);
        }
        if !head.op.is_control() {
            self.in_message = !head.fin;
        }
        self.read += head.size + head.length;
        Ok(Some(Frame { fin: head.fin, op: head.op, payload }))
    }
}

/// Reads a frame's head; `None` when it is not whole yet.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, FrameError> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::Reserved);
    }
    let op = Op::from_code(first & 0x0f).ok_or(FrameError::Reserved)?;
    let fin = first & 0x80 != 0;
    let (length, extended) = match second & 0x7f {
        126 => {
            let Some(bytes) = rest.first_chunk::<2>() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*bytes)), 2)
        }
        127 => {
            let Some(bytes) = rest.first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*bytes), 8)
        }
        short => (u64::from(short), 0),
    };
    if op.is_control() && (!fin || length > 125) {
        return Err(FrameError::Control);
    }
    let mut size = 2 + extended;
    let mask = if second & 0x80 != 0 {
        let Some(mask) = rest.get(extended..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
        size += 4;
        Some(*mask)
    } else {
        None
    };
    Ok(Some(Head { fin, op, mask, length: usize::try_from(length).map_err(|_| FrameError::TooLong)?, size }))
}

fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// Appends a frame's bytes to `out`; clients give a fresh random mask for each.
pub fn encode(frame: &Frame, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    out.push(if frame.fin { 0x80 } else { 0 } | frame.op.code());
    match frame.payload.len() {
        length @ 0..=125 => out.push(masked | length as u8),
        length @ 126..=65_535 => {
            out.push(masked | 0x7e);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(masked | 0x7f);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
    let start = out.len();
    out.extend_from_slice(&frame.payload);
    if let (Some(mask), Some(payload)) = (mask, out.get_mut(start..)) {
        apply_mask(payload, mask);
    }
}

/// The bytes of a server's close frame with this code and reason; see [`Frame::close`].
pub fn encode_close(code: u16, reason: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&Frame::close(code, reason), None, &mut out);
    out
}

/// The code and reason of a close frame's payload; 1005 when it has none.
pub fn close_reason(payload: &[u8]) -> (u16, String) {
    match payload.split_first_chunk::<2>() {
        Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()),
        None => (1005, String::new()),
    }
}

/// The `Sec-WebSocket-Accept` value for a `Sec-WebSocket-Key`.
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.trim().as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_handshake_is_that_of_the_standard() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_breaks_the_rules_is_refused_for_good() {
        let refused = |role, bytes: &[u8]| {
            let mut decoder = Decoder::new(role, 1000);
            decoder.push(bytes);
            let error = decoder.next().unwrap_err();
            decoder.push(b"\x81\x00");
            assert_eq!(decoder.next(), Err(error));
            error
        };
        assert_eq!(refused(Role::Client, b"\xc1\x00"), FrameError::Reserved);
        assert_eq!(refused(Role::Client, b"\x83\x00"), FrameError::Reserved);
        assert_eq!(refused(Role::Client, b"\x81\x80abcd"), FrameError::Mask);
        assert_eq!(refused(Role::Server, b"\x81\x00"), FrameError::Mask);
        assert_eq!(refused(Role::Client, b"\x09\x00"), FrameError::Control);
        assert_eq!(refused(Role::Client, b"\x89\x7e\x00\xff"), FrameError::Control);
        assert_eq!(refused(Role::Client, b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), FrameError::TooLong);
        assert_eq!(refused(Role::Client, b"\x80\x00"), FrameError::Order);
        assert_eq!(refused(Role::Client, b"\x81\x7e\x03\xe9"), FrameError::TooLong);
    }

    #[test]
    fn control_frames_may_stand_between_the_pieces_of_a_message() {
        let mut decoder = Decoder::new(Role::Client, 10);
        decoder.push(b"\x01\x01a\x89\x00\x00\x01b\x80\x00\x82\x00");
        let found: Vec<(Op, bool)> = std::iter::from_fn(|| decoder.next().unwrap()).map(|frame| (frame.op, frame.fin)).collect();
        assert_eq!(found, [(Op::Text, false), (Op::Ping, true), (Op::Continuation, false), (Op::Continuation, true), (Op::Binary, true)]);
        decoder.push(b"\x01\x00\x81\x00");
        assert_eq!(decoder.next(), Ok(Some(Frame { fin: false, op: Op::Text, payload: Vec::new() })));
        assert_eq!(decoder.next(), Err(FrameError::Order), "a new message inside another");
    }

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let frame = Frame::close(4001, &"é".repeat(100));
        assert!(frame.payload.len() <= 125);
        let (code, reason) = close_reason(&frame.payload);
        assert_eq!((code, reason.chars().all(|c| c == 'é')), (4001, true));
        assert_eq!(close_reason(b""), (1005, String::new()));
        assert_eq!(encode_close(1000, "ok"), b"\x88\x04\x03\xe8ok");
    }

    /// Whole and fragmented messages with control frames between the pieces; all three forms of length.
    pub(super) fn messages() -> impl Strategy<Value = Vec<Frame>> {
        let payload = prop_oneof![
            8 => prop::collection::vec(any::<u8>(), 0..130),
            2 => prop::collection::vec(any::<u8>(), 120..400),
            1 => (65_000usize..66_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
        ];
        let control = (prop_oneof![Just(Op::Close), Just(Op::Ping), Just(Op::Pong)], prop::collection::vec(any::<u8>(), 0..125));
        let control = control.prop_map(|(op, payload)| Frame { fin: true, op, payload });
        let message = (any::<bool>(), prop::collection::vec((payload, prop::option::of(control)), 1..4)).prop_map(|(binary, parts)| {
            let last = parts.len() - 1;
            let mut frames = Vec::new();
            for (index, (payload, control)) in parts.into_iter().enumerate() {
                let op = match (index, binary) {
                    (0, true) => Op::Binary,
                    (0, false) => Op::Text,
                    _ => Op::Continuation,
                };
                frames.push(Frame { fin: index == last, op, payload });
                frames.extend(control);
            }
            frames
        });
        prop::collection::vec(message, 0..4).prop_map(|messages| messages.concat())
    }

    /// `bytes` cut into pieces of these sizes, over and over.
    pub(super) fn pieces<'a>(bytes: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = bytes;
        let mut sizes = cuts.iter().cycle();
        std::iter::from_fn(move || {
            let size = (*sizes.next()?).min(rest.len());
            let (piece, after) = rest.split_at(size);
            rest = after;
            (!piece.is_empty()).then_some(piece)
        })
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in messages(),
            mask in prop::option::of(any::<[u8; 4]>()),
            cuts in prop::collection::vec(1usize..300, 1..20),
        ) {
            let mut bytes = Vec::new();
            for frame in &frames {
                encode(frame, mask, &mut bytes);
            }
            let mut decoder = Decoder::new(if mask.is_some() { Role::Server } else { Role::Client }, 70_000);
            let mut found = Vec::new();
            for piece in pieces(&bytes, &cuts) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    found.push(frame);
                }
            }
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), server in any::<bool>()) {
            let mut decoder = Decoder::new(if server { Role::Server } else { Role::Client }, 100);
            for byte in bytes {
                decoder.push(&[byte]);
                while let Ok(Some(_)) = decoder.next() {}
            }
        }
    }
}
