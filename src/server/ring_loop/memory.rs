//! Memory of connections: what is lent to the ring for replies, who waits for some; and how much of
//! the heap is taken for what came in.
//!
//! A ring borrows before it runs out, never waits for a loan, and returns what a whole second has
//! not needed. Where nothing more is lent, connections wait in a queue for blocks to come home.
//! Only then the kernel is asked who has read what it was sent.

use crate::base::metrics::Metric;
use crate::base::slots::SlotId;
use crate::net::connection::{Connection, Held};
use crate::net::throttle::Level;
use crate::server::service::Service;
use crate::sys::blocks::{BLOCK_BYTES, BLOCKS_AHEAD, OWN_BLOCKS};
use crate::sys::ring::Ring;

use super::RingLoop;
use super::thirst::Appetite;

/// Free blocks with which a batch gets anywhere: a worker stops before it has less than
/// `BLOCKS_AHEAD`.
pub(super) const BLOCKS_NEEDED: usize = BLOCKS_AHEAD + 1;

/// Blocks that are kept for the modest, see `thirst`.
pub(super) const BLOCKS_KEPT: usize = 6;

/// The ring borrows when it has fewer free blocks than this.
const BLOCKS_LOW: usize = BLOCKS_KEPT + BLOCKS_NEEDED;

/// This part of the memory for connections is not lent for replies, and so much more may be taken
/// before nobody is let in.
pub(super) const PLACES_SHARE: usize = 16;

/// Bytes of a place of a connection beside the connection itself: its generation, its part of the
/// queues, a message that gathers, and a place in the census.
pub(in crate::server) const PLACE_BYTES: usize = 512 + 64;

/// Most of those who wait for blocks whom one tick asks again whether their peers have read.
pub(super) const ASKED_PER_TICK: usize = 1024;

/// A change of the heap by so many bytes is told at once; smaller ones are found in time.
const TOLD_BYTES: u64 = 256 << 10;

/// Bytes of the heap that connections take.
#[derive(Debug, Default)]
pub(super) struct Heap {
    bytes: usize,
    /// How many of them hold something: replies, or requests that wait.
    active: usize,
    /// What was told last, places included.
    told: u64,
}

impl Heap {
    /// Takes notice of what a connection takes now.
    pub(super) fn charge<S>(&mut self, connection: &mut Connection<S>) {
        let (before, now) = connection.charge();
        self.bytes = self.bytes - before as usize + now as usize;
        let holds = connection.held_bytes() > 0;
        let held = std::mem::replace(&mut connection.counted, holds);
        self.active = self.active + usize::from(holds) - usize::from(held);
    }

    pub(super) fn active(&self) -> usize {
        self.active
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn discharge<S>(&mut self, connection: &Connection<S>) {
        self.bytes -= connection.charged as usize;
        self.active -= usize::from(connection.counted);
    }
}

impl Appetite {
    fn blocks_needed(self) -> usize {
        match self {
            Appetite::Modest => BLOCKS_NEEDED,
            Appetite::Large => BLOCKS_KEPT + BLOCKS_NEEDED,
        }
    }
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Borrows where there are less than so many free blocks, while there is something to lend.
    #[inline]
    pub(super) fn borrow_blocks(&mut self, low: usize) {
        while self.may_borrow && self.ring.blocks().free() < low {
            // What is left is for the places of who comes.
            if self.service.lendable_bytes() <= self.service.pool_bytes() / PLACES_SHARE {
                self.may_borrow = false;
                return;
            }
            match self.service.lend() {
                Some(loan) => self.ring.blocks().adopt(loan),
                None => self.may_borrow = false,
            }
        }
    }

    /// True when there are blocks for replies of a connection; borrows where they are few.
    pub(super) fn has_blocks(&mut self, appetite: Appetite) -> bool {
        self.borrow_blocks(BLOCKS_LOW);
        self.ring.blocks().free() >= appetite.blocks_needed()
    }

    /// True when there are blocks for whoever asks.
    pub(super) fn has_blocks_for_all(&mut self) -> bool {
        self.has_blocks(Appetite::Large)
    }

    /// True when a connection may write replies now, in its turn; otherwise it stands in a queue.
    #[inline]
    pub(super) fn may_write(&mut self, id: SlotId) -> bool {
        if self.thirsty.is_empty() && self.has_blocks_for_all() {
            return true;
        }
        let appetite = self.appetite(id);
        let may_write = !self.thirsty.is_before(appetite) && self.has_blocks(appetite);
        if !may_write {
            self.thirst(id, appetite);
        }
        may_write
    }

