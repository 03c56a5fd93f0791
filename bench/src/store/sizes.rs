//! What is stored: how long keys and values are, and which bytes they hold.

use clap::ValueEnum;
use ringcached_load::values::{self, Sizes, mix};

/// A mix of sizes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mix {
    Small,
    Kvcache,
    Leader,
    Follower,
    Twitter,
}

/// How long keys are.
#[derive(Clone, Copy, Debug)]
enum KeyBytes {
    Fixed(usize),
    /// Uniform, both ends included.
    Uniform(usize, usize),
    /// Three tenths have the first length, the others are uniform from there to the second.
    ShortOr(usize, usize),
}

/// Items by number: the same number is always the same item.
#[derive(Clone, Debug)]
pub struct Items {
    keys: KeyBytes,
    values: Sizes,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// Digits that number the items; no key is shorter.
const DIGITS: usize = 8;
/// Sizes of keys are drawn apart from those of values.
const KEY_SALT: u64 = 0x6b65_7973;

impl Mix {
    pub fn label(self) -> &'static str {
        match self {
            Mix::Small => "small",
            Mix::Kvcache => "kvcache",
            Mix::Leader => "leader",
            Mix::Follower => "follower",
            Mix::Twitter => "twitter",
        }
    }

    /// Values as median and sigma of a lognormal distribution. Sigma is the one with which the
    /// mean of what is drawn, cut off a little below 1 MiB, is the published one.
    fn values(self) -> &'static str {
        match self {
            Mix::Small => "32",
            Mix::Kvcache => "lognormal:159:1.247",
            Mix::Leader => "lognormal:223:0.912",
            Mix::Follower => "lognormal:31:2.4185",
            Mix::Twitter => "lognormal:230:1.3",
        }
    }

    fn keys(self) -> KeyBytes {
        match self {
            Mix::Small => KeyBytes::Fixed(20),
            Mix::Kvcache => KeyBytes::Uniform(16, 250),
            Mix::Leader | Mix::Follower => KeyBytes::ShortOr(DIGITS, 64),
            Mix::Twitter => KeyBytes::Fixed(38),
        }
    }

    pub fn items(self) -> Items {
        let values = self.values().parse().expect("the distributions above are well formed");
        Items { keys: self.keys(), values, key: Vec::new(), value: Vec::new() }
    }
}

impl KeyBytes {
    fn of(self, item: u64) -> usize {
        let draw = mix(item ^ KEY_SALT);
        let between = |least: usize, most: usize| {
            let span = (most - least + 1) as u64;
            least + usize::try_from((draw >> 32) % span).unwrap_or(0)
        };
        match self {
            KeyBytes::Fixed(bytes) => bytes,
            KeyBytes::Uniform(least, most) => between(least, most),
            KeyBytes::ShortOr(short, most) if draw % 10 >= 3 => between(short, most),
            KeyBytes::ShortOr(short, _) => short,
        }
    }
}

impl Items {
    /// Bytes of key and value.
    pub fn bytes(&self, item: u64) -> u64 {
        (self.keys.of(item) + self.values.of(item)) as u64
    }

    /// Key and value. There are 16^8 different keys.
    pub fn get(&mut self, item: u64) -> (&[u8], &[u8]) {
        write_key(item, self.keys.of(item), &mut self.key);
        self.value.clear();
        values::append(item, self.values.of(item), &mut self.value);
        (&self.key, &self.value)
    }
}

/// The number in hexadecimal, and filler up to the length wanted.
pub fn write_key(item: u64, bytes: usize, key: &mut Vec<u8>) {
    key.clear();
    for digit in (0..DIGITS).rev() {
        let nibble = ((item >> (digit * 4)) & 0xf).to_le_bytes()[0];
        key.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    }
    key.resize(bytes.max(DIGITS), b'k');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DRAWN: u64 = 400_000;

    fn drawn(of: impl Fn(u64) -> usize) -> (f64, usize) {
        let mut sizes: Vec<usize> = (0..DRAWN).map(of).collect();
        sizes.sort_unstable();
        let sum: usize = sizes.iter().sum();
        (sum as f64 / DRAWN as f64, sizes[sizes.len() / 2])
    }

    #[test]
    fn values_have_the_published_mean_and_median() {
        // The heavier the tail, the farther a sample's mean is from it.
        for (mix, mean, median, tolerance) in [
            (Mix::Kvcache, 346.0, 159, 0.02),
            (Mix::Leader, 338.0, 223, 0.02),
            (Mix::Follower, 569.0, 31, 0.08),
            (Mix::Small, 32.0, 32, 0.0),
        ] {
            let items = mix.items();
            let (found_mean, found_median) = drawn(|item| items.values.of(item));
            assert!(
                (found_mean / mean - 1.0).abs() <= tolerance,
                "{mix:?}: mean {found_mean}, published {mean}"
            );
            assert!(found_median.abs_diff(median) <= 2, "{mix:?}: median {found_median}");
        }
        let items = Mix::Twitter.items();
        assert!(drawn(|item| items.values.of(item)).1.abs_diff(230) <= 3);
    }

    #[test]
    fn keys_have_the_lengths_asked_for() {
        let items = Mix::Kvcache.items();
        let (mean, median) = drawn(|item| items.keys.of(item));
        assert!((mean - 133.0).abs() < 1.0 && median.abs_diff(133) < 2, "{mean}, {median}");
        let items = Mix::Leader.items();
        let lengths: Vec<usize> = (0..100_000).map(|item| items.keys.of(item)).collect();
        let short = lengths.iter().filter(|bytes| **bytes == 8).count();
        // 0.3 and one of the 57 lengths of the others.
        assert!((30_700..31_800).contains(&short), "{short}");
        assert_eq!(lengths.iter().max(), Some(&64));
    }

    #[test]
    fn items_are_different_and_stay_what_they_are() {
        for mix in Mix::value_variants() {
            let mut items = mix.items();
            let mut keys = BTreeSet::new();
            for item in 0..3000 {
                let (key, value) = items.get(item);
                let (key, value) = (key.to_vec(), value.to_vec());
                assert_eq!((key.len() + value.len()) as u64, items.bytes(item));
                assert!(values::matches(item, 0, &value), "{mix:?} {item}");
                assert_eq!(items.get(item), (&key[..], &value[..]));
                assert!(key.iter().all(u8::is_ascii_alphanumeric));
                keys.insert(key);
            }
            assert_eq!(keys.len(), 3000, "{mix:?}");
        }
    }
}
