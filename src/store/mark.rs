//! Verbs about what is known of a value beside itself: that it is out of date, and that somebody
//! has been told to make a newer one.
//!
//! ```text
//!            mark_stale             win
//!   fresh -------------> stale ------------> stale and won
//!     |                    ^                   |    |
//!     |                    +--- mark_stale ----+    | an older value is stored all the same:
//!     |                    +--- mark_stale --+      | it is what its predecessor was
//!     |       win, vivify                    |      v
//!     +-----------------------------------> won
//!     ^--------------- a value is stored, from anywhere
//! ```
//!
//! Who wins does so by `Item::win`, without a lock. What changes the cas is done under the lock of
//! the stripe, in place where that is possible: an item whose cas no peer has chosen so far has no
//! place for one, and is copied.

use super::arena::{Inherits, ItemHead, Marks, Pin};
use super::participant::Participant;
use super::write::Terms;
use super::{Condition, Miss, Outcome, Refusal};
use crate::base::by_size::OfSize;
use crate::base::clock::{Expiry, Now};
use crate::base::hash::KeyHash;

/// How a value goes out of date.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Staling {
    /// The cas that the item must have.
    pub cas: Option<u64>,
    /// The cas that it is to have; `None` for one that the table chooses.
    pub new_cas: Option<u64>,
    /// What it is to have instead of its exptime.
    pub expiry: Option<Expiry>,
}

/// How a value is taken from an item, which stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emptying {
    /// The cas that the item must have.
    pub cas: Option<u64>,
    /// The cas that it is to have; `None` for the one it has, or, if it becomes stale, one that the
    /// table chooses.
    pub new_cas: Option<u64>,
    pub flags: u32,
    pub expiry: Expiry,
    pub stale: bool,
}

/// How marking went.
enum Marked {
    /// Or why not.
    Done(Outcome),
    /// The item of this version has no place for the cas.
    Copy { pin: Pin, flags: u32, version: u64 },
}

impl Participant {
    /// Adds an empty item whose value the caller is to make: it is won. `NotStored` when there is
    /// one.
    ///
    /// # Errors
    /// Why there is no memory.
    pub fn vivify(
        &mut self,
        key: &[u8],
        hash: KeyHash,
        (expiry, cas): (Expiry, Option<u64>),
        now: Now,
    ) -> Result<Outcome, Refusal> {
        let head = ItemHead { key, hash, flags: 0, expiry, value_bytes: 0, cas };
        let marks = Marks::WON;
        self.build(head, b"", Terms { marks, ..Terms::on(Condition::Absent) }, now)
    }

    /// Marks the item of a key as out of date: it gets another cas, and the next one may win.
    ///
    /// # Errors
    /// Why there is no memory, where the item has to be copied.
    pub fn mark_stale(
        &mut self,
        key: &[u8],
        hash: KeyHash,
        staling: Staling,
        now: Now,
    ) -> Result<Outcome, Refusal> {
        loop {
            let (pin, flags, version) = match self.mark_in_place(key, hash, staling, now) {
                Marked::Done(outcome) => return Ok(outcome),
                Marked::Copy { pin, flags, version } => (pin, flags, version),
            };
            let head = ItemHead {
                key,
                hash,
                flags,
                expiry: staling.expiry.unwrap_or(Expiry::NEVER),
                value_bytes: pin.value_bytes(),
                cas: staling.new_cas,
            };
            let stored = self.store_copy(head, &pin, staling, version, now);
            self.unpin(pin);
            match stored? {
                Outcome::Exists | Outcome::NotFound => {}
                outcome @ (Outcome::Stored { .. } | Outcome::NotStored | Outcome::NoMemory) => {
                    return Ok(outcome);
                }
            }
        }
    }

    fn mark_in_place(&self, key: &[u8], hash: KeyHash, staling: Staling, now: Now) -> Marked {
        let table = &*self.table;
        let stripe = table.lock(hash);
        let found = table.locate_in(table.segment_of(hash), key, hash, &stripe);
        let item =
            found.map(|(_, item)| item).filter(|item| table.death(item, hash, now).is_none());
        let Some(item) = item else { return Marked::Done(Outcome::NotFound) };
        if staling.cas.is_some_and(|cas| cas != item.cas()) {
            return Marked::Done(Outcome::Exists);
        }
        if staling.new_cas.is_some() && !item.is_noted() {
            return match self.pin(&item) {
                Some(pin) => Marked::Copy { pin, flags: item.flags(), version: item.version() },
                None => Marked::Done(Outcome::NoMemory),
            };
        }
        let version = table.next_version(hash, &stripe);
        let cas = staling.new_cas.unwrap_or(version);
        item.mark_stale(version, cas, staling.expiry);
        if let Some(expiry) = staling.expiry {
            table.note_expiry(item.at(), expiry);
        }
        Marked::Done(Outcome::Stored { cas, value_bytes: item.value_bytes() })
    }

    /// Puts a stale copy of a pinned item in its place, if it has the same version still.
    fn store_copy(
        &mut self,
        head: ItemHead<'_>,
        pin: &Pin,
        staling: Staling,
        version: u64,
        now: Now,
    ) -> Result<Outcome, Refusal> {
        let table = std::sync::Arc::clone(&self.table);
        let mut copy = self.reserve(head, now)?;
        let mut offset = 0;
        while offset < pin.value_bytes() {
            let run = table.arena.pinned(pin, offset);
            if let Err(refusal) = self.fill(&mut copy, run, now) {
                self.abandon(copy);
                return Err(refusal);
            }
            offset += run.len();
        }
        let terms = Terms {
            condition: Condition::Version(version),
            inherits: Inherits {
                exptime: staling.expiry.is_none(),
                marks: Marks::NONE,
                fetched: true,
            },
            marks: Marks::STALE,
        };
        Ok(self.store(copy, terms, now))
    }

    /// Takes the value from the item of a key, which counts as deleting unless it becomes stale.
    ///
    /// # Errors
    /// Why there is no memory.
    pub fn take_value(
        &mut self,
        key: &[u8],
        hash: KeyHash,
        emptying: Emptying,
        now: Now,
    ) -> Result<Outcome, Refusal> {
        loop {
            let (cas, version, size) = match self.peek(key, hash, now) {
                Ok(item) => (item.cas(), item.version(), self.size_of(&item)),
                Err(Miss::Absent | Miss::Expired | Miss::Flushed) => return Ok(Outcome::NotFound),
            };
            if emptying.cas.is_some_and(|wanted| wanted != cas) {
                return Ok(Outcome::Exists);
            }
            let Emptying { flags, expiry, stale, .. } = emptying;
            let kept = (!stale).then_some(cas);
            let cas = emptying.new_cas.or(kept);
            let head = ItemHead { key, hash, flags, expiry, value_bytes: 0, cas };
            let condition = Condition::Version(version);
            let marks = if stale { Marks::STALE } else { Marks::NONE };
            match self.build(head, b"", Terms { marks, ..Terms::on(condition) }, now)? {
                Outcome::Exists | Outcome::NotFound => {}
                outcome @ (Outcome::Stored { .. } | Outcome::NotStored | Outcome::NoMemory) => {
                    if outcome.is_stored() && !stale {
                        self.counters.add_of_size(size, OfSize::DeleteHits, 1);
                    }
                    return Ok(outcome);
                }
            }
        }
    }
}
