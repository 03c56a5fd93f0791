//! The connections of a client, and what it is told to do with them.

use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::connection::Connection;
use crate::run::{Run, Source};
use crate::schedule::Arrivals;
use crate::tally::{Mark, Tally};
use crate::workload::Workload;
use crate::world::World;

/// When connections send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as all outstanding requests are answered, or (`window`) any of them.
    Closed { window: bool },
    /// When it is time.
    Open { rate: f64, arrivals: Arrivals, seed: u64 },
}

/// When a run is over.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub warm_up: Duration,
    pub duration: Option<Duration>,
    /// Requests started after the warm-up.
    pub requests: Option<u64>,
    /// How long a reply may take.
    pub timeout: Duration,
}

/// What a run does.
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    pub pace: Pace,
    pub depth: usize,
    pub bounds: Bounds,
    pub verify: bool,
    pub server_pid: Option<u32>,
}

/// The marks and the counters of a run.
#[derive(Debug)]
pub struct Findings {
    pub from: Mark,
    pub to: Mark,
    pub tally: Tally,
    /// Connections that were lost.
    pub lost: usize,
    /// Of the wall clock: how long the busiest thread ran, or waited for its core.
    pub busiest_share: f64,
}

/// Which part of the work is one client's, when several share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub index: u32,
    pub of: u32,
    /// All connections of all clients, which have them in turn.
    pub connections: u32,
}

impl Share {
    /// One client that has all of them.
    pub fn whole(connections: u32) -> Share {
        Share { index: 0, of: 1, connections }
    }

    /// The part of `0..total` that is this client's.
    pub fn part(&self, total: u64) -> Range<u64> {
        let (index, of) = (u64::from(self.index), u64::from(self.of));
        let from = |index: u64| total / of * index + index.min(total % of);
        from(index)..from(index + 1)
    }

    /// The number among all of the connection that this client calls `own`.
    pub fn connection(&self, own: usize) -> u32 {
        self.index + self.of * u32::try_from(own).unwrap_or(0)
    }
}

/// The connections, ready for runs one after the other.
pub struct Client<W: World> {
    pub(crate) world: W,
    /// None: lost.
    pub(crate) connections: Vec<Option<Connection<W::Socket>>>,
    pub(crate) workload: Workload,
    pub(crate) share: Share,
}

impl<W: World> Client<W> {
    /// Takes sockets that are connected and do not block.
    pub fn new(
        mut world: W,
        sockets: Vec<W::Socket>,
        workload: Workload,
        share: Share,
        depth: usize,
    ) -> io::Result<Client<W>> {
        let mut connections = Vec::with_capacity(sockets.len());
        for (index, socket) in sockets.into_iter().enumerate() {
            world.add(&socket, index)?;
            connections.push(Some(Connection::new(socket, workload.shape(), depth)));
        }
        Ok(Client { world, connections, workload, share })
    }

    /// Stores every key of its share once, `depth` at a time on each connection.
    pub fn fill(&mut self, depth: usize, timeout: Duration) -> io::Result<Findings> {
        let bounds = Bounds { warm_up: Duration::ZERO, duration: None, requests: None, timeout };
        let pace = Pace::Closed { window: false };
        let orders = Orders { pace, depth, bounds, verify: false, server_pid: None };
        let keys = self.share.part(self.workload.keys().count());
        Run::new(self, orders, Source::Fill(keys))?.go()
    }

    pub fn run(&mut self, orders: Orders) -> io::Result<Findings> {
        Run::new(self, orders, Source::Mix { left: u64::MAX })?.go()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once() {
        for (total, of) in [(10, 3), (2, 3), (0, 1), (1_000_001, 7)] {
            let mut next = 0;
            for index in 0..of {
                let part = Share { index, of, connections: of }.part(total);
                assert_eq!(part.start, next);
                assert!(part.end - part.start <= total / u64::from(of) + 1);
                next = part.end;
            }
            assert_eq!(next, total);
        }
    }

    #[test]
    fn connections_are_dealt_in_turn() {
        let of = |index| Share { index, of: 2, connections: 5 };
        assert_eq!([0, 1, 2].map(|own| of(0).connection(own)), [0, 2, 4]);
        assert_eq!([0, 1].map(|own| of(1).connection(own)), [1, 3]);
    }
}
