//! The thread for upkeep: what must be done from time to time, and that nobody should wait for.
//!
//! It makes huge pages of the arena ahead of its use, sweeps out what has expired, empties pages
//! that leave their classes, and gives back what the index does not need any more. It takes turns
//! and rests in between, looks at the table as any other thread does, and says in the counters how
//! much time it took.

use std::io;
use std::time::Duration;

use crate::base::clock::{Clock, Now, Stopwatch};
use crate::base::metrics::{Counters, Metric};
use crate::base::sync::Arc;
use crate::command::EvictionLog;
use crate::store::{Participant, Sweep, Table};

/// How long it rests between two turns: the sweep sees every page in 400 of them.
const REST: Duration = Duration::from_millis(100);

/// How often it looks after huge pages while it rests and memory fills up. It makes one at a time:
/// a thread that shares its core waits for no more than that, and 500 a second are a gigabyte.
const NAPS: u32 = 50;
/// Steps of the index's upkeep in a turn: it gives back up to so many segments.
const INDEX_STEPS: u32 = 256;
/// Segments that one of them looks at, at most.
const SEGMENTS_PER_STEP: u32 = 256;

/// Begins the upkeep of a table, for as long as the process lives.
///
/// # Errors
/// When there can be no more threads.
pub fn begin(
    table: &Arc<Table>,
    counters: Arc<Counters>,
    mut evictions: EvictionLog,
    clock: &Clock,
) -> io::Result<()> {
    let (mut upkeep, clock) = (Upkeep::new(table, counters), clock.clone());
    let run = move || {
        loop {
            upkeep.turn(clock.now());
            evictions.tell(&mut upkeep.participant, clock.now());
            upkeep.rest();
        }
    };
    std::thread::Builder::new().name("upkeep".into()).spawn(run).map(|_| ())
}

/// What the thread does, for who has a thread already.
#[derive(Debug)]
pub struct Upkeep {
    table: Arc<Table>,
    counters: Arc<Counters>,
    participant: Participant,
    sweep: Sweep,
    /// False once the kernel has said that it makes no huge pages.
    makes_huge_pages: bool,
    /// True when huge pages were made in the last turn or since.
    is_filling: bool,
}

impl Upkeep {
    pub fn new(table: &Arc<Table>, counters: Arc<Counters>) -> Upkeep {
        let mut participant = table.participant(Arc::clone(&counters));
        participant.offline();
        let (table, sweep) = (Arc::clone(table), Sweep::new());
        Upkeep { table, counters, participant, sweep, makes_huge_pages: true, is_filling: false }
    }

    /// One turn; ten of them a second are right.
    pub fn turn(&mut self, now: Now) {
        let watch = Stopwatch::start();
        self.make_huge_page();
        self.participant.online();
        self.participant.sweep(&mut self.sweep, now);
        self.participant.go_on_emptying(now);
        // Not more often than others may take the locks of the stripes in between.
        for _ in 0..INDEX_STEPS {
            if !self.participant.tend_index(SEGMENTS_PER_STEP) {
                break;
            }
        }
        self.participant.offline();
        let took = u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.add(Metric::UpkeepUs, took);
    }

    /// Rests until the next turn, and makes huge pages in between, while memory fills up.
    pub fn rest(&mut self) {
        if !std::mem::take(&mut self.is_filling) {
            return std::thread::park_timeout(REST);
        }
        for _ in 0..NAPS {
            std::thread::park_timeout(REST / NAPS);
            self.make_huge_page();
        }
    }

    /// Makes the next huge page, if one is due.
    fn make_huge_page(&mut self) {
        if !self.makes_huge_pages {
            return;
        }
        match self.table.make_huge_page() {
            Ok(made) => self.is_filling |= made,
            Err(error) => self.makes_huge_pages = error.kind() != io::ErrorKind::InvalidInput,
        }
    }
}
