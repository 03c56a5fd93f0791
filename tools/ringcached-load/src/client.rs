//! The connections of a client, and what it is told to do with them.

use std::io;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::Socket;

use crate::clock::Clock;
use crate::connection::Connection;
use crate::run::{Run, Source};
use crate::schedule::Arrivals;
use crate::tally::{Mark, Tally};
use crate::workload::Workload;

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
}

/// The connections, ready for runs one after the other.
pub struct Client {
    pub(crate) epoll: Epoll,
    /// None: lost.
    pub(crate) connections: Vec<Option<Connection>>,
    pub(crate) workload: Workload,
    pub(crate) clock: Clock,
}

impl Client {
    /// Takes connected sockets.
    pub fn new(sockets: Vec<Socket>, workload: Workload, depth: usize) -> io::Result<Client> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut connections = Vec::with_capacity(sockets.len());
        for (index, socket) in sockets.into_iter().enumerate() {
            socket.set_nonblocking(true)?;
            let connection = Connection::new(socket, workload.keys().bytes(), depth);
            epoll.add(&connection, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
            connections.push(Some(connection));
        }
        Ok(Client { epoll, connections, workload, clock: Clock::start() })
    }

    /// Stores every key once, `depth` at a time on each connection.
    pub fn fill(&mut self, depth: usize, timeout: Duration) -> io::Result<Findings> {
        let bounds = Bounds { warm_up: Duration::ZERO, duration: None, requests: None, timeout };
        let pace = Pace::Closed { window: false };
        let orders = Orders { pace, depth, bounds, verify: false, server_pid: None };
        let source = Source::Fill { next: 0, end: self.workload.keys().count() };
        Run::new(self, orders, source)?.go()
    }

    pub fn run(&mut self, orders: Orders) -> io::Result<Findings> {
        Run::new(self, orders, Source::Mix { left: u64::MAX })?.go()
    }
}
