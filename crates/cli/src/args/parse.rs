//! From words to a [`Cli`], with the originals' texts where the words make no sense.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};

use super::{Cli, elsewhere, help};
use crate::error::Failure;

/// What the words amount to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A command to run.
    Run(Box<Cli>),
    /// Text for standard output; the exit code is 0.
    Say(String),
}

/// Reads the command line; the first word is the program's name.
pub(crate) fn parse(words: Vec<String>) -> Result<Outcome, Failure> {
    let mut root = Cli::command();
    root.build();
    let given = words.get(1..).unwrap_or_default();
    match given.first().map(String::as_str) {
        None => return Ok(Outcome::Say(help::list(&root))),
        Some("-v" | "--version") => return Ok(Outcome::Say(format!("{}\n", crate::VERSION))),
        Some("-h" | "--help") => return Ok(Outcome::Say(help::list(&root))),
        _ => {}
    }
    let (command, path) = find(&root, given);
    let normal = normalize(command, given);
    let words: Vec<String> = words.first().cloned().into_iter().chain(normal).collect();
    let parsed = root.try_get_matches_from_mut(words).and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    let command = path.iter().try_fold(&root, |command, word| command.find_subcommand(word)).unwrap_or(&root);
    match parsed {
        Ok(cli) => Ok(Outcome::Run(Box::new(cli))),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Outcome::Say(help::of(command, &path))),
        Err(error) => Err(match elsewhere::reason(given) {
            Some(reason) => Failure::new(format!("not a command of this convox: {}", named(given))).hint(reason),
            None => explain(&error, command, &path),
        }),
    }
}

/// The words before the first flag.
fn named(words: &[String]) -> String {
    words.iter().take_while(|word| !word.starts_with('-')).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// The longest sequence of command names that the words start with, flags in between passed over.
fn find<'a>(root: &'a Command, words: &[String]) -> (&'a Command, Vec<String>) {
    let (mut command, mut path) = (root, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        if word.starts_with('-') {
            // A flag may stand between the names; its value is no name.
            if takes_value(command, word) {
                words.next();
            }
            continue;
        }
        match command.find_subcommand(word) {
            Some(next) => {
                command = next;
                path.push(word.clone());
            }
            None => break,
        }
    }
    (command, path)
}

fn flag<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.trim_start_matches('-');
    command.get_arguments().find(|arg| {
        if word.starts_with("--") {
            arg.get_long() == Some(name)
        } else {
            name.chars().count() == 1 && arg.get_short() == name.chars().next()
        }
    })
}

fn takes_value(command: &Command, word: &str) -> bool {
    !word.contains('=')
        && flag(command, word)
            .is_some_and(|arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !arg.is_require_equals_set())
}

/// `--wait=true` is `--wait`, and `--wait=false` (or anything else but `true`) is nothing, as with the originals.
fn normalize(command: &Command, words: &[String]) -> Vec<String> {
    let mut ended = false;
    words
        .iter()
        .filter_map(|word| {
            ended |= word == "--";
            if ended || !word.starts_with('-') {
                return Some(word.clone());
            }
            let Some((name, value)) = word.split_once('=') else { return Some(word.clone()) };
            match flag(command, name) {
                Some(arg) if matches!(arg.get_action(), ArgAction::SetTrue) => (value == "true").then(|| name.to_owned()),
                _ => Some(word.clone()),
            }
        })
        .collect()
}

fn explain(error: &clap::Error, command: &Command, path: &[String]) -> Failure {
    let text = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let hint = if path.is_empty() { "convox help".to_owned() } else { format!("convox {} --help", path.join(" ")) };
    let word = text(ContextKind::InvalidArg).unwrap_or_default();
    let failure = match error.kind() {
        ErrorKind::UnknownArgument if word.starts_with('-') => {
            let failure = Failure::new(format!("unknown flag: {word}"));
            let runs_a_command = command.get_positionals().any(|arg| arg.get_id() == "command");
            return failure.hint(if runs_a_command { format!("what belongs to the command goes after `--`; {hint}") } else { hint });
        }
        ErrorKind::UnknownArgument | ErrorKind::TooManyValues | ErrorKind::InvalidSubcommand if path.is_empty() => {
            let name = text(ContextKind::InvalidSubcommand).unwrap_or(word);
            let failure = Failure::new(format!("unknown command: {name}"));
            return failure.hint(match text(ContextKind::SuggestedSubcommand) {
                Some(close) => format!("did you mean `convox {close}`? convox help lists all commands"),
                None => "convox help lists all commands".to_owned(),
            });
        }
        ErrorKind::InvalidSubcommand if command.get_positionals().next().is_none() && command.has_subcommands() => {
            let name = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            Failure::new(format!("unknown command: {} {name}", path.join(" ")))
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Failure::new(format!("incomplete command: {}", path.join(" ")))
        }
        ErrorKind::UnknownArgument | ErrorKind::TooManyValues | ErrorKind::InvalidSubcommand | ErrorKind::MissingRequiredArgument => {
            Failure::new(counts(command))
        }
        ErrorKind::InvalidValue if text(ContextKind::InvalidValue).is_none_or(|value| value.is_empty()) => {
            Failure::new(format!("flag needs an argument: {}", word.split(' ').next().unwrap_or_default()))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = text(ContextKind::InvalidValue).unwrap_or_default();
            let reason = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
            let known = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(valid)) if !valid.is_empty() => format!(": one of {}", valid.join(", ")),
                _ => String::new(),
            };
            let what = word.split(' ').next().unwrap_or_default();
            let what = if what.starts_with('-') { format!("{what} flag") } else { what.to_owned() };
            Failure::new(format!("invalid argument \"{value}\" for {what}{reason}{known}"))
        }
        ErrorKind::ArgumentConflict => {
            let other = text(ContextKind::PriorArg).unwrap_or_default();
            let short = |arg: &str| arg.split(' ').next().unwrap_or_default().to_owned();
            Failure::new(format!("{} and {} exclude each other", short(&word), short(&other)))
        }
        _ => Failure::new(error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()),
    };
    failure.hint(hint)
}

