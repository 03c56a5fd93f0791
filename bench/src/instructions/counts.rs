//! Counts as the repository keeps them, and how others compare with them.

use std::fmt;
use std::io;

const TAKEN_WITH: &str = "# taken with: ";

#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    /// Compiler and counter: with others, other counts are to be expected.
    pub taken_with: String,
    /// Names, and instructions of one round of each.
    pub rows: Vec<(String, f64)>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Instructions, by `ringcached-bench instructions record`; `check` compares."
        )?;
        writeln!(f, "{TAKEN_WITH}{}", self.taken_with)?;
        self.rows.iter().try_for_each(|(name, count)| writeln!(f, "{name:<24} {count:>10.1}"))
    }
}

impl Counts {
    /// Reads what `Display` wrote.
    pub fn parse(text: &str) -> io::Result<Counts> {
        let taken_with = text.lines().find_map(|line| line.strip_prefix(TAKEN_WITH));
        let row = |line: &str| {
            let (name, count) = line.split_once(' ')?;
            Some((name.to_owned(), count.trim().parse().ok()?))
        };
        let rows = text.lines().filter(|line| !line.starts_with('#'));
        let rows = rows.map(|line| row(line).ok_or_else(|| bad(line)));
        Ok(Counts {
            taken_with: taken_with.ok_or_else(|| bad(TAKEN_WITH))?.to_owned(),
            rows: rows.collect::<io::Result<_>>()?,
        })
    }

    /// A table of these counts and new ones, and how many of them differ by more than so many
    /// percent. One that only one of both has differs.
    pub fn compare(&self, new: &Counts, tolerance: f64) -> (String, usize) {
        let of = |counts: &Counts, name: &str| {
            counts.rows.iter().find(|row| row.0 == name).map(|row| row.1)
        };
        let gone = self.rows.iter().filter(|row| of(new, &row.0).is_none());
        let mut table = String::new();
        let mut beyond = 0;
        if self.taken_with != new.taken_with {
            table +=
                &format!("recorded with {}\ncounted with  {}\n", self.taken_with, new.taken_with);
        }
        for (name, _) in new.rows.iter().chain(gone) {
            let (was, is) = (of(self, name), of(new, name));
            let percent = was.zip(is).map(|(was, is)| (is / was - 1.0) * 100.0);
            let differs = percent.is_none_or(|percent| percent.abs() > tolerance);
            beyond += usize::from(differs);
            let number = |count: Option<f64>| {
                count.map_or_else(|| "-".into(), |count| format!("{count:.1}"))
            };
            let percent = percent.map_or_else(|| "-".into(), |percent| format!("{percent:+.1} %"));
            let mark = if differs { "  <--" } else { "" };
            let (was, is) = (number(was), number(is));
            table += &format!("{name:<24} {was:>10} {is:>10} {percent:>9}{mark}\n");
        }
        (table, beyond)
    }
}

fn bad(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no count: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, f64)]) -> Counts {
        let rows = rows.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Counts { taken_with: "a compiler".into(), rows }
    }

    #[test]
    fn what_is_written_is_read() {
        let some = counts(&[("hash", 35.0), ("turn of 64 gets", 1234.5)]);
        // A name ends at the first space.
        assert!(Counts::parse(&some.to_string()).is_err());
        let some = counts(&[("hash", 35.0), ("turn_64_gets", 1234.5)]);
        assert_eq!(Counts::parse(&some.to_string()).unwrap(), some);
        assert!(Counts::parse("hash 35.0\n").is_err());
    }

    #[test]
    fn what_differs_is_marked_either_way() {
        let was = counts(&[("same", 100.0), ("more", 100.0), ("less", 100.0), ("gone", 1.0)]);
        let is = counts(&[("same", 101.9), ("more", 102.1), ("less", 97.9), ("new", 1.0)]);
        let (table, beyond) = was.compare(&is, 2.0);
        let marked: Vec<_> =
            table.lines().filter(|line| line.ends_with("<--")).map(|line| &line[..4]).collect();
        assert_eq!((marked, beyond), (vec!["more", "less", "new ", "gone"], 4));
        assert_eq!(was.compare(&was, 0.0).1, 0);
    }
}
