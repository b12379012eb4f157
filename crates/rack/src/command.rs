//! What a process runs: a list of words as it is, or a text, which a shell reads where there is one.

/// Programs that read a text themselves when they get `-c`.
const SHELLS: &[&str] = &["sh", "ash", "bash", "dash", "ksh", "zsh"];

/// First words that only a shell knows.
const OF_SHELLS: &[&str] = &[
    "!", ".", ":", "[[", "alias", "case", "cd", "chdir", "command", "eval", "exec", "exit", "export", "for", "function", "if", "kill",
    "local", "read", "readonly", "return", "set", "shift", "source", "time", "times", "trap", "type", "ulimit", "umask", "unalias",
    "unset", "until", "wait", "while", "}",
];

/// What a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The argument vector, of a text `["sh", "-c", text]`; empty if there is none.
    pub words: Vec<String>,
    /// Whether it was a text: where no shell can read it, it is split into words.
    pub is_text: bool,
}

impl Command {
    /// Of a text; none of a blank one.
    pub fn text(text: &str) -> Self {
        match text.trim() {
            "" => Self::default(),
            _ => Self { words: ["sh", "-c", text].map(str::to_owned).to_vec(), is_text: true },
        }
    }

    /// Of words that are meant as they are.
    pub fn list(words: Vec<String>) -> Self {
        Self { words, is_text: false }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
}

/// A text as the words that a shell would make of it if nothing in it was a variable, a pattern or an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) words: Vec<String>,
    /// Whether a shell would make the same of it.
    pub(crate) is_plain: bool,
    /// Whether it is not for another shell to read: it names its own, or begins with a flag for an ENTRYPOINT.
    pub(crate) is_own: bool,
}

/// Splits a text. `None` if a quote is not closed.
pub(crate) fn split(text: &str) -> Option<Split> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    // What a shell would act on: outside of quotes, and in double ones.
    let (mut is_open, mut is_quoted) = (false, false);
    // How many words there were at the end of each line.
    let mut lines = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => {
                words.extend(word.take());
                lines.extend((c == '\n').then_some(words.len()));
            }
            '\\' => match chars.next()? {
                '\n' => {}
                escaped => word.get_or_insert_default().push(escaped),
            },
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        quoted => word.push(quoted),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => match chars.next()? {
                            '\n' => {}
                            escaped @ ('$' | '`' | '"' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        quoted => {
                            is_quoted |= matches!(quoted, '$' | '`');
                            word.push(quoted);
                        }
                    }
                }
            }
            _ => {
                let begins = word.is_none();
                is_open |= "|&;<>()$`*?[{".contains(c) || begins && "#~".contains(c) || c == '=' && words.is_empty();
                word.get_or_insert_default().push(c);
            }
        }
    }
    words.extend(word);
    is_open |= lines.iter().any(|count| (1..words.len()).contains(count));
    let first = words.first().map_or("", String::as_str);
    let program = first.rsplit('/').next().unwrap_or(first);
    let takes_text =
        words.iter().skip(1).take_while(|word| word.starts_with('-')).any(|flag| !flag.starts_with("--") && flag.ends_with('c'));
    let is_own = first.starts_with('-') || SHELLS.contains(&program) && takes_text && !is_open;
    let is_plain = !is_open && !is_quoted && !OF_SHELLS.contains(&first);
    Some(Split { words, is_plain, is_own })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_shell_and_no_shell_make_the_same_of_is_plain() {
        let of = |text: &str| split(text).map(|split| (split.words.join("|"), split.is_plain, split.is_own)).unwrap_or_default();
        assert_eq!(of("bin/web -p 3000 --name='a b' \"c d\" e\\ f\n"), ("bin/web|-p|3000|--name=a b|c d|e f".into(), true, false));
        assert_eq!(of("bin/web \\\n  --port 80 ''"), ("bin/web|--port|80|".into(), true, false));
        for shell in [
            "a && b", "a $X", "a \"$X\"", "a | b", "a > b", "X=1 a", "exec a", "cd b", "ls *.txt", "a # b", "a ~", "a\nb", "(a)", "a `b`",
            "a {b,c}", "kill 1",
        ] {
            assert!(!of(shell).1 && !of(shell).2, "{shell}");
        }
        assert_eq!(of("a 'b $X' c=d e#f"), ("a|b $X|c=d|e#f".into(), true, false));
    }

    #[test]
    fn a_text_for_its_own_shell_or_for_an_entrypoint_is_nobody_elses() {
        let is_own = |text: &str| split(text).unwrap().is_own;
        assert!(
            is_own("sh -c 'a && b'")
                && is_own("/bin/bash -euxc \"x=1; echo $x\"")
                && is_own("bash -e -c 'a'")
                && is_own("--url=http://x?a&b")
        );
        assert!(!is_own("sh -c 'a' && b") && !is_own("sh run.sh -c") && !is_own("bash --norc") && !is_own("python -c 'x'"));
    }

    #[test]
    fn a_quote_that_is_not_closed_makes_no_words() {
        assert!(["a 'b", "a \"b", "a \\", "\"\\"].iter().all(|text| split(text).is_none()));
        assert!(Command::text(" \n").is_empty());
    }

    proptest! {
        /// The machine's own shell is asked what it makes of a plain text.
        #[test]
        fn words_of_a_plain_text_are_the_shells(text in "[a-c'\"\\\\ =.$-]{1,24}") {
            if let Some(Split { words, is_plain: true, .. }) = split(&text)
                && !words.is_empty()
            {
                let script = format!("printf '%s\\n' {text}");
                let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
                prop_assert_eq!(String::from_utf8(said.stdout).unwrap(), words.join("\n") + "\n");
            }
        }
    }
}
