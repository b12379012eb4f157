//! Envelope encryption: a root key wraps the data key of an organization, which seals texts bound to their place. XChaCha20-Poly1305
//! throughout: its nonces are long enough to be drawn at random. Why so: `docs/adr/0003-envelope-format.md`.
//!
//! Wrapped data key: `1 | root key id (8) | nonce (24) | ciphertext of id (8) and key (32) | tag (16)`, associated data: version, root key id, organization.
//! Sealed text: `1 | data key id (8) | nonce (24) | ciphertext | tag (16)`, associated data: version, data key id, organization, Rack, field.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::Secret;
use crate::keyring::{KEY_ID, RootKey};
use crate::random::random_bytes;

const VERSION: u8 = 1;
const NONCE: usize = 24;
const HEAD: usize = 1 + KEY_ID + NONCE;

/// Why something sealed does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not a form that this version knows.
    #[error("the ciphertext has an unknown form")]
    Format,
    /// Sealed under a key that is not here.
    #[error("the ciphertext was sealed with a key that this server does not have")]
    UnknownKey,
    /// Edited, or moved from another place. An older text put back into its own place opens, unless the register speaks against it.
    #[error("the ciphertext does not belong here: it was edited or moved")]
    Refused,
    /// The register of what is sealed says that another one is the present text of this place.
    #[error("the ciphertext is not the present one of its place: an older one was put back, or the row was written past the Console")]
    PutBack,
}

/// Where a sealed text belongs. It opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// Id of the organization.
    pub org: &'a str,
    /// Id of the Rack.
    pub rack: &'a str,
    /// Which of its fields.
    pub field: &'a str,
}

/// A data key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedDataKey(Vec<u8>);

/// A sealed text as it is stored. Its `Debug` shows no content.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    bytes: Vec<u8>,
    /// Whether the register of what is sealed does not speak against it.
    pub(crate) is_current: bool,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.bytes.len())
    }
}

impl std::fmt::Debug for WrappedDataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WrappedDataKey({} bytes)", self.0.len())
    }
}

impl Sealed {
    /// From the store.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, is_current: true }
    }

    /// For the store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Id of the data key that sealed it; no secret.
    ///
    /// # Errors
    /// [`OpenError::Format`].
    pub fn key_id(&self) -> Result<[u8; KEY_ID], OpenError> {
        key_id(&self.bytes)
    }
}

impl WrappedDataKey {
    /// From the store.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// For the store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn wrap(key: &DataKey, root: &RootKey, org: &str) -> Self {
        let mut plain = Zeroizing::new(Vec::with_capacity(KEY_ID + 32));
        plain.extend_from_slice(&key.id);
        plain.extend_from_slice(&key.bytes[..]);
        Self(encrypt(root.wrapping(), root.raw_id(), &["convox data key", org], &plain))
    }

    /// Id of the root key that wrapped it, as [`RootKey::id`] shows it; no secret.
    ///
    /// # Errors
    /// [`OpenError::Format`].
    pub fn wrapped_by(&self) -> Result<String, OpenError> {
        Ok(crate::keyring::id_text(&self.root_id()?))
    }

    /// Id of the root key that wrapped it.
    pub(crate) fn root_id(&self) -> Result<[u8; KEY_ID], OpenError> {
        key_id(&self.0)
    }

    pub(crate) fn open(&self, root: &RootKey, org: &str) -> Result<DataKey, OpenError> {
        let plain = decrypt(root.wrapping(), root.raw_id(), &["convox data key", org], &self.0)?;
        let (id, bytes) = plain.split_first_chunk::<KEY_ID>().ok_or(OpenError::Format)?;
        Ok(DataKey { id: *id, bytes: Zeroizing::new(<[u8; 32]>::try_from(bytes).map_err(|_| OpenError::Format)?) })
    }
}

/// The key of one organization.
pub struct DataKey {
    id: [u8; KEY_ID],
    bytes: Zeroizing<[u8; 32]>,
}

impl DataKey {
    pub(crate) fn generate() -> Self {
        Self { id: random_bytes(), bytes: Zeroizing::new(random_bytes()) }
    }

