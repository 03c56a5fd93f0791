//! Making room in a size class: each runs a CLOCK in place, and grows at the cost of others.
//!
//! A class takes pages while the pool has some to spare or the log has more than its share. Then it
//! evicts its own items, and asks from time to time whether another class makes less of its pages.

use super::arena::{Keep, Ref, State, Word0};
use super::participant::Participant;
use super::slabs::ClassGuard;
use crate::base::by_size::OfSize;
use crate::base::clock::Now;

/// After so many items the CLOCK hand takes warm ones too, to bound the time it takes.
const COOLED_MAX: u32 = 1024;
/// After so many slots it gives up.
const STEPS_MAX: u32 = 16 << 10;

/// How far a bounded piece of work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Step {
    /// There is nothing to do it with.
    Nothing,
    /// There is more to do.
    More,
    /// A page was emptied as far as possible, and cannot be freed: something is being built in it.
    InVain,
    /// A page will be free, once everybody has quiesced.
    Page,
}

impl Participant {
    /// Lets go of something, so that slots of the class become free after grace. False when there
    /// is nothing to let go of.
    pub(in crate::store) fn make_room(&self, class: u8, now: Now) -> bool {
        if !self.table.evict {
            return false;
        }
        let table = &self.table;
        let kept_free = table.pages_kept_free();
        if table.log.has_plenty(&table.slabs.pages, kept_free) && self.free_page_of_log(now) {
            return true;
        }
        self.make_room_among_classes(class, now)
    }

    /// As `make_room`, where nobody waits for it.
    pub(in crate::store) fn begin_to_make_room(&self, class: u8, now: Now) {
        if self.is_check_due(class) && self.has_worse(class) {
            self.begin_to_steal(class, now);
        } else {
            self.evict_from(class, now);
        }
    }

    /// As `make_room`, without a look at the log.
    pub(in crate::store) fn make_room_among_classes(&self, class: u8, now: Now) -> bool {
        let has_pages = self.table.slabs.standing(class).pages > 0;
        let wants_page = !has_pages || self.is_check_due(class) && self.has_worse(class);
        (wants_page && self.steal_page(Some(class), now))
            || self.evict_from(class, now)
            || (!wants_page && self.steal_page(Some(class), now))
    }

    fn is_check_due(&self, class: u8) -> bool {
        self.table.slabs.lock(&self.table.arena, class).is_check_due()
    }

    /// Evicts the next item of the class that has cooled down.
    pub(in crate::store) fn evict_from(&self, class: u8, now: Now) -> bool {
        if !self.table.evict {
            return false;
        }
        let arena = &self.table.arena;
        let mut guard = self.table.slabs.lock(arena, class);
        let mut cooled = 0;
        for _ in 0..STEPS_MAX {
            let Some(at) = guard.advance_hand() else { return false };
            let word = arena.look(at);
            if word.state() != State::Live {
                continue;
            }
            if word.pins() > 0 {
                self.count_of(&arena.item(at, Keep::by(&guard)), OfSize::Pinned);
                continue;
            }
            if word.heat() > 0 && cooled < COOLED_MAX && !self.is_dead(&guard, at, word, now) {
                if arena.cool(at, word) {
                    self.count_cooled(&arena.item(at, Keep::by(&guard)), word);
                }
                cooled += 1;
                continue;
            }
            if let Some(slots) = self.evict(&guard, at, now) {
                guard.count_evicted(slots);
                return true;
            }
        }
        false
    }

    /// True of an item of a class that has expired or been flushed.
    pub(in crate::store) fn is_dead(
        &self,
        guard: &ClassGuard<'_>,
        at: Ref,
        word: Word0,
        now: Now,
    ) -> bool {
        self.table.is_dead(&self.table.arena.item(at, Keep::by(guard)), word, now)
    }

    /// Evicts an item of a class that is locked, and says how many slots it had. `None` when it was
    /// let go of just before.
    pub(in crate::store) fn evict(&self, guard: &ClassGuard<'_>, at: Ref, now: Now) -> Option<u32> {
        let item = self.table.arena.item(at, Keep::by(guard));
        let hash = self.table.hash(item.key());
        let (retired, word) = self.table.unlink(&item, hash)?;
        self.count_eviction(&item, word, now);
        self.lay_out((retired, word), &item);
        Some(u32::try_from(item.runs().count()).unwrap_or(u32::MAX).max(1))
    }
}
