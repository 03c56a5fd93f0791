//! Connections: their phases, what came in and is not executed yet, what must go out, who is
//! let in, how much one may hold, and why one ends. Knows no protocol, and does no IO: a connection
//! says what should be submitted.

pub mod admission;
pub mod close;
pub mod connection;
pub mod input;
pub mod output;
pub mod peers;
pub mod progress;
pub mod rate;
mod spans;
pub mod throttle;
