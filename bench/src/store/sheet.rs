//! What a bench found: one table, notes, and what must not have happened.

use std::fmt::Write as _;

use crate::machine::Machine;

#[derive(Clone, Debug, Default)]
pub struct Sheet {
    heads: Vec<&'static str>,
    /// Columns before this one are names, and stand on the left.
    names: usize,
    rows: Vec<Vec<String>>,
    notes: Vec<String>,
    failures: Vec<String>,
}

impl Sheet {
    /// # Panics
    /// If there are fewer columns than names.
    pub fn new(names: usize, heads: &[&'static str]) -> Sheet {
        assert!(names <= heads.len());
        Sheet { names, heads: heads.to_vec(), ..Sheet::default() }
    }

    /// # Panics
    /// If it has not a cell for every column.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.heads.len());
        self.rows.push(cells);
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Something happened that must not.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    pub fn failures(&self) -> usize {
        self.failures.len()
    }

    /// The table, on what machine and with which command it was made, and the notes.
    pub fn markdown(&self, machine: &Machine, command: &str) -> String {
        let mut text = self.table();
        let mut say = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        say(String::new());
        say(format!("- Machine: {machine}"));
        say(format!("- Command: `{command}`"));
        self.notes.iter().for_each(|note| say(format!("- {note}")));
        self.failures.iter().for_each(|what| say(format!("- FAILED: {what}")));
        text
    }

    fn table(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.heads[column].len(), 2]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let mut text = String::new();
        let mut line = |cells: &[String]| {
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                // Writing to a string does not fail.
                let _ = match column >= self.names {
                    true => write!(text, "| {cell:>width$} "),
                    false => write!(text, "| {cell:<width$} "),
                };
            }
            text.push_str("|\n");
        };
        line(&self.heads.iter().map(ToString::to_string).collect::<Vec<_>>());
        let rule = |(column, width): (usize, &usize)| {
            let dashes = "-".repeat(width - 1);
            if column >= self.names { format!("{dashes}:") } else { format!("{dashes}-") }
        };
        line(&widths.iter().enumerate().map(rule).collect::<Vec<_>>());
        self.rows.iter().for_each(|row| line(row));
        text
    }
}

/// Mebibytes, with one decimal.
pub fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_is_a_markdown_table() {
        let mut sheet = Sheet::new(1, &["server", "bytes"]);
        sheet.row(vec!["ours".to_owned(), mib(3 << 19)]);
        sheet.row(vec!["a longer name".to_owned(), "123456".to_owned()]);
        sheet.note("a note");
        sheet.fail("it burns");
        let text = sheet.markdown(&Machine::this(), "x y");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "| server        |  bytes |");
        assert_eq!(lines[1], "| ------------- | -----: |");
        assert_eq!(lines[2], "| ours          |    1.5 |");
        assert!(text.contains("- Command: `x y`\n- a note\n- FAILED: it burns\n"), "{text}");
        assert_eq!(sheet.failures(), 1);
    }
}
