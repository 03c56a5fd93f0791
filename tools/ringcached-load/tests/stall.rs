//! What a stall looks like in an open loop and in a closed one, in a world where time is a number.
//!
//! The server of this world answers one request after the other, each in the same time, and does
//! nothing during its stall. So every latency can be computed beforehand, and must be met exactly.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::rc::Rc;

use clap::Parser;
use ringcached_load::client::{Client, Findings, Orders, Pace, Share};
use ringcached_load::options::Options;
use ringcached_load::schedule::{Arrivals, Timetable};
use ringcached_load::tally::Tally;
use ringcached_load::workload::Workload;
use ringcached_load::world::{Interest, Ready, World};

const MS: u64 = 1_000_000;
const SERVICE_NS: u64 = 10_000;
const START_NS: u64 = 5 * MS;
const REPLY: &[u8] = b"END\r\n";

/// The world: its time, and the server in it.
struct Net {
    now_ns: u64,
    /// The server works on what it has until then.
    busy_until_ns: u64,
    stall_ns: Range<u64>,
    /// When the replies on each connection come.
    replies_ns: Vec<VecDeque<u64>>,
}

#[derive(Clone)]
struct Handle(Rc<RefCell<Net>>);

struct Line {
    net: Handle,
    index: usize,
}

impl Net {
    /// When a request that comes at `now_ns` is answered.
    fn answer(&mut self, now_ns: u64) -> u64 {
        let mut begin_ns = self.busy_until_ns.max(now_ns);
        if self.stall_ns.contains(&begin_ns) {
            begin_ns = self.stall_ns.end;
        }
        self.busy_until_ns = begin_ns + SERVICE_NS;
        self.busy_until_ns
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let net = &mut *self.net.0.borrow_mut();
        for _ in bytes.iter().filter(|byte| **byte == b'\n') {
            let reply_ns = net.answer(net.now_ns);
            net.replies_ns[self.index].push_back(reply_ns);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let net = &mut *self.net.0.borrow_mut();
        let replies = &mut net.replies_ns[self.index];
        let mut used = 0;
        while replies.front().is_some_and(|ns| *ns <= net.now_ns) {
            replies.pop_front();
            buffer[used..used + REPLY.len()].copy_from_slice(REPLY);
            used += REPLY.len();
        }
        if used == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(used) }
    }
}

impl World for Handle {
    type Socket = Line;

    fn now_ns(&self) -> u64 {
        self.0.borrow().now_ns
    }

    fn add(&mut self, _socket: &Line, _index: usize) -> io::Result<()> {
        Ok(())
    }

    fn watch(&mut self, _socket: &Line, _index: usize, _interest: Interest) -> io::Result<()> {
        Ok(())
    }

    /// Jumps to the next reply, or to the end of the wait.
    fn wait(&mut self, until_ns: u64) -> io::Result<usize> {
        let net = &mut *self.0.borrow_mut();
        let next_ns = net.replies_ns.iter().filter_map(|line| line.front()).min().copied();
        net.now_ns = next_ns.unwrap_or(u64::MAX).min(until_ns).max(net.now_ns);
        Ok(usize::from(next_ns.is_some_and(|ns| ns <= net.now_ns)))
    }

    fn ready(&self, _at: usize) -> Ready {
        let net = self.0.borrow();
        let index =
            net.replies_ns.iter().position(|line| line.front().is_some_and(|ns| *ns <= net.now_ns));
        Ready { index: index.unwrap(), readable: true, writable: false }
    }
}

fn net(connections: usize, stall_ns: Range<u64>) -> Net {
    Net {
        now_ns: START_NS,
        busy_until_ns: 0,
        stall_ns,
        replies_ns: vec![VecDeque::new(); connections],
    }
}

fn run(connections: u32, stall_ns: Range<u64>, line: &str) -> (Findings, Orders) {
    let options = Options::parse_from(["x", "-k", "10"].into_iter().chain(line.split(' ')));
    let net = Handle(Rc::new(RefCell::new(net(connections as usize, stall_ns))));
    let lines = (0..connections as usize).map(|index| Line { net: net.clone(), index }).collect();
    let workload = Workload::new(options.mix().unwrap(), options.seed).unwrap();
    let (share, orders) = (Share::whole(connections), options.orders());
    let mut client = Client::new(net, lines, workload, share, orders.depth).unwrap();
    (client.run(orders).unwrap(), orders)
}

/// The latencies that users see whose requests are due in the second after `from_ns`, the schedule
/// having begun at the start and the server being as it is.
fn expected(orders: &Orders, connections: u32, from_ns: u64, stall_ns: Range<u64>) -> Tally {
    let Pace::Open { rate, arrivals, seed } = orders.pace else { unreachable!("an open loop") };
    let mut all_ns = Vec::new();
    for index in 0..connections {
        let mut table = Timetable::new(arrivals, rate, (index, connections), START_NS, seed);
        while table.due_ns() < from_ns + 1000 * MS {
            all_ns.push(table.due_ns());
            table.take();
        }
    }
    all_ns.sort_unstable();
    let (mut net, mut tally) = (net(0, stall_ns), Tally::new().unwrap());
    for due_ns in all_ns {
        let latency_ns = net.answer(due_ns) - due_ns;
        if due_ns >= from_ns {
            tally.latency_ns.record(latency_ns).unwrap();
        }
    }
    tally
}

