//! Frames are the same however their bytes are cut, and the scanner ends where the decoder does.
#![no_main]

use convox_wire::exit::ExitScanner;
use convox_wire::socket::{Decoder, Frame, FrameError, FrameScanner, Role, encode};
use libfuzzer_sys::fuzz_target;

const LONGEST: usize = 1 << 16;

fn decode<'a>(role: Role, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::new(role, LONGEST);
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fuzz_target!(|input: (bool, u8, Vec<u8>)| {
    let (server, cut, bytes) = input;
    let role = if server { Role::Server } else { Role::Client };
    let whole = decode(role, std::iter::once(bytes.as_slice()));
    let cut = decode(role, bytes.chunks(usize::from(cut).max(1)));
    assert_eq!(whole, cut);

    let (frames, _) = whole;
    let mut again = Vec::new();
    for frame in &frames {
        encode(frame, server.then_some([1, 2, 3, 4]), &mut again);
    }
    assert_eq!(decode(role, std::iter::once(again.as_slice())), (frames.clone(), None));
    let mut scanner = FrameScanner::new();
    let end = scanner.push(&again);
    assert!(scanner.at_boundary() && end.unwrap_or_default() == again.len());

    let mut scanner = FrameScanner::new();
    scanner.push(&bytes);
    let mut exit = ExitScanner::new();
    for frame in frames {
        exit.push(frame.payload);
    }
    let _ = exit.finish();
});
