//! Keys: a prefix and a zero-padded number, all of one length, and how the next one is drawn.
//!
//! Equal lengths make every get equally long, which a server that only counts bytes can answer.

use std::str::FromStr;

use rand::RngExt;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Zipf};

/// The longest key that memcached takes.
pub const KEY_BYTES_MAX: usize = 250;

/// The key space `0..count` as text.
#[derive(Clone, Debug)]
pub struct Keys {
    count: u64,
    prefix: String,
    bytes: usize,
}

impl Keys {
    /// Fails when the numbers below `count` do not fit a key of `bytes` bytes.
    pub fn new(count: u64, prefix: &str, bytes: usize) -> Result<Keys, String> {
        if count == 0 {
            return Err("there must be at least one key".to_owned());
        }
        if bytes > KEY_BYTES_MAX {
            return Err(format!("keys have at most {KEY_BYTES_MAX} bytes"));
        }
        if prefix.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err("the key prefix holds spaces or control characters".to_owned());
        }
        let digits = (count - 1).checked_ilog10().map_or(1, |log| log as usize + 1);
        if prefix.len() + digits > bytes {
            return Err(format!(
                "{count} keys with prefix {prefix:?} need {} bytes, not {bytes}",
                prefix.len() + digits
            ));
        }
        Ok(Keys { count, prefix: prefix.to_owned(), bytes })
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The length of each key.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The length of each key, as one byte.
    pub fn bytes_u8(&self) -> u8 {
        // `new` refuses keys that are longer.
        u8::try_from(self.bytes).unwrap_or(u8::MAX)
    }

    /// Key 0, from which `number` makes the others.
    pub fn first(&self) -> Vec<u8> {
        let mut key = self.prefix.clone().into_bytes();
        key.resize(self.bytes, b'0');
        key
    }

    /// Writes `key` over the end of a place that holds key 0.
    pub fn number(&self, key: u64, place: &mut [u8]) {
        debug_assert!(key < self.count, "key {key} of {}", self.count);
        let mut rest = key;
        // Two digits at a time: most of writing a get is this.
        let mut pairs = place.rchunks_exact_mut(2);
        for pair in &mut pairs {
            if rest == 0 {
                return;
            }
            pair.copy_from_slice(&two_digits(rest % 100));
            rest /= 100;
        }
        if rest > 0
            && let [digit] = pairs.into_remainder()
        {
            *digit = two_digits(rest)[1];
        }
    }

    /// Whether `text` is `key`.
    pub fn matches(&self, key: u64, text: &[u8]) -> bool {
        let mut expected = [b'0'; KEY_BYTES_MAX];
        expected[..self.prefix.len()].copy_from_slice(self.prefix.as_bytes());
        self.number(key, &mut expected[..self.bytes]);
        text == &expected[..self.bytes]
    }
}

/// The decimal digits of a number below 100.
#[inline]
fn two_digits(number: u64) -> [u8; 2] {
    let number = number.to_le_bytes()[0];
    [b'0' + number / 10, b'0' + number % 10]
}

/// How often each key is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Popularity {
    Uniform,
    /// The key of rank r is asked for in proportion to 1 / r^theta.
    Zipf(f64),
}

impl FromStr for Popularity {
    type Err = String;

    fn from_str(text: &str) -> Result<Popularity, String> {
        if text == "uniform" {
            return Ok(Popularity::Uniform);
        }
        let theta = text.strip_prefix("zipf:").ok_or("expected uniform or zipf:THETA")?;
        match theta.parse::<f64>() {
            Ok(theta) if theta > 0.0 && theta <= 10.0 => Ok(Popularity::Zipf(theta)),
            _ => Err(format!("theta must be above 0 and at most 10, not {theta:?}")),
        }
    }
}

/// Draws keys.
#[derive(Debug)]
pub enum Picker {
    Uniform(u64),
    Zipf {
        ranks: Zipf<f64>,
        count: u64,
        /// Prime to `count`: rank times stride scatters the popular keys over the key space, so
        /// that they are not also the ones that a preload stored first.
        stride: u64,
    },
}

