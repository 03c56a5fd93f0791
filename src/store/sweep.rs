//! The sweep: what has expired goes without being asked for, so that its memory is of use again.
//!
//! One thread goes through all pages, again and again, a few in each turn. A page in which nothing
//! has expired costs one look at `Page::earliest`; the others are read header by header. After a
//! flush one round reads all pages. Who asks for a round has one at once, and sooner done. Other
//! threads wait for the sweep at most for as long as it
//! takes to look at `SLOTS_PER_LOCK` slots of one class.
//!
//! Before a page is read, the sweep forgets when something in it expires, and waits for grace. Who
//! did not see that it had to note an exptime, because there was an earlier one, has quiesced by
//! then, and the sweep sees what it wrote; who comes later notes it.

use super::arena::{Keep, Logged, Ref, State};
use super::pages::Holder;
use super::participant::Participant;
use super::table::Table;
use crate::base::by_size::{OfSize, SizeClass};
use crate::base::clock::Now;
use crate::base::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Turns in which the sweep sees every page once.
pub const TURNS_PER_ROUND: u32 = 400;
/// The same for a round that somebody has asked for.
const TURNS_IN_HASTE: u32 = 20;
/// Slots that are looked at under one lock, and between two quiescent states.
const SLOTS_PER_LOCK: u32 = 64;

/// How far the sweep has come.
#[derive(Debug)]
pub struct Sweep {
    /// The next page.
    next: u32,
    /// Pages that will be read at this horizon: what was known of their exptimes is forgotten.
    forgotten: (u64, Vec<u32>),
    /// How often somebody had flushed when this round began.
    flushes: u32,
    /// The number of flushes whose victims have all been looked for.
    flushes_done: u32,
    /// Rounds that were asked for so far, the one under way included.
    asked: u32,
    /// True in a round that was asked for.
    in_haste: bool,
}

impl Sweep {
    pub const fn new() -> Sweep {
        Sweep {
            next: 1,
            forgotten: (0, Vec::new()),
            flushes: 0,
            flushes_done: 0,
            asked: 0,
            in_haste: false,
        }
    }

    /// True when every page is to be read.
    fn is_thorough(&self) -> bool {
        self.flushes != self.flushes_done
    }
}

impl Default for Sweep {
    fn default() -> Sweep {
        Sweep::new()
    }
}

/// What came of a look at some slots of a page.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Swept {
    /// The first slot that was not looked at.
    pub next: u32,
    /// Dead items that were let go of.
    pub buried: u32,
}

/// What others ask of upkeep.
#[derive(Debug, Default)]
pub(in crate::store) struct Orders {
    /// One more than the class of which a page is to go; 0 is none.
    pub emptying: AtomicU32,
    /// What has expired is left where it is.
    is_off: AtomicBool,
    /// Rounds that were asked for, and those of them that are done.
    asked: AtomicU32,
    done: AtomicU32,
    /// Rounds that have begun, asked for or not.
    begun: AtomicU32,
}

impl Table {
    /// True unless the sweep leaves what has expired where it is. What was flushed it never leaves.
    pub fn sweeps(&self) -> bool {
        !self.orders.is_off.load(Ordering::Relaxed)
    }

    /// Lets the sweep look for what has expired, or not.
    pub fn set_sweeps(&self, on: bool) {
        self.orders.is_off.store(!on, Ordering::Relaxed);
    }

    /// Asks for a round of the sweep. False when one is under way that was asked for.
    #[must_use]
    pub fn ask_for_round(&self) -> bool {
        // Relaxed: numbers by themselves.
        let done = self.orders.done.load(Ordering::Relaxed);
        let next = done.wrapping_add(1);
        let (asked, order) = (&self.orders.asked, Ordering::Relaxed);
        asked.compare_exchange(done, next, order, order).is_ok()
    }

    /// Rounds of the sweep that have begun, asked for or not.
    pub fn rounds_begun(&self) -> u32 {
        self.orders.begun.load(Ordering::Relaxed)
    }

    /// True while a page is emptied that is to leave its class.
    pub fn is_moving_page(&self) -> bool {
        self.slabs.is_departing()
    }

    /// True while a round is under way that was asked for; and how many were so far.
    pub fn rounds_asked_for(&self) -> (bool, u32) {
        let asked = self.orders.asked.load(Ordering::Relaxed);
        (asked != self.orders.done.load(Ordering::Relaxed), asked)
    }
}

impl Participant {
    /// Takes one turn of the sweep; `TURNS_PER_ROUND` of them look at every page.
    pub fn sweep(&mut self, sweep: &mut Sweep, now: Now) {
        self.quiesce();
        if self.table.epochs.horizon() < sweep.forgotten.0 {
            // Somebody is busy: the sweep goes on in the next turn.
            return;
        }
        for number in std::mem::take(&mut sweep.forgotten.1) {
            self.sweep_page(number, now);
        }
        let (_, asked) = self.table.rounds_asked_for();
        if std::mem::replace(&mut sweep.asked, asked) != asked {
            (sweep.next, sweep.in_haste) = (1, true);
            self.table.log.close_open(&self.table.slabs.pages, false, now);
        }
        let pages = self.table.slabs.pages.count();
        let turns = if sweep.in_haste { TURNS_IN_HASTE } else { TURNS_PER_ROUND };
        let sweeps = self.table.sweeps();
        for _ in 0..pages.div_ceil(turns) {
            if sweep.next > pages {
                self.end_round(sweep, now);
            }
            let begins = u32::from(sweep.next == 1);
            self.table.orders.begun.fetch_add(begins, Ordering::Relaxed);
            let has_expired = sweeps && self.table.slabs.pages.page(sweep.next).has_expired(now);
            if (has_expired || sweep.is_thorough()) && self.forget_expiries(sweep.next) {
                sweep.forgotten.1.push(sweep.next);
            }
            sweep.next += 1;
        }
        if !sweep.forgotten.1.is_empty() {
            sweep.forgotten.0 = self.table.epochs.advance();
        }
    }

