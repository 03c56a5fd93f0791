//! Connections: their phases, what came in and is not executed yet, what must go out, and who is
//! let in. Knows no protocol, and does no IO: a connection says what should be submitted.

pub mod admission;
pub mod connection;
pub mod input;
pub mod output;
