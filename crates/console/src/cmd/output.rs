//! What commands print: one JSON value for scripts, or words and tables for people.

use std::io::{self, Write as _};

use anyhow::Result;
use serde_json::Value;

pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// One thing.
    pub(super) fn value(&self, value: &Value, words: &str) -> Result<()> {
        if self.json { print(&serde_json::to_string(value)?) } else { print(words) }
    }

    /// Many things, as an array or as a table of these fields.
    pub(super) fn list(&self, fields: &[&str], rows: Vec<Value>) -> Result<()> {
        if self.json {
            return print(&serde_json::to_string(&Value::Array(rows))?);
        }
        let mut table: Vec<Vec<String>> = vec![fields.iter().map(|field| field.to_uppercase()).collect()];
        table.extend(rows.iter().map(|row| fields.iter().map(|field| cell(&row[*field])).collect()));
        let width = |column: usize| table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..fields.len()).map(width).collect();
        for row in &table {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            print(cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Words alone.
    #[expect(clippy::unused_self, reason = "the one way to talk")]
    pub(super) fn say(&self, words: &str) -> Result<()> {
        print(words)
    }

    /// A step of something that takes a while, beside the output.
    #[expect(clippy::unused_self, reason = "the one way to talk")]
    pub(super) fn progress(&self, words: &str) -> Result<()> {
        Ok(writeln!(io::stderr(), "{words}")?)
    }

    /// Something that the person should know, beside the output.
    #[expect(clippy::unused_self, reason = "the one way to talk")]
    pub(super) fn warn(&self, words: &str) -> Result<()> {
        Ok(writeln!(io::stderr(), "WARNING: {words}")?)
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        // What callers chose stands in the log; a terminal must not obey it.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        other => other.to_string(),
    }
}

fn print(line: &str) -> Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
