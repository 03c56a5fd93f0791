//! Who executes a batch, and what follows from its verdict.

use crate::base::metrics::{Distribution, Metric};
use crate::base::slots::SlotId;
use crate::command::{Cost, Verdict};
use crate::config::Dispatch;
use crate::net::close::CloseReason;
use crate::net::connection::{Connection, Event, Held};
use crate::net::input::Input;
use crate::net::output::Output;
use crate::server::batch::{Batch, Limits, Times, execute, requests_of_turn};
use crate::server::service::Service;
use crate::sys::blocks::BLOCK_BYTES;
use crate::sys::ring::Ring;

use super::RingLoop;
use super::memory::{BLOCKS_KEPT, BLOCKS_NEEDED};
#[cfg(test)]
use super::upkeep::OUTPUT_BYTES_MAX;

/// Requests after which a turn ends, so that the first replies do not wait for the last request.
const TURN_REQUESTS_MAX: u32 = 4096;

/// Time after which a turn ends, whatever is left: completions are taken first, and who came
/// meanwhile stands in line with the others. To enter the kernel takes one or two microseconds, so
/// that this costs less than a hundredth; and a fifth of the millisecond that a small request may
/// take at the worst.
const TURN_NS_MAX: u64 = 200_000;

/// A connection that takes longer for one of its turns, and wants to go on, goes on at a worker, if
/// there are any: half of a turn. Requests that cost what they should take a tenth of that.
const SHARE_NS_MAX: u64 = TURN_NS_MAX / 2;

/// Most blocks that travel with a batch.
pub(super) const SPARE_BLOCKS: usize = 8;

/// Most blocks of one connection: those of an output that is not full yet, and then the spare ones
/// of a batch, which are more than what a ring writes before it looks again.
#[cfg(test)]
pub(super) const BLOCKS_MAX: usize = OUTPUT_BYTES_MAX / BLOCK_BYTES + SPARE_BLOCKS;

/// Batches that may wait for workers with their requests in receive buffers: of who waits behind
/// so many they are copied, as the ring needs its buffers.
const BATCHES_KEEPING_BUFFERS: usize = 2;

/// Boxes that are kept for later batches.
const SPARE_BOXES: usize = 64;

/// What a ring itself has executed in one turn.
#[derive(Debug, Default)]
pub(super) struct Done {
    batches: u64,
    requests: u64,
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Puts a connection at the end of the queue of those whose input is executed.
    pub(super) fn make_runnable(&mut self, id: SlotId) {
        if let Some(connection) = self.connections.get_mut(id)
            && connection.can_execute()
            && !connection.runnable
        {
            connection.runnable = true;
            connection.came_ns = self.read_ns;
            self.runnable.push_back(id);
        }
    }

    pub(super) fn run_runnable(&mut self) {
        let (mut left, begun_ns) = (TURN_REQUESTS_MAX, self.read_ns);
        self.may_borrow = true;
        self.spanless.begin_turn();
        // Who has waited for memory comes before who has not.
        while left > 0
            && let Some(id) = self.next_thirsty()
        {
            left = left.saturating_sub(self.run_one(id));
            left = if self.is_over(begun_ns) { 0 } else { left };
        }
        while left > 0
            && let Some(id) = self.next_spanless().or_else(|| self.runnable.pop_front())
        {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.runnable = false;
            if !connection.can_execute() {
                continue;
            }
            if connection.bucket.is_some() && self.must_wait_for_rate(id) {
                continue;
            }
            if !self.may_write(id) {
                continue;
            }
            left = left.saturating_sub(self.run_one(id));
            left = if self.is_over(begun_ns) { 0 } else { left };
        }
        self.is_cut = left == 0 && !self.runnable.is_empty();
        self.counters.add(Metric::TurnsOverBudget, u64::from(self.is_over(begun_ns)));
        let Done { batches, requests } = std::mem::take(&mut self.done);
        self.counters.record_small(Distribution::TurnBatches, batches, 1);
        self.counters.record_small(Distribution::TurnRequests, requests, 1);
    }

    /// True when the turn has taken its time; as of the last look at the clock, after a batch.
    fn is_over(&self, begun_ns: u64) -> bool {
        self.read_ns.saturating_sub(begun_ns) > TURN_NS_MAX
    }

    /// Executes what a connection asks for, here or elsewhere. Returns how many requests that was,
    /// at least 1.
    fn run_one(&mut self, id: SlotId) -> u32 {
        let Some(connection) = self.connections.get_mut(id) else { return 1 };
        match self.settings.dispatch {
            Dispatch::Queue if !connection.input.is_empty() => {
                self.send_away(id);
                1
            }
            Dispatch::Auto if connection.spends_much && !connection.input.is_empty() => {
                self.counters.bump(Metric::BatchesOverBudget);
                self.send_away(id);
                1
            }
            Dispatch::Inline | Dispatch::Auto | Dispatch::Queue => self.execute_here(id).max(1),
        }
    }

