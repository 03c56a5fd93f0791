//! Large values over the fake ring, with the executor and the store that really take them: cut
//! anywhere, stalled, left in the middle, too large, without their line end; in every dispatch
//! mode, with far less memory than is stored. Every other peer speaks the binary protocol, in which
//! nothing follows a value.

use std::collections::BTreeMap;

use super::seeds::for_each_seed;
use crate::base::clock::{Clock, Now};
use crate::base::hash::KeyHasher;
use crate::base::metrics::{Metric, Registry};
use crate::base::sync::Arc;
use crate::command::{Executor, Facts, Session, Shared};
use crate::config::Dispatch;
use crate::net::throttle::Throttle;
use crate::protocol::binary::{Opcode, PACKET_HEAD_BYTES, Status};
use crate::server::fleet::Fleet;
use crate::server::ring_loop::{RingLoop, Settings};
use crate::server::worker::Worker;
use crate::store::{Favor, StorePlan, Sweep, TURNS_PER_ROUND, Table};
use crate::sys::fake::{Chance, FakeRing, Peer};
use crate::sys::ring::Ring;
use crate::sys::wake::EventFd;

/// With little memory slots are small, and a large value is many parts; with more, its last part is
/// long enough to be received straight into its place, and what comes behind it comes with it.
const MEMORY_BYTES: [u64; 2] = [4 << 20, 64 << 20];
const ITEM_BYTES_MAX: usize = 200 << 10;

/// Longest value of these tests that finds a place.
const VALUE_BYTES_MAX: usize = 190_000;

const PEERS: usize = 12;
const STORED: &[u8] = b"STORED\r\n";
const NO_MEMORY: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";
const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";

pub(super) struct World {
    pub ring: RingLoop<FakeRing, Executor>,
    workers: Vec<Worker<Executor>>,
    fleet: Arc<Fleet<Session>>,
    pub registry: Arc<Registry>,
    elapsed_ns: Arc<std::sync::atomic::AtomicU64>,
    chance: Chance,
}

impl World {
    pub fn new(seed: u64, dispatch: Dispatch) -> World {
        let mut chance = Chance::new(seed ^ 0xABCD);
        let workers = if dispatch == Dispatch::Inline { 0 } else { 2 };
        let doorbells = [Arc::new(EventFd::new().unwrap())];
        let fleet = Arc::new(Fleet::new(&doorbells, workers, 24, EventFd::new().unwrap()));
        let registry = Arc::new(Registry::default());
        let elapsed_ns = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let clock = Clock::manual(Arc::clone(&elapsed_ns));
        let shared = shared(&registry, *chance.pick(&MEMORY_BYTES));
        let executor = |name| {
            let counters = registry.counters(name);
            let participant = shared.table.participant(Arc::clone(&counters));
            (Executor::new(Arc::clone(&shared), participant, Arc::clone(&counters)), counters)
        };
        let worker = |number| {
            let (mut service, counters) = executor("worker");
            service.defer_waits();
            let (fleet, clock) = (Arc::clone(&fleet), clock.clone());
            Worker {
                number,
                service,
                counters,
                fleet,
                clock,
                requests_per_event: 3,
                turn: 0,
                busy_ns: 0,
            }
        };
        let settings = Settings {
            number: 0,
            dispatch,
            requests_per_event: 1 + u32::try_from(chance.below(20)).unwrap(),
            idle_timeout_s: 0,
            throttle: Throttle::default(),
            rings: 1,
            listeners: 1,
        };
        let buffers = 1 + u16::try_from(chance.below(6)).unwrap();
        let mut ring = FakeRing::new(seed, 1, buffers, *chance.pick(&[300, 4096]));
        ring.zero_copy = seed % 3 == 2;
        let (service, counters) = executor("ring");
        let counters = (counters, registry.census.rolls(1).remove(0));
        World {
            workers: (0..workers).map(worker).collect(),
            ring: RingLoop::new(settings, ring, service, clock, counters, Arc::clone(&fleet)),
            fleet,
            registry,
            elapsed_ns,
            chance,
        }
    }

