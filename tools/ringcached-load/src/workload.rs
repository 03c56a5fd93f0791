//! What is asked: draws the next request and writes it in memcached's text.

use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::keys::{Keys, Picker, Popularity};
use crate::values::{self, Sizes};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Set,
}

/// A request, remembered until its reply has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub verb: Verb,
    pub key: u64,
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

/// Draws requests and renders them.
#[derive(Debug)]
pub struct Workload {
    keys: Keys,
    sizes: Sizes,
    picker: Picker,
    ratio: Ratio,
    rng: SmallRng,
    /// `get <key 0>\r\n`
    get: Vec<u8>,
    /// `set <key 0> 0 0 `
    set: Vec<u8>,
}

impl Workload {
    pub fn new(
        keys: Keys,
        popularity: Popularity,
        sizes: Sizes,
        ratio: Ratio,
        seed: u64,
    ) -> Result<Workload, String> {
        let picker = Picker::new(popularity, keys.count())?;
        let first = keys.first();
        let get = [b"get ", first.as_slice(), b"\r\n"].concat();
        let set = [b"set ", first.as_slice(), b" 0 0 "].concat();
        Ok(Workload { keys, sizes, picker, ratio, rng: SmallRng::seed_from_u64(seed), get, set })
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The next request of the mix.
    pub fn draw(&mut self) -> Request {
        let Ratio { sets, gets } = self.ratio;
        let verb = match (sets, gets) {
            (0, _) => Verb::Get,
            (_, 0) => Verb::Set,
            _ if self.rng.random_range(0..sets + gets) < sets => Verb::Set,
            _ => Verb::Get,
        };
        Request { verb, key: self.picker.pick(&mut self.rng) }
    }

    /// Appends a request as it goes over the wire.
    pub fn append(&self, request: Request, out: &mut Vec<u8>) {
        const KEY: usize = "get ".len();
        let at = out.len() + KEY;
        let template = match request.verb {
            Verb::Get => &self.get,
            Verb::Set => &self.set,
        };
        out.extend_from_slice(template);
        self.keys.number(request.key, &mut out[at..at + self.keys.bytes()]);
        if request.verb == Verb::Set {
            let bytes = self.sizes.of(request.key);
            out.extend_from_slice(bytes.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
            values::append(request.key, bytes, out);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Whether a reply's key and the length of its value are those of the request.
    pub fn head_matches(&self, key: u64, text: &[u8], value_bytes: usize) -> bool {
        self.keys.matches(key, text) && value_bytes == self.sizes.of(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(ratio: &str) -> Workload {
        let keys = Keys::new(100, "k", 6).unwrap();
        let (ratio, sizes) = (ratio.parse().unwrap(), Sizes::Fixed(3));
        Workload::new(keys, Popularity::Uniform, sizes, ratio, 1).unwrap()
    }

    #[test]
    fn requests_are_memcached_text() {
        let workload = workload("1:10");
        let mut out = Vec::new();
        workload.append(Request { verb: Verb::Get, key: 7 }, &mut out);
        workload.append(Request { verb: Verb::Set, key: 42 }, &mut out);
        assert!(out.starts_with(b"get k00007\r\nset k00042 0 0 3\r\n"));
        let value = &out[out.len() - 5..];
        assert!(values::matches(42, 0, &value[..3]) && value.ends_with(b"\r\n"));
    }

    #[test]
    fn the_mix_is_the_one_asked_for() {
        let count = |ratio: &str| {
            let mut workload = workload(ratio);
            (0..22_000).filter(|_| workload.draw().verb == Verb::Set).count()
        };
        assert_eq!(count("0:1"), 0);
        assert_eq!(count("1:0"), 22_000);
        let sets = count("1:10");
        assert!((1_800..2_200).contains(&sets), "{sets} sets of 22000, expected 2000");
    }
}
