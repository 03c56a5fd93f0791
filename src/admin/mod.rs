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
mod limit;
mod responder;
mod run;
pub mod sign;
mod systemd;
mod text;
pub mod wire;

pub use responder::{AdminSocket, Responder};
pub use run::{Admin, Ended};

/// What admin asks of the server. Calls come from one thread and must not wait for a ring.
pub trait Control: Send + Sync {
    /// Stops accepting, lets requests at hand finish, then closes. Called at most once.
    fn drain(&self);

    /// True once nothing is served any more: after `drain`, or because the server ended by itself.
    fn is_drained(&self) -> bool;

    /// Figures that are no counters, as `limit_maxbytes`. Always the same names in the same order.
    fn figures(&self) -> Vec<(&'static str, u64)>;

    /// One pulse for each thread that must not stall, always in the same order.
    fn pulses(&self) -> Vec<Pulse>;
}

/// A sign of life of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Moves with every turn.
    pub beats: u64,
    /// True while the thread waits and has nothing to do.
    pub idle: bool,
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
mod fixture;
