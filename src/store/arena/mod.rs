//! The memory of the table: one mapping, addressed by offset. All `unsafe` of the store is in here.
//!
//! ```text
//!   claim            publish           retire            release (after grace)
//!   Free --> Reservation --> Live, read as Item<'p> --> Retired --> Reclaimable --> Free
//!                 +---------------- discard ------------------------^
//! ```
//!
//! The rules that the `unsafe` rests on:
//! - S1 The two header words of a slot are only accessed atomically while its page belongs to a
//!   class or to the log, and a page changes hands only when all its slots are free.
//! - S2 The bytes behind the header are written only through the one `Reservation` that took the
//!   slot from `Free` to `Reserved`; that transition is checked when it happens.
//! - S3 Once an item is `Live`, no byte behind its header changes until the slot is free again; but
//!   for its note, which is only accessed atomically, as are the words that tell where a wide item
//!   goes on.
//! - S4 `Retired` becomes `Free` only through a `Reclaimable`: after a grace period, or for an item
//!   that was never published.
//! - S5 Who looks at an item holds a `Keep`: a participant that is online, the lock of the item's
//!   class (without it no slot of it is freed), or the lock of its stripe and a link to it in the
//!   index.
//! - S6 A page that is lent is in no class, no log, no index and no pool: nothing here names a byte
//!   of it.
#![allow(unsafe_code, reason = "the memory of the table; each block argues for itself")]

mod header;
mod item;
mod logged;
mod pin;
mod reservation;
#[cfg(loom)]
mod watched;
mod words;

use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;

use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::sys::region::{HUGE_PAGE_BYTES, Loan, Region};

pub use header::Marks;
pub(in crate::store) use header::{State, VERSION_BITS, Word0};
pub use item::{Item, Runs};
pub(in crate::store) use logged::Logged;
pub use pin::Pin;
pub(in crate::store) use pin::{Released, Taken};
pub(in crate::store) use reservation::{Home, Inherits, Shape, Slot, Stamp};
pub use reservation::{ItemHead, Reservation};
#[cfg(all(test, loom))]
pub(in crate::store) use watched::{GRANULE_BYTES, WatchedCell};
pub(in crate::store) use words::Words;

/// Slots begin at multiples of this.
pub(in crate::store) const SLOT_ALIGN: usize = 8;
/// Bytes of the header of an item, and of a fragment.
pub(in crate::store) const HEADER_BYTES: usize = 16;
/// Bytes of the smallest item: it has a key of one byte.
pub(in crate::store) const ITEM_BYTES_MIN: usize = (HEADER_BYTES + 1).next_multiple_of(SLOT_ALIGN);

const _: () = assert!(usize::BITS == 64, "offsets into the arena are 64 bits");

#[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits, as asserted above")]
pub(in crate::store) const fn to_usize(number: u64) -> usize {
    number as usize
}

/// The place of a slot: its offset in the arena, divided by 8. 38 bits: 2 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Ref(u64);

impl Ref {
    /// Page 0 is never used, so that this names nothing.
    pub(in crate::store) const NONE: Ref = Ref(0);
    pub(in crate::store) const BITS: u32 = 38;

    pub(in crate::store) fn from_offset(offset: usize) -> Ref {
        debug_assert!(offset.is_multiple_of(SLOT_ALIGN));
        Ref(offset as u64 / SLOT_ALIGN as u64)
    }

    pub(in crate::store) fn from_bits(bits: u64) -> Ref {
        Ref(bits & ((1 << Ref::BITS) - 1))
    }

    pub(in crate::store) fn bits(self) -> u64 {
        self.0
    }

    pub(in crate::store) fn offset(self) -> usize {
        to_usize(self.0) * SLOT_ALIGN
    }
}

/// Something whose borrow keeps items from being freed, see S5.
pub(in crate::store) trait Keeper {}

/// Proof that items stay where they are for `'p`.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Keep<'p>(PhantomData<&'p ()>);

