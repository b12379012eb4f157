//! API keys: a prefix that names the kind, 256 random bits, a checksum; letters, digits and one `_`. Found again by a keyed hash.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::keyring::LOOKUP;
use crate::random::{base62, base62_digit, random_bytes};
use crate::{DataKey, RootKey, Secret};

const BODY: usize = 43;
const CHECKSUM: usize = 6;

/// What a key is for; its prefix says so to people and secret scanners. Prefixes never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// A person's API key.
    User,
    /// A machine's key: CI, deploys.
    Deploy,
    /// The one-time code of a new Console.
    Setup,
    /// A session of a browser: only a cookie carries it.
    Session,
    /// A session of a command line that proved a second factor: only the header `Session` carries it, beside the API key that it goes with.
    CliSession,
    /// The one-time code of an invitation.
    Invitation,
    /// The one-time code that stands for a forgotten password.
    Reset,
    /// The one-time code that a browser carries to a command line which signs in.
    Authorization,
    /// What a command line keeps while somebody approves it on another device.
    Device,
}

impl KeyKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::User,
        Self::Deploy,
        Self::Setup,
        Self::Session,
        Self::CliSession,
        Self::Invitation,
        Self::Reset,
        Self::Authorization,
        Self::Device,
    ];

    /// `cxu`, `cxd`, `cxs`, `cxw`, `cxc`, `cxi`, `cxr`, `cxa`, `cxv`
    pub fn prefix(self) -> &'static str {
        match self {
            Self::User => "cxu",
            Self::Deploy => "cxd",
            Self::Setup => "cxs",
            Self::Session => "cxw",
            Self::CliSession => "cxc",
            Self::Invitation => "cxi",
            Self::Reset => "cxr",
            Self::Authorization => "cxa",
            Self::Device => "cxv",
        }
    }

    /// `user`, `deploy`, `setup`, `session`, `cli-session`, `invitation`, `reset`, `authorization`, `device`: how it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Deploy => "deploy",
            Self::Setup => "setup",
            Self::Session => "session",
            Self::CliSession => "cli-session",
            Self::Invitation => "invitation",
            Self::Reset => "reset",
            Self::Authorization => "authorization",
            Self::Device => "device",
        }
    }

    /// Whether it may stand in an `Authorization` header: a person's or a machine's API key.
    pub fn is_api_key(self) -> bool {
        matches!(self, Self::User | Self::Deploy)
    }

    /// Reads [`Self::as_str`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no key. Says nothing of the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFormatError {
    /// Another beginning.
    #[error("this is not a Convox API key (they begin with cxu_ or cxd_)")]
    Prefix,
    /// Too short or too long: cut while copying?
    #[error("the API key is not complete")]
    Length,
    /// A character that keys do not have.
    #[error("the API key holds a character that keys do not have")]
    Character,
    /// The last six characters do not fit the rest: a typing error.
    #[error("the API key is mistyped (its checksum does not fit)")]
    Checksum,
}

/// A key as its bearer carries it. No `Debug`, `Display`, `Clone`; wiped when dropped.
pub struct ApiKey {
    text: Zeroizing<String>,
    kind: KeyKind,
}

impl ApiKey {
    /// A new one.
    pub fn generate(kind: KeyKind) -> Self {
        let bytes = Zeroizing::new(random_bytes::<32>());
        // Room for all of it: text that moves to a larger place leaves a copy behind.
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.extend([kind.prefix(), "_", &*Zeroizing::new(base62(&bytes[..], BODY))]);
        let checksum = checksum(&text);
        text.extend(checksum.map(char::from));
        Self { text, kind }
    }

    /// Reads what a caller sent. The checksum is looked at before anything is looked up.
    ///
    /// # Errors
    /// [`KeyFormatError`].
    pub fn parse(text: &str) -> Result<Self, KeyFormatError> {
        let kind = check(text)?;
        Ok(Self { text: Zeroizing::new(text.to_owned()), kind })
    }

    /// What it is for.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The text, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// The last four characters, by which people tell their keys apart.
    pub fn last4(&self) -> &str {
        self.text.get(self.text.len() - 4..).unwrap_or_default()
    }

    /// Under which the store knows it. 256 random bits need no slow hash; the key makes a stolen table useless for guessing.
    pub fn lookup_hash(&self, key: &LookupKey) -> [u8; 32] {
        key.hash_text(&self.text)
    }
}

/// Whether a text has the form of a key, and of which kind.
fn check(text: &str) -> Result<KeyKind, KeyFormatError> {
    let (prefix, body) = text.split_once('_').ok_or(KeyFormatError::Prefix)?;
    let kind = KeyKind::ALL.into_iter().find(|kind| kind.prefix() == prefix).ok_or(KeyFormatError::Prefix)?;
    if body.len() != BODY + CHECKSUM {
        return Err(KeyFormatError::Length);
    }
    if !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(KeyFormatError::Character);
    }
    let (start, end) = text.split_at(text.len() - CHECKSUM);
    if checksum(start) != end.as_bytes() { Err(KeyFormatError::Checksum) } else { Ok(kind) }
}

/// CRC-32 (IEEE) as six base-62 digits: finds typing errors, proves nothing.
fn checksum(text: &str) -> [u8; CHECKSUM] {
    // By a table, and without an allocation, since every request of every caller comes through here.
    const TABLE: [u32; 256] = table();
    let mut crc = u32::MAX;
    for byte in text.bytes() {
        let index = (crc ^ u32::from(byte)) & 255;
        crc = crc >> 8 ^ TABLE.get(index as usize).copied().unwrap_or(0);
    }
    let mut number = !crc;
    let mut digits = [0; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = base62_digit(number % 62);
        number /= 62;
    }
    digits
}

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