impl Picker {
    pub fn new(popularity: Popularity, count: u64) -> Result<Picker, String> {
        match popularity {
            Popularity::Uniform => Ok(Picker::Uniform(count)),
            Popularity::Zipf(theta) => {
                if u32::try_from(count).is_err() {
                    return Err("a zipf distribution has at most 2^32 - 1 keys".to_owned());
                }
                let ranks = Zipf::new(count as f64, theta).map_err(|e| e.to_string())?;
                Ok(Picker::Zipf { ranks, count, stride: stride(count) })
            }
        }
    }

    pub fn pick(&self, rng: &mut SmallRng) -> u64 {
        match self {
            Picker::Uniform(count) => rng.random_range(0..*count),
            Picker::Zipf { ranks, count, stride } => {
                rank(ranks.sample(rng)).min(*count - 1) * stride % count
            }
        }
    }
}

/// From 1, 2, ... as a float to 0, 1, ...
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank is a whole number between 1 and 2^32"
)]
fn rank(sample: f64) -> u64 {
    (sample as u64).saturating_sub(1)
}

fn stride(count: u64) -> u64 {
    let golden = count / 1000 * 618 + count % 1000 * 618 / 1000;
    (golden.max(1)..).find(|stride| gcd(*stride, count) == 1).unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn keys_are_padded_to_one_length() {
        let keys = Keys::new(1_000_000, "memtier-1", 15).unwrap();
        let mut text = keys.first();
        keys.number(42, &mut text);
        assert_eq!(text, b"memtier-1000042");
        assert!(keys.matches(42, b"memtier-1000042"));
        for bytes in [7, 8] {
            let keys = Keys::new(10_000_000, "", bytes).unwrap();
            for key in [0, 5, 10, 99, 100, 5_040, 999_999, 1_000_000, 9_999_999] {
                let mut text = keys.first();
                keys.number(key, &mut text);
                assert_eq!(text, format!("{key:0bytes$}").into_bytes());
            }
        }
        assert!(!keys.matches(43, b"memtier-1000042"));
        assert!(Keys::new(1_000_001, "memtier-1", 15).is_err());
        assert!(Keys::new(10, "a b", 15).is_err());
        assert!(Keys::new(10, "a", 251).is_err());
    }

    #[test]
    fn zipf_agrees_with_theory() {
        let (count, theta, draws) = (1000u64, 0.99, 400_000u32);
        let picker = Picker::new(Popularity::Zipf(theta), count).unwrap();
        let mut rng = SmallRng::seed_from_u64(1);
        let mut seen = vec![0u32; 1000];
        for _ in 0..draws {
            seen[usize::try_from(picker.pick(&mut rng)).unwrap()] += 1;
        }
        let weight = |rank: u64| (rank as f64).powf(-theta);
        let total: f64 = (1..=count).map(weight).sum();
        for rank in [1, 2, 3, 10, 50] {
            let key = usize::try_from((rank - 1) * stride(count) % count).unwrap();
            let expected = f64::from(draws) * weight(rank) / total;
            let got = f64::from(seen[key]);
            // Five standard deviations of a Poisson count.
            let off = (got - expected).abs();
            assert!(off < 5.0 * expected.sqrt(), "rank {rank}: {got}, expected {expected:.0}");
        }
    }

    #[test]
    fn uniform_reaches_every_key_about_as_often() {
        let picker = Picker::new(Popularity::Uniform, 10).unwrap();
        let mut rng = SmallRng::seed_from_u64(2);
        let mut seen = [0u32; 10];
        for _ in 0..100_000 {
            seen[usize::try_from(picker.pick(&mut rng)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|n| (9_500..10_500).contains(n)), "{seen:?}");
    }

    #[test]
    fn scattering_is_a_permutation() {
        for count in [1, 2, 7, 1000, 4096] {
            let mut seen: Vec<u64> = (0..count).map(|rank| rank * stride(count) % count).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }
    }
}
