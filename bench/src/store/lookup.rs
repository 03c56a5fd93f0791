//! Nanoseconds per look-up.

use std::io;
use std::sync::Arc;
use std::sync::Barrier;

use ringcached::base::clock::Now;
use ringcached::base::hash::KeyHash;
use ringcached::base::metrics::Registry;
use ringcached::store::{Outcome, Participant, Table};
use ringcached_load::clock::Clock;
use ringcached_load::values::mix;

use super::local;
use super::options::Lookup;
use super::sheet::{Sheet, mib};
use crate::cores;
use crate::table::median;

/// Keys that are looked up together, as many as the server does.
const BATCH: usize = 16;
/// Look-ups between two looks at the clock.
const STRETCH: u64 = 1024;
/// Sets between two looks for huge pages that are due.
const TEND: u64 = 1024;
const BYTES_PER_ITEM: u64 = 144;
const NS_PER_MS: u64 = 1_000_000;
const NOW: Now = Now { ticks: 1 << 20, epoch_unix_s: 1_700_000_000 };

/// How keys are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Not at all: what making and hashing keys takes.
    Null,
    Single,
    Batch,
}

impl Way {
    const ALL: [Way; 3] = [Way::Null, Way::Single, Way::Batch];

    fn label(self) -> &'static str {
        match self {
            Way::Null => "null",
            Way::Single => "single",
            Way::Batch => "batch of 16",
        }
    }
}

/// One thread's walk over the keys.
struct Walk {
    one: Participant,
    items: u64,
    /// From which the next keys follow.
    state: u64,
    wrong: u64,
}

impl Walk {
    fn item(&self, number: u64) -> u64 {
        local::pick(mix(self.state ^ number), self.items)
    }

    fn look_up(&mut self, item: u64, key: &[u8], hash: KeyHash) -> u64 {
        let found = self.one.get(key, hash, NOW).ok().and_then(|item| item.value());
        let word = found.map_or(0, local::first_word);
        self.wrong += u64::from(word != local::word(item));
        word
    }

    /// Looks up about `STRETCH` keys.
    fn stretch(&mut self, way: Way) {
        for turn in 0..STRETCH / BATCH as u64 {
            match way {
                Way::Null => self.none(turn),
                Way::Single => self.one_by_one(turn),
                Way::Batch => self.together(turn),
            }
            self.one.quiesce();
        }
    }

    fn none(&mut self, turn: u64) {
        for number in 0..BATCH as u64 {
            let item = self.item(turn * BATCH as u64 + number);
            let hash = self.one.table().hash(&local::key(item));
            self.state = self.state.wrapping_add(hash.0 ^ local::word(item));
        }
    }

    fn one_by_one(&mut self, turn: u64) {
        for number in 0..BATCH as u64 {
            let item = self.item(turn * BATCH as u64 + number);
            let key = local::key(item);
            let hash = self.one.table().hash(&key);
            // The next key waits for this value.
            self.state = self.state.wrapping_add(self.look_up(item, &key, hash));
        }
    }

    fn together(&mut self, turn: u64) {
        let mut batch = [(0, [0; local::KEY_BYTES], KeyHash(0)); BATCH];
        for (number, place) in (0u64..).zip(&mut batch) {
            let item = self.item(turn * BATCH as u64 + number);
            let key = local::key(item);
            let hash = self.one.table().hash(&key);
            *place = (item, key, hash);
            self.one.prefetch(hash);
        }
        batch.iter().for_each(|(.., hash)| self.one.prefetch_item(*hash));
        for (item, key, hash) in &batch {
            self.state = self.state.wrapping_add(self.look_up(*item, key, *hash));
        }
    }
}

pub fn lookup(options: &Lookup) -> io::Result<Sheet> {
    let heads = ["items", "pages", "threads", "keys", "ns min", "ns median", "huge MiB"];
    let mut sheet = Sheet::new(4, &heads);
    for items in &options.items {
        for huge in [false, true] {
            let table = filled(*items, huge, options)?;
            for threads in &options.threads {
                rows(&table, *items, *threads, options, &mut sheet)?;
            }
        }
    }
    sheet.note(format!(
        "keys of {} bytes, values of {}, uniform; {} slices of {} ms of each kind, interleaved; ns \
         of a slice is the mean of its threads, each on a core of its own as far as there are any",
        local::KEY_BYTES,
        local::VALUE_BYTES,
        options.slices,
        options.slice_ms
    ));
    sheet.note("null: the same keys made and hashed, in the other figures too");
    Ok(sheet)
}

