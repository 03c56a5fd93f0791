//! One segment: buckets that share one prefix of the hash, and their ghost.
//!
//! ```text
//!   194 homes                              16 stash   46 lines of ghost
//!   | 7 entries | 7 entries | ...          | ...      | 32 fingerprints | ...
//! ```
//!
//! A key's entry is in its home bucket, in one other bucket that its tag names, or in the stash.
//! The home tells which of these have any of its entries, so that most look-ups, also of what is
//! not there, see one line. Writers prefer the home while it has room for two, then the emptier of
//! the two: that fills a segment to 95 % of its places, and 13.9 bytes an item on average over its
//! life. (Home or the bucket after it: 90 %, 14.7 bytes. Hits see 1.13 lines on average either way,
//! 1.29 or 1.24 in a full segment.)
//!
//! Writers hold the lock of the stripe. Readers hold nothing: a hit needs no validation, because
//! entries are published whole and items outlive their readers. A miss may be wrong only if the
//! segment was split, merged or moved meanwhile, which the directory tells: entries are cleared
//! only after the directory shows where they have gone.

use super::roll::{Owner, Roll};
use super::{BUCKET_ENTRIES, Bucket, Entry, SEGMENT_BUCKETS, Tag};
use crate::base::hash::KeyHash;
use crate::base::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::store::arena::{Ref, to_usize};

/// Lines of the ghost in a whole segment; `ghost` has the arithmetic.
const GHOST_LINES: usize = 46;
/// As many as a home has bits for.
const STASH_BUCKETS_MAX: usize = 16;
/// A home with no more room than this shares with the other bucket.
const ROOM_SCARCE: usize = 1;
/// Two segments merge when they have at most this part of a hundred of the places of one.
const MERGED_PERCENT: usize = 57;

const AWAY_SHIFT: u32 = 16;
const AWAY_MASK: u64 = 0xffff << AWAY_SHIFT;
const STASH_SHIFT: u32 = 32;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    bucket: usize,
    entry: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct Segment<'s> {
    number: u32,
    buckets: &'s [Bucket],
    rolls: &'s [AtomicU32],
    homes: usize,
    /// Buckets before the ghost.
    near: usize,
}