/// How many arguments a command wants, in the originals' words.
fn counts(command: &Command) -> String {
    let positionals: Vec<&Arg> = command.get_positionals().collect();
    let least = positionals.iter().filter(|arg| arg.is_required_set()).count();
    let is_open = positionals
        .iter()
        .any(|arg| matches!(arg.get_action(), ArgAction::Append) || arg.get_num_args().is_some_and(|range| range.max_values() > 1));
    let words = |count: usize| if count == 1 { "1 arg".to_owned() } else { format!("{count} args") };
    if is_open {
        format!("at least {} required", words(least))
    } else if least == positionals.len() {
        format!("{} required", words(least))
    } else {
        format!("no more than {} expected", words(positionals.len()))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::{Access, Apps, AppsCommand, Cli, Command, RackCommand};
    use super::{Outcome, parse};
    use crate::error::Failure;

    fn parsed(line: &str) -> Result<Outcome, Failure> {
        parse(line.split(' ').map(str::to_owned).collect())
    }

    fn failed(line: &str) -> String {
        parsed(line).unwrap_err().to_string()
    }

    fn command(line: &str) -> Command {
        match parsed(line).unwrap() {
            Outcome::Run(cli) => cli.command,
            Outcome::Say(text) => panic!("{text}"),
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn argument_counts_are_told_as_the_originals_tell_them() {
        for (line, text) in [
            ("convox apps delete", "1 arg required"),
            ("convox apps delete a b", "1 arg required"),
            ("convox apps info a b", "no more than 1 arg expected"),
            ("convox exec P", "at least 2 args required"),
            ("convox exec", "at least 2 args required"),
            ("convox env unset", "at least 1 arg required"),
            ("convox racks x", "0 args required"),
            ("convox logs x", "0 args required"),
            ("convox switch a b", "no more than 1 arg expected"),
            ("convox apps --nonsense", "unknown flag: --nonsense"),
            ("convox apps -z", "unknown flag: -z"),
            ("convox nosuch", "unknown command: nosuch"),
            ("convox apps nosuch", "unknown command: apps nosuch"),
            ("convox builds --limit", "flag needs an argument: --limit"),
            ("convox builds --limit x", "invalid argument \"x\" for --limit flag: invalid digit found in string"),
        ] {
            assert_eq!(failed(line), text, "{line}");
        }
    }

    #[test]
    fn flags_stand_anywhere_and_the_last_of_two_counts() {
        for line in [
            "convox apps -r x info shop",
            "convox apps info shop -r x",
            "convox apps info -r x shop",
            "convox apps info shop -rx",
            "convox apps info shop --rack=x -r=x",
        ] {
            let Command::Apps(apps) = command(line) else { panic!("{line}") };
            assert_eq!(apps.rack.rack.as_deref().map(|rack| rack.trim_start_matches('=')), Some("x"), "{line}");
            assert!(matches!(apps.command, Some(AppsCommand::Info(_))), "{line}");
        }
        let Command::Ps(ps) = command("convox ps -a one -a two") else { panic!() };
        assert_eq!(ps.app.app.as_deref(), Some("two"));
        let Command::Exec(exec) = command("convox exec P cat -a shop x") else { panic!() };
        assert_eq!((exec.command.join(" "), exec.app.app.as_deref()), ("cat x".to_owned(), Some("shop")));
        let Command::Exec(exec) = command("convox exec P -a shop -- ls -la --wait=true") else { panic!() };
        assert_eq!(exec.command.join(" "), "ls -la --wait=true");
    }

    #[test]
    fn switches_take_a_value_as_the_originals_do() {
        for (line, wait) in [
            ("convox deploy --wait=true", true),
            ("convox deploy --wait=false", false),
            ("convox deploy -w", true),
            ("convox deploy -w=no", false),
        ] {
            let Command::Deploy(deploy) = command(line) else { panic!() };
            assert_eq!(deploy.wait.wait, wait, "{line}");
        }
        let Command::Run(run) = command("convox run web sh --entrypoint=false") else { panic!() };
        assert_eq!(run.entrypoint, "false");
        let Command::Run(run) = command("convox run web sh -e -d") else { panic!() };
        assert_eq!((run.entrypoint.as_str(), run.detach), ("true", true));
    }

    #[test]
    fn the_deepest_command_is_found() {
        let Command::Rack(rack) = command("convox rack access key rotate -r x --json") else { panic!() };
        assert!(matches!(rack.command, Some(RackCommand::Access(Access { command: Some(_), .. }))));
        assert_eq!(rack.rack.rack.as_deref(), Some("x"));
        let Command::Apps(apps) = command("convox apps params set A=1 B=2 -a shop") else { panic!() };
        assert_eq!(apps.app.app.as_deref(), Some("shop"));
        let Command::Apps(Apps { command: Some(AppsCommand::Params { name, command: None }), .. }) = command("convox apps params shop")
        else {
            panic!()
        };
        assert_eq!(name.app_name.as_deref(), Some("shop"));
    }
}
