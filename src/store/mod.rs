//! The table: items by key, in a fixed amount of memory, for all threads at once.
//!
//! It knows no protocol and no socket; time is an argument. Readers lock nothing and write nothing
//! but the heat of an item, while it rises. Writers lock one stripe. All memory is pages of one
//! pool; when there is none, something is evicted.
//!
//! ```text
//!   Participant     one per thread: verbs (participant, seek, put, write, modify, mark), room
//!      |            (memory, arrivals, wait, probation, evict, steal, regain), upkeep (sweep,
//!      |            tend), all keys one by one (walk), loans of pages (loan), spans of values
//!      |            (send)
//!      |
//!   Table ------ Stripe x S ---- index: directory -> segment -> bucket -> entry: tag, ref
//!      |                                                     -> ghost: keys that went
//!      +-------- Pages: the pool, from which all take: index, loans, and these two:
//!      +-------- Log: pages to which new items of every size are appended
//!      +-------- Slabs: class x C, each with pages of equal slots
//!      +-------- Arena: the memory itself, items as tokens that carry proof
//!      +-------- Epochs, Limbo: when what was unlinked may be used again
//! ```
//!
//! The life of an item, if others need room:
//!
//! ```text
//!   new -----------------------> log --- nobody asked for it ---> gone, the ghost has the key
//!                                 | somebody asked for it
//!                                 v
//!   the ghost has the key ----> class --- it has cooled down, or its page goes to others ---> gone
//! ```
//!
//! `log` and `probation` have the upper line, `evict` and `steal` the lower one. What has expired
//! goes by `sweep`. Where nothing may be evicted, all items are in classes, and `regain` has the
//! pages that become empty.
//!
//! Follow one `get`: `Participant::get` hashes to a stripe, its `Directory` names a `Segment`, the
//! `Segment` looks for the tag in three places, `Arena::item` makes the entry an `Item`, and the
//! key decides. Nothing of that is locked: the participant is online, so nothing it finds is freed
//! before it says `quiesce`, and the borrow checker sees to it that it has let go of it by then.
//!
//! A run of them takes the same way step by step, with steps of other keys in between, so that the
//! memory of many comes at once: see `seek`.
//!
//! Follow one `set`: `Participant::put` locks the stripe, looks for the old item, appends the new
//! one to the log, and links it in its place. That is the short way. The long way is for what
//! belongs elsewhere, or has not come: `Participant::reserve` chooses log or class, and `allocate`
//! finds a slot there, or frees slots or a page until there is one. `fill` writes the value, which
//! nobody sees. `commit` locks the stripe, looks for the old item, and links the new one in its
//! place; the old one waits in the thread's `Limbo` until all have quiesced.

mod arena;
mod arrivals;
mod counting;
mod epochs;
mod evict;
mod huge;
mod index;
mod limbo;
mod limit;
mod loan;
mod log;
mod mark;
mod memory;
#[cfg(all(test, loom))]
mod models;
mod modify;
mod obituary;
mod pages;
mod participant;
mod prefix;
mod probation;
mod put;
mod regain;
mod seek;
mod send;
mod sizes;
mod slabs;
mod steal;
mod sweep;
mod table;
mod tend;
#[cfg(test)]
mod tests;
mod wait;
mod walk;
mod write;

pub use arena::{Item, ItemHead, Marks, Pin, Reservation, Runs};
pub use limbo::limbo_bytes_max;
pub use loan::lendable_bytes;
pub use mark::{Emptying, Staling};
pub use obituary::Eviction;
pub use participant::Participant;
pub use prefix::{Mark, Sorted};
pub use seek::Seek;
pub use steal::Reassigned;
pub use sweep::{Sweep, TURNS_PER_ROUND};
pub use table::{Table, slot_bytes_max};
pub use walk::{Cursor, Visitor};

pub use crate::sys::region::{Loan, Span};

use crate::base::clock::Expiry;
use crate::base::hash::KeyHasher;

/// What a table is made for.
#[derive(Clone, Debug)]
pub struct StorePlan {
    /// For items, index and loans together.
    pub memory_bytes: u64,
    /// Header, key and value of the largest item.
    pub item_bytes_max: usize,
    /// Whether items make room for others, or the others are refused.
    pub evict: bool,
    /// How many threads execute commands. Four times as many participants may exist, and 64 more.
    pub threads: u32,
    pub hasher: KeyHasher,
    pub favor: Favor,
    /// What loans may take of the memory, if it is not the usual part.
    pub loan_bytes: Option<u64>,
}

/// What the memory is given to when it cannot hold everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Favor {
    /// As many hits as possible: small items, if they are wanted as much as large ones.
    #[default]
    Objects,
    /// In between: an item is worth the square root of its size.
    Balanced,
    /// As many bytes of hits as possible.
    Bytes,
}

