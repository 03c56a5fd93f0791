//! Items as readers see them.
//!
//! ```text
//!   0        8        16                32       40        44
//!   | word 0 | word 1 | [length | next] | [note] | [flags] | key | value ...   the head of an item
//!   | word 0 | word 1 | value ...                                              a further fragment
//! ```
//!
//! Length and next are there when the item is wide: 64 bits for the length of the value, 24 for the
//! length of each of its slots in units of 8 bytes, and 40 for the ref of the next slot. The note
//! is there when a peer chose the cas of the item, and holds the cas that peers know. The client's
//! flags are there when they are not 0.
//!
//! An item has a version, by which flushes and those who store compare, and a cas, which peers see.
//! They are the same, but for a note: then two writers who give the same cas cannot take each
//! other's value for their own.

use super::header::{Marks, Word0, Word1};
use super::{Arena, HEADER_BYTES, ItemHead, Keep, Ref, State};
use crate::base::clock::Expiry;
use crate::base::hash::KeyHash;
use crate::base::sync::atomic::{AtomicU64, Ordering};

pub(super) const WIDE_BYTES: usize = 16;
pub(super) const NOTE_BYTES: usize = 8;
pub(super) const CFLAGS_BYTES: usize = 4;

pub(super) const SLOT_UNITS_SHIFT: u32 = 40;
/// Of the length of a slot in word 1 of a fragment, in the same units.
pub(super) const FRAGMENT_UNITS_SHIFT: u32 = Ref::BITS;

/// The two words of a wide head: the value's length, and slot length with next. Only ever accessed
/// atomically, because the second changes while the value arrives and others look at chains.
pub(super) fn wide_word(arena: &Arena, head: Ref, index: usize) -> &AtomicU64 {
    arena.word(head.offset() + HEADER_BYTES + index * 8)
}

/// The slot after the head of a wide item.
pub(super) fn next_of_head(arena: &Arena, head: Ref) -> Ref {
    Ref::from_bits(wide_word(arena, head, 1).load(Ordering::Relaxed))
}

/// The cas of an item that has a note. Only ever accessed atomically, because it changes when the
/// item is marked as stale.
pub(super) fn note_word(arena: &Arena, head: Ref, word: Word0) -> &AtomicU64 {
    debug_assert!(word.is_noted());
    let wide = if word.is_wide() { WIDE_BYTES } else { 0 };
    arena.word(head.offset() + HEADER_BYTES + wide)
}

/// Offset of the key in an item.
#[inline]
pub(super) fn key_at(word: Word0) -> usize {
    HEADER_BYTES + word.extra_bytes()
}

/// An item that was found. It stays readable for `'p`, even if it is replaced meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Item<'p> {
    arena: &'p Arena,
    at: Ref,
    keep: Keep<'p>,
    word0: Word0,
    word1: Word1,
}

impl Arena {
    /// The item at `at`, which was found in the index, or by the CLOCK hand as live.
    ///
    /// # Panics
    /// If there is no item.
    #[inline]
    pub(in crate::store) fn item<'p>(&'p self, at: Ref, keep: Keep<'p>) -> Item<'p> {
        // Acquire: pairs with the Release of `publish`.
        let word0 = Word0(self.word0(at).load(Ordering::Acquire));
        assert!(word0.is_published());
        self.view(at, word0, keep)
    }

    #[inline]
    pub(super) fn view<'p>(&'p self, at: Ref, word0: Word0, keep: Keep<'p>) -> Item<'p> {
        // Relaxed: the length does not change while the item is published, and of the version one
        // is as good as the other; see `header`.
        let word1 = Word1(self.word1(at).load(Ordering::Relaxed));
        Item { arena: self, at, keep, word0, word1 }
    }
}

impl<'p> Item<'p> {
    pub(in crate::store) fn at(&self) -> Ref {
        self.at
    }

    pub(in crate::store) fn word0(&self) -> Word0 {
        self.word0
    }

