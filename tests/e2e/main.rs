//! End to end: the built server, real sockets, well-behaved and hostile clients.
//!
//! Every test runs in each dispatch mode. `E2E_SERVER=/usr/bin/memcached cargo test --test e2e`
//! runs them on the original, where what is asserted of ours alone is left out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::disallowed_methods, reason = "tests wait for another process, by the clock")]

#[path = "../common/mod.rs"]
mod common;

mod auth;
mod cores;
mod crash;
mod crowd;
mod datagrams;
mod history;
mod hostile;
mod instruments;
mod limits;
mod memory;
mod monitors;
mod neighbours;
mod operator;
mod options;
mod order;
mod protocols;
mod rate;
mod sockets;
mod spans;
mod stop;
mod throttle;
mod watch;
mod zero_copy;
