//! How values are spread: buckets that one thread counts in, and that anybody adds up.
//!
//! ```text
//!   value   0 1 2 ... 15 | 16-17 18-19 ... 30-31 | 32-35 ... 60-63 | ...  up to 2^37
//!   bucket  0 1 2 ... 15 |  16    17         23  |  24         31  |
//!             exact          eight to a doubling: a value is known to an eighth
//! ```
//!
//! A bucket is counted in by a load and a store, as there is one writer; a reader may see one
//! bucket of a moment and another of the next.

// Never loom's: nothing follows from a bucket, and a model would have to keep thousands of them.
#[cfg(loom)]
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(loom))]
use super::sync::atomic::{AtomicU64, Ordering};

/// Buckets of a doubling: two to this.
const SHARE_BITS: u32 = 3;
const SHARE: usize = 1 << SHARE_BITS;
/// What is more is counted as this: in nanoseconds, 137 seconds.
pub const VALUE_MAX: u64 = (1 << 37) - 1;
pub const BUCKETS: usize = bucket_of(VALUE_MAX) + 1;

/// The bucket of a value that is not too large.
#[inline]
const fn bucket_of(value: u64) -> usize {
    let shift = (value | SHARE as u64).ilog2() - SHARE_BITS;
    // Lossless: usize has 64 bits. Within a doubling the share is from 8 to 15.
    shift as usize * SHARE + to_usize(value >> shift)
}

#[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits; try_from is not const")]
const fn to_usize(value: u64) -> usize {
    value as usize
}

/// The least value that is counted in a bucket.
pub const fn least(bucket: usize) -> u64 {
    let shift = (bucket / SHARE).saturating_sub(1);
    // Lossless: no target has a wider usize.
    ((bucket - shift * SHARE) as u64) << shift
}

/// The largest value that is counted in a bucket.
pub const fn most(bucket: usize) -> u64 {
    least(bucket + 1) - 1
}

/// The buckets of one thread.
#[derive(Debug)]
pub struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Histogram {
    /// Counts a value so often. Only its owner may call this.
    #[inline]
    pub fn record(&self, value: u64, count: u64) {
        self.count(bucket_of(value.min(VALUE_MAX)), count);
    }

    /// As `record`, for what is most often small: an exact bucket is found at once.
    #[inline]
    pub fn record_small(&self, value: u64, count: u64) {
        match usize::try_from(value) {
            Ok(exact) if exact < 2 * SHARE => self.count(exact, count),
            Ok(_) | Err(_) => self.record(value, count),
        }
    }

    #[inline]
    fn count(&self, bucket: usize, count: u64) {
        let bucket = &self.0[bucket];
        // Relaxed, and no read-modify-write: there is one writer, and readers want no order.
        bucket.store(bucket.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }
}

/// Counts of all buckets at about one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(Vec<u64>);

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot(vec![0; BUCKETS])
    }
}

/// The shares of all values whose bounds are shown, in parts of 100,000, and their names.
const SHOWN: [(u64, &str); 4] =
    [(50_000, "p50"), (90_000, "p90"), (99_000, "p99"), (99_900, "p999")];

/// A whole, in the parts in which `quantile` counts.
const WHOLE: u64 = 100_000;

impl Snapshot {
    /// From counts as they came from elsewhere; what is missing is 0.
    pub fn from_counts(mut counts: Vec<u64>) -> Snapshot {
        counts.resize(BUCKETS, 0);
        Snapshot(counts)
    }

    pub fn add(&mut self, histogram: &Histogram) {
        for (sum, bucket) in self.0.iter_mut().zip(&histogram.0) {
            *sum += bucket.load(Ordering::Relaxed);
        }
    }

