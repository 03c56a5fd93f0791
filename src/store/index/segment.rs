//! One segment: buckets that share one prefix of the hash.
//!
//! A key's entry is in its home bucket, in the bucket after it, or in the stash, which the last
//! buckets of the segment form. Writers hold the lock of the stripe. Readers hold nothing: a hit
//! needs no validation, because entries are published whole and items outlive their readers. A miss
//! may be wrong only if the segment was split meanwhile, which the directory tells: entries are
//! cleared only after the directory shows where they have gone.

use super::{BUCKET_ENTRIES, Bucket, Entry, Tag};
use crate::base::hash::KeyHash;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::store::arena::Ref;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    bucket: usize,
    entry: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct Segment<'s> {
    buckets: &'s [Bucket],
    homes: usize,
}

impl<'s> Segment<'s> {
    /// A view of `buckets`.
    ///
    /// # Panics
    /// If there are fewer than two, or more than 256.
    #[inline]
    pub fn new(buckets: &'s [Bucket]) -> Segment<'s> {
        assert!(buckets.len() >= 2 && buckets.len() <= 256);
        Segment { buckets, homes: buckets.len() - buckets.len().div_ceil(16) }
    }

    /// The home bucket of a key.
    #[inline]
    pub fn home(self, hash: KeyHash) -> usize {
        let [a, b, ..] = hash.0.to_le_bytes();
        (usize::from(u16::from_le_bytes([a, b])) * self.homes) >> 16
    }

    /// The first `R` that `look` finds among the items whose tag is right. Anybody may call this.
    #[inline]
    pub fn search<R>(
        self,
        hash: KeyHash,
        tag: Tag,
        mut look: impl FnMut(Ref) -> Option<R>,
    ) -> Option<R> {
        let home = self.home(hash);
        // Acquire: an entry that goes into the stash before it is counted here is found there, and
        // one that leaves it leaves a trace in the directory first.
        let stashed = self.buckets[home].meta.load(Ordering::Acquire) != 0;
        if let Some(found) = look_through(&self.buckets[home], tag, &mut look) {
            return Some(found);
        }
        if let Some(found) = look_through(&self.buckets[self.after(home)], tag, &mut look) {
            return Some(found);
        }
        if stashed {
            return self.stash().iter().find_map(|each| look_through(each, tag, &mut look));
        }
        None
    }

    /// The place of the entry for which `matches`. For writers.
    pub fn find(
        self,
        hash: KeyHash,
        tag: Tag,
        mut matches: impl FnMut(Ref) -> bool,
    ) -> Option<Place> {
        let mut matches = |entry: Entry| entry.has_tag(tag) && matches(entry.at());
        let home = self.home(hash);
        let near = self.place(home, &mut matches);
        let near = near.or_else(|| self.place(self.after(home), &mut matches));
        if near.is_some() || self.buckets[home].meta.load(Ordering::Relaxed) == 0 {
            return near;
        }
        (self.homes..self.buckets.len()).find_map(|bucket| self.place(bucket, &mut matches))
    }

    /// A place where an entry of the key may be put. For writers.
    pub fn vacancy(self, hash: KeyHash) -> Option<Place> {
        let is_empty = |entry| entry == Entry::EMPTY;
        let home = self.home(hash);
        self.place(home, is_empty).or_else(|| self.place(self.after(home), is_empty)).or_else(
            || (self.homes..self.buckets.len()).find_map(|each| self.place(each, is_empty)),
        )
    }

    /// The first place in a bucket whose entry `matches`.
    #[inline]
    fn place(self, bucket: usize, mut matches: impl FnMut(Entry) -> bool) -> Option<Place> {
        // Relaxed: for writers, who see each other through the lock.
        let load = |word: &AtomicU64| Entry(word.load(Ordering::Relaxed));
        let entry = self.buckets[bucket].entries.iter().position(|word| matches(load(word)))?;
        Some(Place { bucket, entry })
    }

    /// The entries in the home bucket of the key: who must yield when there is no vacancy.
    pub(in crate::store) fn neighbours(
        self,
        hash: KeyHash,
    ) -> impl Iterator<Item = (Place, Entry)> {
        let bucket = self.home(hash);
        (0..BUCKET_ENTRIES)
            .map(move |entry| Place { bucket, entry })
            .map(move |place| (place, self.entry(place)))
            .filter(|(_, entry)| *entry != Entry::EMPTY)
    }

    pub fn entry(self, place: Place) -> Entry {
        // Relaxed: for writers, who see each other through the lock.
        Entry(self.word(place).load(Ordering::Relaxed))
    }

    /// Puts an entry into a vacancy.
    pub fn insert(self, place: Place, hash: KeyHash, entry: Entry) {
        // Release: pairs with the Acquire of `look_through`; the item is written by now.
        self.word(place).store(entry.0, Ordering::Release);
        if place.bucket >= self.homes {
            self.set_stash_home(place, self.home(hash));
            self.count_stashed(self.home(hash), 1);
        }
    }

    /// Puts another entry of the same key in the place of one.
    pub fn replace(self, place: Place, entry: Entry) {
        // Release: as in `insert`.
        self.word(place).store(entry.0, Ordering::Release);
    }

    /// Empties a place.
    pub fn clear(self, place: Place) {
        // Release: after a split, whoever sees the empty place sees the new directory too.
        self.word(place).store(Entry::EMPTY.0, Ordering::Release);
        if place.bucket >= self.homes {
            self.count_stashed(self.stash_home(place), 1u64.wrapping_neg());
        }
    }

    /// Makes a segment of reused memory empty, before anybody knows it.
    pub fn reset(self, depth: u8) {
        for bucket in self.buckets {
            bucket.meta.store(0, Ordering::Relaxed);
            for entry in &bucket.entries {
                entry.store(Entry::EMPTY.0, Ordering::Relaxed);
            }
        }
        self.set_depth(depth);
    }

    /// Copies the entries whose tag has `bit` to the same places of `other`, which is empty and not
    /// known to anybody yet.
    pub(super) fn copy_half(self, other: Segment<'_>, bit: u32) {
        for (place, entry) in self.all().filter(|(_, entry)| entry.tag_bit(bit)) {
            other.word(place).store(entry.0, Ordering::Relaxed);
            if place.bucket >= self.homes {
                other.set_stash_home(place, self.stash_home(place));
                other.count_stashed(self.stash_home(place), 1);
            }
        }
    }

    /// Clears the entries whose tag has `bit`, once the directory leads to their copies.
    pub(super) fn drop_half(self, bit: u32) {
        self.all().filter(|(_, entry)| entry.tag_bit(bit)).for_each(|(place, _)| self.clear(place));
    }

    /// How many bits of the tag all entries of this segment have in common.
    pub(super) fn depth(self) -> u8 {
        let last = &self.buckets[self.buckets.len() - 1];
        last.meta.load(Ordering::Relaxed).to_le_bytes()[7]
    }

    pub(super) fn set_depth(self, depth: u8) {
        set_byte(&self.buckets[self.buckets.len() - 1].meta, 7, depth);
    }

    /// All entries, for writers.
    pub(in crate::store) fn all(self) -> impl Iterator<Item = (Place, Entry)> {
        (0..self.buckets.len())
            .flat_map(|bucket| (0..BUCKET_ENTRIES).map(move |entry| Place { bucket, entry }))
            .map(move |place| (place, self.entry(place)))
            .filter(|(_, entry)| *entry != Entry::EMPTY)
    }

    #[inline]
    fn after(self, home: usize) -> usize {
        if home + 1 == self.homes { 0 } else { home + 1 }
    }

    fn stash(self) -> &'s [Bucket] {
        &self.buckets[self.homes..]
    }

