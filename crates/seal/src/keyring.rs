//! The root key, from a file, the environment or a KMS, and the keyring that wraps data keys with it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::{Zeroize as _, Zeroizing};

use crate::Secret;
use crate::envelope::{DataKey, OpenError, WrappedDataKey};
use crate::random::random_bytes;

/// Length of a key id on the wire of envelopes, bytes.
pub(crate) const KEY_ID: usize = 8;

/// Why a text is no root key. Never repeats the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootKeyError {
    /// Nothing there.
    #[error("the root key is missing: make one with `convox-console root-key --out FILE`")]
    Missing,
    /// Not 32 bytes in hex or base64.
    #[error("the root key is malformed: expected 64 hex digits; make one with `convox-console root-key --out FILE`")]
    Malformed,
    /// 32 bytes that nobody drew at random.
    #[error("the root key is weak (repeated, counted up, or typed text): make one with `convox-console root-key --out FILE`")]
    Weak,
}

/// 256 random bits at the root of everything that is sealed.
pub struct RootKey {
    bytes: Zeroizing<[u8; 32]>,
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
        let decoded = Zeroizing::new(decode(text).ok_or(RootKeyError::Malformed)?);
        let bytes = Zeroizing::new(<[u8; 32]>::try_from(decoded.as_slice()).map_err(|_| RootKeyError::Malformed)?);
        if is_weak(&bytes) {
            return Err(RootKeyError::Weak);
        }
        let mut mac = Hmac::<Sha256>::new(&{
            let mut block = [0u8; 64];
            block.iter_mut().zip(bytes.iter()).for_each(|(to, from)| *to = *from);
            block.into()
        });
        mac.update(b"convox root key id v1");
        let mut id = [0; KEY_ID];
        id.iter_mut().zip(mac.finalize().into_bytes()).for_each(|(to, from)| *to = from);
        Ok(Self { bytes, id })
    }

    /// Names the key without telling anything of it; 16 hex digits.
    pub fn id(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    pub(crate) fn raw_id(&self) -> [u8; KEY_ID] {
        self.id
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let digits: Zeroizing<Vec<u32>> = Zeroizing::new(text.chars().filter_map(|digit| digit.to_digit(16)).collect());
        return Some(digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit) as u8).collect());
    }
    STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()
}

/// Signs that no random source made these bytes. Each has a chance below one in 10^10 for bytes that one did make.
fn is_weak(bytes: &[u8; 32]) -> bool {
    let mut sorted = Zeroizing::new(*bytes);
    sorted.sort_unstable();
    let distinct = 1 + sorted.windows(2).filter(|pair| pair.first() != pair.last()).count();
    let steps = bytes.windows(2).map(|pair| pair.last().copied().unwrap_or(0).wrapping_sub(pair.first().copied().unwrap_or(0)));
    let mut steps: Vec<u8> = steps.collect();
    steps.sort_unstable();
    steps.dedup();
    let typed = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    let weak = distinct < 16 || steps.len() < 8 || typed;
    steps.zeroize();
    weak
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
        for malformed in ["short", "changeme", &"0".repeat(63), &"g".repeat(64), &STANDARD.encode([7; 31])] {
            assert_eq!(fault(malformed), Some(RootKeyError::Malformed), "{malformed}");
        }
        let counted: Vec<u8> = (0..32).collect();
        for weak in [
            "0".repeat(64),
            "0123456789abcdef".repeat(4),
            "deadbeef".repeat(8),
            STANDARD.encode(b"correct horse battery staple 123"),
            STANDARD.encode(counted),
        ] {
            assert_eq!(fault(&weak), Some(RootKeyError::Weak), "{weak}");
        }
    }

    #[test]
    fn real_keys_are_never_called_weak() {
        for _ in 0..2000 {
            assert!(RootKey::parse(RootKey::generate().expose()).is_ok());
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
