//! The hottest keys, and the hottest prefixes of keys, of the last seconds.
//!
//! ```text
//!   executor --> Sampler --one request of many--> Meter: a sketch of keys, one of prefixes --+
//!   executor --> Sampler --one request of many--> Meter ...                                  |
//!                                                    Hot::hottest <-- merged when asked for -+
//! ```
//!
//! A thread counts in a meter of its own, whose lock nobody else takes but who asks. What was
//! counted is worth half after `HALF_LIFE_TICKS`, as is the time in which it was, so a rate is of
//! the last quarter of a minute or so. What is shown is a lower bound of what was counted; what was
//! counted are samples.

mod sampler;
mod sketch;

pub use sampler::{Sample, Sampler};

use super::clock::{Now, TICKS_PER_S};
use super::hash::KeyHasher;
use super::sync::{Arc, Mutex};
use sketch::Sketch;

/// After so long, what was counted is worth half.
const HALF_LIFE_TICKS: u64 = 8 * TICKS_PER_S;
/// After so many of them, it is worth nothing.
const HALF_LIVES_MAX: u64 = 24;
/// As many names are shown.
const NAMES_MAX: usize = 20;
/// Who has less than one in so many requests is not hot: a sketch may miss it.
const SHARE_MIN: u64 = sketch::PLACES as u64;
/// A ranking is made anew after so long.
const RANKING_TICKS: u64 = TICKS_PER_S / 4;

/// Bytes of the meter of one thread, at most.
pub const METER_BYTES: u64 = 2 * (sketch::PLACES * 272) as u64;

/// Of what there is a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Keys,
    Prefixes,
}

/// A name and what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotName {
    pub name: Box<[u8]>,
    /// Requests a second, at least.
    pub per_s: u64,
}

/// The hottest names, the hottest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking {
    /// Requests a second of any key.
    pub per_s: u64,
    pub names: Vec<HotName>,
}

impl Ranking {
    /// The part of all requests that are for a name, in hundredths of a percent.
    pub fn share_bp(&self, name: &HotName) -> u64 {
        (name.per_s.saturating_mul(10_000)).checked_div(self.per_s).unwrap_or(0).min(10_000)
    }

