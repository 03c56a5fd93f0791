//! Taking memory, and giving it back after its grace.

use std::sync::Arc;

use super::Refusal;
use super::arena::{Home, ItemHead, Reclaimable, Reservation, Shape, Slot};
use super::limbo::Limbo;
use super::log::KEPT;
use super::participant::Participant;
use super::slabs::ClassGuard;
use super::wait::{Place, Wait};
use crate::base::clock::Now;
use crate::base::sync::atomic::Ordering;

/// So often it goes on without pages that are coming before it lets go of more.
const PAUSES_MAX: u32 = 64;
/// Peers may keep this part of the memory from being of use, and give up as much at a time when
/// something had to be refused.
const STARVED_SHARE: usize = 4;
/// There are orphans, but all of them are being sent from.
const ORPHANS_PINNED: usize = 1;
/// There are orphans that grace sets free.
const ORPHANS_WAITING: usize = 2;

/// What becomes of an item for which nothing can be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Then {
    /// It is tried in another place.
    Elsewhere,
    Refused,
}

/// What who wants such a slot waits for.
fn place(shape: Shape) -> Place {
    match shape.home {
        Home::Class(class) => Some(class),
        Home::Log(_) => None,
    }
}

/// The first slot of an item, and the others.
pub(in crate::store) type Slots = (Slot, Vec<Slot>);

impl Participant {
    /// The first slot of an item, in the shape that was asked for, or where nothing can be evicted
    /// for that, in another one. `band` is for an item that comes to the log.
    pub(in crate::store) fn allocate_anywhere(
        &mut self,
        head: &ItemHead<'_>,
        shape: Shape,
        band: u8,
        now: Now,
    ) -> Result<(Slot, Shape), Refusal> {
        if self.table.evict && !self.waits_in_vain(place(shape)) {
            if let Some(slot) = self.allocate(head, shape, Then::Elsewhere, now)? {
                return Ok((slot, shape));
            }
            if let Some(found) = self.allocate_elsewhere(head, shape, band, now)? {
                return Ok(found);
            }
        }
        let slot = self.allocate(head, shape, Then::Refused, now)?;
        slot.map(|slot| (slot, shape)).ok_or(Refusal::NoMemory)
    }

    /// Each page of a class may have a slot in which a value arrives, so that none of them can go
    /// to another class or to the log, although there are items in it that can.
    #[cold]
    fn allocate_elsewhere(
        &mut self,
        head: &ItemHead<'_>,
        shape: Shape,
        band: u8,
        now: Now,
    ) -> Result<Option<(Slot, Shape)>, Refusal> {
        let table = Arc::clone(&self.table);
        let sizes = table.slabs.sizes();
        let in_class = sizes.shape(head);
        let other = match shape.home {
            Home::Class(_) => sizes.logged_shape(head, band),
            Home::Log(_) => in_class,
        };
        if let Some(slot) = self.allocate(head, other, Then::Elsewhere, now)? {
            return Ok(Some((slot, other)));
        }
        let Home::Class(first) = in_class.home else { return Ok(None) };
        let classes = if in_class.wide { 0 } else { sizes.classes() };
        for class in usize::from(first) + 1..classes {
            let class = u8::try_from(class).expect("at most 128 classes");
            if table.slabs.standing(class).pages == 0 {
                continue;
            }
            let slot_bytes = sizes.slot_bytes(class);
            let larger = Shape { home: Home::Class(class), slot_bytes, ..in_class };
            if let Some(slot) = self.allocate(head, larger, Then::Elsewhere, now)? {
                return Ok(Some((slot, larger)));
            }
        }
        Ok(None)
    }

    /// `None` where nothing can be evicted for that shape, and another is to be tried then.
    fn allocate(
        &mut self,
        head: &ItemHead<'_>,
        shape: Shape,
        otherwise: Then,
        now: Now,
    ) -> Result<Option<Slot>, Refusal> {
        match shape.home {
            Home::Class(class) => self.allocate_in_class(class, otherwise, now),
            Home::Log(band) => {
                let append = |one: &Participant| one.append_to_log(head, shape, band, KEPT);
                self.allocate_in_log(append, otherwise, now)
            }
        }
    }

