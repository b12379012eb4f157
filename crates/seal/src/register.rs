//! The register of what is sealed: for each place the one ciphertext that is the present one. A ciphertext opens in its own place whatever its
//! age; the register knows which of them was written last. It is kept beside them, in pages under one head, with a MAC on each: whoever
//! lacks the key cannot write one, and can put back an older page only with an older head, and an older head only with every page and
//! every text that was written since. Why so: `docs/adr/0034-register-of-what-is-sealed.md`.
//!
//! Head: `1 | number (8) | number of each of 256 pages (8) | MAC (32)`. Page: `1 | number (8) | entries of place (32) and digest (32) | MAC (32)`.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::Sealed;

const VERSION: u8 = 1;
const MAC: usize = 32;
const PAGES: usize = 256;

/// Where a sealed text stands, whatever its sealing is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place([u8; 32]);

impl Place {
    /// That field of that row.
    pub fn of(table: &str, id: &str, field: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"convox place v1");
        for part in [table, id, field] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hasher.finalize().into())
    }

    /// On which page it is.
    pub fn page(&self) -> u8 {
        let [first, ..] = self.0;
        first
    }
}

/// Says which number each page has. It moves with every text that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterHead {
    number: u64,
    pages: Box<[u64; PAGES]>,
}

impl RegisterHead {
    /// Of a register without pages, behind `number`.
    pub fn after(number: u64) -> Self {
        Self { number, pages: Box::new([0; PAGES]) }
    }

    /// How often the register moved.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Reads the page of that index; `None` when it is not the one that belongs under this head.
    pub fn page(&self, key: &RegisterKey, index: u8, bytes: Option<&[u8]>) -> Option<RegisterPage> {
        match (self.pages.get(usize::from(index)).copied()?, bytes) {
            (0, None) => Some(RegisterPage::default()),
            (0, Some(_)) | (_, None) => None,
            (number, Some(bytes)) => key.read_page(index, bytes).filter(|page| page.number == number),
        }
    }

    /// Moves on with what a page is now.
    pub fn put(&mut self, index: u8, page: &mut RegisterPage) {
        self.number += 1;
        page.number = self.number;
        if let Some(number) = self.pages.get_mut(usize::from(index)) {
            *number = self.number;
        }
    }
}

/// The places that begin alike, and what stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterPage {
    number: u64,
    entries: BTreeMap<Place, [u8; 32]>,
}

impl RegisterPage {
    /// Enters what stands at a place from now on, or that nothing does; `false` when that was so before.
    pub fn set(&mut self, place: Place, sealed: Option<&[u8]>) -> bool {
        match sealed.map(digest) {
            Some(now) => self.entries.insert(place, now) != Some(now),
            None => self.entries.remove(&place).is_some(),
        }
    }

    /// Whether that is what stands there.
    pub fn holds(&self, place: Place, sealed: &[u8]) -> bool {
        self.entries.get(&place) == Some(&digest(sealed))
    }
}

fn digest(sealed: &[u8]) -> [u8; 32] {
    Sha256::digest(sealed).into()
}

/// Makes and checks the MACs of a register.
#[derive(Clone)]
pub struct RegisterKey(Hmac<Sha256>);

impl RegisterKey {
    pub(crate) fn from_bytes(key: &[u8; 32]) -> Self {
        let mut block = zeroize::Zeroizing::new([0u8; 64]);
        block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        Self(Hmac::<Sha256>::new((&*block).into()))
    }

    /// The head as it is stored.
    pub fn write_head(&self, head: &RegisterHead) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&head.number.to_be_bytes());
        head.pages.iter().for_each(|number| bytes.extend_from_slice(&number.to_be_bytes()));
        self.closed("head", bytes)
    }

    /// The head that was stored; `None` when it is none of this key's.
    pub fn read_head(&self, bytes: &[u8]) -> Option<RegisterHead> {
        let (number, rest) = self.opened("head", bytes)?;
        let numbers: Vec<u64> = rest.as_chunks::<8>().0.iter().map(|number| u64::from_be_bytes(*number)).collect();
        Some(RegisterHead { number, pages: Box::new(numbers.try_into().ok()?) })
    }

    /// A page as it is stored.
    pub fn write_page(&self, index: u8, page: &RegisterPage) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&page.number.to_be_bytes());
        for (Place(place), digest) in &page.entries {
            bytes.extend_from_slice(place);
            bytes.extend_from_slice(digest);
        }
        self.closed(&format!("page {index}"), bytes)
    }

    fn read_page(&self, index: u8, bytes: &[u8]) -> Option<RegisterPage> {
        let (number, rest) = self.opened(&format!("page {index}"), bytes)?;
        let entry = |entry: &[u8; 64]| {
            let (place, digest) = entry.split_first_chunk::<32>()?;
            Some((Place(*place), <[u8; 32]>::try_from(digest).ok()?))
        };
        Some(RegisterPage { number, entries: rest.as_chunks::<64>().0.iter().filter_map(entry).collect() })
    }

    fn closed(&self, what: &str, mut bytes: Vec<u8>) -> Vec<u8> {
        let mac = self.mac(what, &bytes);
        bytes.extend_from_slice(&mac);
        bytes
    }

    fn opened<'b>(&self, what: &str, bytes: &'b [u8]) -> Option<(u64, &'b [u8])> {
        let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC)?)?;
        if !crate::constant_time_eq(&self.mac(what, body), mac) {
            return None;
        }
        let (number, rest) = body.strip_prefix(&[VERSION])?.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*number), rest))
    }

    fn mac(&self, what: &str, body: &[u8]) -> [u8; MAC] {
        let mut mac = self.0.clone();
        mac.update(what.as_bytes());
        mac.update(b"\0");
        mac.update(body);
        mac.finalize().into_bytes().into()
    }
}

