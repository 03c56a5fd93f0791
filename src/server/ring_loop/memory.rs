//! Memory of connections: what is lent to the ring for replies, who waits for some, who must go for
//! others; and how much of the heap is taken for what came in.
//!
//! A ring borrows before it runs out, never waits for a loan, and returns what a whole second has
//! not needed. Where nothing more is lent, connections wait in a queue for blocks to come home;
//! when that takes long, who holds the most and does not read is closed.

use std::cmp::Reverse;

use crate::base::metrics::Metric;
use crate::base::slots::SlotId;
use crate::net::connection::{BACKLOG_BYTES_MAX, BACKLOG_BYTES_MIN, Connection, Event, Held};
use crate::server::service::Service;
use crate::sys::blocks::{BLOCK_BYTES, BLOCKS_AHEAD, OWN_BLOCKS};
use crate::sys::ring::Ring;

use super::RingLoop;
use super::execution::SPARE_BLOCKS;
use super::upkeep::{LOOKS_PER_TICK, OUTPUT_BYTES_MAX};

/// Free blocks with which a batch gets anywhere: a worker stops before it has less than
/// `BLOCKS_AHEAD`.
pub(super) const BLOCKS_NEEDED: usize = BLOCKS_AHEAD + 1;

/// The ring borrows when it has fewer free blocks than this.
const BLOCKS_LOW: usize = SPARE_BLOCKS;

/// While others wait for memory, who has not read for this time may be closed.
const PATIENCE_S: u32 = 2;

/// Bytes of a place of a connection beside the connection itself: its generation, its part of the
/// queues, and a message that gathers.
const PLACE_BYTES: usize = 512;

/// A change of the heap by so many bytes is told at once; smaller ones are found in time.
const TOLD_BYTES: u64 = 256 << 10;

/// Bytes of the heap that connections take.
#[derive(Debug, Default)]
pub(super) struct Heap {
    bytes: usize,
    /// What was told last, places included.
    told: u64,
}

impl Heap {
    /// Takes notice of what a connection takes now.
    pub(super) fn charge<S>(&mut self, connection: &mut Connection<S>) {
        let (before, now) = connection.charge();
        self.bytes = self.bytes - before as usize + now as usize;
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn discharge<S>(&mut self, connection: &Connection<S>) {
        self.bytes -= connection.charged as usize;
    }
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// True when there are blocks for a connection's replies; borrows where they are few.
    pub(super) fn has_blocks(&mut self) -> bool {
        while self.may_borrow && self.ring.blocks().free() < BLOCKS_LOW {
            match self.service.lend() {
                Some(loan) => self.ring.blocks().adopt(loan),
                None => self.may_borrow = false,
            }
        }
        self.ring.blocks().free() >= BLOCKS_NEEDED
    }

    /// Puts a connection at the end of the queue for memory.
    pub(super) fn thirst(&mut self, id: SlotId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.held = Held::Memory;
        self.thirsty.push_back(id);
        self.counters.bump(Metric::ReplyWaits);
    }

    /// The connection that has waited longest for memory, if there is some for it now.
    pub(super) fn next_thirsty(&mut self) -> Option<SlotId> {
        while !self.thirsty.is_empty() && self.has_blocks() {
            let id = self.thirsty.pop_front()?;
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.held = Held::No;
            if connection.can_execute() {
                return Some(id);
            }
        }
        None
    }

    /// Shares the memory for replies out: the less of it is left, the less may wait for one peer.
    pub(super) fn share_blocks(&mut self) {
        let lendable = self.service.lendable_bytes() / self.settings.rings;
        let blocks = self.ring.blocks();
        let used = blocks.used_bytes();
        let free = lendable + blocks.free() * BLOCK_BYTES;
        let active = (used / BLOCK_BYTES).max(1);
        let waiting = free / self.connections.len().max(1);
        self.upkeep.backlog_bytes = waiting.clamp(BACKLOG_BYTES_MIN, BACKLOG_BYTES_MAX);
        self.upkeep.output_bytes = (2 * free / active).clamp(BLOCK_BYTES, OUTPUT_BYTES_MAX);
    }

    pub(super) fn return_idle_loans(&mut self) {
        let (blocks, service) = (self.ring.blocks(), &mut self.service);
        blocks.trim().for_each(|loan| service.take_back(loan));
    }

    /// Returns everything that is lent; no block may be in use.
    pub(super) fn return_loans(&mut self) {
        // The first look may remember what was needed a moment ago.
        self.return_idle_loans();
        self.return_idle_loans();
    }

    /// Closes peers that do not read or say half of something, those with the most of it first,
    /// until there will be memory for all who wait for it and nothing is overdrawn; and those who
    /// are in the middle of a value where the items of others find no place.
    pub(super) fn relieve(&mut self) {
        let mut wanted = self.service.overdrawn_bytes() / self.settings.rings;
        if !self.thirsty.is_empty() && !self.has_blocks() {
            wanted += self.thirsty.len() * BLOCKS_NEEDED * BLOCK_BYTES;
        }
        let starved = self.service.starved_bytes();
        wanted += starved;
        if wanted == 0 {
            return;
        }
        let now_s = self.now_s();
        let service = &self.service;
        let held = |session| if starved > 0 { service.held_bytes(session) } else { 0 };
        let places = self.connections.places();
        let start = self.upkeep.cursor;
        let looked = (0..places.min(LOOKS_PER_TICK)).map(|step| (start + step) % places.max(1));
        let mut silent: Vec<_> = looked
            .filter_map(|place| self.connections.at(u32::try_from(place).ok()?))
            .filter(|(_, each)| each.held != Held::Away)
            .filter(|(_, each)| now_s.saturating_sub(each.active_s) >= PATIENCE_S)
            .map(|(id, each)| (each, held(&each.session), id))
            .filter(|(each, held, _)| {
                let is_amid = *held > 0 || !each.input.is_empty();
                each.sending || (each.held == Held::No && is_amid)
            })
            .map(|(each, held, id)| {
                (each.output.blocks() * BLOCK_BYTES + each.charged as usize + held, id)
            })
            .collect();
        silent.sort_by_key(|(bytes, _)| Reverse(*bytes));
        for (bytes, id) in silent {
            if wanted == 0 {
                break;
            }
            wanted = wanted.saturating_sub(bytes);
            self.counters.bump(Metric::ResponseObjOom);
            self.record(id, Event::Abort);
        }
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
        let blocks = self.ring.blocks();
        let bytes = blocks.lent_bytes() + OWN_BLOCKS * BLOCK_BYTES;
        let used = blocks.used_bytes() / BLOCK_BYTES;
        self.counters.set(Metric::ResponseObjBytes, bytes as u64);
        self.counters.set(Metric::ResponseObjCount, used as u64);
    }
}
