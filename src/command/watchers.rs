//! Who watches what happens, and how it is told to them.
//!
//! ```text
//!   executor --\                        queue of watcher 1 --> its connection's output
//!   executor ----> Observer: a line --> queue of watcher 2 --> ...
//!   keeper ----/   (a copy of who there is)    bounded: what finds no room is skipped
//! ```
//!
//! While nobody watches, a thread compares one number for each batch. Otherwise it makes a line of
//! whatever is watched, gives a number to it, and puts it into the queue of each watcher, or counts
//! it as skipped there: nobody ever waits for who watches. The ring of a watcher's connection takes
//! the lines out when it has room for them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crossbeam_queue::ArrayQueue;

use crate::base::clock::{Now, TICKS_PER_S};
use crate::base::metrics::{Counters, Metric};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use crate::protocol::memcache::{
    LOG_LINE_BYTES_MAX, LogEntry, LogStamp, WatchKinds, write_log_line,
};

/// As many watch at a time.
const WATCHERS_MAX: usize = 20;
/// Bytes of lines that wait for one watcher; as memcached's `watcher_logbuf_size`.
const QUEUE_BYTES_MAX: usize = 256 << 10;
/// Most lines of them: those of short keys.
const QUEUE_LINES_MAX: usize = 2048;
/// The ring is woken when so much waits: otherwise it looks at every tick.
const QUEUE_BYTES_URGENT: usize = QUEUE_BYTES_MAX / 4;

/// Bits of `Watchers::state` for the kinds.
const KIND_BITS: u32 = 16;

type Line = Arc<[u8]>;

/// A line, and how many found no room before it.
type Waiting = (u64, Line);

type Waker = Box<dyn Fn() + Send + Sync>;

/// One who watches.
#[derive(Debug)]
pub(super) struct Watcher {
    kinds: WatchKinds,
    lines: ArrayQueue<Waiting>,
    bytes: AtomicUsize,
    /// Lines that found no room since the last one that did.
    skipped: AtomicU64,
    is_open: AtomicBool,
}

impl Watcher {
    fn new(kinds: WatchKinds) -> Watcher {
        Watcher {
            kinds,
            lines: ArrayQueue::new(QUEUE_LINES_MAX),
            bytes: AtomicUsize::new(0),
            skipped: AtomicU64::new(0),
            is_open: AtomicBool::new(true),
        }
    }

    // Relaxed, here and below: the queue orders what is in it.
    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Puts a line at the end, if there is room. Says whether there was, and whether so much waits
    /// now that somebody must be woken.
    fn push(&self, line: &Line, counters: &Counters) -> (bool, bool) {
        let before = self.bytes.fetch_add(line.len(), Ordering::Relaxed);
        let after = before + line.len();
        let skipped = self.take_skipped(after <= QUEUE_BYTES_MAX);
        let waiting = (skipped, Arc::clone(line));
        if after > QUEUE_BYTES_MAX || self.lines.push(waiting).is_err() {
            self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.skipped.fetch_add(skipped + 1, Ordering::Relaxed);
            counters.bump(Metric::LogWatcherSkipped);
            return (false, false);
        }
        counters.add(Metric::LogBytes, line.len() as u64);
        (true, before < QUEUE_BYTES_URGENT && after >= QUEUE_BYTES_URGENT)
    }

    /// Takes the first line out.
    pub(super) fn pop(&self, counters: &Counters) -> Option<Waiting> {
        let (skipped, line) = self.lines.pop()?;
        self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
        counters.sub(Metric::LogBytes, line.len() as u64);
        Some((skipped, line))
    }

    /// Takes all lines out, for nobody.
    fn forget(&self, counters: &Counters) {
        while self.pop(counters).is_some() {}
    }

    /// How many lines found no room, for the next one that does.
    fn take_skipped(&self, has_room: bool) -> u64 {
        match self.skipped.load(Ordering::Relaxed) {
            0 => 0,
            _ if has_room => self.skipped.swap(0, Ordering::Relaxed),
            _ => 0,
        }
    }

    /// True when there is something to tell.
    pub(super) fn has_lines(&self) -> bool {
        !self.lines.is_empty()
    }
}

