//! One connection: what was asked on it and not yet answered, and the bytes under way.
//!
//! Invariant: `requests` holds exactly the requests written (or waiting in `unsent`) and not yet
//! answered, oldest first, and the counts of `starts` add up to as many.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

use crate::failure::Failure;
use crate::reply::{Nonsense, Outcome, Reader, Shape};
use crate::tally::Tally;
use crate::workload::{Request, Workload};

/// Requests that started at one moment.
#[derive(Clone, Copy, Debug)]
struct Start {
    ns: u64,
    count: u64,
}

/// Which latencies are wanted: of requests that started from `from_ns` until before `to_ns`.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from_ns: u64,
    pub to_ns: u64,
}

/// Whether all bytes went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    All,
    Part,
}

#[derive(Debug)]
pub struct Connection<S> {
    socket: S,
    reader: Reader,
    requests: VecDeque<Request>,
    starts: VecDeque<Start>,
    unsent: Vec<u8>,
    /// The beginning of a head or tail whose end has not come.
    rest: Vec<u8>,
    /// It is on the agenda of an open loop.
    pub listed: bool,
    /// When a request could last be sent that could not be sent before.
    pub room_since_ns: u64,
}

impl<S: Read + Write> Connection<S> {
    pub fn new(socket: S, shape: Shape, depth: usize) -> Connection<S> {
        Connection {
            socket,
            reader: Reader::new(shape),
            requests: VecDeque::with_capacity(depth),
            starts: VecDeque::with_capacity(depth),
            unsent: Vec::new(),
            rest: Vec::new(),
            listed: false,
            room_since_ns: 0,
        }
    }

    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Requests without a reply.
    pub fn outstanding(&self) -> usize {
        self.requests.len()
    }

    /// Notes a request that is about to be sent.
    pub fn expect(&mut self, request: Request) {
        self.requests.push_back(request);
    }

    /// Says when the last `count` requests started.
    pub fn started(&mut self, ns: u64, count: u64) {
        self.starts.push_back(Start { ns, count });
    }

    /// Sends, or keeps what the socket does not take.
    pub fn send(&mut self, bytes: &[u8], tally: &mut Tally) -> io::Result<Sent> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(Sent::Part);
        }
        let taken = self.write(bytes, tally)?;
        self.unsent.extend_from_slice(&bytes[taken..]);
        Ok(if taken == bytes.len() { Sent::All } else { Sent::Part })
    }

    /// Sends what was kept, when the socket takes bytes again.
    pub fn flush(&mut self, tally: &mut Tally) -> io::Result<Sent> {
        let unsent = std::mem::take(&mut self.unsent);
        self.send(&unsent, tally)
    }

    fn write(&mut self, bytes: &[u8], tally: &mut Tally) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.socket.write(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        tally.counts.bytes_sent += taken as u64;
        Ok(taken)
    }

    /// Receives once into `buffer`. None: there is nothing to receive yet.
    pub fn receive(&mut self, buffer: &mut [u8], tally: &mut Tally) -> io::Result<Option<usize>> {
        let held = self.rest.len();
        buffer[..held].copy_from_slice(&self.rest);
        loop {
            match self.socket.read(&mut buffer[held..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.rest.clear();
                    tally.counts.bytes_received += count as u64;
                    return Ok(Some(held + count));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Counts the replies in `input`; returns how many there were.
    pub fn take_replies(
        &mut self,
        input: &[u8],
        verify: Option<&Workload>,
        tally: &mut Tally,
    ) -> Result<u64, Nonsense> {
        let mut at = 0;
        let mut replies = 0;
        while at < input.len() {
            let request = *self.requests.front().ok_or(Nonsense)?;
            let step = self.reader.step(&input[at..], request, verify)?;
            let Some(outcome) = step.outcome else {
                self.rest.extend_from_slice(&input[at + step.consumed..]);
                break;
            };
            if matches!(outcome, Outcome::Failed(_)) && tally.first_failure.is_none() {
                let reply = &input[at..at + step.consumed];
                tally.first_failure = Some(describe(request, reply));
            }
            tally.count(outcome);
            self.requests.pop_front();
            at += step.consumed;
            replies += 1;
        }
        Ok(replies)
    }

    /// Records the latencies of the oldest `replies` requests, all answered at `now_ns`.
    pub fn record(&mut self, mut replies: u64, now_ns: u64, span: Span, tally: &mut Tally) {
        while replies > 0 {
            let Some(start) = self.starts.front_mut() else { break };
            let count = replies.min(start.count);
            if (span.from_ns..span.to_ns).contains(&start.ns) {
                let latency_ns = now_ns.saturating_sub(start.ns);
                tally.latency_ns.saturating_record_n(latency_ns, count);
            }
            start.count -= count;
            replies -= count;
            if start.count == 0 {
                self.starts.pop_front();
            }
        }
    }

    /// Gives up all outstanding requests.
    pub fn fail(&mut self, failure: Failure, text: &str, tally: &mut Tally) {
        let lost = self.requests.len().max(1) as u64;
        tally.failures.add(failure, lost);
        if tally.first_failure.is_none() {
            let waiting = self.requests.front().map(|request| format!(", waiting for a {request}"));
            tally.first_failure = Some(format!("{text}{}", waiting.unwrap_or_default()));
        }
        self.requests.clear();
        self.starts.clear();
        self.unsent.clear();
        self.rest.clear();
    }
}

fn describe(request: Request, reply: &[u8]) -> String {
    let shown = &reply[..reply.len().min(80)];
    format!("{request}: {}", shown.escape_ascii())
}
