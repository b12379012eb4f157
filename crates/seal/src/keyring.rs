//! The root key, from a file, the environment or a KMS, and the keyring that wraps data keys with it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::envelope::{DataKey, OpenError, WrappedDataKey};
use crate::random::random_bytes;
use crate::{Secret, weak};

/// Length of a key id on the wire of envelopes, bytes.
pub(crate) const KEY_ID: usize = 8;

/// Why a text is no root key. Never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootKeyError {
    /// Nothing there.
    #[error("the root key is missing: make one with `convox-console root-key --out FILE`")]
    Missing,
    /// Not in hex or base64, or longer than 32 bytes.
    #[error("the root key is malformed: expected 64 hex digits; make one with `convox-console root-key --out FILE`")]
    Malformed,
    /// Less than 32 bytes, or 32 that nobody drew at random.
    #[error("the root key is weak (too short, repeated, counted, or made of words): make one with `convox-console root-key --out FILE`")]
    Weak,
}

/// 256 random bits at the root of everything that is sealed. They are never used themselves: each purpose has a key derived from them.
pub struct RootKey {
    bytes: Zeroizing<[u8; 32]>,
    wrapping: Zeroizing<[u8; 32]>,
    id: [u8; KEY_ID],
}

impl RootKey {
    /// The text of a new one: 64 hex digits.
    pub fn generate() -> Secret {
        use std::fmt::Write as _;
        let bytes = Zeroizing::new(random_bytes::<32>());
        let mut text = String::with_capacity(64);
        for byte in bytes.iter() {
            let _ = write!(text, "{byte:02x}");
        }
        Secret::new(text)
    }

    /// Reads 64 hex digits, or base64 of 32 bytes; white space around it does not matter.
    ///
    /// # Errors
    /// [`RootKeyError`]; a key that nobody drew at random is refused.
    pub fn parse(text: &str) -> Result<Self, RootKeyError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(RootKeyError::Missing);
        }
        let decoded = decode(text).ok_or(RootKeyError::Malformed)?;
        if decoded.len() < 32 {
            return Err(RootKeyError::Weak);
        }
        let bytes = Zeroizing::new(<[u8; 32]>::try_from(decoded.as_slice()).map_err(|_| RootKeyError::Malformed)?);
        if weak::bytes(&bytes) || (!is_hex(text) && weak::base64(text)) {
            return Err(RootKeyError::Weak);
        }
        Ok(Self { wrapping: derive(&bytes, "data key wrap v1"), id: *derive(&bytes, "root key id v1"), bytes })
    }

    /// Names the key without telling anything of it; 16 hex digits.
    pub fn id(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    }

    /// The key that wraps data keys.
    pub(crate) fn wrapping(&self) -> &[u8; 32] {
        &self.wrapping
    }

    /// The key for another purpose, which `info` names.
    pub(crate) fn derive(&self, info: &str) -> Zeroizing<[u8; 32]> {
        derive(&self.bytes, info)
    }

    pub(crate) fn raw_id(&self) -> [u8; KEY_ID] {
        self.id
    }
}

/// HKDF-SHA256. Keys with different `info` tell nothing of each other.
#[expect(clippy::expect_used, reason = "a key of zeros must never be used, and HKDF gives up to 8160 bytes")]
fn derive<const N: usize>(root: &[u8; 32], info: &str) -> Zeroizing<[u8; N]> {
    let mut key = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::new(Some(b"convox console"), root).expand(info.as_bytes(), &mut key[..]).expect("HKDF gives this many bytes");
    key
}

fn is_hex(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Hex digits, up to 64 of them, are never taken for base64.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = if is_hex(text) {
        let digits: Zeroizing<Vec<u32>> = Zeroizing::new(text.chars().filter_map(|digit| digit.to_digit(16)).collect());
        digits.chunks(2).map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit) as u8).collect()
    } else {
        STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?
    };
    Some(Zeroizing::new(bytes))
}

/// The root keys of a server: one that wraps, and older ones that only open.
pub struct Keyring {
    active: RootKey,
    others: BTreeMap<[u8; KEY_ID], RootKey>,
}

impl Keyring {
    /// With one root key.
    pub fn new(active: RootKey) -> Self {
        Self { active, others: BTreeMap::new() }
    }

    /// With a further root key that still opens what it wrapped.
    #[must_use]
    pub fn with_old(mut self, old: RootKey) -> Self {
        self.others.insert(old.raw_id(), old);
        self
    }

    /// The key that wraps.
    pub fn active(&self) -> &RootKey {
        &self.active
    }

