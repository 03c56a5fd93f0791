//! Items being built: memory with one owner that no reader knows.

use std::sync::atomic::Ordering;

use super::header::{Marks, NARROW_VALUE_BYTES_MAX, Word0, Word1};
use super::item::{
    CFLAGS_BYTES, FRAGMENT_UNITS_SHIFT, NOTE_BYTES, SLOT_UNITS_SHIFT, WIDE_BYTES, key_at,
    note_word, wide_word,
};
use super::{
    Arena, HEADER_BYTES, Item, Keep, Keeper, Reclaimable, Ref, Retired, SLOT_ALIGN, State,
};
use crate::base::bytes::copy;
use crate::base::clock::Expiry;
use crate::base::hash::KeyHash;
use crate::base::sync::atomic::AtomicUsize;
use crate::sys::region::Loan;

/// What is known of an item before its value.
#[derive(Clone, Copy, Debug)]
pub struct ItemHead<'k> {
    pub key: &'k [u8],
    pub hash: KeyHash,
    pub flags: u32,
    pub expiry: Expiry,
    pub value_bytes: usize,
    /// The cas that the item is to have; `None` for one that the table chooses.
    pub cas: Option<u64>,
}

impl ItemHead<'_> {
    /// Bytes before the value.
    pub(in crate::store) fn bytes(&self, wide: bool) -> usize {
        let wide = if wide { WIDE_BYTES } else { 0 };
        let note = if self.cas.is_some() { NOTE_BYTES } else { 0 };
        let cflags = if self.flags != 0 { CFLAGS_BYTES } else { 0 };
        HEADER_BYTES + wide + note + cflags + self.key.len()
    }
}

/// Where the slots of an item are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Home {
    /// In pages of the log, of this band.
    Log(u8),
    /// In pages of this class.
    Class(u8),
}

/// In which slots an item lies: one, or if it is wide, as many as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Shape {
    pub(in crate::store) home: Home,
    pub(in crate::store) slot_bytes: usize,
    pub(in crate::store) wide: bool,
    /// How many slots that makes.
    pub(in crate::store) slots: usize,
}

/// What an item gets when it is published.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Stamp {
    pub(in crate::store) version: u64,
    pub(in crate::store) heat: u64,
    pub(in crate::store) marks: Marks,
}

/// What an item that takes another's place has of it, as the other was at the moment it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Inherits {
    pub(in crate::store) exptime: bool,
    /// Of these marks, those that the other has.
    pub(in crate::store) marks: Marks,
    /// Whether somebody asked for it.
    pub(in crate::store) fetched: bool,
}

impl Inherits {
    pub(in crate::store) const NOTHING: Inherits =
        Inherits { exptime: false, marks: Marks::NONE, fetched: false };
    pub(in crate::store) const EVERYTHING: Inherits =
        Inherits { exptime: true, marks: Marks::ALL, fetched: true };

    /// `own`, with what it has of the other, whose last header is `old`.
    #[inline]
    fn heir(self, own: Word0, old: Word0) -> Word0 {
        let own = if self.exptime { own.with_expiry(old.expiry()) } else { own };
        let own = own.marked(self.marks.and(old.marks()));
        if self.fetched { own.as_fetched_as(old) } else { own }
    }
}

/// A slot that belongs to whoever holds this. Not `Clone`: minted by `claim`.
#[derive(Debug)]
#[must_use = "a slot that is dropped is lost for ever"]
pub(in crate::store) struct Slot {
    pub(super) at: Ref,
}

/// Memory for one item whose value is arriving. It must be committed or abandoned.
#[derive(Debug)]
#[must_use = "a dropped reservation is memory lost for ever"]
pub struct Reservation {
    arena: u32,
    hash: KeyHash,
    head: Ref,
    shape: Shape,
    value_bytes: usize,
    filled: usize,
    /// The last slot, and the next byte to write in it.
    tail: Ref,
    tail_at: usize,
    /// Slots that are a part of it already.
    slots: u32,
    /// True exactly while what is left of the last slot is lent.
    lent: bool,
    /// Slots that were taken with one of those before, the next one last.
    ahead: Vec<Slot>,
    /// Bytes that count in a sum, or 0 if it does not.
    counted: usize,
}

impl Keeper for Reservation {}

impl Reservation {
    pub fn hash(&self) -> KeyHash {
        self.hash
    }

    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// Bytes of memory that were taken, whether the value is there or not.
    pub fn held_bytes(&self) -> usize {
        (self.slots as usize + self.ahead.len()) * self.shape.slot_bytes
    }

    /// From now on what is taken counts in `sum`, until `count_out`.
    pub(in crate::store) fn count_in(&mut self, sum: &AtomicUsize) {
        self.counted = self.held_bytes();
        // Relaxed: a figure to go by, here and below.
        sum.fetch_add(self.counted, Ordering::Relaxed);
    }

