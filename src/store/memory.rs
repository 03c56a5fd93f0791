//! Taking memory, and giving it back after its grace.

use std::time::Duration;

use super::Refusal;
use super::arena::{Reclaimable, Slot};
use super::limbo::Limbo;
use super::participant::Participant;
use crate::base::clock::{Now, Stopwatch};
use crate::base::sync::atomic::Ordering;

/// How long who needs memory waits for the others to quiesce. Only threads that hang, or test code
/// that forgets to quiesce, let it pass.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a thread that lost its core may take to quiesce. Who has found nothing to evict for so
/// long believes that all is being filled or sent, although others still retire a little.
const GRACE: Duration = Duration::from_millis(50);
/// So often it looks without giving its core away.
const SPINS: u32 = 64;
/// So often it finds nothing to evict before it believes that there is nothing.
const ATTEMPTS_IN_VAIN: u32 = 4;
/// Having waited so often in vain, it lets go of more.
const ROUNDS_PER_EVICTION: u32 = 512;
/// There are orphans, but all of them are being sent from.
const ORPHANS_PINNED: usize = 1;
/// There are orphans that grace sets free.
const ORPHANS_WAITING: usize = 2;

impl Participant {
    /// A slot of a class.
    pub(in crate::store) fn allocate(&mut self, class: u8, now: Now) -> Result<Slot, Refusal> {
        match self.take_slot(class) {
            Some((slot, 0)) => Ok(slot),
            Some((slot, missing)) => {
                // One in, one out: others are online, so what goes now is there only later.
                if !self.is_on_its_way(missing, class) {
                    self.evict_from(class, now);
                }
                Ok(slot)
            }
            None => self.allocate_slowly(class, now),
        }
    }

    /// True when what this thread has let go of, and waits for its grace, makes `slots` free slots.
    /// An item may be one slot, or thousands.
    fn is_on_its_way(&self, slots: u64, class: u8) -> bool {
        let slot_bytes = self.table.slabs.sizes().slot_bytes(class) as u64;
        self.limbo.borrow().bytes() >= slots * slot_bytes
    }

    /// A free slot, and how many more there should be.
    fn take_slot(&self, class: u8) -> Option<(Slot, u64)> {
        let slabs = &self.table.slabs;
        let mut guard = slabs.lock(&self.table.arena, class);
        if let Some(slot) = guard.take() {
            return Some((slot, guard.missing()));
        }
        guard.add_page(slabs.pages.take()?);
        guard.take().map(|slot| (slot, 0))
    }

    #[cold]
    fn allocate_slowly(&mut self, class: u8, now: Now) -> Result<Slot, Refusal> {
        let (mut wait, mut in_vain) = (Wait::begin(), 0);
        loop {
            let round = wait.round;
            self.quiesce();
            if let Some((slot, _)) = self.take_slot(class) {
                return Ok(slot);
            }
            // The first eviction is enough if nobody else is online; the second round is for a
            // class that must wait for others, and keeps more free from now on.
            let wanted = match round {
                0 => 1,
                1 => self.raise_reserve(class).max(1),
                round if round % ROUNDS_PER_EVICTION == 0 => 1,
                _ => 0,
            };
            let mut evicted = 0;
            while evicted < wanted
                && (evicted == 0 || !self.is_on_its_way(wanted, class))
                && self.make_room(class, now)
            {
                evicted += 1;
            }
            if wanted > 0 && evicted == 0 {
                in_vain += 1;
                // Others may be about to say what they retired: a table that evicts asks again.
                let is_enough = !self.table.evict || in_vain >= ATTEMPTS_IN_VAIN;
                if is_enough && (!self.is_anything_waiting() || wait.is_longer_than(GRACE)) {
                    return Err(Refusal::NoMemory);
                }
            }
            if !wait.go_on() {
                return Err(Refusal::NoMemory);
            }
        }
    }

    fn raise_reserve(&self, class: u8) -> u64 {
        self.table.slabs.lock(&self.table.arena, class).raise_reserve()
    }