impl Favor {
    pub fn name(self) -> &'static str {
        match self {
            Favor::Objects => "objects",
            Favor::Balanced => "balanced",
            Favor::Bytes => "bytes",
        }
    }

    /// What one touch of an item of so many bytes is worth.
    fn weight(self, bytes: usize) -> u32 {
        let weight = match self {
            Favor::Objects => 1,
            Favor::Balanced => bytes.isqrt(),
            Favor::Bytes => bytes,
        };
        u32::try_from(weight).unwrap_or(u32::MAX)
    }
}

/// What the table holds, and what it costs. Bytes, unless they count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Most that items, index and loans may take, now.
    pub limit_bytes: u64,
    pub page_bytes: u64,
    pub pages_total: u64,
    /// Pages that nobody uses yet.
    pub pages_free: u64,
    pub pages_index: u64,
    /// Pages of new items, see `log`.
    pub pages_log: u64,
    /// Of segments in use.
    pub index_bytes: u64,
    pub segments: u64,
    pub stripes: u64,
    pub classes: u64,
    /// Of items that left the index and that somebody may still look at; part of the pages.
    pub limbo_bytes: u64,
    /// Of items that are being sent from where they lie, and pages that they keep.
    pub pinned_bytes: u64,
    /// What the table takes beside its pages.
    pub outside_bytes: u64,
    /// Pages that are lent, or kept for that.
    pub pages_lent: u64,
    /// Pages that were given back to the system, because as much is in use elsewhere, or because
    /// the limit was lowered.
    pub pages_debited: u64,
    /// Of the arena in huge pages.
    pub huge_bytes: u64,
}

/// A size class at about one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassFigures {
    pub slot_bytes: u64,
    pub pages: u64,
    pub slots: u64,
    pub slots_per_page: u64,
    /// Of the slots, those that hold nothing.
    pub slots_free: u64,
}

impl Figures {
    /// Buckets of the index.
    pub fn buckets(&self) -> u64 {
        self.segments * index::SEGMENT_BUCKETS as u64
    }

    /// Pages of items.
    pub fn pages_items(&self) -> u64 {
        let others = self.pages_free + self.pages_index + self.pages_lent + self.pages_debited;
        // The figures are not of one moment.
        self.pages_total.saturating_sub(others)
    }
}

/// Why there is no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    Absent,
    Expired,
    Flushed,
}

/// Why there is no memory for an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is larger than any item may be.
    TooLarge,
    /// Everything is taken, and nothing may be evicted.
    NoMemory,
    /// There may be memory when others have quiesced, and this thread defers waits: it is to
    /// quiesce, and to ask for the same again.
    WouldWait,
}

/// What must be true of the key for an item to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Always,
    Absent,
    Present,
    /// The item there has this cas.
    Cas(u64),
    /// The item there has this cas, or a larger one; then the new value is stale from the start,
    /// and has the exptime of the old one.
    CasOrOlder(u64),
    /// The item there is the same as when it had this version.
    Version(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The item has this cas now, and a value of so many bytes.
    Stored {
        cas: u64,
        value_bytes: usize,
    },
    /// The condition was not met.
    NotStored,
    /// The item has another cas.
    Exists,
    /// There is no item to compare the cas with.
    NotFound,
    NoMemory,
}

impl Outcome {
    pub fn is_stored(self) -> bool {
        matches!(self, Outcome::Stored { .. })
    }
}

/// What came of deleting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Deletion {
    Deleted,
    NotFound,
    /// The item has another cas.
    Exists,
}

/// Where a value is joined to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Append,
    Prepend,
}

/// How a value is joined to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    pub side: Side,
    /// The cas that the other must have.
    pub cas: Option<u64>,
    /// Whether it is stored by itself where there is no other.
    pub create: bool,
}

/// A number to change, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub direction: Direction,
    pub delta: u64,
    /// The cas that the item must have.
    pub cas: Option<u64>,
    /// The cas that it is to have; `None` for one that the table chooses.
    pub new_cas: Option<u64>,
    /// What it is to have instead of its exptime.
    pub expiry: Option<Expiry>,
    /// The number to begin with, and when that expires, where there is no item.
    pub initial: Option<(u64, Expiry)>,
}

impl Change {
    pub fn by(delta: u64, direction: Direction) -> Change {
        Change { direction, delta, cas: None, new_cas: None, expiry: None, initial: None }
    }
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    pub number: u64,
    pub cas: u64,
    /// When it would have expired without the change; `None` where there was no item.
    pub expiry: Option<Expiry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArithmeticError {
    NotFound,
    /// The item has another cas.
    Exists,
    /// The value is not a decimal number below 2^64.
    NonNumeric,
    NoMemory,
    /// As `Refusal::WouldWait`.
    WouldWait,
}
