//! The demand for a session that a 401 may carry (protocol 3.4).

use std::fmt;

/// `WWW-Authenticate: Session path="{path}" token="{true|false}"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionDemand {
    /// Where the session is made.
    pub path: String,
    /// Whether an answer to a challenge is needed.
    pub token: bool,
}

impl SessionDemand {
    /// Reads the header's value; the form is exact, as the originals' pattern is anchored.
    pub fn parse(value: &str) -> Option<Self> {
        let rest = value.strip_prefix("Session path=\"")?.strip_suffix('"')?;
        let (path, token) = rest.split_once("\" token=\"")?;
        if path.is_empty() || path.contains('"') || token.is_empty() || token.contains('"') {
            return None;
        }
        Some(Self { path: path.to_owned(), token: token == "true" })
    }
}

impl fmt::Display for SessionDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session path=\"{}\" token=\"{}\"", self.path, self.token)
    }
}

/// Whether a `Version` header is a released v2 client's: those are moments, 14 digits; v3's are `3.x`. One that was built from its source says
/// `dev` in both generations.
pub fn is_v2(version: &str) -> bool {
    version.len() == 14 && version.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_form_is_exact() {
        for token in [true, false] {
            let demand = SessionDemand { path: "/session".into(), token };
            assert_eq!(SessionDemand::parse(&demand.to_string()), Some(demand));
        }
        for bad in ["", "Session", "Session path=\"\" token=\"true\"", "Session  path=\"/s\" token=\"true\"", "Basic realm=\"x\""] {
            assert_eq!(SessionDemand::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn generations_are_told_apart_by_their_version() {
        assert!(is_v2("20240312153045"));
        for other in ["", "dev", "3.18.9", "2024031215304", "202403121530456", "2024031215304x"] {
            assert!(!is_v2(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(Session path=\")?.*(\" token=\")?.*\"?") {
            if let Some(demand) = SessionDemand::parse(&text) {
                prop_assert!(!demand.path.is_empty());
            }
        }
    }
}
