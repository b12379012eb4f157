//! Random bytes from the operating system, and passwords made of them.

use zeroize::Zeroizing;

use crate::Secret;

/// `N` bytes from the operating system.
///
/// # Panics
/// When the operating system has no randomness: no key may be made then, and nothing else can go on.
#[expect(clippy::expect_used, reason = "without randomness there is no safe way to continue")]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// 43 letters and digits: 256 bits. For Rack passwords: every client encodes them as themselves (protocol 1.3).
pub fn generate_password() -> Secret {
    let bytes = Zeroizing::new(random_bytes::<32>());
    Secret::new(base62(&bytes[..], 43))
}

/// The digit for a value below 62.
pub(crate) fn base62_digit(value: u32) -> u8 {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    DIGITS.get(value as usize).copied().unwrap_or(b'0')
}

/// Big-endian bytes as `digits` base-62 digits, left-padded with `0`.
pub(crate) fn base62(bytes: &[u8], digits: usize) -> String {
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut text = vec![b'0'; digits];
    for place in text.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in number.iter_mut() {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *place = base62_digit(rest);
    }
    // The same bytes, not a copy: they may be secret. All of them are ASCII.
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_62_counts_as_it_should() {
        assert_eq!(base62(&[0], 3), "000");
        assert_eq!(base62(&[61], 1), "z");
        assert_eq!(base62(&[62], 2), "10");
        assert_eq!(base62(&[1, 0], 2), "48");
        assert_eq!(base62(&[255; 32], 43).len(), 43);
        assert_ne!(base62(&[255; 32], 43).as_bytes()[0], b'0', "43 digits are needed");
    }

    #[test]
    fn passwords_differ_and_travel_as_they_are() {
        let (a, b) = (generate_password(), generate_password());
        assert!(!a.matches(b.expose()));
        assert!(a.expose().len() == 43 && a.expose().bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
