//! Tables: what stands in a cell, how it is written, and how rows are put in order.

use std::cmp::Ordering;
use std::io::{self, Write};

use serde_json::{Map, Value};

use crate::watch::scaled;

/// What stands in a place of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Text(String),
    Count(u64),
    /// A second.
    Rate(f64),
    Bytes(u64),
    Ns(u64),
    Percent(f64),
    /// It is not known, or has no meaning.
    Unknown,
}

impl Cell {
    pub(super) fn text(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Count(count) => count.to_string(),
            Cell::Rate(rate) if *rate >= 100.0 => format!("{rate:.0}"),
            Cell::Rate(rate) => format!("{rate:.1}"),
            Cell::Bytes(bytes) => scaled(u128::from(*bytes)),
            Cell::Ns(ns) => duration(*ns),
            Cell::Percent(percent) => format!("{percent:.1}"),
            Cell::Unknown => "-".into(),
        }
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Cell::Text(text) => text.as_str().into(),
            Cell::Count(number) | Cell::Bytes(number) | Cell::Ns(number) => (*number).into(),
            Cell::Rate(number) | Cell::Percent(number) => (*number).into(),
            Cell::Unknown => Value::Null,
        }
    }

    fn number(&self) -> f64 {
        match self {
            Cell::Text(_) | Cell::Unknown => f64::NEG_INFINITY,
            Cell::Count(number) | Cell::Bytes(number) | Cell::Ns(number) => *number as f64,
            Cell::Rate(number) | Cell::Percent(number) => *number,
        }
    }

    /// Numbers by size, texts by their letters, what is unknown before both.
    fn order(&self, other: &Cell) -> Ordering {
        match (self, other) {
            (Cell::Text(one), Cell::Text(two)) => one.cmp(two),
            _ => self.number().total_cmp(&other.number()),
        }
    }
}

/// Three digits and a unit.
fn duration(ns: u64) -> String {
    let units = [("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)];
    match units.into_iter().find(|(_, size)| ns >= *size) {
        None => format!("{ns} ns"),
        Some((unit, size)) => {
            let (whole, hundredths) = (ns / size, ns % size * 100 / size);
            match whole {
                0..10 => format!("{whole}.{hundredths:02} {unit}"),
                10..100 => format!("{whole}.{} {unit}", hundredths / 10),
                _ => format!("{whole} {unit}"),
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// The name in JSON.
    pub(super) key: &'static str,
    /// The name on the screen.
    pub(super) heading: &'static str,
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// The name in JSON.
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Vec<Cell>>,
}

impl Table {
    /// The rows by one column; those that are alike there stay as they were.
    pub(super) fn sorted(&self, column: usize, descending: bool) -> Vec<&[Cell]> {
        let mut rows: Vec<&[Cell]> = self.rows.iter().map(Vec::as_slice).collect();
        rows.sort_by(|one, two| {
            let order = match (one.get(column), two.get(column)) {
                (Some(one), Some(two)) => one.order(two),
                _ => Ordering::Equal,
            };
            if descending { order.reverse() } else { order }
        });
        rows
    }

    /// As wide as each column must be.
    pub(super) fn widths(&self) -> Vec<usize> {
        let widest = |(place, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(place));
            // A mark of the order stands beside a heading.
            let heading = column.heading.chars().count() + 1;
            cells.map(|cell| cell.text().chars().count()).max().unwrap_or(0).max(heading)
        };
        self.columns.iter().enumerate().map(widest).collect()
    }

    pub(super) fn json(&self) -> Value {
        let object = |row: &Vec<Cell>| {
            let cells = self.columns.iter().zip(row);
            let fields = cells.map(|(column, cell)| (column.key.to_owned(), cell.json()));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        Value::Array(self.rows.iter().map(object).collect())
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let widths = self.widths();
        writeln!(out, "\n{}", self.title)?;
        let line = |cells: Vec<String>| {
            let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
            cells.collect::<Vec<_>>().join(" ")
        };
        writeln!(out, "{}", line(self.columns.iter().map(|each| each.heading.into()).collect()))?;
        for row in &self.rows {
            writeln!(out, "{}", line(row.iter().map(Cell::text).collect()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] =
        &[Column { key: "name", heading: "name" }, Column { key: "much", heading: "how much" }];

    fn table() -> Table {
        let row = |name: &str, cell| vec![Cell::Text(name.into()), cell];
        let rows = vec![
            row("b", Cell::Count(9)),
            row("a", Cell::Unknown),
            row("c", Cell::Rate(10.0)),
            row("d", Cell::Count(9)),
        ];
        Table { key: "all", title: "All", columns: COLUMNS, rows }
    }

    #[test]
    fn rows_are_sorted_by_what_their_cells_are() {
        let names = |column, descending| -> String {
            table().sorted(column, descending).iter().map(|row| row[0].text()).collect()
        };
        assert_eq!(names(0, false), "abcd");
        assert_eq!(names(0, true), "dcba");
        assert_eq!(names(1, false), "abdc", "a number is not sorted by its digits");
        assert_eq!(names(1, true), "cbda");
        assert_eq!(names(7, true), "bacd", "no such column");
    }

    #[test]
    fn both_forms() {
        assert_eq!(table().json()[2], serde_json::json!({"name": "c", "much": 10.0}));
        assert_eq!(table().json()[1]["much"], Value::Null);
        let mut out = Vec::new();
        table().write(&mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with("\nAll\n name  how much\n    b         9\n"), "{out}");
    }

    #[test]
    fn times_have_three_digits() {
        let texts = [0, 999, 1000, 12_345, 999_999, 1_500_000, 61_000_000_000].map(duration);
        assert_eq!(texts, ["0 ns", "999 ns", "1.00 us", "12.3 us", "999 us", "1.50 ms", "61.0 s"]);
    }
}
