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

/// Letters that nobody mixes up, and that spell no words: 20 of them.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters of a code that a person types: 43 bits.
const TYPED: usize = 10;

/// A code for a person to type, `BCDFG-HJKLM`: 43 bits, in letters that are not mixed up.
pub fn generate_typed_code() -> Secret {
    let mut text = letters(TYPED);
    text.insert(TYPED / 2, '-');
    Secret::new(text)
}

/// What a person typed, as [`generate_typed_code`] wrote it: any case, with or without the dash, spaces anywhere. `None` if it cannot be one.
pub fn read_typed_code(text: &str) -> Option<Secret> {
    let mut read: String =
        text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase()).take(TYPED + 1).collect();
    if read.len() != TYPED || !read.bytes().all(|byte| LETTERS.contains(&byte)) {
        return None;
    }
    read.insert(TYPED / 2, '-');
    Some(Secret::new(read))
}

/// So many random letters in lower case, to tell names apart; no secret.
pub fn generate_suffix(count: usize) -> String {
    letters(count).to_ascii_lowercase()
}

fn letters(count: usize) -> String {
    let mut text = String::with_capacity(count + 1);
    while text.len() < count {
        // 240 is the largest multiple of 20: every letter is as likely as the others.
        let [byte] = random_bytes::<1>();
        if let Some(letter) = LETTERS.get(usize::from(byte) % 20).filter(|_| byte < 240) {
            text.push(char::from(*letter));
        }
    }
    text
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
    fn a_code_is_read_however_it_is_typed() {
        let code = generate_typed_code();
        let text = code.expose();
        assert!(text.len() == 11 && text.as_bytes()[5] == b'-', "{text}");
        for typed in [text.to_owned(), text.to_lowercase(), text.replace('-', ""), format!(" {} ", text.replace('-', " - "))] {
            assert!(read_typed_code(&typed).unwrap().matches(text), "{typed}");
        }
        for bad in ["", "BCDFG", "BCDFG-HJKLMM", "BCDFG-HJKL1", "BCDFG-HJKLA", "ＢCDFG-HJKLM", &"B".repeat(100_000)] {
            assert!(read_typed_code(bad).is_none(), "{bad:.20}");
        }
        assert!(!generate_typed_code().matches(text));
        assert!(f64::from(20_u32).powi(10).log2() > 43.0);
    }

    #[test]
    fn passwords_differ_and_travel_as_they_are() {
        let (a, b) = (generate_password(), generate_password());
        assert!(!a.matches(b.expose()));
        assert!(a.expose().len() == 43 && a.expose().bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }
}
