//! The audit log as CSV, for spreadsheets.

use serde_json::Value;

/// Columns, by the names of the API.
pub(crate) const COLUMNS: [&str; 20] = [
    "at",
    "actor",
    "actor_id",
    "key_last4",
    "org",
    "org_id",
    "rack",
    "app",
    "effect",
    "action",
    "method",
    "path",
    "decision",
    "rule",
    "peer",
    "status",
    "bytes_up",
    "bytes_down",
    "duration_ms",
    "request_id",
];

/// The line of an event, as `views::event` gives it.
pub(crate) fn event(value: &Value) -> String {
    row(COLUMNS.iter().map(|name| match &value[*name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }))
}

/// A line of CSV (RFC 4180). What a spreadsheet would take for a formula gets an apostrophe before it, as OWASP advises: the texts are
/// what callers sent. What a terminal would obey is shown as a replacement character; the JSON has it as it was sent.
pub(crate) fn row(cells: impl Iterator<Item = String>) -> String {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let safe = cells.map(|cell| {
        let cell: String = cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        if cell.starts_with(['=', '+', '-', '@']) { format!("'{cell}") } else { cell }
    });
    // Writing to memory does not fail.
    let _ = writer.write_record(safe);
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_a_row_is_a_line_and_no_formula_is_run() {
        let cells = ["plain", "a,b", "say \"x\"", "two\r\nlines\u{1b}[2J", "=HYPERLINK(1)", "+1", "-1", "@x", "\t=1", ""];
        let line = row(cells.into_iter().map(str::to_owned));
        assert_eq!(line, "plain,\"a,b\",\"say \"\"x\"\"\",two\u{fffd}\u{fffd}lines\u{fffd}[2J,'=HYPERLINK(1),'+1,'-1,'@x,\u{fffd}=1,\r\n");
    }
}