impl<'s> Segment<'s> {
    /// A view of `buckets`, the segment of that number, which `rolls` knows.
    ///
    /// # Panics
    /// If there are fewer than two buckets, or more than 256.
    #[inline]
    pub fn new(number: u32, buckets: &'s [Bucket], rolls: &'s [AtomicU32]) -> Segment<'s> {
        assert!(buckets.len() >= 2 && buckets.len() <= SEGMENT_BUCKETS);
        let near = buckets.len() - buckets.len() * GHOST_LINES / SEGMENT_BUCKETS;
        let homes = near - near.div_ceil(STASH_BUCKETS_MAX - 3).min(STASH_BUCKETS_MAX);
        Segment { number, buckets, rolls, homes, near }
    }

    pub fn number(self) -> u32 {
        self.number
    }

    #[inline]
    pub(super) fn roll(self) -> Roll<'s> {
        Roll::new(self.rolls, self.number)
    }

    /// Whose the segment is; `None` while nobody finds it through a directory.
    pub fn owner(self) -> Option<Owner> {
        self.roll().owner()
    }

    /// How many entries there are.
    pub fn entries(self) -> usize {
        self.roll().entries() as usize
    }

    /// True when the segment has so few entries that keys that find no place in it collide with
    /// each other: to split it would help none of them.
    pub fn is_sparse(self) -> bool {
        self.entries() * 2 < self.near * BUCKET_ENTRIES
    }

    /// True when the entries of both would leave room to spare in one.
    pub fn fits_with(self, other: Segment<'_>) -> bool {
        (self.entries() + other.entries()) * 100 <= self.near * BUCKET_ENTRIES * MERGED_PERCENT
    }

    /// The home bucket of a key.
    #[inline]
    pub fn home(self, hash: KeyHash) -> usize {
        let [a, b, ..] = hash.0.to_le_bytes();
        (usize::from(u16::from_le_bytes([a, b])) * self.homes) >> 16
    }

    /// The home bucket of a key, and the other one in which its entry may be.
    #[inline]
    pub fn both(self, hash: KeyHash) -> (&'s Bucket, &'s Bucket) {
        let home = self.home(hash);
        (&self.buckets[home], &self.buckets[self.other(home, Tag::of(hash))])
    }

    /// The other bucket of a key, by one of the two.
    #[inline]
    fn other(self, bucket: usize, tag: Tag) -> usize {
        let mixed = u64::from(tag.0.wrapping_mul(0x9e37_79b1));
        let sum = to_usize((mixed * self.homes as u64) >> 32);
        if sum >= bucket { sum - bucket } else { sum + self.homes - bucket }
    }

    /// The first `R` that `look` finds among the items whose tag is right. Anybody may call this.
    #[inline]
    pub fn search<R>(self, hash: KeyHash, mut look: impl FnMut(Ref) -> Option<R>) -> Option<R> {
        let (home, tag) = (self.home(hash), Tag::of(hash));
        // Acquire: an entry that goes elsewhere before that is noted here is found there, and one
        // that leaves leaves a trace in the directory first.
        let meta = self.buckets[home].meta.load(Ordering::Acquire);
        if let Some(found) = look_through(&self.buckets[home], tag, &mut look) {
            return Some(found);
        }
        if meta >> AWAY_SHIFT == 0 {
            return None;
        }
        if meta & AWAY_MASK != 0
            && let Some(found) = look_through(&self.buckets[self.other(home, tag)], tag, &mut look)
        {
            return Some(found);
        }
        self.stash_of(meta).find_map(|bucket| look_through(&self.buckets[bucket], tag, &mut look))
    }

    /// The stash buckets that a home with `meta` has entries in.
    #[inline]
    fn stash_of(self, meta: u64) -> impl Iterator<Item = usize> {
        let mut left = meta >> STASH_SHIFT;
        std::iter::from_fn(move || {
            let bucket = self.homes + left.trailing_zeros() as usize;
            (left != 0).then(|| {
                left &= left - 1;
                bucket
            })
        })
    }

    /// The place of the first entry with the right tag in which `look` finds an `R`, and that. For
    /// writers.
    #[inline]
    pub fn find<R>(
        self,
        hash: KeyHash,
        mut look: impl FnMut(Ref) -> Option<R>,
    ) -> Option<(Place, R)> {
        let (home, tag) = (self.home(hash), Tag::of(hash));
        let near = self.find_in(home, tag, &mut look);
        near.or_else(|| self.find_away(home, tag, look))
    }

    #[inline]
    fn find_in<R>(
        self,
        bucket: usize,
        tag: Tag,
        look: &mut impl FnMut(Ref) -> Option<R>,
    ) -> Option<(Place, R)> {
        let (entries, hits) = tagged(&self.buckets[bucket], tag);
        ones(hits).find_map(|entry| Some((Place { bucket, entry }, look(entries[entry].at())?)))
    }

    fn find_away<R>(
        self,
        home: usize,
        tag: Tag,
        mut look: impl FnMut(Ref) -> Option<R>,
    ) -> Option<(Place, R)> {
        let meta = self.meta(home);
        let other = (meta & AWAY_MASK != 0).then(|| self.other(home, tag));
        let mut away = other.into_iter().chain(self.stash_of(meta));
        away.find_map(|bucket| self.find_in(bucket, tag, &mut look))
    }

    /// A place where an entry of the key may be put. For writers.
    pub fn vacancy(self, hash: KeyHash) -> Option<Place> {
        self.vacancy_for(self.home(hash), Tag::of(hash))
    }

    fn vacancy_for(self, home: usize, tag: Tag) -> Option<Place> {
        let is_empty = |entry| entry == Entry::EMPTY;
        let room = self.room(home);
        if room > ROOM_SCARCE {
            return self.place(home, is_empty);
        }
        let other = self.other(home, tag);
        if self.room(other) > room {
            return self.place(other, is_empty);
        }
        if room > 0 {
            return self.place(home, is_empty);
        }
        let stash = self.near - self.homes;
        let buckets = (0..stash).map(|step| self.homes + (home + step) % stash);
        buckets.into_iter().find_map(|each| self.place(each, is_empty))
    }

    /// Empty places of a bucket.
    fn room(self, bucket: usize) -> usize {
        let is_empty = |word: &&AtomicU64| word.load(Ordering::Relaxed) == Entry::EMPTY.0;
        self.buckets[bucket].entries.iter().filter(is_empty).count()
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
        self.entries_of(self.home(hash))
    }

    pub fn entry(self, place: Place) -> Entry {
        // Relaxed: for writers, who see each other through the lock.
        Entry(self.word(place).load(Ordering::Relaxed))
    }

    /// Puts an entry into a vacancy.
    pub fn insert(self, place: Place, hash: KeyHash, entry: Entry) {
        self.insert_from(place, self.home(hash), entry);
    }

    fn insert_from(self, place: Place, home: usize, entry: Entry) {
        // Release: pairs with the Acquire of `look_through`; the item is written by now.
        self.word(place).store(entry.0, Ordering::Release);
        let Place { bucket, entry } = place;
        if bucket >= self.homes {
            let mut homes = self.meta(bucket).to_le_bytes();
            homes[entry] = u8::try_from(home).expect("fewer than 256 homes");
            self.set_meta(bucket, u64::from_le_bytes(homes));
            self.set_meta(home, self.meta(home) | self.stash_bit(bucket));
        } else if bucket != home {
            self.set_meta(bucket, self.meta(bucket) | 1 << entry);
            self.set_meta(home, self.meta(home) + (1 << AWAY_SHIFT));
        }
        self.roll().set_entries(self.roll().entries() + 1);
    }

    /// Puts another entry of the same key in the place of one.
    pub fn replace(self, place: Place, entry: Entry) {
        // Release: as in `insert`.
        self.word(place).store(entry.0, Ordering::Release);
    }

    /// Puts an entry of a key in the place of another key's, whose home may be another one.
    pub fn usurp(self, place: Place, hash: KeyHash, entry: Entry) {
        self.clear(place);
        self.insert(place, hash, entry);
    }

    /// Empties a place.
    pub fn clear(self, place: Place) {
        let home = self.home_of(place);
        // Release: after a split, whoever sees the empty place sees the new directory too.
        self.word(place).store(Entry::EMPTY.0, Ordering::Release);
        let Place { bucket, entry } = place;
        if bucket >= self.homes {
            if self.entries_of(bucket).all(|(place, _)| self.home_of(place) != home) {
                self.set_meta(home, self.meta(home) & !self.stash_bit(bucket));
            }
        } else if bucket != home {
            self.set_meta(bucket, self.meta(bucket) & !(1 << entry));
            self.set_meta(home, self.meta(home) - (1 << AWAY_SHIFT));
        }
        self.roll().set_entries(self.roll().entries() - 1);
    }

    /// Makes a segment of reused memory empty, before anybody knows it.
    pub fn reset(self, owner: Owner) {
        for bucket in self.buckets {
            bucket.meta.store(0, Ordering::Relaxed);
            for entry in &bucket.entries {
                entry.store(Entry::EMPTY.0, Ordering::Relaxed);
            }
        }
        self.roll().set_entries(0);
        self.roll().set_owner(owner);
    }

    /// Copies the entries whose tag has `bit` to the same places of `other`, which is empty and not
    /// known to anybody yet.
    pub(super) fn copy_half(self, other: Segment<'_>, bit: u32) {
        for (place, entry) in self.all().filter(|(_, entry)| entry.tag().bit(bit)) {
            other.insert_from(place, self.home_of(place), entry);
        }
    }

    /// Clears the entries whose tag has `bit`, once the directory leads to their copies.
    pub(super) fn drop_half(self, bit: u32) {
        self.all()
            .filter(|(_, entry)| entry.tag().bit(bit))
            .for_each(|(place, _)| self.clear(place));
    }

    /// Takes in the entries of another segment. False when they do not all find a place; some may
    /// be there then.
    pub(super) fn take_in(self, other: Segment<'_>) -> bool {
        for (place, entry) in other.all() {
            let home = other.home_of(place);
            let Some(vacancy) = self.vacancy_for(home, entry.tag()) else { return false };
            self.insert_from(vacancy, home, entry);
        }
        true
    }

    /// Becomes what another segment is, before anybody knows it.
    pub(super) fn copy_all(self, other: Segment<'_>) {
        for (to, from) in self.buckets.iter().zip(other.buckets) {
            to.meta.store(from.meta.load(Ordering::Relaxed), Ordering::Relaxed);
            for (to, from) in to.entries.iter().zip(&from.entries) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        self.roll().set_entries(other.roll().entries());
        if let Some(owner) = other.owner() {
            self.roll().set_owner(owner);
        }
    }

    /// All entries, for writers.
    pub(in crate::store) fn all(self) -> impl Iterator<Item = (Place, Entry)> {
        (0..self.near).flat_map(move |bucket| self.entries_of(bucket))
    }

    fn entries_of(self, bucket: usize) -> impl Iterator<Item = (Place, Entry)> {
        (0..BUCKET_ENTRIES)
            .map(move |entry| Place { bucket, entry })
            .map(move |place| (place, self.entry(place)))
            .filter(|(_, entry)| *entry != Entry::EMPTY)
    }

    /// The lines of the ghost.
    #[inline]
    pub(super) fn ghost(self) -> &'s [Bucket] {
        &self.buckets[self.near..]
    }

    #[inline]
    pub(super) fn first_ghost_line(self) -> usize {
        self.near
    }

    fn word(self, place: Place) -> &'s AtomicU64 {
        &self.buckets[place.bucket].entries[place.entry]
    }

    /// The home of the entry at a place.
    fn home_of(self, place: Place) -> usize {
        let Place { bucket, entry } = place;
        if bucket >= self.homes {
            return usize::from(self.meta(bucket).to_le_bytes()[entry]);
        }
        if self.meta(bucket) >> entry & 1 == 0 {
            return bucket;
        }
        self.other(bucket, self.entry(place).tag())
    }

    fn stash_bit(self, bucket: usize) -> u64 {
        1 << (STASH_SHIFT as usize + bucket - self.homes)
    }

    fn meta(self, bucket: usize) -> u64 {
        // Relaxed: for writers, who see each other through the lock.
        self.buckets[bucket].meta.load(Ordering::Relaxed)
    }

    fn set_meta(self, bucket: usize, meta: u64) {
        // Release: pairs with the Acquire in `search`. There is one writer.
        self.buckets[bucket].meta.store(meta, Ordering::Release);
    }
}

