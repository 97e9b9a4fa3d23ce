//! Results on stdout: a table for people, JSON for programs.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, Write};

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// Aligned columns for a person.
    Table,
    /// One JSON document for a program.
    Json,
}

/// How one column of a table is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Names and texts.
    Left,
    /// Numbers.
    Right,
}

/// A table to print: a header with alignment per column, then rows of text.
#[derive(Clone, Debug)]
pub struct TableView {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl TableView {
    /// A table with these columns.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = (S, Align)>) -> Self {
        let columns = columns
            .into_iter()
            .map(|(name, align)| (name.into(), align))
            .collect();
        TableView {
            columns,
            rows: Vec::new(),
        }
    }

    /// A table of left-aligned columns.
    pub fn left<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self::new(columns.into_iter().map(|name| (name, Align::Left)))
    }

    /// A table of names and values without a header.
    pub fn pairs() -> Self {
        TableView {
            columns: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }

    /// The table as text, with a line end after each row.
    pub fn render(&self) -> String {
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        if !self.columns.is_empty() {
            table.set_header(self.columns.iter().map(|(name, _)| name.as_str()));
        }
        for row in &self.rows {
            table.add_row(row);
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            let right = self
                .columns
                .get(index)
                .is_some_and(|(_, align)| *align == Align::Right);
            column.set_padding((0, 2));
            if right {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Writes one JSON document and a line end to stdout.
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    text.push('\n');
    print_text(&text)
}

/// Writes a table to stdout.
pub fn print_table(table: &TableView) -> io::Result<()> {
    print_text(&table.render())
}

/// Writes text to stdout as it is. A closed pipe is an error here and exit 0 in `main`.
pub fn print_text(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes the result in the chosen format; the table is only made when it is wanted.
pub fn print_result(
    format: OutputFormat,
    value: &impl Serialize,
    table: impl FnOnce() -> TableView,
) -> io::Result<()> {
    match format {
        OutputFormat::Json => print_json(value),
        OutputFormat::Table => print_table(&table()),
    }
}

/// A whole number with a thin separator every three digits: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the largest unit that keeps it readable: `1.5 MiB`.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = size as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{size} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let mut table = TableView::new([("name", Align::Left), ("rows", Align::Right)]);
        table.row(["a", "1"]).row(["long name", "12345"]);
        assert_eq!(
            table.render(),
            "name        rows\na              1\nlong name  12345\n"
        );
    }

    #[test]
    fn a_table_of_pairs_has_no_header() {
        let mut table = TableView::pairs();
        table.row(["root", "runs"]);
        assert_eq!(table.render(), "root  runs\n");
    }

    #[test]
    fn numbers_and_sizes_are_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(3 * 1024 * 1024 / 2), "1.5 MiB");
    }
}
