//! What is asked: draws the next request and writes it in the server's dialect.

use std::fmt;
use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::dialect::Dialect;
use crate::dialect::wording::Wording;
use crate::keys::{Keys, Picker, Popularity};
use crate::reply::Shape;
use crate::values::{self, Sizes};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    /// A get of several keys.
    GetMany,
    Set,
}

/// A request, remembered until its reply has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub verb: Verb,
    /// The number of the key; of many keys, the seed that they follow from.
    pub key: u64,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verb {
            Verb::Get => write!(f, "get of key {}", self.key),
            Verb::GetMany => write!(f, "get of many keys"),
            Verb::Set => write!(f, "set of key {}", self.key),
        }
    }
}

/// The keys of one get of many, which follow from its seed and so need not be remembered.
#[derive(Debug)]
pub struct Picks {
    rng: SmallRng,
    left: u32,
}

impl Picks {
    /// The next of them, given the workload that drew the request.
    pub fn next(&mut self, workload: &Workload) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        Some(workload.picker.pick(&mut self.rng))
    }
}

/// Sets and gets, as `SET:GET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    pub sets: u32,
    pub gets: u32,
}

impl FromStr for Ratio {
    type Err = String;

    fn from_str(text: &str) -> Result<Ratio, String> {
        let parse = |part: &str| part.parse::<u32>().map_err(|e| format!("{part:?}: {e}"));
        let (sets, gets) = text.split_once(':').ok_or("expected SET:GET, such as 1:10")?;
        let ratio = Ratio { sets: parse(sets)?, gets: parse(gets)? };
        match ratio.sets.checked_add(ratio.gets) {
            None | Some(0) => {
                Err("the parts must add up to 1 at least, 2^32 - 1 at most".to_owned())
            }
            Some(_) => Ok(ratio),
        }
    }
}

/// What is asked for, whoever asks.
#[derive(Clone, Debug)]
pub struct Mix {
    pub dialect: Dialect,
    pub keys: Keys,
    pub popularity: Popularity,
    pub sizes: Sizes,
    pub ratio: Ratio,
    /// Keys of each get.
    pub keys_per_get: u32,
}

/// Draws requests and renders them.
#[derive(Debug)]
pub struct Workload {
    mix: Mix,
    picker: Picker,
    wording: Wording,
    rng: SmallRng,
}

impl Workload {
    pub fn new(mix: Mix, seed: u64) -> Result<Workload, String> {
        let picker = Picker::new(mix.popularity, mix.keys.count())?;
        let wording = Wording::new(mix.dialect, &mix.keys);
        Ok(Workload { mix, picker, wording, rng: SmallRng::seed_from_u64(seed) })
    }

    pub fn keys(&self) -> &Keys {
        &self.mix.keys
    }

    /// The length of the value of `key`.
    pub fn value_bytes(&self, key: u64) -> usize {
        self.mix.sizes.of(key)
    }

    /// What replies look like.
    pub fn shape(&self) -> Shape {
        Shape {
            dialect: self.mix.dialect,
            key_bytes: self.mix.keys.bytes(),
            keys_per_get: self.mix.keys_per_get,
        }
    }

    /// The next request of the mix.
    pub fn draw(&mut self) -> Request {
        let Ratio { sets, gets } = self.mix.ratio;
        let is_set = match (sets, gets) {
            (0, _) => false,
            (_, 0) => true,
            _ => self.rng.random_range(0..sets + gets) < sets,
        };
        match self.mix.keys_per_get {
            _ if is_set => Request { verb: Verb::Set, key: self.picker.pick(&mut self.rng) },
            1 => Request { verb: Verb::Get, key: self.picker.pick(&mut self.rng) },
            _ => Request { verb: Verb::GetMany, key: self.rng.random() },
        }
    }

    /// The keys of a get of many.
    pub fn picks(&self, request: Request) -> Picks {
        Picks { rng: SmallRng::seed_from_u64(request.key), left: self.mix.keys_per_get }
    }

    /// Appends a request as it goes over the wire.
    #[inline]
    pub fn append(&self, request: Request, out: &mut Vec<u8>) {
        let keys = &self.mix.keys;
        match request.verb {
            Verb::Get => self.wording.append_get(keys, request, out),
            Verb::GetMany => {
                let mut picks = self.picks(request);
                let asked = std::iter::from_fn(|| picks.next(self));
                self.wording.append_many(keys, request, asked, out);
            }
            Verb::Set => {
                let bytes = self.mix.sizes.of(request.key);
                self.wording.append_set(keys, request, bytes, out);
                values::append(request.key, bytes, out);
                out.extend_from_slice(self.wording.end_of_set());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(ratio: &str, keys_per_get: u32) -> Workload {
        let mix = Mix {
            dialect: Dialect::Text,
            keys: Keys::new(100, "k", 6).unwrap(),
            popularity: Popularity::Uniform,
            sizes: Sizes::Fixed(3),
            ratio: ratio.parse().unwrap(),
            keys_per_get,
        };
        Workload::new(mix, 1).unwrap()
    }

    #[test]
    fn a_set_carries_the_value_of_its_key() {
        let workload = workload("1:10", 1);
        let mut out = Vec::new();
        workload.append(Request { verb: Verb::Set, key: 42 }, &mut out);
        assert!(out.starts_with(b"set k00042 0 0 3\r\n"));
        let value = &out[out.len() - 5..];
        assert!(values::matches(42, 0, &value[..3]) && value.ends_with(b"\r\n"));
    }

    #[test]
    fn the_keys_of_many_follow_from_the_request() {
        let mut workload = workload("0:1", 3);
        let (one, two) = (workload.draw(), workload.draw());
        let keys = |request| {
            let mut picks = workload.picks(request);
            std::iter::from_fn(|| picks.next(&workload)).collect::<Vec<u64>>()
        };
        assert_eq!(keys(one).len(), 3);
        assert_eq!(keys(one), keys(one));
        assert_ne!(keys(one), keys(two));
        let mut out = Vec::new();
        workload.append(one, &mut out);
        let words: Vec<String> = keys(one).iter().map(|key| format!("k{key:05}")).collect();
        assert_eq!(String::from_utf8(out).unwrap(), format!("get {}\r\n", words.join(" ")));
    }

    #[test]
    fn the_mix_is_the_one_asked_for() {
        let count = |ratio: &str, keys_per_get| {
            let mut workload = workload(ratio, keys_per_get);
            (0..22_000).filter(|_| workload.draw().verb == Verb::Set).count()
        };
        assert_eq!(count("0:1", 1), 0);
        assert_eq!(count("1:0", 1), 22_000);
        for keys_per_get in [1, 16] {
            let sets = count("1:10", keys_per_get);
            assert!((1_800..2_200).contains(&sets), "{sets} sets of 22000, expected 2000");
        }
    }
}
