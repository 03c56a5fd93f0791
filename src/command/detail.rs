//! `stats detail`: what was done to the keys of each prefix, for as long as somebody wants to know.
//!
//! A prefix is what comes before the delimiter (`-D`); keys without one are not counted, nor those
//! whose prefix could not stand in a line, which the binary protocol allows. Any client may turn
//! this on, so there are no more prefixes than `DETAIL_BYTES_MAX` allows: what comes after the last
//! one is not counted either.
//! Whoever counts asks once for a run of gets whether to, so that it costs nothing while it is off;
//! while it is on, a run has one key.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::protocol::memcache::is_plain;

const PREFIXES_MAX: usize = 1 << 14;

/// Bytes of all their names.
const NAMES_BYTES_MAX: usize = 1 << 20;

/// What a prefix takes beside its name, at most: an entry of each collection, as they grow, and
/// what the allocator keeps for the name.
const PREFIX_BYTES: usize = 192;

/// What all prefixes take, at most.
pub const DETAIL_BYTES_MAX: usize = NAMES_BYTES_MAX + PREFIXES_MAX * PREFIX_BYTES;

/// What was done to a key: a get that found something or nothing, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Hit,
    Miss,
    Set,
    Delete,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    gets: u64,
    hits: u64,
    sets: u64,
    deletes: u64,
}

/// In the order in which they came, and where each is by its name.
#[derive(Debug, Default)]
struct Prefixes {
    all: Vec<(Arc<[u8]>, Counts)>,
    places: BTreeMap<Arc<[u8]>, usize>,
    /// Of their names.
    bytes: usize,
}

/// The statistics by prefix.
#[derive(Debug)]
pub struct Detail {
    is_on: AtomicBool,
    delimiter: u8,
    prefixes: Mutex<Prefixes>,
}

impl Detail {
    pub fn new(is_on: bool, delimiter: u8) -> Detail {
        let prefixes = Mutex::new(Prefixes::default());
        Detail { is_on: AtomicBool::new(is_on), delimiter, prefixes }
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        // Relaxed: who learns of it a moment later counts a moment later.
        self.is_on.load(Ordering::Relaxed)
    }

    pub(super) fn turn(&self, on: bool) {
        self.is_on.store(on, Ordering::Relaxed);
    }

    /// Counts what was done to a key.
    #[cold]
    pub(super) fn count(&self, what: Use, key: &[u8]) {
        let Some(len) = key.iter().position(|byte| *byte == self.delimiter) else { return };
        if !is_plain(&key[..len]) {
            return;
        }
        let mut prefixes = self.prefixes.lock();
        let Some(counts) = prefixes.counts(&key[..len]) else { return };
        match what {
            Use::Hit => {
                counts.gets += 1;
                counts.hits += 1;
            }
            Use::Miss => counts.gets += 1,
            Use::Set => counts.sets += 1,
            Use::Delete => counts.deletes += 1,
        }
    }

    /// Forgets all prefixes.
    pub(super) fn clear(&self) {
        *self.prefixes.lock() = Prefixes::default();
    }

    /// The line of the prefix at this place; `None` past the last.
    //= protocol.txt "stats detail dump"
    pub(super) fn line(&self, place: usize) -> Option<Vec<u8>> {
        let prefixes = self.prefixes.lock();
        let (prefix, counts) = prefixes.all.get(place)?;
        let Counts { gets, hits, sets, deletes } = *counts;
        let mut numbers = String::new();
        let _ = write!(numbers, " get {gets} hit {hits} set {sets} del {deletes}");
        Some([b"PREFIX ", &prefix[..], numbers.as_bytes()].concat())
    }
}

impl Prefixes {
    fn counts(&mut self, prefix: &[u8]) -> Option<&mut Counts> {
        let place = match self.places.get(prefix) {
            Some(place) => *place,
            None if self.all.len() == PREFIXES_MAX => return None,
            None if self.bytes + prefix.len() > NAMES_BYTES_MAX => return None,
            None => {
                let name: Arc<[u8]> = prefix.into();
                self.places.insert(Arc::clone(&name), self.all.len());
                self.all.push((name, Counts::default()));
                self.bytes += prefix.len();
                self.all.len() - 1
            }
        };
        self.all.get_mut(place).map(|(_, counts)| counts)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn lines(detail: &Detail) -> Vec<String> {
        let lines = (0..).map_while(|place| detail.line(place));
        lines.map(|line| String::from_utf8(line).unwrap()).collect()
    }

    #[test]
    fn what_has_a_prefix_is_counted_under_it() {
        let detail = Detail::new(false, b':');
        [&b"a:1"[..], b"none", b":"].into_iter().for_each(|key| detail.count(Use::Hit, key));
        detail.count(Use::Miss, b"a:2:3");
        detail.count(Use::Set, b"b:");
        detail.count(Use::Delete, b"b:1");
        let all = ["a get 2 hit 1 set 0 del 0", " get 1 hit 1 set 0 del 0"];
        let all = all.into_iter().chain(["b get 0 hit 0 set 1 del 1"]);
        assert_eq!(lines(&detail), all.map(|each| format!("PREFIX {each}")).collect::<Vec<_>>());
        detail.clear();
        assert_eq!(lines(&detail), [""; 0]);
    }

    #[test]
    fn there_are_no_more_prefixes_than_so_many() {
        let detail = Detail::new(true, b'/');
        let keys: Vec<_> = (0..PREFIXES_MAX + 5).map(|number| format!("{number}/k")).collect();
        keys.iter().for_each(|key| detail.count(Use::Set, key.as_bytes()));
        detail.count(Use::Set, b"0/k");
        assert_eq!(lines(&detail).len(), PREFIXES_MAX);
        assert_eq!(lines(&detail)[0], "PREFIX 0 get 0 hit 0 set 2 del 0");
        detail.clear();
        let long = [b'k'; 245];
        for number in 0..PREFIXES_MAX {
            let key = [&long[..], format!("{number:05}/").as_bytes()].concat();
            detail.count(Use::Set, &key);
        }
        assert_eq!(lines(&detail).len(), NAMES_BYTES_MAX / 250);
    }

    #[test]
    fn what_could_not_stand_in_a_line_is_not_counted() {
        let detail = Detail::new(true, b':');
        for key in [&b"a\r\nEND\r\nb:1"[..], b"a b:1", b"a\x7f:1", b"a\xff:1"] {
            detail.count(Use::Set, key);
        }
        assert_eq!(detail.line(0).unwrap(), b"PREFIX a\xff get 0 hit 0 set 1 del 0");
        assert_eq!(detail.line(1), None);
    }
}
