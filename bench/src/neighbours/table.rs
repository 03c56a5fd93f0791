//! The table of neighbours: a row for each of them and server.

use ringcached_load::report::{Latency, Report};

use super::options::Kind;
use super::{Cell, Results, Slice};
use crate::store::sheet::{Sheet, mib};
use crate::table::median;

const HEADS: [&str; 15] = [
    "neighbour",
    "server",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "max us",
    "x none p99",
    "late p50",
    "late p99.9",
    "late max",
    "errors",
    "server %",
    "RSS MiB",
    "limit MiB",
    "remarks",
];
const NAMES: usize = 2;

/// The table and how it was made, in Markdown.
pub fn sheet(results: &Results) -> String {
    let mut sheet = Sheet::new(NAMES, &HEADS);
    for cell in &results.cells {
        let none = |other: &&Cell| other.kind == Kind::None && other.server == cell.server;
        sheet.row(row(cell, results.cells.iter().find(none)));
        if cell.exceeds_limit() {
            sheet.fail(format!(
                "{} beside {}: more memory than promised",
                cell.server,
                cell.kind.label()
            ));
        }
    }
    for (label, command) in &results.servers {
        sheet.note(format!("{label}: `{command}`"));
    }
    sheet.note(
        "latencies of the good client: medians over slices, max is the greatest; late: by how much \
         the good client sent later than it should, by its own fault, which latencies hold; server \
         %: of its core; RSS: the most that was seen of the server meanwhile; limit: -m and what \
         ringcached says comes on top of it",
    );
    sheet.note(match results.has_priority {
        true => "the good client had a real-time priority, and its neighbour what was left",
        false => {
            "the good client had no priority over its neighbour: no right to set one, or no chrt"
        }
    });
    sheet.note(match results.is_late {
        true => "the good client connected when its neighbour was there already",
        false => "the good client had connected before its neighbour came",
    });
    for what in &results.left_out {
        sheet.note(format!("left out: {what}"));
    }
    sheet.markdown(&results.machine, &results.command)
}

fn row(cell: &Cell, none: Option<&Cell>) -> Vec<String> {
    let us = |figure: Option<f64>| figure.map_or_else(String::new, |us| format!("{us:.0}"));
    let p99 = |cell: &Cell| middle(cell, |report| Some(report.latency.p99_us));
    let ratio = none.and_then(p99).zip(p99(cell)).map(|(none, this)| this / none);
    let at = |pick: fn(&Latency) -> f64| us(middle(cell, |report| Some(pick(&report.latency))));
    let late = |pick: fn(&Latency) -> f64| us(middle(cell, |report| report.lag.as_ref().map(pick)));
    let greatest = reports(cell).map(|report| report.latency.max_us).reduce(f64::max);
    let share = middle(cell, |report| report.server.map(|server| server.share * 100.0));
    vec![
        cell.kind.label(),
        cell.server.clone(),
        at(|l| l.p50_us),
        at(|l| l.p99_us),
        at(|l| l.p999_us),
        us(greatest),
        ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        late(|l| l.p50_us),
        late(|l| l.p999_us),
        late(|l| l.max_us),
        cell.slices.iter().map(Slice::errors).sum::<u64>().to_string(),
        us(share),
        mib(cell.rss_max()),
        cell.rss_limit.map_or_else(String::new, mib),
        remarks(cell),
    ]
}

fn reports(cell: &Cell) -> impl Iterator<Item = &Report> {
    cell.slices.iter().filter_map(|slice| slice.good.as_ref())
}

fn middle(cell: &Cell, pick: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
    median(reports(cell).filter_map(pick).collect())
}

/// What the neighbour did in a second, and what makes the figures doubtful.
fn remarks(cell: &Cell) -> String {
    let stay_s: f64 = cell.slices.iter().map(|slice| slice.stay_s).sum();
    let per_s = |pick: fn(&Slice) -> u64| {
        cell.slices.iter().map(pick).sum::<u64>() as f64 / stay_s.max(f64::MIN_POSITIVE)
    };
    let mut parts = Vec::new();
    for (what, figure) in [
        ("replies/s", per_s(|slice| slice.bad.replies)),
        ("connects/s", per_s(|slice| slice.bad.connects)),
        ("closed/s", per_s(|slice| slice.bad.closed)),
    ] {
        if figure > 0.0 {
            parts.push(format!("{figure:.0} {what}"));
        }
    }
    let megabytes = [
        ("in", per_s(|slice| slice.bad.bytes_sent)),
        ("out", per_s(|slice| slice.bad.bytes_received)),
    ];
    for (way, bytes) in megabytes.into_iter().filter(|(_, bytes)| *bytes >= 1e5) {
        parts.push(format!("{:.1} MB/s {way}", bytes / 1e6));
    }
    let total = cell.slices.len();
    let unreached = reports(cell).filter(|report| report.rate_reached == Some(false)).count();
    if unreached > 0 {
        parts.push(format!("rate not reached {unreached}/{total}"));
    }
    let lookups: u64 = reports(cell).map(|report| report.hits + report.misses).sum();
    let misses: u64 = reports(cell).map(|report| report.misses).sum();
    if misses > 0 {
        parts.push(format!("{:.1} % misses", 100.0 * misses as f64 / lookups as f64));
    }
    parts.extend(cell.slices.iter().filter_map(|slice| slice.error.clone()));
    parts.join(", ")
}
