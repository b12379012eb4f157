//! Tables and info listings: plain columns, two spaces between, no borders, the last column never padded.

use unicode_width::UnicodeWidthStr;

/// Rows under a header. An empty table still shows its header.
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.push(cells.iter().map(ToString::to_string).collect());
    }

    pub(crate) fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(one_line).collect());
    }

    /// Header first, then rows; no line ends.
    pub(crate) fn lines(&self) -> Vec<String> {
        let last = self.header.len().saturating_sub(1);
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = std::iter::once(&self.header).chain(&self.rows).filter_map(|row| row.get(column));
                if column == last { 0 } else { cells.map(|cell| cell.width()).max().unwrap_or(0) }
            })
            .collect();
        std::iter::once(&self.header)
            .chain(&self.rows)
            .map(|row| {
                let cells: Vec<String> =
                    widths.iter().enumerate().map(|(column, width)| padded(row.get(column).map_or("", String::as_str), *width)).collect();
                cells.join("  ")
            })
            .collect()
    }
}

/// `Header  value` lines. A value's further lines are put under its first.
#[derive(Default)]
pub(crate) struct Info {
    rows: Vec<(String, String)>,
}

impl Info {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn add(&mut self, header: &str, value: impl Into<String>) -> &mut Self {
        let clean: String = value.into().chars().filter(|char| *char == '\n' || *char == '\t' || !char.is_control()).collect();
        self.rows.push((one_line(header.to_owned()), clean));
        self
    }

    /// Header (padded) and value of each row.
    pub(crate) fn rows(&self) -> Vec<(String, String)> {
        let width = self.rows.iter().map(|(header, _)| header.width()).max().unwrap_or(0);
        let indent = format!("\n{:width$}  ", "");
        self.rows.iter().map(|(header, value)| (padded(header, width), value.replace('\n', &indent))).collect()
    }
}

/// What a server names must not move the cursor or add rows.
fn one_line(cell: String) -> String {
    if cell.chars().any(char::is_control) { cell.chars().map(|char| if char.is_control() { ' ' } else { char }).collect() } else { cell }
}

fn padded(cell: &str, width: usize) -> String {
    let missing = width.saturating_sub(cell.width());
    format!("{cell}{:missing$}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(Table::new(&["APP", "STATUS", "RELEASE"]).lines(), ["APP  STATUS  RELEASE"]);
    }

    #[test]
    fn columns_are_as_wide_as_shown_and_an_empty_last_cell_leaves_its_spaces() {
        let mut table = Table::new(&["APP", "STATUS", "RELEASE"]);
        table.row(["shop", "running", ""]);
        table.row(["日本", "x", "R1"]);
        assert_eq!(table.lines(), ["APP   STATUS   RELEASE", "shop  running  ", "日本  x        R1"]);
    }

    #[test]
    fn a_cell_is_one_line_whatever_a_server_puts_into_it() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["x\n\u{1b}[2Jy", "z"]);
        assert_eq!(table.lines()[1], "x  [2Jy  z");
    }

    #[test]
    fn further_lines_of_a_value_stand_under_its_first() {
        let mut info = Info::new();
        info.add("Name", "a").add("Router", "one\ntwo");
        assert_eq!(info.rows(), [("Name  ".to_owned(), "a".to_owned()), ("Router".to_owned(), "one\n        two".to_owned())]);
    }
}
