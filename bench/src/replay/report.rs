//! The tables, in Markdown that is also readable as it stands.

use std::fmt::Write as _;

use super::drive::Look;
use super::judges::POLICIES;
use super::rival::Score;
use super::{Row, mib};

/// Slots from this size on are those of the large values in a shift of sizes.
const SHIFT_SLOT_BYTES: u64 = 1024;

/// A table under construction. All cells but the first of a line stand on the right.
#[derive(Debug, Default)]
struct Grid(Vec<Vec<String>>);

impl Grid {
    fn line(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push(cells.into_iter().collect());
    }

    fn markdown(&self) -> String {
        let columns = self.0.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, line) in self.0.iter().enumerate() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                // Writing to a string does not fail.
                let _ = match column {
                    0 => write!(text, "| {cell:<width$} "),
                    _ => write!(text, "| {cell:>width$} "),
                };
            }
            text.push_str("|\n");
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let dashes = "-".repeat(width - 1);
                    let _ = match column {
                        0 => write!(text, "| {dashes}- "),
                        _ => write!(text, "| {dashes}: "),
                    };
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// Everything that was found.
pub fn markdown(rows: &[Row], left_out: &[String]) -> String {
    let mut text = String::from("Object miss ratio / byte miss ratio\n\n");
    text.push_str(&ratios(rows).markdown());
    text.push_str("\nThe store\n\n");
    text.push_str(&costs(rows).markdown());
    for row in rows.iter().filter(|row| row.ttl || row.by_window) {
        let _ = writeln!(text, "\n{}, {:.1} MiB, by windows\n", row.trace, mib(row.memory_bytes));
        text.push_str(&windows(row).markdown());
    }
    text.push('\n');
    let command = std::env::args().collect::<Vec<_>>().join(" ");
    let _ = writeln!(text, "- Command: `{command}`");
    let mut commands: Vec<&str> = Vec::new();
    for (label, score) in rows.iter().flat_map(|row| &row.rivals) {
        if !commands.contains(&score.command.as_str()) {
            commands.push(&score.command);
            let _ = writeln!(text, "- {label}: `{}`", score.command);
        }
    }
    let _ = writeln!(
        text,
        "- S3-FIFO and those after it: libcachesim, which is charged neither rounding nor ghosts; \
         to S3-FIFO: our object and byte miss ratios less its own, in points"
    );
    for trace in left_out {
        let _ = writeln!(text, "- Left out for lack of time: {trace}");
    }
    text
}

/// Every memcached of these rows, once.
fn rivals(rows: &[Row]) -> Vec<&str> {
    let mut labels: Vec<&str> = Vec::new();
    for (label, _) in rows.iter().flat_map(|row| &row.rivals) {
        if !labels.contains(&label.as_str()) {
            labels.push(label);
        }
    }
    labels
}

/// Miss ratios of everybody.
fn ratios(rows: &[Row]) -> Grid {
    let labels = rivals(rows);
    let judged: Vec<&str> = POLICIES
        .into_iter()
        .filter(|policy| rows.iter().any(|row| row.verdicts.iter().any(|v| v.policy == *policy)))
        .collect();
    let mut grid = Grid::default();
    let mut heads = vec!["trace", "MiB", "ringcached"];
    if !judged.is_empty() {
        heads.push("to S3-FIFO");
    }
    heads.extend(judged.iter().chain(&labels));
    grid.line(heads.into_iter().map(str::to_owned));
    for row in rows {
        let ours = (row.ours.total.miss_ratio(), row.ours.total.byte_miss_ratio());
        let mut line = vec![row.trace.clone(), format!("{:.1}", mib(row.memory_bytes)), pair(ours)];
        let of = |policy: &str| row.verdicts.iter().find(|v| v.policy == policy);
        if !judged.is_empty() {
            line.push(of(POLICIES[0]).map_or(String::new(), |v| {
                let points = |ours: f64, other: f64| format!("{:+.1}", 100.0 * (ours - other));
                format!("{} / {}", points(ours.0, v.objects_missed), points(ours.1, v.bytes_missed))
            }));
        }
        let verdict = |v: &super::Verdict| pair((v.objects_missed, v.bytes_missed));
        line.extend(judged.iter().map(|policy| of(policy).map_or(String::new(), verdict)));
        for label in &labels {
            let score = row.rivals.iter().find(|(each, _)| each == label);
            line.push(score.map_or(String::new(), |(_, score)| rival(score)));
        }
        grid.line(line);
    }
    grid
}

fn pair((objects, bytes): (f64, f64)) -> String {
    format!("{objects:.4} / {bytes:.4}")
}

fn rival(score: &Score) -> String {
    let tally = &score.tally;
    let ratios = pair((tally.miss_ratio(), tally.byte_miss_ratio()));
    match tally.refused {
        0 => ratios,
        refused => format!("{ratios} ({refused} sets refused)"),
    }
}