const STALL: Range<u64> = START_NS + 300 * MS..START_NS + 600 * MS;

#[test]
fn a_closed_loop_hides_the_stall() {
    let (findings, _) = run(1, STALL, "-t 1 --warm-up 0");
    let latency_ns = &findings.tally.latency_ns;
    // 700 ms of work, less the request that is under way when the second is over.
    assert_eq!(latency_ns.len(), 70_000);
    assert!(latency_ns.equivalent(latency_ns.value_at_quantile(0.9999), SERVICE_NS));
    assert!(latency_ns.equivalent(latency_ns.max(), 300 * MS + SERVICE_NS));
    assert_eq!(latency_ns.count_between(2 * SERVICE_NS, u64::MAX), 1, "one request saw it");
}

#[test]
fn an_open_loop_shows_the_stall_in_full() {
    for (arrivals, connections, depth) in [
        ("uniform", 1, 1000),
        // As one connection holds the requests back in order, it makes no difference that they
        // wait in the client: their latency counts from when they were due.
        ("uniform", 1, 1),
        ("uniform", 3, 1000),
        ("poisson", 1, 1000),
        ("poisson", 1, 1),
        ("poisson", 3, 1000),
    ] {
        let line = format!(
            "--rate 2000 --arrivals {arrivals} -d {depth} -t 1 --warm-up 0 -c {connections}"
        );
        let (findings, orders) = run(connections, STALL, &line);
        let expected = expected(&orders, connections, START_NS, STALL).latency_ns;
        let latency_ns = &findings.tally.latency_ns;
        assert_eq!(*latency_ns, expected, "{line}: {}", latency_ns.len());
        assert_eq!(findings.tally.lag_ns.max(), 0, "the client takes no time here");
        // Three tenths of the requests are due while the server stalls, and wait 150 ms on average.
        let late = latency_ns.count_between(MS, u64::MAX) as f64 / latency_ns.len() as f64;
        assert!((0.27..0.33).contains(&late), "{late} of {line}");
        assert!(latency_ns.value_at_quantile(0.85) > 140 * MS, "{line}");
    }
}

#[test]
fn what_happens_in_the_warm_up_is_not_counted() {
    // The second stall lasts 50 ms longer than the warm-up.
    for end_ms in [300, 550] {
        let stall_ns = START_NS + 100 * MS..START_NS + end_ms * MS;
        let from_ns = START_NS + 500 * MS;
        let marks = |findings: &Findings| (findings.from.ns, findings.to.ns);

        let (closed, _) = run(1, stall_ns.clone(), "-t 1 --warm-up 0.5");
        assert_eq!(marks(&closed), (from_ns, from_ns + 1000 * MS));
        let latency_ns = &closed.tally.latency_ns;
        assert!(latency_ns.equivalent(latency_ns.max(), SERVICE_NS), "{end_ms}");
        let replies = (closed.to.counts - closed.from.counts).replies;
        assert!(replies.abs_diff(latency_ns.len()) <= 1, "{replies}");
        assert!(closed.tally.counts.replies > replies, "it was asked, and not counted");

        let line = "-t 1 --warm-up 0.5 --rate 2000 -d 1000";
        let (open, orders) = run(1, stall_ns.clone(), line);
        assert_eq!(marks(&open), (from_ns, from_ns + 1000 * MS));
        let expected = expected(&orders, 1, from_ns, stall_ns).latency_ns;
        assert_eq!(open.tally.latency_ns, expected, "{end_ms}");
        assert_eq!(expected.max() > 45 * MS, end_ms == 550);
    }
}

#[test]
fn what_was_due_and_never_answered_counts_with_the_time_it_waited() {
    let for_ever = START_NS + 300 * MS..u64::MAX / 2;
    let line = "--rate 2000 --arrivals uniform -d 4 -t 1 --warm-up 0 --timeout 2";
    let (findings, _) = run(1, for_ever, line);
    // 600 before the stall are answered; four were sent, all others never.
    assert_eq!(findings.tally.failures.unanswered, 1400);
    let latency_ns = &findings.tally.latency_ns;
    assert_eq!(latency_ns.len(), 2000);
    // The last news is a request at the beginning of the stall; two seconds later it is given up.
    assert!(latency_ns.equivalent(latency_ns.max(), 2000 * MS), "{}", latency_ns.max());
    assert_eq!(latency_ns.count_between(1000 * MS, u64::MAX), 1400);
}

#[test]
fn poisson_is_the_pace_unless_said_otherwise() {
    let Pace::Open { arrivals, .. } = run(1, 0..0, "--rate 10 -t 1").1.pace else {
        unreachable!("an open loop")
    };
    assert_eq!(arrivals, Arrivals::Poisson);
}