/// All who watch.
#[derive(Default)]
pub(super) struct Watchers {
    /// What is watched, and above it a number that changes with every watcher that comes or goes.
    state: AtomicU64,
    list: Mutex<Vec<Arc<Watcher>>>,
    /// Lines so far.
    written: AtomicU64,
    waker: OnceLock<Waker>,
}

impl fmt::Debug for Watchers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watchers").field("list", &self.list).finish_non_exhaustive()
    }
}

impl Watchers {
    /// What is called when much waits for a watcher.
    pub(super) fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        let _ = self.waker.set(Box::new(waker));
    }

    /// One more; `None` when there are as many as may be.
    pub(super) fn add(&self, kinds: WatchKinds) -> Option<Arc<Watcher>> {
        let mut list = self.list.lock();
        if list.len() >= WATCHERS_MAX {
            return None;
        }
        let watcher = Arc::new(Watcher::new(kinds));
        list.push(Arc::clone(&watcher));
        self.note(&list);
        Some(watcher)
    }

    /// One less. What waits for it is forgotten.
    pub(super) fn remove(&self, watcher: &Arc<Watcher>, counters: &Counters) {
        let mut list = self.list.lock();
        list.retain(|other| !Arc::ptr_eq(other, watcher));
        self.note(&list);
        drop(list);
        watcher.is_open.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        watcher.forget(counters);
    }

    pub(super) fn count(&self) -> u64 {
        self.list.lock().len() as u64
    }

    fn note(&self, list: &[Arc<Watcher>]) {
        let all = list.iter().fold(WatchKinds::default(), |all, each| all.with(each.kinds));
        let version = (self.state.load(Ordering::Relaxed) >> KIND_BITS) + 1;
        let state = version << KIND_BITS | u64::from(all.to_bits());
        // Relaxed: who sees it takes the lock.
        self.state.store(state, Ordering::Relaxed);
    }
}

/// What a thread knows of who watches.
#[derive(Debug, Default)]
pub(super) struct Observer {
    state: u64,
    watchers: Vec<Arc<Watcher>>,
}

impl Observer {
    /// Takes notice of who has come or gone since the last call. True when somebody has.
    #[inline]
    pub(super) fn look(&mut self, all: &Watchers) -> bool {
        let is_news = all.state.load(Ordering::Relaxed) != self.state;
        if is_news {
            self.learn(all);
        }
        is_news
    }

    #[cold]
    fn learn(&mut self, all: &Watchers) {
        let list = all.list.lock();
        self.state = all.state.load(Ordering::Relaxed);
        self.watchers.clone_from(&list);
    }

    /// What is watched.
    #[inline]
    pub(super) fn kinds(&self) -> WatchKinds {
        let [a, b, ..] = self.state.to_le_bytes();
        WatchKinds::from_bits(u16::from_le_bytes([a, b]))
    }

    /// Tells something to whom it concerns.
    #[cold]
    pub(super) fn tell(&self, all: &Watchers, counters: &Counters, entry: &LogEntry<'_>, now: Now) {
        let is_for = |each: &&Arc<Watcher>| each.kinds.has(entry.kind()) && each.is_open();
        let mut concerned = self.watchers.iter().filter(is_for).peekable();
        if concerned.peek().is_none() {
            return;
        }
        let number = all.written.fetch_add(1, Ordering::Relaxed) + 1;
        let mut space = [0; LOG_LINE_BYTES_MAX];
        let len = write_log_line(&mut space, stamp(now, number), entry);
        let line: Line = space[..len].into();
        let (mut has_room, mut is_urgent) = (false, false);
        for watcher in concerned {
            let (pushed, wakes) = watcher.push(&line, counters);
            has_room |= pushed;
            is_urgent |= wakes;
            // SeqCst: pairs with the fence in `remove`. One of the two sees what the other did.
            fence(Ordering::SeqCst);
            if !watcher.is_open() {
                watcher.forget(counters);
            }
        }
        let metric = if has_room { Metric::LogWorkerWritten } else { Metric::LogWorkerDropped };
        counters.bump(metric);
        if let (true, Some(wake)) = (is_urgent, all.waker.get()) {
            wake();
        }
    }
}