    fn execute_here(&mut self, id: SlotId) -> u32 {
        let Some(connection) = self.connections.get_mut(id) else { return 0 };
        let cost = match self.fleet.dispatch.has_workers() {
            true => Cost::Bounded,
            false => Cost::Any,
        };
        let unsent_bytes = connection.output.unsent_bytes();
        let output_bytes = self.output_limit(unsent_bytes);
        let Some(connection) = self.connections.get_mut(id) else { return 0 };
        connection.awaits_much = false;
        let requests = requests_of_turn(self.settings.requests_per_event);
        let (bucket, waiting_bytes) = (connection.bucket, connection.input.bytes());
        let requests = requests.min(self.requests_by_rate(bucket));
        let Some(connection) = self.connections.get_mut(id) else { return 0 };
        let spanned_bytes = connection.output.spanned_bytes();
        let span_bytes = self.upkeep.output_bytes.saturating_sub(spanned_bytes);
        let takes_any_span = self.spanless.takes_any(id);
        let limits = Limits { requests, cost, output_bytes, span_bytes, takes_any_span };
        let came_ns = connection.came_ns;
        let parts = (&mut connection.session, &mut connection.input, &mut connection.output);
        let memory = (self.ring.blocks(), &mut self.spent);
        let (verdict, requests) = execute(&mut self.service, parts, memory, self.now, limits);
        let read = waiting_bytes - connection.input.bytes();
        connection.record_taken(read, requests);
        let written = connection.output.unsent_bytes() - unsent_bytes;
        // One batch begins when the one before it is done: one look at the clock for each.
        let begun_ns = std::mem::replace(&mut self.read_ns, self.clock.elapsed_ns());
        let times = Times { came_ns, begun_ns, done_ns: self.read_ns };
        times.tell(&self.counters, &mut self.service);
        connection.spends_much =
            verdict == Verdict::Yield && self.read_ns.saturating_sub(begun_ns) > SHARE_NS_MAX;
        if bucket.is_some() {
            self.charge(bucket, requests, read + written);
            self.go_on_by_rate(bucket, id);
        }
        self.done.batches += 1;
        self.done.requests += u64::from(requests);
        if verdict != Verdict::Defer {
            // Otherwise it is counted when it comes home.
            self.counters.bump(Metric::Batches);
        }
        self.obey(id, verdict);
        requests
    }