    /// What a connection will take. Where there are blocks for all, nobody need be asked whether it
    /// has read what it was sent.
    pub(super) fn appetite(&mut self, id: SlotId) -> Appetite {
        let is_short = !self.has_blocks_for_all();
        let Some(connection) = self.connections.get(id) else { return Appetite::Large };
        let output = &connection.output;
        let is_modest = output.blocks() == 0
            && output.unsent_bytes() == 0
            && match is_short {
                true => self.ring.untaken_bytes(&connection.socket) == 0,
                false => !self.service.is_amid_reply(&connection.session),
            };
        if is_modest { Appetite::Modest } else { Appetite::Large }
    }

    /// Looks whether peers have read meanwhile what kept their connections from being modest.
    pub(super) fn ask_the_thirsty_again(&mut self) {
        if self.has_blocks_for_all() {
            return;
        }
        let mut thirsty = std::mem::take(&mut self.thirsty);
        thirsty.look_again(ASKED_PER_TICK, |id| self.appetite(id));
        self.thirsty = thirsty;
    }

    /// Unsent bytes from which on a connection with so many of them must stop writing: one that may
    /// take the last blocks writes one reply, and no other takes those.
    pub(super) fn output_limit(&mut self, unsent_bytes: usize) -> usize {
        let free = self.ring.blocks().free();
        match free.checked_sub(BLOCKS_KEPT + BLOCKS_NEEDED) {
            Some(more) => {
                let room = (more + 1) * BLOCK_BYTES;
                self.upkeep.output_bytes.min(unsent_bytes + room)
            }
            None => 1,
        }
    }

    /// Puts a connection at the end of a queue for memory. One whose peer has something to read
    /// stands in none: it is looked at again when a part of that is read.
    pub(super) fn thirst(&mut self, id: SlotId, appetite: Appetite) {
        self.counters.bump(Metric::ReplyWaits);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.output.unsent_bytes() > 0 {
            connection.held = Held::Output;
            return;
        }
        connection.held = Held::Memory;
        self.thirsty.push(id, appetite);
    }

    /// Who is next of those who wait for memory, if there is some for it now.
    pub(super) fn next_thirsty(&mut self) -> Option<SlotId> {
        for appetite in [Appetite::Modest, Appetite::Large] {
            while self.thirsty.is_before(appetite) && self.has_blocks(appetite) {
                let Some(id) = self.thirsty.pop(appetite) else { break };
                let Some(connection) = self.connections.get_mut(id) else { continue };
                connection.held = Held::No;
                if connection.can_execute() {
                    return Some(id);
                }
            }
        }
        None
    }

    /// Bytes of the heap that this ring may still take for what waits.
    pub(super) fn input_room(&mut self) -> usize {
        (self.pool().bytes / self.settings.rings).saturating_sub(self.heap.bytes)
    }

    pub(super) fn return_idle_loans(&mut self) {
        let (blocks, service) = (self.ring.blocks(), &mut self.service);
        // What is kept is not idle: who holds much would have it, if it went and came back.
        blocks.trim(BLOCKS_LOW).for_each(|loan| service.take_back(loan));
    }

    /// Gives the places back that a crowd has left.
    pub(super) fn return_places(&mut self) {
        let before = self.connections.places();
        self.connections.shrink();
        if self.connections.places() < before {
            self.roll.shrink(self.connections.places());
        }
    }

    /// Returns everything that is lent; no block may be in use.
    pub(super) fn return_loans(&mut self) {
        // The first look may remember what was needed a moment ago.
        self.return_idle_loans();
        self.return_idle_loans();
    }

    pub(super) fn publish_memory(&mut self) {
        let places = self.connections.places() * PLACE_BYTES
            + self.connections.places() * size_of::<Connection<V::Session>>();
        let heap = (self.heap.bytes + places) as u64;
        self.counters.set(Metric::InputBytes, self.heap.bytes as u64);
        self.counters.set(Metric::ConnBytes, places as u64);
        if heap.abs_diff(self.heap.told) > TOLD_BYTES {
            self.heap.told = heap;
            self.service.heap_has_changed();
        }
        let level = match self.upkeep.level {
            Level::Calm => 0,
            Level::Short => 1,
            Level::Dire => 2,
        };
        self.counters.set(Metric::ThrottleLevel, level);
        self.counters.set(Metric::ThrottleActive, self.heap.active as u64);
        let blocks = self.ring.blocks();
        let bytes = blocks.lent_bytes() + OWN_BLOCKS * BLOCK_BYTES;
        let used = blocks.used_bytes() / BLOCK_BYTES;
        self.counters.set(Metric::ResponseObjBytes, bytes as u64);
        self.counters.set(Metric::ResponseObjCount, used as u64);
    }
}
