//! The null server: ringcached's ring loop around a service that does nothing.
//!
//! What it costs is what the kernel, the rings and the connections cost. What ringcached costs
//! beyond it is parsing, looking up and copying values.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ringcached::base::clock::{Clock, Now};
use ringcached::base::metrics::Registry;
use ringcached::base::output::Output;
use ringcached::command::{Budget, Progress, Verdict};
use ringcached::config::Dispatch;
use ringcached::net::throttle::Throttle;
use ringcached::server::launch::{Shape, Sockets, launch};
use ringcached::server::service::Service;
use ringcached::sys::ladder::Rung;
use ringcached::sys::limits;
use ringcached::sys::region::Loan;
use ringcached::sys::socket::Listener;

use crate::options::NullOptions;

const BACKLOG: i32 = 1024;
/// Files that are no connections, amply.
const OTHER_FILES: u64 = 64;
const LOAN_BYTES: usize = 1 << 20;
/// Loans that all connections share.
const LOANS_MAX: usize = 64;

/// Answers every `request_bytes` bytes with `reply`.
#[derive(Debug)]
pub struct Null {
    request_bytes: usize,
    reply: Arc<[u8]>,
    lent: usize,
    spare: Vec<Loan>,
}

impl Null {
    pub fn new(key_bytes: usize, value_bytes: usize) -> Null {
        let key = "0".repeat(key_bytes);
        let value = "v".repeat(value_bytes);
        let reply = format!("VALUE {key} 0 {value_bytes}\r\n{value}\r\nEND\r\n");
        let request_bytes = format!("get {key}\r\n").len();
        Null { request_bytes, reply: reply.into_bytes().into(), lent: 0, spare: Vec::new() }
    }
}

impl Service for Null {
    /// The bytes of an incomplete request are not consumed, and so need no memory.
    type Session = ();

    fn drive(
        &mut self,
        _session: &mut (),
        input: &[u8],
        _now: Now,
        budget: &mut Budget,
        output: &mut impl Output,
    ) -> Progress {
        let whole = input.len() / self.request_bytes;
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
            output.put(&self.reply);
            budget.requests -= 1;
            done += 1;
        };
        Progress { consumed: done * self.request_bytes, verdict }
    }

    fn abandon(&mut self, _session: &mut ()) {}

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
        rings: 1,
        workers: 0,
        dispatch: Dispatch::Inline,
        connections_max: options.connections,
        // Nobody is to be treated fairly here.
        requests_per_event: u32::MAX,
        idle_timeout_s: 0,
        throttle: Throttle::default(),
        rung: Rung::LOWEST,
    };
    let (key_bytes, value_bytes) = (usize::from(options.key_bytes), options.value_bytes as usize);
    let registry = Registry::default();
    let service = move |_counters| Null::new(key_bytes, value_bytes);
    launch(shape, sockets, &registry, &Clock::start(), service)
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
            let progress = null.drive(&mut (), input, now, &mut budget, &mut output);
            let text = String::from_utf8(output.take()).unwrap();
            (progress.consumed, progress.verdict, text)
        };
        let three = b"get k001\r\nget k002\r\nget k0";
        assert_eq!(drive(three, 9, 999), (20, Verdict::NeedInput, reply.repeat(2)));
        assert_eq!(drive(three, 1, 999), (10, Verdict::Yield, reply.to_owned()));
        assert_eq!(drive(three, 9, 1), (10, Verdict::OutputFull, reply.to_owned()));
        assert_eq!(drive(b"get", 9, 999), (0, Verdict::NeedInput, String::new()));
    }
}