/// A table with so many items.
fn filled(items: u64, huge: bool, options: &Lookup) -> io::Result<Arc<Table>> {
    let memory_bytes = (items * BYTES_PER_ITEM).max(64 << 20);
    let threads = options.threads.iter().max().copied().unwrap_or(1);
    let threads = u32::try_from(threads).map_err(io::Error::other)?;
    let table = local::table(memory_bytes, threads, false)?;
    let mut one = table.participant(Registry::default().counters("fill"));
    for item in 0..items {
        let stored = local::store(&mut one, &local::key(item), &local::value(item), NOW);
        if !stored.is_ok_and(Outcome::is_stored) {
            return Err(io::Error::other(format!("item {item}: {stored:?}")));
        }
        if item % TEND == 0 {
            one.quiesce();
            if huge {
                local::make_huge_pages(&table);
            }
        }
    }
    drop(one);
    Ok(table)
}

fn rows(
    table: &Arc<Table>,
    items: u64,
    threads: u64,
    options: &Lookup,
    sheet: &mut Sheet,
) -> io::Result<()> {
    let mut found = Way::ALL.map(|_| Vec::new());
    let mut wrong = 0;
    for slice in 0..options.slices {
        for (way, all) in Way::ALL.into_iter().zip(&mut found) {
            let seed = u64::from(slice) << 8;
            let (ns, wrong_now) = time(table, items, way, threads, options.slice_ms, seed)?;
            all.push(ns);
            wrong += wrong_now;
        }
    }
    let huge_bytes = table.figures().huge_bytes;
    for (way, all) in Way::ALL.into_iter().zip(found) {
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        sheet.row(vec![
            items.to_string(),
            if huge_bytes > 0 { "huge" } else { "small" }.to_owned(),
            threads.to_string(),
            way.label().to_owned(),
            format!("{least:.1}"),
            median(all).map_or(String::new(), |ns| format!("{ns:.1}")),
            mib(huge_bytes),
        ]);
    }
    if wrong > 0 {
        sheet.fail(format!("{items} items: {wrong} look-ups found nothing, or something else"));
    }
    Ok(())
}

/// One slice: nanoseconds per look-up, the mean of the threads, and how many were wrong.
fn time(
    table: &Arc<Table>,
    items: u64,
    way: Way,
    threads: u64,
    slice_ms: u64,
    seed: u64,
) -> io::Result<(f64, u64)> {
    let cores = std::thread::available_parallelism()?.get();
    let registry = Registry::default();
    let count = usize::try_from(threads).map_err(io::Error::other)?;
    let barrier = Barrier::new(count);
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for thread in 0..count {
            let mut one = table.participant(registry.counters("get"));
            let (barrier, number) = (&barrier, thread as u64);
            // It waits, and must not keep the others from anything.
            one.offline();
            running.push(scope.spawn(move || {
                let mut walk = Walk { one, items, state: mix(seed + number), wrong: 0 };
                barrier.wait();
                walk.one.online();
                cores::on(thread % cores, || {
                    let (clock, mut done) = (Clock::start(), 0);
                    while clock.ns() < slice_ms * NS_PER_MS {
                        walk.stretch(way);
                        done += STRETCH;
                    }
                    Ok((clock.ns() as f64 / done as f64, walk.wrong))
                })
            }));
        }
        let (mut sum_ns, mut wrong) = (0.0, 0);
        for thread in running {
            let ended = thread.join().expect("a thread that panics ends the process")?;
            sum_ns += ended.0;
            wrong += ended.1;
        }
        Ok((sum_ns / threads as f64, wrong))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Lookup =
        Lookup { items: Vec::new(), threads: Vec::new(), slices: 1, slice_ms: 2 };

    #[test]
    fn every_way_finds_what_it_looks_for() {
        let table = filled(20_000, true, &OPTIONS).unwrap();
        for way in Way::ALL {
            let (ns, wrong) = time(&table, 20_000, way, 1, 2, 3).unwrap();
            assert!(ns > 0.0 && wrong == 0, "{way:?}: {ns} ns, {wrong} wrong");
        }
        // The half that is not there is seen to be missing, in both ways.
        for way in [Way::Single, Way::Batch] {
            assert!(time(&table, 40_000, way, 1, 2, 3).unwrap().1 > 100, "{way:?}");
        }
    }

    #[test]
    fn a_walk_goes_everywhere() {
        let table = filled(1000, false, &OPTIONS).unwrap();
        let one = table.participant(Registry::default().counters("get"));
        let mut walk = Walk { one, items: 1000, state: 5, wrong: 0 };
        let mut seen = vec![false; 1000];
        for _ in 0..10_000 {
            let item = walk.item(0);
            seen[usize::try_from(item).unwrap()] = true;
            let key = local::key(item);
            let hash = walk.one.table().hash(&key);
            walk.state = walk.state.wrapping_add(walk.look_up(item, &key, hash));
        }
        assert!(seen.iter().all(|seen| *seen) && walk.wrong == 0);
    }
}
