//! What `-v` says: a line for each kind of trouble of the last second, and with `-vv` a line for
//! what was served.
//!
//! It reads the counters that are there anyway: no thread that serves does anything for it.

use crate::base::metrics::{Metric, Registry};

use super::Severity;

/// The counters that tell of trouble, and what each has counted.
const TROUBLES: [(Metric, &str); 9] = [
    (Metric::RejectedConnections, "connections refused: -c are open"),
    (
        Metric::ListenDisabledNum,
        "times that nobody could be let in: -c are open, or descriptors are short",
    ),
    (Metric::IdleKicks, "idle connections closed"),
    (Metric::StoreTooLarge, "values refused: larger than -I allows"),
    (Metric::StoreNoMemory, "values refused: no memory for them"),
    (Metric::BuffersDry, "receives found no buffer"),
    (Metric::QueueFull, "batches found their queue full"),
    (Metric::CompletionsOverflowed, "turns brought more completions than fit"),
    (Metric::KernelNoMemory, "operations put off: the kernel has no memory for them"),
];

/// What the counters stood at when they were last looked at.
#[derive(Debug, Default)]
pub(super) struct Journal {
    troubles: [u64; TROUBLES.len()],
    requests: u64,
    connections: u64,
}

impl Journal {
    /// The lines of the time since the last call.
    pub(super) fn lines(&mut self, registry: &Registry, verbosity: u8) -> Vec<(Severity, String)> {
        let mut lines = Vec::new();
        for ((metric, what), seen) in TROUBLES.iter().zip(&mut self.troubles) {
            let fresh = since(registry.raw(*metric), seen);
            if fresh > 0 && verbosity >= 1 {
                lines.push((Severity::Warning, format!("{fresh} {what}")));
            }
        }
        let requests = since(registry.raw(Metric::Requests), &mut self.requests);
        let connections = since(registry.raw(Metric::TotalConnections), &mut self.connections);
        if verbosity >= 2 && requests + connections > 0 {
            let line = format!("{requests} requests, {connections} new connections");
            lines.push((Severity::Notice, line));
        }
        lines
    }
}

/// How much a counter has grown, which is now seen.
fn since(now: u64, seen: &mut u64) -> u64 {
    now.wrapping_sub(std::mem::replace(seen, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_says_what_it_should_and_nothing_twice() {
        let registry = Registry::default();
        let counters = registry.counters("ring 0");
        let mut journal = Journal::default();
        let mut said = |verbosity| {
            counters.add(Metric::RejectedConnections, 3);
            counters.bump(Metric::Requests);
            let lines = journal.lines(&registry, verbosity);
            lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>()
        };
        assert_eq!(said(0), Vec::<String>::new());
        assert_eq!(said(1), ["3 connections refused: -c are open"]);
        assert_eq!(said(2)[1], "1 requests, 0 new connections");
        assert_eq!(journal.lines(&registry, 2).len(), 0);
    }
}
