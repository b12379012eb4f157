//! What `docs/security.md` says of keys is what the code does, and what it points to is there.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::collections::BTreeSet;
use std::path::Path;

use convox_seal::access::Role;
use convox_seal::{Credential, KeyKind};

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

/// The rows of the table of keys: its first column.
fn rows() -> Vec<&'static str> {
    let table = SECURITY.split("| Key | Opens |").nth(1).unwrap();
    table.lines().skip(2).take_while(|line| line.starts_with('|')).map(|line| line.trim_start_matches("| ")).collect()
}

#[test]
fn every_kind_of_key_has_a_row_and_every_row_is_a_kind_of_key() {
    let mut left = rows();
    for kind in Credential::all() {
        let name = kind.name();
        let at = left.iter().position(|row| row.starts_with(name));
        left.remove(at.unwrap_or_else(|| panic!("docs/security.md has no row that begins with `{name}`")));
    }
    assert!(left.is_empty(), "rows that stand for no kind of key: {left:?}");
}

/// Columns of bytes that the migrations in a directory make, in their order, as `table.column`.
fn columns_of_bytes(directory: &str) -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(directory);
    let mut files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut columns, mut table) = (BTreeSet::new(), String::new());
    for line in files.iter().flat_map(|file| std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()) {
        let code = line.split("--").next().unwrap_or_default();
        let words: Vec<&str> = code.split_whitespace().map(|word| word.trim_matches([',', ';', '(', ')'])).collect();
        match words[..] {
            ["CREATE", "TABLE", name, ..] => name.clone_into(&mut table),
            ["DROP", "TABLE", name] => columns.retain(|column: &String| !column.starts_with(&format!("{name}."))),
            ["ALTER", "TABLE", name, "DROP", "COLUMN", column] => drop(columns.remove(&format!("{name}.{column}"))),
            ["ALTER", "TABLE", name, "RENAME", "COLUMN", from, "TO", to] if columns.remove(&format!("{name}.{from}")) => {
                columns.insert(format!("{name}.{to}"));
            }
            ["ALTER", "TABLE", _, "RENAME", "TO", ..] => panic!("this test does not read `{code}`"),
            ["ALTER", "TABLE", name, "ADD", "COLUMN", column, "BLOB", ..] => drop(columns.insert(format!("{name}.{column}"))),
            [column, "BLOB", ..] => drop(columns.insert(format!("{table}.{column}"))),
            _ => {}
        }
    }
    columns
}

/// Hashes over audit events and over what is sealed, and the seals of these: they open nothing.
const NO_KEYS: [&str; 9] = [
    "audit.link",
    "audit_ends.link",
    "audit_chains.link",
    "audit_chains.seal",
    "audit_chains.anchor_link",
    "audit_chains.anchor_seal",
    "register_head.body",
    "register_pages.body",
    "audit_register.seal",
];

#[test]
fn whatever_a_database_keeps_of_a_key_belongs_to_a_kind_of_the_registry() {
    let owned = |columns: Vec<&[&str]>| columns.concat().into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let (of_console, of_rack) = Credential::all().into_iter().map(Credential::columns).unzip();
    let no_keys = NO_KEYS.map(str::to_owned).into();
    let console = columns_of_bytes("crates/store/migrations/sqlite");
    assert!(console.len() > 20, "{console:?}");
    assert_eq!(&console - &no_keys, owned(of_console));
    assert!(console.is_superset(&no_keys));
    assert_eq!(columns_of_bytes("crates/rack/migrations"), owned(of_rack));
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
