//! What a run needs of the world: the time, and sockets that say when they are ready.
//!
//! A run does not read the clock and does not wait by itself, so that a test can give it a world in
//! which time is a number, and stalls come when they should.

use std::io::{self, Read, Write};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::Socket;

use crate::clock::Clock;

/// Events taken at a time.
const EVENTS: usize = 256;
/// What is due sooner than this is not slept for: timers are that coarse.
const SPIN_BELOW_NS: u64 = 2_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Read,
    ReadAndWrite,
}

/// A socket, by its index, and what it is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub index: usize,
    /// There is something to read, or an error, or the end.
    pub readable: bool,
    pub writable: bool,
}

pub trait World {
    /// Does not block.
    type Socket: Read + Write;

    /// Nanoseconds since some moment before the run.
    fn now_ns(&self) -> u64;

    /// Begins to watch a socket for reading.
    fn add(&mut self, socket: &Self::Socket, index: usize) -> io::Result<()>;

    /// Changes what a socket is watched for.
    fn watch(&mut self, socket: &Self::Socket, index: usize, interest: Interest) -> io::Result<()>;

    /// Waits until some sockets are ready, and says how many; returns at `until_ns` at the latest,
    /// and may return sooner.
    fn wait(&mut self, until_ns: u64) -> io::Result<usize>;

    /// One of the sockets that the last wait found ready.
    fn ready(&self, at: usize) -> Ready;
}

/// The real one: TCP or Unix sockets in an epoll.
pub struct Sockets {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    clock: Clock,
}

impl Sockets {
    pub fn new(clock: Clock) -> io::Result<Sockets> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Sockets { epoll, events: vec![EpollEvent::empty(); EVENTS], clock })
    }
}

impl World for Sockets {
    type Socket = Socket;

    fn now_ns(&self) -> u64 {
        self.clock.ns()
    }

    fn add(&mut self, socket: &Socket, index: usize) -> io::Result<()> {
        Ok(self.epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?)
    }

    fn watch(&mut self, socket: &Socket, index: usize, interest: Interest) -> io::Result<()> {
        let flags = match interest {
            Interest::Read => EpollFlags::EPOLLIN,
            Interest::ReadAndWrite => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
        };
        Ok(self.epoll.modify(socket, &mut EpollEvent::new(flags, index as u64))?)
    }

    fn wait(&mut self, until_ns: u64) -> io::Result<usize> {
        let ms = match until_ns.saturating_sub(self.now_ns()) {
            soon if soon < SPIN_BELOW_NS => 0,
            later => later / NS_PER_MS - 1,
        };
        let timeout = EpollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX));
        match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => Ok(count),
            Err(Errno::EINTR) => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    fn ready(&self, at: usize) -> Ready {
        let event = &self.events[at];
        let flags = event.events();
        let readable = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        Ready {
            index: usize::try_from(event.data()).unwrap_or(usize::MAX),
            readable: flags.intersects(readable),
            writable: flags.contains(EpollFlags::EPOLLOUT),
        }
    }
}