/// What a home bucket says of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    At(Ref),
    /// It may be in another bucket.
    Away,
    Absent,
}

impl Bucket {
    /// Looks for a tag in the home bucket of its key. Anybody may call this.
    #[inline]
    pub(in crate::store) fn glance(&self, tag: Tag) -> Glance {
        // Acquire: as in `search`.
        let meta = self.meta.load(Ordering::Acquire);
        match look_through(self, tag, &mut Some) {
            Some(at) => Glance::At(at),
            None if meta >> AWAY_SHIFT != 0 => Glance::Away,
            None => Glance::Absent,
        }
    }

    /// The first item with a tag, if there is one here. Anybody may call this.
    #[inline]
    pub(in crate::store) fn first(&self, tag: Tag) -> Option<Ref> {
        look_through(self, tag, &mut Some)
    }
}

#[inline(always)]
fn look_through<R>(
    bucket: &Bucket,
    tag: Tag,
    look: &mut impl FnMut(Ref) -> Option<R>,
) -> Option<R> {
    let (entries, hits) = tagged(bucket, tag);
    ones(hits).find_map(|entry| look(entries[entry].at()))
}

/// The entries of a bucket, and a bit for each that has the tag.
#[inline(always)]
fn tagged(bucket: &Bucket, tag: Tag) -> ([Entry; BUCKET_ENTRIES], u32) {
    // Acquire: pairs with the Release of `insert` and `clear`.
    let entries = bucket.entries.each_ref().map(|word| Entry(word.load(Ordering::Acquire)));
    // All are compared before any is looked at: where a tag is found cannot be predicted.
    let bits = entries.iter().rev().fold(0, |bits, entry| 2 * bits + u32::from(entry.has_tag(tag)));
    (entries, bits)
}

