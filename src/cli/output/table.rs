//! Text tables: each column as wide as its longest cell, two spaces between columns. Widths count
//! characters, which suits names and addresses. Pure.

use std::fmt;

use anstyle::Style;

use crate::cli::escape::escape;

/// The separator of two columns.
const GAP: &str = "  ";

/// One value of a table, escaped.
#[derive(Debug)]
pub(crate) struct TableCell {
    text: String,
    style: Style,
}

impl TableCell {
    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        let text = match text.as_ref() {
            // An empty cell would shift the columns for `cut` and `awk`.
            "" => "-".to_owned(),
            text => escape(text),
        };
        Self { text, style }
    }
}

impl<T: AsRef<str>> From<T> for TableCell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

/// Rows below a header line.
#[derive(Debug)]
pub(crate) struct Table<const COLUMNS: usize> {
    rows: Vec<[TableCell; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(crate) fn new(header: [&str; COLUMNS]) -> Self {
        Self { rows: vec![header.map(TableCell::from)] }
    }

    /// A table without a header, as for keys and values.
    pub(crate) fn without_header() -> Self {
        Self { rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: [TableCell; COLUMNS]) {
        self.rows.push(row);
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        self.rows.iter().try_for_each(|row| writeln!(formatter, "{}", format_row(row, &widths)))
    }
}

/// Formats one row, its cells padded to `widths`; the last one is not padded.
pub(crate) fn format_row<const COLUMNS: usize>(
    row: &[TableCell; COLUMNS],
    widths: &[usize; COLUMNS],
) -> String {
    let mut line = String::new();
    for (index, (TableCell { text, style }, width)) in row.iter().zip(widths).enumerate() {
        if index > 0 {
            line.push_str(GAP);
        }
        line.push_str(&format!("{style}{text}{style:#}"));
        if index + 1 < COLUMNS {
            let missing = width.saturating_sub(text.chars().count());
            line.extend(std::iter::repeat_n(' ', missing));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anstyle::AnsiColor;

    use super::*;

    #[test]
    fn columns_align_by_characters() {
        let mut table = Table::new(["NAME", "N"]);
        table.push(["größe".into(), "1".into()]);
        table.push(["".into(), "22".into()]);
        assert_eq!(table.to_string(), "NAME   N\ngröße  1\n-      22\n");
    }

    #[test]
    fn colour_adds_no_width() {
        let row = [TableCell::styled("UP", AnsiColor::Green.on_default()), "x".into()];
        assert_eq!(format_row(&row, &[4, 1]), "\u{1b}[32mUP\u{1b}[0m    x");
    }

    #[test]
    fn cell_is_always_one_line() {
        let row: [TableCell; 1] = ["a\nb".into()];
        assert_eq!(format_row(&row, &[1]), "a\\nb");
    }
}
