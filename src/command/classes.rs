//! Requests by class: counted one by one while a batch is executed, and told together when it has
//! been, with the time that all of them took.

use crate::base::metrics::{Counters, Distribution};

/// Requests that cost about the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A list of one key.
    Get,
    /// A list of several keys.
    MultiGet,
    Store,
    /// Something about one item, without a value.
    Change,
    /// Whatever else, and what is no request.
    Other,
}

/// How latencies of each class are spread, in the order of the classes.
const SPREAD: [Distribution; 5] = [
    Distribution::Get,
    Distribution::MultiGet,
    Distribution::Store,
    Distribution::Change,
    Distribution::Other,
];

/// How many requests of each class a batch has had answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Classes([u32; SPREAD.len()]);

impl Classes {
    #[inline]
    pub(super) fn count(&mut self, class: Class, requests: u32) {
        self.0[class as usize] += requests;
    }

    /// Counts each request as one that took so long, and forgets it.
    #[inline]
    pub(super) fn tell(&mut self, counters: &Counters, latency_ns: u64) {
        for (requests, spread) in self.0.iter_mut().zip(SPREAD) {
            if *requests > 0 {
                counters.record(spread, latency_ns, u64::from(*requests));
                *requests = 0;
            }
        }
    }
}
