//! One thread at the table: reading, and the thread's quiescent states.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::Miss;
use super::arena::{Home, Item, Keep, Keeper, Pin, Shape, State};
use super::limbo::Limbo;
use super::memory::orphaned;
use super::obituary::Obituary;
use super::pages::Holder;
use super::sizes::SHORT_UNITS;
use super::table::Table;
use super::wait::Deferred;
use crate::base::by_size::SizeClass;
use crate::base::clock::{Expiry, Now};
use crate::base::hash::KeyHash;
use crate::base::metrics::{Counters, Metric};
use crate::base::sync::Arc as CountersArc;
use crate::base::sync::atomic::Ordering;

/// What a thread has counted is told to the classes after so many requests, or items that came or
/// went: some threads only look for items to take out.
const TOLD_AFTER: u32 = 256;

/// The time from going online to the next quiescent state, in which items may be looked at.
#[derive(Debug)]
pub(in crate::store) struct Section {
    pub cell: usize,
    online: bool,
}

impl Keeper for Section {}

/// One executing thread's access to the table. It is online when it is made.
///
/// Every `Item` borrows it, so that none outlives the call of `quiesce` or `offline` after which
/// its memory may be used again. A thread that neither quiesces nor goes offline keeps memory from
/// all the others.
#[derive(Debug)]
pub struct Participant {
    pub(in crate::store) table: Arc<Table>,
    pub(in crate::store) counters: CountersArc<Counters>,
    pub(in crate::store) section: Section,
    pub(in crate::store) limbo: RefCell<Limbo>,
    /// Useful touches by class, not yet told to the classes.
    touches: Box<[Cell<u32>]>,
    /// How often it has waited for pages that are coming.
    pub(in crate::store) pauses: Cell<u32>,
    /// The refusals of the table that `starved_bytes` knows of.
    pub(in crate::store) refusals_seen: u32,
    /// True when this thread may not wait for others.
    pub(in crate::store) defers: bool,
    pub(in crate::store) deferred: Deferred,
    /// What was evicted, where somebody wants to know.
    pub(in crate::store) obituary: Obituary,
    /// How often it has begun to make room, not yet counted.
    pub(in crate::store) efforts: Cell<u64>,
    /// The classes of short items: to count them takes no look at the table.
    pub(in crate::store) short: [SizeClass; SHORT_UNITS],
    /// How often it has looked for memory that it had to wait for.
    #[cfg(test)]
    pub(in crate::store) looks: Cell<u32>,
    /// Requests, and items that came and went, not yet told either.
    requests: Cell<u32>,
    items: Cell<i64>,
    /// Bytes that it has pinned, or unpinned if it is negative, not yet told the table.
    pub(in crate::store) pinned: Cell<i64>,
}

impl Table {
    /// Access for one more thread, whose counters are `counters`.
    ///
    /// # Panics
    /// If there are more participants than the plan allows.
    pub fn participant(self: &Arc<Table>, counters: CountersArc<Counters>) -> Participant {
        let cell = self.epochs.join();
        self.epochs.online(cell);
        Participant {
            table: Arc::clone(self),
            counters,
            section: Section { cell, online: true },
            limbo: RefCell::new(Limbo::default()),
            touches: (0..self.slabs.sizes().classes()).map(|_| Cell::new(0)).collect(),
            pauses: Cell::new(0),
            refusals_seen: 0,
            defers: false,
            deferred: Deferred::default(),
            obituary: Obituary::default(),
            efforts: Cell::new(0),
            short: self.slabs.sizes().short(),
            #[cfg(test)]
            looks: Cell::new(0),
            requests: Cell::new(0),
            items: Cell::new(0),
            pinned: Cell::new(0),
        }
    }
}

