//! The directory of one stripe: which segment holds the keys with a tag.
//!
//! ```text
//!   depth 1:  [ a b ]               doubled, in place:  [ a b a b ]     depth 2
//!   b is split by bit 1 of the tag into b and c:        [ a b a c ]
//! ```
//!
//! It is indexed by the low bits of the tag, so that it doubles by repeating itself behind its end:
//! no reader ever sees it move, and a reader with an old depth is led to a segment that held the
//! key before.
//!
//! The directories of all stripes lie in each other's gaps: first the first entry of each, then the
//! second of each. They are about equally deep, so what is used is dense, and stays in the cache.

use super::{Owner, Segment, Tag};
use crate::base::hash::KeyHash;
use crate::base::sync::atomic::{AtomicU32, Ordering};
use crate::store::arena::Ref;

/// A view of the directory of one stripe.
#[derive(Clone, Copy, Debug)]
pub struct Directory<'d> {
    depth: &'d AtomicU32,
    /// Of all stripes, each with room for its directory at its greatest depth: a power of two.
    segments: &'d [AtomicU32],
    stripe: usize,
    stripe_bits: u32,
}

/// How a split went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Split {
    Done,
    /// The directory is as deep as it gets.
    TooDeep,
}

impl<'d> Directory<'d> {
    #[inline]
    pub fn new(
        depth: &'d AtomicU32,
        segments: &'d [AtomicU32],
        (stripe, stripe_bits): (usize, u32),
    ) -> Directory<'d> {
        Directory { depth, segments, stripe, stripe_bits }
    }

    #[inline]
    fn at(self, index: usize) -> &'d AtomicU32 {
        &self.segments[(index << self.stripe_bits) + self.stripe]
    }

    /// The number of the segment for `tag`. Anybody may call this.
    #[inline]
    pub fn segment(self, tag: Tag) -> u32 {
        // Acquire: pairs with the Release of `double`; the entries up to this depth are there.
        let depth = self.depth.load(Ordering::Acquire);
        // Acquire: pairs with the Release of `split`; the segment is filled.
        self.at(tag.low_bits(depth) as usize).load(Ordering::Acquire)
    }

    /// The first `R` that `look` finds among the items of the stripe whose tag is right, where
    /// `segment` knows the segments by their numbers. Anybody may call this.
    #[inline]
    pub fn search<'s, R>(
        self,
        hash: KeyHash,
        segment: impl Fn(u32) -> Segment<'s>,
        mut look: impl FnMut(Ref) -> Option<R>,
    ) -> Option<R> {
        let tag = Tag::of(hash);
        let mut number = self.segment(tag);
        loop {
            let found = segment(number).search(hash, &mut look);
            if found.is_some() {
                return found;
            }
            // A miss is one only if the keys of this segment were not on the move.
            let again = self.segment(tag);
            if again == number {
                return None;
            }
            number = again;
        }
    }

    /// The first segment. Nobody else knows the directory yet.
    pub fn open(self, segment: u32) {
        // Relaxed: so nobody reads it either.
        self.at(0).store(segment, Ordering::Relaxed);
        self.depth.store(0, Ordering::Relaxed);
    }

    /// Moves half of the entries of `old`, a segment of this directory, to `new`, an unused one.
    /// For writers.
    ///
    /// # Panics
    /// If nobody owns `old`.
    pub fn split(self, old: Segment<'_>, new: Segment<'_>) -> Split {
        let owner = old.owner().expect("the directory leads to it");
        let bit = u32::from(owner.depth);
        if bit == self.depth.load(Ordering::Relaxed) && !self.double() {
            return Split::TooDeep;
        }
        let [lower, upper] = owner.halves();
        new.reset(upper);
        old.copy_half(new, bit);
        old.ghost_copy(new);
        self.lead(upper, new);
        old.roll().set_owner(lower);
        old.drop_half(bit);
        Split::Done
    }

    /// Moves all entries of `from` to `into`, its buddy, which becomes what both were halves of.
    /// Nobody owns `from` then, and readers may look at it until grace. False, and nothing is
    /// changed, when they do not fit. For writers.
    ///
    /// # Panics
    /// If nobody owns `into`.
    #[must_use]
    pub fn merge(self, into: Segment<'_>, from: Segment<'_>) -> bool {
        let owner = into.owner().and_then(Owner::parent).expect("it is one of two");
        if !into.take_in(from) {
            into.drop_half(u32::from(owner.depth));
            return false;
        }
        into.ghost_join(from);
        into.roll().set_owner(owner);
        self.lead(owner, into);
        from.roll().disown();
        true
    }

    /// Copies the segment `from` to `to`, an unused one, which takes its place. Nobody owns `from`
    /// then, and readers may look at it until grace. For writers.
    ///
    /// # Panics
    /// If nobody owns `from`.
    pub fn relocate(self, from: Segment<'_>, to: Segment<'_>) {
        let owner = from.owner().expect("the directory leads to it");
        to.copy_all(from);
        self.lead(owner, to);
        from.roll().disown();
    }

    /// Leads to `segment` from now on.
    fn lead(self, owner: Owner, segment: Segment<'_>) {
        let len = 1usize << self.depth.load(Ordering::Relaxed);
        for index in (owner.prefix as usize..len).step_by(1 << owner.depth) {
            // Release: what is in the segment, before the way to it.
            self.at(index).store(segment.number(), Ordering::Release);
        }
    }

    fn double(self) -> bool {
        let depth = self.depth.load(Ordering::Relaxed);
        let len = 1usize << depth;
        if len * 2 > self.segments.len() >> self.stripe_bits || depth == super::TAG_BITS {
            return false;
        }
        for index in 0..len {
            let segment = self.at(index).load(Ordering::Relaxed);
            self.at(len + index).store(segment, Ordering::Relaxed);
        }
        // Release: the second half, before anybody looks there.
        self.depth.store(depth + 1, Ordering::Release);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::base::hash::KeyHasher;
    use crate::store::index::{Bucket, Entry};

    /// One stripe with small segments, and room for 64 of them.
    struct Stripe {
        depth: AtomicU32,
        segments: Vec<AtomicU32>,
        buckets: Vec<Vec<Bucket>>,
        rolls: Vec<AtomicU32>,
        hasher: KeyHasher,
    }

    impl Stripe {
        fn hash(&self, key: u64) -> KeyHash {
            self.hasher.hash(&key.to_le_bytes())
        }

        fn segment(&self, number: u32) -> Segment<'_> {
            Segment::new(number, &self.buckets[number as usize], &self.rolls)
        }

        fn directory(&self) -> Directory<'_> {
            Directory::new(&self.depth, &self.segments, (0, 0))
        }

        /// Puts a key in, and says how many segments there are then, or `None` if it has no place.
        fn insert(&self, key: u64, mut used: u32) -> Option<u32> {
            let (hash, tag) = (self.hash(key), Tag::of(self.hash(key)));
            loop {
                let segment = self.segment(self.directory().segment(tag));
                if let Some(place) = segment.vacancy(hash) {
                    segment.insert(place, hash, Entry::new(tag, Ref::from_bits(key)));
                    return Some(used);
                }
                match self.directory().split(segment, self.segment(used)) {
                    Split::Done => used += 1,
                    Split::TooDeep => return None,
                }
            }
        }
    }

    #[test]
    fn it_grows_by_splitting_until_it_is_too_deep() {
        let stripe = Stripe {
            depth: AtomicU32::new(0),
            segments: (0..64).map(|_| AtomicU32::new(0)).collect(),
            buckets: (0..=64).map(|_| (0..8).map(|_| Bucket::default()).collect()).collect(),
            rolls: (0..130).map(|_| AtomicU32::new(0)).collect(),
            hasher: KeyHasher::with_seed(1),
        };
        stripe.segment(0).reset(Owner::of_stripe(0));
        stripe.directory().open(0);
        let (mut used, mut count) = (1, 0);
        while let Some(more) = stripe.insert(count + 1, used) {
            (used, count) = (more, count + 1);
        }
        assert!(used > 32, "{used}");
        assert!(count > 1000, "{count}");
        for key in 1..=count {
            let hash = stripe.hash(key);
            let segment = |number| stripe.segment(number);
            let found = stripe
                .directory()
                .search(hash, segment, |at| (at == Ref::from_bits(key)).then_some(()));
            assert!(found.is_some(), "{key} of {count}");
        }
        let entries = |number| stripe.segment(number).all().count() as u64;
        assert_eq!((0..used).map(entries).sum::<u64>(), count, "nothing is left behind");
    }
}
