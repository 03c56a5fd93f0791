//! `stats latency` and `stats rings`: how long what takes, and what each thread has to do;
//! `stats hotkeys` and `stats hotprefixes`: what most of it is about.
//!
//! ```text
//!   STAT get:p99_ns 51199            of all threads, since the last `stats reset`
//!   STAT ring_0:requests 1000        one thread at a time, then `all`
//!   STAT 1:key user:17               the hottest, then the next one
//! ```

use crate::base::histogram::Snapshot;
use crate::base::hot::{Of, Ranking};
use crate::base::metrics::{Distribution, Metric, Registry};
use crate::protocol::Rows;

/// What is shown of each thread that has done any of it, and of all together.
const OF_THREAD: &[Metric] = &[
    Metric::CurrConnections,
    Metric::TotalConnections,
    Metric::Requests,
    Metric::Batches,
    Metric::BatchesQueued,
    Metric::BatchesAway,
    Metric::QueueFull,
    Metric::WorkerWakes,
    Metric::TurnsOverBudget,
    Metric::BatchesOverBudget,
    Metric::RingTurns,
    Metric::RingSleeps,
    Metric::RingCompletions,
    Metric::RingSends,
    Metric::BytesRead,
    Metric::BytesWritten,
    Metric::ThrottleParked,
    Metric::BusyUs,
    Metric::WaitedUs,
];

/// How these are spread is shown of each thread, too.
const SPREAD_OF_THREAD: &[Distribution] = &[
    Distribution::BatchWait,
    Distribution::BatchRun,
    Distribution::QueueWait,
    Distribution::QueueDepth,
    Distribution::TurnCompletions,
    Distribution::TurnBatches,
    Distribution::TurnRequests,
];

/// The rows of one distribution, by its place among all. False past the last.
pub(super) fn latency(rows: &mut impl Rows, registry: &Registry, place: usize) -> bool {
    let Some(distribution) = Distribution::ALL.get(place) else { return false };
    for (row, number) in registry.spread(*distribution).rows() {
        rows.number(&distribution.row_name(row), number);
    }
    true
}

/// The rows of one name of a ranking, by its place; before the first, those of all. False past the
/// last. A ranking that is made anew meanwhile may show a name twice, or not.
pub(super) fn hot_name(rows: &mut impl Rows, ranking: &Ranking, of: Of, place: usize) -> bool {
    let Some(place_before) = place.checked_sub(1) else {
        rows.number("requests_per_s", ranking.per_s);
        return true;
    };
    let Some(name) = ranking.names.get(place_before) else { return false };
    for (row, value) in ranking.rows(name, of) {
        rows.row(&format!("{place}:{row}"), value.as_bytes());
    }
    true
}

/// The rows of one ring or worker, by its place among all threads; after them, of all together.
/// False past the last.
pub(super) fn ring(rows: &mut impl Rows, registry: &Registry, place: usize) -> bool {
    let threads = registry.threads();
    let Some(thread) = threads.get(place) else {
        if place == threads.len() {
            let sum = |metric| registry.sum(metric);
            rows_of(rows, "all", sum, |distribution| registry.spread(distribution));
            if let Some(percent) = imbalance(registry) {
                rows.number("all:imbalance_percent", percent);
            }
        }
        return place == threads.len();
    };
    if thread.owner.starts_with("ring ") || thread.owner.starts_with("worker ") {
        let name = thread.owner.replace(' ', "_");
        let metric = |metric| registry.of_thread(place, metric);
        rows_of(rows, &name, metric, |each| registry.spread_of_thread(place, each));
        if thread.owner.starts_with("ring ") {
            load(rows, &name, metric);
        }
    }
    true
}

/// How a ring has fared with its processor. A worker is busy with what it executes, and does not
/// tell more.
fn load(rows: &mut impl Rows, name: &str, metric: impl Fn(Metric) -> u64) {
    let at_us = metric(Metric::BusyAtUs);
    let percent = |part_us: u64| (100 * part_us).checked_div(at_us).map(|share| share.min(100));
    let (busy_us, waited_us) = (metric(Metric::BusyUs), metric(Metric::WaitedUs));
    let asleep_us = at_us.saturating_sub(busy_us + waited_us);
    let shares = [("busy", busy_us), ("waited", waited_us), ("asleep", asleep_us)];
    for (what, share) in shares.map(|(what, part_us)| (what, percent(part_us))) {
        if let Some(share) = share {
            rows.number(&format!("{name}:{what}_percent"), share);
        }
    }
    rows.number(&format!("{name}:cpu"), metric(Metric::Processor));
}

/// How much busier the busiest ring is than all of them on average, in percent. `None` before any
/// was busy.
fn imbalance(registry: &Registry) -> Option<u64> {
    let threads = registry.threads();
    let rings = (0..threads.len()).filter(|each| threads[*each].owner.starts_with("ring "));
    let busy: Vec<_> = rings.map(|each| registry.of_thread(each, Metric::BusyUs)).collect();
    let most = busy.iter().max()? * busy.len() as u64;
    let sum = busy.iter().sum::<u64>();
    (100 * (most - sum)).checked_div(sum)
}

fn rows_of(
    rows: &mut impl Rows,
    name: &str,
    metric: impl Fn(Metric) -> u64,
    spread: impl Fn(Distribution) -> Snapshot,
) {
    for each in OF_THREAD {
        rows.number(&format!("{name}:{}", each.name()), metric(*each));
    }
    for each in SPREAD_OF_THREAD {
        for (row, number) in spread(*each).rows() {
            rows.number(&format!("{name}:{}", each.row_name(row)), number);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::base::output::Memory;
    use crate::protocol::memcache::reply::Lines;

    #[test]
    fn each_ring_tells_its_load_and_all_how_even_it_is() {
        let registry = Registry::default();
        assert_eq!(imbalance(&registry), None);
        for (number, busy_us) in [(0u64, 900_000), (1, 300_000)] {
            let ring = registry.counters(&format!("ring {number}"));
            ring.set(Metric::BusyAtUs, 1_000_000);
            ring.set(Metric::BusyUs, busy_us);
            ring.set(Metric::WaitedUs, 60_000);
            ring.set(Metric::Processor, 6 + number);
        }
        registry.counters("worker 0").set(Metric::BusyUs, 77_000_000);
        let mut output = Memory::new(usize::MAX);
        let mut lines = Lines(&mut output);
        (0..4).for_each(|place| assert!(ring(&mut lines, &registry, place)));
        assert!(!ring(&mut lines, &registry, 4));
        let text = String::from_utf8(output.take()).unwrap();
        for row in [
            "ring_0:busy_percent 90",
            "ring_0:waited_percent 6",
            "ring_0:asleep_percent 4",
            "ring_0:cpu 6",
            "ring_1:asleep_percent 64",
            "ring_1:cpu 7",
            // 900 of 600 on average.
            "all:imbalance_percent 50",
        ] {
            assert!(text.contains(&format!("STAT {row}\r\n")), "{row} in {text}");
        }
        assert!(!text.contains("worker_0:cpu") && !text.contains("worker_0:asleep"), "{text}");
    }
}