    /// True of one that counts in such a sum.
    pub(in crate::store) fn is_arriving(&self) -> bool {
        self.counted > 0
    }

    /// More was taken.
    pub(in crate::store) fn count_more(&mut self, sum: &AtomicUsize) {
        if self.counted > 0 {
            let bytes = self.held_bytes();
            sum.fetch_add(bytes - self.counted, Ordering::Relaxed);
            self.counted = bytes;
        }
    }

    pub(in crate::store) fn count_out(&mut self, sum: &AtomicUsize) {
        if self.counted > 0 {
            sum.fetch_sub(std::mem::take(&mut self.counted), Ordering::Relaxed);
        }
    }

    /// Bytes of the value that are still to come.
    pub fn missing(&self) -> usize {
        self.value_bytes - self.filled
    }

    pub(in crate::store) fn shape(&self) -> Shape {
        self.shape
    }

    pub(in crate::store) fn head(&self) -> Ref {
        self.head
    }

    /// True when the next byte needs another slot.
    pub(in crate::store) fn wants_slot(&self) -> bool {
        self.missing() > 0 && self.tail_at == self.shape.slot_bytes
    }

    /// Fragments that what is missing still takes, when the last slot is full.
    pub(in crate::store) fn fragments_missing(&self) -> usize {
        self.missing().div_ceil(self.shape.slot_bytes - HEADER_BYTES)
    }
}

impl Arena {
    /// Takes a free slot. The caller holds the lock of its class.
    ///
    /// # Panics
    /// If the slot is not free.
    pub(in crate::store) fn claim(&self, at: Ref) -> Slot {
        #[cfg(loom)]
        self.watch.start(at.offset()).write();
        let reserved = Word0::FREE.with_state(State::Reserved);
        // AcqRel: all that was done with the slot comes before what its new owner does.
        let before = self.word0(at).swap(reserved.0, Ordering::AcqRel);
        assert!(Word0(before).is_in(State::Free));
        Slot { at }
    }

    /// Takes a slot of a page that its class has only just begun to use, up to this slot: what the
    /// words of the header hold is left over from the page's last class.
    pub(in crate::store) fn claim_first(&self, at: Ref) -> Slot {
        self.word0(at).store(Word0::FREE.0, Ordering::Relaxed);
        self.claim(at)
    }

    /// Begins an item in its first slot.
    #[inline]
    pub(in crate::store) fn start(
        &self,
        slot: Slot,
        head: &ItemHead<'_>,
        shape: Shape,
    ) -> Reservation {
        let at = slot.at;
        let word = match shape.home {
            // Written when the slot was taken: who walks the page goes by it.
            Home::Log(_) => self.look(at),
            Home::Class(_) => self.write_head(at, head, shape),
        };
        let key_at = key_at(word);
        let mut reservation = Reservation {
            arena: self.id,
            hash: head.hash,
            head: at,
            shape,
            value_bytes: head.value_bytes,
            filled: 0,
            tail: at,
            tail_at: key_at,
            slots: 1,
            lent: false,
            ahead: Vec::new(),
            counted: 0,
        };
        if head.flags != 0 {
            let flags = head.flags.to_le_bytes();
            self.copy_in(&mut reservation, key_at - CFLAGS_BYTES, &flags);
        }
        self.copy_in(&mut reservation, key_at, head.key);
        reservation.tail_at = key_at + head.key.len();
        reservation
    }

    /// Writes the words that open an item.
    #[inline]
    pub(super) fn write_head(&self, at: Ref, head: &ItemHead<'_>, shape: Shape) -> Word0 {
        let nkey = u8::try_from(head.key.len()).expect("keys have at most 250 bytes");
        assert!(shape.wide || head.value_bytes <= NARROW_VALUE_BYTES_MAX);
        let is_main = matches!(shape.home, Home::Class(_));
        let word = Word0::reserved(nkey, head.expiry, head.flags != 0);
        let word = word.with_wide(shape.wide).with_note(head.cas.is_some()).with_main(is_main);
        if shape.wide {
            let units = (shape.slot_bytes / SLOT_ALIGN) as u64;
            wide_word(self, at, 0).store(head.value_bytes as u64, Ordering::Relaxed);
            wide_word(self, at, 1).store(units << SLOT_UNITS_SHIFT, Ordering::Relaxed);
        }
        if let Some(cas) = head.cas {
            note_word(self, at, word).store(cas, Ordering::Relaxed);
        }
        self.word1(at).store(Word1::new(0, head.value_bytes).0, Ordering::Relaxed);
        // Release: the words above, for who goes through the page.
        self.word0(at).store(word.0, Ordering::Release);
        word
    }

