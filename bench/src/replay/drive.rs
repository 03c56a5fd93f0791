//! Drives the store through a trace: a get for every request, and a set where it misses.
//!
//! There are no sockets and no other clock than the requests' own. With several threads each takes
//! the next chunk of the trace in turn, so that they stay close together.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use nix::time::{ClockId, clock_gettime};
use ringcached::base::clock::{Expiry, Now, TICKS_PER_S};
use ringcached::base::hash::{KeyHash, KeyHasher};
use ringcached::base::metrics::{Metric, Registry};
use ringcached::store::{
    Condition, Favor, Figures, ItemHead, Participant, StorePlan, Sweep, TURNS_PER_ROUND, Table,
};

use super::chance::{mix, unit};
use super::request::{FILLER, KEY_BYTES, Request, Trace, item_bytes, key_text};

/// Requests that are hashed and prefetched before the first of them is executed, as a connection
/// that pipelines would have it; then the thread is quiescent.
const BATCH: usize = 32;
/// Requests that a thread takes at once; a whole number of batches.
const CHUNK: usize = 10 * BATCH;
/// Virtual time begins so late that nothing is in the past.
const START_S: u64 = 1000;
const EPOCH_UNIX_S: u64 = 1_700_000_000;
/// One key in so many is looked at to find out how much is held of what has expired.
const PROBED: u64 = 8;

/// What to replay and on what.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    pub trace: &'a Trace,
    pub memory_bytes: u64,
    pub threads: usize,
    /// Whether items expire, each as its key says.
    pub ttl: bool,
    /// Requests between two looks at the table.
    pub window: usize,
    pub favor: Favor,
}

/// Turns of the sweep in a second, as of the server's thread for upkeep.
const SWEEPS_PER_S: u32 = 10;
/// Steps of the index's upkeep after each chunk, and segments that each looks at.
const INDEX_STEPS: u32 = 8;
const SEGMENTS_PER_STEP: u32 = 64;

/// What came of some requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub requests: u64,
    pub misses: u64,
    pub bytes: u64,
    pub missed_bytes: u64,
    /// Sets that found no memory or were too large.
    pub refused: u64,
    /// Processor time of the threads, without that of the looks at the table.
    pub cpu_ns: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.misses += other.misses;
        self.bytes += other.bytes;
        self.missed_bytes += other.missed_bytes;
        self.refused += other.refused;
        self.cpu_ns += other.cpu_ns;
    }

    pub fn miss_ratio(&self) -> f64 {
        self.misses as f64 / self.requests.max(1) as f64
    }

    pub fn byte_miss_ratio(&self) -> f64 {
        self.missed_bytes as f64 / self.bytes.max(1) as f64
    }

    pub fn ns_per_request(&self) -> f64 {
        self.cpu_ns as f64 / self.requests.max(1) as f64
    }
}

/// The table, when some requests had been executed.
#[derive(Clone, Debug)]
pub struct Look {
    /// So many requests.
    pub after: usize,
    /// Slot size and pages of each class that has any.
    pub classes: Vec<(u64, u64)>,
    /// Of items that are in the index, headers and keys included, dead or alive.
    pub linked_bytes: u64,
    /// Of items that are in the index and have expired: an estimate from one key in eight.
    pub dead_bytes: u64,
}

/// What a replay found.
#[derive(Clone, Debug)]
pub struct Findings {
    pub total: Tally,
    pub windows: Vec<Tally>,
    /// One at the end of each window.
    pub looks: Vec<Look>,
    pub evictions: u64,
    pub pages_moved: u64,
    pub items: u64,
    pub figures: Figures,
}

/// What the threads share.
struct Shared<'a> {
    plan: Plan<'a>,
    /// The keys that are looked at for what has expired.
    probes: Vec<u64>,
    registry: &'a Registry,
    next_chunk: AtomicUsize,
}

