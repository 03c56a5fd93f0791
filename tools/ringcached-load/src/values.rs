//! Values: their sizes, and contents that tell whose value they are.
//!
//! Size and content of a value depend on its key and on the size option alone, so that a later run
//! with the same options can verify what an earlier one stored. Byte `i` of a value is byte `i % 8`
//! of `mix(key) + (i / 8) * STEP`: any piece can be checked without the pieces before it.

use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};

/// Added from one word of a value to the next; odd, so that 2^64 words differ.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// No drawn value is larger: memcached's default item limit, less room for header and key.
const DRAWN_BYTES_MAX: usize = (1 << 20) - 1024;

/// No value is larger; no server takes more.
const BYTES_MAX: usize = 1 << 30;

/// How large the value of a key is.
#[derive(Clone, Debug)]
pub enum Sizes {
    Fixed(usize),
    LogNormal(LogNormal<f64>),
    /// Sizes with the running sum of their weights.
    List {
        rows: Vec<(u32, usize)>,
        total: u32,
    },
}

impl Sizes {
    /// The size of the value of `key`, in bytes.
    pub fn of(&self, key: u64) -> usize {
        match self {
            Sizes::Fixed(bytes) => *bytes,
            Sizes::LogNormal(curve) => drawn_bytes(curve.sample(&mut rng_of(key))),
            Sizes::List { rows, total } => {
                let draw = rng_of(key).random_range(0..*total);
                let row = rows.partition_point(|(below, _)| *below <= draw);
                rows[row].1
            }
        }
    }

    /// The largest value that can be drawn, in bytes.
    pub fn bytes_max(&self) -> usize {
        match self {
            Sizes::Fixed(bytes) => *bytes,
            Sizes::LogNormal(_) => DRAWN_BYTES_MAX,
            Sizes::List { rows, .. } => rows.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0),
        }
    }
}

fn rng_of(key: u64) -> SmallRng {
    SmallRng::seed_from_u64(mix(key))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 1..=DRAWN_BYTES_MAX first"
)]
fn drawn_bytes(size: f64) -> usize {
    size.clamp(1.0, DRAWN_BYTES_MAX as f64) as usize
}

impl FromStr for Sizes {
    type Err = String;

    /// `32`, `lognormal:MEDIAN:SIGMA`, or `list:BYTES=WEIGHT,BYTES=WEIGHT,...`.
    fn from_str(text: &str) -> Result<Sizes, String> {
        let number = |s: &str| s.parse::<f64>().map_err(|e| format!("{s:?}: {e}"));
        if let Some(rest) = text.strip_prefix("lognormal:") {
            let (median, sigma) = rest.split_once(':').ok_or("expected lognormal:MEDIAN:SIGMA")?;
            let median = number(median)?;
            if median < 1.0 {
                return Err("the median must be at least 1 byte".to_owned());
            }
            let curve = LogNormal::new(median.ln(), number(sigma)?).map_err(|e| e.to_string())?;
            return Ok(Sizes::LogNormal(curve));
        }
        if let Some(rest) = text.strip_prefix("list:") {
            return list(rest);
        }
        let bytes = text.parse().map_err(|_| {
            format!("{text:?} is none of BYTES, lognormal:MEDIAN:SIGMA, list:BYTES=WEIGHT,...")
        })?;
        not_above_max(bytes).map(Sizes::Fixed)
    }
}

fn not_above_max(bytes: usize) -> Result<usize, String> {
    if bytes > BYTES_MAX {
        return Err(format!("a value has at most {BYTES_MAX} bytes"));
    }
    Ok(bytes)
}

fn list(text: &str) -> Result<Sizes, String> {
    let mut rows = Vec::new();
    let mut total = 0u32;
    for row in text.split(',') {
        let (bytes, weight) = row.split_once('=').ok_or("expected list:BYTES=WEIGHT,...")?;
        let bytes = bytes.parse().map_err(|e| format!("{bytes:?}: {e}"))?;
        let bytes = not_above_max(bytes)?;
        let weight: u32 = weight.parse().map_err(|e| format!("{weight:?}: {e}"))?;
        total = total.checked_add(weight).ok_or("the weights do not fit 32 bits")?;
        rows.push((total, bytes));
    }
    if total == 0 {
        return Err("all weights are 0".to_owned());
    }
    Ok(Sizes::List { rows, total })
}

/// Spreads the bits of a key (splitmix64's finaliser).
pub fn mix(key: u64) -> u64 {
    let mut z = key.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Appends the first `bytes` bytes of the value of `key`.
pub fn append(key: u64, bytes: usize, out: &mut Vec<u8>) {
    let end = out.len() + bytes;
    let mut word = mix(key);
    while out.len() < end {
        out.extend_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(STEP);
    }
    out.truncate(end);
}

/// Whether `piece` stands at `offset` in the value of `key`.
pub fn matches(key: u64, offset: usize, piece: &[u8]) -> bool {
    let mut lane = offset % 8;
    let mut word = mix(key).wrapping_add(STEP.wrapping_mul((offset / 8) as u64));
    let mut rest = piece;
    while !rest.is_empty() {
        let (here, next) = rest.split_at(rest.len().min(8 - lane));
        if here != &word.to_le_bytes()[lane..lane + here.len()] {
            return false;
        }
        (rest, lane, word) = (next, 0, word.wrapping_add(STEP));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_of_a_value_is_recognised_and_no_other() {
        let mut value = Vec::new();
        append(7, 61, &mut value);
        assert_eq!(value.len(), 61);
        for from in 0..value.len() {
            for to in from..=value.len() {
                assert!(matches(7, from, &value[from..to]));
            }
        }
        for at in 0..value.len() {
            let mut wrong = value.clone();
            wrong[at] ^= 1;
            assert!(!matches(7, 0, &wrong), "byte {at}");
        }
        assert!(!matches(8, 0, &value[..8]));
        assert!(!matches(7, 1, &value[..8]));
    }

    #[test]
    fn listed_sizes_come_in_proportion() {
        let sizes: Sizes = "list:10=1,20=3".parse().unwrap();
        let small = (0..40_000).filter(|key| sizes.of(*key) == 10).count();
        assert!((9_500..10_500).contains(&small), "{small} of 40000, expected 10000");
        assert!((0..1000).all(|key| matches!(sizes.of(key), 10 | 20)));
        assert_eq!(sizes.bytes_max(), 20);
    }

    #[test]
    fn lognormal_sizes_have_the_median_and_spread_asked_for() {
        let sizes: Sizes = "lognormal:200:1.0".parse().unwrap();
        let mut drawn: Vec<usize> = (0..40_001).map(|key| sizes.of(key)).collect();
        drawn.sort_unstable();
        let (lower, median, upper) = (drawn[6_347], drawn[20_000], drawn[33_654]);
        assert!((190..210).contains(&median), "median {median}");
        // One sigma to each side: 200 / e and 200 * e.
        assert!((69..78).contains(&lower), "lower {lower}");
        assert!((515..572).contains(&upper), "upper {upper}");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "x", "list:", "list:1", "list:1=0", "lognormal:1", "lognormal:0:1", "1073741825"]
        {
            assert!(text.parse::<Sizes>().is_err(), "{text:?}");
        }
    }
}
