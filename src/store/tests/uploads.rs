//! Values that arrive slowly, or not at all, and everybody else.

use super::{NOW, get, store, table};
use crate::base::clock::Expiry;
use crate::base::metrics::Registry;
use crate::base::sync::atomic::Ordering;
use crate::store::{Condition, ItemHead, Participant, Reservation, limbo_bytes_max};

const KEYS: u64 = 5000;

/// Sizes from `min` on, all doublings alike, by a generator that always says the same.
struct Sizes(u64);

impl Sizes {
    fn next(&mut self, min: usize, doublings: u32) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let [.., low, high] = self.0.to_le_bytes();
        let min = min << (u32::from(high) % doublings);
        min + min * usize::from(low) / 256
    }
}

/// Half of a value has come.
fn stall(one: &mut Participant, key: u64, value_bytes: usize) -> Option<Reservation> {
    let key = key.to_le_bytes();
    let (hash, expiry) = (one.table().hash(&key), Expiry::NEVER);
    let head = ItemHead { key: &key, hash, flags: 0, expiry, value_bytes, cas: None };
    let mut upload = one.reserve_ahead(head, NOW).ok()?;
    match one.fill(&mut upload, &vec![1; value_bytes / 2], NOW) {
        Ok(()) => Some(upload),
        Err(_) => {
            one.abandon(upload);
            None
        }
    }
}

/// How many of so many stores are refused. With `hits`, keys are asked for too.
fn refused(
    one: &mut Participant,
    keys: impl Iterator<Item = u64>,
    sizes: &mut impl FnMut() -> usize,
    hits: bool,
) -> usize {
    let mut refused = 0;
    for key in keys {
        let value = vec![1; sizes()];
        let stored = store(one, &(key % KEYS).to_le_bytes(), &value, Condition::Always);
        refused += usize::from(stored.is_err());
        if hits {
            get(one, &(key * 7 % KEYS).to_le_bytes());
        }
        one.quiesce();
    }
    refused
}