impl Sealed {
    /// From the store, with what the register says of it: one that is not the present text of its place opens nowhere.
    pub fn judged(bytes: Vec<u8>, is_current: bool) -> Self {
        let mut sealed = Self::from_bytes(bytes);
        sealed.is_current = is_current;
        sealed
    }

    /// Whether the register does not speak against it.
    pub fn is_current(&self) -> bool {
        self.is_current
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> RegisterKey {
        RegisterKey::from_bytes(&[byte; 32])
    }

    /// Enters a text, as the store does it; gives head and page as they are stored.
    fn entered(key: &RegisterKey, head: &mut RegisterHead, page: Option<&[u8]>, place: Place, text: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut read = head.page(key, place.page(), page).unwrap();
        assert!(read.set(place, Some(text)));
        head.put(place.page(), &mut read);
        (key.write_head(head), key.write_page(place.page(), &read))
    }

    #[test]
    fn places_are_told_apart() {
        let place = Place::of("racks", "r1", "password");
        for other in [("rack", "sr1", "password"), ("racks", "r2", "password"), ("racks", "r1", "next"), ("racks", "r1p", "assword")] {
            assert_ne!(place, Place::of(other.0, other.1, other.2));
        }
    }

    #[test]
    fn an_older_page_belongs_under_an_older_head_only() {
        let (key, place) = (key(7), Place::of("racks", "r1", "password"));
        let mut head = RegisterHead::after(0);
        assert!(head.page(&key, place.page(), Some(b"a page that nobody wrote")).is_none());
        let (first_head, first) = entered(&key, &mut head, None, place, b"old");
        let (second_head, second) = entered(&key, &mut head, Some(&first), place, b"new");
        let now = key.read_head(&second_head).unwrap();
        assert_eq!((now.number(), &now), (2, &head));
        let page = now.page(&key, place.page(), Some(&second)).unwrap();
        assert!(page.holds(place, b"new") && !page.holds(place, b"old") && !page.holds(Place::of("racks", "r2", "password"), b"new"));
        // Put back, taken out, put under another index, and of another key.
        assert!(now.page(&key, place.page(), Some(&first)).is_none());
        assert!(now.page(&key, place.page(), None).is_none());
        assert!(now.page(&key, place.page().wrapping_add(1), Some(&second)).is_none());
        assert!(now.page(&super::tests::key(8), place.page(), Some(&second)).is_none());
        assert!(super::tests::key(8).read_head(&second_head).is_none());
        // An older head speaks against what was written since.
        assert!(key.read_head(&first_head).unwrap().page(&key, place.page(), Some(&second)).is_none());
        // What is taken out stands nowhere.
        let mut page = page;
        assert!(page.set(place, None) && !page.set(place, None) && !page.holds(place, b"new"));
    }

    #[test]
    fn a_page_does_not_pass_for_a_head() {
        let key = key(7);
        assert!(key.read_head(&key.write_page(0, &RegisterPage::default())).is_none());
        assert!(key.read_page(1, &key.write_page(0, &RegisterPage::default())).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn every_flipped_bit_and_every_other_length_is_noticed(texts in prop::collection::vec(any::<Vec<u8>>(), 0..4)) {
            let (key, mut page) = (key(7), RegisterPage { number: 9, ..RegisterPage::default() });
            for (number, text) in texts.iter().enumerate() {
                page.set(Place::of("racks", &number.to_string(), "password"), Some(text));
            }
            let bytes = key.write_page(3, &page);
            prop_assert_eq!(key.read_page(3, &bytes), Some(page));
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(key.read_page(3, &bytes).is_none());
            }
            for end in 0..bytes.len() {
                prop_assert!(key.read_page(3, &bytes[..end]).is_none());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(key(7).read_head(&bytes).is_none() && key(7).read_page(0, &bytes).is_none());
        }
    }
}
