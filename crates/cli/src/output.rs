//! All that a command says. Data goes to standard output, talk to standard error; with `--json` standard output carries one
//! document and nothing else, and with `--id` the bare id.
//!
//! Colour follows the originals: on only when standard output is a terminal, and never with `NO_COLOR`.

use std::io::{self, Write};

use serde::Serialize;

use crate::env::Env;
use crate::error::Failure;
use crate::table::{Info, Table};

/// What a piece of text is, for its colour (256-colour numbers of the originals).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Header,
    Value,
    Start,
    Ok,
    App,
    Build,
    Release,
    Rack,
    Process,
    Service,
    Id,
}

impl Style {
    fn colour(self) -> u8 {
        match self {
            Self::Header => 244,
            Self::Value => 251,
            Self::Start | Self::Id => 247,
            Self::Ok => 46,
            Self::App => 39,
            Self::Build => 23,
            Self::Release => 24,
            Self::Rack => 26,
            Self::Process => 27,
            Self::Service => 33,
        }
    }
}

/// Where the answer of a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Tables and texts for people and for scripts of the originals.
    Text,
    /// One JSON document.
    Json,
    /// The bare id of what was made.
    Id,
}

/// Owns standard output and standard error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    form: Form,
    colour: bool,
    /// Errors follow the originals in being coloured with standard output, but never go coloured into a file.
    error_colour: bool,
}

impl Printer {
    pub(crate) fn new(env: &Env, form: Form) -> Self {
        let allowed = env.var("NO_COLOR").is_none() && env.var("TERM").as_deref() != Some("dumb");
        let colour = env.stdout_is_terminal && allowed;
        Self { form, colour, error_colour: colour && env.stderr_is_terminal }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// The same, for `--id`; `--json` outranks it.
    #[must_use]
    pub(crate) fn with_id(self, id: bool) -> Self {
        if id && self.form == Form::Text { Self { form: Form::Id, ..self } } else { self }
    }

    /// `text` in its colour, or as it is.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        if self.colour { format!("\u{1b}[38;5;{}m{text}\u{1b}[0m", style.colour()) } else { text.to_owned() }
    }

    /// Bytes of somebody else's: logs, a process, a manifest. Not changed in any way.
    #[expect(clippy::unused_self, reason = "whoever writes holds the printer")]
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// One line of data.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// One line for people; never data.
    #[expect(clippy::unused_self, reason = "whoever writes holds the printer")]
    pub(crate) fn talk(&self, text: &str) {
        // Nobody is left to be told if standard error is closed.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Part of the progress of a command: data for scripts of the originals, so on standard output unless something else has to be there.
    pub(crate) fn progress(&self, text: &str) -> Result<(), Failure> {
        if self.form == Form::Text {
            return self.raw(text.as_bytes());
        }
        let mut err = io::stderr().lock();
        let _ = err.write_all(text.as_bytes());
        let _ = err.flush();
        Ok(())
    }

    /// Bytes of a log that accompanies a command: see [`Printer::progress`].
    pub(crate) fn progress_raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        if self.form == Form::Text {
            return self.raw(bytes);
        }
        let _ = io::stderr().lock().write_all(bytes);
        Ok(())
    }

    /// `text... `, to be followed by [`Printer::ok`].
    pub(crate) fn start(&self, text: &str) -> Result<(), Failure> {
        self.progress(&format!("{}... ", self.paint(Style::Start, text)))
    }

    /// The `OK` that ends a started line.
    pub(crate) fn ok(&self) -> Result<(), Failure> {
        self.progress(&format!("{}\n", self.paint(Style::Ok, "OK")))
    }

    /// `OK, ID`.
    pub(crate) fn ok_with(&self, id: &str) -> Result<(), Failure> {
        self.progress(&format!("{}, {}\n", self.paint(Style::Ok, "OK"), self.paint(Style::Id, id)))
    }

    pub(crate) fn table(&self, table: &Table) -> Result<(), Failure> {
        let mut out = String::new();
        for (number, line) in table.lines().iter().enumerate() {
            out.push_str(&self.paint(if number == 0 { Style::Header } else { Style::Value }, line));
            out.push('\n');
        }
        self.raw(out.as_bytes())
    }

    pub(crate) fn info(&self, info: &Info) -> Result<(), Failure> {
        let mut out = String::new();
        for (header, value) in info.rows() {
            out.push_str(&format!("{}  {}\n", self.paint(Style::Header, &header), self.paint(Style::Value, &value)));
        }
        self.raw(out.as_bytes())
    }

    /// The one JSON document of a command.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| Failure::new(format!("the answer is no JSON: {error}")))?;
        self.line(&text)
    }

    /// What a changing command gives back: JSON, the bare id without a line end, or nothing more.
    pub(crate) fn result(&self, id: &str, value: &impl Serialize) -> Result<(), Failure> {
        match self.form {
            Form::Json => self.json(value),
            Form::Id => self.raw(id.as_bytes()),
            Form::Text => Ok(()),
        }
    }

    /// `ERROR: ...` and its hint.
    pub(crate) fn failure(&self, failure: &Failure) {
        let message = clean(&failure.to_string());
        let mut text = if self.error_colour {
            format!("\u{1b}[38;5;124mERROR: \u{1b}[38;5;203m{message}\u{1b}[0m\n")
        } else {
            format!("ERROR: {message}\n")
        };
        if let Some(hint) = failure.hint_text() {
            text.push_str(&format!("hint: {}\n", clean(hint)));
        }
        let mut err = io::stderr().lock();
        let _ = err.write_all(text.as_bytes());
        let _ = err.flush();
    }
}

/// Messages carry servers' words; those must not drive the terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|char| *char == '\n' || !char.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_needs_a_terminal_and_yields_to_no_color() {
        let dir = std::env::temp_dir();
        let mut env = Env::fake(&[("TERM", "xterm")], &dir);
        assert_eq!(Printer::new(&env, Form::Text).paint(Style::Ok, "OK"), "OK");
        env.stdout_is_terminal = true;
        assert_eq!(Printer::new(&env, Form::Text).paint(Style::Ok, "OK"), "\u{1b}[38;5;46mOK\u{1b}[0m");
        let mut env = Env::fake(&[("NO_COLOR", "1")], &dir);
        env.stdout_is_terminal = true;
        assert_eq!(Printer::new(&env, Form::Text).paint(Style::Ok, "OK"), "OK");
    }

    #[test]
    fn a_servers_words_cannot_drive_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\r\n\u{7}c"), "a[2Jb\nc");
    }
}
