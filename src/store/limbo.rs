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

/// So many of those that are still being sent from are looked at in one go.
const LOOKS_MAX: usize = 256;

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
    pinned_bytes: u64,
    /// How many of them are to be looked at, and which is the next.
    unseen: usize,
    next: usize,
    /// The count of last pins that were taken back, when `unseen` was all of them.
    unpins: usize,
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

    /// Pinned items that are still to be looked at.
    #[cfg(test)]
    #[cfg(not(loom))]
    pub fn unseen(&self) -> usize {
        self.unseen
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

    /// Of items whose grace is over, but something is still being sent from them.
    pub fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes
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
            self.pinned_bytes += corpse.bytes;
            self.pinned.push(corpse);
            self.unseen = self.pinned.len();
        }
        None
    }

    /// Takes out what was pinned when its grace ended, and is not any more. Looks at a few in
    /// vain, and at none while `unpins` stays what it was: the last pin of so many retired items
    /// has been taken back so far.
    pub fn take_unpinned(
        &mut self,
        arena: &Arena,
        unpins: usize,
        mut each: impl FnMut(Reclaimable),
    ) {
        if std::mem::replace(&mut self.unpins, unpins) != unpins {
            self.unseen = self.pinned.len();
        }
        let mut in_vain = 0;
        while self.unseen > 0 && in_vain < LOOKS_MAX {
            self.unseen -= 1;
            if self.next >= self.pinned.len() {
                self.next = 0;
            }
            if arena.is_unpinned(&self.pinned[self.next].retired) {
                let corpse = self.pinned.swap_remove(self.next);
                self.pinned_bytes -= corpse.bytes;
                each(self.free(corpse));
            } else {
                self.next += 1;
                in_vain += 1;
            }
        }
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
        if !self.pinned.is_empty() {
            heir.pinned.append(&mut self.pinned);
            heir.pinned_bytes += std::mem::take(&mut self.pinned_bytes);
            heir.unseen = heir.pinned.len();
        }
        (self.unseen, self.next) = (0, 0);
        heir.sealed.make_contiguous().sort_by_key(|(tag, _)| *tag);
    }
}