    /// Writes the words that open a further slot of an item.
    pub(super) fn write_fragment(&self, at: Ref, item: &Reservation) {
        let units = (item.shape.slot_bytes / SLOT_ALIGN) as u64;
        self.word1(at).store(units << FRAGMENT_UNITS_SHIFT, Ordering::Relaxed);
        // Release: the word above, for who goes through the page.
        self.word0(at).store(Word0::fragment(item.head).0, Ordering::Release);
    }

    /// Appends the next of several slots to a wide item, and keeps the others for when it wants
    /// them.
    pub(in crate::store) fn extend_by(&self, reservation: &mut Reservation, slots: Vec<Slot>) {
        assert!(reservation.ahead.is_empty());
        reservation.ahead = slots;
        reservation.ahead.reverse();
        self.extend_ahead(reservation);
    }

    /// Appends a slot that was taken before, if there is one.
    pub(in crate::store) fn extend_ahead(&self, reservation: &mut Reservation) -> bool {
        let slot = reservation.ahead.pop();
        slot.map(|slot| self.extend(reservation, slot)).is_some()
    }

    /// Appends a slot to a wide item.
    pub(in crate::store) fn extend(&self, reservation: &mut Reservation, slot: Slot) {
        assert!(reservation.arena == self.id && reservation.shape.wide && !reservation.lent);
        let at = slot.at;
        self.write_fragment(at, reservation);
        let link = if reservation.tail == reservation.head {
            wide_word(self, reservation.head, 1)
        } else {
            self.word1(reservation.tail)
        };
        // Relaxed: we are the only writer, and no reader follows it before the item is published.
        link.store(link.load(Ordering::Relaxed) | at.bits(), Ordering::Relaxed);
        (reservation.tail, reservation.tail_at) = (at, HEADER_BYTES);
        reservation.slots += 1;
    }

    /// Appends as much of `bytes` to the value as the last slot holds, and says how much that is.
    ///
    /// # Panics
    /// If the value becomes longer than was announced.
    #[inline]
    pub(in crate::store) fn fill(&self, reservation: &mut Reservation, bytes: &[u8]) -> usize {
        assert!(reservation.arena == self.id && bytes.len() <= reservation.missing());
        assert!(!reservation.lent);
        let len = bytes.len().min(reservation.shape.slot_bytes - reservation.tail_at);
        let at = reservation.tail_at;
        self.copy_in(reservation, at, &bytes[..len]);
        reservation.tail_at += len;
        reservation.filled += len;
        len
    }

    /// Lends the memory that the next bytes of the value belong to, as far as the last slot goes.
    /// Until it is back, the reservation can be neither filled nor ended.
    ///
    /// # Panics
    /// If nothing is missing, the last slot is full, or something is lent.
    pub(in crate::store) fn lend_tail(&self, reservation: &mut Reservation) -> Loan {
        assert!(reservation.arena == self.id && !reservation.lent);
        let at = reservation.tail_at;
        let len = reservation.missing().min(reservation.shape.slot_bytes - at);
        assert!(at >= HEADER_BYTES && len > 0);
        #[cfg(loom)]
        self.watch.bytes(reservation.tail.offset() + at).write();
        reservation.lent = true;
        // SAFETY: behind the header of a slot that `reservation` owns alone (S2), and what it holds
        // already lies before: nothing refers to these bytes while `lent` is true.
        unsafe { Loan::of(self.region, reservation.tail.offset() + at, len) }
    }

    /// Takes back what was lent. The first `len` bytes of it are the next ones of the value.
    ///
    /// # Panics
    /// If it is not what was lent for this reservation, or shorter.
    pub(in crate::store) fn take_tail_back(
        &self,
        reservation: &mut Reservation,
        loan: &Loan,
        len: usize,
    ) {
        assert!(reservation.arena == self.id && reservation.lent && len <= loan.len());
        let at = reservation.tail.offset() + reservation.tail_at;
        assert!(loan.offset_in(self.region) == Some(at));
        reservation.lent = false;
        reservation.tail_at += len;
        reservation.filled += len;
    }

    /// Writes into the last slot of the item that is being built.
    #[inline]
    fn copy_in(&self, reservation: &mut Reservation, at: usize, bytes: &[u8]) {
        assert!(at >= HEADER_BYTES && at + bytes.len() <= reservation.shape.slot_bytes);
        #[cfg(loom)]
        self.watch.bytes(reservation.tail.offset() + at).write();
        let to = self.region.span(reservation.tail.offset() + at, bytes.len());
        // SAFETY: in bounds, initialised from birth, and behind the header of a slot that
        // `reservation` owns alone (S2); it is borrowed mutably.
        let to = unsafe { std::slice::from_raw_parts_mut(to.as_ptr(), bytes.len()) };
        copy(to, bytes);
    }

