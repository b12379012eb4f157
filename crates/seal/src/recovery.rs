//! Recovery codes: for whoever lost their second factor. 80 random bits in letters and digits that are not mistaken for each other.

use zeroize::Zeroizing;

use crate::Secret;
use crate::random::random_bytes;

/// Crockford's: no i, l, o, u.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 16;
const GROUP: usize = 4;

/// A new code, as it is shown: `7k2m-9x4p-qr5t-0abc`.
pub fn generate_recovery_code() -> Secret {
    let bytes = Zeroizing::new(random_bytes::<LENGTH>());
    let mut text = String::with_capacity(LENGTH + LENGTH / GROUP);
    for (place, byte) in bytes.iter().enumerate() {
        if place > 0 && place % GROUP == 0 {
            text.push('-');
        }
        text.push(DIGITS.get(usize::from(byte & 31)).copied().map_or('0', char::from));
    }
    Secret::new(text)
}

/// What somebody typed as the one form that is hashed; `None` for what is no such code. Case, dashes and spaces do not matter, nor do `i`,
/// `l` and `o` for `1` and `0`.
pub fn read_recovery_code(typed: &Secret) -> Option<Secret> {
    let mut text = String::with_capacity(LENGTH);
    for char in typed.expose().chars().filter(|char| !matches!(char, '-' | ' ')) {
        let char = match char.to_ascii_lowercase() {
            'i' | 'l' => '1',
            'o' => '0',
            other => other,
        };
        // No longer than it can be: a text that grows leaves a copy behind.
        if text.len() == LENGTH || !DIGITS.iter().any(|digit| char::from(*digit) == char) {
            return None;
        }
        text.push(char);
    }
    (text.len() == LENGTH).then(|| Secret::new(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        let code = generate_recovery_code();
        let kept = read_recovery_code(&code).unwrap();
        assert_eq!((code.expose().len(), kept.expose().len()), (19, 16));
        for typed in [code.expose().to_uppercase(), code.expose().replace('-', " "), code.expose().replace(['-', ' '], "")] {
            assert!(read_recovery_code(&Secret::new(typed)).unwrap().matches(kept.expose()));
        }
        let mistaken = Secret::new("OoIiLl00-1111-2222".to_owned());
        assert!(read_recovery_code(&mistaken).unwrap().matches("0011110011112222"));
    }

    #[test]
    fn codes_differ_and_what_is_none_is_refused() {
        assert!(!generate_recovery_code().matches(generate_recovery_code().expose()));
        for bad in ["", "123456", "0000-0000-0000-000", "0000-0000-0000-00000", "0000-0000-0000-000u", "0000-0000-0000-000é"] {
            assert!(read_recovery_code(&Secret::new(bad.to_owned())).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = read_recovery_code(&Secret::new(text));
        }
    }
}
