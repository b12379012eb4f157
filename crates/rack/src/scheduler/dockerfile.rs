//! The one thing in a Dockerfile that means something without images: what it runs.

/// The argument vector of the last stage: its ENTRYPOINT followed by its CMD, or one of them.
/// `None` if there is neither.
pub(super) fn command(text: &str) -> Option<Vec<String>> {
    let (mut entrypoint, mut command) = (None, None);
    for line in logical_lines(text) {
        let (word, rest) = line.trim_start().split_once(char::is_whitespace).unwrap_or((&line, ""));
        match word.to_ascii_uppercase().as_str() {
            "FROM" => (entrypoint, command) = (None, None),
            "ENTRYPOINT" => entrypoint = Some(words(rest)),
            "CMD" => command = Some(words(rest)),
            _ => {}
        }
    }
    let whole = match (entrypoint, command) {
        // As images do: a shell form leaves no room for arguments.
        (Some((entrypoint, true)), _) => entrypoint,
        (Some((entrypoint, false)), Some((command, _))) => [entrypoint, command].concat(),
        (Some((entrypoint, false)), None) => entrypoint,
        (None, Some((command, _))) => command,
        (None, None) => Vec::new(),
    };
    (!whole.is_empty()).then_some(whole)
}

/// Lines joined where they end in a backslash; comments left out.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        match line.trim_end().strip_suffix('\\') {
            Some(begun) => open.push_str(begun),
            None => {
                open.push_str(line);
                lines.push(std::mem::take(&mut open));
            }
        }
    }
    lines.push(open);
    lines
}

/// The words of an instruction, and whether it is the shell form.
fn words(text: &str) -> (Vec<String>, bool) {
    let text = text.trim();
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) => (words, false),
        Err(_) if text.is_empty() => (Vec::new(), true),
        Err(_) => (vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()], true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_says_what_runs() {
        let of = |text: &str| command(text).unwrap_or_default();
        assert_eq!(of("FROM a\nCMD [\"old\"]\nFROM b\ncmd npm \\\n  start\n"), ["sh", "-c", "npm   start"]);
        assert_eq!(of("FROM a\nENTRYPOINT [\"tini\", \"--\"]\n# CMD x\nCMD [\"app\"]"), ["tini", "--", "app"]);
        assert_eq!(of("FROM a\nENTRYPOINT run\nCMD [\"x\"]"), ["sh", "-c", "run"]);
        assert_eq!(command("FROM a\nRUN make\n"), None);
        assert_eq!(command(""), None);
    }
}
