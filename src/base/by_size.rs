//! Counters by the size of the item: one row for each size class, one writer for each row.
//!
//! ```text
//!   hits   class 0: | log, by heat | main, by heat |  cells  class 0: | what came and went | ...
//!          class 1:   one cache line                         class 1:   one cache line
//! ```
//!
//! What is counted here by class is the whole of it: some metrics are sums of these cells, see
//! `PARTS`, so that a total is never anything but the sum of its classes.

use super::metrics::{Kind, Metric};
use super::sync::atomic::{AtomicU64, Ordering};

/// More size classes than any store has.
pub const SIZE_CLASSES_MAX: usize = 128;

/// A model has no more atomics than it needs: all classes are one.
const ROWS: usize = if cfg!(loom) { 1 } else { SIZE_CLASSES_MAX };

/// Cells for gets that found an item: by its heat, which is below 4, in the log and then elsewhere.
const HIT_CELLS: usize = 8;

/// As `ROWS`; it takes no step to know that a class has a row here.
const HIT_ROWS: usize = if cfg!(loom) { 1 } else { 256 };

/// Items of about the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SizeClass(u8);

impl SizeClass {
    /// # Panics
    /// If there is no class of that number.
    pub const fn new(number: u8) -> SizeClass {
        assert!((number as usize) < SIZE_CLASSES_MAX);
        SizeClass(number)
    }

    pub const fn to_u8(self) -> u8 {
        self.0
    }

    pub const fn number(self) -> usize {
        self.0 as usize
    }

    /// All that there may be.
    pub fn all() -> impl Iterator<Item = SizeClass> {
        (0..).take(SIZE_CLASSES_MAX).map(SizeClass)
    }
}

