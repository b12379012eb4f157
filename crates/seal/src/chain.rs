//! Records in a chain: each link is a hash over the one before and over a record, so that none can be changed, taken out or put in between
//! without changing all links after it. The newest link carries a seal, which only whoever has the key can make: so nobody else can write
//! the rest of a chain anew.
//!
//! A link is made of a record's digest and not of its text. So what was left out, or removed because it is old, does not hide whether the
//! rest is whole.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a record.
pub type RecordDigest = [u8; 32];

/// A place in a chain: what all records up to there come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link([u8; 32]);

impl Link {
    /// Before the first record of the chain of this name. Chains of other names have other links from their first record on.
    pub fn first(chain: &str) -> Self {
        Self(hash(&[b"convox audit chain v1\0", chain.as_bytes()]))
    }

    /// After one more record, the chain's `number`th.
    #[must_use]
    pub fn after(&self, number: i64, record: &RecordDigest) -> Self {
        Self(hash(&[&self.0, &number.to_be_bytes(), record]))
    }

    /// As it was kept; `None` when it has another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// To be kept.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What a record's text comes to.
pub fn digest(record: &str) -> RecordDigest {
    hash(&[record.as_bytes()])
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// What rows come to that are read one after another.
#[derive(Clone, Default)]
pub struct RowsDigest(Sha256);

impl RowsDigest {
    /// One more field. `kind` tells kinds of fields apart, so that no two rows come to the same.
    pub fn field(&mut self, kind: u8, bytes: &[u8]) {
        self.0.update([kind]);
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// All of it, as 64 hexadecimal digits.
    pub fn finish(self) -> String {
        use std::fmt::Write as _;
        self.0.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Makes and checks seals.
#[derive(Clone)]
pub struct ChainKey(Hmac<Sha256>);

impl ChainKey {
    /// From 256 bits.
    pub fn from_bytes(key: &[u8; 32]) -> Self {
        let mut block = zeroize::Zeroizing::new([0u8; 64]);
        block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        Self(Hmac::<Sha256>::new((&*block).into()))
    }

    /// The seal of `link`, which the chain of that name has after its `number`th record. `what` tells seals of different meaning apart.
    pub fn seal(&self, what: &str, chain: &str, number: i64, link: &Link) -> [u8; 32] {
        let mut mac = self.0.clone();
        for text in [what, chain] {
            mac.update(text.as_bytes());
            mac.update(b"\0");
        }
        mac.update(&number.to_be_bytes());
        mac.update(&link.0);
        mac.finalize().into_bytes().into()
    }

    /// Whether that is the seal of it.
    pub fn is_seal(&self, what: &str, chain: &str, number: i64, link: &Link, seal: &[u8]) -> bool {
        crate::constant_time_eq(&self.seal(what, chain, number, link), seal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, records: &[&str]) -> Link {
        records.iter().zip(1..).fold(Link::first(name), |link, (record, number)| link.after(number, &digest(record)))
    }

    #[test]
    fn whatever_is_changed_in_a_chain_changes_its_end() {
        let whole = chain("acme/1", &["a", "b", "c"]);
        for other in [
            chain("acme/2", &["a", "b", "c"]),
            chain("acme/1", &["a", "x", "c"]),
            chain("acme/1", &["a", "c", "b"]),
            chain("acme/1", &["a", "b"]),
            chain("acme/1", &["a", "b", "c", "d"]),
            chain("acme/1", &["ab", "", "c"]),
        ] {
            assert_ne!(whole, other);
        }
        assert_eq!(Link::from_bytes(whole.as_bytes()), Some(whole));
        assert_eq!(Link::from_bytes(b"short"), None);
    }

    #[test]
    fn a_seal_is_of_one_key_meaning_chain_place_and_link() {
        let key = ChainKey::from_bytes(&[7; 32]);
        let link = chain("acme/1", &["a"]);
        let seal = key.seal("head", "acme/1", 1, &link);
        assert!(key.is_seal("head", "acme/1", 1, &link, &seal));
        assert!(!key.is_seal("anchor", "acme/1", 1, &link, &seal));
        assert!(!key.is_seal("head", "acme/2", 1, &link, &seal));
        assert!(!key.is_seal("head", "acme/1", 2, &link, &seal));
        assert!(!key.is_seal("head", "acme/1", 1, &chain("acme/1", &["b"]), &seal));
        assert!(!ChainKey::from_bytes(&[8; 32]).is_seal("head", "acme/1", 1, &link, &seal));
        assert!(!key.is_seal("head", "acme/1", 1, &link, b""));
    }
}