    /// The item as it will be read; only its filled part may be looked at.
    ///
    /// # Panics
    /// If it is not full.
    pub(in crate::store) fn draft<'r>(&'r self, reservation: &'r Reservation) -> Item<'r> {
        assert!(reservation.arena == self.id && reservation.missing() == 0);
        self.view(reservation.head, self.look(reservation.head), Keep::by(reservation))
    }

    /// The key of an item that is being built: `start` wrote it.
    pub(in crate::store) fn reserved_key<'r>(&'r self, reservation: &'r Reservation) -> &'r [u8] {
        assert!(reservation.arena == self.id);
        self.view(reservation.head, self.look(reservation.head), Keep::by(reservation)).key()
    }

    /// Makes a full reservation a live item. The caller holds the lock of its stripe, and links it.
    ///
    /// # Panics
    /// If it is not full.
    #[inline]
    pub(in crate::store) fn publish(&self, reservation: Reservation, stamp: Stamp) -> Ref {
        self.publish_as(|word| word, reservation, stamp)
    }

    #[inline]
    fn publish_as(
        &self,
        change: impl FnOnce(Word0) -> Word0,
        reservation: Reservation,
        stamp: Stamp,
    ) -> Ref {
        let head = reservation.head;
        assert!(reservation.arena == self.id && reservation.missing() == 0);
        assert!(reservation.ahead.is_empty() && !reservation.lent);
        let word1 = Word1::new(stamp.version, reservation.value_bytes);
        self.word1(head).store(word1.0, Ordering::Relaxed);
        let word = self.look(head);
        assert!(word.is_in(State::Reserved));
        let word = change(word.with_heat(stamp.heat).marked(stamp.marks));
        // Release: whoever sees it live, here or through the index, sees all of it.
        self.word0(head).store(word.with_state(State::Live).0, Ordering::Release);
        head
    }

    /// Makes a full reservation a live item that `link` puts in the place of another one in the
    /// index. Returns the last header of the other, too. The caller holds the lock of their stripe.
    ///
    /// # Panics
    /// If it is not full, or the other is not live.
    #[inline]
    pub(in crate::store) fn supersede(
        &self,
        (reservation, stamp): (Reservation, Stamp),
        old: &Item<'_>,
        link: impl FnOnce(Ref),
    ) -> (Ref, Retired, Word0) {
        let (retired, word) = self.retire(old.at());
        let at = self.publish(reservation, stamp);
        link(at);
        (at, retired, word)
    }

    /// As `supersede`, for one that has something of the other.
    ///
    /// # Panics
    /// As `supersede`.
    pub(in crate::store) fn inherit(
        &self,
        (reservation, stamp): (Reservation, Stamp),
        old: &Item<'_>,
        inherits: Inherits,
        link: impl FnOnce(Ref),
    ) -> (Ref, Retired, Word0) {
        // First of all, so that nobody can touch or mark the old one when the new one can be found:
        // what the later of them did stays.
        let (retired, word) = self.retire(old.at());
        let at = self.publish_as(|own| inherits.heir(own, word), reservation, stamp);
        link(at);
        (at, retired, word)
    }

    /// As `inherit`, for a copy of the other: it is the same item, with all that has been done to
    /// it since it was copied.
    ///
    /// # Panics
    /// As `supersede`.
    pub(in crate::store) fn succeed(
        &self,
        copy: Reservation,
        heat: u64,
        old: &Item<'_>,
        link: impl FnOnce(Ref),
    ) -> (Ref, Retired, Word0) {
        let (old, cas) = old.settled();
        let word = self.look(copy.head);
        if word.is_noted() {
            // Relaxed: it is published later.
            note_word(self, copy.head, word).store(cas, Ordering::Relaxed);
        }
        let stamp = Stamp { version: old.version(), heat, marks: Marks::NONE };
        self.inherit((copy, stamp), &old, Inherits::EVERYTHING, link)
    }

    /// Gives up a reservation.
    ///
    /// # Panics
    /// If a part of it is lent: it may be written to.
    pub(in crate::store) fn discard(&self, mut reservation: Reservation) -> Reclaimable {
        assert!(reservation.arena == self.id && !reservation.lent);
        // They go with the others, as links of the chain.
        while self.extend_ahead(&mut reservation) {}
        Reclaimable { head: reservation.head }
    }

    /// True of a slot that will be free soon if its item is evicted: nothing is being built in it,
    /// or sent from it. The caller holds the lock of its class.
    pub(in crate::store) fn is_movable(&self, at: Ref) -> bool {
        let word = self.look(at);
        match word.state() {
            State::Free | State::Hole | State::FragmentHole => true,
            State::Reserved => false,
            State::Fragment => {
                let head = self.look(word.head());
                head.state() != State::Reserved && head.pins() == 0
            }
            State::Live | State::Retired => word.pins() == 0,
        }
    }
}
