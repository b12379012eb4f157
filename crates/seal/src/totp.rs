//! Codes of authenticator apps: RFC 6238 over HMAC-SHA-1, six digits, every 30 seconds, which is what every app does.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use zeroize::Zeroizing;

use crate::random::random_bytes;
use crate::{Secret, constant_time_eq};

/// RFC 4226 recommends 160 bits.
const BYTES: usize = 20;
const STEP_MS: i64 = 30_000;
/// Clocks differ, and people type slowly: the step before and the one after count too.
const DRIFT: i64 = 1;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// What an authenticator app and the Console share. No `Debug`, `Display`, `Clone`; wiped when dropped.
pub struct TotpSecret(Zeroizing<[u8; BYTES]>);

impl TotpSecret {
    /// A new one.
    pub fn generate() -> Self {
        Self(Zeroizing::new(random_bytes()))
    }

    /// Reads [`Self::reveal`].
    pub fn parse(text: &Secret) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        let (mut bits, mut held) = (0u32, 0u32);
        let mut places = bytes.iter_mut();
        for byte in text.expose().bytes() {
            let digit = BASE32.iter().position(|digit| *digit == byte)?;
            bits = bits << 5 | digit as u32;
            held += 5;
            if held >= 8 {
                held -= 8;
                *places.next()? = (bits >> held) as u8;
                bits &= (1 << held) - 1;
            }
        }
        (places.next().is_none() && held == 0).then_some(Self(bytes))
    }

    /// In base 32, as apps take it: 32 characters.
    pub fn reveal(&self) -> Secret {
        let mut text = String::with_capacity(BYTES * 8 / 5);
        let (mut bits, mut held) = (0u32, 0u32);
        for byte in self.0.iter() {
            bits = bits << 8 | u32::from(*byte);
            held += 8;
            while held >= 5 {
                held -= 5;
                text.push(BASE32.get((bits >> held & 31) as usize).copied().map_or('A', char::from));
                bits &= (1 << held) - 1;
            }
        }
        Secret::new(text)
    }

    /// The step whose code that is, if it is one of the three around `now_ms` and comes after `last_step`: whoever keeps the step takes each
    /// code once.
    pub fn check(&self, code: &str, now_ms: i64, last_step: i64) -> Option<i64> {
        let now = now_ms.div_euclid(STEP_MS);
        let mut found = None;
        // All three, so that the time does not tell which.
        for step in now - DRIFT..=now + DRIFT {
            if constant_time_eq(self.code(step).as_bytes(), code.as_bytes()) && step > last_step {
                found = Some(step);
            }
        }
        found
    }

    /// The code of a moment, milliseconds since 1970; for tests, which have no authenticator app.
    pub fn code_at(&self, now_ms: i64) -> String {
        self.code(now_ms.div_euclid(STEP_MS))
    }

    fn code(&self, step: i64) -> String {
        // A key shorter than a block is padded with zeros: this is the same HMAC, without a fallible constructor.
        let mut block = Zeroizing::new([0u8; 64]);
        if let Some(start) = block.get_mut(..BYTES) {
            start.copy_from_slice(&self.0[..]);
        }
        let mut mac = Hmac::<Sha1>::new((&*block).into());
        mac.update(&step.to_be_bytes());
        let hash: [u8; 20] = mac.finalize().into_bytes().into();
        let offset = usize::from(hash.last().copied().unwrap_or_default() & 15);
        let number = hash.get(offset..offset + 4).unwrap_or_default().iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
        format!("{:06}", (number & 0x7fff_ffff) % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Appendix B of RFC 6238, its last six digits.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let secret = TotpSecret(Zeroizing::new(*b"12345678901234567890"));
        assert!(secret.reveal().matches("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"));
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(secret.code_at(seconds * 1000), code, "{seconds}");
        }
    }

    #[test]
    fn a_code_counts_one_step_around_now_and_once() {
        let secret = TotpSecret::generate();
        let now_ms = 1_700_000_000_000;
        let now = now_ms / STEP_MS;
        for step in now - 3..=now + 3 {
            let is_near = (now - 1..=now + 1).contains(&step);
            assert_eq!(secret.check(&secret.code(step), now_ms, 0).is_some(), is_near, "{}", step - now);
        }
        let code = secret.code(now);
        assert_eq!(secret.check(&code, now_ms, now - 1), Some(now));
        assert_eq!(secret.check(&code, now_ms, now), None, "used");
        assert_eq!(secret.check(&secret.code(now - 1), now_ms, now), None, "older than the one that was used");
        for bad in ["", "0", "0000000", "abcdef", "１２３４５６"] {
            assert_eq!(secret.check(bad, now_ms, 0), None, "{bad}");
        }
    }

    #[test]
    fn a_secret_survives_being_written_and_read() {
        for _ in 0..100 {
            let secret = TotpSecret::generate();
            assert_eq!(TotpSecret::parse(&secret.reveal()).unwrap().0, secret.0);
        }
        for bad in ["", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJ", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQA", "gezdgnbvgy3tqojqgezdgnbvgy3tqojq"] {
            assert!(TotpSecret::parse(&Secret::new(bad.to_owned())).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", now_ms in any::<i64>()) {
            let _ = TotpSecret::parse(&Secret::new(text.clone()));
            let _ = TotpSecret::generate().check(&text, now_ms / 2, 0);
        }
    }
}
