//! The null server: ringcached's ring loop around a service that does nothing.
//!
//! What it costs is what the kernel, the rings and the connections cost. What ringcached costs
//! beyond it is parsing, looking up and copying values.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ringcached::base::clock::{Clock, Now};
use ringcached::base::metrics::Registry;
use ringcached::base::output::Spanning;
use ringcached::command::{Budget, Progress, Verdict};
use ringcached::config::{Dispatch, Host, Pin, Placement};
use ringcached::net::rate::RateLimits;
use ringcached::net::throttle::Throttle;
use ringcached::server::launch::{Shape, Sockets, launch};
use ringcached::server::service::Service;
use ringcached::sys::ladder::Rung;
use ringcached::sys::limits;
use ringcached::sys::region::{Loan, Span};
use ringcached::sys::socket::Listener;

use crate::options::NullOptions;

const BACKLOG: i32 = 1024;
/// Files that are no connections, amply.
const OTHER_FILES: u64 = 64;
const LOAN_BYTES: usize = 1 << 20;
/// Loans that all connections share.
const LOANS_MAX: usize = 64;

/// Requests of one kind, as many bytes as each is, and what each is answered with.
#[derive(Debug)]
struct Kind {
    request_bytes: usize,
    reply: Arc<[u8]>,
}

/// Answers every so many bytes with the same bytes: gets with one value, and sets with `STORED`.
/// What a connection sends in one go is of one kind, and its first byte says which.
#[derive(Debug)]
pub struct Null {
    gets: Kind,
    sets: Kind,
    lent: usize,
    spare: Vec<Loan>,
}

impl Null {
    pub fn new(key_bytes: usize, value_bytes: usize) -> Null {
        let key = "0".repeat(key_bytes);
        let value = "v".repeat(value_bytes);
        let of = |request: String, reply: String| Kind {
            request_bytes: request.len(),
            reply: reply.into_bytes().into(),
        };
        let gets = of(
            format!("get {key}\r\n"),
            format!("VALUE {key} 0 {value_bytes}\r\n{value}\r\nEND\r\n"),
        );
        let set = format!("set {key} 0 0 {value_bytes}\r\n{value}\r\n");
        Null { gets, sets: of(set, "STORED\r\n".to_owned()), lent: 0, spare: Vec::new() }
    }
}

impl Service for Null {
    /// Bytes of a set that are still to come: they are consumed as they arrive, and kept nowhere.
    /// Those of a get are not consumed before it is whole.
    type Session = usize;

    fn drive(
        &mut self,
        awaited: &mut usize,
        input: &[u8],
        _now: Now,
        budget: &mut Budget,
        output: &mut impl Spanning<Span>,
    ) -> Progress {
        let is_set = *awaited > 0 || input.first() == Some(&b's');
        let Kind { request_bytes, reply } = if is_set { &self.sets } else { &self.gets };
        // As if what has come of a set already stood before the input.
        let before = if *awaited > 0 { request_bytes - *awaited } else { 0 };
        let whole = (before + input.len()) / request_bytes;
        let mut done = 0;
        let verdict = loop {
            if done == whole {
                break Verdict::NeedInput;
            }
            if budget.requests == 0 {
                break Verdict::Yield;
            }
            if output.is_full() {
                break Verdict::OutputFull;
            }
            output.put(reply);
            budget.requests -= 1;
            done += 1;
        };
        let answered = done * request_bytes;
        if done > 0 {
            *awaited = 0;
        }
        if !is_set || verdict != Verdict::NeedInput {
            return Progress { consumed: answered.saturating_sub(before), verdict };
        }
        let rest = before + input.len() - answered;
        *awaited = if rest == 0 { 0 } else { request_bytes - rest };
        Progress { consumed: input.len(), verdict }
    }

    fn abandon(&mut self, _awaited: &mut usize) {}

    fn quiesce(&mut self) {}

    fn rest(&mut self) {}

    fn wake(&mut self) {}