/// The key of the keyed hash, derived from the root key. Ready to use: hashing costs two blocks.
#[derive(Clone)]
pub struct LookupKey(Hmac<Sha256>);

impl LookupKey {
    /// Derived from the root key, as earlier versions did. Now it is a key of its own ([`Self::of`]).
    pub fn derive(root: &RootKey) -> Self {
        Self::from_bytes(&root.derive(LOOKUP))
    }

    /// Of a data key that is used for nothing else.
    pub fn of(key: &DataKey) -> Self {
        Self::from_bytes(key.bytes())
    }

    fn from_bytes(key: &[u8; 32]) -> Self {
        let mut block = Zeroizing::new([0u8; 64]);
        if let Some(start) = block.get_mut(..32) {
            start.copy_from_slice(key);
        }
        // A key shorter than a block is padded with zeros: this is the same HMAC, without a fallible constructor.
        Self(Hmac::<Sha256>::new((&*block).into()))
    }

    /// The keyed hash of any secret text, such as a one-time code.
    pub fn hash(&self, secret: &Secret) -> [u8; 32] {
        self.hash_text(secret.expose())
    }

    /// Kind and keyed hash of a key that a caller sent, as [`ApiKey::parse`] and [`ApiKey::lookup_hash`] give them, without a copy of
    /// the key: for those who only look it up.
    ///
    /// # Errors
    /// [`KeyFormatError`].
    pub fn hash_key(&self, text: &str) -> Result<(KeyKind, [u8; 32]), KeyFormatError> {
        Ok((check(text)?, self.hash_text(text)))
    }

    /// The key that seals the chains of the audit log. It stays the same as long as this one does, whatever the root key is.
    pub fn chain_key(&self) -> crate::chain::ChainKey {
        crate::chain::ChainKey::from_bytes(&self.hash_text("\0audit chain seal v1"))
    }

    /// The key of the register of what is sealed. It stays the same as long as this one does.
    pub fn register_key(&self) -> crate::RegisterKey {
        crate::RegisterKey::from_bytes(&self.hash_text("\0register of what is sealed v1"))
    }

    fn hash_text(&self, text: &str) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup() -> LookupKey {
        LookupKey::derive(&RootKey::parse(RootKey::generate().expose()).unwrap())
    }

    #[test]
    fn a_key_survives_being_written_and_read() {
        for kind in KeyKind::ALL {
            let key = ApiKey::generate(kind);
            let read = ApiKey::parse(key.reveal()).unwrap();
            assert!(read.kind() == kind && read.reveal() == key.reveal());
            assert!(key.reveal().starts_with(kind.prefix()) && key.reveal().ends_with(key.last4()));
            assert!(key.reveal().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
            assert_eq!(KeyKind::from_name(kind.as_str()), Some(kind));
        }
    }

    #[test]
    fn what_is_no_key_says_why() {
        let key = ApiKey::generate(KeyKind::User);
        let text = key.reveal();
        let fault = |text: &str| ApiKey::parse(text).err().unwrap();
        assert_eq!(fault(""), KeyFormatError::Prefix);
        assert_eq!(fault("ghp_abc"), KeyFormatError::Prefix);
        assert_eq!(fault(&text[..text.len() - 1]), KeyFormatError::Length);
        assert_eq!(fault(&format!("{}é", &text[..text.len() - 2])), KeyFormatError::Character);
        let flipped = if text.ends_with('A') { 'B' } else { 'A' };
        assert_eq!(fault(&format!("{}{flipped}", &text[..text.len() - 1])), KeyFormatError::Checksum);
    }

    #[test]
    fn the_hash_depends_on_both_keys() {
        let (a, b) = (lookup(), lookup());
        let (one, two) = (ApiKey::generate(KeyKind::User), ApiKey::generate(KeyKind::User));
        assert_eq!(one.lookup_hash(&a), ApiKey::parse(one.reveal()).unwrap().lookup_hash(&a));
        assert_ne!(one.lookup_hash(&a), two.lookup_hash(&a));
        assert_ne!(one.lookup_hash(&a), one.lookup_hash(&b));
        assert_eq!(one.lookup_hash(&a), a.hash(&Secret::new(one.reveal().to_owned())));
        assert_eq!(a.hash_key(one.reveal()), Ok((KeyKind::User, one.lookup_hash(&a))));
        assert_eq!(a.hash_key("cxu_"), Err(KeyFormatError::Length));
    }

    #[test]
    fn a_lookup_key_that_was_derived_goes_on_as_a_key_of_its_own() {
        let text = RootKey::generate();
        let keyring = crate::Keyring::new(RootKey::parse(text.expose()).unwrap());
        let own = LookupKey::of(&keyring.unwrap_data_key(&keyring.derived_lookup_key("lookup"), "lookup").unwrap());
        let key = ApiKey::generate(KeyKind::User);
        assert_eq!(key.lookup_hash(&own), key.lookup_hash(&LookupKey::derive(&RootKey::parse(text.expose()).unwrap())));
        let other = LookupKey::of(&keyring.unwrap_data_key(&keyring.new_data_key("lookup"), "lookup").unwrap());
        assert_ne!(key.lookup_hash(&own), key.lookup_hash(&other));
    }

    proptest! {
        #[test]
        fn no_text_panics_and_none_is_a_key(text in ".*") {
            prop_assert!(ApiKey::parse(&text).is_err());
            let _ = ApiKey::parse(&format!("cxu_{text}"));
        }
    }
}