    /// The next slot of an item, and perhaps some of those that it will want then.
    pub(in crate::store) fn allocate_fragments(
        &mut self,
        item: &Reservation,
        now: Now,
    ) -> Result<Vec<Slot>, Refusal> {
        match item.shape().home {
            Home::Class(class) => {
                let slot = self.allocate_in_class(class, Then::Refused, now)?;
                Ok(vec![slot.ok_or(Refusal::NoMemory)?])
            }
            Home::Log(band) => {
                let append = |one: &Participant| {
                    let (table, lane) = (&one.table, one.section.cell);
                    let memory = (&table.arena, &table.slabs.pages);
                    table.log.append_fragments(memory, lane, item, band, KEPT)
                };
                let slots = self.allocate_in_log(append, Then::Refused, now)?;
                let slots = slots.ok_or(Refusal::NoMemory)?;
                slots.iter().skip(1).for_each(|_| self.tidy_up(now));
                Ok(slots)
            }
        }
    }

    #[inline]
    pub(in crate::store) fn append_to_log(
        &self,
        head: &ItemHead<'_>,
        shape: Shape,
        band: u8,
        kept: u32,
    ) -> Option<Slot> {
        let (table, lane) = (&self.table, self.section.cell);
        table.log.append((&table.arena, &table.slabs.pages), lane, (head, shape), band, kept)
    }

    fn allocate_in_log<T>(
        &mut self,
        append: impl Fn(&Participant) -> Option<T>,
        otherwise: Then,
        now: Now,
    ) -> Result<Option<T>, Refusal> {
        if let Some(slots) = append(self) {
            self.tidy_up(now);
            return Ok(Some(slots));
        }
        self.wait_for_page(append, otherwise, now)
    }

    /// One in, one out: there should be pages left for others.
    #[inline]
    pub(in crate::store) fn tidy_up(&self, now: Now) {
        if self.table.slabs.is_departing() || self.table.is_short_of_pages() {
            self.go_on_freeing(now);
        }
    }

    fn go_on_freeing(&self, now: Now) {
        // What moves out of the log needs room: better wait for the pages that are coming, if it
        // does not take too long.
        let waits = self.table.slabs.pages.free() == 0
            && self.pauses.get() < PAUSES_MAX
            && self.pages_coming() > 0;
        self.pauses.set(if waits { self.pauses.get() + 1 } else { 0 });
        if !waits {
            let _ = self.free_page_step(now);
        }
    }

    /// Pages that will be free after grace, and not only when something has arrived in them or was
    /// sent from them.
    fn pages_coming(&self) -> u32 {
        let pages = &self.table.slabs.pages;
        pages.expect_no_longer(&self.table.epochs);
        pages.coming()
    }

    /// Takes what needs a page of the pool.
    fn wait_for_page<T>(
        &mut self,
        take: impl Fn(&Participant) -> Option<T>,
        otherwise: Then,
        now: Now,
    ) -> Result<Option<T>, Refusal> {
        let mut pages_freed = 0;
        let make_room = |one: &Participant, wait: &Wait| {
            let pages = &one.table.slabs.pages;
            let is_wanted = match pages.free() {
                0 => one.pages_coming() == 0,
                free => free + one.pages_coming() <= KEPT,
            };
            (is_wanted || wait.is_late()).then(|| {
                pages_freed += 1;
                one.free_page(pages_freed, now)
            })
        };
        self.wait_for(None, take, make_room, otherwise, now)
    }

    fn allocate_in_class(
        &mut self,
        class: u8,
        otherwise: Then,
        now: Now,
    ) -> Result<Option<Slot>, Refusal> {
        match self.take_slot(class) {
            Some((slot, missing)) => {
                self.replenish(class, missing, now);
                self.tidy_up(now);
                Ok(Some(slot))
            }
            None => {
                let take = |one: &Participant| one.take_slot(class).map(|(slot, _)| slot);
                // The first eviction is enough if nobody else is online; whoever must wait for
                // others keeps more free from now on.
                let make_room = |one: &Participant, wait: &Wait| {
                    let wanted = if wait.round == 1 { one.raise_reserve(class).max(1) } else { 1 };
                    let is_wanted = wait.round < 2 || wait.is_late();
                    is_wanted.then(|| one.evict_some(class, wanted, now))
                };
                self.wait_for(Some(class), take, make_room, otherwise, now)
            }
        }
    }

    /// Makes room for so many slots of a class. False when there is none to make.
    fn evict_some(&self, class: u8, slots: u64, now: Now) -> bool {
        if !self.table.evict {
            return self.regain(now);
        }
        let mut evicted = 0;
        while evicted < slots
            && (evicted == 0 || !self.is_on_its_way(slots, class))
            && self.make_room(class, now)
        {
            evicted += 1;
        }
        evicted > 0
    }