impl<'p> Keep<'p> {
    pub(in crate::store) fn by(_: &'p impl Keeper) -> Keep<'p> {
        Keep(PhantomData)
    }
}

/// An item that left the index. Not `Clone`: minted by the one transition from `Live`.
#[derive(Debug)]
#[must_use = "a retired item that is dropped is memory lost for ever"]
pub(in crate::store) struct Retired {
    head: Ref,
}

impl Retired {
    /// Says that no reader can know the item any more. Only who has waited for grace may say so.
    pub(in crate::store) fn after_grace(self) -> Reclaimable {
        Reclaimable { head: self.head }
    }
}

/// An item nobody can see.
#[derive(Debug)]
#[must_use = "reclaimable memory that is dropped is lost for ever"]
pub(in crate::store) struct Reclaimable {
    head: Ref,
}

impl Reclaimable {
    pub(in crate::store) fn head(&self) -> Ref {
        self.head
    }
}

#[derive(Debug)]
pub(in crate::store) struct Arena {
    region: Region,
    /// Tells the tokens of one arena from those of another.
    id: u32,
    /// The name of the memory, for a later process.
    _memfd: OwnedFd,
    #[cfg(loom)]
    watch: watched::Watch,
}

impl Arena {
    /// Makes one huge page of the range of that number. False when there is no such range.
    ///
    /// # Errors
    /// See `Region::collapse`.
    pub(in crate::store) fn collapse(&self, range: usize) -> io::Result<bool> {
        if (range + 1) * HUGE_PAGE_BYTES > self.region.len() {
            return Ok(false);
        }
        self.region.collapse(range * HUGE_PAGE_BYTES).map(|()| true)
    }

    /// Takes the range of that number from the system, and says how many bytes it is: 0 when there
    /// is no such range.
    ///
    /// # Errors
    /// See `Region::populate`.
    pub(in crate::store) fn populate(&self, range: usize) -> io::Result<usize> {
        let start = range * HUGE_PAGE_BYTES;
        let len = self.region.len().saturating_sub(start).min(HUGE_PAGE_BYTES);
        if len > 0 {
            self.region.populate(start, len)?;
        }
        Ok(len)
    }

