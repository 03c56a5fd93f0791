//! Connections beyond the limit: told so and closed, or, if the operator wants it so, kept waiting
//! for the place of one that goes.
//!
//! Who waits is accepted and nothing more: no byte is received from it. From the first on, the
//! listeners are deaf, so that all others wait in the kernel, until everybody is in and there is a
//! place left. A ring other than the one that accepts wakes it when a connection of its own goes.

use std::collections::VecDeque;

use crate::base::clock::TICKS_PER_S;
use crate::base::metrics::Metric;
use crate::protocol::memcache::reply::TOO_MANY_CONNECTIONS;
use crate::server::service::Service;
use crate::sys::ring::Ring;
use crate::sys::socket::Socket;

use super::RingLoop;

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// With the listeners they came by, in the order in which they came.
    sockets: VecDeque<(Socket, u32)>,
    /// True while nobody is accepted because all places are taken.
    is_closed: bool,
    /// The tick since which nobody is accepted, for whatever reason.
    deaf_since: Option<u64>,
}

impl Queue {
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Counts a connection in, behind those who came before it.
    pub(super) fn may_enter(&self) -> bool {
        self.queue.sockets.is_empty() && self.fleet.admission.enter()
    }

    /// There is no place for a connection.
    #[cold]
    pub(super) fn turn_away(&mut self, socket: Socket, listener: u32) {
        if !self.fleet.has_queue {
            self.counters.bump(Metric::RejectedConnections);
            return self.ring.refuse(socket, TOO_MANY_CONNECTIONS);
        }
        self.queue.sockets.push_back((socket, listener));
        if std::mem::replace(&mut self.queue.is_closed, true) {
            return;
        }
        self.counters.bump(Metric::ListenDisabledNum);
        self.tell_of_accepts();
        for listener in (0..self.settings.listeners).filter(|each| !self.deaf.contains(each)) {
            self.ring.cancel_accept(listener);
        }
    }

    /// Lets those in who wait, as far as there are places; then listens again.
    pub(super) fn let_in(&mut self) {
        if !self.queue.is_closed {
            return;
        }
        let is_draining = self.fleet.is_draining();
        while !self.queue.sockets.is_empty() {
            if !is_draining && !self.fleet.admission.enter() {
                return;
            }
            let Some((socket, listener)) = self.queue.sockets.pop_front() else { return };
            if is_draining {
                self.ring.close(socket);
            } else {
                self.place(socket, listener);
            }
        }
        if self.fleet.admission.has_place() {
            self.queue.is_closed = false;
            self.tell_of_accepts();
        }
    }

    /// True when somebody who waits, or the listeners, could be let in at once.
    pub(super) fn is_anybody_to_let_in(&self) -> bool {
        self.queue.is_closed && self.fleet.admission.has_place()
    }

    /// Accepting may go well again if it has failed.
    pub(super) fn try_to_accept(&mut self) {
        if std::mem::take(&mut self.upkeep.accept_failed) {
            self.tell_of_accepts();
        }
    }

    pub(super) fn tell_of_accepts(&mut self) {
        let is_paused = self.is_deaf_on_purpose();
        self.counters.set(Metric::AcceptsPaused, u64::from(is_paused));
        let is_deaf = is_paused || self.upkeep.accept_failed;
        let since = self.queue.deaf_since.filter(|_| is_deaf);
        let over = self.queue.deaf_since.take().filter(|_| !is_deaf);
        self.queue.deaf_since = since.or_else(|| is_deaf.then_some(self.now.ticks));
        if let Some(since) = over {
            let ticks = self.now.ticks - since;
            self.counters.add(Metric::ListenDisabledUs, ticks * 1_000_000 / TICKS_PER_S);
        }
    }
}