    /// Slots of a class for an item that moves there, if they can be had without waiting.
    pub(in crate::store) fn take_slots(&self, class: u8, count: usize, now: Now) -> Option<Slots> {
        let slabs = &self.table.slabs;
        let mut guard = slabs.lock(&self.table.arena, class);
        while guard.free() < count as u64 {
            if !self.grow(&mut guard, 0) {
                let waits_for_page = self.may_grow(&guard);
                drop(guard);
                if !waits_for_page {
                    // Whoever moves an item out of the log must not begin to empty the log.
                    self.raise_reserve(class);
                    self.make_room_among_classes(class, now);
                }
                return None;
            }
        }
        let slots = (guard.take()?, (1..count).filter_map(|_| guard.take()).collect());
        let missing = self.missing(&guard);
        drop(guard);
        self.replenish(class, missing, now);
        Some(slots)
    }

    /// One in, one out: others are online, so what goes from the class now is there only later.
    fn replenish(&self, class: u8, missing: u64, now: Now) {
        if missing > 0 && !self.is_on_its_way(missing, class) {
            self.begin_to_make_room(class, now);
        }
    }

    /// True when what this thread has let go of, and waits for its grace, makes `slots` free slots.
    /// An item may be one slot, or thousands.
    fn is_on_its_way(&self, slots: u64, class: u8) -> bool {
        let slot_bytes = self.table.slabs.sizes().slot_bytes(class) as u64;
        self.limbo.borrow().bytes() >= slots * slot_bytes
    }

    /// A free slot, and how many more there should be.
    fn take_slot(&self, class: u8) -> Option<(Slot, u64)> {
        let mut guard = self.table.slabs.lock(&self.table.arena, class);
        if guard.free() == 0 && !self.grow(&mut guard, KEPT) {
            return None;
        }
        let slot = guard.take()?;
        Some((slot, self.missing(&guard)))
    }

    /// How many slots a class should let go of, so that nobody has to wait for them: none for as
    /// long as it can grow.
    fn missing(&self, guard: &ClassGuard<'_>) -> u64 {
        if self.may_grow(guard) { 0 } else { guard.missing() }
    }

    /// Gives a class one more page, if there is one for it beside the `kept` ones.
    fn grow(&self, guard: &mut ClassGuard<'_>, kept: u32) -> bool {
        if !self.may_grow(guard) {
            return false;
        }
        let kept = if self.table.evict { kept } else { 0 };
        let Some(number) = self.table.slabs.pages.take_beside(kept) else { return false };
        guard.add_page(number);
        true
    }

    /// True when a class may have one of the pages that are free or will be.
    fn may_grow(&self, guard: &ClassGuard<'_>) -> bool {
        let (table, pages) = (&self.table, &self.table.slabs.pages);
        let kept_free = table.pages_kept_free();
        !table.evict
            || pages.free() > kept_free
            || table.log.has_plenty(pages, kept_free)
            || guard.has_grant()
    }

    /// Bytes that peers should give up of what they keep from being evicted, because something had
    /// to be refused since this was asked last, or they keep much of what is not even of use.
    ///
    /// What they keep from being of use is counted by the page, but what they give up are bytes: of
    /// those it is the same part. After a refusal nobody knows how much is wanted: half of it, and
    /// half of what is left if that was not enough.
    pub fn starved_bytes(&mut self) -> usize {
        let pages = &self.table.slabs.pages;
        let share = self.table.limit.pages() as usize * pages.page_bytes() / STARVED_SHARE;
        let refusals = self.table.refusals.load(Ordering::Relaxed);
        let was_refused = std::mem::replace(&mut self.refusals_seen, refusals) != refusals;
        let limbo = self.table.epochs.limbo_bytes() + self.table.orphans.lock().bytes();
        pages.expect_no_longer(&self.table.epochs);
        let in_classes = self.table.arrivals.in_classes();
        let in_log = self.table.arrivals.in_log();
        let in_pages = (pages.stuck() + self.table.log.held()) as usize * pages.page_bytes();
        let (arriving, sent_from) = (in_classes + in_log, usize::try_from(limbo).unwrap_or(0));
        let kept = (in_pages.max(in_log) + in_classes).max(sent_from);
        let excess = match (was_refused, kept) {
            (true, 0) => share,
            (true, kept) => share.min(kept.div_ceil(2)),
            (false, kept) => kept.saturating_sub(share),
        };
        if (1..kept).contains(&arriving) && sent_from < kept {
            let part = excess as u128 * arriving as u128 / kept as u128;
            return usize::try_from(part).unwrap_or(excess).max(excess.min(1));
        }
        excess
    }

