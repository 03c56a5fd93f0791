//! How much values may take that have begun to arrive and are not there yet.
//!
//! None of that can be let go of. So all of them together leave what connections may be lent, and
//! an eighth of the memory, in which small values are stored meanwhile, as if nothing were amiss.
//! Who has a large value and finds that as much arrives as may waits as for a page, and is refused
//! in the end; and at once where somebody was a moment ago, as what has come of his waits, too.

use super::Refusal;
use super::memory::Then;
use super::participant::Participant;
use super::table::Table;
use super::wait::Place;
use crate::base::clock::Now;
use crate::base::sync::atomic::Ordering;

/// This part of the memory is left.
const LEFT_SHARE: usize = 8;

/// A value that is no larger is let in always: a connection holds as much before it is parked.
const SMALL_BYTES: usize = 4096;

/// What is waited for; no class has this number.
const ARRIVALS: Place = Some(u8::MAX);

impl Table {
    /// True while fewer bytes arrive than may.
    fn may_arrive(&self) -> bool {
        let bytes = self.limit.pages() as usize * self.slabs.pages.page_bytes();
        let left = self.lendable_bytes_max() + bytes / LEFT_SHARE;
        // One item can be stored in any case.
        let most = bytes.saturating_sub(left).max(self.item_bytes_max);
        // Relaxed: figures to go by.
        let in_classes = self.arriving_bytes.load(Ordering::Relaxed);
        in_classes + self.arriving_in_log.load(Ordering::Relaxed) < most
    }
}

impl Participant {
    /// Waits until more of a value with so many bytes may arrive.
    ///
    /// # Errors
    /// When too much arrives for too long, or until later.
    pub(in crate::store) fn await_arrivals(
        &mut self,
        value_bytes: usize,
        now: Now,
    ) -> Result<(), Refusal> {
        if value_bytes <= SMALL_BYTES || self.table.may_arrive() {
            return Ok(());
        }
        // Relaxed: a hint.
        if now.ticks < self.table.dearth_until.load(Ordering::Relaxed) {
            return Err(self.refuse(now));
        }
        let take = |one: &Participant| one.table.may_arrive().then_some(());
        self.wait_for(ARRIVALS, take, |_, _| None, Then::Refused, now).map(|_| ())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use crate::base::clock::Expiry;
    use crate::base::metrics::Registry;
    use crate::store::tests::{NOW, store, table};
    use crate::store::{Condition, ItemHead, Participant, Refusal, Reservation};

    const VALUE_BYTES: usize = 500_000;

    /// A value of which so much is there.
    fn begin(one: &mut Participant, key: u32, bytes: usize) -> Result<Reservation, Refusal> {
        let key = key.to_le_bytes();
        let hash = one.table().hash(&key);
        let (flags, expiry, value_bytes, cas) = (0, Expiry::NEVER, VALUE_BYTES, None);
        let head = ItemHead { key: &key, hash, flags, expiry, value_bytes, cas };
        let mut reservation = one.reserve_ahead(head, NOW)?;
        match one.fill(&mut reservation, &vec![7; bytes], NOW) {
            Ok(()) => Ok(reservation),
            Err(refusal) => {
                one.abandon(reservation);
                Err(refusal)
            }
        }
    }

    #[test]
    fn values_that_do_not_come_leave_room_for_small_ones() {
        for evict in [true, false] {
            let registry = Registry::default();
            let table = table(8 << 20, evict);
            let mut one = table.participant(registry.counters("one"));
            let begun: Vec<_> =
                (0..100).map_while(|key| begin(&mut one, key, 200_000).ok()).collect();
            assert!((10..40).contains(&begun.len()), "{} of 200 KB in 8 MiB", begun.len());
            assert!(matches!(begin(&mut one, 200, 200_000), Err(Refusal::NoMemory)));
            for key in 1000u32..1200 {
                let stored = store(&mut one, &key.to_le_bytes(), &[1; 3000], Condition::Always);
                assert!(stored.is_ok_and(|outcome| outcome.is_stored()), "{key}");
            }
            begun.into_iter().for_each(|reservation| one.abandon(reservation));
            one.quiesce();
            let again = begin(&mut one, 300, VALUE_BYTES).unwrap();
            one.abandon(again);
        }
    }
}
