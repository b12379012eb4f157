//! The `Authorization` header of the Go clients, with its double encoding (protocol 1.3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::form::percent;

/// Longer headers are refused unread.
const LONGEST: usize = 16 * 1024;

/// User and password exactly as they travelled: still in Go's percent encoding, if the client was one. No `Debug`: it holds a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// `convox`, `jwt`, a Rack in base64, or anything.
    pub user: String,
    /// The secret, undecoded; compare it with the literal and with [`go_encode`] of the expected one.
    pub password: String,
}

impl Basic {
    /// The header value that a Go client sends for this user and password.
    pub fn header(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", go_encode(user), go_encode(password))))
    }
}

/// What becomes of a secret between a Go client's settings and the wire: every space a plus, every other byte outside
/// `A-Z a-z 0-9 - _ . ~ $ & + , ; =` percent-encoded.
pub fn go_encode(secret: &str) -> String {
    let mut out = String::with_capacity(secret.len());
    for byte in secret.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b';' | b'=' => out.push(char::from(byte)),
            _ => percent(byte, &mut out),
        }
    }
    out
}

/// Reads a `Basic` header value; `None` for any other scheme or form. The scheme is case-insensitive; a missing colon means
/// an empty password.
pub fn parse_basic(header: &str) -> Option<Basic> {
    if header.len() > LONGEST {
        return None;
    }
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case("basic ") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':').unwrap_or((text.as_str(), ""));
    Some(Basic { user: user.to_owned(), password: password.to_owned() })
}

/// Reads a `Basic` header value as [`parse_basic`] does, into `buffer` and without an allocation: user and password. `None` also when
/// the buffer is too small for it.
pub fn read_basic<'b>(header: &[u8], buffer: &'b mut [u8]) -> Option<(&'b str, &'b str)> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let length = STANDARD.decode_slice(rest.trim_ascii(), buffer).ok()?;
    let text = std::str::from_utf8(buffer.get(..length)?).ok()?;
    Some(text.split_once(':').unwrap_or((text, "")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_header_is_that_of_a_go_client() {
        assert_eq!(go_encode("p /@:+%w"), "p+%2F%40%3A+%25w");
        assert_eq!(Basic::header("convox", "p /@:+%w"), format!("Basic {}", STANDARD.encode("convox:p+%2F%40%3A+%25w")));
        let parsed = parse_basic("basic Y29udm94OnNlY3JldA==").unwrap();
        assert_eq!((parsed.user.as_str(), parsed.password.as_str()), ("convox", "secret"));
        assert!(parse_basic("Bearer x").is_none());
        assert!(parse_basic("Basic !").is_none());
        assert!(parse_basic("Basié x").is_none());
    }

    proptest! {
        #[test]
        fn a_header_survives(user in "[A-Za-z0-9]{0,20}", password in ".{0,60}") {
            let parsed = parse_basic(&Basic::header(&user, &password)).unwrap();
            let header = Basic::header(&user, &password);
            let mut buffer = [0; 2048];
            prop_assert_eq!(read_basic(header.as_bytes(), &mut buffer), Some((parsed.user.as_str(), parsed.password.as_str())));
            prop_assert!(read_basic(header.as_bytes(), &mut []).is_none());
            prop_assert_eq!(parsed.user, user);
            prop_assert_eq!(parsed.password, go_encode(&password));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse_basic(&text);
            let _ = parse_basic(&format!("Basic {text}"));
            let _ = read_basic(format!("Basic {text}").as_bytes(), &mut [0; 32]);
        }
    }
}
