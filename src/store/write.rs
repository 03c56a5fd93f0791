//! Storing and deleting.

use super::arena::{
    Exptime, Home, Item, ItemHead, Keep, Ref, Reservation, Retired, Shape, Stamp, Word0,
};
use super::index::{Entry, Place, Segment, Split, Tag};
use super::log::{ARRIVING, band};
use super::participant::Participant;
use super::table::{Table, Writer};
use super::{Condition, Outcome, Refusal};
use crate::base::by_size::OfSize;
use crate::base::bytes::equal;
use crate::base::clock::{Expiry, Now};
use crate::base::hash::KeyHash;
use crate::base::sync::MutexGuard;
use crate::base::sync::atomic::Ordering;
use crate::sys::region::Loan;

/// How an attempt to link an item went.
enum Attempt {
    Linked,
    Refused(Reservation, Outcome),
    /// The segment is full, and there was none to split it with.
    Crowded(Reservation),
}

/// Where a new entry can go.
enum Room<'t> {
    Vacant(Segment<'t>, Place),
    /// In the place of an item: an older one of the same key, or that of another key.
    Taken(Segment<'t>, Place, Item<'t>),
    None,
}

impl Table {
    /// Takes an item out of the index, unless it has left it already.
    pub(in crate::store) fn unlink(
        &self,
        item: &Item<'_>,
        hash: KeyHash,
    ) -> Option<(Retired, Word0)> {
        let _stripe = self.lock(hash);
        self.unlink_locked(item, hash)
    }

    /// As `unlink`; the ghost remembers the key.
    pub(in crate::store) fn unlink_to_ghost(
        &self,
        item: &Item<'_>,
        hash: KeyHash,
    ) -> Option<(Retired, Word0)> {
        let _stripe = self.lock(hash);
        let gone = self.unlink_locked(item, hash)?;
        self.ghost_add(hash);
        Some(gone)
    }

    /// For who holds the lock of the key's stripe.
    fn unlink_locked(&self, item: &Item<'_>, hash: KeyHash) -> Option<(Retired, Word0)> {
        let segment = self.segment_of(hash);
        let (place, ()) = segment.find(hash, |at| (at == item.at()).then_some(()))?;
        segment.clear(place);
        Some(self.arena.retire(item.at()))
    }

    /// Puts a full copy, as warm as `heat` says, in the place of an item, whose last header it
    /// returns, unless the item has left the index already.
    pub(in crate::store) fn relink(
        &self,
        item: &Item<'_>,
        copy: Reservation,
        heat: u64,
    ) -> Result<(Retired, Word0), Reservation> {
        let hash = copy.hash();
        let _stripe = self.lock(hash);
        let segment = self.segment_of(hash);
        let found = segment.find(hash, |at| (at == item.at()).then_some(()));
        let Some((place, ())) = found else { return Err(copy) };
        let fetched = item.word0().is_fetched();
        let stamp = Stamp { cas: item.cas(), heat, fetched };
        let link = |at| segment.replace(place, Entry::new(Tag::of(hash), at));
        let (at, retired, word) =
            self.arena.supersede((copy, stamp), item, Exptime::Inherited, link);
        self.note_expiry(at, word.expiry());
        Ok((retired, word))
    }

