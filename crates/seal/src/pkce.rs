//! Proof Key for Code Exchange (RFC 7636), method S256: who brings a code also knows what was hashed when it was asked for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::Secret;

/// Whether a text has the form of an S256 challenge: 256 bits in base64url.
pub fn is_challenge(text: &str) -> bool {
    text.len() == 43 && URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// Whether `challenge` was made of `verifier`, in a time that does not tell where they differ.
pub fn is_verified(challenge: &str, verifier: &Secret) -> bool {
    let is_well_formed = (43..=128).contains(&verifier.expose().len());
    let made = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose().as_bytes()));
    is_well_formed && crate::constant_time_eq(made.as_bytes(), challenge.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_example_of_the_standard_holds_and_nothing_near_it() {
        let verified = |verifier: &str| is_verified(CHALLENGE, &Secret::new(verifier.to_owned()));
        assert!(is_challenge(CHALLENGE) && verified(VERIFIER));
        for other in ["", CHALLENGE, &VERIFIER[1..], &VERIFIER.to_lowercase(), &format!("{VERIFIER}A")] {
            assert!(!verified(other), "{other}");
        }
        for bad in ["", VERIFIER.trim_end_matches('k'), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM", &"A".repeat(44)] {
            assert!(!is_challenge(bad), "{bad}");
        }
    }
}