    fn lend(&mut self) -> Option<Loan> {
        if self.lent == LOANS_MAX {
            return None;
        }
        let loan = self.spare.pop().or_else(|| Loan::map(LOAN_BYTES).ok())?;
        self.lent += 1;
        Some(loan)
    }

    fn take_back(&mut self, loan: Loan) {
        self.lent -= 1;
        self.spare.push(loan);
    }

    fn overdrawn_bytes(&self) -> usize {
        0
    }

    fn lendable_bytes(&self) -> usize {
        (LOANS_MAX - self.lent) * LOAN_BYTES
    }

    fn pool_bytes(&self) -> usize {
        LOANS_MAX * LOAN_BYTES
    }
}

/// Serves until it is killed.
pub fn run(options: &NullOptions) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    limits::raise_descriptors(u64::from(options.connections) + OTHER_FILES)
        .map_err(io::Error::other)?;
    let listener = Listener::tcp(address, BACKLOG)?;
    let sockets = Sockets { stream: vec![listener], ..Sockets::default() };
    let shape = Shape {
        maxconns_fast: true,
        rings: 1,
        workers: 0,
        dispatch: Dispatch::Inline,
        connections_max: options.connections,
        // Nobody is to be treated fairly here.
        requests_per_event: u32::MAX,
        idle_timeout_s: 0,
        throttle: Throttle::default(),
        rate: RateLimits::default(),
        rung: Rung::LOWEST,
    };
    let (key_bytes, value_bytes) = (usize::from(options.key_bytes), options.value_bytes as usize);
    let registry = Registry::default();
    let service = move |_counters| Null::new(key_bytes, value_bytes);
    let host = Host::here();
    let placement = Placement::of(&host.processors, &host.limits, Pin::Always, (shape.rings, 0));
    launch((shape, &placement), sockets, &registry, &Clock::start(), service)
        .map_err(|e| io::Error::other(e.to_string()))?
        .join();
    Ok(())
}

#[cfg(test)]
mod tests {
    use ringcached::base::output::Memory;
    use ringcached::command::Cost;

    use super::*;

    #[test]
    fn whole_requests_are_answered_and_the_rest_is_left() {
        let mut null = Null::new(4, 3);
        let now = Clock::start().now();
        let reply = "VALUE 0000 0 3\r\nvvv\r\nEND\r\n";
        let mut drive = |input: &[u8], requests, limit| {
            let mut output = Memory::new(limit);
            let mut budget = Budget { requests, cost: Cost::Any };
            let progress = null.drive(&mut 0, input, now, &mut budget, &mut output);
            let text = String::from_utf8(output.take()).unwrap();
            (progress.consumed, progress.verdict, text)
        };
        let three = b"get k001\r\nget k002\r\nget k0";
        assert_eq!(drive(three, 9, 999), (20, Verdict::NeedInput, reply.repeat(2)));
        assert_eq!(drive(three, 1, 999), (10, Verdict::Yield, reply.to_owned()));
        assert_eq!(drive(three, 9, 1), (10, Verdict::OutputFull, reply.to_owned()));
        assert_eq!(drive(b"get", 9, 999), (0, Verdict::NeedInput, String::new()));
    }
    #[test]
    fn sets_are_consumed_as_they_come_and_answered_when_they_are_whole() {
        let mut null = Null::new(4, 3);
        let now = Clock::start().now();
        let three = b"set k001 0 0 3\r\nabc\r\n".repeat(3);
        for cut in 1..three.len() {
            let (mut awaited, mut replies) = (0, Vec::new());
            for part in [&three[..cut], &three[cut..]] {
                let mut rest = part;
                while !rest.is_empty() {
                    let mut output = Memory::new(999);
                    let mut budget = Budget { requests: 1, cost: Cost::Any };
                    let progress = null.drive(&mut awaited, rest, now, &mut budget, &mut output);
                    replies.extend(output.take());
                    rest = &rest[progress.consumed..];
                }
            }
            assert_eq!((awaited, replies), (0, b"STORED\r\n".repeat(3)), "cut at {cut}");
        }
    }
}