    /// Does what a verdict asks for.
    fn obey(&mut self, id: SlotId, verdict: Verdict) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        match verdict {
            Verdict::NeedInput if connection.ended => self.finish(id, self.end_reason()),
            Verdict::NeedInput => {
                connection.record_wait(self.service.awaits_much(&connection.session));
            }
            // It went on writing until the pool was empty, or until the peer must read.
            Verdict::OutputFull if connection.output.unsent_bytes() > 0 => {
                connection.held = Held::Output;
            }
            Verdict::OutputFull => {
                let appetite = self.appetite(id);
                self.thirst(id, appetite);
            }
            Verdict::Yield => {
                self.counters.bump(Metric::ConnYields);
                self.make_runnable(id);
            }
            Verdict::Defer => self.send_away(id),
            Verdict::Watch => self.note_watcher(id),
            Verdict::WouldWait => self.await_item(id),
            Verdict::SpansFull => self.await_span(id),
            Verdict::Close => self.finish(id, CloseReason::Command),
            Verdict::Shutdown => {
                self.fleet.drain();
                self.finish(id, CloseReason::Command);
            }
        }
        self.list(id);
    }

    /// Why a connection ends from which nothing more is to come.
    fn end_reason(&self) -> CloseReason {
        match self.upkeep.draining_since {
            Some(_) => CloseReason::Draining,
            None => CloseReason::Ended,
        }
    }

    /// Reads no more from a connection, and closes it once its replies are sent.
    fn finish(&mut self, id: SlotId, reason: CloseReason) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.input.clear(&mut self.spent);
        connection.end(Event::Finish, reason);
        if connection.output.unsent_bytes() == 0 && !connection.sending {
            connection.record_flushed();
        }
        self.list(id);
    }

    /// Gives a connection's input to a worker, behind those that wait for one.
    pub(super) fn send_away(&mut self, id: SlotId) {
        let is_first = self.queueing.is_empty();
        if is_first && self.offer(id) {
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.held = Held::Queue;
        self.counters.bump(Metric::QueueFull);
        self.queueing.push_back(id);
    }

    /// Offers a connection's input to a worker, unless the peer must read first: a worker knows
    /// only the replies that it writes itself. False when the queue is full, or those in it have
    /// all blocks that they may have.
    fn offer(&mut self, id: SlotId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        if connection.output.is_full(self.upkeep.output_bytes) {
            connection.held = Held::Output;
            return true;
        }
        let bucket = connection.bucket;
        let appetite = self.appetite(id);
        if !self.has_blocks(appetite) {
            self.thirst(id, appetite);
            return true;
        }
        let requests = self.requests_by_rate(bucket);
        // Otherwise the blocks that go with it are the limit.
        let takes_the_last = !self.has_blocks_for_all();
        let limit_bytes = if takes_the_last { 1 } else { usize::MAX };
        let depth = self.fleet.dispatch.depth(self.settings.number);
        // They are kept for those who are executed at once.
        if takes_the_last && depth > 0 {
            return false;
        }
        if depth >= BATCHES_KEEPING_BUFFERS {
            self.empty_buffers_of(id);
        }
        let mut batch = self.empty_batch(id);
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let spanned_bytes = connection.output.spanned_bytes();
        let blocks = self.ring.blocks();
        let share = self.upkeep.output_bytes.div_ceil(BLOCK_BYTES);
        let room = blocks.free().saturating_sub(BLOCKS_KEPT).max(BLOCKS_NEEDED);
        let share = share.clamp(BLOCKS_NEEDED, SPARE_BLOCKS).min(room);
        batch.spare.extend((0..share).map(|_| blocks.take()));
        batch.slot = id;
        batch.limit_bytes = limit_bytes;
        batch.span_bytes = self.upkeep.output_bytes.saturating_sub(spanned_bytes);
        batch.takes_any_span = self.spanless.takes_any(id);
        batch.requests = requests;
        batch.came_ns = connection.came_ns;
        batch.queued_ns = self.read_ns;
        batch.session = std::mem::take(&mut connection.session);
        batch.input = connection.take_input();
        // Before the worker has it: what it executes may be a question for this very figure.
        self.counters.bump(Metric::BatchesAway);
        match self.fleet.dispatch.offer(batch) {
            Ok(has_woken) => {
                self.counters.add(Metric::WorkerWakes, u64::from(has_woken));
                self.counters.record_small(Distribution::QueueDepth, depth as u64 + 1, 1);
                true
            }
            Err(batch) => {
                self.counters.sub(Metric::BatchesAway, 1);
                self.unpack(batch);
                false
            }
        }
    }

    fn empty_batch(&mut self, slot: SlotId) -> Box<Batch<V::Session>> {
        self.spare.pop().unwrap_or_else(|| {
            Box::new(Batch {
                ring: self.settings.number,
                slot,
                session: V::Session::default(),
                input: Input::default(),
                reply: Output::default(),
                limit_bytes: 0,
                span_bytes: 0,
                takes_any_span: false,
                requests: 0,
                came_ns: 0,
                queued_ns: 0,
                spare: Vec::with_capacity(SPARE_BLOCKS),
                spent: Vec::new(),
                verdict: Verdict::NeedInput,
            })
        })
    }

    /// Offers the batches that found no room in the queue, in order, until there is none again.
    pub(super) fn offer_again(&mut self) {
        while let Some(id) = self.queueing.pop_front() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if connection.held != Held::Queue {
                continue;
            }
            connection.held = Held::No;
            if connection.can_execute() && !self.offer(id) {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.held = Held::Queue;
                }
                return self.queueing.push_front(id);
            }
        }
    }

    /// Puts the parts of a batch back into their connection; the box is kept. True when more input
    /// has come in meanwhile.
    fn unpack(&mut self, mut batch: Box<Batch<V::Session>>) -> bool {
        batch.spare.drain(..).for_each(|block| self.ring.blocks().give(block));
        self.spent.append(&mut batch.spent);
        let connection =
            self.connections.get_mut(batch.slot).expect("a connection waits for its batch");
        connection.session = std::mem::take(&mut batch.session);
        let has_more = connection.put_input(std::mem::take(&mut batch.input), &mut self.spent);
        connection.output.append(&mut batch.reply);
        if connection.input.holds_buffers() {
            self.holders.note(batch.slot, connection);
        }
        if self.spare.len() < SPARE_BOXES {
            self.spare.push(batch);
        }
        has_more
    }

    /// A batch has come back from its worker.
    pub(super) fn come_home(&mut self, batch: Box<Batch<V::Session>>) {
        let (id, verdict, requests) = (batch.slot, batch.verdict, batch.requests);
        self.counters.bump(Metric::Batches);
        self.counters.sub(Metric::BatchesAway, 1);
        self.charge_batch(&batch);
        let left_bytes = batch.input.bytes();
        if let Some(connection) = self.connections.get_mut(id) {
            let taken_bytes = connection.away_bytes().saturating_sub(left_bytes);
            connection.record_taken(taken_bytes, requests);
        }
        let has_more = self.unpack(batch);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.spends_much &= verdict == Verdict::Yield;
        }
        if verdict == Verdict::Shutdown {
            // Even where the peer has not waited to be told.
            self.fleet.drain();
        }
        if self.connections.get(id).is_some_and(Connection::can_execute) {
            if has_more && verdict == Verdict::NeedInput {
                self.make_runnable(id);
            } else {
                self.obey(id, verdict);
            }
        }
        self.list(id);
    }
}