fn stamp(now: Now, number: u64) -> LogStamp {
    let micros = now.ticks % TICKS_PER_S * 1_000_000 / TICKS_PER_S;
    let micros = u32::try_from(micros).expect("less than a second");
    LogStamp { unix_s: now.unix_s(), micros, number }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::base::metrics::Registry;

    const NOW: Now = Now { ticks: 100 * TICKS_PER_S + 16, epoch_unix_s: 1_700_000_000 };

    fn deletion(key: &[u8]) -> LogEntry<'_> {
        LogEntry::Deletion { key, verb: "delete", class: 1, value_bytes: 2 }
    }

    #[test]
    fn each_is_told_what_it_watches() {
        let registry = Registry::default();
        let counters = registry.counters("one");
        let (all, mut observer) = (Watchers::default(), Observer::default());
        assert!(!observer.look(&all) && observer.kinds().is_empty());
        let deletions = all.add(WatchKinds::DELETIONS).unwrap();
        let both = all.add(WatchKinds::DELETIONS.with(WatchKinds::CONNEVENTS)).unwrap();
        assert!(observer.look(&all) && !observer.look(&all));
        assert!(observer.kinds().has(WatchKinds::CONNEVENTS));
        let arrival = LogEntry::Arrival { peer: None, connection: 7 };
        for entry in [deletion(b"k"), arrival] {
            observer.tell(&all, &counters, &entry, NOW);
        }
        let of_key = "ts=1700000100.500000 gid=1 type=deleted key=k cmd=delete clsid=1 size=2\n";
        let rest = |watcher: &Watcher| {
            let lines = std::iter::from_fn(|| watcher.pop(&counters));
            lines.map(|(_, line)| String::from_utf8(line.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(rest(&deletions), [of_key]);
        let lines = rest(&both);
        assert_eq!((lines.len(), lines[0].as_str()), (2, of_key));
        assert!(lines[1].contains(" gid=2 type=conn_new "));
        assert_eq!(registry.sum(Metric::LogBytes), 0);
        all.remove(&both, &counters);
        observer.tell(&all, &counters, &deletion(b"k"), NOW);
        assert!(!both.has_lines() && deletions.has_lines(), "who is gone is told nothing");
        all.remove(&deletions, &counters);
        assert!(observer.look(&all) && observer.kinds().is_empty());
        assert_eq!((all.count(), registry.sum(Metric::LogBytes)), (0, 0));
        assert_eq!(registry.sum(Metric::LogWorkerWritten), 3);
    }

    #[test]
    fn what_finds_no_room_is_skipped_and_counted() {
        let registry = Registry::default();
        let counters = registry.counters("one");
        let (all, mut observer) = (Watchers::default(), Observer::default());
        let wakes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&wakes);
        all.set_waker(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let watcher = all.add(WatchKinds::DELETIONS).unwrap();
        observer.look(&all);
        let key = [b'k'; 250];
        for _ in 0..3000 {
            observer.tell(&all, &counters, &deletion(&key), NOW);
        }
        assert_eq!(wakes.load(Ordering::Relaxed), 1, "when much waits, and not again");
        assert!(registry.sum(Metric::LogBytes) <= QUEUE_BYTES_MAX as u64);
        let skipped = registry.sum(Metric::LogWatcherSkipped);
        let lines = std::iter::from_fn(|| watcher.pop(&counters)).count() as u64;
        assert!(lines > 700, "{lines}");
        assert_eq!((lines + skipped, registry.sum(Metric::LogWorkerDropped)), (3000, skipped));
        for number in 0..3000u32 {
            observer.tell(&all, &counters, &deletion(&number.to_le_bytes()), NOW);
        }
        let told: Vec<_> =
            std::iter::from_fn(|| watcher.pop(&counters)).map(|each| each.0).collect();
        assert_eq!(
            (told[0], told.iter().sum::<u64>()),
            (skipped, skipped),
            "once, and in its place"
        );
        assert_eq!(registry.sum(Metric::LogWatcherSkipped), skipped + 3000 - 2048);
    }

    #[test]
    fn no_more_watch_than_may() {
        let registry = Registry::default();
        let (counters, all) = (registry.counters("one"), Watchers::default());
        let mut watchers: Vec<_> = std::iter::from_fn(|| all.add(WatchKinds::FETCHERS)).collect();
        assert_eq!(watchers.len(), WATCHERS_MAX);
        all.remove(&watchers.pop().unwrap(), &counters);
        assert!(all.add(WatchKinds::FETCHERS).is_some() && all.add(WatchKinds::FETCHERS).is_none());
    }
}
