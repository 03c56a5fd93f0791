//! The loop of one ring, generic over the ring so that a seeded fake one can drive it.
//!
//! ```text
//!   turn:  enter -> completions -> inbox -> runnable -> listed -> starved
//!          kernel   record events  record   execute     step      re-arm
//! ```
//!
//! A turn has a budget of time. What is left when it is used up waits for the next turn, which
//! takes completions first: who sends little is in line before who sends much has its next share.
//!
//! Who waits for one thing keeps others meanwhile, and nobody may be kept waiting by that for good.
//! What each does keep, beside its place, as `Held` says what it waits for:
//!
//! ```text
//!   waits for            keeps                         until
//!   No (its peer)        what it has begun, replies    it is silent and others need that
//!   Output (its peer)    replies, values in sends      it is silent and others need that
//!   Memory (blocks)      what it has begun             those with blocks read, or go
//!   Items                what it has begun             the store has some, or refuses
//!   Spans                its replies                   others' sends end, or are recalled
//!   Queue (for workers)  its replies                   workers get on, batch by batch
//!   Away (at a worker)   blocks, a worker              its batch is done
//!   Rate                 what it has begun, replies    its moment, however far
//! ```
//!
//! Receive buffers are what any of them would keep, and without them nobody is heard. So when the
//! kernel has none left, what waits is copied while there is room, `holders`; where there is none,
//! who waits to store is refused, and of all others some go, `relief`.
//!
//! Only the loop holds ring, connections, service and clock at once; every callee gets the part
//! that it needs. Every event puts its connection on the list of those to step, and `advance` alone
//! turns the steps into submissions. Invariants at the end of a turn:
//!
//! - nothing is listed; who is runnable stands once in the queue of runnable ones;
//! - who waits for memory stands once in the queue for it, be it for blocks, items or spans;
//! - who holds receive buffers when the kernel has none left is executed soon, or there is no room
//!   to copy what is in them.

mod completions;
mod execution;
mod holders;
mod memory;
mod queue;
mod rate;
mod relief;
mod silence;
mod spans;
mod thirst;
mod throttle;
mod upkeep;
mod values;
mod waiters;
mod watching;

#[cfg(test)]
use execution::BLOCKS_MAX;
pub(in crate::server) use memory::PLACE_BYTES;

use std::collections::VecDeque;
use std::io;

use crate::base::census::{Origin, Roll};
use crate::base::clock::{Clock, Now, TICKS_PER_S};
use crate::base::metrics::{Counters, Metric};
use crate::base::slots::{SlotId, Slots};
use crate::base::sync::Arc;
use crate::config::Dispatch;
use crate::net::close::CloseReason;
use crate::net::connection::{Connection, Event, Held, Receive, Step};
use crate::net::throttle::Throttle;
use crate::sys::buffers::Filled;
use crate::sys::ring::Ring;

use super::batch::Batch;
use super::fleet::Fleet;
use super::service::Service;

/// Connections that found no receive buffer of which so many are received from in one turn: a few
/// buffers that come back are not worth that thousands find none again.
const RECEIVED_AGAIN_MAX: usize = 256;

/// A tick of the clock.
const TICK_NS: u64 = 1_000_000_000 / TICKS_PER_S;

/// What a ring is told at start.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub number: usize,
    pub dispatch: Dispatch,
    /// Requests that a connection may run before the next one has its turn.
    pub requests_per_event: u32,
    /// Seconds without a byte after which a connection is closed; 0 is never.
    pub idle_timeout_s: u32,
    pub throttle: Throttle,
    /// How many rings share the memory that may be lent.
    pub rings: usize,
    /// Listeners that this ring accepts from: all or none.
    pub listeners: u32,
}

