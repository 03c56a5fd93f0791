//! Signals as messages: blocked in every thread, read from a descriptor by one.
//!
//! The mask is taken before any other thread exists, and threads inherit it, so that no system call
//! of a ring is ever interrupted. SIGPIPE is ignored already: Rust's runtime does so before `main`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{self, SigSet};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that mean something here, by memcached's meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGUSR1.
    StopGracefully,
    /// SIGHUP.
    Reload,
}

/// The one reader of this process's signals.
#[derive(Debug)]
pub struct Signals {
    descriptor: SignalFd,
}

impl Signals {
    /// Blocks the signals in this thread, and in those it will start.
    pub fn take() -> io::Result<Signals> {
        let mut mask = SigSet::empty();
        for each in [signal::SIGTERM, signal::SIGINT, signal::SIGUSR1, signal::SIGHUP] {
            mask.add(each);
        }
        mask.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Signals { descriptor: SignalFd::with_flags(&mask, flags)? })
    }

    /// The next signal, if one is pending.
    pub fn pending(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.descriptor.read_signal()? else { return Ok(None) };
        Ok(match i32::try_from(info.ssi_signo) {
            Ok(libc::SIGUSR1) => Some(Signal::StopGracefully),
            Ok(libc::SIGHUP) => Some(Signal::Reload),
            Ok(_) | Err(_) => Some(Signal::Stop),
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Sends this process a signal.
#[cfg(all(test, not(loom)))]
pub fn send_self(what: Signal) -> io::Result<()> {
    let number = match what {
        Signal::Stop => signal::SIGTERM,
        Signal::StopGracefully => signal::SIGUSR1,
        Signal::Reload => signal::SIGHUP,
    };
    signal::kill(nix::unistd::getpid(), number)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `raise` sends to the test's own thread: the others of this process block nothing.
    #[test]
    fn each_signal_is_read_once() {
        let signals = Signals::take().unwrap();
        assert_eq!(signals.pending().unwrap(), None);
        for (number, meaning) in [
            (signal::SIGTERM, Signal::Stop),
            (signal::SIGINT, Signal::Stop),
            (signal::SIGUSR1, Signal::StopGracefully),
            (signal::SIGHUP, Signal::Reload),
        ] {
            signal::raise(number).unwrap();
            assert_eq!(signals.pending().unwrap(), Some(meaning));
            assert_eq!(signals.pending().unwrap(), None);
        }
    }
}
