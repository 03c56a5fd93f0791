//! How much values may take that have begun to arrive and are not there yet.
//!
//! None of that can be let go of, and neither can the rest of a page in which such a value begins.
//! So all of them together leave what connections may be lent, as much again, which their requests
//! may take on the heap before anybody is told, and an eighth of the memory, in which small values
//! are stored meanwhile, as if nothing were amiss. Whose value does not come at once and who finds
//! that as much arrives as may waits a little, and is refused in the end; and at once where
//! somebody was a moment ago, as what has come of his waits, too; or where what has come of those
//! who wait fills the receive buffers, so that nobody is heard.

use super::Refusal;
use super::arena::{Home, Reservation};
use super::memory::Then;
use super::participant::Participant;
use super::table::Table;
use super::wait::Place;
use crate::base::clock::{Now, TICKS_PER_S};
use crate::base::sync::Arc;
use crate::base::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// This part of the memory is left.
const LEFT_SHARE: usize = 8;

/// For so long after a refusal, and when nobody is heard, others are refused without a wait.
const CROWDED_TICKS: u64 = TICKS_PER_S / 4;

/// What is waited for; no class has this number.
const ARRIVALS: Place = Some(u8::MAX);

/// What was taken for values which had not come.
#[derive(Debug, Default)]
pub(in crate::store) struct Arrivals {
    /// Bytes of their slots.
    in_classes: AtomicUsize,
    in_log: AtomicUsize,
    /// Pages in which their items begin, and bytes of the first slots of these.
    pages: AtomicUsize,
    in_first_slots: AtomicUsize,
    /// Until when it is taken for how things are that too much arrives, in ticks.
    crowded_until: AtomicU64,
}

impl Arrivals {
    /// The sum in which values that arrive in such slots count.
    fn of(&self, home: Home) -> &AtomicUsize {
        match home {
            Home::Class(_) => &self.in_classes,
            Home::Log(_) => &self.in_log,
        }
    }

    // Relaxed, here and below: figures to go by.
    pub(in crate::store) fn in_classes(&self) -> usize {
        self.in_classes.load(Ordering::Relaxed)
    }

    pub(in crate::store) fn in_log(&self) -> usize {
        self.in_log.load(Ordering::Relaxed)
    }
}

impl Table {
    /// A value begins to arrive.
    pub(in crate::store) fn begin_arrival(&self, reservation: &mut Reservation) {
        let (arrivals, shape) = (&self.arrivals, reservation.shape());
        reservation.count_in(arrivals.of(shape.home));
        arrivals.in_first_slots.fetch_add(shape.slot_bytes, Ordering::Relaxed);
        let is_first = self.slabs.pages.page_of(reservation.head()).begin_arrival();
        arrivals.pages.fetch_add(usize::from(is_first), Ordering::Relaxed);
    }

    /// More of it does.
    pub(in crate::store) fn go_on_arriving(&self, reservation: &mut Reservation) {
        reservation.count_more(self.arrivals.of(reservation.shape().home));
    }

    /// It has arrived, or will not, if it was to.
    pub(in crate::store) fn end_arrival(&self, reservation: &mut Reservation) {
        if !reservation.is_arriving() {
            return;
        }
        let (arrivals, shape) = (&self.arrivals, reservation.shape());
        reservation.count_out(arrivals.of(shape.home));
        arrivals.in_first_slots.fetch_sub(shape.slot_bytes, Ordering::Relaxed);
        let is_last = self.slabs.pages.page_of(reservation.head()).end_arrival();
        arrivals.pages.fetch_sub(usize::from(is_last), Ordering::Relaxed);
    }

    /// Bytes that arriving values keep from others: where one begins, its page.
    ///
    /// Each sum may be of another moment, but none is ever below zero. What a value counts for is
    /// taken off after it was added, as both is done by who has it. A page is taken off by who ends
    /// its last arrival, for whom the first one has ended: whoever began that had added the page.
    fn arriving_bytes(&self) -> usize {
        let arrivals = &self.arrivals;
        let in_pages = arrivals.pages.load(Ordering::Relaxed) * self.slabs.pages.page_bytes();
        let in_slots = arrivals.in_classes() + arrivals.in_log();
        in_pages + in_slots.saturating_sub(arrivals.in_first_slots.load(Ordering::Relaxed))
    }

    /// Who finds that as much arrives as may is refused without a wait, for a moment: others waited
    /// in vain, or cannot even be received from.
    pub fn refuse_arrivals(&self, now: Now) {
        self.arrivals.crowded_until.store(now.ticks + CROWDED_TICKS, Ordering::Relaxed);
    }