/// The places of the bits that are set.
#[inline(always)]
fn ones(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        lowest
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::base::hash::KeyHasher;
    use crate::store::index::roll::ROLL_WORDS;

    fn hash(key: u64) -> KeyHash {
        static HASHER: LazyLock<KeyHasher> = LazyLock::new(|| KeyHasher::with_seed(5));
        HASHER.hash(&key.to_le_bytes())
    }

    fn entry(key: u64) -> Entry {
        Entry::new(Tag::of(hash(key)), Ref::from_bits(key + 1))
    }

    #[test]
    fn a_segment_fills_well_and_empties_wholly() {
        let buckets: Vec<Bucket> = (0..SEGMENT_BUCKETS).map(|_| Bucket::default()).collect();
        let rolls: Vec<AtomicU32> = (0..ROLL_WORDS).map(|_| AtomicU32::new(0)).collect();
        let segment = Segment::new(0, &buckets, &rolls);
        assert_eq!((segment.homes, segment.near), (194, 210));
        segment.reset(Owner::of_stripe(0));
        let mut count = 0;
        while let Some(place) = segment.vacancy(hash(count)) {
            segment.insert(place, hash(count), entry(count));
            count += 1;
        }
        assert!(count > 210 * 7 * 92 / 100, "{count}");
        assert_eq!(segment.entries() as u64, count);
        assert!(segment.neighbours(hash(count)).count() == BUCKET_ENTRIES);
        for (place, entry) in segment.all() {
            let home = segment.home(hash(entry.at().bits() - 1));
            assert_eq!(segment.home_of(place), home, "{place:?}");
        }
        for key in 0..count {
            let is_it = |at: Ref| (at == Ref::from_bits(key + 1)).then_some(at);
            let found = segment.search(hash(key), is_it);
            assert_eq!(found, Some(Ref::from_bits(key + 1)));
            segment.clear(segment.find(hash(key), is_it).expect("it was found").0);
            assert_eq!(segment.find(hash(key), is_it), None);
        }
        let homes = &buckets[..segment.homes];
        assert!(homes.iter().all(|bucket| bucket.meta.load(Ordering::Relaxed) == 0));
        assert_eq!(segment.entries(), 0);
    }
}
