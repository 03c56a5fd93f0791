//! How many walks through the table may be in progress at a time, where each keeps memory.

use std::sync::atomic::{AtomicU32, Ordering};

/// As many deletions by prefix, or counts by size, may be in progress.
const WALKS_MAX: u32 = 64;

/// How many there are of something of which there may be `WALKS_MAX`.
#[derive(Debug, Default)]
pub(super) struct Quota(AtomicU32);

impl Quota {
    /// True when one more may begin, which must be given back.
    pub fn take(&self) -> bool {
        let one_more = |taken: u32| (taken < WALKS_MAX).then_some(taken + 1);
        // Relaxed: a count.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    pub fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
