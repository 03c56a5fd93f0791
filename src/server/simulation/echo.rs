//! What the simulated ring serves.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::clock::Now;
use crate::base::limits::PIECE_BYTES_MAX;
use crate::base::output::Spanning;
use crate::base::sync::Arc;
use crate::command::{Budget, Cost, Progress, Verdict};
use crate::server::service::Service;
use crate::sys::blocks::BLOCK_BYTES;
use crate::sys::region::{Loan, Span};

/// A slow line takes so long at least, if its digit is not 0.
pub const SLOW_NS: u64 = 10_000;

/// A protocol with every verdict: a line is answered by itself, repeated as often as its first
/// digit says; `b` lines a hundred times more, `d` lines are long work, `w` lines are put off up to
/// three times, `v` lines until they are refused, `s` lines take so many times `SLOW_NS`, `q`
/// closes.
#[derive(Debug, Default)]
pub struct Echo {
    awake: bool,
    loans_max: usize,
    lent: usize,
    pub overdrawn: usize,
    pub starved: usize,
    /// True when whoever waits for memory is refused.
    refuses: bool,
    spare: Vec<Loan>,
    elapsed_ns: Arc<AtomicU64>,
}

impl Echo {
    /// One that is awake, whose slow lines let this clock go on.
    pub fn new(elapsed_ns: &Arc<AtomicU64>, loans_max: usize) -> Echo {
        Echo { awake: true, loans_max, elapsed_ns: Arc::clone(elapsed_ns), ..Echo::default() }
    }
}

/// What an echo connection remembers.
#[derive(Debug, Default)]
pub struct Seen {
    requests: usize,
    /// How often the next request was put off.
    waited: u8,
    /// What is left of a long reply, which is written piece by piece.
    rest: Vec<u8>,
}

fn digit(line: &[u8]) -> u8 {
    line.iter().find(|byte| byte.is_ascii_digit()).map_or(1, |digit| digit - b'0')
}

fn reply(line: &[u8], seen: usize) -> Vec<u8> {
    let times = usize::from(digit(line)) * if line.starts_with(b"b") { 100 } else { 1 };
    let mut reply = format!("{seen}:").into_bytes();
    reply.extend(line.repeat(times));
    reply
}

/// All that a stream of requests deserves.
pub fn replies(requests: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for (seen, line) in requests.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if line.starts_with(b"q") || !line.ends_with(b"\n") {
            break;
        }
        all.extend(reply(line, seen));
    }
    all
}

impl Service for Echo {
    type Session = Seen;

    fn drive(
        &mut self,
        seen: &mut Seen,
        input: &[u8],
        _now: Now,
        budget: &mut Budget,
        output: &mut impl Spanning<Span>,
    ) -> Progress {
        assert!(self.awake, "a service is driven while it rests");
        let mut consumed = 0;
        loop {
            while !seen.rest.is_empty() {
                if output.is_full() {
                    return Progress { consumed, verdict: Verdict::OutputFull };
                }
                let piece = seen.rest.len().min(PIECE_BYTES_MAX);
                output.put(&seen.rest[..piece]);
                seen.rest.drain(..piece);
            }
            let rest = &input[consumed..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                return Progress { consumed, verdict: Verdict::NeedInput };
            };
            let line = &rest[..=end];
            let verdict = if output.is_full() {
                Verdict::OutputFull
            } else if budget.requests == 0 {
                Verdict::Yield
            } else if line.starts_with(b"d") && budget.cost == Cost::Bounded {
                Verdict::Defer
            } else if line.starts_with(b"w") && seen.waited < digit(line) % 4 {
                seen.waited += 1;
                Verdict::WouldWait
            } else if line.starts_with(b"v") && !self.refuses {
                Verdict::WouldWait
            } else if line.starts_with(b"q") {
                Verdict::Close
            } else {
                // As of a value, the head comes first, and the rest when there is room.
                let mut rest = reply(line, seen.requests);
                let head: Vec<_> = rest.drain(..rest.len().min(10)).collect();
                output.put(&head);
                seen.rest = rest;
                seen.requests += 1;
                seen.waited = 0;
                if line.starts_with(b"s") {
                    let ns = SLOW_NS * u64::from(digit(line));
                    self.elapsed_ns.fetch_add(ns, Ordering::Relaxed);
                }
                budget.requests -= 1;
                consumed += line.len();
                continue;
            };
            return Progress { consumed, verdict };
        }
    }

    fn abandon(&mut self, _: &mut Seen) {}

    fn quiesce(&mut self) {
        assert!(self.awake);
    }

    fn rest(&mut self) {
        assert!(std::mem::replace(&mut self.awake, false));
    }

    fn wake(&mut self) {
        assert!(!std::mem::replace(&mut self.awake, true));
    }

    fn lend(&mut self) -> Option<Loan> {
        if self.lent == self.loans_max {
            return None;
        }
        self.lent += 1;
        self.spare.pop().or_else(|| Loan::map(4 * BLOCK_BYTES).ok())
    }

    fn take_back(&mut self, loan: Loan) {
        self.lent -= 1;
        self.spare.push(loan);
    }

    fn overdrawn_bytes(&self) -> usize {
        self.overdrawn
    }

    fn starved_bytes(&mut self) -> usize {
        self.starved
    }

    fn refuse_arrivals(&mut self, _: Now) {
        self.refuses = true;
    }

    /// A connection that has sent a few lines and no more holds something.
    fn held_bytes(&self, seen: &Seen) -> usize {
        if seen.requests <= 3 { 1000 * seen.requests } else { 0 }
    }

    fn is_amid_reply(&self, seen: &Seen) -> bool {
        !seen.rest.is_empty()
    }

    fn lendable_bytes(&self) -> usize {
        (self.loans_max - self.lent) * 4 * BLOCK_BYTES
    }

    fn pool_bytes(&self) -> usize {
        self.loans_max * 4 * BLOCK_BYTES
    }
}
