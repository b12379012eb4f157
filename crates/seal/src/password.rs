//! Argon2id for what people choose themselves: 19 MiB, two passes, one lane (OWASP's first choice), as PHC strings.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::Secret;

/// More than anybody types; a longer one only costs time.
pub const LONGEST: usize = 1024;

/// The costliest hash that is computed, KiB and passes: whoever can edit the table must not choose how much memory a sign-in takes.
const COSTLIEST: (u32, u32) = (256 * 1024, 16);

/// Why a password could not be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Above [`LONGEST`] bytes.
    #[error("a password has at most 1024 bytes")]
    TooLong,
    /// The hash itself failed (no memory).
    #[error("the password could not be hashed")]
    Failed,
}

fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params())
}

fn params() -> Params {
    Params::new(19 * 1024, 2, 1, None).unwrap_or_default()
}

/// A PHC string with a fresh salt. Slow and hungry on purpose: not for the thread of a request.
///
/// # Errors
/// [`PasswordError`].
pub fn hash(password: &Secret) -> Result<String, PasswordError> {
    if password.expose().len() > LONGEST {
        return Err(PasswordError::TooLong);
    }
    let salt = crate::random_bytes::<16>();
    let hash = argon2().hash_password_with_salt(password.expose().as_bytes(), &salt).map_err(|_| PasswordError::Failed)?;
    Ok(hash.to_string())
}

/// Whether `password` is the one of this PHC string. A broken string is nobody's password.
pub fn verify(password: &Secret, phc: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(phc) else { return false };
    let bearable = Params::try_from(&parsed).is_ok_and(|cost| (cost.m_cost() <= COSTLIEST.0) & (cost.t_cost() <= COSTLIEST.1));
    bearable && password.expose().len() <= LONGEST && argon2().verify_password(password.expose().as_bytes(), &parsed).is_ok()
}

/// Whether the string was made with other parameters than today's; hash again when its owner next signs in.
pub fn needs_rehash(phc: &str) -> bool {
    let today = params();
    PasswordHash::new(phc).map_or(true, |parsed| {
        parsed.algorithm.as_str() != "argon2id"
            || parsed.version != Some(Version::V0x13.into())
            || Params::try_from(&parsed)
                .map_or(true, |then| (then.m_cost(), then.t_cost(), then.p_cost()) != (today.m_cost(), today.t_cost(), today.p_cost()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn the_right_password_and_no_other() {
        let phc = hash(&secret("correct horse")).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(verify(&secret("correct horse"), &phc));
        assert!(!verify(&secret("correct horsf"), &phc) && !verify(&secret(""), &phc));
        assert!(!verify(&secret("correct horse"), "nonsense"));
        assert_ne!(phc, hash(&secret("correct horse")).unwrap(), "a fresh salt each time");
        assert_eq!(hash(&secret(&"x".repeat(LONGEST + 1))), Err(PasswordError::TooLong));
    }

    #[test]
    fn weaker_hashes_are_made_again() {
        assert!(!needs_rehash(&hash(&secret("x")).unwrap()));
        assert!(needs_rehash("$argon2id$v=19$m=4096,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$iWh06vD8Fy27wf9npn6FXWiCX4K6pW6Ue1Bnzz07Z8A"));
        assert!(needs_rehash(&hash(&secret("x")).unwrap().replace("v=19", "v=16")));
        assert!(needs_rehash("nonsense"));
    }

    #[test]
    fn an_older_hash_still_lets_its_owner_in() {
        let older = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8 * 1024, 1, 1, None).unwrap());
        let phc = older.hash_password_with_salt(b"correct horse", b"sixteen bytes of").unwrap().to_string();
        assert!(verify(&secret("correct horse"), &phc) && needs_rehash(&phc));
        assert!(!verify(&secret("correct horsf"), &phc));
    }

    #[test]
    fn an_edited_hash_cannot_ask_for_all_memory() {
        let phc = hash(&secret("x")).unwrap();
        for cost in ["m=4194304,t=2,p=1", "m=19456,t=4000000,p=1"] {
            let started = std::time::Instant::now();
            assert!(!verify(&secret("x"), &phc.replace("m=19456,t=2,p=1", cost)), "{cost}");
            assert!(started.elapsed() < std::time::Duration::from_secs(1), "{cost}");
        }
    }
}
