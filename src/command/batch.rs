//! One call of `drive`: the input, how far it has been consumed, and what is needed to go on.

use super::ahead::foresee;
use super::classes::Class;
use super::costs::Work;
use super::session::{State, Swallowing};
use super::{Budget, Cost, Executor, Verdict};
use crate::base::clock::Now;
use crate::base::hash::KeyHash;
use crate::base::metrics::Metric;
use crate::base::output::Output;
use crate::protocol::memcache::{Blame, Parsed, parse, rest_of_line};
use crate::store::Participant;

pub(super) struct Batch<'b, O> {
    pub executor: &'b mut Executor,
    pub now: Now,
    pub output: &'b mut O,
    pub budget: &'b mut Budget,
    pub input: &'b [u8],
    pub consumed: usize,
    /// What the requests up to here need was asked for.
    foreseen: usize,
}

/// What the next step does to `drive`: `None` goes on, a verdict stops it.
pub(super) type Step = Option<Verdict>;

impl<'b, O: Output> Batch<'b, O> {
    pub fn new(
        executor: &'b mut Executor,
        input: &'b [u8],
        now: Now,
        budget: &'b mut Budget,
        output: &'b mut O,
    ) -> Batch<'b, O> {
        Batch { executor, now, output, budget, input, consumed: 0, foreseen: 0 }
    }

    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// The input that was not consumed yet.
    #[inline]
    pub fn rest(&self) -> &'b [u8] {
        &self.input[self.consumed..]
    }

    pub fn consume(&mut self, bytes: usize) {
        self.consumed += bytes;
    }

    pub fn participant(&mut self) -> &mut Participant {
        &mut self.executor.participant
    }

    pub fn hash(&self, key: &[u8]) -> KeyHash {
        self.executor.participant.table().hash(key)
    }

    #[inline]
    pub fn count(&self, metric: Metric) {
        self.executor.counters.bump(metric);
    }

    /// Counts a request by its class: when it is answered, or begins to be.
    #[inline]
    pub fn classify(&mut self, class: Class) {
        self.executor.classes.count(class, 1);
    }

    pub fn reply(&mut self, bytes: &[u8], noreply: bool) {
        if !noreply {
            self.output.put(bytes);
        }
    }

    /// What keeps a request, or a key, from being executed now.
    #[inline]
    pub fn obstacle(&self) -> Option<Verdict> {
        if self.output.is_full() {
            return Some(Verdict::OutputFull);
        }
        (self.budget.requests == 0).then_some(Verdict::Yield)
    }

    /// Pays for a request or key.
    ///
    /// # Panics
    /// If there is an obstacle.
    #[inline]
    pub fn pay(&mut self) {
        self.budget.requests -= 1;
    }

    /// True of work that somebody else is to do.
    #[inline]
    pub fn must_defer(&self, work: Work) -> bool {
        self.budget.cost == Cost::Bounded && work.is_long()
    }

    /// Reads the next head.
    #[inline]
    pub fn idle(&mut self, state: &mut State) -> Step {
        if self.rest().is_empty() {
            return Some(Verdict::NeedInput);
        }
        match parse(self.rest()) {
            Parsed::Keys { list, consumed } => {
                self.consume(consumed);
                self.start_list(list, state);
                None
            }
            Parsed::Partial => Some(Verdict::NeedInput),
            Parsed::Head { head, consumed } => {
                if let Some(verdict) = self.obstacle() {
                    return Some(verdict);
                }
                if self.must_defer(Work::of(&head)) {
                    return Some(Verdict::Defer);
                }
                if self.consumed >= self.foreseen {
                    let seen = foresee(self.rest(), &self.executor.participant);
                    self.foreseen = self.consumed + seen.max(1);
                }
                self.pay();
                self.count(Metric::Requests);
                self.consume(consumed);
                let step = self.execute(&head, state);
                if step == Some(Verdict::WouldWait) {
                    self.take_back(consumed);
                    return step;
                }
                if let Some(class) = Self::class_of(&head) {
                    self.classify(class);
                }
                step
            }
            Parsed::Invalid { error, noreply, consumed } => {
                if let Some(verdict) = self.obstacle() {
                    return Some(verdict);
                }
                self.pay();
                self.count(Metric::Requests);
                self.classify(Class::Other);
                self.consume(consumed);
                self.reply(error.reply(), noreply);
                match error.blame() {
                    Blame::Request => None,
                    Blame::Stream => Some(self.close(state)),
                }
            }
        }
    }

    /// As if a request had not been looked at: it will be shown again.
    #[cold]
    fn take_back(&mut self, consumed: usize) {
        self.budget.requests += 1;
        self.executor.counters.sub(Metric::Requests, 1);
        self.consumed -= consumed;
    }

    pub fn close(&mut self, state: &mut State) -> Verdict {
        *state = State::Closed;
        Verdict::Close
    }

    /// Consumes a value that is of no use.
    pub fn swallow(&mut self, state: &mut State) -> Step {
        let State::Swallowing(Swallowing { bytes, reply }) = state else { unreachable!() };
        let left = usize::try_from(*bytes).unwrap_or(usize::MAX);
        let taken = self.rest().len().min(left);
        // Lossless: no target has a wider usize.
        *bytes -= taken as u64;
        let (bytes, reply) = (*bytes, *reply);
        self.consume(taken);
        if bytes > 0 {
            return Some(Verdict::NeedInput);
        }
        if !reply.is_empty() && self.output.is_full() {
            return Some(Verdict::OutputFull);
        }
        self.output.put(reply);
        *state = State::Idle;
        None
    }

    /// Consumes the rest of a line that is of no use.
    pub fn skip_line(&mut self, state: &mut State) -> Step {
        let (bytes, ended) = rest_of_line(self.rest());
        self.consume(bytes);
        if !ended {
            return Some(Verdict::NeedInput);
        }
        *state = State::Idle;
        None
    }
}
