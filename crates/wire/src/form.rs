//! URL-encoded forms as Go's `url.Values` writes and reads them, and the list and map encodings inside one value. Protocol 1.4.

use std::collections::BTreeMap;
use std::fmt;

/// More pairs than any client sends; a longer form is refused rather than kept in memory.
const MOST_PAIRS: usize = 10_000;

/// Why a form could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// A `%` without two hex digits behind it.
    #[error("the form has a broken percent escape")]
    Escape,
    /// Not UTF-8 after decoding.
    #[error("the form is not UTF-8 text")]
    Utf8,
    /// More pairs than are accepted.
    #[error("the form has too many fields")]
    TooMany,
}

/// A sorted multi-map of text: a form body or a query. `Debug` shows keys only: values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Params(BTreeMap<String, Vec<String>>);

impl Params {
    /// Nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces all values of `key`.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.insert(key.into(), vec![value.into()]);
    }

    /// Adds a value to `key`.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.entry(key.into()).or_default().push(value.into());
    }

    /// The same with `key` set; for building in one expression.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.set(key, value);
        self
    }

    /// The first value of `key`, which is the only one that the servers read.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.first().map(String::as_str)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All pairs, sorted by key, values in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(key, values)| values.iter().map(move |value| (key.as_str(), value.as_str())))
    }

    /// `a=1&b=x+y`, keys sorted.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.iter() {
            if !text.is_empty() {
                text.push('&');
            }
            query_escape(key, &mut text);
            text.push('=');
            query_escape(value, &mut text);
        }
        text
    }

    /// Reads a form body or a query string. Empty pieces are passed over; a piece without `=` is a key with an empty value.
    ///
    /// # Errors
    /// [`FormError`].
    pub fn parse(text: &str) -> Result<Self, FormError> {
        let mut params = Self::new();
        for (count, piece) in text.split('&').filter(|piece| !piece.is_empty()).enumerate() {
            if count == MOST_PAIRS {
                return Err(FormError::TooMany);
            }
            let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
            params.add(query_unescape(key)?, query_unescape(value)?);
        }
        Ok(params)
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Params {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut params = Self::new();
        for (key, value) in pairs {
            params.add(key, value);
        }
        params
    }
}

/// Go's `url.QueryEscape`.
fn query_escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => percent(byte, out),
        }
    }
}

/// `%XX`, upper case.
pub(crate) fn percent(byte: u8, out: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    out.push('%');
    for nibble in [byte >> 4, byte & 0x0f] {
        out.extend(HEX.get(usize::from(nibble)));
    }
}

fn query_unescape(text: &str) -> Result<String, FormError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or(FormError::Escape);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high << 4 | low).map_err(|_| FormError::Escape)?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| FormError::Utf8)
}

/// A map as the value of one parameter or header: `A=1&B=2`, sorted.
pub fn map_encode(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Params>().encode()
}

/// Reads [`map_encode`]'s form; of repeated keys the first one counts, as in the originals. Empty text is the empty map.
///
/// # Errors
/// [`FormError`].
pub fn map_decode(text: &str) -> Result<BTreeMap<String, String>, FormError> {
    Ok(Params::parse(text)?.0.into_iter().filter_map(|(key, values)| Some((key, values.into_iter().next()?))).collect())
}

/// A list as the value of one parameter: joined by commas. There is no escape; items must hold no comma.
pub fn list_join(items: &[String]) -> String {
    items.join(",")
}

/// Splits at commas; empty text is the empty list.
pub fn list_split(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::to_owned).collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_form_reads_as_go_writes_it() {
        let mut params = Params::new();
        params.set("url", "object://a/b.tgz");
        params.set("description", "a b&c=ü");
        assert_eq!(params.encode(), "description=a+b%26c%3D%C3%BC&url=object%3A%2F%2Fa%2Fb.tgz");
        assert_eq!(Params::parse("k=a&k=b&x").unwrap().get("k"), Some("a"));
        assert_eq!(Params::parse("x").unwrap().get("x"), Some(""));
        assert_eq!(Params::parse("a=%"), Err(FormError::Escape));
        assert_eq!(Params::parse("a=%zz"), Err(FormError::Escape));
        assert_eq!(Params::parse("a=%ff"), Err(FormError::Utf8));
    }

    #[test]
    fn a_map_is_a_form_inside_a_value() {
        let map: BTreeMap<String, String> = [("A", "1"), ("B", "2 3")].into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        let outer = Params::new().with("parameters", map_encode(&map));
        assert_eq!(outer.encode(), "parameters=A%3D1%26B%3D2%2B3");
        assert_eq!(map_decode(outer.get("parameters").unwrap()).unwrap(), map);
        assert!(map_decode("").unwrap().is_empty());
        assert_eq!(map_decode("A=1&A=2").unwrap(), [("A".to_owned(), "1".to_owned())].into());
    }

    #[test]
    fn a_list_has_no_escape() {
        assert_eq!(list_split(&list_join(&["a".into(), "b=1".into()])), ["a", "b=1"]);
        assert_eq!(list_split("B=2,3"), ["B=2", "3"], "a comma inside an item is lost, as in the originals");
        assert_eq!(list_split(""), Vec::<String>::new());
    }

    #[test]
    fn a_form_with_too_many_fields_is_refused() {
        assert!(Params::parse(&"a&".repeat(MOST_PAIRS)).is_ok());
        assert_eq!(Params::parse(&"a&".repeat(MOST_PAIRS + 1)), Err(FormError::TooMany));
    }

    proptest! {
        #[test]
        fn a_form_survives(pairs in prop::collection::vec((".*", ".*"), 0..8)) {
            let params: Params = pairs.into_iter().collect();
            prop_assert_eq!(Params::parse(&params.encode()).unwrap(), params);
        }

        #[test]
        fn a_map_survives(map in prop::collection::btree_map(".*", ".*", 0..8)) {
            prop_assert_eq!(map_decode(&map_encode(&map)).unwrap(), map);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Params::parse(&text);
        }
    }
}
