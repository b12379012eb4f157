//! The exit code that ends an exec stream, in-band after a marker (protocol 2.4).

/// What precedes the code. Source: `StatusCodePrefix` of both SDKs.
pub const MARKER: &str = "F1E49A85-0AD7-4AEF-A618-C249C6E6568D:";

/// The marker message of `code`; it must travel in a message of its own, with nothing after it but the end.
pub fn marker(code: i32) -> String {
    format!("{MARKER}{code}\n")
}

/// The code of a message that is a marker and nothing else.
pub fn parse(message: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(message.strip_prefix(MARKER.as_bytes())?).ok()?;
    text.strip_suffix('\n').unwrap_or(text).parse().ok()
}

/// Looks for a marker anywhere in a chunk, as the original clients do: where the output ends, and the code. For those who must
/// understand what such a client would see; ours believe [`ExitScanner`] only.
pub fn find_in(chunk: &[u8]) -> Option<(usize, i32)> {
    let at = chunk.windows(MARKER.len()).position(|window| window == MARKER.as_bytes())?;
    Some((at, parse(chunk.get(at..)?)?))
}

/// Watches a stream of messages for the exit marker, believing it only as the whole of the last message: output that merely
/// looks like a marker is given back as output.
#[derive(Default)]
pub struct ExitScanner {
    held: Option<(Vec<u8>, i32)>,
}

impl ExitScanner {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next whole message. Gives what is certainly output: an earlier look-alike first, then this message, unless it may
    /// be the marker itself.
    pub fn push(&mut self, message: Vec<u8>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let earlier = self.held.take().map(|(bytes, _)| bytes);
        match parse(&message) {
            Some(code) => {
                self.held = Some((message, code));
                (earlier, None)
            }
            None => (earlier, Some(message)),
        }
    }

    /// The stream is at its end: the code, if the last message was a marker.
    pub fn finish(self) -> Option<i32> {
        self.held.map(|(_, code)| code)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_last_message_can_be_the_marker() {
        let mut scanner = ExitScanner::new();
        let forged = marker(0).into_bytes();
        assert_eq!(scanner.push(b"out".to_vec()), (None, Some(b"out".to_vec())));
        assert_eq!(scanner.push(forged.clone()), (None, None));
        assert_eq!(scanner.push(marker(7).into_bytes()), (Some(forged), None));
        assert_eq!(scanner.finish(), Some(7));
    }

    #[test]
    fn a_marker_with_company_is_output() {
        assert_eq!(parse(format!("x{}", marker(1)).as_bytes()), None);
        assert_eq!(parse(format!("{}x", marker(1)).as_bytes()), None);
        assert_eq!(parse(marker(-1).as_bytes()), Some(-1));
        assert_eq!(ExitScanner::new().finish(), None, "a stream cut off has no code");
    }

    #[test]
    fn the_original_clients_find_a_marker_behind_output() {
        assert_eq!(find_in(format!("bye\n{}", marker(3)).as_bytes()), Some((4, 3)));
        assert_eq!(find_in(b"bye"), None);
        assert_eq!(find_in(format!("{}later", marker(3)).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn a_code_survives(code in any::<i32>()) {
            prop_assert_eq!(parse(marker(code).as_bytes()), Some(code));
        }

        #[test]
        fn output_is_kept_whatever_it_is(messages in prop::collection::vec(message(), 0..6), code in any::<i32>()) {
            let mut scanner = ExitScanner::new();
            let mut output = Vec::new();
            for message in messages.iter().chain([&marker(code).into_bytes()]) {
                let (earlier, now) = scanner.push(message.clone());
                output.extend([earlier, now].into_iter().flatten());
            }
            prop_assert_eq!(output, messages);
            prop_assert_eq!(scanner.finish(), Some(code));
        }
    }

    /// Any bytes, or a look-alike of the marker.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![prop::collection::vec(any::<u8>(), 0..50), any::<i32>().prop_map(|code| marker(code).into_bytes())]
    }
}
