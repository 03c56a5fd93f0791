//! A line of rates at each interval.
//!
//! A rate is the difference of two samples of the same process over the time between them, both as
//! the server measured it: a late datagram bends no rate. A restart begins anew.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::client::{Client, Sample};

/// Lines between two headings.
const HEADING_EVERY: u64 = 20;

/// Writes `count` lines, or lines for ever. A server that does not answer is waited for, and named.
pub(crate) fn run(
    (client, server): (&mut Client, SocketAddr),
    interval: Duration,
    count: Option<u64>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<()> {
    let mut last: Option<Sample> = None;
    let mut lines = 0;
    while count.is_none_or(|count| lines < count) {
        match client.sample() {
            Ok(sample) => {
                match &last {
                    Some(last) if last.boot_id == sample.boot_id => {
                        if lines % HEADING_EVERY == 0 {
                            writeln!(out, "{}", heading())?;
                        }
                        writeln!(out, "{}", line(last, &sample))?;
                        out.flush()?;
                        lines += 1;
                    }
                    Some(_) => writeln!(errors, "{server}: the server has restarted")?,
                    None => {}
                }
                last = Some(sample);
            }
            Err(error) => writeln!(errors, "{server}: {error}")?,
        }
        if count.is_none_or(|count| lines < count) {
            pause(interval);
        }
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a tool may sleep; the rule is for server threads")]
pub(crate) fn pause(interval: Duration) {
    std::thread::sleep(interval);
}

/// Heading and width of each column.
const COLUMNS: [(&str, usize); 11] = [
    ("gets/s", 9),
    ("hit %", 6),
    ("sets/s", 9),
    ("evict/s", 8),
    ("items", 11),
    ("bytes", 8),
    ("conns", 7),
    ("in B/s", 8),
    ("out B/s", 8),
    ("req/s", 9),
    ("req/turn", 8),
];

fn heading() -> String {
    row(COLUMNS.map(|(name, _)| name.to_owned()))
}

fn row(cells: [String; COLUMNS.len()]) -> String {
    let cells = cells.iter().zip(COLUMNS);
    let cells: Vec<_> = cells.map(|(cell, (_, width))| format!("{cell:>width$}")).collect();
    cells.join(" ")
}

fn line(last: &Sample, now: &Sample) -> String {
    let elapsed_ns = now.elapsed_ns.saturating_sub(last.elapsed_ns).max(1);
    let grown = |name: &str| now.get(name)?.checked_sub(last.get(name)?);
    let rate =
        |name: &str| grown(name).map(|by| u128::from(by) * 1_000_000_000 / u128::from(elapsed_ns));
    let rate = |name| cell(rate(name), |rate| rate.to_string());
    let bytes_rate = |name: &str| {
        cell(grown(name), |by| scaled(u128::from(by) * 1_000_000_000 / u128::from(elapsed_ns)))
    };
    let hits = grown("get_hits").zip(grown("get_misses"));
    let hits = hits.and_then(|(hits, misses)| tenths(hits * 100, hits + misses));
    let per_turn = grown("requests").zip(grown("ring_turns"));
    let per_turn = per_turn.and_then(|(requests, turns)| tenths(requests, turns));
    row([
        rate("cmd_get"),
        cell(hits, |text| text),
        rate("cmd_set"),
        rate("evictions"),
        cell(now.get("curr_items"), |items| items.to_string()),
        cell(now.get("bytes"), |bytes| scaled(bytes.into())),
        cell(now.get("curr_connections"), |connections| connections.to_string()),
        bytes_rate("bytes_read"),
        bytes_rate("bytes_written"),
        rate("requests"),
        cell(per_turn, |text| text),
    ])
}

/// What is not known, or has no meaning, is a dash.
fn cell<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".into(), show)
}

/// A quotient with one decimal; `None` over 0.
fn tenths(over: u64, under: u64) -> Option<String> {
    let tenths = (u128::from(over) * 10).checked_div(under.into())?;
    Some(format!("{}.{}", tenths / 10, tenths % 10))
}

/// Bytes in the largest unit of 1024 that leaves a number, with one decimal.
pub(crate) fn scaled(bytes: u128) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    match units.into_iter().find(|(_, bits)| bytes >> bits > 0) {
        Some((unit, bits)) => {
            let tenths = (bytes * 10) >> bits;
            format!("{}.{}{unit}", tenths / 10, tenths % 10)
        }
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Figure;

    fn sample(elapsed_s: u64, figures: &[(&str, u64)]) -> Sample {
        let figure = |(name, value): &(&str, u64)| Figure {
            name: (*name).into(),
            is_gauge: false,
            value: *value,
        };
        let figures = figures.iter().map(figure).collect();
        Sample { boot_id: 1, sequence: elapsed_s, elapsed_ns: elapsed_s * 1_000_000_000, figures }
    }

    fn cells(last: &Sample, now: &Sample) -> Vec<String> {
        line(last, now).split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn rates_are_over_the_servers_own_time() {
        let names = ["cmd_get", "get_hits", "get_misses", "cmd_set", "evictions", "curr_items"];
        let more = ["bytes", "curr_connections", "bytes_read", "bytes_written", "requests"];
        let all = |values: [u64; 12]| -> Vec<(&str, u64)> {
            names.into_iter().chain(more).chain(["ring_turns"]).zip(values).collect()
        };
        let last = sample(10, &all([100, 90, 10, 5, 0, 1, 1, 1, 0, 0, 100, 10]));
        let now = sample(12, &all([300, 289, 11, 25, 3, 7, 1536, 4, 3 << 20, 2048, 330, 30]));
        let expected = ["100", "99.5", "10", "1", "7", "1.5K", "4", "1.5M", "1.0K", "115", "11.5"];
        assert_eq!(cells(&last, &now), expected);
        assert_eq!(heading().len(), line(&last, &now).len());
    }

    #[test]
    fn what_is_unknown_is_a_dash() {
        let (last, now) = (sample(1, &[("get_hits", 0), ("get_misses", 0)]), sample(1, &[]));
        assert!(cells(&last, &now).iter().all(|cell| cell == "-"));
        let idle = sample(2, &[("get_hits", 0), ("get_misses", 0), ("cmd_get", 0)]);
        assert_eq!(cells(&idle, &idle)[..2], ["0", "-"], "no get, no ratio");
    }

    #[test]
    fn units() {
        let texts = [0, 1023, 1024, 1 << 20, (1 << 30) - 1, 3 << 40].map(scaled);
        assert_eq!(texts, ["0", "1023", "1.0K", "1.0M", "1023.9M", "3.0T"]);
    }
}
