//! Help texts: the list of all commands, and one command's usage, description, options and examples.

use clap::{Arg, ArgAction, Command};

/// Every command with its description, sorted.
pub(crate) fn list(root: &Command) -> String {
    let mut rows = Vec::new();
    collect(root, "", &mut rows);
    rows.sort();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = rows.iter().map(|(name, about)| format!("{name:width$}  {about}\n")).collect();
    lines.concat()
}

fn collect(command: &Command, prefix: &str, rows: &mut Vec<(String, String)>) {
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        let name = if prefix.is_empty() { child.get_name().to_owned() } else { format!("{prefix} {}", child.get_name()) };
        // What does nothing by itself (`api`, `rack access key`) is no command.
        if !child.is_subcommand_required_set() {
            rows.push((name.clone(), about(child)));
        }
        collect(child, &name, rows);
    }
}

/// One command, in the originals' sections, with examples where there are some.
pub(crate) fn of(command: &Command, path: &[String]) -> String {
    let mut text = format!("USAGE\n  convox {} {}\n\nDESCRIPTION\n  {}\n", path.join(" "), usage(command), about(command));
    let rows: Vec<(String, String)> = options(command);
    if !rows.is_empty() {
        let width = rows.iter().map(|(flag, _)| flag.len()).max().unwrap_or(0);
        text.push_str("\nOPTIONS\n");
        for (flag, about) in rows {
            text.push_str(&format!("  {flag:width$}  {about}\n"));
        }
    }
    let mut children = Vec::new();
    collect(command, &path.join(" "), &mut children);
    if !children.is_empty() {
        let width = children.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        text.push_str("\nCOMMANDS\n");
        for (name, about) in children {
            text.push_str(&format!("  convox {name:width$}  {about}\n"));
        }
    }
    if let Some(examples) = command.get_after_help() {
        text.push_str(&format!("\n{examples}\n"));
    }
    text
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

fn usage(command: &Command) -> String {
    let words: Vec<String> = command
        .get_positionals()
        .map(|arg| {
            let name = arg.get_value_names().and_then(|names| names.first()).map_or_else(|| arg.get_id().to_string(), ToString::to_string);
            let many = matches!(arg.get_action(), ArgAction::Append) || arg.get_num_args().is_some_and(|range| range.max_values() > 1);
            match (arg.is_required_set(), many) {
                (true, false) => format!("<{name}>"),
                (true, true) => format!("<{name}> [{name}]..."),
                (false, false) => format!("[{name}]"),
                (false, true) => format!("[{name}]..."),
            }
        })
        .collect();
    words.join(" ")
}

/// Sorted by name: `--limit limit  -l limit`, and what it means.
fn options(command: &Command) -> Vec<(String, String)> {
    let mut flags: Vec<&Arg> =
        command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| long != "help") && !arg.is_hide_set()).collect();
    flags.sort_by_key(|arg| arg.get_long());
    flags
        .into_iter()
        .map(|arg| {
            let value = match arg.get_action() {
                ArgAction::SetTrue | ArgAction::Help => String::new(),
                _ => arg.get_value_names().and_then(|names| names.first()).map(|name| format!(" {name}")).unwrap_or_default(),
            };
            let short = arg.get_short().map(|short| format!("  -{short}")).unwrap_or_default();
            let long = arg.get_long().unwrap_or_default();
            (format!("--{long}{value}{short}"), arg.get_help().map(ToString::to_string).unwrap_or_default())
        })
        .collect()
}

/// `help WORDS`: one command, or the list.
pub(crate) fn about_words(words: &[String]) -> String {
    use clap::CommandFactory as _;
    let mut root = super::Cli::command();
    root.build();
    let mut command = &root;
    for word in words {
        match command.find_subcommand(word) {
            Some(next) => command = next,
            None => return list(&root),
        }
    }
    if words.is_empty() { list(&root) } else { of(command, words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_list_names_every_command_once_and_no_mere_prefix() {
        let text = about_words(&[]);
        for name in [
            "apps create",
            "apps params set",
            "deploy",
            "env set",
            "login",
            "rack access key rotate",
            "releases rollback",
            "switch",
            "whoami",
        ] {
            assert_eq!(
                text.lines()
                    .filter(|line| line.starts_with(&format!("{name}  ")) || line.starts_with(&format!("{name} ")))
                    .filter(|line| line.split("  ").next() == Some(name))
                    .count(),
                1,
                "{name}\n{text}"
            );
        }
        assert!(
            !text.lines().any(|line| line.split("  ").next() == Some("rack access key") || line.split("  ").next() == Some("api")),
            "{text}"
        );
    }

    #[test]
    fn one_commands_help_has_usage_description_options_and_examples() {
        let text = about_words(&words("env set"));
        assert!(
            text.starts_with("USAGE\n  convox env set [key=value]...\n\nDESCRIPTION\n  set env var(s)\n\nOPTIONS\n  --app app  -a"),
            "{text}"
        );
        assert!(text.contains("\nEXAMPLES\n  convox env set "), "{text}");
        assert!(about_words(&words("exec")).contains("convox exec <pid> <command> [command]..."));
    }

    fn leaves(command: &Command, path: &str, found: &mut Vec<(String, Option<String>)>) {
        for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
            let name = format!("{path} {}", child.get_name());
            if !child.is_subcommand_required_set() {
                found.push((name.clone(), child.get_after_help().map(ToString::to_string)));
            }
            leaves(child, &name, found);
        }
    }

    /// The words of the `convox` command in a line of shell, up to what belongs to the shell.
    fn typed(line: &str) -> Option<Vec<String>> {
        let from = line.find("convox ")?;
        let mut words = vec![String::new()];
        let mut quote = None;
        for char in line.get(from..)?.chars() {
            match (quote, char) {
                (None, '|' | '>' | '<' | ')') => break,
                (None, ' ') => words.push(String::new()),
                (None, '"' | '\'') => quote = Some(char),
                (Some(open), close) if open == close => quote = None,
                (_, char) => words.last_mut()?.push(char),
            }
        }
        words.retain(|word| !word.is_empty());
        Some(words)
    }

    #[test]
    fn every_command_has_an_example_that_can_be_typed() {
        use clap::CommandFactory as _;
        let mut root = super::super::Cli::command();
        root.build();
        let mut commands = Vec::new();
        leaves(&root, "convox", &mut commands);
        assert!(commands.len() > 50, "{}", commands.len());
        for (name, examples) in commands {
            let examples = examples.unwrap_or_else(|| panic!("`{name} --help` has no example"));
            let lines: Vec<&str> = examples.strip_prefix("EXAMPLES\n").unwrap_or_else(|| panic!("{name}: {examples}")).lines().collect();
            assert!(lines.iter().any(|line| line.contains(&name)), "{name}: {examples}");
            for line in lines {
                // A value of an option that is checked when it is read is no real one in a help text.
                let words =
                    typed(&line.replace("sha256:...", &format!("sha256:{}", "ab".repeat(32)))).unwrap_or_else(|| panic!("{name}: {line}"));
                super::super::parse(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }
}
