//! Handlers and rows belong together, and the compiler sees to it: a handler of a name that no row of the route table has is an error, so
//! nothing can be served past the table's effects.

use convox_wire::routes::ROUTES;

/// The row that needs no credential.
pub(super) const CHECK: &str = row("Check");
/// The row that needs nothing but a credential.
pub(super) const AUTH: &str = row("Auth");

/// The name itself, if a row has it; else this does not compile.
pub(super) const fn row(name: &'static str) -> &'static str {
    assert!(has_row(name), "no row of the route table has this name: add one to convox_wire::routes, with its effect");
    name
}

const fn has_row(name: &str) -> bool {
    let mut at = 0;
    while at < ROUTES.len() {
        if is_same(ROUTES[at].name.as_bytes(), name.as_bytes()) {
            return true;
        }
        at += 1;
    }
    false
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// A `match` on the name of a row.
macro_rules! handlers {
    ($name:expr, { $($($row:literal)|+ => $handler:expr,)+ _ => $otherwise:expr $(,)? }) => {{
        // Items, not inline constants: those are looked at by a check too.
        $($(const _: &str = $crate::api::rows::row($row);)+)+
        match $name {
            $($($row)|+ => $handler,)+
            _ => $otherwise,
        }
    }};
}
pub(super) use handlers;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_row_as_a_whole_or_not_at_all() {
        assert!(has_row("AppGet") && has_row("ProcessExec"));
        for other in ["", "App", "AppGe", "AppGets", "appget"] {
            assert!(!has_row(other), "{other}");
        }
    }
}
