//! The tables of crowds: one for each part.

use ringcached_load::report::Report;

use super::idle::Idle;
use super::storm::Storm;
use super::{Cell, Results};
use crate::store::sheet::{Sheet, mib};
use crate::table::median;

const IDLE_HEADS: [&str; 12] = [
    "idle",
    "connections",
    "bytes each",
    "MiB for 100,000",
    "RSS before",
    "silent",
    "spoken",
    "after",
    "CPU % before",
    "CPU % with",
    "kernel B each",
    "s to connect",
];
const ACTIVE_HEADS: [&str; 8] = [
    "active",
    "connections",
    "req/s max",
    "CPU us min",
    "CPU us median",
    "p50 us",
    "p99 us",
    "remarks",
];
const STORM_HEADS: [&str; 8] = [
    "storms",
    "connections",
    "conns/s max",
    "conns/s median",
    "CPU us min",
    "CPU us median",
    "client %",
    "remarks",
];
/// A client busier than this was the limit.
const CLIENT_SHARE_MAX: f64 = 0.95;

/// The tables and how they were made, in Markdown.
pub fn sheets(results: &Results) -> String {
    let mut text = Vec::new();
    if !results.idle.is_empty() {
        text.push(idle(results));
    }
    if !results.active.is_empty() {
        text.push(active(results));
    }
    if !results.storms.is_empty() {
        text.push(storms(results));
    }
    text.join("\n")
}

fn finish(mut sheet: Sheet, results: &Results) -> String {
    for (label, command) in &results.servers {
        sheet.note(format!("{label}: `{command}`"));
    }
    for what in &results.left_out {
        sheet.note(format!("left out: {what}"));
    }
    sheet.markdown(&results.machine, &results.command)
}

fn idle(results: &Results) -> String {
    let mut sheet = Sheet::new(1, &IDLE_HEADS);
    for idle in &results.idle {
        sheet.row(idle_row(idle));
        idle.misses().into_iter().for_each(|miss| sheet.fail(miss));
    }
    sheet.note(
        "RSS in MiB: without connections, with those that have said nothing, with the same when \
         each has been answered once, and when all are gone; bytes each: what the greatest is \
         above the first, for a connection. At most 100 MiB for 100,000",
    );
    sheet.note(
        "CPU: of a core, while nobody says anything, without connections and with all; at most \
         0.2 %. Kernel: buffers of TCP and objects of all kinds, of both ends; others on this \
         machine change them, too",
    );
    finish(sheet, results)
}

fn idle_row(idle: &Idle) -> Vec<String> {
    let each = idle.bytes_each();
    let kernel = idle.kernel.map(|(buffers, slab)| {
        format!("{:.0}", (buffers + slab) as f64 / f64::from(idle.connections.max(1)))
    });
    vec![
        idle.server.clone(),
        idle.connections.to_string(),
        format!("{each:.0}"),
        format!("{:.1}", each * 100_000.0 / f64::from(1 << 20)),
        mib(idle.before),
        mib(idle.silent),
        mib(idle.spoken),
        mib(idle.after),
        format!("{:.3}", idle.share_before * 100.0),
        format!("{:.3}", idle.share_with * 100.0),
        kernel.unwrap_or_default(),
        format!("{:.1}", idle.connect_s),
    ]
}

fn active(results: &Results) -> String {
    let mut sheet = Sheet::new(1, &ACTIVE_HEADS);
    results.active.iter().for_each(|cell| sheet.row(active_row(cell)));
    sheet.note("closed loop of gets at depth 1; CPU is the server's, per request");
    finish(sheet, results)
}

fn active_row(cell: &Cell<Report>) -> Vec<String> {
    let all = |pick: fn(&Report) -> f64| cell.slices.iter().map(pick).collect::<Vec<_>>();
    let cpu = all(|report| report.server.map_or(f64::NAN, |server| server.us_per_request));
    let count = cell.slices.len();
    let limits = cell.slices.iter().filter(|report| report.client_was_the_limit).count();
    let errors: u64 = cell.slices.iter().map(|report| report.failures.total()).sum();
    let lost: usize = cell.slices.iter().map(|report| report.connections_lost).sum();
    let mut remarks = Vec::new();
    if limits > 0 {
        remarks.push(format!("client was the limit {limits}/{count}"));
    }
    if errors > 0 || lost > 0 {
        remarks.push(format!("{errors} ERRORS, {lost} connections lost"));
    }
    vec![
        cell.server.clone(),
        cell.slices.first().map_or_else(String::new, |report| report.connections.to_string()),
        format!("{:.0}", greatest(&all(|report| report.requests_per_s))),
        format!("{:.2}", least(&cpu)),
        format!("{:.2}", middle(cpu)),
        format!("{:.0}", middle(all(|report| report.latency.p50_us))),
        format!("{:.0}", middle(all(|report| report.latency.p99_us))),
        remarks.join(", "),
    ]
}

fn storms(results: &Results) -> String {
    let mut sheet = Sheet::new(1, &STORM_HEADS);
    results.storms.iter().for_each(|cell| sheet.row(storm_row(cell)));
    sheet.note(
        "connect, one get, close, 64 at a time; CPU is the server's, per connection; client: the \
         part of its time that the client worked, the greatest",
    );
    finish(sheet, results)
}

fn storm_row(cell: &Cell<Storm>) -> Vec<String> {
    let all = |pick: fn(&Storm) -> f64| cell.slices.iter().map(pick).collect::<Vec<_>>();
    let per_s = all(|storm| f64::from(storm.connections) / storm.wall_s);
    let cpu = all(|storm| storm.server.us_per_request);
    let client = all(|storm| storm.client.share + storm.client.waited_share);
    let limits = client.iter().filter(|share| **share > CLIENT_SHARE_MAX).count();
    let remark = || format!("client was the limit {limits}/{}", cell.slices.len());
    vec![
        cell.server.clone(),
        cell.slices.first().map_or_else(String::new, |storm| storm.connections.to_string()),
        format!("{:.0}", greatest(&per_s)),
        format!("{:.0}", middle(per_s)),
        format!("{:.2}", least(&cpu)),
        format!("{:.2}", middle(cpu)),
        format!("{:.0}", greatest(&client) * 100.0),
        if limits > 0 { remark() } else { String::new() },
    ]
}

fn middle(figures: Vec<f64>) -> f64 {
    median(figures).unwrap_or(f64::NAN)
}

fn greatest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::NAN, f64::max)
}

fn least(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::NAN, f64::min)
}

#[cfg(test)]
mod tests {
    use ringcached_load::report::CpuUse;

    use super::*;

    #[test]
    fn a_storm_is_counted_in_connections() {
        let cpu = |share, us| CpuUse {
            share,
            waited_share: 0.0,
            us_per_request: us,
            user_us_per_request: us,
            system_us_per_request: 0.0,
        };
        let storm = |wall_s, us, share| Storm {
            connections: 1000,
            wall_s,
            server: cpu(0.5, us),
            client: cpu(share, 1.0),
        };
        let slices = vec![storm(0.5, 30.0, 0.5), storm(0.25, 20.0, 0.99), storm(1.0, 25.0, 0.5)];
        let row = storm_row(&Cell { server: "auto".to_owned(), slices });
        let wanted = ["auto", "1000", "4000", "2000", "20.00", "25.00", "99"];
        assert_eq!(row[..7], wanted);
        assert_eq!(row[7], "client was the limit 1/3");
    }
}
