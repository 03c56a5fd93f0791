//! The kernel: all of io_uring and libc. With `store/arena` the only room with `unsafe`.
//!
//! Everything else sees a ring through the trait `ring::Ring`, whose real form is `uring::Uring`
//! and whose forms without a kernel are `fake::FakeRing`, for simulations, and
//! `treadmill::Treadmill`, for counting instructions. Four rules carry all the `unsafe` in here:
//!
//! - R1 Memory the kernel may write comes from a region that is mapped once and never unmapped.
//! - R2 A byte the kernel may write has one owner; our ownership is a token that is neither `Copy`
//!   nor `Clone`, minted from a completion in one place. A token may name a part of a buffer: the
//!   kernel writes only behind all parts that were named.
//! - R3 A byte being sent does not change before the completion. Of a block the sender sees to
//!   that, of a span the lender, until it has it back.
//! - R4 A completion is taken off the queue once, in one loop; slots carry a generation, so a late
//!   completion cannot reach the next connection.
//!
//! ```text
//!   bytes in:   kernel -completion-> Filled -(parsed)-> provide -> kernel
//!   bytes out:  BlockPool -take-> Block -send-> in flight -Landed-> Block -give-> BlockPool
//!               lender --lend--> Span --send-> in flight -Landed-> Span -back-> lender
//! ```
#![allow(unsafe_code, reason = "this room talks to the kernel; each block argues for itself")]

pub mod blocks;
pub mod buffers;
pub mod cgroup;
pub mod daemon;
mod entry;
#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod fake_root;
pub mod gather;
pub mod heap;
pub mod ladder;
mod landing;
pub mod limits;
mod pace;
pub mod poll;
pub mod probe;
pub mod region;
pub mod ring;
pub mod signals;
pub mod socket;
mod supply;
pub mod thread;
pub mod token;
pub mod topology;
pub mod treadmill;
pub mod uring;
pub mod user;
pub mod wake;

pub use landing::LANDING_BYTES;
