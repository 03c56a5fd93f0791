//! Connections whose next request wants memory that other threads hold back: they have let go of
//! it, and have not all quiesced since.
//!
//! Nobody waits for them. They are asked again in every turn, behind those who can go on, until the
//! store has memory for them, or refuses: it knows when all had the time to give some up. Until
//! then the ring does not sleep, but lets others have its core when it has nothing else to do.

use crate::base::metrics::Metric;
use crate::base::slots::SlotId;
use crate::net::connection::Held;
use crate::server::service::Service;
use crate::sys::ring::Ring;

use super::RingLoop;

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Puts the request that a connection has next off until the next turn.
    pub(super) fn await_item(&mut self, id: SlotId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.held = Held::Items;
        self.waiters.push_back(id);
        self.counters.bump(Metric::ItemWaits);
    }

    /// Makes all who wait for items runnable. They have waited since they came, not since now.
    pub(super) fn ask_again(&mut self) {
        for id in self.waiters.drain(..) {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.held = Held::No;
            if connection.can_execute() && !connection.runnable {
                connection.runnable = true;
                self.runnable.push_back(id);
            }
        }
    }

    /// Gives the core away for a moment, where this ring only waits for other threads.
    pub(super) fn let_others_go_on(&self) {
        if self.runnable.is_empty() && !self.waiters.is_empty() {
            std::thread::yield_now();
        }
    }
}
