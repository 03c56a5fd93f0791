//! The open loop: when each request is due, whatever the server does. Knows no clock.
//!
//! Every connection has its own timetable, so a late request never moves a later one, and latency
//! counts from the moment a request was due: a server that stalls is charged for all the requests
//! that it kept from being sent (no coordinated omission).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use clap::ValueEnum;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Exp1};

use crate::clock::NS_PER_S;
use crate::values::mix;

/// How the requests of an open loop follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// At equal distances, the connections in turn.
    Uniform,
    /// At exponential distances, as from many users who know nothing of each other.
    Poisson,
}

/// When the requests of one connection are due.
#[derive(Debug)]
pub struct Timetable {
    origin_ns: f64,
    offset_ns: f64,
    /// Mean distance of two requests on this connection.
    gap_ns: f64,
    /// Uniform requests so far; multiplied and not added up, so that the rate does not drift.
    taken: u64,
    dice: Option<SmallRng>,
}

impl Timetable {
    /// The timetable of connection `index` of `connections`, which together make `rate` requests a
    /// second from `origin_ns` on.
    pub fn new(
        arrivals: Arrivals,
        rate: f64,
        (index, connections): (u32, u32),
        origin_ns: u64,
        seed: u64,
    ) -> Timetable {
        let gap_ns = NS_PER_S / rate * f64::from(connections);
        let mut table = Timetable {
            origin_ns: origin_ns as f64,
            offset_ns: gap_ns * f64::from(index) / f64::from(connections),
            gap_ns,
            taken: 0,
            dice: None,
        };
        if arrivals == Arrivals::Poisson {
            // Mixed, so that the dice are not those that draw the keys.
            let seed = mix(seed ^ u64::from(index).rotate_left(32));
            let mut dice = SmallRng::seed_from_u64(seed);
            table.offset_ns = exponential(&mut dice) * gap_ns;
            table.dice = Some(dice);
        }
        table
    }

    /// When the next request is due.
    pub fn due_ns(&self) -> u64 {
        whole(self.origin_ns + self.offset_ns + self.taken as f64 * self.gap_ns)
    }

    /// Goes on to the request after it.
    pub fn take(&mut self) {
        match &mut self.dice {
            None => self.taken += 1,
            Some(dice) => self.offset_ns += exponential(dice) * self.gap_ns,
        }
    }
}

fn exponential(dice: &mut SmallRng) -> f64 {
    Exp1.sample(dice)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sums of positive durations, far below 2^53 ns"
)]
fn whole(ns: f64) -> u64 {
    ns as u64
}

/// The connections that have room, by when their next request is due.
#[derive(Debug, Default)]
pub struct Agenda {
    heap: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Agenda {
    pub fn add(&mut self, due_ns: u64, connection: usize) {
        self.heap.push(Reverse((due_ns, connection)));
    }

    pub fn next_due_ns(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// The connection whose request is due longest at `now_ns`.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<usize> {
        if self.next_due_ns()? > now_ns {
            return None;
        }
        self.heap.pop().map(|Reverse((_, connection))| connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_requests_come_at_equal_distances_over_all_connections() {
        let mut due = Vec::new();
        for index in 0..4 {
            let mut table = Timetable::new(Arrivals::Uniform, 1e6, (index, 4), 5_000, 1);
            for _ in 0..1000 {
                due.push(table.due_ns());
                table.take();
            }
        }
        due.sort_unstable();
        assert!(due.iter().zip((0u64..).map(|i| 5_000 + i * 1000)).all(|(a, b)| *a == b));
    }

    #[test]
    fn a_rate_does_not_drift() {
        let mut table = Timetable::new(Arrivals::Uniform, 300_000.0, (0, 1), 0, 1);
        for _ in 0..3_000_000 {
            table.take();
        }
        assert_eq!(table.due_ns(), 10_000_000_000);
    }

    #[test]
    fn poisson_requests_have_the_mean_and_spread_of_theory() {
        let mut table = Timetable::new(Arrivals::Poisson, 1e5, (0, 2), 0, 7);
        let mut gaps = Vec::new();
        let mut last = table.due_ns();
        for _ in 0..100_000 {
            table.take();
            gaps.push((table.due_ns() - last) as f64);
            last = table.due_ns();
        }
        let count = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / count;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count).sqrt();
        assert!((mean / 20_000.0 - 1.0).abs() < 0.02, "mean {mean}");
        assert!((deviation / mean - 1.0).abs() < 0.03, "deviation {deviation}, mean {mean}");
    }

    #[test]
    fn the_agenda_gives_what_is_due_in_order() {
        let mut agenda = Agenda::default();
        for (due_ns, connection) in [(30, 0), (10, 1), (20, 2)] {
            agenda.add(due_ns, connection);
        }
        assert_eq!(agenda.next_due_ns(), Some(10));
        assert_eq!(agenda.pop_due(20), Some(1));
        assert_eq!(agenda.pop_due(20), Some(2));
        assert_eq!(agenda.pop_due(20), None);
        assert_eq!(agenda.pop_due(30), Some(0));
    }
}
