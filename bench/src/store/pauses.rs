//! The longest pause of a get while the table grows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hdrhistogram::Histogram;
use nix::sys::mman::{MlockAllFlags, mlockall};
use ringcached::base::clock::Now;
use ringcached::base::metrics::Registry;
use ringcached::server::upkeep::Upkeep;
use ringcached::store::{Outcome, Participant, Table};
use ringcached_load::clock::Clock;
use ringcached_load::values::mix;

use super::local;
use super::options::Growth;
use super::sheet::Sheet;
use crate::cores;

/// Operations from one quiescent state to the next, as in a turn of a ring.
const TURN: u64 = 16;
/// Longer than any pause.
const NS_MAX: u64 = 60_000_000_000;
/// Laps between two looks at how long the thread has waited.
const LAPS_PER_LOOK: u64 = 1024;
/// What the budget allows.
const PAUSE_NS_MAX: u64 = 100_000;
/// Ample for an item of these sizes and its part of the index, at every stage of its growth.
const BYTES_PER_ITEM: u64 = 144;
const NOW: Now = Now { ticks: 1 << 20, epoch_unix_s: 1_700_000_000 };

/// Times of operations that follow one another without a gap.
#[derive(Debug)]
struct Laps {
    clock: Clock,
    last_ns: u64,
    histogram: Histogram<u64>,
    waits: Waits,
    laps_unlooked: u64,
    /// The longest without the time in which the thread waited for its core.
    longest_on_core_ns: u64,
    /// Those that were too long without that time.
    long_on_core: u64,
}

/// How long this thread has waited for a core, by the kernel's account. Time that a host takes from
/// a virtual core is not in it.
#[derive(Debug)]
struct Waits {
    schedstat: File,
    seen_ns: u64,
}

/// What the two threads tell each other.
#[derive(Default)]
struct Progress {
    /// Items that are there.
    grown: AtomicU64,
    done: AtomicBool,
}

impl Waits {
    fn start() -> io::Result<Waits> {
        let mut waits = Waits { schedstat: File::open("/proc/thread-self/schedstat")?, seen_ns: 0 };
        waits.take();
        Ok(waits)
    }

    /// What was waited since the last look.
    fn take(&mut self) -> u64 {
        let mut text = [0; 64];
        let read = self.schedstat.read_at(&mut text, 0).unwrap_or(0);
        let waited = waited_ns(&text[..read]).unwrap_or(self.seen_ns);
        waited - std::mem::replace(&mut self.seen_ns, waited)
    }
}

