//! Storing and deleting.

use super::arena::{
    Home, Inherits, Item, ItemHead, Keep, Marks, Ref, Reservation, Retired, Shape, Stamp, Word0,
};
use super::counting::Counted;
use super::index::{Entry, Place, Segment, Split, Tag};
use super::log::{ARRIVING, band};
use super::participant::Participant;
use super::prefix::Mark;
use super::table::{Table, Writer};
use super::{Condition, Deletion, Outcome, Refusal};
use crate::base::by_size::OfSize;
use crate::base::bytes::equal;
use crate::base::clock::{Expiry, Now};
use crate::base::hash::KeyHash;
use crate::base::sync::MutexGuard;
use crate::base::sync::atomic::Ordering;
use crate::sys::region::Loan;

/// How an attempt to link an item went.
enum Attempt {
    /// With this cas.
    Linked(u64),
    Refused(Reservation, Outcome),
    /// The segment is full, and there was none to split it with.
    Crowded(Reservation),
}

/// What became of a full reservation.
pub(in crate::store) enum Tried {
    Stored(Outcome),
    Refused(Reservation, Outcome),
}

/// How a full reservation becomes an item.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Terms {
    pub condition: Condition,
    pub inherits: Inherits,
    pub marks: Marks,
}

impl Terms {
    /// As a value that a peer stores.
    pub fn on(condition: Condition) -> Terms {
        Terms { condition, inherits: Inherits::NOTHING, marks: Marks::NONE }
    }