macro_rules! of_size {
    ($($(#[$doc:meta])* $variant:ident $kind:ident,)+) => {
        /// What is counted by size class.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum OfSize { $($(#[$doc])* $variant,)+ }

        impl OfSize {
            pub const ALL: &[OfSize] = &[$(OfSize::$variant,)+];

            pub const fn kind(self) -> Kind {
                match self { $(OfSize::$variant => Kind::$kind,)+ }
            }
        }
    };
}

of_size! {
    /// Items that were stored at once by a storage command.
    Put Counter,
    /// Header, key and value of all items.
    Bytes Gauge,
    /// Items in the log, and in classes of slots.
    InLog Gauge,
    InMain Gauge,
    /// Items that were stored in another way.
    Stored Counter,
    /// Other storage commands, by the size of what was to be stored.
    CmdSet Counter,
    /// Items in classes of slots that are not cold.
    Warm Gauge,
    /// Items that were copied from the log to a class of slots.
    Promoted Counter,

    DeleteHits Counter,
    IncrHits Counter,
    DecrHits Counter,
    CasHits Counter,
    CasBadval Counter,
    TouchHits Counter,
    /// Items that cooled down to the last degree, and by one degree short of that.
    Cooled Counter,
    CooledALittle Counter,

    /// Items in classes of slots that were cold, and were asked for.
    Warmed Counter,
    /// Items that were copied to where their like is: to the end of the log, or within their class.
    Kept Counter,
    Evicted Counter,
    /// Those of them that would have expired.
    EvictedNonzero Counter,
    EvictedUnfetched Counter,
    /// Those of them that were not cold.
    EvictedActive Counter,
    ExpiredUnfetched Counter,
    /// Dead items that were found when room was needed.
    Reclaimed Counter,
    /// Dead items that the sweep has found, and slots that it has looked at.
    CrawlerReclaimed Counter,

    CrawlerItemsChecked Counter,
    /// Times that memory for an item was not there, and room had to be made first.
    DirectReclaims Counter,
    OutOfMemory Counter,
    /// Items that could not go because they were being sent.
    Pinned Counter,
    /// When an item was evicted last, in ticks, and for how many seconds it had not been asked for.
    EvictedAt Level,
    EvictedAge Level,
    /// Gets that found an item in the log, and in a class of slots, cold or warm.
    HitsLog Counter,
    HitsCold Counter,
    HitsWarm Counter,
}

const CELLS: usize = OfSize::ALL.len();
/// Cells of a row, in whole cache lines.
const ROW_CELLS: usize = CELLS.next_multiple_of(8);

#[derive(Debug)]
#[repr(align(64))]
struct Row([AtomicU64; ROW_CELLS]);

/// The counters by size of one thread.
#[derive(Debug)]
pub(super) struct BySize {
    rows: Box<[Row; ROWS]>,
    hits: Hits,
}

/// Not boxed: it takes no more steps than must be to count here.
#[derive(Debug)]
#[repr(align(64))]
struct Hits([AtomicU64; HIT_ROWS * HIT_CELLS]);

impl Default for BySize {
    fn default() -> BySize {
        let row = |_| Row(std::array::from_fn(|_| AtomicU64::new(0)));
        let rows: Box<[Row]> = (0..ROWS).map(row).collect();
        let rows = rows.try_into().unwrap_or_else(|_| unreachable!("as many as were made"));
        BySize { rows, hits: Hits(std::array::from_fn(|_| AtomicU64::new(0))) }
    }
}

/// Adds to a cell of this thread.
#[inline(always)]
fn add(cell: &AtomicU64, amount: u64) {
    // Relaxed, and no read-modify-write: there is one writer, and readers want no order.
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

impl BySize {
    #[inline(always)]
    fn cell(&self, class: SizeClass, what: OfSize) -> &AtomicU64 {
        // The remainder is what it was; that there is no row beyond need not be asked.
        &self.rows[class.number() % ROWS].0[what as usize]
    }

    #[inline(always)]
    pub(super) fn add(&self, class: SizeClass, what: OfSize, amount: u64) {
        add(self.cell(class, what), amount);
    }

    /// Counts a get that found an item.
    #[inline(always)]
    pub(super) fn count_hit(&self, class: SizeClass, warmth: usize) {
        // The remainders are what they were, and there are as many rows as a byte can name.
        add(&self.hits.0[class.number() % HIT_ROWS * HIT_CELLS + warmth % HIT_CELLS], 1);
    }

    pub(super) fn set(&self, class: SizeClass, what: OfSize, amount: u64) {
        self.cell(class, what).store(amount, Ordering::Relaxed);
    }

    fn get(&self, class: SizeClass, what: OfSize) -> u64 {
        let half = HIT_CELLS / 2;
        let parts = [
            (OfSize::HitsLog, 0..half),
            (OfSize::HitsCold, half..half + 1),
            (OfSize::HitsWarm, half + 1..HIT_CELLS),
        ];
        let Some((_, cells)) = parts.into_iter().find(|part| part.0 == what) else {
            return self.cell(class, what).load(Ordering::Relaxed);
        };
        let row = class.number() % ROWS * HIT_CELLS;
        let hits = cells.map(|cell| self.hits.0[row + cell].load(Ordering::Relaxed));
        hits.fold(0, u64::wrapping_add)
    }

    /// What there is of one class.
    pub(super) fn of(&self, class: SizeClass) -> Sizes {
        Sizes(std::array::from_fn(|cell| self.get(class, OfSize::ALL[cell])))
    }

    /// The part of a metric that is counted here, of all classes.
    pub(super) fn part(&self, metric: Metric) -> u64 {
        let Some((_, cells)) = PARTS.iter().find(|part| part.0 == metric) else { return 0 };
        let of_cell = |what: &OfSize| {
            let rows = SizeClass::all().take(ROWS);
            rows.map(|class| self.get(class, *what)).fold(0, u64::wrapping_add)
        };
        cells.iter().map(of_cell).fold(0, u64::wrapping_add)
    }
}

/// The figures of one class: of a thread, or of several together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes([u64; CELLS]);

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes([0; CELLS])
    }
}

impl Sizes {
    pub fn get(&self, what: OfSize) -> u64 {
        self.0[what as usize]
    }

    /// The sum of some of them.
    pub fn sum(&self, cells: &[OfSize]) -> u64 {
        cells.iter().map(|what| self.get(*what)).fold(0, u64::wrapping_add)
    }

    /// Takes off what counters stood at in the past.
    pub fn since(mut self, past: &Sizes) -> Sizes {
        let is_new = self.get(OfSize::EvictedAt) != past.get(OfSize::EvictedAt);
        for what in OfSize::ALL {
            let cell = &mut self.0[*what as usize];
            match what.kind() {
                Kind::Counter => *cell = cell.wrapping_sub(past.get(*what)),
                Kind::Level if !is_new => *cell = 0,
                Kind::Gauge | Kind::Level => {}
            }
        }
        self
    }

    /// Adds the figures of another thread. Of the last eviction the later one counts.
    pub fn add(&mut self, other: &Sizes) {
        let is_later = other.get(OfSize::EvictedAt) > self.get(OfSize::EvictedAt);
        for what in OfSize::ALL {
            let (cell, theirs) = (&mut self.0[*what as usize], other.get(*what));
            match what.kind() {
                Kind::Level if is_later => *cell = theirs,
                Kind::Level => {}
                Kind::Counter | Kind::Gauge => *cell = cell.wrapping_add(theirs),
            }
        }
    }

    /// As it can be shown. Of an item that came by one thread and left by another only the end may
    /// have been seen: less than nothing is nothing.
    pub fn settled(mut self) -> Sizes {
        for what in OfSize::ALL.iter().filter(|what| what.kind() == Kind::Gauge) {
            let cell = &mut self.0[*what as usize];
            *cell = i64::try_from(*cell).map_or(0, i64::unsigned_abs);
        }
        self
    }

    /// True when nothing has been counted.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|cell| *cell == 0)
    }
}

