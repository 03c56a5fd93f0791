//! What is counted while a run goes on.

use std::io;
use std::ops::{Add, Sub};

use hdrhistogram::Histogram;

use crate::cpu::{self, CpuTime};
use crate::failure::Failures;
use crate::reply::Outcome;

/// The longest latency that is told apart from longer ones: 10 minutes.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// Replies and bytes; the difference of two moments is what came between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// To whole requests.
    pub replies: u64,
    /// Keys found, and not found.
    pub hits: u64,
    pub misses: u64,
    pub stored: u64,
    pub failed: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Counts {
    fn each(self, other: Counts, op: impl Fn(u64, u64) -> u64) -> Counts {
        Counts {
            replies: op(self.replies, other.replies),
            hits: op(self.hits, other.hits),
            misses: op(self.misses, other.misses),
            stored: op(self.stored, other.stored),
            failed: op(self.failed, other.failed),
            bytes_sent: op(self.bytes_sent, other.bytes_sent),
            bytes_received: op(self.bytes_received, other.bytes_received),
        }
    }
}

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        self.each(other, |a, b| a + b)
    }
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, earlier: Counts) -> Counts {
        self.each(earlier, |a, b| a - b)
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
        self.counts.replies += 1;
        match outcome {
            Outcome::Many { hits, misses } => {
                self.counts.hits += u64::from(hits);
                self.counts.misses += u64::from(misses);
            }
            Outcome::Hit => self.counts.hits += 1,
            Outcome::Miss => self.counts.misses += 1,
            Outcome::Stored => self.counts.stored += 1,
            Outcome::Failed(failure) => {
                self.counts.failed += 1;
                self.failures.add(failure, 1);
            }
        }
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: Tally) -> Result<(), hdrhistogram::AdditionError> {
        self.counts = self.counts + other.counts;
        self.failures.merge(other.failures);
        self.first_failure = self.first_failure.take().or(other.first_failure);
        Histogram::add(&mut self.latency_ns, other.latency_ns)?;
        Histogram::add(&mut self.lag_ns, other.lag_ns)
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
    use crate::failure::Failure;

    #[test]
    fn a_difference_holds_what_came_between() {
        let mut tally = Tally::new().unwrap();
        tally.count(Outcome::Hit);
        let before = tally.counts;
        tally.count(Outcome::Miss);
        tally.count(Outcome::Failed(Failure::Content));
        let between = tally.counts - before;
        assert_eq!((between.hits, between.misses, between.failed), (0, 1, 1));
        assert_eq!(between.replies, 2);
        assert_eq!(tally.failures.content, 1);
        tally.count(Outcome::Many { hits: 3, misses: 13 });
        let (hits, misses, replies) =
            (tally.counts.hits, tally.counts.misses, tally.counts.replies);
        assert_eq!((hits, misses, replies), (4, 14, 4), "a request of many keys is one reply");
    }

    #[test]
    fn the_tallies_of_two_threads_become_one() {
        let tally = |latencies: &[u64], text: Option<&str>| {
            let mut tally = Tally::new().unwrap();
            for latency_ns in latencies {
                tally.count(Outcome::Hit);
                tally.latency_ns.record(*latency_ns).unwrap();
                tally.lag_ns.record(latency_ns / 10).unwrap();
            }
            tally.first_failure = text.map(str::to_owned);
            tally
        };
        let mut merged = tally(&[100, 200], None);
        merged.merge(tally(&[300, 400, 500], Some("bad"))).unwrap();
        assert_eq!((merged.counts.replies, merged.counts.hits), (5, 5));
        assert_eq!((merged.latency_ns.len(), merged.latency_ns.value_at_quantile(0.5)), (5, 300));
        assert_eq!((merged.lag_ns.len(), merged.lag_ns.max()), (5, 50));
        assert_eq!(merged.first_failure.as_deref(), Some("bad"));
    }
}