    /// A new data key for an organization, wrapped.
    pub fn new_data_key(&self, org: &str) -> WrappedDataKey {
        WrappedDataKey::wrap(&DataKey::generate(), &self.active, org)
    }

    /// Opens a data key.
    ///
    /// # Errors
    /// [`OpenError::UnknownKey`] when its root key is not here; [`OpenError::Refused`] when it was edited or belongs to another
    /// organization.
    pub fn unwrap_data_key(&self, wrapped: &WrappedDataKey, org: &str) -> Result<DataKey, OpenError> {
        let id = wrapped.root_id()?;
        let root = if id == self.active.raw_id() { &self.active } else { self.others.get(&id).ok_or(OpenError::UnknownKey)? };
        wrapped.open(root, org)
    }

    /// The same data key under the active root key; `None` when it already is.
    ///
    /// # Errors
    /// As [`Self::unwrap_data_key`].
    pub fn rewrap(&self, wrapped: &WrappedDataKey, org: &str) -> Result<Option<WrappedDataKey>, OpenError> {
        if wrapped.root_id()? == self.active.raw_id() {
            return Ok(None);
        }
        let key = self.unwrap_data_key(wrapped, org)?;
        Ok(Some(WrappedDataKey::wrap(&key, &self.active, org)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_key_is_read_in_both_forms() {
        let text = RootKey::generate();
        let key = RootKey::parse(&format!(" {}\n", text.expose())).unwrap();
        let same = RootKey::parse(&STANDARD.encode(&key.bytes[..])).unwrap();
        assert_eq!((key.id(), key.id().len()), (same.id(), 16));
        assert_ne!(key.id(), RootKey::parse(RootKey::generate().expose()).unwrap().id());
    }

    #[test]
    fn what_nobody_drew_at_random_is_refused() {
        let fault = |text: &str| RootKey::parse(text).err();
        assert_eq!(fault(""), Some(RootKeyError::Missing));
        assert_eq!(fault(" \n"), Some(RootKeyError::Missing));
        for malformed in ["short", "${ROOT_KEY}", &"g".repeat(64), &"0".repeat(65), &STANDARD.encode([7; 33]), "-----BEGIN KEY-----"] {
            assert_eq!(fault(malformed), Some(RootKeyError::Malformed), "{malformed}");
        }
        let counted: Vec<u8> = (0..32).collect();
        for weak in [
            "changeme".to_owned(),
            "0".repeat(63),
            RootKey::generate().expose()[..62].to_owned(),
            STANDARD.encode(crate::random_bytes::<16>()),
            "0".repeat(64),
            "0123456789abcdef".repeat(4),
            "deadbeef".repeat(8),
            STANDARD.encode(b"correct horse battery staple 123"),
            STANDARD.encode(counted),
            "ThisIsTheRootKeyOfMyConsoleAndItIsMySecret0".to_owned(),
        ] {
            assert_eq!(fault(&weak), Some(RootKeyError::Weak), "{weak}");
        }
    }

    #[test]
    fn an_error_never_repeats_the_key() {
        for text in ["hunter2hunter2", "0123456789abcdef", "not a key at all"] {
            let error = RootKey::parse(text).err().unwrap().to_string();
            assert!(!error.contains(text) && error.contains("convox-console root-key"), "{error}");
        }
    }

    #[test]
    fn real_keys_are_never_called_weak() {
        for _ in 0..2000 {
            assert!(RootKey::parse(RootKey::generate().expose()).is_ok());
        }
        // As of `openssl rand -base64 32`. Few, since one in some millions does hold a word.
        for _ in 0..20 {
            assert!(RootKey::parse(&STANDARD.encode(random_bytes::<32>())).is_ok());
        }
    }

    #[test]
    fn data_keys_move_to_a_new_root_key() {
        let (old, new) = (RootKey::generate(), RootKey::generate());
        let before = Keyring::new(RootKey::parse(old.expose()).unwrap());
        let wrapped = before.new_data_key("acme");
        let after = Keyring::new(RootKey::parse(new.expose()).unwrap());
        assert_eq!(after.unwrap_data_key(&wrapped, "acme").err(), Some(OpenError::UnknownKey));
        let after = after.with_old(RootKey::parse(old.expose()).unwrap());
        let moved = after.rewrap(&wrapped, "acme").unwrap().unwrap();
        assert!(after.rewrap(&moved, "acme").unwrap().is_none());
        assert!(Keyring::new(RootKey::parse(new.expose()).unwrap()).unwrap_data_key(&moved, "acme").is_ok());
    }
}