    /// A key whose bytes were there before it had an id.
    pub(crate) fn adopt(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self { id: random_bytes(), bytes }
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The same key under the id by which it says that the register of what is sealed is kept: whoever lacks the root key can neither
    /// make it say so nor keep it from it, but by an older wrapping of it.
    pub(crate) fn keeping_register(&self) -> Self {
        Self { id: register_mark(&self.bytes), bytes: self.bytes.clone() }
    }

    /// Whether it says so.
    pub fn keeps_register(&self) -> bool {
        self.id == register_mark(&self.bytes)
    }

    /// As the ciphertexts that it makes name it; no secret.
    pub fn id(&self) -> [u8; KEY_ID] {
        self.id
    }

    /// Seals a text for its place.
    pub fn seal(&self, binding: &Binding<'_>, secret: &Secret) -> Sealed {
        let Binding { org, rack, field } = binding;
        Sealed::from_bytes(encrypt(&self.bytes, self.id, &["convox sealed", org, rack, field], secret.expose().as_bytes()))
    }

    /// Opens a text in its place.
    ///
    /// # Errors
    /// [`OpenError::UnknownKey`] under another data key, [`OpenError::Refused`] for what was edited or moved, [`OpenError::PutBack`] for what is
    /// not the present text of its place.
    pub fn open(&self, binding: &Binding<'_>, sealed: &Sealed) -> Result<Secret, OpenError> {
        let Binding { org, rack, field } = binding;
        if !sealed.is_current {
            return Err(OpenError::PutBack);
        }
        let plain = decrypt(&self.bytes, self.id, &["convox sealed", org, rack, field], &sealed.bytes)?;
        let text = std::str::from_utf8(&plain).map_err(|_| OpenError::Format)?;
        Ok(Secret::new(text.to_owned()))
    }
}

fn register_mark(key: &[u8; 32]) -> [u8; KEY_ID] {
    use sha2::Digest as _;
    let hash = sha2::Sha256::new().chain_update(b"convox register kept v1\0").chain_update(key).finalize();
    let mut mark = [0; KEY_ID];
    mark.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    mark
}

/// The data keys of one owner while they are rolled: the newest seals, each opens what it sealed.
pub struct DataKeys {
    newest: DataKey,
    older: Vec<DataKey>,
}

impl DataKeys {
    pub(crate) fn new(newest: DataKey, older: Vec<DataKey>) -> Self {
        Self { newest, older }
    }

    /// Seals a text for its place, under the newest.
    pub fn seal(&self, binding: &Binding<'_>, secret: &Secret) -> Sealed {
        self.newest.seal(binding, secret)
    }

    /// Opens a text in its place.
    ///
    /// # Errors
    /// As [`DataKey::open`].
    pub fn open(&self, binding: &Binding<'_>, sealed: &Sealed) -> Result<Secret, OpenError> {
        if !sealed.is_current {
            return Err(OpenError::PutBack);
        }
        let id = sealed.key_id()?;
        std::iter::once(&self.newest).chain(&self.older).find(|key| key.id == id).ok_or(OpenError::UnknownKey)?.open(binding, sealed)
    }

    /// Whether a text is sealed under the newest.
    pub fn is_newest(&self, sealed: &Sealed) -> bool {
        sealed.key_id() == Ok(self.newest.id)
    }
}

fn key_id(bytes: &[u8]) -> Result<[u8; KEY_ID], OpenError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => rest.first_chunk::<KEY_ID>().copied().ok_or(OpenError::Format),
        _ => Err(OpenError::Format),
    }
}

/// Version, key id, then each part with its length before it, so that no two places have the same bytes.
fn associated(id: [u8; KEY_ID], parts: &[&str]) -> Vec<u8> {
    let mut data = vec![VERSION];
    data.extend_from_slice(&id);
    for part in parts {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part.as_bytes());
    }
    data
}

fn encrypt(key: &[u8; 32], id: [u8; KEY_ID], parts: &[&str], plain: &[u8]) -> Vec<u8> {
    let nonce = random_bytes::<NONCE>();
    let mut out = vec![VERSION];
    out.extend_from_slice(&id);
    out.extend_from_slice(&nonce);
    let payload = Payload { msg: plain, aad: &associated(id, parts) };
    // Encryption fails only beyond 256 GiB; an empty ciphertext would then be refused on opening, never mistaken for anything.
    out.extend(XChaCha20Poly1305::new(key.into()).encrypt(&XNonce::from(nonce), payload).unwrap_or_default());
    out
}