impl Participant {
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    #[inline]
    pub(in crate::store) fn keep(&self) -> Keep<'_> {
        assert!(self.section.online);
        Keep::by(&self.section)
    }

    /// Asks for the line of the index that `get` will look at first.
    #[inline]
    pub fn prefetch(&self, hash: KeyHash) {
        self.table.prefetch(hash);
    }

    /// Asks for the item that `get` will probably look at. The index line should have come by now.
    #[inline]
    pub fn prefetch_item(&self, hash: KeyHash) {
        self.table.prefetch_item(hash);
    }

    /// Asks for what storing will look at next: the item that is there, or else the ghost. The
    /// index line should have come by now.
    #[inline(always)]
    pub fn prefetch_stored(&self, hash: KeyHash) {
        if self.table.prefetch_item(hash).is_none() {
            self.table.prefetch_ghost(hash);
        }
    }

    /// The item of a key; it becomes hotter.
    ///
    /// # Errors
    /// Why there is none.
    #[inline]
    pub fn get(&self, key: &[u8], hash: KeyHash, now: Now) -> Result<Item<'_>, Miss> {
        match self.peek(key, hash, now) {
            Ok(item) => {
                self.count_get(&item);
                Ok(item)
            }
            Err(miss) => {
                self.requests.set(self.requests.get() + 1);
                Err(miss)
            }
        }
    }

    /// Somebody has asked for an item: it becomes hotter.
    #[inline]
    pub fn count_get(&self, item: &Item<'_>) {
        self.count_requests(1);
        self.heat(item);
    }

    /// As `count_get`, for who counts many requests at once.
    #[inline]
    pub(in crate::store) fn heat(&self, item: &Item<'_>) {
        if item.heat_up() {
            self.count_first_hit(item);
        }
    }

    /// Somebody has asked for so many items that were looked for ahead.
    #[inline]
    pub fn count_requests(&self, requests: usize) {
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        self.requests.set(self.requests.get().saturating_add(requests));
    }

    /// As `count_get`, for who does not want the value but to change it.
    pub(in crate::store) fn count_change(&self, item: &Item<'_>) {
        self.requests.set(self.requests.get() + 1);
        if item.warm_up() {
            self.count_first_hit(item);
        }
    }

    /// The item of a key, which takes no notice.
    ///
    /// # Errors
    /// Why there is none.
    #[inline]
    pub fn peek(&self, key: &[u8], hash: KeyHash, now: Now) -> Result<Item<'_>, Miss> {
        let item = self.table.find(key, hash, self.keep()).ok_or(Miss::Absent)?;
        match self.table.death(&item, hash, now) {
            None => Ok(item),
            Some(miss) => {
                self.bury(&item, hash);
                Err(miss)
            }
        }
    }

    /// As `peek`; what is dead stays where it is, too.
    ///
    /// # Errors
    /// Why there is none.
    pub fn look(&self, key: &[u8], hash: KeyHash, now: Now) -> Result<Item<'_>, Miss> {
        let item = self.table.find(key, hash, self.keep()).ok_or(Miss::Absent)?;
        self.table.death(&item, hash, now).map_or(Ok(item), Err)
    }

    /// Gives the item of a key another exptime; it becomes hotter. Whether that counts as a touch
    /// the caller knows, see `count_of`: an answer that must wait does not.
    ///
    /// # Errors
    /// Why there is none.
    pub fn touch(
        &self,
        key: &[u8],
        hash: KeyHash,
        expiry: Expiry,
        now: Now,
    ) -> Result<Item<'_>, Miss> {
        loop {
            let item = self.get(key, hash, now)?;
            if let Some(item) = self.set_expiry(&item, hash, expiry) {
                return Ok(item);
            }
        }
    }

    /// Gives an item that was found another exptime. `None` when it has been let go meanwhile:
    /// there may be a new one by now.
    pub fn set_expiry<'p>(
        &self,
        item: &Item<'p>,
        hash: KeyHash,
        expiry: Expiry,
    ) -> Option<Item<'p>> {
        let changed = item.set_expiry(expiry);
        match &changed {
            Some(item) => self.table.note_expiry(item.at(), expiry),
            // It is being let go of by who has the lock: after that there may be a new one.
            None => drop(self.table.lock(hash)),
        }
        changed
    }

    /// True for the first who asks, until a value is stored or marked as stale: it is to make a
    /// newer one. `None` when the item has been let go meanwhile, as with `set_expiry`.
    pub fn win(&self, item: &Item<'_>, hash: KeyHash) -> Option<bool> {
        let won = item.win();
        if won.is_none() {
            drop(self.table.lock(hash));
        }
        won
    }

    #[cold]
    fn count_first_hit(&self, item: &Item<'_>) {
        if item.word0().state() == State::Live {
            self.count_warmed(item);
        }
        // Its page may have gone to somebody else by now, if the item is not there any more.
        if let Holder::Class(class) = self.table.slabs.pages.page_of(item.at()).holder() {
            self.count_touch(class);
        }
    }

    /// A key is stored again that had just gone.
    pub(in crate::store) fn count_ghost_hit(&self, shape: Shape) {
        self.counters.bump(Metric::GhostHits);
        if let Home::Class(class) = shape.home {
            self.count_touch(class);
        }
    }

    fn count_touch(&self, class: u8) {
        let cell = &self.touches[usize::from(class)];
        // Who only stores does not tell.
        cell.set(cell.get().saturating_add(1));
    }

    /// Items came, or went if it is negative.
    pub(in crate::store) fn count_items(&self, items: i64) {
        self.items.set(self.items.get() + items);
    }

    fn tell_touches(&self) {
        let items = self.items.get().unsigned_abs();
        if self.requests.get() < TOLD_AFTER && items < u64::from(TOLD_AFTER) {
            return;
        }
        let slabs = &self.table.slabs;
        for (class, cell) in self.touches.iter().enumerate().filter(|(_, cell)| cell.get() > 0) {
            slabs.count_touches(class, u64::from(cell.take()));
        }
        slabs.count_requests(u64::from(self.requests.take()), self.items.take());
    }

    /// Takes a dead item out of the index, if it is still there.
    #[cold]
    fn bury(&self, item: &Item<'_>, hash: KeyHash) {
        if let Some(gone) = self.table.unlink(item, hash) {
            self.lay_out(gone, item);
        }
    }

    /// The next contiguous bytes of a pinned value from `offset` on; none at its end.
    ///
    /// # Panics
    /// If the pin is of another table.
    pub fn pinned<'a>(&'a self, pin: &'a Pin, offset: usize) -> &'a [u8] {
        self.table.arena.pinned(pin, offset)
    }

    /// True when this thread has retired so much that it should quiesce before it goes on.
    #[inline]
    pub(in crate::store) fn has_retired_much(&self) -> bool {
        self.limbo.borrow().fresh() >= self.table.limbo_items_max()
    }

    /// Says that this thread looks at nothing now, and frees what nobody looks at any more.
    #[inline]
    pub fn quiesce(&mut self) {
        if self.limbo.get_mut().is_fresh() {
            let horizon = self.table.epochs.advance();
            self.limbo.get_mut().seal(horizon);
        }
        if self.section.online {
            self.table.epochs.quiesce(self.section.cell);
        }
        self.reclaim_if_any();
        self.tell_touches();
        self.tell_pinned();
    }

    /// Frees what has had its grace, if there is something to free: to know the horizon is to read
    /// a line of every thread.
    #[inline]
    fn reclaim_if_any(&mut self) {
        // Relaxed: a hint; the lock behind it orders.
        if !self.limbo.get_mut().is_empty() || self.table.orphaned.load(Ordering::Relaxed) != 0 {
            self.reclaim();
        }
    }

    /// Says that this thread will look at nothing until it is online again.
    pub fn offline(&mut self) {
        self.quiesce();
        if !self.limbo.get_mut().is_empty() {
            // Others may free it; this thread may sleep for ever. Before it is offline, so that who
            // sees that it is finds this, too.
            let mut orphans = self.table.orphans.lock();
            self.limbo.get_mut().bequeath(&mut orphans);
            self.table.orphaned.store(orphaned(&orphans), Ordering::Relaxed);
        }
        self.publish_limbo_bytes();
        self.section.online = false;
        self.table.epochs.offline(self.section.cell);
    }

    pub fn online(&mut self) {
        self.section.online = true;
        self.table.epochs.online(self.section.cell);
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.offline();
        self.table.epochs.leave(self.section.cell);
    }
}