    pub fn turn(&mut self) {
        let ns = 1_000_000 * self.chance.below(5) as u64;
        self.elapsed_ns.fetch_add(ns, std::sync::atomic::Ordering::Relaxed);
        for worker in &mut self.workers {
            if self.chance.once_in(2) {
                worker.work();
            }
            // A worker that has nothing to do sleeps, when it gets to that.
            if self.chance.once_in(8) {
                worker.service.participant().quiesce();
            }
        }
        self.ring.turn_checked();
    }

    pub fn peers(&mut self) -> impl DoubleEndedIterator<Item = &mut Peer> {
        self.ring.ring_mut().peers.values_mut()
    }

    /// After the end: no value is kept for anybody, once the items are gone.
    pub fn assert_all_is_back(&mut self) {
        // Who is gone looks at nothing.
        self.workers.clear();
        let participant = self.ring.service_mut().participant();
        participant.online();
        (0..3).for_each(|_| participant.quiesce());
        // What was refused before is told once.
        let _ = participant.starved_bytes();
        assert_eq!(participant.starved_bytes(), 0, "memory is kept for values that never came");
        let now = Now { ticks: u64::from(u32::MAX), epoch_unix_s: 0 };
        participant.flush(None, now);
        let mut sweep = Sweep::new();
        for _ in 0..4 * TURNS_PER_ROUND {
            participant.sweep(&mut sweep, now);
            participant.quiesce();
        }
        assert_eq!(self.registry.sum(Metric::CurrItems), 0);
        let table = self.ring.service_mut().table();
        assert_eq!((table.outdated_bytes(), table.figures().limbo_bytes), (0, 0), "a pin is lost");
        assert_eq!((table.pinned_balance(), table.spanless()), (0, 0));
    }

    /// Stops the server; everybody must go.
    pub fn stop(&mut self) {
        self.fleet.drain();
        for _ in 0..3000 {
            self.turn();
        }
        assert!(self.ring.has_ended(), "a connection is stuck");
        assert!(self.ring.ring_mut().is_whole(), "a receive buffer is lost");
        assert_eq!(self.ring.ring_mut().blocks().used_bytes(), 0, "a block is lost");
        assert_eq!(self.ring.heap_bytes(), 0);
    }
}

fn shared(registry: &Arc<Registry>, memory_bytes: u64) -> Arc<Shared> {
    let plan = StorePlan {
        favor: Favor::Objects,
        memory_bytes,
        item_bytes_max: ITEM_BYTES_MAX,
        evict: true,
        threads: 3,
        hasher: KeyHasher::with_seed(1),
        loan_bytes: None,
    };
    let facts = Facts::of_a_test();
    let table = Arc::new(Table::open(plan).unwrap());
    let registry = Arc::clone(registry);
    Arc::new(Shared::open(facts, table, registry))
}

/// What a peer asks for. Keys are its own.
#[derive(Clone, Debug)]
enum Request {
    Set {
        key: usize,
        value: Vec<u8>,
        noreply: bool,
    },
    Append {
        key: usize,
        value: Vec<u8>,
    },
    /// The value is not followed by a line end.
    BadChunk {
        key: usize,
        value: Vec<u8>,
    },
    TooLarge {
        key: usize,
        value: Vec<u8>,
    },
    Get {
        key: usize,
    },
}

impl Request {
    fn any(chance: &mut Chance) -> Request {
        let key = chance.below(4);
        let most = *chance.pick(&[20, 5000, 20_000, 70_000, VALUE_BYTES_MAX]);
        let value = value(chance, most);
        match chance.below(24) {
            0 => Request::BadChunk { key, value },
            1 => Request::TooLarge { key, value: vec![b'\n'; ITEM_BYTES_MAX + chance.below(9000)] },
            2 | 3 => Request::Append { key, value },
            4..=9 => Request::Get { key },
            _ => Request::Set { key, value, noreply: chance.once_in(4) },
        }
    }

