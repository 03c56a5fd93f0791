//! The one table, in Markdown that is also readable as it stands.

use std::fmt::Write as _;

use crate::clients::Sample;
use crate::compare::{Cell, Results};

/// The client waited for its core in more than this part of a slice.
const WAITED_SHARE_MAX: f64 = 0.05;
/// The server's core worked for others in more than this part of a slice. Ticks are that coarse.
const OTHERS_SHARE_MAX: f64 = 0.1;
/// A client busier than this was the limit.
const CLIENT_SHARE_MAX: f64 = 0.95;

const HEADS: [&str; 16] = [
    "workload",
    "depth",
    "server",
    "req/s max",
    "req/s median",
    "CPU us min",
    "user",
    "system",
    "CPU us median",
    "p50 us",
    "p99 us",
    "x base min",
    "x base median",
    "x null min",
    "x null median",
    "remarks",
];
/// The columns before this one are names, and stand on the left; so does the last.
const FIRST_NUMBER: usize = 3;

/// What the slices of a cell come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub per_s_max: f64,
    pub per_s_median: f64,
    /// Server processor time per request, in microseconds, in the slice where it was least.
    pub cpu_min: f64,
    pub user_min: f64,
    pub system_min: f64,
    pub cpu_median: f64,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
}

impl Summary {
    /// None when there is no slice.
    pub fn of(samples: &[Sample]) -> Option<Summary> {
        let least = samples
            .iter()
            .min_by(|a, b| a.server.us_per_request.total_cmp(&b.server.us_per_request))?;
        let per_s: Vec<f64> = samples.iter().map(|s| s.requests as f64 / s.wall_s).collect();
        let some = |pick: fn(&Sample) -> Option<f64>| {
            samples.iter().map(pick).collect::<Option<Vec<f64>>>().and_then(median)
        };
        Some(Summary {
            per_s_max: per_s.iter().copied().fold(0.0, f64::max),
            per_s_median: median(per_s)?,
            cpu_min: least.server.us_per_request,
            user_min: least.server.user_us_per_request,
            system_min: least.server.system_us_per_request,
            cpu_median: some(|s| Some(s.server.us_per_request))?,
            p50_us: some(|s| s.p50_us),
            p99_us: some(|s| s.p99_us),
        })
    }
}

/// The middle one, or the mean of the middle two.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 0 => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

/// The table and how it was made.
pub fn markdown(results: &Results) -> String {
    let mut text = table(results);
    let machine = &results.machine;
    let rounds = results.cells.iter().map(|cell| cell.samples.len()).max().unwrap_or(0);
    let mut say = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    say(String::new());
    say(format!("- Machine: {machine}"));
    say(format!("- TCP congestion control: {}", machine.congestion_control));
    say(format!("- Command: `{}`", results.command));
    for (label, command) in &results.servers {
        say(format!("- {label}: `{command}`"));
    }
    say(format!(
        "- {rounds} interleaved slices; min is the slice with the least server processor time per \
         request, which is the run time in schedstat; user and system are its parts in the \
         proportion of the ticks"
    ));
    say(
        "- Disturbed: the client waited for its core, or the server's core worked for others, for \
         more than a twentieth or a tenth of the slice"
            .to_owned(),
    );
    if let Some(baseline) = &results.baseline {
        say(format!("- x base: server processor time per request over that of {baseline}"));
    }
    for what in &results.left_out {
        say(format!("- Left out: {what}"));
    }
    text
}

fn table(results: &Results) -> String {
    let rows: Vec<Vec<String>> = results.cells.iter().filter_map(|c| row(results, c)).collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].len());
        cells.chain([HEADS[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADS.len()).map(width).collect();
    let mut text = String::new();
    let is_number = |column: usize| (FIRST_NUMBER..HEADS.len() - 1).contains(&column);
    let mut line = |cells: &[String]| {
        for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            // Writing to a string does not fail.
            let _ = match is_number(column) {
                true => write!(text, "| {cell:>width$} "),
                false => write!(text, "| {cell:<width$} "),
            };
        }
        text.push_str("|\n");
    };
    line(&HEADS.map(str::to_owned));
    let rule = |column: usize| {
        let dashes = "-".repeat(widths[column].max(2) - 1);
        if is_number(column) { format!("{dashes}:") } else { format!("{dashes}-") }
    };
    line(&(0..HEADS.len()).map(rule).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
    text
}

fn row(results: &Results, cell: &Cell) -> Option<Vec<String>> {
    let summary = Summary::of(&cell.samples)?;
    let other = |label: &Option<String>| {
        let label = label.as_ref()?;
        let same =
            |c: &&Cell| c.workload == cell.workload && c.depth == cell.depth && c.server == *label;
        Summary::of(&results.cells.iter().find(same)?.samples)
    };
    let (base, null) = (other(&results.baseline), other(&results.null));
    let ratio = |other: &Option<Summary>, pick: fn(&Summary) -> f64| {
        other.as_ref().map_or(String::new(), |other| format!("{:.3}", pick(&summary) / pick(other)))
    };
    let us = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.0}"));
    Some(vec![
        cell.workload.clone(),
        cell.depth.to_string(),
        cell.server.clone(),
        format!("{:.0}", summary.per_s_max),
        format!("{:.0}", summary.per_s_median),
        format!("{:.3}", summary.cpu_min),
        format!("{:.3}", summary.user_min),
        format!("{:.3}", summary.system_min),
        format!("{:.3}", summary.cpu_median),
        us(summary.p50_us),
        us(summary.p99_us),
        ratio(&base, |s| s.cpu_min),
        ratio(&base, |s| s.cpu_median),
        ratio(&null, |s| s.cpu_min),
        ratio(&null, |s| s.cpu_median),
        remarks(&cell.samples),
    ])
}