pub fn run(plan: Plan<'_>) -> io::Result<Findings> {
    let table = Arc::new(Table::open(StorePlan {
        memory_bytes: plan.memory_bytes,
        item_bytes_max: 1 << 30,
        evict: true,
        threads: u32::try_from(plan.threads).unwrap_or(1),
        hasher: KeyHasher::with_seed(1),
        favor: plan.favor,
        loan_bytes: None,
    })?);
    let registry = Registry::default();
    let is_probed = |key: &u64| plan.ttl && mix(*key).is_multiple_of(PROBED);
    let probes = plan.trace.last_requests().map(|request| request.key).filter(is_probed);
    let shared = Shared {
        plan,
        probes: probes.collect(),
        registry: &registry,
        next_chunk: AtomicUsize::new(0),
    };
    let replay = || Replay::new(&shared, &table).run();
    let parts: io::Result<Vec<Part>> = if plan.threads == 1 {
        replay().map(|part| vec![part])
    } else {
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            threads.resize_with(plan.threads, || scope.spawn(replay));
            let join = |thread: ScopedJoinHandle<'_, io::Result<Part>>| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
            };
            threads.into_iter().map(join).collect()
        })
    };
    let (windows, looks) = merged(parts?);
    let mut total = Tally::default();
    windows.iter().for_each(|window| total.add(window));
    Ok(Findings {
        total,
        windows,
        looks,
        evictions: registry.raw(Metric::Evictions),
        pages_moved: registry.raw(Metric::SlabsMoved),
        items: registry.raw(Metric::CurrItems),
        figures: table.figures(),
    })
}

/// What one thread brings.
#[derive(Debug, Default)]
struct Part {
    windows: Vec<Tally>,
    looks: Vec<Look>,
}

fn merged(parts: Vec<Part>) -> (Vec<Tally>, Vec<Look>) {
    let mut windows: Vec<Tally> = Vec::new();
    let mut looks = Vec::new();
    for part in parts {
        windows.resize(windows.len().max(part.windows.len()), Tally::default());
        windows.iter_mut().zip(&part.windows).for_each(|(sum, each)| sum.add(each));
        looks.extend(part.looks);
    }
    looks.sort_by_key(|look| look.after);
    (windows, looks)
}

/// One thread at work.
struct Replay<'a> {
    shared: &'a Shared<'a>,
    participant: Participant,
    sweep: Sweep,
    /// When the table was swept last.
    tended_s: u32,
    part: Part,
}