    fn end_round(&mut self, sweep: &mut Sweep, now: Now) {
        let table = &self.table;
        if sweep.is_thorough() {
            table.forget_flushes(sweep.flushes);
            sweep.flushes_done = sweep.flushes;
        }
        sweep.flushes = table.flushes();
        table.log.close_open(&table.slabs.pages, sweep.is_thorough(), now);
        sweep.next = 1;
        sweep.in_haste = false;
        table.orders.done.store(sweep.asked, Ordering::Relaxed);
        self.quiesce();
    }

    /// Forgets when something expires in a page, if it is one that can be read now. What is noted
    /// for its next use is never forgotten: that begins under the same locks.
    fn forget_expiries(&self, number: u32) -> bool {
        let table = &self.table;
        let page = table.slabs.pages.page(number);
        match page.holder() {
            Holder::Class(class) => {
                let guard = table.slabs.lock(&table.arena, class);
                let is_there = guard.slot_of(number, 0).is_some();
                if is_there {
                    page.forget_expiries();
                }
                is_there
            }
            Holder::Log => table.log.forget_expiries(&table.slabs.pages, number),
            Holder::None => false,
        }
    }

    fn sweep_page(&mut self, number: u32, now: Now) {
        match self.table.slabs.pages.page(number).holder() {
            Holder::Class(class) => self.sweep_class(number, class, now),
            Holder::Log => self.sweep_log(number, now),
            Holder::None => {}
        }
        self.quiesce();
    }

    fn sweep_class(&mut self, number: u32, class: u8, now: Now) {
        let mut index = 0;
        while let Some(swept) = self.sweep_slots((number, class), index, now) {
            index = swept.next;
            self.quiesce();
        }
    }

    /// Lets go of what is dead in the next few slots of a page of a class. `None` at its end.
    pub(in crate::store) fn sweep_slots(
        &self,
        (number, class): (u32, u8),
        first: u32,
        now: Now,
    ) -> Option<Swept> {
        let arena = &self.table.arena;
        let guard = self.table.slabs.lock(arena, class);
        let mut swept = Swept { next: first, buried: 0 };
        while swept.next < first + SLOTS_PER_LOCK
            && let Some(at) = guard.slot_of(number, swept.next)
        {
            let word = arena.look(at);
            match word.state() {
                State::Live if self.is_dead(&guard, at, word, now) => {
                    self.bury_swept(at, Keep::by(&guard));
                    swept.buried += 1;
                }
                State::Live | State::Reserved => self.table.note_expiry(at, word.expiry()),
                State::Free
                | State::Fragment
                | State::Retired
                | State::Hole
                | State::FragmentHole => {}
            }
            self.counters.add_of_size(SizeClass::new(class), OfSize::CrawlerItemsChecked, 1);
            swept.next += 1;
        }
        (swept.next > first).then_some(swept)
    }

    fn sweep_log(&mut self, number: u32, now: Now) {
        let Some(end) = self.table.log.hold_closed(&self.table.slabs.pages, number) else { return };
        let (mut offset, mut slots) = (0, 0u32);
        let start = self.table.slabs.pages.start_of(number);
        while offset < end {
            let at = Ref::from_offset(start + offset);
            let (logged, bytes) = self.table.arena.logged(at);
            let word = self.table.arena.look(at);
            match logged {
                Logged::Gone => {}
                Logged::Building => self.table.note_expiry(at, word.expiry()),
                Logged::Live => {
                    let item = self.table.arena.item(at, self.keep());
                    if self.table.is_dead(&item, word, now) {
                        self.bury_swept(at, self.keep());
                    } else {
                        self.table.note_expiry(at, word.expiry());
                    }
                }
            }
            let class = self.table.slabs.sizes().counted_as(bytes);
            self.counters.add_of_size(class, OfSize::CrawlerItemsChecked, 1);
            offset += bytes;
            slots += 1;
            if slots.is_multiple_of(SLOTS_PER_LOCK) {
                self.quiesce();
            }
        }
        self.table.log.let_go(&self.table.slabs.pages, number);
    }

    fn bury_swept(&self, at: Ref, keep: Keep<'_>) {
        let item = self.table.arena.item(at, keep);
        if let Some((retired, word)) = self.table.unlink(&item, self.table.hash(item.key())) {
            self.count_of(&item, OfSize::CrawlerReclaimed);
            if !word.is_fetched() {
                self.count_of(&item, OfSize::ExpiredUnfetched);
            }
            self.lay_out((retired, word), &item);
        }
    }
}
