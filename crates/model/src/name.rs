//! Names that people choose, checked once where they come in.

use std::fmt;
use std::str::FromStr;

use crate::text::misleads;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct NameError {
    text: String,
    expected: &'static str,
}

fn refuse<T>(text: &str, expected: &'static str) -> Result<T, NameError> {
    // Shown in errors: short, and without anything that a terminal obeys.
    let text = text.chars().filter(|c| !misleads(*c)).take(64).collect();
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
        let sound = lower.len() <= 254 && lower.split_once('@').is_some_and(|(local, domain)| is_local(local) && is_domain(domain));
        if sound { Ok(Self(lower)) } else { refuse(text, "an e-mail address such as ada@example.com") }
    }
}

/// Words of letters, digits, `_`, `+` and `-`, with dots between them.
fn is_local(text: &str) -> bool {
    let word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_+-".contains(c));
    text.len() <= 64 && text.split('.').all(word)
}

/// Labels of letters, digits and inner dashes, with dots between them. One is enough: `ada@localhost`.
fn is_domain(text: &str) -> bool {
    text.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
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
        assert!("a".repeat(26).parse::<RackName>().is_ok() && "a".repeat(40).parse::<OrgName>().is_ok());
        assert!("a".repeat(41).parse::<OrgName>().is_err());
        let error = "a\u{1b}[31m\u{202e}".parse::<RackName>().unwrap_err().to_string();
        assert!(!error.contains(misleads), "{error:?}");
    }

    #[test]
    fn addresses_have_one_form() {
        assert_eq!(" Ada@Example.com ".parse::<Email>().unwrap().as_str(), "ada@example.com");
        for good in ["a@b", "ada+ci@mail.example.com", "a.b_c-d@x-y.example", "1@2.3"] {
            assert!(good.parse::<Email>().is_ok(), "{good}");
        }
        let (long_local, long_label) = (format!("{}@x", "a".repeat(65)), format!("a@{}", "b".repeat(64)));
        for bad in [
            "",
            "ada",
            "@x",
            "a@",
            "a@b@c",
            "a b@c",
            "a@b..c",
            "ad\u{430}@example.com",
            "a\r\n@b",
            ".a@b",
            "a.@b",
            "a..b@c",
            "a@-b",
            "a@b-",
            "a@.b",
            "a@b.",
            "a,b@c",
            "<a@b>",
            "a@b%c",
            "a@[127.0.0.1]",
            &long_local,
            &long_label,
        ] {
            assert!(bad.parse::<Email>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (text.parse::<Email>(), text.parse::<OrgName>(), text.parse::<RackName>());
        }

        /// An address travels as a header to the Rack: whatever is accepted is safe there, and is read again as itself.
        #[test]
        fn what_is_accepted_travels(text in "[ -~\r\n\t]{0,8}@?[ -~]{0,8}") {
            if let Ok(email) = text.parse::<Email>() {
                prop_assert!(email.as_str().bytes().all(|byte| byte.is_ascii_graphic() && !b"\"%,;<>()".contains(&byte)));
                prop_assert_eq!(email.to_string().parse::<Email>().unwrap(), email);
            }
        }
    }
}
