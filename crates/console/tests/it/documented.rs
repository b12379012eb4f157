//! What `--help` says is in the administrator's guide.

use std::process::Command;

/// Every command below `words`, and every option of each, as the program itself tells.
fn told(words: &[&str], commands: &mut Vec<String>, options: &mut Vec<(String, String)>) {
    let output = Command::new(env!("CARGO_BIN_EXE_convox-console")).args(words).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let listed: Vec<String> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect();
    if listed.is_empty() {
        let command = words.join(" ");
        for line in help.lines().map(str::trim_start).filter(|line| line.starts_with('-') && !line.starts_with("- ")) {
            let option = line.split([' ', ',', '=']).find(|word| word.starts_with("--")).unwrap();
            options.push((command.clone(), option.to_owned()));
        }
        commands.push(command);
    }
    for name in &listed {
        told(&[words, &[name.as_str()]].concat(), commands, options);
    }
}

#[test]
fn the_guide_names_every_command_and_every_option() {
    let guide = include_str!("../../../../docs/console-admin.md");
    let (mut commands, mut options) = (Vec::new(), Vec::new());
    told(&[], &mut commands, &mut options);
    assert!(commands.len() > 15 && options.len() > 50, "{commands:?} {options:?}");
    for command in commands {
        assert!(guide.contains(&format!("`{command}")), "the guide does not name `{command}`");
    }
    for (command, option) in options.into_iter().filter(|(_, option)| option != "--help") {
        let is_whole_word = |place: usize| !guide[place + option.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
        assert!(guide.match_indices(&option).any(|(place, _)| is_whole_word(place)), "the guide does not name {option} of `{command}`");
    }
}

#[test]
fn the_table_of_keys_names_every_kind_of_key_with_all_that_is_to_be_known_of_it() {
    let page = include_str!("../../../../docs/security.md");
    let table = page.split("\n## Keys\n").nth(1).unwrap().split("\n## ").next().unwrap();
    for kind in convox_seal::KeyKind::ALL {
        assert!(table.contains(&format!("`{}_...`", kind.prefix())), "the table has no row for {kind}");
    }
    for name in ["root key", "data key", "lookup key", "Rack password", "Rack token", "Rack signing key", "TLS key"] {
        assert!(table.contains(&format!("\n| {name}")), "the table has no row for {name}");
    }
    for row in table.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert!(cells.len() == 5 && cells.iter().all(|cell| !cell.is_empty()), "{row}");
    }
}