    /// What has come since an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        let pairs = self.0.iter().zip(&earlier.0);
        Snapshot(pairs.map(|(now, then)| now.saturating_sub(*then)).collect())
    }

    pub fn merge(&mut self, other: &Snapshot) {
        self.0.iter_mut().zip(&other.0).for_each(|(sum, more)| *sum += more);
    }

    pub fn counts(&self) -> &[u64] {
        &self.0
    }

    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The bound that so many of 100,000 values are not above; 0 when there are none.
    pub fn quantile(&self, parts: u64) -> u64 {
        let wanted = u128::from(self.count()) * u128::from(parts);
        let wanted = u64::try_from(wanted.div_ceil(u128::from(WHOLE))).unwrap_or(u64::MAX).max(1);
        let mut seen = 0;
        let reaches = |count: &u64| {
            seen += count;
            seen >= wanted
        };
        self.0.iter().position(reaches).map_or(0, most)
    }

    /// Names and numbers to show: how many values, bounds, and the largest.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let bounds = SHOWN.iter().map(|(parts, name)| (*name, self.quantile(*parts)));
        [("count", self.count())].into_iter().chain(bounds).chain([("max", self.quantile(WHOLE))])
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for bucket in 0..BUCKETS {
            assert_eq!((bucket_of(least(bucket)), bucket_of(most(bucket))), (bucket, bucket));
            assert!(most(bucket) - least(bucket) <= least(bucket) / 8, "{bucket} is too wide");
        }
        assert_eq!((least(15), most(15), least(16), most(16)), (15, 15, 16, 17));
        assert_eq!(most(BUCKETS - 1), VALUE_MAX);
    }

    #[test]
    fn what_is_too_large_is_counted_as_the_largest() {
        let (histogram, mut seen) = (Histogram::default(), Snapshot::default());
        histogram.record(u64::MAX, 2);
        histogram.record_small(u64::MAX, 2);
        seen.add(&histogram);
        assert_eq!((seen.count(), seen.quantile(1)), (4, VALUE_MAX));
    }

    #[test]
    fn what_is_small_is_counted_in_the_same_bucket_either_way() {
        let [(one, mut of_one), (two, mut of_two)] =
            [0, 1].map(|_| (Histogram::default(), Snapshot::default()));
        for value in 0..100 {
            one.record(value, value);
            two.record_small(value, value);
        }
        of_one.add(&one);
        of_two.add(&two);
        assert_eq!(of_one, of_two);
    }

    #[test]
    fn rows_of_threads_together_and_since_a_moment() {
        let (one, two) = (Histogram::default(), Histogram::default());
        one.record(3, 90);
        let mut early = Snapshot::default();
        early.add(&one);
        two.record(9, 9);
        two.record(1000, 1);
        let mut both = Snapshot::default();
        both.add(&one);
        both.add(&two);
        let rows = |seen: &Snapshot| seen.rows().collect::<Vec<_>>();
        let names = ["count", "p50", "p90", "p99", "p999", "max"];
        let numbers = [100, 3, 3, 9, 1023, 1023];
        assert_eq!(rows(&both), names.into_iter().zip(numbers).collect::<Vec<_>>());
        let late = both.since(&early);
        assert_eq!((late.count(), late.quantile(50_000), late.quantile(0)), (10, 9, 9));
        early.merge(&late);
        assert_eq!(early, both);
        assert!(rows(&Snapshot::default()).iter().all(|(_, number)| *number == 0));
    }

    proptest! {
        /// A bound is never below what it bounds, and above it by an eighth at most.
        #[test]
        fn bounds_are_close(
            mut values in prop::collection::vec(0..=VALUE_MAX, 1..200),
            at in 1..=WHOLE,
        ) {
            let (histogram, mut seen) = (Histogram::default(), Snapshot::default());
            for value in &values {
                match value % 2 {
                    0 => histogram.record(*value, 1),
                    _ => histogram.record_small(*value, 1),
                }
            }
            seen.add(&histogram);
            values.sort_unstable();
            let place = (values.len() * usize::try_from(at).unwrap()).div_ceil(100_000).max(1);
            let exact = values[place - 1];
            let bound = seen.quantile(at);
            prop_assert!(bound >= exact && bound - exact <= exact / 8, "{bound} for {exact}");
        }
    }
}