pub struct RingLoop<R, V: Service> {
    settings: Settings,
    ring: R,
    service: V,
    clock: Clock,
    now: Now,
    /// When the clock was read last.
    read_ns: u64,
    counters: Arc<Counters>,
    fleet: Arc<Fleet<V::Session>>,
    roll: Roll,
    connections: Slots<Connection<V::Session>>,
    /// Connections with input that may be executed, in order.
    runnable: VecDeque<SlotId>,
    /// Connections whose state has changed in this turn.
    listed: Vec<SlotId>,
    /// Connections whose replies were kept back when the last turn was cut.
    postponed: Vec<SlotId>,
    /// True when this turn ended before everybody had been executed.
    is_cut: bool,
    /// Connections that found no receive buffer, in order.
    starved: VecDeque<SlotId>,
    /// Connections that may hold receive buffers, each once.
    holders: holders::Holders,
    /// Connections for which the kernel had no memory, until the next tick.
    paused: Vec<SlotId>,
    /// Connections whose batch found no room in the queue, in order.
    queueing: VecDeque<SlotId>,
    /// Connections that wait for memory for an item, in order.
    waiters: VecDeque<SlotId>,
    /// Connections that wait for blocks to write their replies in.
    thirsty: thirst::Thirsty,
    /// Connections that wait until less is sent from where it lies.
    spanless: spans::Spanless,
    /// Of whom the kernel was asked whether they take what they are sent.
    watches: silence::Watches,
    /// Connections that hold too much and are received from no more, in order; some of them may
    /// have come back on their own.
    parked: VecDeque<SlotId>,
    /// Connections whose peer's address has had its share.
    lanes: rate::Lanes,
    /// Connections that are told what happens; some of them may be gone.
    watchers: Vec<SlotId>,
    heap: memory::Heap,
    /// False when memory for more blocks was asked for in this turn, and there was none.
    may_borrow: bool,
    /// True in the first tick of a second.
    is_new_second: bool,
    /// Buffers that are read and not given back yet.
    spent: Vec<Filled>,
    /// Boxes for batches to travel in.
    spare: Vec<Box<Batch<V::Session>>>,
    /// Listeners whose accept is not armed.
    deaf: Vec<u32>,
    /// Connections beyond the limit.
    queue: queue::Queue,
    /// Executed in this turn, here.
    done: execution::Done,
    upkeep: upkeep::Upkeep,
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    pub fn new(
        settings: Settings,
        ring: R,
        mut service: V,
        clock: Clock,
        (counters, roll): (Arc<Counters>, Roll),
        fleet: Arc<Fleet<V::Session>>,
    ) -> RingLoop<R, V> {
        service.defer_waits();
        RingLoop {
            settings,
            ring,
            service,
            now: clock.now(),
            read_ns: clock.elapsed_ns(),
            clock,
            counters,
            fleet,
            roll,
            connections: Slots::default(),
            runnable: VecDeque::new(),
            listed: Vec::new(),
            postponed: Vec::new(),
            is_cut: false,
            starved: VecDeque::new(),
            holders: holders::Holders::default(),
            paused: Vec::new(),
            queueing: VecDeque::new(),
            waiters: VecDeque::new(),
            thirsty: thirst::Thirsty::default(),
            spanless: spans::Spanless::default(),
            watches: silence::Watches::default(),
            parked: VecDeque::new(),
            lanes: rate::Lanes::default(),
            watchers: Vec::new(),
            may_borrow: true,
            is_new_second: true,
            heap: memory::Heap::default(),
            spent: Vec::new(),
            spare: Vec::new(),
            deaf: (0..settings.listeners).collect(),
            queue: queue::Queue::default(),
            done: execution::Done::default(),
            upkeep: upkeep::Upkeep::default(),
        }
    }

