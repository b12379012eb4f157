//! Names that people choose, checked once where they come in.

use std::fmt;
use std::str::FromStr;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct NameError {
    text: String,
    expected: &'static str,
}

fn refuse<T>(text: &str, expected: &'static str) -> Result<T, NameError> {
    // Shown in errors: short, and without anything that a terminal obeys.
    let text = text.chars().filter(|c| !c.is_control()).take(64).collect();
    Err(NameError { text, expected })
}

macro_rules! names {
    ($($(#[$about:meta])* $name:ident: $check:expr, $expected:literal;)*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
            pub struct $name(String);

            impl $name {
                /// The text.
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl FromStr for $name {
                type Err = NameError;

                fn from_str(text: &str) -> Result<Self, NameError> {
                    let check: fn(&str) -> bool = $check;
                    if check(text) { Ok(Self(text.to_owned())) } else { refuse(text, $expected) }
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }
        )*
    };
}

names! {
    /// Name of an organization.
    OrgName: |text| label(text, 40), "an organization's name: a letter, then letters, digits and dashes, lower case, at most 40";
    /// Name of a Rack within its organization.
    RackName: |text| label(text, 26), "a Rack's name: a letter, then letters, digits and dashes, lower case, at most 26";
}

fn label(text: &str, longest: usize) -> bool {
    text.len() <= longest
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.ends_with('-')
}

/// An e-mail address, lower case: by which people are known. Not checked for delivery.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Email(String);

impl Email {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = NameError;

    /// Plain addresses in ASCII: what travels in a header and looks like no other address.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let lower = text.trim().to_ascii_lowercase();
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        let sound = lower.len() <= 254
            && lower.split_once('@').is_some_and(|(local, domain)| {
                !local.is_empty()
                    && local.chars().all(plain)
                    && !domain.is_empty()
                    && domain.split('.').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
            });
        if sound { Ok(Self(lower)) } else { refuse(text, "an e-mail address such as ada@example.com") }
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_plain_labels() {
        assert!("acme-2".parse::<OrgName>().is_ok() && "prod".parse::<RackName>().is_ok());
        for bad in ["", "2prod", "Prod", "prod-", "a/b", "a b", "a_b", "é", "..", &"a".repeat(27)] {
            assert!(bad.parse::<RackName>().is_err(), "{bad}");
        }
        let error = "a\u{1b}[31m".parse::<RackName>().unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error:?}");
    }

    #[test]
    fn addresses_have_one_form() {
        assert_eq!(" Ada@Example.com ".parse::<Email>().unwrap().as_str(), "ada@example.com");
        for bad in ["", "ada", "@x", "a@", "a@b@c", "a b@c", "a@b..c", "ad\u{430}@example.com", "a\r\n@b"] {
            assert!(bad.parse::<Email>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (text.parse::<Email>(), text.parse::<OrgName>(), text.parse::<RackName>());
        }
    }
}
