//! The text of an environment: one `K=V` a line, sorted (protocol 6.4).

use std::collections::BTreeMap;

/// Reads the lines: split at the first `=`, key trimmed, lines without `=` or key passed over. Carriage returns at the end of a line
/// belong to the line, not to the value.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.trim_end_matches('\r').split_once('=')?;
            let key = key.trim();
            (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Writes the lines, sorted, without a newline at the end.
pub fn format(env: &BTreeMap<String, String>) -> String {
    let mut lines: Vec<String> = env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// `env add:A change:B remove:C`, keys sorted; empty when nothing differs. Names keys only, never values.
pub fn describe_change(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> String {
    let mut words: Vec<String> = Vec::new();
    let added = new.keys().filter(|key| !old.contains_key(*key)).map(|key| format!("add:{key}"));
    let changed =
        new.iter().filter(|(key, value)| old.get(*key).is_some_and(|before| before != *value)).map(|(key, _)| format!("change:{key}"));
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(|key| format!("remove:{key}"));
    words.extend(added.chain(changed).chain(removed));
    if words.is_empty() { String::new() } else { format!("env {}", words.join(" ")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_are_described_by_key_alone() {
        let (old, new) = (parse("A=1\nB=2\nC=3"), parse("A=1\nB=x\nD=secret"));
        assert_eq!(describe_change(&old, &new), "env add:D change:B remove:C");
        assert_eq!(describe_change(&old, &old), "");
        assert_eq!(parse("A=1\r\nB=2\r\r\n"), parse("A=1\nB=2"));
        assert_eq!(parse(" K = v=w \nnothing\n=x\n"), [("K".to_owned(), " v=w ".to_owned())].into());
    }

    proptest! {
        #[test]
        fn what_was_read_reads_again(text in "([A-C =é\r\n\u{85}]{0,30})") {
            let env = parse(&text);
            prop_assert_eq!(parse(&format(&env)), env);
        }

        #[test]
        fn an_environment_survives(env in prop::collection::btree_map("[A-Za-z_][A-Za-z0-9_]{0,8}", "[^\r\n]*", 0..8)) {
            prop_assert_eq!(parse(&format(&env)), env);
        }
    }
}