    #[inline]
    pub fn key(&self) -> &'p [u8] {
        let at = self.at.offset() + key_at(self.word0);
        self.arena.bytes(at, self.word0.nkey(), self.keep)
    }

    /// The client's flags.
    #[inline]
    pub fn flags(&self) -> u32 {
        if !self.word0.has_cflags() {
            return 0;
        }
        let at = self.at.offset() + key_at(self.word0) - CFLAGS_BYTES;
        let bytes = self.arena.bytes(at, CFLAGS_BYTES, self.keep);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// Changes whenever the key is stored anew, and then to a number that it did not have within
    /// the last 2^40 stores; or to what a peer says.
    #[inline]
    pub fn cas(&self) -> u64 {
        if self.word0.is_noted() { self.noted_cas() } else { self.word1.version() }
    }

    #[cold]
    fn noted_cas(&self) -> u64 {
        // Acquire: as in `settled`.
        note_word(self.arena, self.at, self.word0).load(Ordering::Acquire)
    }

    /// As `cas`, whatever a peer says.
    #[inline]
    pub(in crate::store) fn version(&self) -> u64 {
        self.word1.version()
    }

    /// The item as it is now, and its cas, so that who learns of a cas which came with marks learns
    /// of those marks.
    pub fn settled(&self) -> (Item<'p>, u64) {
        // Acquire: pairs with the Release of `mark_stale`. The cas is read first.
        let word1 = Word1(self.arena.word1(self.at).load(Ordering::Acquire));
        let cas = Item { word1, ..*self }.cas();
        let word0 = Word0(self.arena.word0(self.at).load(Ordering::Acquire));
        (Item { word0, word1, ..*self }, cas)
    }

    /// True when somebody has asked for the item, before it was found.
    pub fn is_fetched(&self) -> bool {
        self.word0.is_fetched()
    }

    /// True when it had any marks when it was found.
    #[inline]
    pub fn is_marked(&self) -> bool {
        self.word0.is_marked()
    }

    /// As they were when the item was found.
    pub fn marks(&self) -> Marks {
        self.word0.marks()
    }

    /// What a copy of the item begins with.
    pub(in crate::store) fn head(&self, hash: KeyHash) -> ItemHead<'p> {
        ItemHead {
            key: self.key(),
            hash,
            flags: self.flags(),
            expiry: self.expiry(),
            value_bytes: self.value_bytes(),
            cas: self.word0.is_noted().then(|| self.cas()),
        }
    }

    #[inline]
    pub fn value_bytes(&self) -> usize {
        if self.word0.is_wide() { self.wide_value_bytes() } else { self.word1.value_bytes() }
    }

    fn wide_value_bytes(&self) -> usize {
        super::to_usize(wide_word(self.arena, self.at, 0).load(Ordering::Relaxed))
    }

    /// As it was when the item was found; `touch` may have changed it since.
    pub fn expiry(&self) -> Expiry {
        self.word0.expiry()
    }

    /// The value, if it lies in one piece.
    #[inline]
    pub fn value(&self) -> Option<&'p [u8]> {
        if self.word0.is_wide() {
            return None;
        }
        let at = self.at.offset() + self.head_bytes();
        Some(self.arena.bytes(at, self.word1.value_bytes(), self.keep))
    }

    /// The pieces of the value, in order. None of them is empty.
    pub fn runs(&self) -> Runs<'p> {
        Runs { item: *self, next: Some(self.at), left: self.value_bytes() }
    }

    /// Bytes before the value.
    #[inline(always)]
    pub(in crate::store) fn head_bytes(&self) -> usize {
        key_at(self.word0) + self.word0.nkey()
    }

    /// Bytes of header, key and value, without rounding.
    #[inline]
    pub fn item_bytes(&self) -> u64 {
        (self.head_bytes() + self.value_bytes()) as u64
    }

    /// Raises the heat of the item. True when that is a first hit: the item lies in a size class,
    /// and was untouched, or had cooled down to that.
    #[inline]
    pub(in crate::store) fn heat_up(&self) -> bool {
        if self.word0.is_hottest() {
            return false;
        }
        // One try: who loses to another reader has been counted by them. Relaxed: no order wanted.
        let raised = self.arena.word0(self.at).compare_exchange(
            self.word0.0,
            self.word0.hotter().0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        raised.is_ok() && self.word0.heat() == 0 && self.word0.is_main()
    }

    /// As `heat_up`, for what is changed and not asked for.
    pub(in crate::store) fn warm_up(&self) -> bool {
        let hotter = self.word0.hotter();
        if hotter.heat() == self.word0.heat() {
            return false;
        }
        // As above.
        let raised = self.arena.word0(self.at).compare_exchange(
            self.word0.0,
            hotter.as_fetched_as(self.word0).0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        raised.is_ok() && self.word0.heat() == 0 && self.word0.is_main()
    }

    /// Changes the exptime in place. `None` when the item has been let go meanwhile.
    pub(in crate::store) fn set_expiry(&self, expiry: Expiry) -> Option<Item<'p>> {
        let mut seen = self.word0;
        while seen.state() == State::Live {
            let wanted = seen.with_expiry(expiry);
            // Relaxed: a time orders nothing.
            match self.arena.word0(self.at).compare_exchange_weak(
                seen.0,
                wanted.0,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(Item { word0: wanted, ..*self }),
                Err(now) => seen = Word0(now),
            }
        }
        None
    }

    /// Marks the item, once: true for the first, until a value is stored or marked as stale. `None`
    /// when it has been let go meanwhile.
    pub(in crate::store) fn win(&self) -> Option<bool> {
        let mut seen = self.word0;
        while seen.is_in(State::Live) {
            if seen.marks().is_won() {
                return Some(false);
            }
            let wanted = seen.marked(Marks::WON);
            // Relaxed: who is the first orders nothing else.
            match self.arena.word0(self.at).compare_exchange_weak(
                seen.0,
                wanted.0,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(true),
                Err(now) => seen = Word0(now),
            }
        }
        None
    }

    /// Marks a live item as stale, and as one whose successor nobody makes, with this version and
    /// cas; and with another exptime, if there is one. The caller holds the lock of its stripe.
    ///
    /// # Panics
    /// If the item is not live, or has no note although the cas is not its version.
    pub(in crate::store) fn mark_stale(&self, version: u64, cas: u64, expiry: Option<Expiry>) {
        let word0 = self.arena.word0(self.at);
        let mut seen = self.word0;
        loop {
            assert!(seen.is_in(State::Live));
            let marked = seen.with_marks(Marks::STALE);
            let wanted = expiry.map_or(marked, |expiry| marked.with_expiry(expiry));
            // Relaxed: what follows it is released.
            match word0.compare_exchange_weak(
                seen.0,
                wanted.0,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => seen = Word0(now),
            }
        }
        // Release, both: who finds the new cas finds the marks. Pairs with the Acquire of
        // `settled`.
        if seen.is_noted() {
            note_word(self.arena, self.at, seen).store(cas, Ordering::Release);
        } else {
            assert!(cas == version);
        }
        let word1 = self.arena.word1(self.at);
        let renewed = Word1(word1.load(Ordering::Relaxed)).with_version(version);
        word1.store(renewed.0, Ordering::Release);
    }

    /// True when a peer chose the cas of the item.
    pub(in crate::store) fn is_noted(&self) -> bool {
        self.word0.is_noted()
    }

    /// The part of the value in the slot at `at`, and the slot after it.
    pub(super) fn run_at(&self, at: Ref, left: usize) -> (&'p [u8], Ref) {
        let (start, next) = if at == self.at {
            let start = at.offset() + key_at(self.word0) + self.word0.nkey();
            (start, self.arena.next_of(at, self.word0))
        } else {
            // Relaxed: it does not change while the item is published.
            let next = self.arena.word1(at).load(Ordering::Relaxed);
            (at.offset() + HEADER_BYTES, Ref::from_bits(next))
        };
        let len = self.run_bytes(start - at.offset()).min(left);
        (self.arena.bytes(start, len, self.keep), next)
    }

    /// Bytes of the value in a slot of this item, if it begins `skip` bytes into the slot.
    fn run_bytes(&self, skip: usize) -> usize {
        if !self.word0.is_wide() {
            return self.word1.value_bytes();
        }
        let word = wide_word(self.arena, self.at, 1).load(Ordering::Relaxed);
        super::to_usize(word >> SLOT_UNITS_SHIFT) * super::SLOT_ALIGN - skip
    }
}

/// The pieces of a value.
#[derive(Clone, Debug)]
pub struct Runs<'p> {
    item: Item<'p>,
    next: Option<Ref>,
    left: usize,
}

impl<'p> Iterator for Runs<'p> {
    type Item = &'p [u8];

    fn next(&mut self) -> Option<&'p [u8]> {
        loop {
            if self.left == 0 {
                return None;
            }
            let at = self.next.take()?;
            let (run, next) = self.item.run_at(at, self.left);
            self.left -= run.len();
            self.next = (next != Ref::NONE).then_some(next);
            if !run.is_empty() {
                return Some(run);
            }
        }
    }
}
