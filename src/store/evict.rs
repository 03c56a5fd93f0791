//! Letting go of items: each class runs a CLOCK in place, and pages follow the useful touches.
//!
//! A class that must evict asks from time to time whether another class makes less of its pages,
//! and takes one from the one that makes least. A class that has no page takes one in any case.

use super::arena::{Item, ItemHead, Keep, Ref, State, Word0};
use super::participant::Participant;
use super::slabs::{ClassGuard, Standing};
use crate::base::clock::Now;
use crate::base::metrics::Metric;

/// After so many items the CLOCK hand takes warm ones too, to bound the time it takes.
const COOLED_MAX: u32 = 1024;
/// Of a page that is taken from its class, warm items of so many bytes are kept.
const COPIED_BYTES_MAX: usize = 64 << 10;
/// After so many slots it gives up.
const STEPS_MAX: u32 = 16 << 10;

impl Participant {
    /// Lets go of something, so that a slot of the class becomes free after grace. False when there
    /// is nothing to let go of.
    pub(in crate::store) fn make_room(&mut self, class: u8, now: Now) -> bool {
        if !self.table.evict {
            return false;
        }
        if self.table.slabs.standing(class).pages == 0 {
            return self.steal_page(Some(class), now);
        }
        if self.is_check_due(class) && self.steal_worse_page(class, now) {
            return true;
        }
        self.evict_from(class, now) || self.steal_page(Some(class), now)
    }