/// New keys, that come to the log, and small ones: an upload for each page of it would keep all.
#[test]
fn stalled_uploads_do_not_keep_a_page_each() {
    let registry = Registry::default();
    let table = table(16 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let mut uploads = Vec::new();
    for number in 0..1800 {
        uploads.extend(stall(&mut one, 1 << 40 | number, 1000));
        assert_eq!(refused(&mut one, number * 10..number * 10 + 10, &mut || 2000, false), 0);
    }
    assert_eq!(uploads.len(), 1800);
    assert_eq!(refused(&mut one, 0..3000, &mut || 2000, false), 0);
    let pages = (table.log.held() + table.slabs.pages.stuck()) as usize;
    assert!(pages * table.slabs.pages.page_bytes() < 2_500_000, "{pages} pages for 1.9 MB");
    uploads.drain(..).for_each(|upload| one.abandon(upload));
    assert_eq!(refused(&mut one, 0..20_000, &mut || 2000, false), 0);
    assert_eq!(table.log.held() + table.slabs.pages.stuck(), 0);
}

/// Nothing is refused, and others let go of each other for them: silent peers have to be told.
#[test]
fn what_stalled_uploads_keep_is_known_wherever_it_lies() {
    let registry = Registry::default();
    let table = table(16 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let mut uploads = Vec::new();
    for number in 0..1800 {
        uploads.extend(stall(&mut one, 1 << 40 | number, 4000));
        assert_eq!(refused(&mut one, number * 10..number * 10 + 10, &mut || 2000, false), 0);
    }
    assert_eq!(refused(&mut one, 0..3000, &mut || 2000, false), 0);
    let starved = one.starved_bytes();
    assert!(starved > 2 << 20, "{starved} of 7 MB that are kept, 4 MB of which may be");
    uploads.drain(..).for_each(|upload| one.abandon(upload));
    assert_eq!(refused(&mut one, 0..20_000, &mut || 2000, false), 0);
    assert_eq!(one.starved_bytes(), 0);
    assert_eq!(table.arrivals.in_classes(), 0);
}

/// Every second as many go as are asked for, and others store on: no more go than bring what the
/// silent keep back to what they may.
#[test]
fn no_more_stalled_uploads_go_than_must() {
    for value_bytes in [1000, 4000] {
        let registry = Registry::default();
        let table = table(16 << 20, true);
        let mut one = table.participant(registry.counters("one"));
        let mut uploads = Vec::new();
        for number in 0..1800 * 4000 / (value_bytes as u64) {
            uploads.extend(stall(&mut one, 1 << 40 | number, value_bytes));
            assert_eq!(refused(&mut one, number * 10..number * 10 + 10, &mut || 2000, false), 0);
        }
        for second in 0..10 {
            let keys = second * 2000..second * 2000 + 2000;
            assert_eq!(refused(&mut one, keys, &mut || 2000, false), 0);
            let mut starved = one.starved_bytes();
            while starved > 0
                && let Some(upload) = uploads.pop()
            {
                starved = starved.saturating_sub(upload.held_bytes());
                one.abandon(upload);
            }
        }
        let kept: usize = uploads.iter().map(Reservation::held_bytes).sum();
        uploads.drain(..).for_each(|upload| one.abandon(upload));
        assert!((5 << 19..5 << 20).contains(&kept), "{value_bytes}: {kept} bytes of 4 MiB");
        assert_eq!(table.arrivals.in_classes(), 0);
    }
}

/// Less is kept than may be, and yet something is refused now and then: half of it goes, and not
/// everybody at once.
#[test]
fn a_refusal_does_not_cost_everybody() {
    let registry = Registry::default();
    let table = table(16 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let uploads: Vec<_> =
        (0..1800).filter_map(|number| stall(&mut one, 1 << 40 | number, 1000)).collect();
    let kept: usize = uploads.iter().map(Reservation::held_bytes).sum();
    assert_eq!(one.starved_bytes(), 0);
    table.refusals.fetch_add(1, Ordering::Relaxed);
    let starved = one.starved_bytes();
    assert!((kept / 4..=kept / 2 + 1).contains(&starved), "{starved} of {kept}");
    assert_eq!(one.starved_bytes(), 0, "it was one refusal");
    uploads.into_iter().for_each(|upload| one.abandon(upload));
    assert_eq!(table.arrivals.in_log(), 0);
    table.refusals.fetch_add(1, Ordering::Relaxed);
    assert_eq!(one.starved_bytes(), 4 << 20, "nobody knows what is kept");
}

/// Keys that size classes hold: each of their pages has slots in which values arrive, and cannot
/// go to a class that has none.
#[test]
fn stalled_uploads_in_all_pages_of_the_classes_leave_room_for_others() {
    let registry = Registry::default();
    let table = table(16 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let mut sizes = Sizes(1);
    assert_eq!(refused(&mut one, 0..20_000, &mut || sizes.next(16, 12), true), 0);
    let mut uploads = Vec::new();
    for number in 0..1800 {
        uploads.extend(stall(&mut one, number, sizes.next(1000, 4)));
        let keys = number * 10..number * 10 + 10;
        assert_eq!(refused(&mut one, keys, &mut || sizes.next(16, 12), true), 0);
    }
    let keys = (0..3000).map(|key| key * 13);
    assert_eq!(refused(&mut one, keys, &mut || sizes.next(16, 12), true), 0);
    uploads.drain(..).for_each(|upload| one.abandon(upload));
}

/// One who does not come to the end of its turn for long ends epochs nevertheless.
#[test]
fn what_a_thread_has_retired_takes_no_more_than_it_may() {
    let registry = Registry::default();
    let table = table(2 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    for key in 0..50_000u32 {
        let [key, ..] = key.to_le_bytes();
        assert!(store(&mut one, &[key], b"", Condition::Always).is_ok());
    }
    let bytes = one.limbo.borrow().heap_bytes();
    let page_bytes = table.slabs.pages.page_bytes() as u64;
    assert!(bytes > 0 && bytes <= limbo_bytes_max(page_bytes), "{bytes}");
}
