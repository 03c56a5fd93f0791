//! The throttle at work: how short memory is, who is parked and comes back when, and whether new
//! connections are let in. The rules are in `net::throttle`.
//!
//! Every turn looks at the pool anew. Who holds too much is parked when something happens to it,
//! which is always before it can hold more. Who is parked stands in a queue, and leaves it when it
//! holds half of what it may, or, first come first, when all is calm.

use crate::base::metrics::Metric;
use crate::base::slots::SlotId;
use crate::net::connection::Receive;
use crate::net::throttle::Level;
use crate::server::service::Service;
use crate::sys::blocks::{BLOCK_BYTES, OWN_BLOCKS};
use crate::sys::ring::Ring;

use super::RingLoop;
use super::memory::PLACES_SHARE;
use super::upkeep::OUTPUT_BYTES_MAX;

/// Connections that come back in one turn: all that they were kept from sending comes at once.
const COME_BACK_MAX: usize = 64;

/// Names of connections that are gone leave the queue when there are so many more than others.
const STALE_MAX: usize = 64;

/// How much of the pool is in use, as one ring sees it: blocks that other rings have and do not use
/// count as used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool {
    pub(super) bytes: usize,
    pub(super) free: usize,
}

impl Pool {
    pub(super) fn used(self) -> usize {
        self.bytes.saturating_sub(self.free)
    }
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    pub(super) fn pool(&mut self) -> Pool {
        let free = self.service.lendable_bytes() + self.ring.blocks().free() * BLOCK_BYTES;
        Pool { bytes: self.service.pool_bytes() + OWN_BLOCKS * BLOCK_BYTES, free }
    }

    /// Shares the memory out: the less of it is left, the less may wait for one peer.
    pub(super) fn share_memory(&mut self) {
        let pool = self.pool();
        let rings = self.settings.rings;
        let throttle = self.settings.throttle;
        let own_free = self.ring.blocks().free() * BLOCK_BYTES;
        let free = pool.free.saturating_sub(own_free) / rings + own_free;
        let (active, connections) = (self.heap.active(), self.connections.len());
        let level = throttle.level(pool.used(), pool.bytes);
        self.upkeep.level = level;
        self.upkeep.quota = throttle.quota(level, free, active, connections);
        let share = throttle.share_bytes(free, active);
        self.upkeep.output_bytes = share.clamp(BLOCK_BYTES, OUTPUT_BYTES_MAX);
    }

    pub(super) fn park(&mut self, id: SlotId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.receive = Receive::Parked;
        self.counters.bump(Metric::ThrottleParks);
        self.counters.add(Metric::ThrottleParked, 1);
        if !std::mem::replace(&mut connection.queued, true) {
            self.parked.push_back(id);
        }
    }

    /// A connection is parked no more, whatever becomes of it.
    pub(super) fn unpark(&mut self) {
        self.counters.sub(Metric::ThrottleParked, 1);
    }

    /// True when there is somebody in the queue who could come back at once.
    pub(super) fn is_anybody_to_come_back(&self) -> bool {
        self.upkeep.level == Level::Calm && !self.parked.is_empty()
    }

    /// Receives again from those who were parked first.
    pub(super) fn come_back(&mut self) {
        if self.upkeep.level != Level::Calm {
            if self.parked.len() > 2 * self.connections.len() + STALE_MAX {
                self.parked.retain(|id| self.connections.get(*id).is_some());
            }
            return;
        }
        for _ in 0..COME_BACK_MAX {
            let Some(id) = self.parked.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.queued = false;
            if connection.receive == Receive::Parked {
                connection.receive = Receive::Idle;
                self.unpark();
                self.advance(id);
            }
        }
    }

    /// Lets nobody in while connections have taken more than what is theirs and a little for who
    /// comes, who holds nothing and is served before others; and everybody again when they have
    /// not.
    pub(super) fn pause_or_resume_accepts(&mut self) {
        let has_vacancy = self.connections.len() < self.connections.places();
        let slack = self.service.pool_bytes() / PLACES_SHARE;
        let has_place = has_vacancy || self.service.overdrawn_bytes() <= slack;
        let is_dire = self.upkeep.level == Level::Dire && !has_place;
        if is_dire == self.upkeep.accepts_paused || self.settings.listeners == 0 {
            return;
        }
        self.upkeep.accepts_paused = is_dire;
        self.tell_of_accepts();
        if !is_dire || self.fleet.is_draining() {
            return;
        }
        self.counters.bump(Metric::ThrottleDeaf);
        for listener in (0..self.settings.listeners).filter(|each| !self.deaf.contains(each)) {
            self.ring.cancel_accept(listener);
        }
    }
}