    fn word(self, place: Place) -> &'s AtomicU64 {
        &self.buckets[place.bucket].entries[place.entry]
    }

    fn stash_home(self, place: Place) -> usize {
        let homes = self.buckets[place.bucket].meta.load(Ordering::Relaxed).to_le_bytes();
        usize::from(homes[place.entry])
    }

    fn set_stash_home(self, place: Place, home: usize) {
        let home = u8::try_from(home).expect("fewer than 256 homes");
        set_byte(&self.buckets[place.bucket].meta, place.entry, home);
    }

    fn count_stashed(self, home: usize, change: u64) {
        let meta = &self.buckets[home].meta;
        // Release: pairs with the Acquire in `search`. There is one writer.
        meta.store(meta.load(Ordering::Relaxed).wrapping_add(change), Ordering::Release);
    }
}

#[inline]
fn look_through<R>(
    bucket: &Bucket,
    tag: Tag,
    look: &mut impl FnMut(Ref) -> Option<R>,
) -> Option<R> {
    // Acquire: pairs with the Release of `insert` and `clear`.
    let entries = bucket.entries.each_ref().map(|word| Entry(word.load(Ordering::Acquire)));
    // All are compared before any is looked at: where a tag is found cannot be predicted.
    let bit = |(index, entry): (usize, &Entry)| u32::from(entry.has_tag(tag)) << index;
    let mut hits = entries.iter().enumerate().map(bit).fold(0, |all, bit| all | bit);
    while hits != 0 {
        if let Some(found) = look(entries[hits.trailing_zeros() as usize].at()) {
            return Some(found);
        }
        hits &= hits - 1;
    }
    None
}

fn set_byte(word: &AtomicU64, index: usize, value: u8) {
    let mut bytes = word.load(Ordering::Relaxed).to_le_bytes();
    bytes[index] = value;
    // Relaxed: only writers look at these bytes, under the lock.
    word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::hash::KeyHasher;

    #[test]
    fn a_segment_fills_well_and_empties_wholly() {
        let buckets: Vec<Bucket> = (0..256).map(|_| Bucket::default()).collect();
        let segment = Segment::new(&buckets);
        let hasher = KeyHasher::with_seed(5);
        let hash = |key: u64| hasher.hash(&key.to_le_bytes());
        let tag = |key| Tag::of(hash(key), 6);
        let mut count = 0;
        while let Some(place) = segment.vacancy(hash(count)) {
            segment.insert(place, hash(count), Entry::new(tag(count), Ref::from_bits(count + 1)));
            count += 1;
        }
        assert!(count > 256 * 7 * 8 / 10, "{count}");
        assert!(segment.neighbours(hash(count)).count() == BUCKET_ENTRIES);
        for key in 0..count {
            let is_it = |at: Ref| at == Ref::from_bits(key + 1);
            let found = segment.search(hash(key), tag(key), |at| is_it(at).then_some(at));
            assert_eq!(found, Some(Ref::from_bits(key + 1)));
            segment.clear(segment.find(hash(key), tag(key), is_it).expect("it was found"));
            assert_eq!(segment.find(hash(key), tag(key), is_it), None);
        }
        let counts = &buckets[..segment.homes];
        assert!(counts.iter().all(|bucket| bucket.meta.load(Ordering::Relaxed) == 0));
    }
}
