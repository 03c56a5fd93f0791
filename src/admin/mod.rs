//! The thread that has no ring: live statistics, signals, systemd.
//!
//! ```text
//!   UDP socket ---> responder --+                   +--> Registry (per-thread counters, read only)
//!   signalfd   ---> run --------+--> one poll loop -+
//!   deadlines  ---> systemd ----+                   +--> Control (the server, a few calls)
//! ```
//!
//! It never touches a ring, takes no lock that a ring takes, and reads counters that their owners
//! keep writing. If it stalls, nobody is served any slower; if the rings stall, it tells systemd.
//!
//! `wire` and `sign` are the format of the datagrams, for both ends; `tools/ringcachedctl` uses
//! them from here.

mod figures;
mod journal;
mod limit;
mod pid_file;
mod responder;
mod run;
mod served;
pub mod sign;
mod systemd;
mod text;
pub mod wire;

use std::os::fd::BorrowedFd;

pub use crate::server::start::ClassFigures;
pub use pid_file::PidFile;
pub use responder::{AdminSocket, Responder};
pub use run::{Admin, Ended};

pub use crate::sys::daemon::{Detached, Starter, detach};
pub use crate::sys::signals::Signals;

/// What admin asks of the server. Calls come from one thread and must not wait for a ring.
pub trait Control: Send + Sync {
    /// Stops accepting, lets requests at hand finish, then closes. Called at most once.
    fn drain(&self);

    /// True once nothing is served any more: after `drain`, or because the server ended by itself.
    fn has_ended(&self) -> bool;

    /// Readable from the moment `has_ended` is true.
    fn ended(&self) -> BorrowedFd<'_>;

    /// Figures that are no counters, as `limit_maxbytes`. Always the same names in the same order.
    fn figures(&self) -> Vec<(&'static str, u64)>;

    /// The size classes of items: always as many, in the same order.
    fn classes(&self) -> Vec<ClassFigures> {
        Vec::new()
    }

    /// Reads again what may have changed, and says what came of it; `None` if nothing may.
    ///
    /// # Errors
    /// Why all stays as it was.
    fn reload(&self) -> Option<Result<String, String>> {
        None
    }

    /// How much is to be logged: 0, 1 for trouble, 2 for what is served too. Clients may change it.
    fn verbosity(&self) -> u8;

    /// For each thread that must not stall a number that changes with every turn, or `None` while
    /// the thread waits and has nothing to do. Always in the same order.
    fn heartbeats(&self) -> Vec<Option<u64>>;
}

/// How much a line of the log matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Notice,
    Warning,
    Error,
}

/// Where admin's lines go; only `main` knows how to print.
pub type Log = Box<dyn Fn(Severity, &str) + Send>;

#[cfg(test)]
#[cfg(not(loom))]
mod fixture;
