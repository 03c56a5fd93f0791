//! Slots of the log: they follow each other without gaps, each as long as what it holds.
//!
//! A page of the log is read from its start: every slot tells its length for as long as the page is
//! in the log, whoever frees it meanwhile. Hence a freed slot keeps all of its words but the state.

use std::sync::atomic::Ordering;

use super::header::Word1;
use super::item::{FRAGMENT_UNITS_SHIFT, SLOT_UNITS_SHIFT, key_at, wide_word};
use super::{
    Arena, ItemHead, Reclaimable, Ref, Reservation, SLOT_ALIGN, Shape, Slot, State, Word0,
};

/// What a slot of the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Logged {
    /// No item begins here: this is a piece of one that goes with its head, or one has gone.
    Gone,
    /// An item is being built here.
    Building,
    Live,
}

impl Arena {
    /// Takes the next slot of an open page, for the head of an item. The caller holds the lock of
    /// the page's lane.
    #[inline]
    pub(in crate::store) fn claim_logged(
        &self,
        at: Ref,
        head: &ItemHead<'_>,
        shape: Shape,
    ) -> Slot {
        #[cfg(loom)]
        self.watch.start(at.offset()).write();
        self.write_head(at, head, shape);
        Slot { at }
    }

    /// Takes the next slot of an open page, for a further piece of an item. As `claim_logged`.
    pub(in crate::store) fn claim_logged_fragment(&self, at: Ref, item: &Reservation) -> Slot {
        #[cfg(loom)]
        self.watch.start(at.offset()).write();
        self.write_fragment(at, item);
        Slot { at }
    }

    /// What lies in the slot at `at` of a closed page that stays in the log meanwhile, and how many
    /// bytes after it the next one begins.
    pub(in crate::store) fn logged(&self, at: Ref) -> (Logged, usize) {
        #[cfg(loom)]
        self.watch.start(at.offset()).read();
        let word = self.look(at);
        match word.state() {
            State::Reserved => (Logged::Building, self.head_slot_bytes(at, word)),
            State::Live => (Logged::Live, self.head_slot_bytes(at, word)),
            State::Retired | State::Hole => (Logged::Gone, self.head_slot_bytes(at, word)),
            State::Fragment | State::FragmentHole => (Logged::Gone, self.fragment_bytes(at)),
            State::Free => unreachable!("a slot of the log that was never taken"),
        }
    }

    fn head_slot_bytes(&self, at: Ref, word: Word0) -> usize {
        if word.is_wide() {
            let units = wide_word(self, at, 1).load(Ordering::Relaxed) >> SLOT_UNITS_SHIFT;
            return super::to_usize(units) * SLOT_ALIGN;
        }
        let value_bytes = Word1(self.word1(at).load(Ordering::Relaxed)).value_bytes();
        (key_at(word) + word.nkey() + value_bytes).next_multiple_of(SLOT_ALIGN)
    }

    fn fragment_bytes(&self, at: Ref) -> usize {
        let units = self.word1(at).load(Ordering::Relaxed) >> FRAGMENT_UNITS_SHIFT;
        super::to_usize(units) * SLOT_ALIGN
    }

    /// Frees all slots of an item of the log: says to `first` how many bytes the first one has, and
    /// names the others and their bytes to `further`, after which a slot's page may be gone.
    #[inline]
    pub(in crate::store) fn release_logged(
        &self,
        item: Reclaimable,
        first: impl FnOnce(usize),
        mut further: impl FnMut(Ref, usize),
    ) {
        let word = self.look(item.head);
        assert!(word.pins() == 0);
        let mut next = self.next_of(item.head, word);
        let bytes = self.head_slot_bytes(item.head, word);
        // Release, here and below: the last look at the item, before the page is used anew.
        self.word0(item.head).store(word.with_state(State::Hole).0, Ordering::Release);
        first(bytes);
        while next != Ref::NONE {
            let at = next;
            next = Ref::from_bits(self.word1(at).load(Ordering::Relaxed));
            let bytes = self.fragment_bytes(at);
            let hole = self.look(at).with_state(State::FragmentHole);
            self.word0(at).store(hole.0, Ordering::Release);
            further(at, bytes);
        }
    }
}
