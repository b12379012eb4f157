//! Which Rack a name means: exactly that one, or the only one with that ending. Never a piece of a name: `prod` must not reach
//! `nonprod`.

/// Why a selector names no single Rack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMatch {
    /// None has that name.
    #[error("no rack has that name")]
    Unknown,
    /// Several have that ending; sorted.
    #[error("several racks have that name: {}", .0.join(", "))]
    Ambiguous(Vec<String>),
}

/// The name among `names` that `selector` means: equal, else the only one of the form `*/selector`.
///
/// # Errors
/// [`NoMatch`].
pub fn resolve<'a>(selector: &str, names: impl IntoIterator<Item = &'a str>) -> Result<&'a str, NoMatch> {
    let mut found: Vec<&str> = Vec::new();
    for name in names {
        if name == selector {
            return Ok(name);
        }
        if !selector.is_empty() && name.rsplit_once('/').is_some_and(|(_, short)| short == selector) {
            found.push(name);
        }
    }
    match found.as_slice() {
        [] => Err(NoMatch::Unknown),
        [only] => Ok(only),
        _ => {
            found.sort_unstable();
            found.dedup();
            Err(NoMatch::Ambiguous(found.into_iter().map(str::to_owned).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_matched_by_a_piece_of_it() {
        let names = ["acme/prod", "acme/nonprod", "acme/prod-eu", "beta/stage", "acme/stage", "local"];
        assert_eq!(resolve("prod", names), Ok("acme/prod"));
        assert_eq!(resolve("acme/nonprod", names), Ok("acme/nonprod"));
        assert_eq!(resolve("local", names), Ok("local"));
        assert_eq!(resolve("pro", names), Err(NoMatch::Unknown));
        assert_eq!(resolve("", names), Err(NoMatch::Unknown));
        assert_eq!(resolve("acme", names), Err(NoMatch::Unknown));
        assert_eq!(resolve("stage", names), Err(NoMatch::Ambiguous(vec!["acme/stage".into(), "beta/stage".into()])));
    }
}
