//! A table in this process, and what a server does for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ringcached::base::clock::{Expiry, Now};
use ringcached::base::hash::KeyHasher;
use ringcached::store::{
    Condition, Favor, ItemHead, Outcome, Participant, Refusal, StorePlan, Table,
};
use ringcached_load::values::mix;

/// As the server's default.
const ITEM_BYTES_MAX: usize = 1 << 20;

/// How long a thread that tends a table rests when nothing is due.
pub const REST: Duration = Duration::from_millis(100);

/// An empty table for so many threads.
pub fn table(memory_bytes: u64, threads: u32, evict: bool) -> io::Result<Arc<Table>> {
    let (hasher, favor) = (KeyHasher::random(), Favor::default());
    let (item_bytes_max, loan_bytes) = (ITEM_BYTES_MAX, None);
    let plan =
        StorePlan { memory_bytes, item_bytes_max, evict, threads, hasher, favor, loan_bytes };
    Table::open(plan).map(Arc::new)
}

/// Makes the huge pages that are due. True when the kernel makes some at all.
pub fn make_huge_pages(table: &Table) -> bool {
    loop {
        match table.make_huge_page() {
            Ok(true) => {}
            Ok(false) => return true,
            Err(error) => return error.kind() != io::ErrorKind::InvalidInput,
        }
    }
}

/// Stores an item without exptime.
pub fn store(
    one: &mut Participant,
    key: &[u8],
    value: &[u8],
    now: Now,
) -> Result<Outcome, Refusal> {
    let (hash, value_bytes) = (one.table().hash(key), value.len());
    let head = ItemHead { key, hash, flags: 0, expiry: Expiry::NEVER, value_bytes, cas: None };
    if let Some(outcome) = one.put(&head, value, Condition::Always, now) {
        return Ok(outcome);
    }
    let mut reservation = one.reserve(head, now)?;
    if let Err(refusal) = one.fill(&mut reservation, value, now) {
        one.abandon(reservation);
        return Err(refusal);
    }
    Ok(one.commit(reservation, Condition::Always, now))
}

/// Length of the keys and values of the benches that measure time.
pub const KEY_BYTES: usize = 20;
pub const VALUE_BYTES: usize = 32;

/// The key of an item, as long as a usual one and cheap to make.
#[inline]
pub fn key(item: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"bench:item::--------";
    key[12..].copy_from_slice(&item.to_le_bytes());
    key
}

/// The first word of an item's value.
#[inline]
pub fn word(item: u64) -> u64 {
    mix(item)
}

/// The first word of what was stored.
#[inline]
pub fn first_word(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

/// The value of an item.
pub fn value(item: u64) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    for (number, place) in (0u64..).zip(value.chunks_exact_mut(8)) {
        place.copy_from_slice(&word(item).wrapping_add(number).to_le_bytes());
    }
    value
}

/// One of `count` items, by a word that is drawn.
#[inline]
pub fn pick(word: u64, count: u64) -> u64 {
    let product = u128::from(word) * u128::from(count);
    u64::try_from(product >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_picked_evenly_and_none_beyond_the_last() {
        let mut counts = [0u32; 10];
        for draw in 0..100_000 {
            counts[usize::try_from(pick(mix(draw), 10)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (9500..10_500).contains(count)), "{counts:?}");
        assert_eq!((pick(u64::MAX, 10), pick(0, 10)), (9, 0));
    }

    #[test]
    fn what_is_stored_says_whose_it_is() {
        assert_eq!(first_word(&value(77)), word(77));
        assert_ne!(key(1), key(1 << 40));
        assert_eq!(first_word(b"short"), 0);
    }
}