impl<'a> Replay<'a> {
    fn new(shared: &'a Shared<'a>, table: &Arc<Table>) -> Replay<'a> {
        let participant = table.participant(shared.registry.counters("replay"));
        Replay { shared, participant, sweep: Sweep::new(), tended_s: 0, part: Part::default() }
    }

    fn run(mut self) -> io::Result<Part> {
        let Plan { trace, window, .. } = self.shared.plan;
        let requests = &trace.requests;
        let mut began_ns = thread_cpu_ns()?;
        let mut window_now = 0;
        loop {
            // Relaxed: the numbers of the chunks order nothing.
            let start = self.shared.next_chunk.fetch_add(1, Ordering::Relaxed) * CHUNK;
            let end = requests.len().min(start + CHUNK);
            let (now, is_over) = (start / window, start >= requests.len());
            if now != window_now || is_over {
                let spent_ns = thread_cpu_ns()? - began_ns;
                self.tally(window_now).cpu_ns += spent_ns;
                window_now = now;
                began_ns = thread_cpu_ns()?;
            }
            if is_over {
                break;
            }
            requests[start..end].chunks(BATCH).for_each(|batch| self.execute(batch, now));
            self.tend(requests[end - 1].time_s);
            if end / window != now || end == requests.len() {
                let before_ns = thread_cpu_ns()?;
                self.look(end);
                began_ns += thread_cpu_ns()? - before_ns;
            }
        }
        // Otherwise the others would wait for it.
        self.participant.offline();
        Ok(self.part)
    }

    /// Upkeep, as often as a server's thread would have been at it until this time.
    fn tend(&mut self, time_s: u32) {
        let passed_s = time_s.saturating_sub(self.tended_s);
        self.tended_s = time_s.max(self.tended_s);
        for _ in 0..passed_s.saturating_mul(SWEEPS_PER_S).min(TURNS_PER_ROUND) {
            self.participant.sweep(&mut self.sweep, at(time_s));
        }
        for _ in 0..INDEX_STEPS {
            if !self.participant.tend_index(SEGMENTS_PER_STEP) {
                break;
            }
        }
    }

    fn tally(&mut self, window: usize) -> &mut Tally {
        let windows = &mut self.part.windows;
        windows.resize(windows.len().max(window + 1), Tally::default());
        &mut windows[window]
    }

    fn execute(&mut self, batch: &[Request], window: usize) {
        let mut keys = [([0; KEY_BYTES], KeyHash(0)); BATCH];
        for (request, (key, hash)) in batch.iter().zip(&mut keys) {
            *key = key_text(request.key);
            *hash = self.participant.table().hash(key);
            self.participant.prefetch(*hash);
        }
        keys[..batch.len()].iter().for_each(|(_, hash)| self.participant.prefetch_item(*hash));
        let mut tally = Tally::default();
        for (request, (key, hash)) in batch.iter().zip(&keys) {
            let now = at(request.time_s);
            let bytes = u64::from(request.bytes);
            tally.requests += 1;
            tally.bytes += bytes;
            if self.participant.get(key, *hash, now).is_err() {
                tally.misses += 1;
                tally.missed_bytes += bytes;
                tally.refused += u64::from(!self.set(request, key, *hash, now));
            }
        }
        self.participant.quiesce();
        self.tally(window).add(&tally);
    }

    /// Stores the value of a request. False when there was no memory for it.
    fn set(&mut self, request: &Request, key: &[u8], hash: KeyHash, now: Now) -> bool {
        let expiry = match ttl_s(request.key).filter(|_| self.shared.plan.ttl) {
            Some(ttl_s) => Expiry::at_tick(now.ticks + ttl_s * TICKS_PER_S),
            None => Expiry::NEVER,
        };
        let mut missing = request.value_bytes();
        let head = ItemHead { key, hash, flags: 0, expiry, value_bytes: missing, cas: None };
        let Ok(mut reservation) = self.participant.reserve(head, now) else { return false };
        while missing > 0 {
            let piece = &FILLER[..missing.min(FILLER.len())];
            if self.participant.fill(&mut reservation, piece, now).is_err() {
                self.participant.abandon(reservation);
                return false;
            }
            missing -= piece.len();
        }
        self.participant.commit(reservation, Condition::Always, now).is_stored()
    }

    /// Looks at the table after so many requests.
    fn look(&mut self, after: usize) {
        let now = at(self.shared.plan.trace.requests[after - 1].time_s);
        let look = Look {
            after,
            classes: self.participant.table().pages_by_class().collect(),
            linked_bytes: self.shared.registry.raw(Metric::Bytes),
            dead_bytes: self.dead_bytes(now),
        };
        self.part.looks.push(look);
    }

    fn dead_bytes(&mut self, now: Now) -> u64 {
        // Looked at from the beginning of time everything is alive, and so it stays as it is.
        let beginning = at(0);
        let mut dead_bytes = 0;
        for batch in self.shared.probes.chunks(BATCH) {
            for probe in batch {
                let key = key_text(*probe);
                let hash = self.participant.table().hash(&key);
                if let Ok(item) = self.participant.peek(&key, hash, beginning)
                    && item.expiry().is_due(now)
                {
                    dead_bytes += item_bytes(item.value_bytes());
                }
            }
            self.participant.quiesce();
        }
        dead_bytes * PROBED
    }
}

/// A second of virtual time as the table knows it.
fn at(time_s: u32) -> Now {
    let ticks = (START_S + u64::from(time_s)) * TICKS_PER_S;
    Now { ticks, epoch_unix_s: EPOCH_UNIX_S }
}

/// How long an item lives, always the same for a key: a minute, an hour, a day, for ever.
fn ttl_s(key: u64) -> Option<u64> {
    match unit(mix(mix(key))) {
        part if part < 0.2 => Some(60),
        part if part < 0.5 => Some(3600),
        part if part < 0.8 => Some(24 * 3600),
        _ => None,
    }
}