    pub(in crate::store) fn map(len: usize) -> io::Result<Arena> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if len > SLOT_ALIGN << Ref::BITS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than 2 TiB of memory"));
        }
        #[cfg(not(loom))]
        let (region, memfd) = Region::map_memfd(c"ringcached", len)?;
        #[cfg(loom)]
        let (region, memfd) = watched::region(len)?;
        Ok(Arena {
            region,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            _memfd: memfd,
            #[cfg(loom)]
            watch: watched::Watch::new(len),
        })
    }

    /// Lends a page out, which the caller has just taken out of the pool.
    pub(in crate::store) fn lend(&self, offset: usize, len: usize) -> Loan {
        // SAFETY: what is in no pool and in no use is referred to by nobody (S6); who once looked
        // at items there has quiesced since, or their slots were not free (S1, S4).
        unsafe { Loan::of(self.region, offset, len) }
    }

    /// Where the bytes of a loan begin.
    ///
    /// # Panics
    /// If it is of another arena.
    pub(in crate::store) fn offset_of(&self, loan: &Loan) -> usize {
        loan.offset_in(self.region).expect("a loan came home to a foreign arena")
    }

    #[cfg(loom)]
    fn word(&self, offset: usize) -> &AtomicU64 {
        self.watch.word(offset)
    }

    #[cfg(not(loom))]
    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8));
        let at = self.region.span(offset, 8).cast::<AtomicU64>();
        // SAFETY: in bounds, aligned, never unmapped, and only accessed atomically (S1).
        unsafe { at.as_ref() }
    }

    #[inline]
    fn word0(&self, at: Ref) -> &AtomicU64 {
        self.word(at.offset())
    }

    #[inline]
    fn word1(&self, at: Ref) -> &AtomicU64 {
        self.word(at.offset() + 8)
    }

    /// What the slot is. The caller holds the slot itself, or keeps its page where it is: by the
    /// lock of the class, or as who walks a page of the log.
    pub(in crate::store) fn look(&self, at: Ref) -> Word0 {
        // Acquire: pairs with the Release of who made the slot what it is.
        Word0(self.word0(at).load(Ordering::Acquire))
    }

    /// The head of the item that fragment `at` belongs to.
    pub(in crate::store) fn head_of(&self, at: Ref) -> Ref {
        let word = self.look(at);
        assert!(word.state() == State::Fragment);
        word.head()
    }

    /// Takes one degree off the heat of an item. False when it was touched or let go of just now:
    /// it keeps its heat. The caller holds the lock of its class.
    pub(in crate::store) fn cool(&self, at: Ref, seen: Word0) -> bool {
        // Relaxed: heat orders nothing.
        let cooled = self.word0(at).compare_exchange(
            seen.0,
            seen.colder().0,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        cooled.is_ok()
    }

    /// Lets go of an item that has just been taken out of the index, or is about to be: the caller
    /// holds the lock of its stripe.
    ///
    /// # Panics
    /// If the item is not live: it would be freed twice.
    #[inline]
    pub(in crate::store) fn retire(&self, head: Ref) -> (Retired, Word0) {
        let flip = Word0(0).with_state(State::Live).0 ^ Word0(0).with_state(State::Retired).0;
        // AcqRel: what was done to it so far comes before what is done with its last header.
        let before = Word0(self.word0(head).fetch_xor(flip, Ordering::AcqRel));
        assert!(before.is_in(State::Live));
        (Retired { head }, before)
    }

    /// Frees all slots of an item, and names them to `each`, which may overwrite the link in them.
    /// The caller holds the lock of their class.
    pub(in crate::store) fn release(&self, item: Reclaimable, mut each: impl FnMut(Ref)) {
        let word = self.look(item.head);
        assert!(word.pins() == 0);
        let mut next = self.next_of(item.head, word);
        // Release, here and below: pairs with the Acquire of `claim`.
        self.word0(item.head).store(Word0::FREE.0, Ordering::Release);
        each(item.head);
        while next != Ref::NONE {
            let at = next;
            next = Ref::from_bits(self.word1(at).load(Ordering::Relaxed));
            self.word0(at).store(Word0::FREE.0, Ordering::Release);
            each(at);
        }
    }

    /// True when nobody sends from the item. Acquire: their last read is over then.
    pub(in crate::store) fn is_unpinned(&self, retired: &Retired) -> bool {
        self.look(retired.head).pins() == 0
    }

    fn next_of(&self, head: Ref, word: Word0) -> Ref {
        if word.is_wide() { item::next_of_head(self, head) } else { Ref::NONE }
    }

    /// The slot after `at` in the list of free slots of a page.
    pub(in crate::store) fn free_link(&self, at: Ref) -> Ref {
        Ref::from_bits(self.word1(at).load(Ordering::Relaxed))
    }

    pub(in crate::store) fn set_free_link(&self, at: Ref, next: Ref) {
        self.word1(at).store(next.bits(), Ordering::Relaxed);
    }

    /// Asks for the cache line at `at` before it is needed.
    #[inline]
    pub(in crate::store) fn prefetch(&self, at: Ref) {
        self.prefetch_at(at.offset());
        // The last item of the arena may end in its first line.
        self.prefetch_at((at.offset() + 64).min(self.region.len() - 1));
    }

    #[inline]
    fn prefetch_at(&self, offset: usize) {
        let at = self.region.at(offset);
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a prefetch of any address has no effect that the program can see.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(at.as_ptr().cast());
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        let _ = at;
    }

    /// `len` bytes of a published item.
    #[inline]
    fn bytes<'p>(&'p self, offset: usize, len: usize, _keep: Keep<'p>) -> &'p [u8] {
        #[cfg(loom)]
        self.watch.bytes(offset).read();
        let at = self.region.span(offset, len);
        // SAFETY: in bounds, and never unmapped. The caller is inside a published item, whose bytes
        // do not change (S3) while `_keep` keeps it (S4, S5).
        unsafe { std::slice::from_raw_parts(at.as_ptr(), len) }
    }
}
