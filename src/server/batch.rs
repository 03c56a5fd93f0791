//! The part of a connection that travels to a worker and back, and its execution.

use crate::base::clock::Now;
use crate::base::metrics::{Counters, Distribution};
use crate::base::slots::SlotId;
use crate::command::{Budget, Cost, Progress, Verdict};
use crate::net::input::Input;
use crate::net::output::{Blocks, Output, Writer};
use crate::sys::blocks::Block;
use crate::sys::buffers::Filled;

use super::service::Service;

/// A run of whole requests away from its ring. At most one of a connection is away at a time, so
/// replies keep their order by construction.
#[derive(Debug)]
pub struct Batch<S> {
    /// The ring that the batch belongs to.
    pub ring: usize,
    pub slot: SlotId,
    pub session: S,
    pub input: Input,
    pub reply: Output,
    /// Unsent bytes of the reply from which on the batch must go home.
    pub limit_bytes: usize,
    /// Bytes of spans beside them.
    pub span_bytes: usize,
    /// Whether there may be spans however much is sent from where it lies.
    pub takes_any_span: bool,
    /// Most requests that may be executed; on the way home, those that were.
    pub requests: u32,
    /// Blocks to write the reply in.
    pub spare: Vec<Block>,
    /// Buffers that are read, and go home with the batch.
    pub spent: Vec<Filled>,
    /// When its bytes came, and when it was put into the queue.
    pub came_ns: u64,
    pub queued_ns: u64,
    /// Why the worker stopped.
    pub verdict: Verdict,
}

/// The times of one execution, in nanoseconds since the process started.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When the bytes came, or the connection had its turn last.
    pub came_ns: u64,
    pub begun_ns: u64,
    pub done_ns: u64,
}

impl Times {
    /// Tells how long what was executed has waited and taken.
    #[inline]
    pub fn tell(&self, counters: &Counters, service: &mut impl Service) {
        let Times { came_ns, begun_ns, done_ns } = *self;
        // What comes first in its turn has not waited.
        counters.record_small(Distribution::BatchWait, begun_ns.saturating_sub(came_ns), 1);
        counters.record(Distribution::BatchRun, done_ns.saturating_sub(begun_ns), 1);
        service.tell_latency(done_ns.saturating_sub(came_ns));
    }
}

/// Turns of a connection are multiples of so many requests: that many are looked up together.
const REQUESTS_STEP: u32 = 32;

/// Requests of a turn in which so many are asked for.
pub fn requests_of_turn(requests: u32) -> u32 {
    requests.checked_next_multiple_of(REQUESTS_STEP).unwrap_or(u32::MAX)
}

/// How far one execution may go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests until the next connection has its turn: `-R`.
    pub requests: u32,
    pub cost: Cost,
    /// Unsent bytes from which on the peer must read first.
    pub output_bytes: usize,
    /// Bytes of spans beside them.
    pub span_bytes: usize,
    /// Whether there may be spans however much is sent from where it lies.
    pub takes_any_span: bool,
}

/// Executes the requests of one input until a verdict. `NeedInput` means that nothing whole is
/// left.
pub fn execute<V: Service, B: Blocks>(
    service: &mut V,
    parts: (&mut V::Session, &mut Input, &mut Output),
    (blocks, spent): (&mut B, &mut Vec<Filled>),
    now: Now,
    limits: Limits,
) -> (Verdict, u32) {
    let (session, input, output) = parts;
    let writer = Writer::new(output, blocks, limits.output_bytes);
    let mut writer = writer.with_room_for_spans(limits.span_bytes, limits.takes_any_span);
    let mut budget = Budget { requests: limits.requests, cost: limits.cost };
    // A session in the middle of a long reply goes on without any input.
    let mut has_begun = false;
    let verdict = loop {
        let window = input.window();
        if window.is_empty() && has_begun {
            break Verdict::NeedInput;
        }
        has_begun = true;
        let shown = window.len();
        let Progress { consumed, verdict } =
            service.drive(session, window, now, &mut budget, &mut writer);
        input.consume(consumed, spent);
        match verdict {
            // Nothing whole is left of what was shown: there may be more behind it.
            Verdict::NeedInput
                if input.window().len() > shown - consumed || input.extend(spent) => {}
            Verdict::NeedInput
            | Verdict::OutputFull
            | Verdict::Yield
            | Verdict::Defer
            | Verdict::WouldWait
            | Verdict::SpansFull
            | Verdict::Watch
            | Verdict::Close
            | Verdict::Shutdown => break verdict,
        }
    };
    (verdict, limits.requests - budget.requests)
}
