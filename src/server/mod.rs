//! The server: rings that receive, execute and send, and workers that execute what is long.
//!
//! ```text
//!             +------------------------------ turn -------------------------------+
//!   kernel -> | completions -> runnable connections -> execute -> step: send, ... | -> kernel
//!             +------------------------------------|-------------^-----------------+
//!                                         queued  |             | home, doorbell
//!                                                 v             |
//!                                        queue of this ring -> worker
//! ```
//!
//! A ring owns its connections; nothing else does. What leaves a ring is a `Batch`, by value, and
//! it comes back the same way. Rings talk to each other only through their inboxes.

pub mod batch;
pub mod claim;
pub mod datagrams;
pub mod dispatch;
pub mod doorbell;
pub mod fleet;
mod keeper;
pub mod launch;
mod overhead;
mod populate;
pub mod ring_loop;
pub mod service;
#[cfg(test)]
#[cfg(not(loom))]
mod simulation;
pub mod start;
pub mod upkeep;
pub mod worker;
