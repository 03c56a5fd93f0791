//! What the kernel and other threads report, recorded. Nothing is executed here.

use std::net::SocketAddr;

use crate::base::census::Origin;
use crate::base::metrics::{Distribution, Metric};
use crate::base::slots::SlotId;
use crate::net::close::CloseReason;
use crate::net::connection::{Connection, Event, Held, Phase, Recall, Receive};
use crate::server::dispatch::Message;
use crate::server::service::Service;
use crate::sys::blocks::Landed;
use crate::sys::buffers::Filled;
use crate::sys::ring::{Completion, Fault, Received, Ring};
use crate::sys::socket::Socket;

use super::RingLoop;

impl<R: Ring, V: Service> RingLoop<R, V> {
    pub(super) fn take_completions(&mut self) {
        let (mut count, mut has_ticked) = (0, false);
        while let Some(completion) = self.ring.next() {
            count += 1;
            match completion {
                Completion::Received { slot, received, armed } => {
                    self.received(slot, received, armed);
                }
                Completion::Arrived { slot, arrived, loan, behind } => {
                    self.arrived(slot, arrived, loan, behind);
                }
                Completion::Sent { slot, result, landed } => self.sent(slot, result, &landed),
                Completion::Accepted { listener, result, armed } => {
                    self.accepted(listener, result, armed);
                }
                Completion::Woken => {}
                Completion::Tick => has_ticked = true,
            }
        }
        // A ring that comes late finds its tick before the bytes of those who were not idle.
        if has_ticked {
            self.tick();
        }
        self.counters.add(Metric::RingCompletions, count);
        self.counters.record_small(Distribution::TurnCompletions, count, 1);
    }

    fn received(&mut self, slot: SlotId, received: Received, armed: bool) {
        let Some(connection) = self.connections.get_mut(slot) else {
            // A connection is released only when its receive has ended, so nothing can be late.
            unreachable!("a receive completed for a connection that is gone");
        };
        if !armed {
            connection.receive = Receive::Idle;
        }
        match received {
            Received::Bytes(filled) => {
                self.take_in(slot, filled);
            }
            Received::End => {
                connection.ended = true;
                self.make_runnable(slot);
            }
            Received::Dry => {
                connection.receive = Receive::Starved;
                self.starved.push_back(slot);
                self.counters.bump(Metric::BuffersDry);
            }
            Received::Stopped => {}
            Received::NoMemory => self.pause(slot),
            Received::Failed(_) => connection.end(Event::Abort, CloseReason::Broken),
        }
        self.list(slot);
    }

    /// Takes bytes in that were received into memory of the ring.
    pub(super) fn take_in(&mut self, slot: SlotId, filled: Filled) {
        let Some(connection) = self.connections.get_mut(slot) else { return };
        self.counters.add(Metric::BytesRead, filled.bytes().len() as u64);
        if connection.phase() != Phase::Open {
            return self.spent.push(filled);
        }
        let is_amid = |session: &V::Session| self.service.held_bytes(session) > 0;
        connection.record_received(filled.bytes().len(), is_amid, self.now);
        connection.input.push(filled);
        if connection.input.is_scattered() {
            connection.input.evacuate(&mut self.spent);
        }
        self.holders.note(slot, connection);
        self.make_runnable(slot);
    }

    /// Leaves a connection alone until the next tick: the kernel has no memory for it now.
    pub(super) fn pause(&mut self, slot: SlotId) {
        self.counters.bump(Metric::KernelNoMemory);
        if let Some(connection) = self.connections.get_mut(slot)
            && !std::mem::replace(&mut connection.paused, true)
        {
            self.paused.push(slot);
        }
    }

    /// Goes on with those that were left alone.
    pub(super) fn resume_paused(&mut self) {
        for slot in std::mem::take(&mut self.paused) {
            if let Some(connection) = self.connections.get_mut(slot) {
                connection.paused = false;
                self.list(slot);
            }
        }
    }