/// Processor time that this thread has used.
fn thread_cpu_ns() -> io::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    let ns = time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec());
    Ok(u64::try_from(ns).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(requests: &[(u32, u64, u32)]) -> Trace {
        let request = |(time_s, key, bytes)| Request { time_s, key, bytes };
        Trace::new(requests.iter().copied().map(request).collect())
    }

    fn plan(trace: &Trace) -> Plan<'_> {
        Plan {
            trace,
            memory_bytes: 4 << 20,
            threads: 1,
            ttl: false,
            window: 1000,
            favor: Favor::Objects,
        }
    }

    #[test]
    fn hits_and_misses_of_a_trace_that_fits_are_known() {
        let trace = trace(&[(0, 1, 100), (0, 2, 300), (0, 1, 100), (1, 3, 1000), (1, 2, 300)]);
        let found = run(plan(&trace)).unwrap();
        let total = Tally { cpu_ns: 0, ..found.total };
        let expected =
            Tally { requests: 5, misses: 3, bytes: 1800, missed_bytes: 1400, ..Tally::default() };
        assert_eq!(total, expected);
        assert!(found.total.cpu_ns > 0);
        assert_eq!((found.items, found.evictions, found.looks.len()), (3, 0, 1));
        assert_eq!(found.total.miss_ratio(), 0.6);
    }

    #[test]
    fn a_cache_that_is_too_small_misses_what_it_let_go() {
        let twice: Vec<(u32, u64, u32)> = (0..40_000).map(|i| (0, i % 20_000, 1058)).collect();
        let found = run(plan(&trace(&twice))).unwrap();
        assert!(found.total.misses > 30_000, "{:?}", found.total);
        assert!(found.evictions > 20_000 && found.items < 4096, "{found:?}");
        assert_eq!(found.total.refused, 0);
        let wanted = |(_, key, bytes)| [(0, key % 500, bytes), (0, key, bytes)];
        let both: Vec<_> = twice.into_iter().flat_map(wanted).collect();
        let found = run(plan(&trace(&both))).unwrap();
        let classes = &found.looks.last().unwrap().classes;
        assert!(matches!(classes[..], [(1024..1280, 15..)]), "what is wanted stays: {classes:?}");
        let large = trace(&[(0, 1, 8 << 20), (0, 1, 8 << 20)]);
        assert_eq!(run(plan(&large)).unwrap().total.refused, 2, "larger than the cache");
    }

    #[test]
    fn windows_add_up_and_each_ends_with_a_look() {
        let requests: Vec<(u32, u64, u32)> = (0..2500).map(|i| (0, i % 1250, 200)).collect();
        let trace = trace(&requests);
        for threads in [1, 2] {
            let found = run(Plan { threads, ..plan(&trace) }).unwrap();
            assert_eq!(found.windows.len(), 3);
            let requests: u64 = found.windows.iter().map(|window| window.requests).sum();
            assert_eq!((requests, found.total.requests), (2500, 2500));
            // A thread that lost its core stores late what the other asks for again.
            let most = if threads == 1 { 1250 } else { 2500 };
            assert!((1250..=most).contains(&found.total.misses), "{:?}", found.total);
            let after: Vec<usize> = found.looks.iter().map(|look| look.after).collect();
            assert_eq!(*after.last().unwrap(), 2500);
            assert_eq!(after.len(), 3);
            let last = found.looks.last().unwrap();
            let linked_bytes = found.items * item_bytes(200 - 58);
            assert!(threads == 2 || last.linked_bytes == linked_bytes, "{last:?}");
            assert!(found.figures.pages_log > 0 && last.classes.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn what_has_expired_is_a_miss_and_is_found_while_it_is_held() {
        let keys: Vec<u64> = (0..8000).filter(|key| ttl_s(*key) == Some(60)).collect();
        assert!((1500..1700).contains(&keys.len()), "{}", keys.len());
        let at = |time_s| keys.iter().map(move |key| (time_s, *key, 258));
        let alive: Vec<_> = at(0).chain(at(59)).collect();
        let found = |requests: &[(u32, u64, u32)]| {
            let trace = trace(requests);
            run(Plan { ttl: true, window: 1 << 20, ..plan(&trace) }).unwrap()
        };
        let found_alive = found(&alive);
        assert_eq!(found_alive.total.misses, keys.len() as u64);
        assert_eq!(found_alive.looks[0].dead_bytes, 0);
        let again: Vec<_> = at(0).chain(at(60)).collect();
        assert_eq!(found(&again).total.misses, 2 * keys.len() as u64);
        // The sweep has just been at their pages when they expire, and comes again later.
        let other = |time_s| (time_s, 1 << 40, 258);
        let others = [other(59); 2 * CHUNK].into_iter().chain([other(60)]);
        let mut held: Vec<_> = at(0).chain(others).collect();
        let dead = found(&held).looks[0].dead_bytes;
        let all = keys.len() as u64 * 243;
        assert!(dead > all / 2 && dead < all * 2, "{dead} of {all}");
        held.push(other(120));
        assert_eq!(found(&held).looks[0].dead_bytes, 0, "swept");
    }
}