    /// Serves until the fleet drains and the last connection is gone.
    ///
    /// # Errors
    /// When the kernel refuses to run the ring.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.has_ended() {
            self.turn()?;
        }
        self.return_loans();
        self.tell_spanless(0);
        self.service.rest();
        self.fleet.ring_ended();
        Ok(())
    }

    /// One turn: one entry into the kernel, and all that follows from what it brought.
    ///
    /// # Errors
    /// When the kernel refuses to run the ring.
    pub fn turn(&mut self) -> io::Result<()> {
        self.hear();
        self.enter()?;
        self.read_ns = self.clock.elapsed_ns();
        self.now = self.clock.at(self.read_ns);
        self.counters.bump(Metric::RingTurns);
        self.take_completions();
        self.take_messages();
        self.drain_if_told();
        self.offer_again();
        self.ask_again();
        self.let_go_by_rate();
        self.tell_watchers();
        self.run_runnable();
        self.advance_listed();
        self.settle_buffers();
        self.come_back();
        self.publish_memory();
        Ok(())
    }

    fn enter(&mut self) -> io::Result<()> {
        self.service.rest();
        let is_any_lane_due = self.is_any_lane_due();
        let inbox = &self.fleet.dispatch.inboxes[self.settings.number];
        let may_sleep = self.runnable.is_empty()
            && self.listed.is_empty()
            && self.waiters.is_empty()
            && !self.is_anybody_to_come_back()
            && !self.is_anybody_to_span()
            && (self.starved.is_empty() || self.ring.is_dry())
            && !is_any_lane_due
            && !self.has_news()
            && inbox.doorbell.lie_down(|| {
                inbox.is_empty()
                    && !self.upkeep.must_drain(&self.fleet)
                    && !self.is_anybody_to_let_in()
            });
        self.counters.add(Metric::RingSleeps, u64::from(may_sleep));
        self.let_others_go_on();
        let result = self.ring.enter(may_sleep);
        inbox.doorbell.get_up();
        self.service.wake();
        result
    }

    /// Puts a connection on the list of those to step.
    fn list(&mut self, id: SlotId) {
        if let Some(connection) = self.connections.get_mut(id)
            && !connection.listed
        {
            connection.listed = true;
            self.listed.push(id);
        }
    }

    fn advance_listed(&mut self) {
        for id in std::mem::take(&mut self.postponed) {
            self.list(id);
        }
        while let Some(id) = self.listed.pop() {
            self.advance(id);
        }
    }

    /// Submits whatever the state of a connection asks for.
    fn advance(&mut self, id: SlotId) {
        loop {
            let Some(connection) = self.connections.get_mut(id) else { return };
            connection.listed = false;
            self.heap.charge(connection);
            match connection.step(self.upkeep.quota) {
                Step::Receive if connection.receive == Receive::Parked => {
                    connection.receive = Receive::Idle;
                    self.unpark();
                }
                Step::Receive if self.ring.is_dry() => {
                    connection.receive = Receive::Starved;
                    self.starved.push_back(id);
                }
                Step::Receive => {
                    connection.receive = Receive::Armed;
                    if connection.is_received_from_singly() {
                        self.ring.receive_one(&connection.socket, id);
                    } else {
                        self.ring.receive(&connection.socket, id, self.upkeep.quota.receive_bytes);
                    }
                }
                Step::ReceiveDirect => self.receive_direct(id),
                Step::CancelReceive => {
                    connection.receive = Receive::Cancelling;
                    self.ring.cancel_receive(id);
                    if !connection.is_direct() && connection.held != Held::Rate {
                        self.counters.bump(Metric::ConnectionsParked);
                    }
                }
                Step::Park => self.park(id),
                Step::Send if self.is_cut && connection.runnable && connection.holds_little() => {
                    return self.postponed.push(id);
                }
                Step::Send => {
                    connection.record_sending(self.now);
                    let (socket, output) = (&connection.socket, &mut connection.output);
                    if output.has_spans() {
                        connection.gathered = true;
                        self.spanless.sends += 1;
                        self.ring.send_gathered(socket, id, |pieces| output.gather(pieces));
                    } else {
                        let (blocks, skip) = output.unsent();
                        self.ring.send(socket, id, blocks, skip);
                    }
                    self.counters.bump(Metric::RingSends);
                }
                Step::Shutdown => {
                    connection.mark_shut_down();
                    connection.input.clear(&mut self.spent);
                    self.ring.shutdown(&connection.socket, id);
                }
                Step::Release => return self.release(id),
                Step::Wait => {
                    let item_bytes = self.service.held_bytes(&connection.session)
                        + connection.output.spanned_bytes();
                    return self.roll.write(id.index, &connection.sighting(item_bytes));
                }
            }
        }
    }

    fn release(&mut self, id: SlotId) {
        let Some(mut connection) = self.connections.remove(id) else { return };
        if connection.receive == Receive::Parked {
            self.unpark();
        }
        if connection.held == Held::Rate {
            self.counters.sub(Metric::RateParked, 1);
        }
        if let (Some(bucket), Some(peers)) = (connection.bucket, &self.fleet.peers) {
            peers.leave(bucket);
        }
        let reason = connection.reason().expect("what ends has a reason");
        self.counters.bump(reason.metric());
        // Its socket may have no peer any more.
        let Origin { peer, .. } = self.roll.origin(id.index);
        self.roll.leave(id.index);
        self.service.end(&connection.session, peer, reason, self.now);
        self.service.abandon(&mut connection.session);
        connection.input.clear(&mut self.spent);
        let service = &mut self.service;
        connection.output.clear(self.ring.blocks(), |span| service.take_span_back(span));
        self.heap.discharge(&connection);
        self.upkeep.locals -= usize::from(connection.socket.is_local());
        self.ring.close(connection.socket);
        self.try_to_accept();
        self.ring.resize(self.connections.len());
        self.counters.sub(Metric::CurrConnections, 1);
        self.fleet.leave(self.settings.number);
    }

    /// Records an event that ends a connection, and lists it.
    fn end(&mut self, id: SlotId, event: Event, reason: CloseReason) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.end(event, reason);
            self.list(id);
        }
    }

    /// Records that a connection has nothing left to send, and lists it.
    fn flushed(&mut self, id: SlotId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.record_flushed();
            self.list(id);
        }
    }

    fn give_back(&mut self) {
        for filled in self.spent.drain(..) {
            self.ring.provide(filled);
        }
    }

    /// Receives again from the next of those who found no buffer: first from who brings little, for
    /// half of them, then from who would not have to wait for its rate with what it brings.
    fn receive_again(&mut self) {
        let mut starved: Vec<_> = self.starved.drain(..).collect();
        if starved.len() > RECEIVED_AGAIN_MAX || self.fleet.peers.is_some() {
            let mut left = RECEIVED_AGAIN_MAX / 2;
            starved.sort_by_cached_key(|id| {
                let waits = self.would_wait_for_rate(*id);
                let is_little = self.connections.get(*id).is_some_and(Connection::brings_little);
                let is_first = is_little && !waits && left > 0;
                left -= usize::from(is_first);
                (!is_first, waits)
            });
        }
        self.starved.extend(starved.drain(starved.len().min(RECEIVED_AGAIN_MAX)..));
        for id in starved {
            if let Some(connection) = self.connections.get_mut(id)
                && connection.receive == Receive::Starved
            {
                connection.receive = Receive::Idle;
                if self.upkeep.parched_since.is_some() {
                    connection.excuse(self.now);
                }
                self.advance(id);
            }
        }
    }

    /// Gives read buffers back, and receives again where there were none.
    fn settle_buffers(&mut self) {
        self.give_back();
        self.upkeep.is_parched = false;
        if self.ring.is_dry() {
            let is_kept = self.evacuate();
            self.give_back();
            if is_kept && self.ring.is_dry() {
                self.ring.refill();
            }
            self.upkeep.is_parched = is_kept && self.ring.is_dry() && !self.starved.is_empty();
            if self.upkeep.is_parched {
                self.service.refuse_arrivals(self.now);
                self.relieve_buffers();
                self.evacuate();
                self.give_back();
                self.ring.wake_after(TICK_NS);
            }
        }
        self.holders.settle(&mut self.connections);
        if !self.ring.is_dry() && !self.starved.is_empty() {
            self.receive_again();
        }
    }
}

