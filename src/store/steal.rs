//! Pages follow the useful touches: a class that makes little of a page loses it.
//!
//! Useful is a hit on an item that was cold, and a store of a key that had just gone: what more
//! pages would have kept. A page that leaves its class is emptied in steps.

use super::arena::{Keep, Ref, State};
use super::counting::Counted;
use super::evict::Step;
use super::memory::Slots;
use super::participant::Participant;
use super::slabs::{ClassGuard, Standing};
use crate::base::by_size::OfSize;
use crate::base::clock::Now;
use crate::base::metrics::Metric;
use crate::base::sync::atomic::Ordering;

/// Slots of a page that one step empties.
const STEP_SLOTS: u32 = 16;
/// Steps that one who needs a page takes at a time.
const STEPS_PER_CALL: u32 = 16;
/// Steps that upkeep takes at a time with a page that somebody wants elsewhere.
const STEPS_PER_TURN: u32 = 512;

/// What came of the wish to move a page from one class to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reassigned {
    /// It is being emptied; when it is, the other class may have one.
    Begun,
    /// Another page is on its way.
    Busy,
    NoSuchClass,
    /// The class needs all its pages, or may not let go of items.
    NoSpare,
    Same,
}

impl Participant {
    /// True when another class makes less of its pages.
    pub(in crate::store) fn has_worse(&self, class: u8) -> bool {
        let mine = self.table.slabs.standing(class);
        let victim = self.worst(Some(class), 0);
        victim.is_some_and(|victim| self.is_idle(&victim) || is_worth_more(&mine, &victim))
    }

    /// Takes a part of a page from the class that makes least of it, other than `class`, which may
    /// have it. False when there is none. Whoever takes memory next goes on with it: a page may
    /// have tens of thousands of slots, and what this thread retires needs its grace.
    pub(in crate::store) fn steal_page(&self, class: Option<u8>, now: Now) -> bool {
        let goes_on = self.table.slabs.is_departing();
        for _ in 0..STEPS_PER_CALL {
            if self.has_retired_much() {
                return true;
            }
            match self.steal_step(class, now) {
                Step::Nothing => return false,
                Step::More | Step::InVain => {}
                Step::Page => break,
            }
        }
        if let Some(class) = class {
            let mut guard = self.table.slabs.lock(&self.table.arena, class);
            // A page that is gone on with has been granted, mostly to the same class.
            if !goes_on || !guard.has_grant() {
                guard.grant_page();
            }
        }
        true
    }

    /// Begins to take a page from the class that makes least of it for `class`. Whoever takes
    /// memory next goes on with it.
    pub(in crate::store) fn begin_to_steal(&self, class: u8, now: Now) {
        if self.steal_step(Some(class), now) != Step::Nothing {
            self.table.slabs.lock(&self.table.arena, class).grant_page();
        }
    }

    /// Does a bounded part of that.
    pub(in crate::store) fn steal_step(&self, class: Option<u8>, now: Now) -> Step {
        if !self.table.evict {
            return Step::Nothing;
        }
        let mut tried = 0u128;
        while let Some(victim) = self.victim(class, tried) {
            let mut guard = self.table.slabs.lock(&self.table.arena, victim.class);
            if guard.detach_page() {
                return self.empty(&mut guard, now);
            }
            tried |= 1 << victim.class;
        }
        Step::Nothing
    }

    /// Begins to move a page between classes by their numbers, which are those of `class_of`: 0 is
    /// the pool, and -1 whichever class makes least of its pages. Upkeep goes on with it.
    pub fn reassign(&self, from: i32, to: i32) -> Reassigned {
        if from == to {
            return Reassigned::Same;
        }
        let count = i32::from(self.table.class_count());
        let class = |number: i32| u8::try_from(number.checked_sub(1)?).ok();
        let is_number = |number| (0..=count).contains(&number);
        let from = match from {
            -1 => self.worst(class(to), 0).map(|worst| i32::from(worst.class) + 1),
            from => Some(from),
        };
        if !from.is_none_or(is_number) || !is_number(to) {
            return Reassigned::NoSuchClass;
        }
        let Some(from) = from else { return Reassigned::NoSpare };
        if self.table.slabs.is_departing() {
            return Reassigned::Busy;
        }
        let has_one = match class(from) {
            None => self.table.slabs.pages.free() > self.table.pages_kept_free(),
            Some(from) => self.table.evict && self.give_up_page(from),
        };
        if !has_one {
            return Reassigned::NoSpare;
        }
        if let Some(to) = class(to) {
            self.table.slabs.lock(&self.table.arena, to).grant_page();
        }
        Reassigned::Begun
    }

    /// Lets a page of a class begin to leave it, if that has another one.
    fn give_up_page(&self, class: u8) -> bool {
        let mut guard = self.table.slabs.lock(&self.table.arena, class);
        let begins = self.table.slabs.standing(class).pages > 1 && guard.detach_page();
        if begins {
            self.table.orders.emptying.store(u32::from(class) + 1, Ordering::Relaxed);
        }
        begins
    }

