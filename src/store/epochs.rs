//! Grace periods, by quiescent states.
//!
//! Every executing thread has a cell in which it announces the epoch it last saw while it looked at
//! no item. Who took something out of the index advances the epoch; when every thread that is
//! online has announced that epoch or a later one, nobody can know the thing any more.
//!
//! ```text
//!   writer:   unlink, advance to 8 .......... 8 <= horizon: free
//!   reader:   7 ....... reads ....... quiesce: 8
//!   idle:     offline: counts as having announced everything
//! ```

use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

/// What stands in the cell of a thread that looks at nothing.
const OFFLINE: u64 = u64::MAX;

/// Keeps its content out of other's cache lines, and of the line that is prefetched with them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

#[derive(Debug)]
struct Cell {
    announced: AtomicU64,
    /// For the figures: bytes of retired items that this thread keeps.
    limbo_bytes: AtomicU64,
    /// Of them, those that only pins keep.
    pinned_bytes: AtomicU64,
    /// True when grace alone keeps some of them.
    is_waiting: AtomicBool,
    /// Up to this tick the thread probably waits for memory.
    thirsty_until: AtomicU64,
}

#[derive(Debug)]
pub struct Epochs {
    now: Padded<AtomicU64>,
    cells: Box<[Padded<Cell>]>,
    /// One more than the highest cell that was ever taken.
    taken: AtomicUsize,
    vacant: Mutex<Vec<usize>>,
}

impl Epochs {
    pub fn new(threads_max: usize) -> Epochs {
        let cell = || Cell {
            announced: AtomicU64::new(OFFLINE),
            limbo_bytes: AtomicU64::new(0),
            pinned_bytes: AtomicU64::new(0),
            is_waiting: AtomicBool::new(false),
            thirsty_until: AtomicU64::new(0),
        };
        Epochs {
            now: Padded(AtomicU64::new(1)),
            cells: (0..threads_max).map(|_| Padded(cell())).collect(),
            taken: AtomicUsize::new(0),
            vacant: Mutex::new((0..threads_max).rev().collect()),
        }
    }

    /// A cell for a thread, which is offline.
    ///
    /// # Panics
    /// If there are more threads than were planned for.
    pub fn join(&self) -> usize {
        let cell = self.vacant.lock().pop().expect("as many participants as were planned");
        // SeqCst: comes before the fence of `online`, as the announcement does.
        self.taken.fetch_max(cell + 1, Ordering::SeqCst);
        cell
    }

    /// Gives a cell back; its thread is offline.
    pub fn leave(&self, cell: usize) {
        self.offline(cell);
        self.set_limbo(cell, (0, 0), false);
        self.set_thirst(cell, 0);
        self.vacant.lock().push(cell);
    }

    /// From now on the thread may look at items.
    pub fn online(&self, cell: usize) {
        self.quiesce(cell);
        // Pairs with the fence in `horizon`: either they see us here, or we see what they unlinked.
        fence(Ordering::SeqCst);
    }

    /// The thread looks at nothing, until it is online again.
    pub fn offline(&self, cell: usize) {
        // Release: our last look comes before the memory is used again.
        self.cells[cell].0.announced.store(OFFLINE, Ordering::Release);
    }

    /// The thread looks at nothing at this moment.
    #[inline]
    pub fn quiesce(&self, cell: usize) {
        // Acquire: pairs with `advance`; what was unlinked before that epoch we shall not find.
        let now = self.now.0.load(Ordering::Acquire);
        // Release: our last look comes before the memory is used again.
        self.cells[cell].0.announced.store(now, Ordering::Release);
    }

    /// Ends an epoch. What was unlinked before this call may be freed at the returned horizon.
    pub fn advance(&self) -> u64 {
        // AcqRel: a release sequence, so that who reads this epoch or a later one sees our unlinks.
        self.now.0.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The latest epoch that all threads that are online have announced.
    pub fn horizon(&self) -> u64 {
        // Pairs with the fence in `online`: whose cell is not among these sees what was unlinked.
        fence(Ordering::SeqCst);
        let taken = self.taken.load(Ordering::Acquire);
        // Acquire: pairs with the Release of `quiesce` and `offline`.
        let announced = |cell: &Padded<Cell>| cell.0.announced.load(Ordering::Acquire);
        self.cells[..taken].iter().map(announced).min().unwrap_or(OFFLINE)
    }

    /// Bytes of retired items that a thread keeps, of which pins alone keep so many.
    pub fn set_limbo(&self, cell: usize, (bytes, pinned): (u64, u64), is_waiting: bool) {
        let cell = &self.cells[cell].0;
        // Relaxed: figures and hints.
        cell.limbo_bytes.store(bytes, Ordering::Relaxed);
        cell.pinned_bytes.store(pinned, Ordering::Relaxed);
        cell.is_waiting.store(is_waiting, Ordering::Relaxed);
    }

    /// True when some thread keeps what grace alone will set free.
    pub fn is_waiting(&self) -> bool {
        self.cells.iter().any(|cell| cell.0.is_waiting.load(Ordering::Relaxed))
    }

    /// Bytes of retired items that wait for grace, in all threads.
    pub fn limbo_bytes(&self) -> u64 {
        self.cells.iter().map(|cell| cell.0.limbo_bytes.load(Ordering::Relaxed)).sum()
    }

    /// Bytes of retired items that only pins keep, in all threads.
    pub fn pinned_bytes(&self) -> u64 {
        self.cells.iter().map(|cell| cell.0.pinned_bytes.load(Ordering::Relaxed)).sum()
    }

    /// The thread waits for memory, at most up to this tick; 0 when it does not.
    pub fn set_thirst(&self, cell: usize, until: u64) {
        // Relaxed: a hint.
        self.cells[cell].0.thirsty_until.store(until, Ordering::Relaxed);
    }

    /// How many other threads wait for memory.
    pub fn thirsty_beside(&self, own: usize, ticks: u64) -> usize {
        let waits = |cell: &Padded<Cell>| cell.0.thirsty_until.load(Ordering::Relaxed) > ticks;
        self.cells.iter().enumerate().filter(|(cell, each)| *cell != own && waits(each)).count()
    }

    /// Bytes that this structure takes.
    pub fn bytes(&self) -> usize {
        self.cells.len() * (size_of::<Padded<Cell>>() + size_of::<usize>())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn grace_ends_when_everybody_online_has_quiesced() {
        let epochs = Epochs::new(3);
        let (one, two) = (epochs.join(), epochs.join());
        epochs.online(one);
        epochs.online(two);
        let tag = epochs.advance();
        assert!(epochs.horizon() < tag);
        epochs.quiesce(one);
        assert!(epochs.horizon() < tag);
        epochs.quiesce(two);
        assert!(epochs.horizon() >= tag);
    }

    #[test]
    fn who_is_offline_holds_nobody_up() {
        let epochs = Epochs::new(2);
        let (one, two) = (epochs.join(), epochs.join());
        epochs.online(one);
        epochs.online(two);
        let tag = epochs.advance();
        epochs.quiesce(one);
        epochs.offline(two);
        assert!(epochs.horizon() >= tag);
        epochs.online(two);
        assert!(epochs.horizon() >= tag, "it came back after the epoch had ended");
        epochs.leave(two);
        assert_eq!(epochs.join(), two);
    }
}