    /// Lets a page become free for the index. False when that is not possible.
    pub(in crate::store) fn make_room_for_index(&mut self, now: Now) -> bool {
        let mut wait = Wait::begin();
        loop {
            self.quiesce();
            if self.table.slabs.pages.has_segment() {
                return true;
            }
            if wait.round.is_multiple_of(ROUNDS_PER_EVICTION)
                && !self.steal_page(None, now)
                && (!self.is_anything_waiting() || wait.is_longer_than(GRACE))
            {
                return false;
            }
            if !wait.go_on() {
                return false;
            }
        }
    }

    /// Takes a page out of the pool, letting go of items if it must.
    pub(in crate::store) fn take_page(&mut self, now: Now) -> Option<u32> {
        let mut wait = Wait::begin();
        loop {
            self.quiesce();
            if let Some(number) = self.table.slabs.pages.take() {
                return Some(number);
            }
            if wait.round.is_multiple_of(ROUNDS_PER_EVICTION)
                && !self.steal_page(None, now)
                && (!self.is_anything_waiting() || wait.is_longer_than(GRACE))
            {
                return None;
            }
            if !wait.go_on() {
                return None;
            }
        }
    }

    /// True when somebody's items wait for grace, so that waiting may help. What is being sent from
    /// may stay for as long as a peer does not read.
    fn is_anything_waiting(&mut self) -> bool {
        self.limbo.get_mut().is_waiting()
            || self.table.epochs.is_waiting()
            || self.table.orphaned.load(Ordering::Relaxed) == ORPHANS_WAITING
    }

    /// Frees what has had its grace.
    pub(in crate::store) fn reclaim(&mut self) {
        let horizon = self.table.epochs.horizon();
        self.reclaim_from(horizon, None);
        // Relaxed: a hint; the lock orders.
        if self.table.orphaned.load(Ordering::Relaxed) != 0 {
            let table = std::sync::Arc::clone(&self.table);
            let mut orphans = table.orphans.lock();
            self.reclaim_from(horizon, Some(&mut orphans));
            table.orphaned.store(orphaned(&orphans), Ordering::Relaxed);
        }
        self.publish_limbo_bytes();
    }

    fn reclaim_from(&mut self, horizon: u64, orphans: Option<&mut Limbo>) {
        let arena = &self.table.arena;
        let limbo = orphans.unwrap_or_else(|| self.limbo.get_mut());
        let free = |item: Reclaimable| {
            let class = self.table.slabs.class_of(item.head());
            self.table.slabs.lock(arena, class).put(item);
        };
        while let Some(item) = limbo.pop(arena, horizon) {
            free(item);
        }
        while let Some(item) = limbo.pop_unpinned(arena) {
            free(item);
        }
    }

    pub(in crate::store) fn publish_limbo_bytes(&mut self) {
        let limbo = self.limbo.get_mut();
        self.table.epochs.set_limbo(self.section.cell, limbo.bytes(), limbo.is_waiting());
    }
}

/// What `Table::orphaned` says of the orphans.
pub(in crate::store) fn orphaned(orphans: &Limbo) -> usize {
    match (orphans.is_waiting(), orphans.is_empty()) {
        (true, _) => ORPHANS_WAITING,
        (false, false) => ORPHANS_PINNED,
        (false, true) => 0,
    }
}

/// A wait for other threads, round by round.
struct Wait {
    round: u32,
    watch: Stopwatch,
}

impl Wait {
    fn begin() -> Wait {
        Wait { round: 0, watch: Stopwatch::start() }
    }

    fn is_longer_than(&self, limit: Duration) -> bool {
        self.watch.elapsed() > limit
    }

    /// Waits a little more. False when it has waited long enough.
    fn go_on(&mut self) -> bool {
        self.round = self.round.wrapping_add(1);
        if self.round < SPINS {
            std::hint::spin_loop();
            return true;
        }
        std::thread::yield_now();
        !self.round.is_multiple_of(SPINS) || !self.is_longer_than(PATIENCE)
    }
}
