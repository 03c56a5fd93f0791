//! What a run needs of the world: the time, and sockets that say when they are ready.
//!
//! A run does not read the clock and does not wait by itself, so that a test can give it a world in
//! which time is a number, and stalls come when they should.

use std::io::{self, Read, Write};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::Socket;

use crate::clock::Clock;

/// Events taken at a time.
const EVENTS: usize = 256;
/// What is due sooner than this is not slept for: timers are that coarse.
const SPIN_BELOW_NS: u64 = 2_000_000;
const NS_PER_MS: u64 = 1_000_000;
/// In place of the index of a socket.
const ALARM: u64 = u64::MAX;

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

/// What is done until the next request is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// The core is this thread's own, and no wake-up is as quick as not having slept.
    Spin,
    /// The core is shared.
    Sleep,
}

/// The real one: TCP or Unix sockets in an epoll.
pub struct Sockets {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    clock: Clock,
    /// Ends a sleep to the nanosecond, where there is sleep.
    alarm: Option<TimerFd>,
}

impl Sockets {
    pub fn new(clock: Clock, patience: Patience) -> io::Result<Sockets> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let alarm = match patience {
            Patience::Spin => None,
            Patience::Sleep => {
                let alarm = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
                // By its edge, so that it need not be read.
                epoll.add(
                    &alarm,
                    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, ALARM),
                )?;
                Some(alarm)
            }
        };
        Ok(Sockets { epoll, events: vec![EpollEvent::empty(); EVENTS], clock, alarm })
    }

    /// How long an epoll may wait so that it ends at `until_ns` at the latest.
    fn timeout(&self, until_ns: u64) -> io::Result<EpollTimeout> {
        let left_ns = until_ns.saturating_sub(self.now_ns());
        if let Some(alarm) = &self.alarm
            && left_ns > 0
        {
            let left = Expiration::OneShot(Duration::from_nanos(left_ns).into());
            alarm.set(left, TimerSetTimeFlags::empty())?;
            return Ok(EpollTimeout::NONE);
        }
        let ms = match left_ns {
            soon if soon < SPIN_BELOW_NS => 0,
            later => later / NS_PER_MS - 1,
        };
        Ok(EpollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX)))
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
        let timeout = self.timeout(until_ns)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sleeps_wakes_when_it_was_told_to() {
        const NAP_NS: u64 = 3_000_000;
        let clock = Clock::start();
        let mut sockets = Sockets::new(clock, Patience::Sleep).unwrap();
        for nap in 1..=3 {
            let until_ns = clock.ns() + NAP_NS;
            let mut waits = 0;
            while clock.ns() < until_ns {
                sockets.wait(until_ns).unwrap();
                waits += 1;
            }
            // An interruption may end one sooner; a spin is thousands of them.
            assert!(waits < 20, "nap {nap} took {waits} waits");
        }
        assert_eq!(sockets.wait(0).unwrap(), 0, "what is due is not waited for");
    }
}
