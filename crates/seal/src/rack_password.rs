//! How a Rack keeps its own password: as a keyed hash. It is asked for at every request, where Argon2id would cost more than the request; and it
//! is generated, or at least long. The key lies in another file than the hash, so a copy of the database alone cannot even be guessed at.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::RootKey;

/// The key of the keyed hash, derived from the Rack's own root key.
#[derive(Clone)]
pub struct PasswordKey(Hmac<Sha256>);

impl PasswordKey {
    /// From the root key.
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    pub fn derive(root: &RootKey) -> Self {
        Self(Hmac::<Sha256>::new_from_slice(&root.derive("rack password v1")[..]).expect("HMAC takes a key of any length"))
    }

    /// The keyed hash of what somebody says is the password.
    pub fn hash(&self, password: &str) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(password.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_the_key_and_on_all_of_the_password() {
        let [one, other] = [(); 2].map(|()| PasswordKey::derive(&RootKey::parse(RootKey::generate().expose()).unwrap()));
        assert_eq!(one.hash("secret"), one.clone().hash("secret"));
        assert_ne!(one.hash("secret"), other.hash("secret"));
        assert_ne!(one.hash("secret"), one.hash("secret "));
        assert_ne!(one.hash(""), one.hash("\0"));
    }
}