/// A metric, and the cells of which it is the sum.
type Part = (Metric, &'static [OfSize]);

const PARTS: &[Part] = {
    use OfSize as Of;
    &[
        (Metric::GetHits, &[Of::HitsLog, Of::HitsCold, Of::HitsWarm]),
        (Metric::TotalItems, &[Of::Put, Of::Stored]),
        (Metric::CurrItems, &[Of::InLog, Of::InMain]),
        (Metric::CmdSet, &[Of::CmdSet, Of::Put]),
        (Metric::Bytes, &[Of::Bytes]),
        (Metric::Promoted, &[Of::Promoted]),
        (Metric::DeleteHits, &[Of::DeleteHits]),
        (Metric::IncrHits, &[Of::IncrHits]),
        (Metric::DecrHits, &[Of::DecrHits]),
        (Metric::CasHits, &[Of::CasHits]),
        (Metric::CasBadval, &[Of::CasBadval]),
        (Metric::TouchHits, &[Of::TouchHits]),
        (Metric::Evictions, &[Of::Evicted]),
        (Metric::EvictedActive, &[Of::EvictedActive]),
        (Metric::EvictedUnfetched, &[Of::EvictedUnfetched]),
        (Metric::ExpiredUnfetched, &[Of::ExpiredUnfetched]),
        (Metric::Reclaimed, &[Of::Reclaimed]),
        (Metric::CrawlerReclaimed, &[Of::CrawlerReclaimed]),
        (Metric::CrawlerItemsChecked, &[Of::CrawlerItemsChecked]),
        (Metric::MovesToCold, &[Of::Promoted, Of::Cooled]),
        (Metric::MovesToWarm, &[Of::Warmed]),
        (Metric::MovesWithinLru, &[Of::CooledALittle, Of::Kept]),
        (Metric::DirectReclaims, &[Of::DirectReclaims]),
        (Metric::LrutailReflocked, &[Of::Pinned]),
    ]
};

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SMALL: SizeClass = SizeClass::new(3);
    const LARGE: SizeClass = SizeClass::new(127);

    #[test]
    fn a_metric_is_the_sum_of_its_classes() {
        let sizes = BySize::default();
        [5, 7, 4].into_iter().for_each(|warmth| sizes.count_hit(SMALL, warmth));
        sizes.count_hit(LARGE, 3);
        sizes.add(LARGE, OfSize::InLog, 7);
        sizes.add(LARGE, OfSize::InLog, 2u64.wrapping_neg());
        sizes.add(SMALL, OfSize::InMain, 1);
        sizes.add(SMALL, OfSize::Put, 4);
        sizes.add(LARGE, OfSize::Stored, 3);
        sizes.add(LARGE, OfSize::CmdSet, 5);
        assert_eq!(sizes.part(Metric::GetHits), 4);
        assert_eq!(sizes.part(Metric::CurrItems), 6);
        assert_eq!(sizes.part(Metric::TotalItems), 7);
        assert_eq!(sizes.part(Metric::CmdSet), 9);
        assert_eq!(sizes.part(Metric::GetMisses), 0);
        let (small, large) = (sizes.of(SMALL), sizes.of(LARGE));
        let hits = [OfSize::HitsLog, OfSize::HitsCold, OfSize::HitsWarm];
        assert_eq!(hits.map(|what| small.get(what)), [0, 1, 2]);
        assert_eq!(large.sum(&hits), 1);
        assert_eq!((large.get(OfSize::InLog), small.get(OfSize::InMain)), (5, 1));
        assert!(sizes.of(SizeClass::new(0)).is_empty() && !small.is_empty());
    }

    #[test]
    fn threads_add_up_and_the_last_eviction_counts() {
        let (one, two) = (BySize::default(), BySize::default());
        for (thread, at, age) in [(&one, 50, 9), (&two, 40, 1)] {
            thread.add(SMALL, OfSize::Evicted, 1);
            thread.set(SMALL, OfSize::EvictedAt, at);
            thread.set(SMALL, OfSize::EvictedAge, age);
        }
        for order in [[&one, &two], [&two, &one]] {
            let mut sum = Sizes::default();
            order.iter().for_each(|thread| sum.add(&thread.of(SMALL)));
            assert_eq!((sum.get(OfSize::Evicted), sum.get(OfSize::EvictedAge)), (2, 9));
        }
        let past = one.of(SMALL);
        one.add(SMALL, OfSize::Bytes, 5);
        let since = one.of(SMALL).since(&past);
        assert_eq!((since.get(OfSize::Evicted), since.get(OfSize::EvictedAge)), (0, 0));
        assert_eq!(since.get(OfSize::Bytes), 5);
    }

    #[test]
    fn there_are_never_less_than_none() {
        let (one, two) = (BySize::default(), BySize::default());
        one.add(SMALL, OfSize::InLog, 1u64.wrapping_neg());
        one.add(SMALL, OfSize::Put, 3);
        two.add(SMALL, OfSize::InLog, 3);
        let mut sum = one.of(SMALL);
        let seen = sum.settled();
        assert_eq!((seen.get(OfSize::InLog), seen.get(OfSize::Put)), (0, 3));
        sum.add(&two.of(SMALL));
        assert_eq!(sum.settled().get(OfSize::InLog), 2);
    }

    #[test]
    fn items_that_are_there_outlive_a_reset() {
        let one = BySize::default();
        one.add(SMALL, OfSize::InLog, 3);
        let mut since = one.of(SMALL).since(&one.of(SMALL));
        one.add(SMALL, OfSize::InLog, 1);
        assert_eq!(since.get(OfSize::InLog), 3);
        since = one.of(SMALL).since(&since);
        assert_eq!(since.get(OfSize::InLog), 4);
    }
}
