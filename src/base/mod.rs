//! What every room may know: limits, time, hashes, slots, counters, and the seams for tests.
//!
//! No operating system and no `unsafe` in here. Nothing in `base` decides anything; it only gives
//! the other rooms the words they share.

pub mod by_size;
pub mod bytes;
pub mod census;
pub mod clock;
#[cfg(all(not(loom), any(test, feature = "counted")))]
pub mod counted;
pub mod distribution;
pub mod hash;
pub mod histogram;
pub mod hot;
pub mod limits;
pub mod metrics;
pub mod output;
pub mod protocol;
pub mod slots;
pub mod sync;
pub mod users;