    /// What is shown of a name: rows of a label and a text.
    pub fn rows(&self, name: &HotName, of: Of) -> [(&'static str, String); 3] {
        let label = match of {
            Of::Keys => "key",
            Of::Prefixes => "prefix",
        };
        let share = self.share_bp(name);
        let share = format!("{}.{:02}", share / 100, share % 100);
        [
            (label, legible(&name.name)),
            ("requests_per_s", name.per_s.to_string()),
            ("share_percent", share),
        ]
    }
}

/// A name as one word of ASCII: what is not to be seen is written as a percent sign and two
/// hexadecimal digits.
fn legible(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' | 0..=b' ' | 0x7f.. => text.push_str(&format!("%{byte:02X}")),
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

/// What one thread has counted.
#[derive(Debug)]
pub(crate) struct Meter {
    keys: Sketch,
    prefixes: Sketch,
    /// What ends a prefix.
    delimiter: u8,
    all: u64,
    /// Until when all that was counted has been halved, and the time in which it was counted until
    /// then, which is halved as well. `None` before the first request.
    halved: Option<(u64, u64)>,
}

impl Meter {
    fn new(hasher: &KeyHasher, delimiter: u8) -> Meter {
        let sketch = || Sketch::new(hasher.clone());
        Meter { keys: sketch(), prefixes: sketch(), delimiter, all: 0, halved: None }
    }

    fn add(&mut self, key: &[u8], requests: u32, now: Now) {
        self.age(now);
        self.halved.get_or_insert((now.ticks, 0));
        self.all += u64::from(requests);
        self.keys.add(key, requests);
        if let Some(end) = key.iter().position(|byte| *byte == self.delimiter) {
            self.prefixes.add(&key[..end], requests);
        }
    }

    fn age(&mut self, now: Now) {
        let Some((mut at, mut counted)) = self.halved else { return };
        let half_lives = now.ticks.saturating_sub(at) / HALF_LIFE_TICKS;
        if half_lives > HALF_LIVES_MAX {
            self.keys.clear();
            self.prefixes.clear();
            (self.all, self.halved) = (0, None);
            return;
        }
        for _ in 0..half_lives {
            self.keys.halve();
            self.prefixes.halve();
            self.all /= 2;
            at += HALF_LIFE_TICKS;
            counted = (counted + HALF_LIFE_TICKS) / 2;
        }
        self.halved = Some((at, counted));
    }

    /// A second's part of what was counted; the first second counts as a whole one.
    fn per_s(&self, counted: u64, now: Now) -> u64 {
        let Some((at, before)) = self.halved else { return 0 };
        let ticks = (before + now.ticks.saturating_sub(at)).max(TICKS_PER_S);
        counted.saturating_mul(TICKS_PER_S) / ticks
    }

    fn sketch(&self, of: Of) -> &Sketch {
        match of {
            Of::Keys => &self.keys,
            Of::Prefixes => &self.prefixes,
        }
    }
}

/// The meters of all threads.
#[derive(Debug)]
pub struct Hot {
    hasher: KeyHasher,
    meters: Mutex<Vec<Arc<Mutex<Meter>>>>,
    /// The last ranking of each kind.
    rankings: [Mutex<Option<Ranked>>; 2],
}

/// A ranking, and when it was made.
#[derive(Debug)]
struct Ranked {
    tick: u64,
    ranking: Arc<Ranking>,
}

impl Default for Hot {
    fn default() -> Hot {
        Hot {
            hasher: KeyHasher::random(),
            meters: Mutex::default(),
            rankings: [Mutex::default(), Mutex::default()],
        }
    }
}

impl Hot {
    /// A new thread's. Prefixes of keys end before the delimiter.
    pub fn sampler(&self, delimiter: u8) -> Sampler {
        let meter = Arc::new(Mutex::new(Meter::new(&self.hasher, delimiter)));
        let mut meters = self.meters.lock();
        meters.push(Arc::clone(&meter));
        let seed = u32::try_from(meters.len()).unwrap_or(u32::MAX).wrapping_mul(0x9e37_79b9);
        Sampler::new(meter, seed)
    }

    /// The hottest names as of now, or as of a moment ago.
    pub fn hottest(&self, of: Of, now: Now) -> Arc<Ranking> {
        let mut last = self.rankings[of as usize].lock();
        let is_old = |each: &Ranked| now.ticks.saturating_sub(each.tick) >= RANKING_TICKS;
        if last.as_ref().is_none_or(is_old) {
            *last = None;
        }
        let make = || Ranked { tick: now.ticks, ranking: Arc::new(self.rank(of, now)) };
        Arc::clone(&last.get_or_insert_with(make).ranking)
    }

    fn rank(&self, of: Of, now: Now) -> Ranking {
        let meters = self.meters.lock().clone();
        let (mut all, mut names) = (0, Vec::new());
        for meter in meters {
            let mut meter = meter.lock();
            meter.age(now);
            all += meter.per_s(meter.all, now);
            for each in meter.sketch(of).counted() {
                let per_s = meter.per_s(each.least.into(), now);
                names.push(HotName { name: each.name.into(), per_s });
            }
        }
        // What several threads have counted becomes one.
        names.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        names.dedup_by(|later, first| {
            let is_same = later.name == first.name;
            first.per_s += if is_same { later.per_s } else { 0 };
            is_same
        });
        names.retain(|each| each.per_s > 0 && each.per_s.saturating_mul(SHARE_MIN) >= all);
        names.sort_unstable_by(|one, other| {
            other.per_s.cmp(&one.per_s).then_with(|| one.name.cmp(&other.name))
        });
        names.truncate(NAMES_MAX);
        Ranking { per_s: all, names }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(second: u64) -> Now {
        Now { ticks: second * TICKS_PER_S, epoch_unix_s: 1_700_000_000 }
    }

    fn pass(sampler: &mut Sampler, now: Now, key: &[u8]) {
        sampler.pass(1, now, |_, sample| sample.is_of(key));
    }

    fn shown(ranking: &Ranking) -> Vec<(String, u64)> {
        let shown = |each: &HotName| (legible(&each.name), each.per_s);
        ranking.names.iter().map(shown).collect()
    }

    #[test]
    fn threads_are_summed_and_keys_without_a_delimiter_have_no_prefix() {
        let hot = Hot::default();
        for _ in 0..2 {
            let mut sampler = hot.sampler(b':');
            for key in ["user:1", "user:2", "user:1", "plain", ":empty"] {
                pass(&mut sampler, at(1), key.as_bytes());
            }
        }
        let keys = hot.hottest(Of::Keys, at(2));
        let wanted = [("user:1", 4), (":empty", 2), ("plain", 2), ("user:2", 2)];
        assert_eq!(shown(&keys), wanted.map(|(name, per_s)| (name.into(), per_s)));
        assert_eq!((keys.per_s, keys.share_bp(&keys.names[0])), (10, 4000));
        let prefixes = hot.hottest(Of::Prefixes, at(2));
        assert_eq!(shown(&prefixes), [("user".into(), 6), (String::new(), 2)]);
        let rows = prefixes.rows(&prefixes.names[0], Of::Prefixes);
        let rows = rows.each_ref().map(|(label, text)| (*label, text.as_str()));
        let wanted = [("prefix", "user"), ("requests_per_s", "6"), ("share_percent", "60.00")];
        assert_eq!(rows, wanted);
        assert_eq!(legible("a b%\u{e9}\n~".as_bytes()), "a%20b%25%C3%A9%0A~");
    }

    #[test]
    fn a_rate_holds_while_it_lasts_and_fades_after() {
        let hot = Hot::default();
        let mut sampler = hot.sampler(b':');
        for tick in 0..60 * TICKS_PER_S {
            pass(&mut sampler, Now { ticks: tick, ..at(0) }, b"k");
        }
        let then = hot.hottest(Of::Keys, at(60));
        assert!((30..=33).contains(&then.names[0].per_s), "{then:?}");
        let later = hot.hottest(Of::Keys, at(76));
        assert!((5..=13).contains(&later.names[0].per_s), "{later:?}");
        let mut other = hot.sampler(b':');
        pass(&mut other, at(300), b"new");
        assert_eq!(shown(&hot.hottest(Of::Keys, at(300))), [("new".into(), 1)]);
    }

    #[test]
    fn a_ranking_is_kept_for_a_moment() {
        let hot = Hot::default();
        let mut sampler = hot.sampler(b':');
        assert_eq!(*hot.hottest(Of::Keys, at(1)), Ranking::default());
        pass(&mut sampler, at(1), b"k");
        assert_eq!(*hot.hottest(Of::Keys, at(1)), Ranking::default());
        assert_eq!(shown(&hot.hottest(Of::Keys, at(2))), [("k".into(), 1)]);
    }

    #[test]
    fn who_is_asked_for_as_seldom_as_all_is_not_hot() {
        let hot = Hot::default();
        let mut sampler = hot.sampler(b':');
        for number in 0..100_000_u64 {
            let key = format!("key{number}");
            let now = Now { ticks: number / 1000, ..at(0) };
            pass(&mut sampler, now, key.as_bytes());
            if number % 50 == 0 {
                pass(&mut sampler, now, b"hot");
            }
        }
        let ranking = hot.hottest(Of::Keys, at(4));
        assert_eq!(&*ranking.names[0].name, b"hot", "{ranking:?}");
        assert!(ranking.names.len() < 6, "{ranking:?}");
    }
}
