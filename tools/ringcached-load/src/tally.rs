//! What is counted while a run goes on.

use std::io;
use std::ops::Sub;

use hdrhistogram::Histogram;

use crate::cpu::{self, CpuTime};
use crate::reply::{Failures, Outcome};

/// The longest latency that is told apart from longer ones: 10 minutes.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Replies and bytes; the difference of two moments is what came between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub hits: u64,
    pub misses: u64,
    pub stored: u64,
    pub failed: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Counts {
    pub fn replies(self) -> u64 {
        self.hits + self.misses + self.stored + self.failed
    }
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, earlier: Counts) -> Counts {
        Counts {
            hits: self.hits - earlier.hits,
            misses: self.misses - earlier.misses,
            stored: self.stored - earlier.stored,
            failed: self.failed - earlier.failed,
            bytes_sent: self.bytes_sent - earlier.bytes_sent,
            bytes_received: self.bytes_received - earlier.bytes_received,
        }
    }
}

/// All counters of a run.
#[derive(Debug)]
pub struct Tally {
    pub counts: Counts,
    pub failures: Failures,
    /// What the first failure looked like.
    pub first_failure: Option<String>,
    /// From start to reply, of the requests that started while measuring, in nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// How late this client itself was in sending what was due, in nanoseconds.
    pub lag_ns: Histogram<u64>,
}

impl Tally {
    pub fn new() -> Result<Tally, hdrhistogram::CreationError> {
        Ok(Tally {
            counts: Counts::default(),
            failures: Failures::default(),
            first_failure: None,
            latency_ns: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?,
            lag_ns: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)?,
        })
    }

    #[inline]
    pub fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Hit => self.counts.hits += 1,
            Outcome::Miss => self.counts.misses += 1,
            Outcome::Stored => self.counts.stored += 1,
            Outcome::Failed(failure) => {
                self.counts.failed += 1;
                self.failures.add(failure, 1);
            }
        }
    }
}

/// The state of everything at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub ns: u64,
    pub counts: Counts,
    pub client: CpuTime,
    pub server: Option<CpuTime>,
}

impl Mark {
    pub fn take(ns: u64, counts: Counts, server_pid: Option<u32>) -> io::Result<Mark> {
        let server = server_pid.map(cpu::of_process).transpose()?;
        Ok(Mark { ns, counts, client: cpu::of_thread()?, server })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Failure;

    #[test]
    fn a_difference_holds_what_came_between() {
        let mut tally = Tally::new().unwrap();
        tally.count(Outcome::Hit);
        let before = tally.counts;
        tally.count(Outcome::Miss);
        tally.count(Outcome::Failed(Failure::Content));
        let between = tally.counts - before;
        assert_eq!((between.hits, between.misses, between.failed), (0, 1, 1));
        assert_eq!(between.replies(), 2);
        assert_eq!(tally.failures.content, 1);
    }
}
