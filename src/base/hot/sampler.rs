//! Which requests are counted: some thousand a second, however many there are.
//!
//! The way from one request that is counted to the next is drawn, so that no rhythm of a peer's
//! hides a key, and stands for as many requests as it is long on average. Whoever is quiet has
//! every request counted.

use super::Meter;
use crate::base::clock::Now;
use crate::base::sync::{Arc, Mutex};

/// The longest mean way.
const MEAN_MAX: u32 = 1024;
/// When more than so many were counted in a tick, the ways become longer; when fewer, shorter.
const PER_TICK: std::ops::RangeInclusive<u32> = 32..=128;

/// One thread's choice of requests.
#[derive(Debug)]
pub struct Sampler {
    /// The request that is counted is the one so far away; 1 is the next one.
    away: u32,
    pace: Pace,
    meter: Arc<Mutex<Meter>>,
}

impl Sampler {
    pub(super) fn new(meter: Arc<Mutex<Meter>>, seed: u32) -> Sampler {
        Sampler { away: 1, pace: Pace::new(seed), meter }
    }

    /// So many requests were executed. `show` is asked for the keys of some, by their places.
    #[inline]
    pub fn pass(&mut self, requests: u32, now: Now, show: impl FnMut(u32, &mut Sample<'_>)) {
        if requests < self.away {
            self.away -= requests;
        } else {
            self.count(requests, now, show);
        }
    }

    #[cold]
    #[inline(never)]
    fn count(&mut self, requests: u32, now: Now, mut show: impl FnMut(u32, &mut Sample<'_>)) {
        let mut meter = self.meter.lock();
        let mut place = self.away - 1;
        while place < requests {
            show(place, &mut Sample { meter: &mut meter, requests: self.pace.mean, now });
            place = place.saturating_add(self.pace.next(now));
        }
        self.away = place - requests + 1;
    }
}

/// A request that is counted.
#[derive(Debug)]
pub struct Sample<'m> {
    meter: &'m mut Meter,
    /// For how many it stands.
    requests: u32,
    now: Now,
}

impl Sample<'_> {
    /// It is for this key. Without one it is not counted.
    pub fn is_of(&mut self, key: &[u8]) {
        self.meter.add(key, self.requests, self.now);
    }
}

/// How long the ways are.
#[derive(Debug)]
struct Pace {
    mean: u32,
    random: u32,
    /// When the last request was counted, and how many were in the same tick.
    tick: u64,
    in_tick: u32,
}

impl Pace {
    fn new(seed: u32) -> Pace {
        Pace { mean: 1, random: seed | 1, tick: 0, in_tick: 0 }
    }

    /// The way to the next request that is counted.
    fn next(&mut self, now: Now) -> u32 {
        if now.ticks != self.tick {
            if self.in_tick < *PER_TICK.start() {
                self.mean = (self.mean / 2).max(1);
            }
            (self.tick, self.in_tick) = (now.ticks, 0);
        }
        self.in_tick += 1;
        if self.in_tick > *PER_TICK.end() {
            self.mean = (self.mean * 2).min(MEAN_MAX);
            self.in_tick = 0;
        }
        // Marsaglia's xorshift: never 0.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        1 + self.random % (2 * self.mean - 1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Hot, Of};
    use super::*;
    use crate::base::clock::TICKS_PER_S;

    fn at(ticks: u64) -> Now {
        Now { ticks, epoch_unix_s: 1_700_000_000 }
    }

    #[test]
    fn who_is_quiet_has_each_request_counted() {
        let hot = Hot::default();
        let mut sampler = hot.sampler(b':');
        for tick in 0..TICKS_PER_S {
            sampler.pass(1, at(tick), |_, sample| sample.is_of(b"a"));
            sampler.pass(1, at(tick), |_, sample| sample.is_of(b"b"));
            sampler.pass(1, at(tick), |_, sample| sample.is_of(b"b"));
        }
        let ranking = hot.hottest(Of::Keys, at(TICKS_PER_S));
        let seen: Vec<_> = ranking.names.iter().map(|each| (&*each.name, each.per_s)).collect();
        assert_eq!(seen, [(b"b".as_slice(), 64), (b"a", 32)]);
        assert_eq!(ranking.per_s, 96);
    }

    #[test]
    fn of_many_requests_few_are_counted_and_stand_for_the_others() {
        let hot = Hot::default();
        let mut sampler = hot.sampler(b':');
        let mut asked = 0;
        // A rhythm of the peer's: lists of 32 keys, always the same, one of them twice.
        let keys: Vec<_> = (0..32).map(|key| format!("key{}", key % 31)).collect();
        for tick in 0..4 * TICKS_PER_S {
            for _ in 0..1000 {
                sampler.pass(32, at(tick), |place, sample| {
                    asked += 1;
                    sample.is_of(keys[place as usize].as_bytes());
                });
            }
        }
        assert!((4_000..20_000).contains(&asked), "{asked}");
        let ranking = hot.hottest(Of::Keys, at(4 * TICKS_PER_S));
        let real = 1000 * TICKS_PER_S;
        let near = |shown: u64, real: u64| shown.abs_diff(real) * 5 < real;
        assert!(near(ranking.per_s, 32 * real), "{ranking:?}");
        assert_eq!(&*ranking.names[0].name, b"key0");
        assert!(near(ranking.names[0].per_s, 2 * real), "{ranking:?}");
        assert!(ranking.names[1..].iter().all(|each| each.per_s < 3 * real / 2), "{ranking:?}");
    }

    #[test]
    fn a_way_is_as_long_as_it_counts_for() {
        let mut pace = Pace::new(7);
        for mean in [1, 2, 64, MEAN_MAX] {
            pace.mean = mean;
            // Each in a tick of its own, of which the last had enough.
            let ways: u64 = (0..100_000)
                .map(|tick| {
                    pace.in_tick = *PER_TICK.start();
                    pace.mean = mean;
                    u64::from(pace.next(at(tick)))
                })
                .sum();
            let wanted = 100_000 * u64::from(mean);
            assert!(ways.abs_diff(wanted) * 100 <= wanted, "{ways} for {wanted}");
        }
    }
}
