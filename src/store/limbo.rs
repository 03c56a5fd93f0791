//! Items that left the index and wait until nobody can look at them any more.

use std::collections::VecDeque;

use super::arena::{Arena, ITEM_BYTES_MIN, Reclaimable, Retired, to_usize};

/// What an item takes in these queues: it may be in both, while it goes from one to the other.
const BYTES_PER_ITEM: usize = size_of::<Corpse>() + size_of::<(u64, Corpse)>();

/// As many items as a thread may retire until it ends an epoch: a page's worth of small ones.
pub(in crate::store) fn items_max(page_bytes: usize) -> usize {
    page_bytes / ITEM_BYTES_MIN
}

/// Most bytes that a thread takes for what it has retired in one epoch.
pub fn limbo_bytes_max(page_bytes: u64) -> u64 {
    // Queues double when they grow.
    let items = items_max(to_usize(page_bytes)).next_power_of_two();
    (items * BYTES_PER_ITEM) as u64
}

/// A retired item, and the memory it holds.
#[derive(Debug)]
pub(in crate::store) struct Corpse {
    pub retired: Retired,
    pub bytes: u64,
}

/// What one thread has retired, in order.
#[derive(Debug, Default)]
pub(in crate::store) struct Limbo {
    /// Retired in the epoch that is not over.
    fresh: Vec<Corpse>,
    /// With the horizon from which on each may be freed.
    sealed: VecDeque<(u64, Corpse)>,
    /// Past their grace, but something is still being sent from them.
    pinned: Vec<Corpse>,
    bytes: u64,
}

impl Limbo {
    #[inline]
    pub fn push(&mut self, retired: Retired, bytes: u64) {
        self.bytes += bytes;
        self.fresh.push(Corpse { retired, bytes });
    }

    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.sealed.is_empty() && self.pinned.is_empty()
    }

    /// True when something waits for an epoch to end.
    pub fn is_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// What the queues take.
    #[cfg(test)]
    #[cfg(not(loom))]
    pub fn heap_bytes(&self) -> u64 {
        let fresh = self.fresh.capacity() * size_of::<Corpse>();
        (fresh + self.sealed.capacity() * size_of::<(u64, Corpse)>()) as u64
    }

    /// Items that wait for the epoch to end.
    pub fn fresh(&self) -> usize {
        self.fresh.len()
    }

    /// True when there is something that grace alone sets free.
    pub fn is_waiting(&self) -> bool {
        !self.fresh.is_empty() || !self.sealed.is_empty()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The epoch of everything retired so far is over, and has become `horizon`.
    pub fn seal(&mut self, horizon: u64) {
        self.sealed.extend(self.fresh.drain(..).map(|corpse| (horizon, corpse)));
    }

    /// Takes out something whose grace has ended at `horizon`, and from which nothing is sent.
    pub fn pop(&mut self, arena: &Arena, horizon: u64) -> Option<Reclaimable> {
        while self.sealed.front().is_some_and(|(tag, _)| *tag <= horizon) {
            let (_, corpse) = self.sealed.pop_front()?;
            if arena.is_unpinned(&corpse.retired) {
                return Some(self.free(corpse));
            }
            self.pinned.push(corpse);
        }
        None
    }

    /// Takes out something that was pinned when its grace ended, and is not any more.
    pub fn pop_unpinned(&mut self, arena: &Arena) -> Option<Reclaimable> {
        let index = self.pinned.iter().position(|corpse| arena.is_unpinned(&corpse.retired))?;
        let corpse = self.pinned.swap_remove(index);
        Some(self.free(corpse))
    }

    fn free(&mut self, corpse: Corpse) -> Reclaimable {
        self.bytes -= corpse.bytes;
        corpse.retired.after_grace()
    }

    /// Leaves everything to `heir`; what waits for the current epoch must have been sealed.
    pub fn bequeath(&mut self, heir: &mut Limbo) {
        assert!(self.fresh.is_empty());
        heir.bytes += std::mem::take(&mut self.bytes);
        heir.sealed.append(&mut self.sealed);
        heir.pinned.append(&mut self.pinned);
        heir.sealed.make_contiguous().sort_by_key(|(tag, _)| *tag);
    }
}
