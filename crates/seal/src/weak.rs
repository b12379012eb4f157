//! Signs that nobody drew a root key at random. Not a measure of entropy, which no look at 32 bytes can be: a net for what people really
//! put into such files. The odds beside each sign are those of refusing a key that a random source did make.

use sha2::{Digest, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

/// What people write where a key belongs. Hashing such a word makes no key of it either.
const WORDS: &[&str] = &[
    "123456",
    "admin",
    "changeit",
    "changeme",
    "change-me",
    "console",
    "convox",
    "default",
    "example",
    "insecure",
    "letmein",
    "masterkey",
    "password",
    "production",
    "qwerty",
    "root",
    "rootkey",
    "root-key",
    "root key",
    "sample",
    "secret",
    "supersecret",
    "test",
];

/// Words shorter than this turn up in random text by chance.
const TELLING: usize = 6;

/// Whether these bytes look like anything but random.
pub(crate) fn bytes(bytes: &[u8; 32]) -> bool {
    let mut sorted = Zeroizing::new(*bytes);
    sorted.sort_unstable();
    let mut steps: Vec<u8> = bytes.iter().zip(bytes.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a)).collect();
    steps.sort_unstable();
    let longest_run = sorted.chunk_by(|a, b| a == b).map(<[u8]>::len).max().unwrap_or_default();
    let (front, back) = bytes.split_at(16);
    // Few values, or one of them everywhere: 1 in 10^11.
    let few = sorted.chunk_by(|a, b| a == b).count() < 16 || longest_run > 8;
    // Counted, up or down or in strides: 1 in 10^30.
    let counted = steps.chunk_by(|a, b| a == b).count() < 8;
    // A shorter key twice: 1 in 10^38.
    let doubled = front == back;
    // Text, an accent allowed: 1 in 10^10.
    let typed = bytes.iter().filter(|byte| byte.is_ascii_graphic() || **byte == b' ').count() >= 30;
    steps.zeroize();
    few || counted || doubled || typed || is_hashed_word(bytes)
}

/// Whether base64 text of a key looks like something that somebody typed.
pub(crate) fn base64(text: &str) -> bool {
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    let mut letters = Zeroizing::new(text.as_bytes().to_vec());
    letters.sort_unstable();
    // In one case: 1 in 10^9. Few letters: 1 in 10^10. A word: 1 in 10^7.
    let one_case = !text.bytes().any(|byte| byte.is_ascii_lowercase()) || !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let few = letters.chunk_by(|a, b| a == b).count() < 18;
    let worded = WORDS.iter().any(|word| word.len() >= TELLING && lower.contains(word));
    one_case || few || worded
}

/// `echo changeme | sha256sum` and its like.
fn is_hashed_word(bytes: &[u8; 32]) -> bool {
    WORDS.iter().chain(&[""]).any(|word| {
        let with_end = format!("{word}\n");
        [word.as_bytes(), with_end.as_bytes()].iter().any(|text| Sha256::digest(text).as_slice() == bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(at: impl Fn(u8) -> u8) -> [u8; 32] {
        std::array::from_fn(|index| at(u8::try_from(index).unwrap()))
    }

    #[test]
    fn patterns_are_not_random() {
        let random = crate::random_bytes::<32>();
        assert!(!bytes(&random));
        for (what, pattern) in [
            ("zeros", [0; 32]),
            ("one value", [0xa5; 32]),
            ("counted up", filled(|n| n)),
            ("counted down", filled(|n| 200 - n)),
            ("strides", filled(|n| n.wrapping_mul(37))),
            ("a short key twice", filled(|n| random[usize::from(n % 16)])),
            ("a short key and zeros", filled(|n| if n < 16 { random[usize::from(n)] } else { 0 })),
            ("a sentence", *b"the quick brown fox jumps over t"),
            ("a sentence with an accent", *"Zoë throws her dice all day long".as_bytes().first_chunk().unwrap()),
            ("hex digits as bytes", *b"f81d4fae7dec11d0a76500a0c91e6bf6"),
            ("the hash of nothing", Sha256::digest(b"").into()),
            ("a hashed word", Sha256::digest(b"changeme").into()),
            ("a hashed line", Sha256::digest(b"secret\n").into()),
        ] {
            assert!(bytes(&pattern), "{what}");
        }
    }

    #[test]
    fn what_somebody_typed_is_not_random_either() {
        for typed in [
            "thisisaverylongrootkeythatsomebodytypedhere",
            "THISISAVERYLONGROOTKEYTHATSOMEBODYTYPEDHERE",
            "MySuperSecretKeyForTheConsole1234567890abcd",
            "aAaAaAaAaAaAaAaAaAaAaAaAaAaAaAaAaAaAaAaAaAa",
        ] {
            assert!(base64(typed), "{typed}");
        }
    }
}
