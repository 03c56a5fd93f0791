//! `stats latency` and `stats rings`: how long what takes, and what each thread has to do.
//!
//! ```text
//!   STAT get:p99_ns 51199            of all threads, since the last `stats reset`
//!   STAT ring_0:requests 1000        one thread at a time, then `all`
//! ```

use crate::base::histogram::Snapshot;
use crate::base::metrics::{Distribution, Metric, Registry};
use crate::base::output::Output;
use crate::protocol::memcache::reply;

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
pub(super) fn latency(output: &mut impl Output, registry: &Registry, place: usize) -> bool {
    let Some(distribution) = Distribution::ALL.get(place) else { return false };
    for (row, number) in registry.spread(*distribution).rows() {
        reply::stat_number(output, &distribution.row_name(row), number);
    }
    true
}

/// The rows of one ring or worker, by its place among all threads; after them, of all together.
/// False past the last.
pub(super) fn ring(output: &mut impl Output, registry: &Registry, place: usize) -> bool {
    let threads = registry.threads();
    let Some(thread) = threads.get(place) else {
        if place == threads.len() {
            let sum = |metric| registry.sum(metric);
            rows(output, "all", sum, |distribution| registry.spread(distribution));
        }
        return place == threads.len();
    };
    if thread.owner.starts_with("ring ") || thread.owner.starts_with("worker ") {
        let name = thread.owner.replace(' ', "_");
        let metric = |metric| registry.of_thread(place, metric);
        rows(output, &name, metric, |each| registry.spread_of_thread(place, each));
        // A worker is busy with what it executes; of a ring the processor's time is known.
        let at_us = registry.of_thread(place, Metric::BusyAtUs);
        if let Some(percent) = (100 * metric(Metric::BusyUs)).checked_div(at_us) {
            reply::stat_number(output, &format!("{name}:busy_percent"), percent);
        }
    }
    true
}

fn rows(
    output: &mut impl Output,
    name: &str,
    metric: impl Fn(Metric) -> u64,
    spread: impl Fn(Distribution) -> Snapshot,
) {
    for each in OF_THREAD {
        reply::stat_number(output, &format!("{name}:{}", each.name()), metric(*each));
    }
    for each in SPREAD_OF_THREAD {
        for (row, number) in spread(*each).rows() {
            reply::stat_number(output, &format!("{name}:{}", each.row_name(row)), number);
        }
    }
}