#[cfg(test)]
use crate::sys::blocks::BLOCK_BYTES;

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// For rings without a kernel: what they were told.
    pub fn ring_mut(&mut self) -> &mut R {
        &mut self.ring
    }
}

#[cfg(test)]
impl<R: Ring, V: Service> RingLoop<R, V> {
    pub fn service_mut(&mut self) -> &mut V {
        &mut self.service
    }

    pub fn throttle_mut(&mut self) -> &mut Throttle {
        &mut self.settings.throttle
    }

    /// Who is parked, in the order in which they come back.
    pub fn parked(&self) -> Vec<SlotId> {
        let is_parked = |id: &SlotId| {
            self.connections.get(*id).is_some_and(|each| each.receive == Receive::Parked)
        };
        self.parked.iter().copied().filter(is_parked).collect()
    }

    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// What keeps the requests of the connection in this place.
    pub fn held(&self, index: u32) -> Option<Held> {
        self.connections.at(index).map(|(_, connection)| connection.held)
    }

    /// True when a tick looks at connections.
    pub fn looks_at_ticks(&self) -> bool {
        self.is_anybody_overdue()
    }

    /// What the connection in this place is to be sent from where it lies.
    pub fn spanned(&self, index: u32) -> Option<usize> {
        self.connections.at(index).map(|(_, connection)| connection.output.spanned_bytes())
    }