    /// Goes on with a page that was asked for, where nobody who needs memory does.
    pub fn go_on_emptying(&mut self, now: Now) {
        for _ in 0..STEPS_PER_TURN {
            let emptying = &self.table.orders.emptying;
            let asked = emptying.load(Ordering::Relaxed).checked_sub(1);
            let Some(class) = asked.and_then(|class| u8::try_from(class).ok()) else { return };
            let mut guard = self.table.slabs.lock(&self.table.arena, class);
            if !self.table.slabs.standing(class).is_departing {
                return emptying.store(0, Ordering::Relaxed);
            }
            let _ = self.empty(&mut guard, now);
            drop(guard);
            self.quiesce();
        }
    }

    /// True when a class has two pages' worth of free slots, and an eighth of its slots are free.
    fn is_idle(&self, standing: &Standing) -> bool {
        let per_page = u64::from(self.table.slabs.sizes().slots_per_page(standing.class));
        standing.free >= 2 * per_page && standing.free * 8 >= u64::from(standing.pages) * per_page
    }

    /// The class that should give up a page: one that is at it, or the worst.
    fn victim(&self, class: Option<u8>, tried: u128) -> Option<Standing> {
        let is_departing = |each: &Standing| each.is_departing && tried >> each.class & 1 == 0;
        let departing = self.table.slabs.standings().find(is_departing);
        departing.or_else(|| self.worst(class, tried))
    }

    /// A class with pages to spare, or the one that makes least of its pages. Not `class`, nor any
    /// of those in the set `tried`.
    fn worst(&self, class: Option<u8>, tried: u128) -> Option<Standing> {
        let mut worst: Option<Standing> = None;
        for each in self.table.slabs.standings() {
            if tried >> each.class & 1 == 1 || each.pages == 0 || Some(each.class) == class {
                continue;
            }
            let is_worse = worst.is_none_or(|worst| {
                (self.is_idle(&each) && !self.is_idle(&worst))
                    || value(&worst) * pages(&each) > value(&each) * pages(&worst)
                        && self.is_idle(&each) == self.is_idle(&worst)
            });
            if is_worse {
                worst = Some(each);
            }
        }
        worst
    }

    /// Empties the next few slots of the page that leaves a class.
    fn empty(&self, guard: &mut ClassGuard<'_>, now: Now) -> Step {
        let arena = &self.table.arena;
        for _ in 0..STEP_SLOTS {
            let Some(at) = guard.departing(&self.table.epochs) else {
                self.counters.bump(Metric::SlabsMoved);
                return Step::Page;
            };
            let head = match arena.look(at).state() {
                State::Live => at,
                State::Fragment => arena.head_of(at),
                State::Free
                | State::Reserved
                | State::Retired
                | State::Hole
                | State::FragmentHole => continue,
            };
            if arena.look(head).state() == State::Live && !self.rescue(guard, at, now) {
                self.evict(guard, head, now);
            }
        }
        Step::More
    }

    /// Moves a warm item that lies in one slot to a free one, if its class has one.
    fn rescue(&self, guard: &mut ClassGuard<'_>, at: Ref, now: Now) -> bool {
        let arena = &self.table.arena;
        let word = arena.look(at);
        let is_warm = word.state() == State::Live && word.heat() > 0;
        if !is_warm || self.is_dead(guard, at, word, now) {
            return false;
        }
        if arena.item(at, Keep::by(guard)).value().is_none() {
            return false;
        }
        let Some(slot) = guard.take() else { return false };
        self.move_within(guard, at, (slot, Vec::new()), word.heat() - 1);
        true
    }

    /// Puts a copy in the place of an item of a class that is locked, unless that has gone: in
    /// slots of the same class, and as warm as `heat` says.
    pub(in crate::store) fn move_within(
        &self,
        guard: &mut ClassGuard<'_>,
        at: Ref,
        slots: Slots,
        heat: u64,
    ) {
        let arena = &self.table.arena;
        let item = arena.item(at, Keep::by(guard));
        let head = item.head(self.table.hash(item.key()));
        let copy = self.copy(&item, &head, self.table.slabs.sizes().shape(&head), slots);
        self.table.note_expiry(copy.head(), head.expiry);
        let copied = Counted { bytes: arena.draft(&copy).item_bytes(), is_main: true, heat };
        match self.table.relink(&item, copy, heat) {
            Ok(gone) => {
                self.counters.bump(Metric::SlabReassignRescues);
                self.lay_out_moved(gone, &item, copied, OfSize::Kept);
            }
            Err(copy) => guard.put(arena.discard(copy)),
        }
    }
}

/// Useful touches of a class. One is granted, so that classes without any are compared by size.
fn value(standing: &Standing) -> u128 {
    u128::from(standing.value) + 1
}

fn pages(standing: &Standing) -> u128 {
    u128::from(standing.pages)
}

/// True when `mine` makes a quarter more of a page than `other`.
fn is_worth_more(mine: &Standing, other: &Standing) -> bool {
    4 * value(mine) * pages(other) > 5 * value(other) * pages(mine)
}
