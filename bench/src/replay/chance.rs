//! Chance that can be repeated: everything generated follows from a seed or from a key.

use std::f64::consts::TAU;

/// A generator of 64-bit numbers (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(Chance::STEP);
        mix(self.0)
    }

    /// From 0 to 1, without 1.
    pub fn unit(&mut self) -> f64 {
        unit(self.next())
    }
}

/// Scatters the bits of a number over all bits; no two numbers become the same.
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// From 0 to 1, without 1, as the top bits say.
pub fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// A number whose logarithm is normally distributed, always the same for the same `key`.
pub fn lognormal(key: u64, median: f64, sigma: f64) -> f64 {
    let first = mix(key.wrapping_add(Chance::STEP));
    let second = mix(first.wrapping_add(Chance::STEP));
    // Box and Muller's way from two uniform numbers to a normal one.
    let normal = (-2.0 * (1.0 - unit(first)).ln()).sqrt() * (TAU * unit(second)).cos();
    median * (sigma * normal).exp()
}

/// Ranks from 0 on, of which the n-th is drawn in proportion to n^-alpha.
#[derive(Clone, Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    pub fn new(ranks: u32, alpha: f64) -> Zipf {
        let mut sum = 0.0;
        let weights = (1..=ranks).map(|rank| {
            sum += f64::from(rank).powf(-alpha);
            sum
        });
        Zipf(weights.collect())
    }

    pub fn draw(&self, chance: &mut Chance) -> u64 {
        let sum = self.0.last().copied().unwrap_or(0.0);
        let at = chance.unit() * sum;
        self.0.partition_point(|upto| *upto <= at).min(self.0.len().saturating_sub(1)) as u64
    }
}

/// A number of bytes or requests that was computed as a fraction.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes and counts: not negative, far below 2^53"
)]
pub fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            [chance.next(), chance.next()]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn sizes_have_the_median_and_the_spread_that_were_asked_for() {
        let mut sizes: Vec<f64> = (0..100_001).map(|key| lognormal(key, 230.0, 1.3)).collect();
        sizes.sort_by(f64::total_cmp);
        assert!((sizes[50_000] / 230.0 - 1.0).abs() < 0.03, "median {}", sizes[50_000]);
        // One sigma above the median lies 84.13 % of all.
        let above = sizes[84_134] / 230.0;
        assert!((above.ln() - 1.3).abs() < 0.04, "{above}");
    }

    #[test]
    fn low_ranks_are_drawn_as_often_as_the_law_says() {
        let (zipf, mut chance) = (Zipf::new(1000, 1.0), Chance::new(7));
        let mut drawn = vec![0u32; 1000];
        for _ in 0..200_000 {
            drawn[usize::try_from(zipf.draw(&mut chance)).unwrap()] += 1;
        }
        let harmonic: f64 = (1..=1000).map(|n| 1.0 / f64::from(n)).sum();
        for rank in [0, 1, 9] {
            let expected = 200_000.0 / harmonic / (rank as f64 + 1.0);
            let found = f64::from(drawn[rank]);
            assert!((found / expected - 1.0).abs() < 0.05, "rank {rank}: {found} {expected}");
        }
    }
}
