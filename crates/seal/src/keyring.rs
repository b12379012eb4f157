//! The root key, from a file, the environment or a KMS, and the keyring that wraps data keys with it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::envelope::{DataKey, DataKeys, OpenError, WrappedDataKey};
use crate::random::random_bytes;
use crate::{Secret, weak};

/// Purpose of the key under which API keys are found, as long as it was derived from the root key.
pub(crate) const LOOKUP: &str = "api key lookup v1";
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
        id_text(&self.id)
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

pub(crate) fn id_text(id: &[u8; KEY_ID]) -> String {
    id.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
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

/// The root keys of a server: one that wraps, and others that only open. They can be exchanged while it runs.
pub struct Keyring(RwLock<Arc<Roots>>);

struct Roots {
    active: RootKey,
    others: BTreeMap<[u8; KEY_ID], RootKey>,
}

impl Keyring {
    /// With one root key.
    pub fn new(active: RootKey) -> Self {
        Self::with_others(active, [])
    }

    /// With further root keys that open what they wrapped.
    pub fn with_others(active: RootKey, others: impl IntoIterator<Item = RootKey>) -> Self {
        let others = others.into_iter().map(|root| (root.raw_id(), root)).collect();
        Self(RwLock::new(Arc::new(Roots { active, others })))
    }

    /// Takes over the root keys of another one; those that it does not have are wiped.
    pub fn replace(&self, with: Self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = with.roots();
    }

    fn roots(&self) -> Arc<Roots> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Id of the key that wraps.
    pub fn active_id(&self) -> String {
        self.roots().active.id()
    }

    /// Ids of all keys, the one that wraps first.
    pub fn ids(&self) -> Vec<String> {
        let roots = self.roots();
        std::iter::once(&roots.active).chain(roots.others.values()).map(RootKey::id).collect()
    }

    /// A new data key for an owner, wrapped.
    pub fn new_data_key(&self, owner: &str) -> WrappedDataKey {
        WrappedDataKey::wrap(&DataKey::generate(), &self.roots().active, owner)
    }

    /// The lookup key as earlier versions derived it from the root key, as a data key that can be rolled.
    pub fn derived_lookup_key(&self, owner: &str) -> WrappedDataKey {
        let active = &self.roots().active;
        WrappedDataKey::wrap(&DataKey::adopt(active.derive(LOOKUP)), active, owner)
    }

    /// The same lookup key, which says from now on that the register of what is sealed is kept ([`DataKey::keeps_register`]).
    ///
    /// # Errors
    /// As [`Self::unwrap_data_key`].
    pub fn keeping_register(&self, wrapped: &WrappedDataKey, owner: &str) -> Result<WrappedDataKey, OpenError> {
        Ok(WrappedDataKey::wrap(&self.unwrap_data_key(wrapped, owner)?.keeping_register(), &self.roots().active, owner))
    }

    /// Opens a data key.
    ///
    /// # Errors
    /// [`OpenError::UnknownKey`] when its root key is not here; [`OpenError::Refused`] when it was edited or belongs to another
    /// owner.
    pub fn unwrap_data_key(&self, wrapped: &WrappedDataKey, owner: &str) -> Result<DataKey, OpenError> {
        let (id, roots) = (wrapped.root_id()?, self.roots());
        let root = if id == roots.active.raw_id() { &roots.active } else { roots.others.get(&id).ok_or(OpenError::UnknownKey)? };
        wrapped.open(root, owner)
    }

    /// Opens all data keys of an owner, given newest first. An older one that does not open is left out: what it sealed does not open.
    ///
    /// # Errors
    /// As [`Self::unwrap_data_key`], for the newest; [`OpenError::UnknownKey`] without any.
    pub fn unwrap_data_keys<'w>(
        &self,
        newest_first: impl IntoIterator<Item = &'w WrappedDataKey>,
        owner: &str,
    ) -> Result<DataKeys, OpenError> {
        let mut all = newest_first.into_iter();
        let newest = self.unwrap_data_key(all.next().ok_or(OpenError::UnknownKey)?, owner)?;
        Ok(DataKeys::new(newest, all.filter_map(|wrapped| self.unwrap_data_key(wrapped, owner).ok()).collect()))
    }

    /// The same data key under the active root key; `None` when it already is.
    ///
    /// # Errors
    /// As [`Self::unwrap_data_key`].
    pub fn rewrap(&self, wrapped: &WrappedDataKey, owner: &str) -> Result<Option<WrappedDataKey>, OpenError> {
        let roots = self.roots();
        if wrapped.root_id()? == roots.active.raw_id() {
            return Ok(None);
        }
        let key = self.unwrap_data_key(wrapped, owner)?;
        Ok(Some(WrappedDataKey::wrap(&key, &roots.active, owner)))
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
    fn the_newest_data_key_must_open_and_older_ones_are_left_out_when_they_do_not() {
        let keyring = Keyring::new(RootKey::parse(RootKey::generate().expose()).unwrap());
        let stranger = Keyring::new(RootKey::parse(RootKey::generate().expose()).unwrap());
        let (one, two, strange) = (keyring.new_data_key("acme"), keyring.new_data_key("acme"), stranger.new_data_key("acme"));
        let place = crate::Binding { org: "acme", rack: "r", field: "f" };
        let sealed = keyring.unwrap_data_keys([&one], "acme").unwrap().seal(&place, &Secret::new("x".to_owned()));
        assert!(keyring.unwrap_data_keys([&two, &one], "acme").unwrap().open(&place, &sealed).is_ok());
        assert!(keyring.unwrap_data_keys([&two, &strange, &one], "acme").unwrap().open(&place, &sealed).is_ok());
        assert_eq!(keyring.unwrap_data_keys([&strange, &one], "acme").err(), Some(OpenError::UnknownKey));
        assert_eq!(keyring.unwrap_data_keys([], "acme").err(), Some(OpenError::UnknownKey));
    }

    #[test]
    fn data_keys_move_to_a_new_root_key() {
        let (old, new) = (RootKey::generate(), RootKey::generate());
        let before = Keyring::new(RootKey::parse(old.expose()).unwrap());
        let wrapped = before.new_data_key("acme");
        let after = Keyring::new(RootKey::parse(new.expose()).unwrap());
        assert_eq!(after.unwrap_data_key(&wrapped, "acme").err(), Some(OpenError::UnknownKey));
        let root = |text: &Secret| RootKey::parse(text.expose()).unwrap();
        let both = || Keyring::with_others(root(&new), [root(&old)]);
        // While it is used.
        after.replace(both());
        assert_eq!(after.ids(), [root(&new).id(), root(&old).id()]);
        let moved = after.rewrap(&wrapped, "acme").unwrap().unwrap();
        assert!(after.rewrap(&moved, "acme").unwrap().is_none());
        assert_eq!((moved.wrapped_by().unwrap(), wrapped.wrapped_by().unwrap()), (root(&new).id(), root(&old).id()));
        after.replace(Keyring::new(root(&new)));
        assert!(after.unwrap_data_key(&moved, "acme").is_ok());
        assert_eq!(after.unwrap_data_key(&wrapped, "acme").err(), Some(OpenError::UnknownKey), "the old one is gone");
    }
}
