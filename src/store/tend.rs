//! Giving back what the index does not need any more.
//!
//! Segments that have become sparse are merged, two at a time. When the pages of the index have
//! enough unused segments among them, the emptiest page is left: its segments move to the others,
//! one at a time, and it goes back to the pool. What was merged or moved is reused after grace,
//! because readers may still look at it.

use std::collections::VecDeque;

use super::index::{Owner, Segment};
use super::participant::Participant;
use super::table::Table;

/// How far upkeep of the index has come.
#[derive(Debug, Default)]
pub(in crate::store) struct Tending {
    /// The segment to look at next.
    cursor: u32,
    /// Something was merged since the cursor was at the start.
    merged: bool,
    /// Segments that nobody finds any more, with the horizon from which on nobody looks at them.
    retired: VecDeque<(u64, u32)>,
}

impl Participant {
    /// One step of upkeep of the index: merges two segments, or moves one, or looks at about
    /// `budget` segments in vain, and frees what has had its grace. True when there may be more to
    /// do at once.
    ///
    /// It takes some 10 us, for which it holds the lock of one stripe. It quiesces.
    pub fn tend_index(&mut self, budget: u32) -> bool {
        self.quiesce();
        let table = &*self.table;
        let mut tending = table.tending.lock();
        table.free_segments(&mut tending);
        table.merge_next(&mut tending, budget).unwrap_or_else(|| table.move_next(&mut tending))
    }
}

impl Table {
    fn free_segments(&self, tending: &mut Tending) {
        let horizon = self.epochs.horizon();
        while let Some((tag, number)) = tending.retired.front().copied()
            && tag <= horizon
        {
            tending.retired.pop_front();
            self.slabs.pages.put_segment(number);
        }
    }

    /// Lets a segment that no directory leads to any more wait for grace.
    fn retire_segment(&self, tending: &mut Tending, number: u32) {
        tending.retired.push_back((self.epochs.advance(), number));
    }

    /// Looks for two segments to merge. `None` when there are none anywhere.
    fn merge_next(&self, tending: &mut Tending, mut budget: u32) -> Option<bool> {
        while let Some(used) = self.slabs.pages.used_segments_from(tending.cursor) {
            for number in used.segments() {
                if budget == 0 {
                    return Some(true);
                }
                budget -= 1;
                tending.cursor = number + 1;
                if let Some(freed) = self.merge(number) {
                    tending.merged = true;
                    self.retire_segment(tending, freed);
                    return Some(true);
                }
            }
        }
        tending.cursor = 0;
        // What was merged may be merged again.
        std::mem::take(&mut tending.merged).then_some(true)
    }

    /// Merges a segment with its buddy, if both are sparse. Returns the number of the one that is
    /// not used any more.
    fn merge(&self, number: u32) -> Option<u32> {
        let owner = self.segment(number).owner()?;
        // Looked at without the lock first: mostly there is nothing to do.
        self.buddies(owner).filter(|[one, _]| one.number() == number)?;
        let _stripe = self.lock_stripe(owner.stripe);
        let [lower, upper] = self.buddies(owner)?;
        self.directory_of(usize::from(owner.stripe)).merge(lower, upper).then_some(upper.number())
    }

    /// The two halves of the parent of `owner`, if both are segments and fit into one.
    fn buddies(&self, owner: Owner) -> Option<[Segment<'_>; 2]> {
        let halves = owner.parent()?.halves();
        let directory = self.directory_of(usize::from(owner.stripe));
        let segments = halves.map(|half| self.segment(directory.segment(half.tag())));
        let [lower, upper] = segments;
        let are_halves = [lower.owner(), upper.owner()] == halves.map(Some);
        (are_halves && lower.fits_with(upper)).then_some(segments)
    }

    /// Moves a segment off a page that is left, or else chooses a page to leave. False when there
    /// is nothing to do.
    fn move_next(&self, tending: &mut Tending) -> bool {
        let Some(number) = self.segment_to_move() else { return self.slabs.pages.leave_page() };
        let Some(to) = self.slabs.pages.take_segment_elsewhere() else { return false };
        let moved = self.relocate(number, to);
        if moved {
            self.retire_segment(tending, number);
        } else {
            self.slabs.pages.put_segment(to);
        }
        moved
    }

    /// A segment that is in use and on a page that is left.
    fn segment_to_move(&self) -> Option<u32> {
        let is_owned = |number: &u32| self.segment(*number).owner().is_some();
        self.slabs.pages.find_left(is_owned)
    }

    fn relocate(&self, number: u32, to: u32) -> bool {
        let (from, to) = (self.segment(number), self.segment(to));
        let Some(owner) = from.owner() else { return false };
        let _stripe = self.lock_stripe(owner.stripe);
        // It may have been split meanwhile, but it stays in its stripe.
        from.owner().is_some() && {
            self.directory_of(usize::from(owner.stripe)).relocate(from, to);
            true
        }
    }
}