/// What makes slices doubtful, and in how many of them.
fn remarks(samples: &[Sample]) -> String {
    let total = samples.len();
    let count = |test: fn(&Sample) -> bool| samples.iter().filter(|s| test(s)).count();
    let errors: u64 = samples.iter().map(|s| s.errors).sum();
    let misses: u64 = samples.iter().map(|s| s.misses).sum();
    let limit = count(|s| s.client.share + s.client.waited_share > CLIENT_SHARE_MAX);
    let disturbed =
        count(|s| s.client.waited_share > WAITED_SHARE_MAX || s.others_share > OTHERS_SHARE_MAX);
    let mut parts = Vec::new();
    for (what, slices) in [("client was the limit", limit), ("disturbed", disturbed)] {
        if slices > 0 {
            parts.push(format!("{what} {slices}/{total}"));
        }
    }
    for (what, number) in [("ERRORS", errors), ("misses", misses)] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use ringcached_load::report::CpuUse;

    use super::*;
    use crate::machine::Machine;

    fn sample(us: f64) -> Sample {
        let cpu = |share, us: f64| CpuUse {
            share,
            waited_share: 0.0,
            us_per_request: us,
            user_us_per_request: us / 4.0,
            system_us_per_request: us * 0.75,
        };
        Sample {
            requests: 1000,
            wall_s: us / 2.0,
            server: cpu(0.5, us),
            client: cpu(0.9, 1.0),
            p50_us: Some(us * 10.0),
            p99_us: None,
            misses: 0,
            errors: 0,
            others_share: 0.0,
            notes: Vec::new(),
        }
    }

    fn cell(server: &str, figures: &[f64]) -> Cell {
        let samples = figures.iter().copied().map(sample).collect();
        Cell { workload: "gets".to_owned(), depth: 16, server: server.to_owned(), samples }
    }

    #[test]
    fn minima_and_medians_are_over_slices() {
        let summary = Summary::of(&cell("a", &[4.0, 2.0, 8.0]).samples).unwrap();
        assert_eq!((summary.cpu_min, summary.user_min, summary.system_min), (2.0, 0.5, 1.5));
        assert_eq!((summary.cpu_median, summary.per_s_max, summary.per_s_median), (4.0, 1e3, 5e2));
        assert_eq!((summary.p50_us, summary.p99_us), (Some(40.0), None));
        assert!(Summary::of(&[]).is_none());
        assert_eq!(median(vec![1.0, 9.0, 2.0, 4.0]), Some(3.0));
    }

    #[test]
    fn ratios_are_to_the_baseline_and_to_the_null_server() {
        let results = Results {
            machine: Machine::this(),
            command: "bench".to_owned(),
            servers: vec![],
            null: Some("null".to_owned()),
            baseline: Some("memcached".to_owned()),
            cells: vec![
                cell("null", &[1.0, 2.0]),
                cell("inline", &[2.0, 4.0]),
                cell("memcached", &[8.0, 16.0]),
            ],
            left_out: vec![],
        };
        let text = table(&results);
        let row: Vec<&str> = text.lines().nth(3).unwrap().split('|').map(str::trim).collect();
        assert_eq!(row[3], "inline");
        assert_eq!(row[12..16], ["0.250", "0.250", "2.000", "2.000"], "{text}");
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(lengths.windows(2).all(|two| two[0] == two[1]), "{text}");
        assert!(text.lines().nth(1).unwrap().starts_with("| ---"));
    }

    #[test]
    fn doubtful_slices_are_remarked() {
        let mut samples = vec![sample(1.0), sample(1.0)];
        assert_eq!(remarks(&samples), "");
        samples[0].client.share = 0.99;
        samples[1].others_share = 0.2;
        samples[1].errors = 3;
        assert_eq!(remarks(&samples), "client was the limit 1/2, disturbed 1/2, 3 ERRORS");
    }
}
