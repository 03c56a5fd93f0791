//! The table of latencies: a row for each task, load and server.

use ringcached_load::report::{Latency, Report};

use super::{Cell, Open, Results};
use crate::store::sheet::Sheet;
use crate::table::median;

const HEADS: [&str; 16] = [
    "work",
    "value B",
    "conns",
    "load %",
    "server",
    "saturation/s",
    "asked/s",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "p50 min",
    "p99 min",
    "p99.9 min",
    "x base p99",
    "CPU us min",
    "remarks",
];
const NAMES: usize = 5;

/// The table and how it was made, in Markdown.
pub fn sheet(results: &Results) -> String {
    let mut sheet = Sheet::new(NAMES, &HEADS);
    for cell in &results.cells {
        for open in &cell.open {
            sheet.row(row(results, cell, open));
        }
    }
    for (label, command) in &results.servers {
        sheet.note(format!("{label}: `{command}`"));
    }
    sheet.note(
        "saturation: requests a second in the closed loop; load is a part of that of the slower \
         server; figures are medians over interleaved slices, min is the slice with the least; CPU \
         is the server's, per request",
    );
    sheet.note(
        "saturated client: the client was the limit of the closed loop, so that the server's \
         saturation is higher; late client: it sent later than it should, by its own fault, which \
         latencies hold; then give it a core, or lower --loads",
    );
    if let Some(baseline) = &results.baseline {
        sheet.note(format!("x base: p99 over that of {baseline} at the same rate"));
    }
    for what in &results.left_out {
        sheet.note(format!("left out: {what}"));
    }
    sheet.markdown(&results.machine, &results.command)
}

fn row(results: &Results, cell: &Cell, open: &Open) -> Vec<String> {
    let us = |pick: fn(&Latency) -> f64| format!("{:.0}", middle(open, pick));
    let least_us = |pick: fn(&Latency) -> f64| {
        format!("{:.0}", least(open.slices.iter().map(|report| pick(&report.latency))))
    };
    let base = results
        .cells
        .iter()
        .find(|other| other.task == cell.task && Some(&other.server) == results.baseline.as_ref())
        .and_then(|other| other.open.iter().find(|other| other.load == open.load));
    let ratio = base.map(|base| middle(open, |l| l.p99_us) / middle(base, |l| l.p99_us));
    let cpu = open.slices.iter().filter_map(|report| Some(report.server?.us_per_request));
    vec![
        cell.task.work.clone(),
        cell.task.value_bytes.to_string(),
        cell.task.connections.to_string(),
        open.load.to_string(),
        cell.server.clone(),
        format!("{:.0}", cell.saturation()),
        format!("{:.0}", open.rate),
        us(|l| l.p50_us),
        us(|l| l.p99_us),
        us(|l| l.p999_us),
        least_us(|l| l.p50_us),
        least_us(|l| l.p99_us),
        least_us(|l| l.p999_us),
        ratio.map_or(String::new(), |ratio| format!("{ratio:.3}")),
        format!("{:.2}", least(cpu)),
        remarks(cell, open),
    ]
}

fn middle(open: &Open, pick: fn(&Latency) -> f64) -> f64 {
    median(open.slices.iter().map(|report| pick(&report.latency)).collect()).unwrap_or(f64::NAN)
}

/// The least of some figures: a host that is busy makes them greater, and nothing makes them less.
fn least(figures: impl Iterator<Item = f64>) -> f64 {
    figures.fold(f64::INFINITY, f64::min)
}

/// What makes the figures doubtful, and in how many slices.
fn remarks(cell: &Cell, open: &Open) -> String {
    let count = |reports: &[Report], test: &dyn Fn(&Report) -> bool| {
        (reports.iter().filter(|report| test(report)).count(), reports.len())
    };
    let mut parts = Vec::new();
    for (what, (slices, total)) in [
        ("saturated client", count(&cell.closed, &|r| r.client_was_the_limit)),
        ("late client", count(&open.slices, &|r| r.client_was_the_limit)),
        ("rate not reached", count(&open.slices, &|r| r.rate_reached == Some(false))),
    ] {
        if slices > 0 {
            parts.push(format!("{what} {slices}/{total}"));
        }
    }
    let all = || cell.closed.iter().chain(&open.slices);
    let errors: u64 = all().map(|report| report.failures.total()).sum();
    let misses: u64 = all().map(|report| report.misses).sum();
    for (what, number) in [("ERRORS", errors), ("misses", misses)] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use std::thread;

    use clap::Parser;
    use ringcached_load::options::Options;

    use super::*;
    use crate::latency::Task;
    use crate::machine::Machine;

    /// A report with known figures, from a run on a server that only closes.
    fn report(per_s: f64, p50_us: f64, p99_us: f64, misses: u64) -> Report {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || drop(listener.accept()));
        let words = ["x", "-s", &address, "-c", "1", "-n", "1", "--warm-up", "0"];
        let mut report = ringcached_load::measure(&Options::parse_from(words)).unwrap();
        server.join().unwrap();
        report.failures = ringcached_load::failure::Failures::default();
        (report.requests_per_s, report.misses) = (per_s, misses);
        (report.latency.p50_us, report.latency.p99_us) = (p50_us, p99_us);
        report.client_was_the_limit = false;
        report
    }

    #[test]
    fn medians_are_compared_with_the_baseline_at_the_same_load() {
        let task = Task { work: "gets".to_owned(), value_bytes: 32, connections: 50 };
        let cell = |server: &str, saturation: f64, p99_us: [f64; 3]| Cell {
            task: task.clone(),
            server: server.to_owned(),
            closed: vec![report(saturation, 0.0, 0.0, 0)],
            open: vec![Open {
                load: 50,
                rate: 1000.0,
                slices: p99_us.map(|us| report(1000.0, us / 2.0, us, 0)).to_vec(),
            }],
        };
        let mut cells = vec![
            cell("auto", 9000.0, [100.0, 90.0, 900.0]),
            cell("memcached", 2000.0, [200.0, 400.0, 100.0]),
        ];
        cells[1].open[0].slices[0].rate_reached = Some(false);
        cells[1].open[0].slices[1].misses = 7;
        let results = Results {
            machine: Machine::this(),
            command: "bench".to_owned(),
            servers: vec![],
            baseline: Some("memcached".to_owned()),
            cells,
            left_out: vec![],
        };
        let text = sheet(&results);
        let row = |line: usize| -> Vec<&str> {
            text.lines().nth(line).unwrap().split('|').map(str::trim).collect()
        };
        let ours = ["gets", "32", "50", "50", "auto", "9000", "1000", "50", "100"];
        assert_eq!(row(2)[1..10], ours, "{text}");
        assert_eq!(row(2)[11..13], ["45", "90"], "{text}");
        assert_eq!(row(2)[14], "0.500");
        assert_eq!(row(3)[14], "1.000");
        assert_eq!(row(3)[16], "rate not reached 1/3, 7 misses");
    }
}