    /// Bytes of the heap that connections take.
    pub fn heap_bytes(&self) -> usize {
        self.heap.bytes()
    }

    /// One turn, and the invariants at its end.
    pub fn turn_checked(&mut self) {
        self.turn().unwrap();
        let charged = |id| self.connections.get(id).map_or(0, |each| each.charged as usize);
        assert_eq!(self.connections.ids().map(charged).sum::<usize>(), self.heap_bytes());
        assert!(self.listed.is_empty());
        let blocks = self.ring.blocks().used_bytes() / BLOCK_BYTES;
        assert!(blocks <= self.connections.len() * BLOCKS_MAX, "{blocks} blocks are in use");
        let room = self.input_room();
        for id in self.connections.ids().filter(|_| self.ring.is_dry()) {
            let connection = self.connections.get(id).unwrap();
            let keeps = connection.input.holds_buffers() && !connection.runnable;
            let bytes = connection.input.buffer_bytes();
            assert!(!keeps || 2 * bytes > room, "kept for nothing");
        }
        for id in self.connections.ids() {
            let connection = self.connections.get(id).unwrap();
            let queued = self.runnable.iter().filter(|runnable| **runnable == id).count();
            assert_eq!(queued, usize::from(connection.runnable));
            let starved = self.starved.iter().filter(|starved| **starved == id).count();
            // Who went on without a buffer leaves its place in the queue to be skipped.
            assert!(starved > 0 || connection.receive != Receive::Starved);
            let waits = self.waiters.iter().filter(|waiter| **waiter == id).count();
            assert_eq!(waits, usize::from(connection.held == Held::Items));
            assert_eq!(connection.counted, connection.held_bytes() > 0);
            let parked = self.parked.iter().filter(|parked| **parked == id).count();
            assert_eq!(parked, usize::from(connection.queued));
            assert!(connection.queued || connection.receive != Receive::Parked);
            let waits = self.waiting_for_rate().iter().filter(|each| **each == id).count();
            assert_eq!(waits, usize::from(connection.held == Held::Rate));
            let paused = self.paused.iter().filter(|paused| **paused == id).count();
            assert_eq!(paused, usize::from(connection.paused));
            assert!(!connection.input.holds_buffers() || connection.holding);
            let thirsty = self.thirsty.count(id);
            assert_eq!(thirsty, usize::from(connection.held == Held::Memory));
            let spanless = self.spanless.count(id);
            assert_eq!(spanless, usize::from(connection.held == Held::Spans));
            let idle_with_work = connection.can_execute()
                && !connection.runnable
                && begins_with_a_request(connection.input.window());
            assert!(!idle_with_work, "a connection with whole requests is forgotten");
        }
    }
}

/// True of a line, and of a packet, but for short ones whose value has not come.
#[cfg(test)]
fn begins_with_a_request(window: &[u8]) -> bool {
    use crate::base::limits::HEAD_BYTES_MAX;
    use crate::protocol::{binary, memcache};
    let is_whole = |bytes: usize| bytes > HEAD_BYTES_MAX || bytes <= window.len();
    if window.first() != Some(&binary::MAGIC) {
        if let memcache::Parsed::Head { head, consumed } = memcache::parse(window) {
            let value_bytes = |bytes| bytes as usize + memcache::LINE_END.len();
            return is_whole(consumed + head.value_bytes().map_or(0, value_bytes));
        }
        return window.contains(&b'\n');
    }
    match binary::parse(window) {
        binary::Parsed::Partial => false,
        binary::Parsed::Head { head, consumed } => {
            let value_bytes = head.request.stored().map_or(0, |store| store.value_bytes);
            is_whole(consumed + value_bytes as usize)
        }
        binary::Parsed::Invalid { .. } => true,
    }
}