    /// In the place of the live item `old`, the condition being met.
    fn settle(self, old: &Item<'_>) -> Terms {
        match self.condition {
            // A value that was made from an older one than there is serves until the next.
            Condition::CasOrOlder(cas) if cas != old.cas() => Terms {
                inherits: Inherits { marks: Marks::WON, fetched: false, ..Inherits::EVERYTHING },
                marks: Marks::STALE,
                ..self
            },
            Condition::Always
            | Condition::Absent
            | Condition::Present
            | Condition::Cas(_)
            | Condition::CasOrOlder(_)
            | Condition::Version(_) => self,
        }
    }
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
        let link = |at| segment.replace(place, Entry::new(Tag::of(hash), at));
        let (at, retired, word) = self.arena.succeed(copy, heat, item, link);
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
        let may_arrive = match band {
            ARRIVING => self.await_arrivals(now),
            _ => Ok(()),
        };
        let allocated = may_arrive.and_then(|()| self.allocate_anywhere(&head, wanted, band, now));
        let bytes = head.bytes(false) + head.value_bytes;
        self.count_efforts(bytes, allocated.as_ref().err().copied());
        let (slot, shape) = allocated?;
        if has_returned {
            self.count_ghost_hit(wanted);
        }
        let mut reservation = self.table.arena.start(slot, &head, shape);
        if band == ARRIVING {
            self.table.begin_arrival(&mut reservation);
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
            let extended = self.extend(reservation, now);
            self.count_efforts(self.table.item_bytes_max, extended.err());
            extended?;
            bytes = &bytes[self.table.arena.fill(reservation, bytes)..];
        }
        Ok(())
    }

    /// Takes memory for the next bytes of a value, if there is none.
    fn extend(&mut self, reservation: &mut Reservation, now: Now) -> Result<(), Refusal> {
        if reservation.wants_slot() && !self.table.arena.extend_ahead(reservation) {
            if reservation.is_arriving() {
                self.await_arrivals(now)?;
            }
            let slots = self.allocate_fragments(reservation, now)?;
            self.table.arena.extend_by(reservation, slots);
            self.table.go_on_arriving(reservation);
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
        let extended = self.extend(reservation, now);
        // Who is refused fills it on, and is counted there.
        self.count_efforts(self.table.item_bytes_max, None);
        extended?;
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
        self.store(reservation, Terms::on(condition), now)
    }

    pub(in crate::store) fn store(
        &mut self,
        reservation: Reservation,
        terms: Terms,
        now: Now,
    ) -> Outcome {
        match self.try_store(reservation, terms, now) {
            Tried::Stored(outcome) => outcome,
            Tried::Refused(refused, outcome) => {
                self.abandon(refused);
                outcome
            }
        }
    }

    /// As `store`; what is not stored is given back.
    pub(in crate::store) fn try_store(
        &mut self,
        mut reservation: Reservation,
        terms: Terms,
        now: Now,
    ) -> Tried {
        let value_bytes = reservation.value_bytes();
        self.table.end_arrival(&mut reservation);
        // Crowded twice: the directory cannot grow, or others are faster.
        let (mut force, mut crowded_before) = (false, false);
        loop {
            match self.link(reservation, terms, force, now) {
                Attempt::Linked(cas) => return Tried::Stored(Outcome::Stored { cas, value_bytes }),
                Attempt::Refused(refused, outcome) => return Tried::Refused(refused, outcome),
                Attempt::Crowded(crowded) if force => {
                    return Tried::Refused(crowded, Outcome::NoMemory);
                }
                Attempt::Crowded(crowded) if !self.table.evict => {
                    if crowded_before || !self.regain_for_index(now) {
                        return Tried::Refused(crowded, Outcome::NoMemory);
                    }
                    crowded_before = true;
                    reservation = crowded;
                }
                Attempt::Crowded(crowded) => {
                    force = crowded_before || !self.make_room_for_index(now);
                    crowded_before = true;
                    reservation = crowded;
                }
            }
        }
    }

    fn link(&self, reservation: Reservation, terms: Terms, force: bool, now: Now) -> Attempt {
        let (table, hash) = (&*self.table, reservation.hash());
        let stripe = table.lock(hash);
        let draft = table.arena.draft(&reservation);
        let (bytes, note) = (draft.item_bytes(), draft.is_noted().then(|| draft.cas()));
        let old = table.locate(draft.key(), hash, &stripe);
        let alive = old.map(|(_, _, item)| item);
        let alive = alive.filter(|item| table.death(item, hash, now).is_none());
        if let Some(outcome) = refusal(terms.condition, alive.as_ref()) {
            if outcome == Outcome::Exists {
                self.count_bad_cas(terms.condition, alive.as_ref());
            }
            return Attempt::Refused(reservation, outcome);
        }
        let terms = alive.map_or(terms, |item| terms.settle(&item));
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
        let version = table.next_version(hash, &stripe);
        let stamp = Stamp { version, heat, marks: terms.marks };
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
                let (at, retired, word) = match terms.inherits {
                    Inherits::NOTHING => table.arena.supersede(full, &item, link),
                    inherits => table.arena.inherit(full, &item, inherits, link),
                };
                if terms.inherits.exptime {
                    table.note_expiry(at, word.expiry());
                }
                match old {
                    None => self.count_eviction(&item, word, now),
                    Some(_) => self.count_good_cas(terms.condition, &item),
                }
                self.lay_out((retired, word), &item);
            }
        }
        self.count_stored(Counted { bytes, is_main, heat });
        Attempt::Linked(note.unwrap_or(version))
    }

    /// When the item of a reservation will expire.
    ///
    /// # Panics
    /// If the reservation is of another table.
    pub fn reserved_expiry(&self, reservation: &Reservation) -> Expiry {
        self.table.arena.draft(reservation).expiry()
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
        self.table.end_arrival(&mut reservation);
        self.table.free(self.table.arena.discard(reservation));
    }

    /// Deletes the item of a key. False when there was none alive.
    pub fn delete(&mut self, key: &[u8], hash: KeyHash, now: Now) -> bool {
        self.delete_if(key, hash, None, now) == Deletion::Deleted
    }

    /// Deletes the item of a key, if it has this cas, and counts that.
    pub fn delete_if(&mut self, key: &[u8], hash: KeyHash, cas: Option<u64>, now: Now) -> Deletion {
        self.remove((key, hash), cas, Some(OfSize::DeleteHits), now)
    }

    /// As `delete`, where nobody has asked for that: what a value was to replace that found no
    /// memory must not live on.
    pub fn forget(&mut self, key: &[u8], hash: KeyHash, now: Now) {
        let _ = self.remove((key, hash), None, None, now);
    }

    fn remove(
        &mut self,
        (key, hash): (&[u8], KeyHash),
        cas: Option<u64>,
        counted: Option<OfSize>,
        now: Now,
    ) -> Deletion {
        if self.has_retired_much() {
            self.quiesce();
        }
        let table = &*self.table;
        let stripe = table.lock(hash);
        let Some((segment, place, item)) = table.locate(key, hash, &stripe) else {
            return Deletion::NotFound;
        };
        let alive = table.death(&item, hash, now).is_none();
        if alive && cas.is_some_and(|cas| cas != item.cas()) {
            return Deletion::Exists;
        }
        segment.clear(place);
        if let Some(what) = counted.filter(|_| alive) {
            self.count_of(&item, what);
        }
        self.lay_out(table.arena.retire(item.at()), &item);
        if alive { Deletion::Deleted } else { Deletion::NotFound }
    }

    /// Deletes the item of a key that has been shown, wherever it is now, if it was stored before
    /// `mark`.
    pub(in crate::store) fn delete_before(&self, shown: &Item<'_>, mark: &Mark) -> bool {
        let (table, key) = (&*self.table, shown.key());
        let hash = table.hash(key);
        let stripe = table.lock(hash);
        let Some((segment, place, item)) = table.locate(key, hash, &stripe) else { return false };
        if !mark.is_before(table.stripe_index(hash), item.version()) {
            return false;
        }
        segment.clear(place);
        self.lay_out(table.arena.retire(item.at()), &item);
        true
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

    /// Opens a batch: a flush that has become due happens, and the table is told the time.
    #[inline]
    pub fn begin(&mut self, now: Now) {
        self.table.slabs.pages.tell(now);
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

/// What stands against storing, where this is the live item of the key.
#[inline]
pub(in crate::store) fn refusal(condition: Condition, alive: Option<&Item<'_>>) -> Option<Outcome> {
    let is_met = match (condition, alive) {
        (Condition::Always, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => true,
        (Condition::Absent, Some(_)) | (Condition::Present, None) => {
            return Some(Outcome::NotStored);
        }
        (Condition::Cas(_) | Condition::CasOrOlder(_) | Condition::Version(_), None) => {
            return Some(Outcome::NotFound);
        }
        (Condition::Cas(wanted), Some(item)) => wanted == item.cas(),
        (Condition::CasOrOlder(wanted), Some(item)) => wanted <= item.cas(),
        (Condition::Version(wanted), Some(item)) => wanted == item.version(),
    };
    (!is_met).then_some(Outcome::Exists)
}
