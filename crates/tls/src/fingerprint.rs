//! A certificate's fingerprint: what pins hold and people compare.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// SHA-256 of a leaf certificate's DER bytes. Shown and read as `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// Text that is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is `sha256:` and 64 hex digits")]
pub struct FingerprintError;

impl Fingerprint {
    /// Of DER bytes.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Reads its own form, and what other tools print: upper case, colons between bytes, no prefix.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let text = text.trim();
        let text = text.split_at_checked(7).filter(|(prefix, _)| prefix.eq_ignore_ascii_case("sha256:")).map_or(text, |(_, rest)| rest);
        let digits: Vec<u8> = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(FingerprintError))
            .collect::<Result<_, _>>()?;
        let mut bytes = [0u8; 32];
        if digits.len() != 64 {
            return Err(FingerprintError);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |sum, digit| (sum << 4) | digit);
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_shown_and_as_other_tools_show_it() {
        let fingerprint = Fingerprint::of(b"x");
        let shown = fingerprint.to_string();
        assert_eq!(shown.parse(), Ok(fingerprint));
        let hex = shown.strip_prefix("sha256:").unwrap().to_uppercase();
        let colons: Vec<String> = hex.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect();
        assert_eq!(colons.join(":").parse(), Ok(fingerprint));
        assert_eq!(format!("SHA256:{hex}").parse(), Ok(fingerprint));
        for bad in ["", "sha256:", "sha256:zz", &shown[..shown.len() - 1], "é€sha256"] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError), "{bad}");
        }
    }
}