    /// True while fewer bytes arrive than may.
    fn may_arrive(&self) -> bool {
        let bytes = self.limit.pages() as usize * self.slabs.pages.page_bytes();
        let lendable = self.lendable_bytes_max();
        let left = lendable + lendable.max(self.overdrawn_bytes()) + bytes / LEFT_SHARE;
        // One item can be stored in any case.
        let most = bytes.saturating_sub(left).max(bytes / LEFT_SHARE).max(self.item_bytes_max);
        self.arriving_bytes() < most
    }
}

impl Participant {
    /// Waits until more of a value may arrive.
    ///
    /// # Errors
    /// When too much arrives for too long, or until later.
    pub(in crate::store) fn await_arrivals(&mut self, now: Now) -> Result<(), Refusal> {
        if self.table.may_arrive() {
            return Ok(());
        }
        let table = Arc::clone(&self.table);
        if now.ticks < table.arrivals.crowded_until.load(Ordering::Relaxed) {
            table.refusals.fetch_add(1, Ordering::Relaxed);
            return Err(Refusal::NoMemory);
        }
        let take = |one: &Participant| one.table.may_arrive().then_some(());
        // There is nothing to let go of.
        let waited = self.wait_for(ARRIVALS, take, |_, _| None, Then::Refused, now);
        if waited == Err(Refusal::NoMemory) {
            table.refuse_arrivals(now);
        }
        waited.map(|_| ())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use crate::base::metrics::Registry;
    use crate::store::tests::{NOW, head, store, table};
    use crate::store::{Condition, Participant, Refusal, Reservation};

    const VALUE_BYTES: usize = 500_000;

    /// A value of so many bytes, of which so much is there.
    fn begin(
        one: &mut Participant,
        key: u32,
        (value_bytes, bytes): (usize, usize),
    ) -> Result<Reservation, Refusal> {
        let key = key.to_le_bytes();
        let mut reservation = one.reserve_ahead(head(one, &key, value_bytes), NOW)?;
        match one.fill(&mut reservation, &vec![7; bytes], NOW) {
            Ok(()) => Ok(reservation),
            Err(refusal) => {
                one.abandon(reservation);
                Err(refusal)
            }
        }
    }

    fn assert_small_values_are_stored(one: &mut Participant) {
        for key in 1 << 20..(1 << 20) + 1000u32 {
            let stored = store(one, &key.to_le_bytes(), &[1; 600], Condition::Always);
            assert!(stored.is_ok_and(|outcome| outcome.is_stored()), "{key}");
        }
    }

    /// Each lies among others that have come.
    #[test]
    fn small_values_that_do_not_come_leave_room_however_they_lie() {
        let registry = Registry::default();
        let table = table(8 << 20, true);
        let mut one = table.participant(registry.counters("one"));
        let mut begun = Vec::new();
        for key in 0..900 {
            begun.extend(begin(&mut one, key, (3000, 1500)));
            for other in 0..21 {
                if let Ok(whole) = begin(&mut one, 1000 + key * 21 + other, (3000, 3000)) {
                    let _ = one.commit(whole, Condition::Always, NOW);
                }
            }
            one.quiesce();
        }
        assert!((30..100).contains(&begun.len()), "{} in pages of 64 KiB", begun.len());
        assert_small_values_are_stored(&mut one);
        begun.into_iter().for_each(|reservation| one.abandon(reservation));
        assert_eq!(table.arriving_bytes(), 0);
    }

    #[test]
    fn values_that_do_not_come_leave_room_for_small_ones() {
        for evict in [true, false] {
            let registry = Registry::default();
            let table = table(8 << 20, evict);
            let mut one = table.participant(registry.counters("one"));
            let begun: Vec<_> = (0..100)
                .map_while(|key| begin(&mut one, key, (VALUE_BYTES, 200_000)).ok())
                .collect();
            assert!((10..40).contains(&begun.len()), "{} of 200 KB in 8 MiB", begun.len());
            assert!(matches!(begin(&mut one, 200, (VALUE_BYTES, 200_000)), Err(Refusal::NoMemory)));
            // Connections take all that they may, in pages and on the heap.
            let lent = std::iter::from_fn(|| table.lend()).count();
            assert!(lent > 0 && table.lendable_bytes() == 0);
            one.settle(table.lendable_bytes_max() as u64, || (), NOW);
            assert_eq!(table.overdrawn_bytes(), table.lendable_bytes_max());
            assert_small_values_are_stored(&mut one);
            begun.into_iter().for_each(|reservation| one.abandon(reservation));
            one.quiesce();
            let again = begin(&mut one, 300, (VALUE_BYTES, VALUE_BYTES)).unwrap();
            one.abandon(again);
        }
    }
}