    fn bytes(&self, peer: usize) -> Vec<u8> {
        if is_binary(peer) {
            return self.packet(peer);
        }
        let head = |verb, key, value: &[u8], tail: &str| {
            format!("{verb} {peer}-{key} 0 0 {}{tail}\r\n", value.len()).into_bytes()
        };
        match self {
            Request::Set { key, value, noreply } => {
                let tail = if *noreply { " noreply" } else { "" };
                [&head("set", key, value, tail), value, &b"\r\n"[..]].concat()
            }
            Request::Append { key, value } => {
                [&head("append", key, value, ""), value, &b"\r\n"[..]].concat()
            }
            Request::BadChunk { key, value } => {
                [&head("set", key, value, ""), value, &b"no"[..]].concat()
            }
            Request::TooLarge { key, value } => {
                [&head("set", key, value, ""), value, &b"\r\n"[..]].concat()
            }
            Request::Get { key } => format!("get {peer}-{key}\r\n").into_bytes(),
        }
    }

    fn packet(&self, peer: usize) -> Vec<u8> {
        let name = |key: &usize| format!("{peer}-{key}").into_bytes();
        match self {
            Request::Set { key, value, .. } | Request::TooLarge { key, value } => {
                packet(self.opcode(), &[0; 8], &name(key), value)
            }
            Request::Append { key, value } => packet(self.opcode(), b"", &name(key), value),
            // Only lines can be left out. This is an opcode that is none.
            Request::BadChunk { value, .. } => packet(0xfe, b"", b"", value),
            Request::Get { key } => packet(self.opcode(), b"", &name(key), b""),
        }
    }

    fn opcode(&self) -> u8 {
        let opcode = match self {
            Request::Set { noreply: true, .. } => Opcode::SetQ,
            Request::Set { .. } | Request::TooLarge { .. } => Opcode::Set,
            Request::Append { .. } => Opcode::Append,
            Request::BadChunk { .. } => return 0xfe,
            Request::Get { .. } => Opcode::Get,
        };
        opcode as u8
    }
}

fn is_binary(peer: usize) -> bool {
    peer % 2 == 1
}

/// A request of the binary protocol.
fn packet(opcode: u8, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = [extras, key, value].concat();
    let mut packet =
        vec![0x80, opcode, 0, key.len().to_le_bytes()[0], extras.len().to_le_bytes()[0]];
    packet.extend([0; 3]);
    packet.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    packet.extend([0; 12]);
    packet.extend(body);
    packet
}

/// A value in which every place is told from those near it.
pub(super) fn value(chance: &mut Chance, most: usize) -> Vec<u8> {
    let (len, start) = (1 + chance.below(most), chance.below(1 << 20));
    let byte = |at: usize| (at.wrapping_mul(0x9E37_79B1) >> 13).to_le_bytes()[0];
    (start..start + len).map(byte).collect()
}

pub(super) fn found(key: &str, value: &[u8]) -> Vec<u8> {
    let head = format!("VALUE {key} 0 {}\r\n", value.len()).into_bytes();
    [&head, value, b"\r\nEND\r\n"].concat()
}

/// Reads what a peer got as the replies to what it asked for, as far as they go. Items may have
/// been evicted; what is there must be right.
struct Reader<'a> {
    rest: &'a [u8],
    peer: usize,
    known: BTreeMap<usize, Vec<u8>>,
}

