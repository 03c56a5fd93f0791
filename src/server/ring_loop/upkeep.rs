//! What happens once a second, and the end: timeouts, shares, deaf listeners, draining.

use crate::base::metrics::Metric;
use crate::net::connection::{BACKLOG_BYTES_MAX, Event, Held};
use crate::server::fleet::Fleet;
use crate::server::service::Service;
use crate::sys::ring::{Hardships, Ring};

use super::RingLoop;

/// A peer that sends on without reading is closed after this time.
const STALL_S: u32 = 10;

/// Connections still there this long after the start of draining are closed as they are.
const DRAIN_S: u32 = 5;

/// Connections that one tick looks at: the look must stay short however many there are.
pub(super) const LOOKS_PER_TICK: usize = 8192;

/// Most unsent bytes of one connection while there is plenty of memory.
pub(super) const OUTPUT_BYTES_MAX: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Upkeep {
    /// Unsent bytes from which on a connection's peer must read first.
    pub(super) output_bytes: usize,
    /// Unexecuted bytes from which on a connection is not received from.
    pub(super) backlog_bytes: usize,
    /// True while listeners should wait before they are armed again.
    pub(super) accept_failed: bool,
    pub(super) draining_since_s: Option<u32>,
    /// Where the next tick goes on looking.
    pub(super) cursor: usize,
    /// What was told last of what befell the ring.
    hardships: Hardships,
}

impl Default for Upkeep {
    fn default() -> Upkeep {
        Upkeep {
            output_bytes: OUTPUT_BYTES_MAX,
            backlog_bytes: BACKLOG_BYTES_MAX,
            accept_failed: false,
            draining_since_s: None,
            cursor: 0,
            hardships: Hardships::default(),
        }
    }
}

impl Upkeep {
    /// True when the fleet has begun to drain and this ring has not.
    pub(super) fn must_drain<S>(&self, fleet: &Fleet<S>) -> bool {
        self.draining_since_s.is_none() && fleet.is_draining()
    }
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Arms the listeners that are not, and shares the memory for replies out.
    pub(super) fn hear(&mut self) {
        if !self.deaf.is_empty() && !self.upkeep.accept_failed && !self.fleet.is_draining() {
            for listener in self.deaf.drain(..) {
                self.ring.accept(listener);
            }
        }
        self.share_blocks();
    }

    pub(super) fn tick(&mut self) {
        self.upkeep.accept_failed = false;
        self.return_idle_loans();
        self.relieve();
        self.resume_paused();
        self.tell_hardships();
        let places = self.connections.places();
        for _ in 0..places.min(LOOKS_PER_TICK) {
            self.upkeep.cursor = (self.upkeep.cursor + 1) % places;
            self.look_at(self.upkeep.cursor);
        }
    }

    fn tell_hardships(&mut self) {
        let now = self.ring.hardships();
        let was = std::mem::replace(&mut self.upkeep.hardships, now);
        for (metric, now, was) in [
            (Metric::CompletionsOverflowed, now.overflows, was.overflows),
            (Metric::RingBusy, now.busy, was.busy),
            (Metric::KernelNoMemory, now.no_memory, was.no_memory),
        ] {
            self.counters.add(metric, now - was);
        }
    }

    /// Closes a connection that has waited too long for its peer.
    fn look_at(&mut self, place: usize) {
        let index = u32::try_from(place).expect("a slot has a u32 index");
        let now_s = self.now_s();
        let idle_timeout_s = self.settings.idle_timeout_s;
        let Some((id, connection)) = self.connections.at(index) else { return };
        let waited_s = now_s.saturating_sub(connection.active_s);
        let stalled = connection.is_stalled() && waited_s >= STALL_S;
        // As in memcached: seconds that have begun are no whole ones yet.
        let idle = idle_timeout_s > 0 && waited_s > idle_timeout_s;
        let drained = self.upkeep.draining_since_s.is_some_and(|since| now_s - since >= DRAIN_S);
        if connection.held == Held::Away || !(stalled || idle || drained) {
            return;
        }
        if idle {
            self.counters.bump(Metric::IdleKicks);
        }
        self.record(id, Event::Abort);
    }

    /// Begins to drain when the fleet does: nobody is let in, and who has all replies goes.
    pub(super) fn drain_if_told(&mut self) {
        if !self.upkeep.must_drain(&self.fleet) {
            return;
        }
        self.upkeep.draining_since_s = Some(self.now_s());
        for listener in (0..self.settings.listeners).filter(|each| !self.deaf.contains(each)) {
            self.ring.cancel_accept(listener);
        }
        let ids: Vec<_> = self.connections.ids().collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.ended = true;
            if connection.can_execute() {
                self.make_runnable(id);
            }
            self.list(id);
        }
    }

    /// True when nobody is left. The accepts must have ended too: an armed one holds its listener
    /// open a while longer than the process lives, and the next server could not have the address.
    pub fn has_ended(&self) -> bool {
        self.upkeep.draining_since_s.is_some()
            && self.connections.is_empty()
            && self.deaf.len() == self.settings.listeners as usize
    }
}