    fn raise_reserve(&self, class: u8) -> u64 {
        self.table.slabs.lock(&self.table.arena, class).raise_reserve()
    }

    /// Lets a page become free for the index. False when that is not possible, or would have to be
    /// waited for by a thread that defers that.
    pub(in crate::store) fn make_room_for_index(&mut self, now: Now) -> bool {
        let take = |one: &Participant| one.table.slabs.pages.has_segment().then_some(());
        matches!(self.wait_for_page(take, Then::Refused, now), Ok(Some(())))
    }

    /// As `make_room_for_index`, where nothing is evicted. Waits on the spot: who has been told to
    /// store an item cannot ask again.
    #[cold]
    pub(in crate::store) fn regain_for_index(&mut self, now: Now) -> bool {
        let defers = std::mem::replace(&mut self.defers, false);
        let has_room = self.make_room_for_index(now);
        self.defers = defers;
        has_room
    }

    /// Takes a page out of the pool, letting go of items if it must.
    pub(in crate::store) fn take_page(&mut self, now: Now) -> Option<u32> {
        self.take_page_or(Then::Refused, now)
    }

    fn take_page_or(&mut self, otherwise: Then, now: Now) -> Option<u32> {
        let kept = if self.table.evict { KEPT } else { 0 };
        let take = |one: &Participant| one.table.slabs.pages.take_for_others(kept);
        self.wait_for_page(take, otherwise, now).ok().flatten()
    }

    /// As `take_page`, for who does without where there is nothing to let go of.
    pub(in crate::store) fn take_page_if_any(&mut self, now: Now) -> Option<u32> {
        self.take_page_or(Then::Elsewhere, now)
    }

    /// True when somebody's items wait for grace, so that waiting may help. What is being sent from
    /// may stay for as long as a peer does not read.
    pub(in crate::store) fn is_anything_waiting(&mut self) -> bool {
        self.limbo.get_mut().is_waiting()
            || self.table.epochs.is_waiting()
            || self.table.orphaned.load(Ordering::Relaxed) == ORPHANS_WAITING
    }

    /// Frees what has had its grace.
    pub(in crate::store) fn reclaim(&mut self) {
        let horizon = self.table.epochs.horizon();
        // Acquire: pairs with `note_unpin`; whose pin is not counted here will be later.
        let unpins = self.table.unpins.load(Ordering::Acquire);
        self.reclaim_from((horizon, unpins), None);
        // Relaxed: a hint; the lock orders.
        if self.table.orphaned.load(Ordering::Relaxed) != 0 {
            let table = Arc::clone(&self.table);
            let mut orphans = table.orphans.lock();
            self.reclaim_from((horizon, unpins), Some(&mut orphans));
            table.orphaned.store(orphaned(&orphans), Ordering::Relaxed);
        }
        self.publish_limbo_bytes();
    }

    fn reclaim_from(&mut self, (horizon, unpins): (u64, usize), orphans: Option<&mut Limbo>) {
        let arena = &self.table.arena;
        let limbo = orphans.unwrap_or_else(|| self.limbo.get_mut());
        let free = |item: Reclaimable| self.table.free(item);
        while let Some(item) = limbo.pop(arena, horizon) {
            free(item);
        }
        limbo.take_unpinned(arena, unpins, free);
    }

    pub(in crate::store) fn publish_limbo_bytes(&mut self) {
        let limbo = self.limbo.get_mut();
        let (bytes, pinned_bytes) = (limbo.bytes(), limbo.pinned_bytes());
        self.table.epochs.set_limbo(self.section.cell, (bytes, pinned_bytes), limbo.is_waiting());
    }
}

/// What `Table::orphaned` says of the orphans.
pub(in crate::store) fn orphaned(orphans: &Limbo) -> usize {
    match (orphans.is_waiting(), orphans.is_empty()) {
        (true, _) => ORPHANS_WAITING,
        (false, false) => ORPHANS_PINNED,
        (false, true) => 0,
    }
}