    fn sent(&mut self, slot: SlotId, result: Result<usize, Fault>, landed: &Landed) {
        let Some(connection) = self.connections.get_mut(slot) else {
            unreachable!("a send completed for a connection that is gone");
        };
        connection.sending = false;
        self.spanless.sends -= usize::from(std::mem::take(&mut connection.gathered));
        let recall = std::mem::replace(&mut connection.recall, Recall::No);
        let taken = result.unwrap_or(0);
        let service = &mut self.service;
        let home = |span| service.take_span_back(span);
        connection.output.land(taken, landed, self.ring.blocks(), home);
        self.counters.add(Metric::BytesWritten, taken as u64);
        let unsent = connection.output.unsent_bytes();
        match result {
            Ok(_) | Err(Fault::Passing | Fault::NoMemory) => {}
            Err(Fault::NoDescriptor | Fault::Lasting(_)) => {
                connection.end(Event::Abort, CloseReason::Broken);
            }
        }
        connection.record_sent(taken, self.now);
        if unsent == 0 {
            connection.record_flushed();
        } else if taken > 0 {
            self.counters.bump(Metric::ShortSends);
        }
        if connection.held == Held::Output && unsent < self.upkeep.output_bytes.div_ceil(2) {
            connection.held = Held::No;
            self.make_runnable(slot);
        }
        if result == Err(Fault::NoMemory) {
            self.pause(slot);
        }
        if recall != Recall::No {
            self.recalled(slot, recall, taken);
        }
        self.list(slot);
    }

    fn accepted(&mut self, listener: u32, result: Result<Socket, Fault>, armed: bool) {
        if !armed {
            // Armed again at once if it ended for no reason of its own, and otherwise when a
            // second has passed or a connection is gone: descriptors may be free then.
            self.deaf.push(listener);
        }
        match result {
            Ok(socket) if self.fleet.is_draining() => self.ring.close(socket),
            Ok(socket) if self.may_enter() => self.place(socket, listener),
            Ok(socket) => self.turn_away(socket, listener),
            Err(Fault::Passing) => {}
            Err(_) if self.fleet.is_draining() || self.is_deaf_on_purpose() => {}
            Err(fault) => {
                let has_memory = fault != Fault::NoMemory;
                let metric =
                    if has_memory { Metric::ListenDisabledNum } else { Metric::KernelNoMemory };
                self.counters.bump(metric);
                self.upkeep.accept_failed = true;
                self.tell_of_accepts();
            }
        }
    }

    /// Gives a new connection to the ring with the fewest.
    pub(super) fn place(&mut self, socket: Socket, listener: u32) {
        match self.fleet.place() {
            ring if ring == self.settings.number => self.adopt(socket, listener),
            ring => {
                let message = Message::Connection(socket, listener);
                self.fleet.dispatch.inboxes[ring].push(message);
            }
        }
    }

    fn adopt(&mut self, socket: Socket, listener: u32) {
        let address = socket.peer();
        self.upkeep.locals += usize::from(socket.is_local());
        let session = self.service.session(Some(listener));
        let mut connection = Connection::new(socket, session, self.now);
        connection.bucket = address.and_then(|address| self.bucket(address.ip()));
        let id = self.connections.insert(connection);
        let origin = Origin { peer: address, listener: Some(listener) };
        self.roll.enter(id.index, origin);
        self.greet(id, address);
        self.ring.resize(self.connections.len());
        self.counters.bump(Metric::CurrConnections);
        self.counters.bump(Metric::TotalConnections);
        if self.upkeep.draining_since.is_some() {
            self.end(id, Event::Finish, CloseReason::Draining);
            self.flushed(id);
        }
        self.list(id);
    }

    /// Tells a new connection its number.
    fn greet(&mut self, id: SlotId, address: Option<SocketAddr>) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let number = self.roll.number(id.index);
        self.service.begin(&mut connection.session, number, address, self.now);
    }

    pub(super) fn take_messages(&mut self) {
        let number = self.settings.number;
        while let Some(message) = self.fleet.dispatch.inboxes[number].pop() {
            match message {
                Message::Connection(socket, listener) => self.adopt(socket, listener),
                Message::Home(batch) => self.come_home(batch),
            }
        }
    }
}