    /// The place of a key, and its item, for who holds the lock of its stripe.
    fn locate<'t>(
        &'t self,
        key: &[u8],
        hash: KeyHash,
        stripe: &'t MutexGuard<'_, Writer>,
    ) -> Option<(Segment<'t>, Place, Item<'t>)> {
        let segment = self.segment_of(hash);
        let (place, item) = self.locate_in(segment, key, hash, stripe)?;
        Some((segment, place, item))
    }

    /// As `locate`, for who knows the segment.
    #[inline]
    pub(in crate::store) fn locate_in<'t>(
        &'t self,
        segment: Segment<'_>,
        key: &[u8],
        hash: KeyHash,
        stripe: &'t MutexGuard<'_, Writer>,
    ) -> Option<(Place, Item<'t>)> {
        segment.find(hash, |at| {
            let item = self.arena.item(at, Keep::by(stripe));
            equal(item.key(), key).then_some(item)
        })
    }

    /// A place for a new key, for who holds the lock of its stripe. Splits as often as it takes.
    fn room<'t>(
        &'t self,
        hash: KeyHash,
        stripe: &'t MutexGuard<'_, Writer>,
        evict: bool,
    ) -> Room<'t> {
        loop {
            let segment = self.segment_of(hash);
            if let Some(place) = segment.vacancy(hash) {
                return Room::Vacant(segment, place);
            }
            // What finds no place where there is room collides with others: no split helps it.
            if evict || self.evict && segment.is_sparse() {
                let item = |entry: Entry| self.arena.item(entry.at(), Keep::by(stripe));
                let coldest = segment
                    .neighbours(hash)
                    .map(|(place, entry)| (place, item(entry)))
                    .min_by_key(|(_, item)| item.word0().heat());
                return coldest
                    .map_or(Room::None, |(place, item)| Room::Taken(segment, place, item));
            }
            let Some(number) = self.slabs.pages.take_segment() else { return Room::None };
            match self.directory(hash).split(segment, self.segment(number)) {
                Split::Done => {}
                Split::TooDeep => {
                    self.slabs.pages.put_segment(number);
                    return Room::None;
                }
            }
        }
    }
}

impl Participant {
    /// Takes memory for an item whose value is there.
    ///
    /// # Errors
    /// Why there is none.
    pub fn reserve(&mut self, head: ItemHead<'_>, now: Now) -> Result<Reservation, Refusal> {
        self.reserve_in(head, band(head.expiry, now), now)
    }

    /// Takes memory for an item whose value will arrive: who knows when.
    ///
    /// # Errors
    /// Why there is none.
    pub fn reserve_ahead(&mut self, head: ItemHead<'_>, now: Now) -> Result<Reservation, Refusal> {
        self.reserve_in(head, ARRIVING, now)
    }

    /// As `reserve`; an item that comes to the log comes to this band of it.
    fn reserve_in(
        &mut self,
        head: ItemHead<'_>,
        band: u8,
        now: Now,
    ) -> Result<Reservation, Refusal> {
        let bytes = head.bytes(false).checked_add(head.value_bytes);
        if bytes.is_none_or(|bytes| bytes > self.table.item_bytes_max) {
            return Err(Refusal::TooLarge);
        }
        if self.has_retired_much() {
            self.quiesce();
        }
        let (wanted, has_returned) = self.shape(&head, band, now);
        let allocated = self.allocate_anywhere(&head, wanted, band, now);
        self.count_efforts(&head, allocated.as_ref().err());
        let (slot, shape) = allocated?;
        if has_returned {
            self.count_ghost_hit(wanted);
        }
        let mut reservation = self.table.arena.start(slot, &head, shape);
        if band == ARRIVING {
            reservation.count_in(self.table.arriving(shape.home));
        }
        self.table.note_expiry(reservation.head(), head.expiry);
        Ok(reservation)
    }

    /// Where an item should be built, and whether its key had gone and returns. The log is for keys
    /// that nobody has asked for twice.
    fn shape(&self, head: &ItemHead<'_>, band: u8, now: Now) -> (Shape, bool) {
        let (table, sizes) = (&self.table, self.table.slabs.sizes());
        let in_class = || sizes.shape(head);
        let in_log = || sizes.logged_shape(head, band);
        if !table.evict || band == ARRIVING && table.log.is_held_up(&table.slabs.pages) {
            return (in_class(), false);
        }
        match table.find(head.key, head.hash, self.keep()) {
            Some(old) if table.death(&old, head.hash, now).is_none() => {
                let shape = if old.word0().is_main() { in_class() } else { in_log() };
                (shape, false)
            }
            Some(_) => (in_log(), false),
            None if table.ghost_has(head.hash) => (in_class(), true),
            None => (in_log(), false),
        }
    }

