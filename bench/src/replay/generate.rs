//! Requests that no system ever made: laws of popularity, sizes and time, drawn from fixed seeds.

use super::chance::{Chance, Zipf, lognormal, mix, whole};
use super::request::{BESIDE_BYTES, Request};

/// Requests in a second of virtual time, where nothing else is said.
pub const REQUESTS_PER_S: usize = 10_000;
/// The virtual time that a trace with TTLs takes.
const TTL_SPAN_S: u64 = 2 * 24 * 3600;

/// Parts of `twitterlike`.
const DRIFT_EVERY: usize = 500_000;
const DRIFT_KEYS: u64 = 20_000;
const ONCE_SHARE: f64 = 0.20;
const ONCE_KEYS: u64 = 10_000_000;

/// Names of generated traces.
pub const NAMES: [&str; 4] = ["zipf:ALPHA", "twitterlike", "hot", "shift"];

/// The trace called `name`, if there is one.
pub fn named(name: &str) -> Option<Vec<Request>> {
    match name {
        "twitterlike" => Some(twitterlike(4_000_000)),
        "hot" => Some(hot(4_000_000)),
        "shift" => Some(shift(3_000_000)),
        _ => {
            let alpha = name.strip_prefix("zipf:")?.parse().ok()?;
            Some(zipf(4_000_000, 1_000_000, alpha))
        }
    }
}

/// Length of a value in a mix of small ones and few large ones, always the same for a key.
pub fn mixed_bytes(key: u64) -> u32 {
    let bytes = whole(lognormal(key, 230.0, 1.3).clamp(1.0, 1_048_576.0));
    u32::try_from(bytes).unwrap_or(u32::MAX) + BESIDE_BYTES
}

/// Puts the requests at virtual times, `per_s` in a second.
fn timed(requests: impl Iterator<Item = (u64, u32)>) -> Vec<Request> {
    let timed = requests.enumerate().map(|(index, (key, bytes))| {
        let time_s = u32::try_from(index / REQUESTS_PER_S).unwrap_or(u32::MAX);
        Request { time_s, key, bytes }
    });
    timed.collect()
}

/// Spreads the requests over two days.
pub fn spread(requests: &mut [Request]) {
    let count = requests.len() as u64;
    for (request, index) in requests.iter_mut().zip(0u64..) {
        request.time_s = u32::try_from(index * TTL_SPAN_S / count).unwrap_or(u32::MAX);
    }
}

/// Values of 1200 bytes, so that a hundredth of all of them is more than a few pages; popularity by
/// Zipf's law.
fn zipf(requests: usize, objects: u32, alpha: f64) -> Vec<Request> {
    let (zipf, mut chance) = (Zipf::new(objects, alpha), Chance::new(1));
    timed((0..requests).map(|_| (zipf.draw(&mut chance), 1200 + BESIDE_BYTES)))
}

/// Popularity that drifts, a fifth of all requests for keys that are never asked for again.
fn twitterlike(requests: usize) -> Vec<Request> {
    let (zipf, mut chance) = (Zipf::new(1_000_000, 1.0), Chance::new(2));
    timed((0..requests).map(|index| {
        let mut key = zipf.draw(&mut chance) + (index / DRIFT_EVERY) as u64 * DRIFT_KEYS;
        if chance.unit() < ONCE_SHARE {
            key = ONCE_KEYS + index as u64;
        }
        (key, mixed_bytes(key))
    }))
}

/// Half of the requests for a hot set of small items, the other half for many larger ones.
fn hot(requests: usize) -> Vec<Request> {
    const HOT: u64 = 100_000;
    let (zipf, mut chance) = (Zipf::new(2_000_000, 0.7), Chance::new(3));
    timed((0..requests).map(|_| {
        if chance.next() >> 63 == 0 {
            return (chance.next() % HOT, 180 + BESIDE_BYTES);
        }
        (HOT + zipf.draw(&mut chance), 1000 + BESIDE_BYTES)
    }))
}

/// Values of about 100 bytes, then others of about 2 KB, then the first again: `each` requests.
/// There are fewer of the large ones, so that as many of them are found in the end.
fn shift(each: usize) -> Vec<Request> {
    const OTHERS: u64 = 1 << 32;
    let (small, large) = (Zipf::new(1_000_000, 0.9), Zipf::new(100_000, 0.9));
    let mut chance = Chance::new(4);
    timed((0..3 * each).map(|index| {
        let (key, around) = match index / each {
            1 => (OTHERS + large.draw(&mut chance), 2000),
            _ => (small.draw(&mut chance), 100),
        };
        // From four fifths to six fifths, always the same for a key.
        let vary = mix(key) % (around * 2 / 5 + 1);
        let bytes = around * 4 / 5 + vary;
        (key, u32::try_from(bytes).unwrap_or(u32::MAX) + BESIDE_BYTES)
    }))
}

#[cfg(test)]
mod tests {
    use super::super::request::Trace;
    use super::*;

    #[test]
    fn names_are_known_and_others_are_not() {
        assert!(named("zipf:x").is_none() && named("nothing").is_none());
        assert_eq!(zipf(1000, 50, 0.99), zipf(1000, 50, 0.99));
    }

    #[test]
    fn twitterlike_has_wonders_drift_and_mixed_sizes() {
        let requests = twitterlike(1_000_000);
        let wonders = requests.iter().filter(|r| r.key >= ONCE_KEYS).count();
        assert!((195_000..205_000).contains(&wonders), "{wonders}");
        let least = |part: &[Request]| part.iter().map(|r| r.key).min().unwrap();
        assert_eq!(least(&requests[..500_000]), 0);
        assert_eq!(least(&requests[500_000..]), DRIFT_KEYS);
        let mut sizes: Vec<u32> = Trace::new(requests).last_requests().map(|r| r.bytes).collect();
        sizes.sort_unstable();
        let median = sizes[sizes.len() / 2] - BESIDE_BYTES;
        assert!((225..235).contains(&median), "{median}");
    }

    #[test]
    fn shift_goes_and_comes_back_to_the_same_keys() {
        let requests = shift(10_000);
        let value = |request: &Request| request.value_bytes();
        let (small, rest) = requests.split_at(10_000);
        let (large, back) = rest.split_at(10_000);
        assert!(small.iter().chain(back).all(|r| (80..=120).contains(&value(r))));
        assert!(large.iter().all(|r| (1600..=2400).contains(&value(r))));
        let size_of = |part: &[Request]| part.iter().find(|r| r.key == 0).unwrap().bytes;
        assert_eq!(size_of(small), size_of(back));
        assert!(large.iter().all(|r| r.key >= 1 << 32));
    }

    #[test]
    fn hot_is_half_of_each() {
        let requests = hot(20_000);
        let small = requests.iter().filter(|r| r.key < 100_000).count();
        assert!((9700..10_300).contains(&small), "{small}");
    }

    #[test]
    fn time_passes_as_the_requests_go() {
        let mut requests = zipf(20_001, 10, 1.0);
        assert_eq!((requests[9999].time_s, requests[20_000].time_s), (0, 2));
        spread(&mut requests);
        assert_eq!((requests[0].time_s, requests[20_000].time_s), (0, 172_791));
    }
}
