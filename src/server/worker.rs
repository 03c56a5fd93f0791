//! A worker: takes batches from the queues of its rings, executes them on the table, and sends them
//! home. It sleeps when there are none, referring to nothing shared.

use crate::base::clock::Clock;
use crate::base::metrics::{Counters, Distribution, Metric};
use crate::base::sync::Arc;
use crate::command::{Cost, Verdict};

use super::batch::{Batch, Limits, Times, execute, requests_of_turn};
use super::dispatch::Message;
use super::fleet::Fleet;
use super::service::Service;

/// A worker lets a connection go on for this many turns of a ring, if they take no longer than so
/// long together: most requests take a hundredth of that for each turn.
const TURNS: u32 = 32;
const TURNS_NS_MAX: u64 = 200_000;

pub struct Worker<V: Service> {
    pub number: usize,
    pub service: V,
    pub counters: Arc<Counters>,
    pub fleet: Arc<Fleet<V::Session>>,
    pub clock: Clock,
    pub requests_per_event: u32,
    /// Which of its rings comes first.
    pub turn: usize,
    /// Time that batches have taken.
    pub busy_ns: u64,
}

impl<V: Service> Worker<V> {
    pub fn new(
        number: usize,
        (mut service, counters): (V, Arc<Counters>),
        fleet: Arc<Fleet<V::Session>>,
        clock: Clock,
        requests_per_event: u32,
    ) -> Worker<V> {
        service.defer_waits();
        Worker { number, service, counters, fleet, clock, requests_per_event, turn: 0, busy_ns: 0 }
    }

    /// Works until the fleet says that no ring is left.
    pub fn run(mut self) {
        let fleet = Arc::clone(&self.fleet);
        let bed = fleet.dispatch.bed(self.number);
        bed.settle();
        while !fleet.has_ended() {
            if self.work() {
                continue;
            }
            self.service.rest();
            let is_idle = || fleet.dispatch.is_idle(self.number) && !fleet.has_ended();
            if bed.doorbell.lie_down(is_idle) {
                // Whoever takes the flag down unparks; waking for nothing is harmless.
                std::thread::park();
                bed.doorbell.get_up();
            }
            self.service.wake();
        }
        self.service.rest();
    }

    /// Executes one batch, its rings in turn. False when there is none.
    pub(super) fn work(&mut self) -> bool {
        self.turn = self.turn.wrapping_add(1);
        let Some(batch) = self.fleet.dispatch.take(self.number, self.turn) else { return false };
        self.execute(batch);
        self.service.quiesce();
        true
    }

    fn execute(&mut self, mut batch: Box<Batch<V::Session>>) {
        let (came_ns, queued_ns) = (batch.came_ns, batch.queued_ns);
        let begun_ns = self.clock.elapsed_ns();
        let mut done_ns = begun_ns;
        let mut left = self.requests_per_event.saturating_mul(TURNS).min(batch.requests);
        let allowed = left;
        let result = loop {
            let requests = left.min(requests_of_turn(self.requests_per_event));
            let (verdict, requests) = self.take_turn(&mut batch, requests, done_ns);
            left -= requests;
            done_ns = self.clock.elapsed_ns();
            let is_over = left == 0 || done_ns.saturating_sub(begun_ns) > TURNS_NS_MAX;
            if verdict != Verdict::Yield || is_over {
                break verdict;
            }
        };
        let times = Times { came_ns, begun_ns, done_ns };
        times.tell(&self.counters, &mut self.service);
        self.counters.record(Distribution::QueueWait, begun_ns.saturating_sub(queued_ns), 1);
        self.busy_ns += done_ns.saturating_sub(begun_ns);
        self.counters.set(Metric::BusyUs, self.busy_ns / 1000);
        assert!(result != Verdict::Defer, "there is nobody else to give it to");
        batch.verdict = result;
        batch.requests = allowed - left;
        self.counters.bump(Metric::BatchesQueued);
        let ring = batch.ring;
        self.fleet.dispatch.inboxes[ring].push(Message::Home(batch));
    }

    /// Executes so many requests at most; says how many it has, and why it stopped.
    fn take_turn(
        &mut self,
        batch: &mut Batch<V::Session>,
        requests: u32,
        now_ns: u64,
    ) -> (Verdict, u32) {
        let limits = Limits {
            requests,
            cost: Cost::Any,
            output_bytes: batch.limit_bytes,
            span_bytes: batch.span_bytes.saturating_sub(batch.reply.spanned_bytes()),
            takes_any_span: batch.takes_any_span,
        };
        let now = self.clock.at(now_ns);
        let Batch { session, input, reply, spare, spent, .. } = batch;
        execute(&mut self.service, (session, input, reply), (spare, spent), now, limits)
    }
}