    /// True before the class evicts anything, and again for every quarter of a page that it has.
    fn is_check_due(&self, class: u8) -> bool {
        let quarter = self.table.slabs.sizes().slots_per_page(class) / 4;
        let mut guard = self.table.slabs.lock(&self.table.arena, class);
        if *guard.churn() > quarter {
            *guard.churn() = 0;
        }
        if *guard.churn() > 0 {
            return false;
        }
        drop(guard);
        self.table.slabs.count_check();
        true
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
            if word.state() != State::Live || word.pins() > 0 {
                continue;
            }
            if word.heat() > 0 && cooled < COOLED_MAX && !self.is_dead(&guard, at, word, now) {
                arena.cool(at, word);
                cooled += 1;
                continue;
            }
            if let Some(slots) = self.evict(&guard, at, now) {
                *guard.churn() += slots;
                return true;
            }
        }
        false
    }

    /// True of an item that has expired or been flushed.
    fn is_dead(&self, guard: &ClassGuard<'_>, at: Ref, word: Word0, now: Now) -> bool {
        if word.expiry().is_due(now) {
            return true;
        }
        if !self.table.was_ever_flushed() {
            return false;
        }
        let item = self.table.arena.item(at, Keep::by(guard));
        self.table.death(&item, self.table.hash(item.key()), now).is_some()
    }

    /// Takes a page from a class that makes less of it. False when there is none.
    fn steal_worse_page(&self, class: u8, now: Now) -> bool {
        let mine = self.table.slabs.standing(class);
        let Some(victim) = self.victim(Some(class), 0) else { return false };
        (self.is_idle(&victim) || is_worth_more(&mine, &victim))
            && self.steal_from(victim.class, now)
    }

    /// Takes a page from the class that makes least of it, other than `class`.
    pub(in crate::store) fn steal_page(&self, class: Option<u8>, now: Now) -> bool {
        if !self.table.evict {
            return false;
        }
        let mut tried = 0u128;
        while let Some(victim) = self.victim(class, tried) {
            if self.steal_from(victim.class, now) {
                return true;
            }
            tried |= 1 << victim.class;
        }
        false
    }

    /// True when a class has two pages' worth of free slots, and an eighth of its slots are free.
    fn is_idle(&self, standing: &Standing) -> bool {
        let per_page = u64::from(self.table.slabs.sizes().slots_per_page(standing.class));
        standing.free >= 2 * per_page && standing.free * 8 >= u64::from(standing.pages) * per_page
    }

    /// The class that should give up a page: one with pages to spare, or the one that makes least
    /// of its pages. Not `class`, nor any of those in the set `tried`.
    fn victim(&self, class: Option<u8>, tried: u128) -> Option<Standing> {
        let mut worst: Option<Standing> = None;
        for each in self.table.slabs.standings() {
            if each.pages == 0 || Some(each.class) == class || tried >> each.class & 1 == 1 {
                continue;
            }
            if self.is_idle(&each) {
                return Some(each);
            }
            if worst.is_none_or(|worst| value(&worst) * pages(&each) > value(&each) * pages(&worst))
            {
                worst = Some(each);
            }
        }
        worst
    }

    /// Takes a page from a class; it is free after grace.
    fn steal_from(&self, class: u8, now: Now) -> bool {
        let arena = &self.table.arena;
        let mut guard = self.table.slabs.lock(arena, class);
        let Some(slots) = guard.detach_page() else { return false };
        let mut copied = 0;
        for at in slots {
            if copied < COPIED_BYTES_MAX
                && let Some(bytes) = self.rescue(&mut guard, at, now)
            {
                copied += bytes;
                continue;
            }
            let head = match arena.look(at).state() {
                State::Live => at,
                State::Fragment => arena.head_of(at),
                State::Free | State::Reserved | State::Retired => continue,
            };
            if arena.look(head).state() == State::Live {
                self.evict(&guard, head, now);
            }
        }
        self.counters.bump(Metric::SlabsMoved);
        true
    }

    /// Moves a warm item that lies in one slot to a free one, if its class has one. Returns how
    /// many bytes that was.
    fn rescue(&self, guard: &mut ClassGuard<'_>, at: Ref, now: Now) -> Option<usize> {
        let arena = &self.table.arena;
        let word = arena.look(at);
        let is_warm = word.state() == State::Live && word.heat() > 0;
        if !is_warm || self.is_dead(guard, at, word, now) {
            return None;
        }
        let value_bytes = arena.item(at, Keep::by(guard)).value()?.len();
        let slot = guard.take()?;
        let item = arena.item(at, Keep::by(guard));
        let (key, flags, expiry) = (item.key(), item.flags(), item.expiry());
        let hash = self.table.hash(key);
        let head = ItemHead { key, hash, flags, expiry, value_bytes };
        let mut copy = arena.start(slot, &head, self.table.slabs.sizes().shape(&head));
        item.runs().for_each(|run| assert!(arena.fill(&mut copy, run) == run.len()));
        match self.table.relink(&item, copy) {
            Ok(retired) => self.limbo.borrow_mut().push(retired, item.item_bytes()),
            Err(copy) => guard.put(arena.discard(copy)),
        }
        Some(value_bytes)
    }

    /// Evicts an item of a class that is locked, and says how many slots it had. `None` when it was
    /// let go of just before.
    fn evict(&self, guard: &ClassGuard<'_>, at: Ref, now: Now) -> Option<u32> {
        let item = self.table.arena.item(at, Keep::by(guard));
        let hash = self.table.hash(item.key());
        let (retired, word) = self.table.unlink(&item, hash)?;
        self.count_eviction(&item, word, now);
        self.lay_out(retired, &item);
        Some(u32::try_from(item.runs().count()).unwrap_or(u32::MAX).max(1))
    }

    /// Counts an item that made room, whose header was `word` in the end.
    pub(in crate::store) fn count_eviction(&self, item: &Item<'_>, word: Word0, now: Now) {
        let hash = self.table.hash(item.key());
        let dead = word.expiry().is_due(now) || self.table.death(item, hash, now).is_some();
        let (how, unfetched) = if dead {
            (Metric::Reclaimed, Metric::ExpiredUnfetched)
        } else {
            (Metric::Evictions, Metric::EvictedUnfetched)
        };
        self.counters.bump(how);
        if !word.is_fetched() {
            self.counters.bump(unfetched);
        }
    }
}

/// Useful touches of a class. One is granted, so that classes without any are compared by size.
fn value(standing: &Standing) -> u128 {
    u128::from(standing.first_hits) + 1
}

fn pages(standing: &Standing) -> u128 {
    u128::from(standing.pages)
}

/// True when `mine` makes a quarter more of a page than `other`.
fn is_worth_more(mine: &Standing, other: &Standing) -> bool {
    4 * value(mine) * pages(other) > 5 * value(other) * pages(mine)
}
