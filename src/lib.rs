//! ringcached: an in-memory cache server for Linux hosts, on io_uring.
//!
//! # The rooms
//!
//! Imports go down only; `tests/tidy` checks it.
//!
//! ```text
//!   main.rs     arguments in, exit code out
//!   admin       live statistics over UDP, signals, the service manager      one thread
//!   server      rings, workers, queues, dispatch, keeper, upkeep       a thread a core, W, and two
//!   config      options -> a checked plan
//!   command     what a request means                    protocol and store meet here
//!   protocol    bytes <-> requests, replies        store   items, index, log, classes, eviction
//!   net         connections: phases, input, output      (protocol and store are strangers)
//!   sys         the kernel: rings, buffers, blocks, sockets, threads
//!   base        limits, time, hashes, slots, counters
//! ```
//!
//! # Follow one `get`
//!
//! 1. `sys::uring`: one `enter` a turn brings a completion: bytes in a provided buffer, `Filled`.
//! 2. `server::ring_loop::completions`: it goes into the connection's `net::input::Input`,
//!    uncopied.
//! 3. `server::ring_loop::execution`: the connection's turn comes; with `--dispatch queue`, or when
//!    the work is long, a worker that serves this ring's queue executes instead.
//! 4. `server::batch::execute`: shows the window of the input to `command::Executor::drive`.
//! 5. `protocol::memcache::head`: says that a list of keys begins; `keys` borrows the key.
//! 6. `store::Participant::get`: hash, stripe, segment, bucket, slot, item; no lock, no copy. Where
//!    more gets follow, `command::ahead` takes them all this way step by step, by `store::Seek`.
//! 7. `protocol::memcache::reply`: writes the item into the block at the end of `net::output`.
//! 8. `server::ring_loop::advance`: asks `net::connection::step`, which says `Send`.
//! 9. `sys::uring`: the send is noted, and goes with the next `enter`, with all others of the turn.
//! 10. Its completion gives the block back; the read buffer went back at the end of the turn.
//!
//! A `set` takes the same way in and out. In between, `store::Participant::reserve` takes memory as
//! long as its head says, `fill` puts there what arrives, and `commit` shows it to readers; when
//! memory is full, `reserve` lets go of something first. `store` says of what.
//!
//! # Absent on purpose
//!
//! - No async runtime: a turn of a ring is one loop that can be read from top to bottom.
//! - No global, no callback, no `dyn` on the path of a batch.
//! - No clock and no chance below `server`: both are arguments, so every test can repeat itself.
//! - No epoll fall-back: without io_uring the server says why it will not start.
//! - No protocol-neutral command type: each dialect is one flat match onto the store.

pub mod admin;
pub mod base;
pub mod command;
pub mod config;
pub mod net;
pub mod protocol;
pub mod server;
pub mod store;
pub mod sys;
