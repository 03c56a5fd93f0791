//! Mixed work from several threads at full memory, with every answer checked.
//!
//! `record`: values that say whose they are. `known`: what is known of every key, by all threads.
//! `peer`: one thread. Here: how they are run together, and memory watched meanwhile.

mod known;
mod peer;
mod record;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ringcached::base::clock::{Clock, TICKS_PER_S};
use ringcached::base::metrics::{Metric, Registry};
use ringcached::server::upkeep::Upkeep;
use ringcached::store::Table;

use super::options::Check;
use super::sheet::{Sheet, mib};
use super::{local, rss};
use crate::servers::pause;
use known::{Fault, Findings, Known};
use peer::{Peer, key_bytes};

const SHARED_KEYS: u64 = 512;
/// So much memory for each owned key: half of them fit.
const BYTES_PER_KEY: u64 = 350;
/// A value may take this part of the memory at most.
const LARGEST_SHARE: u64 = 32;

/// What the memory did.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    rss_growth_max: u64,
    /// What the table said it may take, when it took most.
    limit: u64,
    over: bool,
}

pub fn check(options: &Check) -> io::Result<Sheet> {
    let memory_bytes = options.memory << 20;
    let owned_keys = (memory_bytes / BYTES_PER_KEY).max(u64::from(options.threads));
    let known = Known::new(options.threads, SHARED_KEYS, owned_keys, memory_bytes / LARGEST_SHARE);
    let before = rss::of(std::process::id())?;
    let table = local::table(memory_bytes, options.threads, true)?;
    let (registry, clock) = (Registry::default(), Clock::start());
    let (stop, filled) = (AtomicBool::new(false), AtomicU32::new(0));
    let (findings, watched) = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for me in 0..u64::from(options.threads) {
            let one = table.participant(registry.counters("peer"));
            let mut peer = Peer::new(one, &known, me, options.seed);
            let (stop, filled, clock) = (&stop, &filled, clock.clone());
            threads.push(scope.spawn(move || {
                peer.fill(&clock);
                // Relaxed, both: they say nothing of anything else.
                filled.fetch_add(1, Ordering::Relaxed);
                while !stop.load(Ordering::Relaxed) {
                    peer.turn(clock.now());
                }
                peer.findings
            }));
        }
        let upkeep = Upkeep::new(&table, registry.counters("upkeep"));
        let watched = watch(&table, upkeep, &clock, before, &filled, options);
        stop.store(true, Ordering::Relaxed);
        let mut all = Findings::default();
        for thread in threads {
            all.merge(thread.join().expect("a thread that panics ends the process"));
        }
        (all, watched)
    });
    let mut sheet = report(&findings, &registry, watched?, options);
    let left = empty(&table, &registry, &known, &clock);
    if left != 0 {
        sheet.fail(format!("{left} items are counted when all are deleted"));
    }
    Ok(sheet)
}

/// Waits until the time is over, which begins when all threads have filled the memory, and looks at
/// the memory meanwhile. Tends the table, too.
fn watch(
    table: &Table,
    mut upkeep: Upkeep,
    clock: &Clock,
    before: u64,
    filled: &AtomicU32,
    options: &Check,
) -> io::Result<Watched> {
    let mut watched = Watched::default();
    let mut end = u64::MAX;
    while clock.now().ticks < end {
        // Relaxed: as above.
        if end == u64::MAX && filled.load(Ordering::Relaxed) == options.threads {
            end = clock.now().ticks + options.seconds * TICKS_PER_S;
        }
        upkeep.turn(clock.now());
        let growth = rss::of(std::process::id())?.saturating_sub(before);
        let figures = table.figures();
        let limit = figures.limit_bytes + figures.outside_bytes + (options.slack << 20);
        if growth > watched.rss_growth_max {
            (watched.rss_growth_max, watched.limit) = (growth, limit);
        }
        watched.over |= growth > limit;
        pause(local::REST);
    }
    Ok(watched)
}

/// Deletes everything. What is still counted then, items and bytes.
fn empty(table: &Arc<Table>, registry: &Registry, known: &Known, clock: &Clock) -> u64 {
    let mut one = table.participant(registry.counters("last"));
    for key in 0..known.keys() {
        let mut space = [0; 40];
        let bytes = key_bytes(key, &mut space);
        one.delete(bytes, table.hash(bytes), clock.now());
        if key.is_multiple_of(64) {
            one.quiesce();
        }
    }
    one.quiesce();
    registry.sum(Metric::CurrItems) + registry.sum(Metric::Bytes)
}

fn report(findings: &Findings, registry: &Registry, watched: Watched, options: &Check) -> Sheet {
    let mut sheet = Sheet::new(1, &["what", "count"]);
    for (what, count) in findings.work() {
        sheet.row(vec![what.to_owned(), count.to_string()]);
    }
    let evictions = registry.sum(Metric::Evictions);
    sheet.row(vec!["evictions".to_owned(), evictions.to_string()]);
    for fault in Fault::ALL {
        let count = findings.faults[fault as usize];
        sheet.row(vec![fault.label().to_owned(), count.to_string()]);
    }
    sheet.row(vec!["RSS growth MiB, at most".to_owned(), mib(watched.rss_growth_max)]);
    sheet.row(vec!["its limit MiB".to_owned(), mib(watched.limit)]);
    sheet.note(format!(
        "{} s when memory had been filled, {} threads, {} MiB; limit: what the table says of its \
         pages and of what is beside them, and {} MiB for the check",
        options.seconds, options.threads, options.memory, options.slack
    ));
    if findings.faults() > 0 {
        let first = findings.first_fault.clone().unwrap_or_default();
        sheet.fail(format!("{} faults; the first: {first}", findings.faults()));
    }
    if watched.over {
        sheet.fail("RSS went beyond its limit");
    }
    if evictions == 0 {
        sheet.fail("memory was never full: run longer, or with less memory");
    }
    sheet
}
