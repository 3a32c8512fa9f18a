//! Columns for people: a header, and foreign text that a terminal cannot obey.

use crate::foreign_text::printable;

/// Rows below a header, each column as wide as its widest cell; the last one is not padded.
pub(super) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Its cells are freed of what a terminal would obey.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// Each line ends with a line's end.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let cells = cells.map(|cell| cell.chars().count());
            cells.chain([self.header[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let header = self.header.iter().map(|cell| (*cell).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// `2026-11-21T01:19:01.000Z` as `2026-11-21 01:19:01`; what is no moment as it is.
pub(super) fn moment(rfc3339: &str) -> String {
    match (rfc3339.get(..10), rfc3339.get(11..19)) {
        (Some(day), Some(time)) => printable(&format!("{day} {time}")),
        _ => printable(rfc3339),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_obey_nobody() {
        let mut table = Table::new(&["ID", "STATE", "TITLE"]);
        table.row(["1", "active", "a\u{1b}]0;evil\u{7}b"]);
        table.row(["22", "ok", ""]);
        assert_eq!(table.text(), "ID  STATE   TITLE\n1   active  a]0;evilb\n22  ok\n");
    }

    #[test]
    fn moments_are_short_and_strange_ones_harmless() {
        assert_eq!(moment("2026-11-21T01:19:01.000Z"), "2026-11-21 01:19:01");
        assert_eq!(moment("ä\u{1b}"), "ä");
    }
}