fn decrypt(key: &[u8; 32], id: [u8; KEY_ID], parts: &[&str], bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    if key_id(bytes)? != id {
        return Err(OpenError::UnknownKey);
    }
    let nonce = bytes.get(1 + KEY_ID..HEAD).and_then(|nonce| <[u8; NONCE]>::try_from(nonce).ok()).ok_or(OpenError::Format)?;
    let payload = Payload { msg: bytes.get(HEAD..).unwrap_or_default(), aad: &associated(id, parts) };
    XChaCha20Poly1305::new(key.into()).decrypt(&XNonce::from(nonce), payload).map(Zeroizing::new).map_err(|_| OpenError::Refused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Binding<'static> = Binding { org: "o1", rack: "r1", field: "password" };

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_text_opens_in_its_place_only() {
        let key = DataKey::generate();
        let sealed = key.seal(&PLACE, &secret("canary"));
        assert!(key.open(&PLACE, &sealed).unwrap().matches("canary"));
        for moved in [Binding { org: "o2", ..PLACE }, Binding { rack: "r2", ..PLACE }, Binding { field: "token", ..PLACE }] {
            assert_eq!(key.open(&moved, &sealed).err(), Some(OpenError::Refused), "{moved:?}");
        }
        // Parts cannot be shifted into each other.
        assert_eq!(key.open(&Binding { org: "o1r", rack: "1", ..PLACE }, &sealed).err(), Some(OpenError::Refused));
        assert_eq!(DataKey::generate().open(&PLACE, &sealed).err(), Some(OpenError::UnknownKey));
        assert!(!sealed.as_bytes().windows(6).any(|window| window == b"canary"));
        assert_eq!(format!("{sealed:?}"), format!("Sealed({} bytes)", sealed.as_bytes().len()));
    }

    #[test]
    fn a_data_key_opens_for_its_organization_only() {
        let root = RootKey::parse(RootKey::generate().expose()).unwrap();
        let key = DataKey::generate();
        let wrapped = WrappedDataKey::wrap(&key, &root, "o1");
        let opened = wrapped.open(&root, "o1").unwrap();
        assert!(opened.open(&PLACE, &key.seal(&PLACE, &secret("x"))).unwrap().matches("x"));
        assert_eq!(wrapped.open(&root, "o2").err(), Some(OpenError::Refused));
    }

    #[test]
    fn what_the_register_speaks_against_opens_nowhere() {
        let key = DataKey::generate();
        let sealed = key.seal(&PLACE, &secret("canary"));
        let judged = |is_current| Sealed::judged(sealed.as_bytes().to_vec(), is_current);
        assert!(sealed.is_current() && judged(true) == sealed && judged(false) != sealed);
        assert!(key.open(&PLACE, &judged(true)).unwrap().matches("canary"));
        assert_eq!(key.open(&PLACE, &judged(false)).err(), Some(OpenError::PutBack));
        assert_eq!(DataKeys::new(key, Vec::new()).open(&PLACE, &judged(false)).err(), Some(OpenError::PutBack));
    }

    #[test]
    fn a_key_that_says_that_the_register_is_kept_is_the_same_key() {
        let key = DataKey::generate();
        let marked = key.keeping_register();
        assert!(!key.keeps_register() && marked.keeps_register() && key.bytes() == marked.bytes());
        assert!(marked.keeping_register().keeps_register());
        let other = DataKey { id: marked.id(), ..DataKey::generate() };
        assert!(!other.keeps_register(), "it says so of itself only");
    }

    #[test]
    fn the_newest_of_several_seals_and_each_opens_its_own() {
        let (old, new) = (DataKey::generate(), DataKey::generate());
        let before = old.seal(&PLACE, &secret("canary"));
        let keys = DataKeys::new(new, vec![old]);
        let after = keys.seal(&PLACE, &secret("canary"));
        assert!(keys.open(&PLACE, &before).unwrap().matches("canary") && keys.open(&PLACE, &after).unwrap().matches("canary"));
        assert!(keys.is_newest(&after) && !keys.is_newest(&before));
        assert_eq!(keys.open(&Binding { rack: "r2", ..PLACE }, &before).err(), Some(OpenError::Refused));
        // Once the old one is destroyed.
        let DataKeys { newest, .. } = keys;
        assert_eq!(DataKeys::new(newest, Vec::new()).open(&PLACE, &before).err(), Some(OpenError::UnknownKey));
    }

    /// Every way to damage stored bytes by little: each bit, each shorter form, one byte more.
    fn damaged(bytes: &[u8]) -> Vec<Vec<u8>> {
        let flipped = (0..bytes.len() * 8).map(|bit| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        flipped.chain((0..bytes.len()).map(|end| bytes[..end].to_vec())).chain([[bytes, &[0]].concat()]).collect()
    }

    #[test]
    fn a_text_of_one_data_key_does_not_pass_for_a_data_key() {
        let root = RootKey::parse(RootKey::generate().expose()).unwrap();
        let wrapped = WrappedDataKey::wrap(&DataKey::generate(), &root, "o1");
        // The same bytes under the same key, read as a text.
        let as_key = DataKey { id: root.raw_id(), bytes: Zeroizing::new(*root.wrapping()) };
        let sealed = Sealed::from_bytes(wrapped.as_bytes().to_vec());
        assert_eq!(as_key.open(&Binding { org: "o1", rack: "", field: "" }, &sealed).err(), Some(OpenError::Refused));
    }

    #[test]
    fn sealing_twice_shows_nothing_of_what_is_the_same() {
        let key = DataKey::generate();
        let (a, b) = (key.seal(&PLACE, &secret("canary")), key.seal(&PLACE, &secret("canary")));
        assert_ne!(a.as_bytes()[HEAD..], b.as_bytes()[HEAD..]);
        assert_ne!(a.as_bytes()[1 + KEY_ID..HEAD], b.as_bytes()[1 + KEY_ID..HEAD], "a nonce is never used twice");
    }

    proptest! {
        // Each case tries every bit.
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn every_flipped_bit_is_noticed(text in ".{0,40}") {
            let key = DataKey::generate();
            for bytes in damaged(key.seal(&PLACE, &secret(&text)).as_bytes()) {
                prop_assert!(key.open(&PLACE, &Sealed::from_bytes(bytes)).is_err());
            }
            let root = RootKey::parse(RootKey::generate().expose()).unwrap();
            for bytes in damaged(WrappedDataKey::wrap(&key, &root, &text).as_bytes()) {
                prop_assert!(WrappedDataKey::from_bytes(bytes).open(&root, &text).is_err());
            }
        }

    }

    proptest! {
        /// Places made of the same letters, cut at other points, and places that differ in anything else.
        #[test]
        fn no_other_place_opens_a_text(letters in "[ab/]{0,8}", cuts in any::<[usize; 4]>(), other in any::<[String; 3]>()) {
            fn cut(letters: &str, a: usize, b: usize) -> [&str; 3] {
                let (a, b) = (a % (letters.len() + 1), b % (letters.len() + 1));
                let (a, b) = (a.min(b), a.max(b));
                [&letters[..a], &letters[a..b], &letters[b..]]
            }
            fn place([org, rack, field]: [&str; 3]) -> Binding<'_> {
                Binding { org, rack, field }
            }
            let key = DataKey::generate();
            let here = cut(&letters, cuts[0], cuts[1]);
            let sealed = key.seal(&place(here), &secret("canary"));
            for there in [cut(&letters, cuts[2], cuts[3]), [&other[0], here[1], here[2]], [here[0], &other[1], here[2]], [here[0], here[1], &other[2]]] {
                prop_assert_eq!(key.open(&place(there), &sealed).is_ok(), there == here, "{:?} -> {:?}", here, there);
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_survives(text in ".*", org in ".*", rack in ".*", field in ".*") {
            let key = DataKey::generate();
            let place = Binding { org: &org, rack: &rack, field: &field };
            prop_assert!(key.open(&place, &key.seal(&place, &secret(&text))).unwrap().matches(&text));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let key = DataKey::generate();
            prop_assert!(key.open(&PLACE, &Sealed::from_bytes(bytes.clone())).is_err());
            let root = RootKey::parse(RootKey::generate().expose()).unwrap();
            prop_assert!(WrappedDataKey::from_bytes(bytes).open(&root, "o").is_err());
        }
    }
}