/// The second number of `run wait slices`.
fn waited_ns(schedstat: &[u8]) -> Option<u64> {
    std::str::from_utf8(schedstat).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

impl Laps {
    /// For the thread that calls this.
    fn start() -> io::Result<Laps> {
        let histogram = Histogram::new_with_bounds(1, NS_MAX, 3).map_err(io::Error::other)?;
        let (clock, waits) = (Clock::start(), Waits::start()?);
        Ok(Laps {
            last_ns: clock.ns(),
            clock,
            histogram,
            waits,
            laps_unlooked: 0,
            longest_on_core_ns: 0,
            long_on_core: 0,
        })
    }

    /// An operation has ended, and the next begins.
    #[inline]
    fn lap(&mut self) {
        let now_ns = self.clock.ns();
        let lap_ns = now_ns - self.last_ns;
        self.last_ns = now_ns;
        self.histogram.saturating_record(lap_ns);
        self.laps_unlooked += 1;
        if lap_ns > PAUSE_NS_MAX || self.laps_unlooked == LAPS_PER_LOOK {
            self.look(lap_ns);
        } else if lap_ns > self.longest_on_core_ns {
            self.longest_on_core_ns = lap_ns;
        }
    }

    /// Asks how much of a lap was waiting; what was waited in the few laps before counts for it.
    #[cold]
    fn look(&mut self, lap_ns: u64) {
        let on_core_ns = lap_ns.saturating_sub(self.waits.take());
        self.longest_on_core_ns = self.longest_on_core_ns.max(on_core_ns);
        self.long_on_core += u64::from(on_core_ns > PAUSE_NS_MAX);
        self.laps_unlooked = 0;
        self.skip();
    }

    /// What was done since the last operation is none.
    fn skip(&mut self) {
        self.last_ns = self.clock.ns();
    }
}

pub fn growth(options: &Growth) -> io::Result<Sheet> {
    let ample = || ((options.items * BYTES_PER_ITEM) >> 20).max(64);
    let memory_bytes = options.memory.unwrap_or_else(ample) << 20;
    let heads = [
        "what",
        "count",
        "p50 us",
        "p99.99 us",
        "max us",
        "over 100 us",
        "max on core us",
        "over 100 us on core",
    ];
    let mut sheet = Sheet::new(1, &heads);
    let clock = Clock::start();
    let (gets, sets, misses) = together(options, memory_bytes)?;
    let took_ns = clock.ns();
    row(&mut sheet, "get, while it grows", &gets);
    row(&mut sheet, "set, while another gets", &sets);
    row(&mut sheet, "set, alone", &alone(options, memory_bytes)?);
    row(&mut sheet, "null loop, for as long", &null(options, took_ns)?);
    sheet.note(format!(
        "{} items grow to {} in {} MiB; keys of {} bytes, values of {}",
        options.from,
        options.items,
        memory_bytes >> 20,
        local::KEY_BYTES,
        local::VALUE_BYTES
    ));
    sheet.note(
        "each time is from the end of the operation before, the clock's own included; the null \
         loop is the get without a table, on the same core",
    );
    sheet.note(
        "on core: without the time in which the kernel had the thread wait for its core; time that \
         a host takes from a virtual core is still in it",
    );
    if misses > 0 {
        sheet.fail(format!("{misses} gets found nothing, or something else"));
    }
    Ok(sheet)
}

fn row(sheet: &mut Sheet, what: &str, laps: &Laps) {
    let ns = &laps.histogram;
    let us = |ns: u64| format!("{:.2}", ns as f64 / 1000.0);
    let over = ns.len() - ns.count_between(0, PAUSE_NS_MAX);
    sheet.row(vec![
        what.to_owned(),
        ns.len().to_string(),
        us(ns.value_at_quantile(0.5)),
        us(ns.value_at_quantile(0.9999)),
        us(ns.max()),
        over.to_string(),
        us(laps.longest_on_core_ns),
        laps.long_on_core.to_string(),
    ]);
}

fn open(options: &Growth, memory_bytes: u64, threads: u32) -> io::Result<Arc<Table>> {
    let table = local::table(memory_bytes, threads, false)?;
    if options.lock {
        mlockall(MlockAllFlags::MCL_CURRENT)?;
    }
    Ok(table)
}

/// One thread stores, one gets. Times of gets and of sets, and how many gets were wrong.
fn together(options: &Growth, memory_bytes: u64) -> io::Result<(Laps, Laps, u64)> {
    let table = open(options, memory_bytes, 2)?;
    let (registry, progress) = (Registry::default(), Progress::default());
    let mut storing = table.participant(registry.counters("set"));
    store(&mut storing, 0..options.from, &progress, &mut Laps::start()?)?;
    std::thread::scope(|scope| {
        let progress = &progress;
        if options.makes_huge_pages() {
            let upkeep = Upkeep::new(&table, registry.counters("upkeep"));
            scope.spawn(move || tend_until_done(upkeep, progress));
        }
        let getting = table.participant(registry.counters("get"));
        // It keeps nobody waiting until it gets.
        let gets = scope.spawn(move || cores::on(options.get_core, || get(getting, progress)));
        let sets = cores::on(options.store_core, || {
            let mut laps = Laps::start()?;
            store(&mut storing, options.from..options.items, progress, &mut laps)?;
            Ok(laps)
        });
        // Release: pairs with the load in `get`.
        progress.done.store(true, Ordering::Release);
        let (gets, misses) = gets.join().expect("a thread that panics ends the process")?;
        Ok((gets, sets?, misses))
    })
}

fn tend_until_done(mut upkeep: Upkeep, progress: &Progress) {
    // Acquire: pairs with the stores of `done`.
    while !progress.done.load(Ordering::Acquire) {
        upkeep.turn(NOW);
        upkeep.rest();
    }
}

fn store(
    one: &mut Participant,
    items: std::ops::Range<u64>,
    progress: &Progress,
    laps: &mut Laps,
) -> io::Result<()> {
    laps.skip();
    for item in items {
        match local::store(one, &local::key(item), &local::value(item), NOW) {
            Ok(Outcome::Stored { .. }) => {}
            refused => {
                let text = format!("item {item}: {refused:?}: give it more --memory");
                return Err(io::Error::other(text));
            }
        }
        if item % TURN == TURN - 1 {
            one.quiesce();
        }
        // Release: who reads the number finds the items.
        progress.grown.store(item + 1, Ordering::Release);
        laps.lap();
    }
    one.quiesce();
    Ok(())
}

/// Gets what is there until no more comes. Times, and how many gets were wrong.
fn get(mut one: Participant, progress: &Progress) -> io::Result<(Laps, u64)> {
    let (mut laps, mut draw, mut wrong) = (Laps::start()?, 0, 0);
    laps.skip();
    while !progress.done.load(Ordering::Acquire) {
        for _ in 0..TURN {
            draw += 1;
            let item = local::pick(mix(draw), progress.grown.load(Ordering::Acquire));
            let key = local::key(item);
            let hash = one.table().hash(&key);
            let found = one.get(&key, hash, NOW).ok().and_then(|item| item.value());
            wrong += u64::from(found.map(local::first_word) != Some(local::word(item)));
            laps.lap();
        }
        one.quiesce();
    }
    Ok((laps, wrong))
}

/// One thread fills a table from nothing.
fn alone(options: &Growth, memory_bytes: u64) -> io::Result<Laps> {
    let table = open(options, memory_bytes, 1)?;
    let (registry, progress) = (Registry::default(), Progress::default());
    let mut one = table.participant(registry.counters("set"));
    std::thread::scope(|scope| {
        let progress = &progress;
        if options.makes_huge_pages() {
            let upkeep = Upkeep::new(&table, registry.counters("upkeep"));
            scope.spawn(move || tend_until_done(upkeep, progress));
        }
        let sets = cores::on(options.store_core, || {
            let mut laps = Laps::start()?;
            store(&mut one, 0..options.items, progress, &mut laps)?;
            Ok(laps)
        });
        // Release: as above.
        progress.done.store(true, Ordering::Release);
        sets
    })
}

/// The loop of `get` without a table, while the other core is busy.
fn null(options: &Growth, took_ns: u64) -> io::Result<Laps> {
    let (progress, table) = (Progress::default(), local::table(64 << 20, 1, false)?);
    std::thread::scope(|scope| {
        let (progress, table) = (&progress, &table);
        scope.spawn(move || {
            cores::on(options.store_core, || {
                let mut item = 0;
                while !progress.done.load(Ordering::Acquire) {
                    item += 1;
                    std::hint::black_box(table.hash(&local::key(item)));
                }
                Ok(())
            })
        });
        let times = cores::on(options.get_core, || {
            let (mut laps, mut draw) = (Laps::start()?, 0);
            laps.skip();
            while laps.last_ns < took_ns {
                draw += 1;
                let key = local::key(local::pick(mix(draw), options.items));
                std::hint::black_box(table.hash(&key));
                laps.lap();
            }
            Ok(laps)
        });
        // Release: as above.
        progress.done.store(true, Ordering::Release);
        times
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_says_what_the_histogram_holds() {
        let mut laps = Laps::start().unwrap();
        laps.histogram.record_n(1000, 99_990).unwrap();
        laps.histogram.record_n(90_000, 8).unwrap();
        laps.histogram.record_n(5_000_000, 3).unwrap();
        let mut sheet = Sheet::new(1, &["what", "count", "p50", "99", "max", "over", "on", "o"]);
        (laps.longest_on_core_ns, laps.long_on_core) = (7000, 2);
        row(&mut sheet, "x", &laps);
        let text = sheet.markdown(&crate::machine::Machine::this(), "");
        let cells: Vec<&str> = text.lines().nth(2).unwrap().split('|').map(str::trim).collect();
        assert_eq!(cells[1..4], ["x", "100001", "1.00"]);
        let number = |at: usize| cells[at].parse::<f64>().unwrap();
        assert!((number(4) - 90.0).abs() < 0.1, "{text}");
        assert!((number(5) - 5000.0).abs() < 5.0, "{text}");
        assert_eq!(cells[6..9], ["3", "7.00", "2"]);
    }

    #[test]
    fn a_lap_that_is_long_is_looked_at() {
        let mut laps = Laps::start().unwrap();
        for busy_ns in [0, 3_000_000, 0, 0] {
            let (clock, mut word) = (Clock::start(), 1);
            while clock.ns() < busy_ns {
                word = std::hint::black_box(mix(word));
            }
            laps.lap();
        }
        // The core may have been somebody else's for a while.
        assert!(laps.longest_on_core_ns <= laps.histogram.max());
        assert!(laps.histogram.max() >= 3_000_000 && laps.histogram.len() == 4);
        assert_eq!(laps.laps_unlooked, 2);
        assert_eq!(waited_ns(b"100 2345 7\n"), Some(2345));
        assert_eq!(waited_ns(b"100"), None);
    }

    #[test]
    fn a_table_that_grows_answers_everything() {
        let core = (0..64).find(|core| cores::on(*core, || Ok(())).is_ok()).unwrap();
        let options = Growth {
            from: 1000,
            items: 60_000,
            memory: Some(64),
            no_huge_pages: true,
            lock: false,
            store_core: core,
            get_core: core,
        };
        let (gets, sets, misses) = together(&options, 64 << 20).unwrap();
        assert!(!gets.histogram.is_empty());
        assert_eq!((sets.histogram.len(), misses), (59_000, 0));
        let null = null(&options, 1_000_000).unwrap();
        assert!(null.histogram.len() > 100);
        let small = Growth { items: 600_000, ..options };
        let text = together(&small, 8 << 20).unwrap_err().to_string();
        assert!(text.contains("--memory"), "{text}");
    }
}