/// What the store took for it.
fn costs(rows: &[Row]) -> Grid {
    let mut grid = Grid::default();
    let heads = [
        "trace",
        "MiB",
        "requests",
        "CPU ns a request",
        "evictions",
        "pages moved",
        "refused",
        "items",
        "linked",
        "dead",
        "index",
        "outside",
        "pages",
    ];
    let labels = rivals(rows);
    let of_rivals = labels.iter().map(|label| format!("items of {label}, ours x"));
    grid.line(heads.map(str::to_owned).into_iter().chain(of_rivals));
    for row in rows {
        let (ours, figures) = (&row.ours, &row.ours.figures);
        let share = |bytes: u64| percent(bytes, row.memory_bytes);
        let linked = ours.looks.last().map_or(0, |look| look.linked_bytes);
        let held = |label: &&str| {
            let score = row.rivals.iter().find(|(each, _)| each == label);
            score.map_or(String::new(), |(_, score)| {
                let ratio = ours.items as f64 / score.items.max(1) as f64;
                format!("{}, {ratio:.3}", score.items)
            })
        };
        let cells = [
            row.trace.clone(),
            format!("{:.1}", mib(row.memory_bytes)),
            ours.total.requests.to_string(),
            format!("{:.0}", ours.total.ns_per_request()),
            ours.evictions.to_string(),
            ours.pages_moved.to_string(),
            ours.total.refused.to_string(),
            ours.items.to_string(),
            share(linked),
            if row.ttl { share(mean_dead(&ours.looks)) } else { String::new() },
            share(figures.index_bytes),
            share(figures.outside_bytes),
            format!("{} x {} KiB", figures.pages_total, figures.page_bytes >> 10),
        ];
        grid.line(cells.into_iter().chain(labels.iter().map(held)));
    }
    grid
}

fn mean_dead(looks: &[Look]) -> u64 {
    looks.iter().map(|look| look.dead_bytes).sum::<u64>() / looks.len().max(1) as u64
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

/// How a row went, window by window.
fn windows(row: &Row) -> Grid {
    let mut grid = Grid::default();
    let dead = if row.ttl { "dead" } else { "pages of slots from 1 KiB on" };
    let heads = ["requests", "objects missed", "bytes missed", "linked", dead];
    grid.line(heads.map(str::to_owned));
    for (window, look) in row.ours.windows.iter().zip(&row.ours.looks) {
        grid.line([
            look.after.to_string(),
            format!("{:.4}", window.miss_ratio()),
            format!("{:.4}", window.byte_miss_ratio()),
            percent(look.linked_bytes, row.memory_bytes),
            if row.ttl { percent(look.dead_bytes, row.memory_bytes) } else { large_share(look) },
        ]);
    }
    grid
}

/// Of all pages of classes, those with large slots.
fn large_share(look: &Look) -> String {
    let pages = |least: u64| {
        let large = look.classes.iter().filter(|(slot_bytes, _)| *slot_bytes >= least);
        large.map(|(_, pages)| pages).sum::<u64>()
    };
    percent(pages(SHIFT_SLOT_BYTES), pages(0))
}

#[cfg(test)]
mod tests {
    use super::super::drive::{Plan, Tally, run};
    use super::super::judges::Verdict;
    use super::super::request::{Request, Trace};
    use super::*;

    fn row(policy: &str) -> Row {
        let request = |key| Request { time_s: 0, key, bytes: 100 };
        let trace = Trace::new([1, 2, 1, 3].map(request).into());
        let memory_bytes = 4 << 20;
        let plan = Plan {
            trace: &trace,
            memory_bytes,
            threads: 1,
            ttl: false,
            window: 1000,
            favor: ringcached::store::Favor::Objects,
        };
        let verdict = Verdict {
            policy: policy.to_owned(),
            bytes: memory_bytes,
            objects_missed: 0.7,
            bytes_missed: 0.8,
        };
        let tally = Tally { requests: 4, misses: 4, bytes: 8, refused: 2, ..Tally::default() };
        let score = Score { tally, evictions: 0, items: 2, command: "memcached -m 4".to_owned() };
        Row {
            trace: "three keys".to_owned(),
            memory_bytes,
            ours: run(plan).unwrap(),
            verdicts: vec![verdict],
            verdicts_wanted: 6,
            rivals: vec![("old".to_owned(), score)],
            ttl: false,
            by_window: true,
        }
    }

    fn cells(text: &str, line: usize) -> Vec<&str> {
        text.lines().nth(line).unwrap().split('|').map(str::trim).collect()
    }

    #[test]
    fn everybody_has_a_column_and_we_are_compared_to_s3_fifo() {
        let text = ratios(&[row("S3-FIFO"), row("GDSF")]).markdown();
        let heads = ["", "trace", "MiB", "ringcached", "to S3-FIFO", "S3-FIFO", "GDSF", "old", ""];
        assert_eq!(cells(&text, 0), heads, "{text}");
        let judged = ["0.7500 / 0.7500", "+5.0 / -5.0", "0.7000 / 0.8000", ""];
        assert_eq!(cells(&text, 2)[3..7], judged, "{text}");
        assert_eq!(cells(&text, 2)[7], "1.0000 / 0.0000 (2 sets refused)");
        assert_eq!(cells(&text, 3)[4..7], ["", "", "0.7000 / 0.8000"]);
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(lengths.windows(2).all(|two| two[0] == two[1]), "{text}");
    }

    #[test]
    fn items_of_a_memcached_stand_beside_ours() {
        let text = costs(&[row("LRU")]).markdown();
        let (head, cells) = (cells(&text, 0), cells(&text, 2));
        let at = head.iter().position(|head| *head == "items of old, ours x").unwrap();
        assert_eq!(cells[at], "2, 1.500", "{text}");
    }

    #[test]
    fn a_report_says_how_it_was_made_and_what_is_not_in_it() {
        let text = markdown(&[row("LRU")], &["zipf".to_owned()]);
        assert!(text.contains("three keys, 4.0 MiB, by windows"), "{text}");
        assert!(text.contains("- old: `memcached -m 4`") && text.contains("time: zipf"), "{text}");
    }

    #[test]
    fn pages_of_large_slots_are_a_share_of_all() {
        let classes = vec![(512, 3), (1024, 1)];
        let look = Look { after: 1, classes, linked_bytes: 0, dead_bytes: 0 };
        assert_eq!(large_share(&look), "25.0 %");
    }
}