    /// Appends to the value of a reservation. Memory for large values is taken as they arrive.
    ///
    /// # Errors
    /// When there is no more memory; the reservation can only be abandoned then. Or there may be
    /// some later; then it can be filled on.
    ///
    /// # Panics
    /// If the value becomes longer than was announced, or the reservation is of another table.
    pub fn fill(
        &mut self,
        reservation: &mut Reservation,
        mut bytes: &[u8],
        now: Now,
    ) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            self.extend(reservation, now)?;
            bytes = &bytes[self.table.arena.fill(reservation, bytes)..];
        }
        Ok(())
    }

    /// Takes memory for the next bytes of a value, if there is none.
    fn extend(&mut self, reservation: &mut Reservation, now: Now) -> Result<(), Refusal> {
        if reservation.wants_slot() && !self.table.arena.extend_ahead(reservation) {
            let allocated = self.allocate_fragments(reservation, now);
            self.count_efforts_for_more(allocated.as_ref().err());
            let slots = allocated?;
            self.table.arena.extend_by(reservation, slots);
            reservation.count_more(self.table.arriving(reservation.shape().home));
        }
        Ok(())
    }

    /// Lends the memory for the next bytes of a value, a slot at most, to who writes them there.
    /// The reservation can be neither filled nor ended until `take_value_back`.
    ///
    /// # Errors
    /// As `fill`.
    ///
    /// # Panics
    /// If nothing is missing, something is lent, or the reservation is of another table.
    pub fn lend_for_value(
        &mut self,
        reservation: &mut Reservation,
        now: Now,
    ) -> Result<Loan, Refusal> {
        self.extend(reservation, now)?;
        Ok(self.table.arena.lend_tail(reservation))
    }

    /// Takes back what was lent; its first `len` bytes are the next ones of the value.
    ///
    /// # Panics
    /// If it is not what was lent for this reservation, or shorter.
    pub fn take_value_back(&mut self, reservation: &mut Reservation, loan: Loan, len: usize) {
        self.table.arena.take_tail_back(reservation, &loan, len);
    }

    /// Stores a full reservation, if the condition holds; gives its memory back otherwise.
    ///
    /// # Panics
    /// If the reservation is not full, or of another table.
    pub fn commit(&mut self, reservation: Reservation, condition: Condition, now: Now) -> Outcome {
        self.store(reservation, condition, Exptime::Own, now)
    }

    pub(in crate::store) fn store(
        &mut self,
        mut reservation: Reservation,
        condition: Condition,
        exptime: Exptime,
        now: Now,
    ) -> Outcome {
        reservation.count_out(self.table.arriving(reservation.shape().home));
        // Crowded twice: the directory cannot grow, or others are faster.
        let (mut force, mut crowded_before) = (false, false);
        loop {
            match self.link(reservation, condition, exptime, force, now) {
                Attempt::Linked => return Outcome::Stored,
                Attempt::Refused(refused, outcome) => {
                    self.abandon(refused);
                    return outcome;
                }
                Attempt::Crowded(crowded) if force || !self.table.evict => {
                    self.abandon(crowded);
                    return Outcome::NoMemory;
                }
                Attempt::Crowded(crowded) => {
                    force = crowded_before || !self.make_room_for_index(now);
                    crowded_before = true;
                    reservation = crowded;
                }
            }
        }
    }

    fn link(
        &self,
        reservation: Reservation,
        condition: Condition,
        exptime: Exptime,
        force: bool,
        now: Now,
    ) -> Attempt {
        let (table, hash) = (&*self.table, reservation.hash());
        let stripe = table.lock(hash);
        let draft = table.arena.draft(&reservation);
        let bytes = draft.item_bytes();
        let old = table.locate(draft.key(), hash, &stripe);
        let alive = old.filter(|(_, _, item)| table.death(item, hash, now).is_none());
        let alive = alive.map(|(_, _, item)| item);
        if let Some(outcome) = refusal(condition, alive.map(|item| item.cas())) {
            if exptime == Exptime::Own {
                self.count_cas(condition, alive, outcome);
            }
            return Attempt::Refused(reservation, outcome);
        }
        let room = match old {
            Some((segment, place, item)) => Room::Taken(segment, place, item),
            None => table.room(hash, &stripe, force),
        };
        let (segment, place, victim) = match room {
            Room::Vacant(segment, place) => (segment, place, None),
            Room::Taken(segment, place, item) => (segment, place, Some(item)),
            Room::None => return Attempt::Crowded(reservation),
        };
        // A value that is stored again is as wanted as it was before.
        let heat = alive.map_or(0, |item| item.word0().heat());
        let cas = table.next_cas(hash, &stripe);
        let stamp = Stamp { cas, heat, fetched: false };
        let entry = |at: Ref| Entry::new(Tag::of(hash), at);
        let is_main = matches!(reservation.shape().home, Home::Class(_));
        if old.is_none() && is_main {
            table.ghost_remove(hash);
        }
        match victim {
            None => {
                let at = table.arena.publish(reservation, stamp);
                segment.insert(place, hash, entry(at));
            }
            Some(item) => {
                let link = |at| match old {
                    Some(_) => segment.replace(place, entry(at)),
                    None => segment.usurp(place, hash, entry(at)),
                };
                let full = (reservation, stamp);
                let (at, retired, word) = table.arena.supersede(full, &item, exptime, link);
                if exptime == Exptime::Inherited {
                    table.note_expiry(at, word.expiry());
                }
                match old {
                    Some(_) if exptime == Exptime::Own => {
                        self.count_cas(condition, alive, Outcome::Stored);
                    }
                    Some(_) => {}
                    None => self.count_eviction(&item, word, now),
                }
                self.lay_out((retired, word), &item);
            }
        }
        self.count_linked(bytes, is_main, heat);
        Attempt::Linked
    }

    /// The key for which a reservation was made.
    ///
    /// # Panics
    /// If the reservation is of another table.
    pub fn reserved_key<'a>(&'a self, reservation: &'a Reservation) -> &'a [u8] {
        self.table.arena.reserved_key(reservation)
    }

    /// Gives the memory of a reservation back.
    ///
    /// # Panics
    /// If it is of another table.
    pub fn abandon(&mut self, mut reservation: Reservation) {
        reservation.count_out(self.table.arriving(reservation.shape().home));
        self.table.free(self.table.arena.discard(reservation));
    }

    /// Deletes the item of a key. False when there was none alive.
    pub fn delete(&mut self, key: &[u8], hash: KeyHash, now: Now) -> bool {
        self.remove(key, hash, now, |one, item| one.count_of(item, OfSize::DeleteHits))
    }

    /// Takes away what a value was to replace that found no memory: nobody asked for that.
    pub fn forget(&mut self, key: &[u8], hash: KeyHash, now: Now) {
        self.remove(key, hash, now, |_, _| {});
    }

    /// Removes the item of a key, which is shown to `found` if it was alive.
    fn remove(
        &mut self,
        key: &[u8],
        hash: KeyHash,
        now: Now,
        found: impl FnOnce(&Participant, &Item<'_>),
    ) -> bool {
        if self.has_retired_much() {
            self.quiesce();
        }
        let table = &*self.table;
        let stripe = table.lock(hash);
        let Some((segment, place, item)) = table.locate(key, hash, &stripe) else { return false };
        let alive = table.death(&item, hash, now).is_none();
        if alive {
            found(self, &item);
        }
        segment.clear(place);
        self.lay_out(table.arena.retire(item.at()), &item);
        alive
    }

    /// Declares everything stored so far dead: now, or when `due` has come, instead of any flush
    /// that was to come later.
    pub fn flush(&mut self, due: Option<Expiry>, now: Now) {
        match due.filter(|due| !due.is_due(now) && *due != Expiry::NEVER) {
            Some(due) => self.table.flush_due.store(due.to_bits(), Ordering::Relaxed),
            None => {
                self.table.flush_due.store(Expiry::NEVER.to_bits(), Ordering::Relaxed);
                self.table.flush_now();
            }
        }
    }

    /// Opens a batch: a flush that has become due happens.
    #[inline]
    pub fn begin(&mut self, now: Now) {
        if let Some(due) = self.table.due_flush(now) {
            let never = Expiry::NEVER.to_bits();
            // Relaxed: the locks of the stripes order what follows.
            let mine = self.table.flush_due.compare_exchange(
                due.to_bits(),
                never,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if mine.is_ok() {
                self.table.flush_now();
            }
        }
    }
}

/// What stands against storing, where the live item of the key has the cas `alive`.
pub(in crate::store) fn refusal(condition: Condition, alive: Option<u64>) -> Option<Outcome> {
    match (condition, alive) {
        (Condition::Always, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => None,
        (Condition::Absent, Some(_)) | (Condition::Present, None) => Some(Outcome::NotStored),
        (Condition::Cas(_), None) => Some(Outcome::NotFound),
        (Condition::Cas(wanted), Some(cas)) => (wanted != cas).then_some(Outcome::Exists),
    }
}
