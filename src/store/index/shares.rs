//! Which stripe a hash belongs to.
//!
//! Segments of stripes of equal size would all be split at the same time: splits would come in
//! storms, and the index would take anything from 10 to 19 bytes an item, everywhere at once. So
//! the shares of the stripes are spread over a factor of two, evenly by their logarithm: at any
//! time some stripes have just split their segments, and others are about to.
//!
//! With x the top bits of the hash as a fraction, stripe = floor(S log2(1 + x)) would do that. The
//! logarithm is replaced by x + x (1 - x) (a - b x), whose slope at both ends is right, and which
//! is nowhere wrong by more than 0.006.

use crate::base::hash::KeyHash;
use crate::store::arena::to_usize;

/// Bits of the hash that are looked at; the tag is in the others.
const BITS: u32 = 24;
const ONE: u64 = 1 << BITS;
/// 1 / ln 2 - 1.
const A: u64 = 7_427_190;
/// 3 / (2 ln 2) - 2.
const B: u64 = 2_752_177;

/// The stripe of a hash, of `1 << bits`.
#[inline]
pub fn stripe_of(hash: KeyHash, bits: u32) -> usize {
    let x = hash.0 >> (64 - BITS);
    let bend = ((x * (ONE - x)) >> BITS) * (A - ((x * B) >> BITS));
    to_usize((x + (bend >> BITS)) >> (BITS - bits))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn shares(bits: u32) -> Vec<u64> {
        let mut shares = vec![0; 1 << bits];
        (0..ONE).for_each(|x| shares[stripe_of(KeyHash(x << (64 - BITS)), bits)] += 1);
        shares
    }

    #[test]
    fn shares_are_spread_over_a_factor_of_two_evenly_by_their_logarithm() {
        for bits in [6, 12] {
            let shares = shares(bits);
            let log = |share: &u64| (*share as f64).log2();
            let (first, last) = (log(&shares[0]), log(&shares[shares.len() - 1]));
            assert!((last - first - 1.0).abs() < 0.03, "{first} {last}");
            for (index, share) in shares.iter().enumerate() {
                let wanted = first + (last - first) * index as f64 / shares.len() as f64;
                assert!((log(share) - wanted).abs() < 0.06, "{index}: {share}");
            }
        }
        assert_eq!(shares(0), [ONE]);
    }

    /// What a table of 256 stripes takes as it grows by a factor of 64, if every segment is split
    /// when it has 1398 items.
    #[test]
    fn the_index_grows_smoothly() {
        const FULL: f64 = 1398.0;
        let shares = shares(8);
        let segments = |items: f64| -> f64 {
            let of = |share: &u64| (items * *share as f64 / ONE as f64 / FULL).max(1.0);
            shares.iter().map(|share| of(share).log2().ceil().exp2()).sum()
        };
        let mut items = 1e6;
        while items < 64e6 {
            let (now, soon) = (segments(items), segments(items * 1.01));
            let bytes = now * 210.0 * 64.0 / items;
            assert!((13.0..14.6).contains(&bytes), "{bytes} bytes an item of {items}");
            assert!(soon - now < now * 0.03, "{} of {now} split together", soon - now);
            items *= 1.01;
        }
    }
}