impl Reader<'_> {
    fn takes(&mut self, expected: &[u8]) -> bool {
        let starts = self.rest.starts_with(expected);
        self.rest = if starts { &self.rest[expected.len()..] } else { self.rest };
        starts
    }

    /// As `takes`, a reply of the binary protocol; the cas may be any.
    fn takes_packet(&mut self, request: &Request, status: Status, extras: u8, body: &[u8]) -> bool {
        let [_, _, high, low] = u32::from(status.code()).to_be_bytes();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let start = [&[0x81, request.opcode(), 0, 0, extras, 0, high, low], &length[..]].concat();
        let (bytes, rest) = self.rest.split_at(self.rest.len().min(PACKET_HEAD_BYTES + body.len()));
        let is_it = bytes.starts_with(&start) && bytes.get(PACKET_HEAD_BYTES..) == Some(body);
        self.rest = if is_it { rest } else { self.rest };
        is_it
    }

    fn takes_error(&mut self, request: &Request, status: Status) -> bool {
        let is_for_item = status == Status::NoMemory;
        let text = if is_for_item { b"Out of memory allocating item" } else { status.text() };
        self.takes_packet(request, status, 0, text)
    }

    /// As `read`, of the binary protocol.
    fn read_packet(&mut self, request: &Request) -> bool {
        match request {
            Request::Set { key, value, noreply } => {
                // As with others, whether a quiet one was stored is seen only later; but that it
                // was not is told.
                if self.takes_error(request, Status::NoMemory) {
                    self.known.remove(key);
                    return true;
                }
                self.known.insert(*key, value.clone());
                *noreply || self.takes_packet(request, Status::Ok, 0, b"")
            }
            Request::Append { key, value } => {
                if self.takes_packet(request, Status::Ok, 0, b"") {
                    self.known.get_mut(key).expect("appended to nothing").extend(value);
                    return true;
                }
                self.takes_error(request, Status::NotStored)
                    || self.takes_error(request, Status::NoMemory)
            }
            Request::BadChunk { .. } => self.takes_error(request, Status::UnknownCommand),
            Request::TooLarge { key, .. } => {
                self.known.remove(key);
                self.takes_error(request, Status::TooLarge)
            }
            Request::Get { key } => {
                if self.takes_error(request, Status::NotFound) {
                    self.known.remove(key);
                    return true;
                }
                let Some(value) = self.known.get(key) else { return false };
                let body = [&[0; 4][..], value].concat();
                self.takes_packet(request, Status::Ok, 4, &body)
            }
        }
    }

    /// False when there is no reply to it any more.
    fn read(&mut self, request: &Request) -> bool {
        if is_binary(self.peer) {
            return self.read_packet(request);
        }
        match request {
            Request::Set { key, value, noreply: true } => {
                // Whether it was stored is seen only later.
                self.known.insert(*key, value.clone());
                true
            }
            Request::Set { key, value, noreply: false } => {
                self.known.insert(*key, value.clone());
                self.takes(STORED) || self.is_refused(*key)
            }
            Request::Append { key, value } => {
                if self.takes(STORED) {
                    let known = self.known.get_mut(key).expect("appended to nothing");
                    known.extend(value);
                    return true;
                }
                self.takes(b"NOT_STORED\r\n") || self.takes(NO_MEMORY)
            }
            Request::BadChunk { key, .. } => {
                self.takes(b"CLIENT_ERROR bad data chunk\r\n") || self.is_refused(*key)
            }
            Request::TooLarge { key, .. } => {
                self.known.remove(key);
                self.takes(TOO_LARGE)
            }
            Request::Get { key } => {
                if self.takes(b"END\r\n") {
                    self.known.remove(key);
                    return true;
                }
                let Some(value) = self.known.get(key) else { return false };
                let reply = found(&format!("{}-{key}", self.peer), value);
                self.takes(&reply)
            }
        }
    }

    /// There was no memory for it: the key must not live on.
    fn is_refused(&mut self, key: usize) -> bool {
        let refused = self.takes(NO_MEMORY);
        if refused {
            self.known.remove(&key);
        }
        refused
    }
}

/// What a peer does besides sending its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Honest,
    /// It stops in the middle, and stays.
    Stalls,
    /// It stops in the middle, and says that no more comes.
    Ends,
    /// It stops in the middle, and is gone.
    Vanishes,
}

struct Script {
    requests: Vec<Request>,
    manner: Manner,
    unsent: Vec<u8>,
    sent: usize,
}

