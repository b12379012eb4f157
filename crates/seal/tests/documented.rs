//! What `docs/security.md` says of keys is what the code does, and what it points to is there.

use std::collections::BTreeSet;
use std::path::Path;

use convox_seal::KeyKind;
use convox_seal::access::Role;

const SECURITY: &str = include_str!("../../../docs/security.md");

/// Everything between backticks, with the line that it stands in.
fn quoted() -> impl Iterator<Item = (&'static str, &'static str)> {
    SECURITY.lines().flat_map(|line| line.split('`').skip(1).step_by(2).map(move |text| (text, line)))
}

#[test]
fn every_prefix_in_the_document_is_one_and_none_is_left_out() {
    let named: BTreeSet<&str> = quoted().filter_map(|(text, _)| text.strip_suffix("_...")).collect();
    assert_eq!(named, KeyKind::ALL.map(KeyKind::prefix).into_iter().collect());
    for kind in KeyKind::ALL {
        let rows = || quoted().filter(|(text, _)| text.strip_suffix("_...") == Some(kind.prefix()));
        assert!(rows().count() > 0 && rows().all(|(_, line)| line.starts_with(&format!("| {kind} "))), "the row of {kind} keys");
    }
}

#[test]
fn the_roles_of_tokens_are_named_as_they_are() {
    let row = SECURITY.lines().find(|line| line.starts_with("| Rack token ")).unwrap();
    let letters = [Role::Read, Role::Write, Role::Admin].map(|role| format!("`{}`", role.claim()));
    assert!(row.contains(&letters.join(", ")), "{row}");
}

#[test]
fn the_tests_and_files_that_it_names_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let paths = || quoted().map(|(text, _)| text).filter(|text| ["crates/", "tests/", "docs/"].iter().any(|start| text.starts_with(start)));
    let links = SECURITY.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| Path::new("docs").join(link));
    let named: Vec<_> = paths().map(Into::into).chain(links).collect();
    assert!(named.len() > 15, "{named:?}");
    for path in named {
        assert!(root.join(&path).exists(), "{} is named, and is not there", path.display());
    }
}
