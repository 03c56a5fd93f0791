//! One call of `drive`: the input, how far it has been consumed, and what is needed to go on.

use super::ahead::{Heads, Subject};
use super::classes::Class;
use super::costs::Work;
use super::session::{State, Swallowing};
use super::watching::OTHERS;
use super::{Budget, Cost, Executor, Verdict};
use crate::base::clock::Now;
use crate::base::hash::KeyHash;
use crate::base::limits::HEAD_BYTES_MAX;
use crate::base::metrics::Metric;
use crate::base::output::{Output, Spanning};
use crate::protocol::memcache::{Blame, Head, LINE_END, Parsed, parse, parse_list, rest_of_line};
use crate::store::{Participant, Span};

pub(super) struct Batch<'b, O> {
    pub executor: &'b mut Executor,
    /// The number of the connection.
    pub number: u32,
    pub now: Now,
    pub output: &'b mut O,
    pub budget: &'b mut Budget,
    pub input: &'b [u8],
    pub consumed: usize,
    /// How many `mg` are read ahead: fewer where what was read had to be read again.
    pub gets_ahead: usize,
    heads: Heads<Head<'b>>,
}

/// What the next step does to `drive`: `None` goes on, a verdict stops it.
pub(super) type Step = Option<Verdict>;

impl<'b, O: Output> Batch<'b, O> {
    pub fn new(
        (executor, number): (&'b mut Executor, u32),
        input: &'b [u8],
        now: Now,
        budget: &'b mut Budget,
        output: &'b mut O,
    ) -> Batch<'b, O> {
        Batch {
            executor,
            number,
            now,
            output,
            budget,
            input,
            consumed: 0,
            gets_ahead: usize::MAX,
            heads: Heads::new(),
        }
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

    /// Counts a request for the ranking of keys.
    #[inline]
    pub fn sample<'s>(&mut self, head: &impl Subject<'s>) {
        self.executor.sampler.pass(1, self.now, |_, sample| {
            let _ = head.subject(|key| sample.is_of(key));
        });
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

    /// Pays for what a request has taken beside itself: with all that is left, if that is less.
    pub fn pay_for(&mut self, work: Work) {
        self.budget.requests = self.budget.requests.saturating_sub(work.requests());
    }

    /// True of work that somebody else is to do.
    #[inline]
    pub fn must_defer(&self, work: Work) -> bool {
        self.budget.cost == Cost::Bounded && work.is_long()
    }

    /// False of a request that is as short as a head may be and has not come as a whole: it waits
    /// as one, and keeps no memory from items meanwhile. The value of a longer one arrives in its
    /// item.
    #[inline]
    pub fn is_whole(&self, head_bytes: usize, value_bytes: u32, end_bytes: usize) -> bool {
        // Lossless: usize has 64 bits.
        let bytes = head_bytes + value_bytes as usize + end_bytes;
        bytes > HEAD_BYTES_MAX || bytes <= self.rest().len()
    }

    /// Executes a head of so many bytes, and whose key has that hash, if nothing stands against it.
    #[inline]
    fn begin(&mut self, head: &Head<'_>, bytes: usize, hash: KeyHash, state: &mut State) -> Step {
        if let Some(value_bytes) = head.value_bytes()
            && !self.is_whole(bytes, value_bytes, LINE_END.len())
        {
            return Some(Verdict::NeedInput);
        }
        if let Some(verdict) = self.obstacle() {
            return Some(verdict);
        }
        if self.must_defer(Work::of(head)) {
            return Some(Verdict::Defer);
        }
        self.pay();
        self.count(Metric::Requests);
        self.consume(bytes);
        let step = if self.executor.watches(OTHERS) {
            self.execute_watched(head, hash, state)
        } else {
            self.execute(head, hash, state)
        };
        if matches!(step, Some(Verdict::WouldWait | Verdict::Defer)) {
            self.take_back(bytes);
            return step;
        }
        if let Some(class) = Self::class_of(head) {
            self.classify(class);
        }
        self.sample(head);
        step
    }

    /// As if a request had not been looked at: it will be shown again.
    #[cold]
    pub fn take_back(&mut self, consumed: usize) {
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
        let State::Swallowing(Swallowing { bytes, reply, next }) = state else { unreachable!() };
        let left = usize::try_from(*bytes).unwrap_or(usize::MAX);
        let taken = self.rest().len().min(left);
        // Lossless: no target has a wider usize.
        *bytes -= taken as u64;
        let (bytes, reply, next) = (*bytes, *reply, *next);
        self.consume(taken);
        if bytes > 0 {
            return Some(Verdict::NeedInput);
        }
        if !reply.is_empty() && self.output.is_full() {
            return Some(Verdict::OutputFull);
        }
        self.output.put(reply);
        *state = next.into();
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

impl<O: Spanning<Span>> Batch<'_, O> {
    /// Reads the next head.
    #[inline]
    pub fn idle(&mut self, state: &mut State) -> Step {
        if self.rest().is_empty() {
            return Some(Verdict::NeedInput);
        }
        if let Some(ahead) = self.heads.take(self.consumed) {
            return self.begin(&ahead.head, ahead.bytes, ahead.hash, state);
        }
        let rest = self.rest();
        // What most are is told apart here already.
        if let Some(Parsed::Keys { list, consumed }) = parse_list(rest) {
            self.consume(consumed);
            self.start_list(list, state);
            return None;
        }
        match parse(rest) {
            Parsed::Keys { list, consumed } => {
                self.consume(consumed);
                self.start_list(list, state);
                None
            }
            Parsed::MetaGet { get, consumed } => self.meta_gets(get, consumed, state),
            Parsed::Partial => Some(Verdict::NeedInput),
            Parsed::Head { head, consumed } => {
                let participant = &self.executor.participant;
                self.heads.read((self.input, self.consumed), (head, consumed), participant);
                let ahead = self.heads.take(self.consumed);
                // What is about no key needs no hash.
                let hash = ahead.map_or(KeyHash(0), |ahead| ahead.hash);
                self.begin(&head, consumed, hash, state)
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
                    Blame::Stream => {
                        *state = State::Broken;
                        Some(Verdict::Close)
                    }
                }
            }
        }
    }
}