impl Script {
    fn any(peer: usize, chance: &mut Chance) -> Script {
        let requests: Vec<_> = (0..5 + chance.below(25)).map(|_| Request::any(chance)).collect();
        let manners = [Manner::Stalls, Manner::Ends, Manner::Vanishes];
        let manner = if chance.once_in(3) { *chance.pick(&manners) } else { Manner::Honest };
        let mut unsent: Vec<_> = requests.iter().flat_map(|each| each.bytes(peer)).collect();
        if manner != Manner::Honest {
            unsent.truncate(chance.below(unsent.len()));
        }
        Script { requests, manner, unsent, sent: 0 }
    }

    fn go_on(&mut self, peer: &mut Peer, bytes: usize) {
        let end = self.unsent.len().min(self.sent + bytes);
        peer.outgoing.extend(&self.unsent[self.sent..end]);
        self.sent = end;
        if end == self.unsent.len() && peer.outgoing.is_empty() {
            peer.reset |= self.manner == Manner::Vanishes;
            peer.finished |= self.manner == Manner::Ends;
        }
    }
}

/// Returns how many receives went straight into a value.
fn run(seed: u64, dispatch: Dispatch) -> u64 {
    let mut world = World::new(seed, dispatch);
    let mut chance = Chance::new(seed ^ 0x5EED);
    let mut scripts: Vec<_> = (0..PEERS).map(|peer| Script::any(peer, &mut chance)).collect();
    world.ring.ring_mut().arriving.extend((0..PEERS).map(|_| Peer::default()));
    let burst = *chance.pick(&[3000, 40_000, 1 << 20]);
    let is_slow = chance.once_in(3);
    for turn in 0..100_000 {
        for (peer, script) in world.ring.ring_mut().peers.values_mut().zip(&mut scripts) {
            if chance.once_in(3) {
                script.go_on(peer, 1 + chance.below(burst));
            }
            let is_quiet = if is_slow { !chance.once_in(20) } else { chance.once_in(10) };
            peer.deaf = turn < 500 && is_quiet;
        }
        world.turn();
        let is_done = |script: &Script| script.sent == script.unsent.len();
        if turn > 600 && scripts.iter().all(is_done) && world.peers().all(|p| p.outgoing.is_empty())
        {
            break;
        }
    }
    (0..500).for_each(|_| world.turn());
    world.stop();
    let dropped = world.registry.sum(Metric::ResponseObjOom);
    for (number, (peer, script)) in world.peers().zip(&scripts).enumerate() {
        let (rest, known) = (&peer.got[..], BTreeMap::new());
        let mut reader = Reader { rest, peer: number, known };
        let read = script.requests.iter().take_while(|request| reader.read(request)).count();
        let (left, asked) = (reader.rest, script.requests.len());
        let told = String::from_utf8_lossy(&left[..left.len().min(60)]);
        let unread = peer.outgoing.len();
        let told =
            format!("{number}: {read} of {asked}, {dropped} dropped, {unread} unread: {told:?}");
        assert!(script.manner != Manner::Honest || read == asked, "{told}");
        assert!(script.manner == Manner::Vanishes || left.is_empty(), "{told}");
    }
    world.assert_all_is_back();
    let notified = world.ring.ring_mut().notified;
    assert_eq!(notified > 0, world.ring.ring_mut().zero_copy);
    let spans = world.registry.sum(Metric::Spans);
    assert!(spans > 0 && world.ring.ring_mut().gathered > 0, "nothing was sent from its place");
    world.registry.sum(Metric::DirectReceives)
}

fn run_seeds(dispatch: Dispatch) {
    for_each_seed(25, |seed| {
        assert!(run(seed, dispatch) > 20, "hardly anything went straight into a value");
    });
}

#[test]
fn inline() {
    run_seeds(Dispatch::Inline);
}

#[test]
fn queue() {
    run_seeds(Dispatch::Queue);
}

#[test]
fn auto() {
    run_seeds(Dispatch::Auto);
}
