//! The ring loop against a seeded fake ring: short sends, dry buffers, cancelled and failed
//! receives, late completions, peers that do not read, peers that vanish, workers that dawdle.
//!
//! Every turn checks the loop's own invariants; at the end every reply must be exactly what the
//! requests deserve, and every buffer, block and place must be back. A failure names its seed.

mod budget;
mod crowd;
mod echo;
mod local;
mod rate;
mod seeds;
mod silence;
mod spans;
mod throttle;
mod values;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use self::echo::{Echo, Seen, replies};
use self::seeds::{Told, for_each_seed};
use crate::base::clock::Clock;
use crate::base::metrics::{Metric, Registry};
use crate::base::sync::Arc;
use crate::config::Dispatch;
use crate::net::peers::Peers;
use crate::net::rate::RateLimits;
use crate::net::throttle::Throttle;
use crate::sys::fake::{Chance, FakeRing, Peer};
use crate::sys::ring::Ring;
use crate::sys::wake::EventFd;

use super::fleet::Fleet;
use super::ring_loop::{RingLoop, Settings};
use super::worker::Worker;

/// Connections that a world lets in.
const CONNECTIONS_MAX: u32 = 24;

struct World {
    ring: RingLoop<FakeRing, Echo>,
    workers: Vec<Worker<Echo>>,
    fleet: Arc<Fleet<Seen>>,
    registry: Registry,
    elapsed_ns: Arc<AtomicU64>,
    chance: Chance,
}

impl World {
    fn new(seed: u64, dispatch: Dispatch) -> World {
        World::with_idle_timeout(seed, dispatch, 0)
    }

    fn with_idle_timeout(seed: u64, dispatch: Dispatch, idle_timeout_s: u32) -> World {
        World::with(seed, dispatch, idle_timeout_s, *Chance::new(seed).pick(&[0, 1, 16]))
    }

    fn with(seed: u64, dispatch: Dispatch, idle_timeout_s: u32, loans_max: usize) -> World {
        World::limited(seed, dispatch, idle_timeout_s, loans_max, &RateLimits::default())
    }

    fn limited(
        seed: u64,
        dispatch: Dispatch,
        idle_timeout_s: u32,
        loans_max: usize,
        limits: &RateLimits,
    ) -> World {
        World::built(seed, dispatch, (idle_timeout_s, loans_max), limits, (false, None))
    }

    /// A limited world with so many receive buffers of so many bytes, and no more memory than a
    /// ring has of its own.
    fn short_of_memory(
        seed: u64,
        dispatch: Dispatch,
        limits: &RateLimits,
        buffers: (u16, u32),
    ) -> World {
        World::built(seed, dispatch, (0, 0), limits, (false, Some(buffers)))
    }

    /// A world in which connections beyond the limit wait.
    fn with_queue(seed: u64) -> World {
        World::built(seed, Dispatch::Inline, (0, 16), &RateLimits::default(), (true, None))
    }

    /// A world with so many receive buffers of so many bytes.
    fn with_buffers(seed: u64, dispatch: Dispatch, buffers: (u16, u32)) -> World {
        World::built(seed, dispatch, (0, 16), &RateLimits::default(), (false, Some(buffers)))
    }

    fn built(
        seed: u64,
        dispatch: Dispatch,
        (idle_timeout_s, loans_max): (u32, usize),
        limits: &RateLimits,
        (has_queue, buffers): (bool, Option<(u16, u32)>),
    ) -> World {
        let mut chance = Chance::new(seed ^ 0xABCD);
        let workers = if dispatch == Dispatch::Inline { 0 } else { 2 };
        let doorbells = [Arc::new(EventFd::new().unwrap())];
        let fleet = Fleet::new(&doorbells, workers, CONNECTIONS_MAX, EventFd::new().unwrap());
        let fleet = fleet.with_peers(Peers::new(*limits, CONNECTIONS_MAX));
        let fleet = Arc::new(fleet.with_queue(has_queue));
        let registry = Registry::default();
        let elapsed_ns = Arc::new(AtomicU64::new(0));
        let clock = Clock::manual(Arc::clone(&elapsed_ns));
        let settings = Settings {
            number: 0,
            dispatch,
            requests_per_event: 1 + u32::try_from(chance.below(20)).unwrap(),
            idle_timeout_s,
            throttle: Throttle::default(),
            rings: 1,
            listeners: 1 + u32::try_from(chance.below(3)).unwrap(),
        };
        let any = (1 + u16::try_from(chance.below(6)).unwrap(), *chance.pick(&[64, 300, 4096]));
        let (count, bytes) = buffers.unwrap_or(any);
        let ring = FakeRing::new(seed, settings.listeners, count, bytes);
        let counters = registry.counters("ring");
        let service = Echo::new(&elapsed_ns, loans_max);
        let worker = |number| Worker {
            number,
            service: Echo::new(&elapsed_ns, 0),
            counters: registry.counters("worker"),
            fleet: Arc::clone(&fleet),
            clock: clock.clone(),
            requests_per_event: 3,
            turn: 0,
            busy_ns: 0,
        };
        World {
            workers: (0..workers).map(worker).collect(),
            ring: RingLoop::new(
                settings,
                ring,
                service,
                clock.clone(),
                (counters, registry.census.rolls(1).remove(0)),
                Arc::clone(&fleet),
            ),
            fleet,
            registry,
            elapsed_ns,
            chance,
        }
    }

    fn turn(&mut self) {
        let ns = 1_000_000 * self.chance.below(20) as u64;
        self.elapsed_ns.fetch_add(ns, Ordering::Relaxed);
        for worker in &mut self.workers {
            if self.chance.once_in(3) {
                worker.work();
            }
        }
        self.ring.turn_checked();
    }

    fn peers(&mut self) -> impl DoubleEndedIterator<Item = &mut Peer> {
        self.ring.ring_mut().peers.values_mut()
    }
}

fn request(chance: &mut Chance) -> Vec<u8> {
    let kind = *chance.pick(b"aaaaabdws");
    let mut line = vec![kind; 1 + chance.below(90)];
    line.push(b'0' + u8::try_from(chance.below(10)).unwrap());
    line.push(b'\n');
    line
}

/// What a peer will send in all, and whether it stays to the end.
#[derive(Debug)]
struct Script {
    requests: Vec<u8>,
    /// It resets the connection at some time instead of finishing.
    vanishes: bool,
}

fn script(chance: &mut Chance) -> Script {
    let count = *chance.pick(&[3, 30, 60, 150]);
    let mut requests: Vec<u8> = (0..count).flat_map(|_| request(chance)).collect();
    if chance.once_in(4) {
        requests.extend(b"q\n");
        requests.extend((0..5).flat_map(|_| request(chance)));
    }
    if chance.once_in(4) {
        requests.extend(b"cut in mid-request");
    }
    Script { requests, vanishes: chance.once_in(6) }
}

/// Returns how often each of `HARDSHIPS` was met.
fn run(seed: u64, dispatch: Dispatch) -> [u64; HARDSHIPS.len()] {
    let mut world = World::new(seed, dispatch);
    let mut chance = Chance::new(seed ^ 0x5EED);
    let scripts: Vec<Script> = (0..20).map(|_| script(&mut chance)).collect();
    let mut unsent: Vec<VecDeque<u8>> =
        scripts.iter().map(|script| script.requests.iter().copied().collect()).collect();
    world.ring.ring_mut().arriving.extend((0..scripts.len()).map(|_| Peer::default()));
    let burst = *chance.pick(&[2, 200, 9000]);
    for turn in 0..3000 {
        let ring = world.ring.ring_mut();
        ring.descriptors_short = turn < 1500 && chance.once_in(20);
        for (peer, (script, unsent)) in ring.peers.values_mut().zip(scripts.iter().zip(&mut unsent))
        {
            if chance.once_in(3) {
                let burst = if turn < 2000 { burst } else { 9000 };
                let len = chance.below(burst).min(unsent.len());
                peer.outgoing.extend(unsent.drain(..len));
            }
            peer.deaf =
                turn < 2000 && if peer.deaf { !chance.once_in(50) } else { chance.once_in(60) };
            if script.vanishes {
                peer.reset |= chance.once_in(300) || turn > 2500;
            } else {
                peer.finished |= unsent.is_empty() && turn > 1000;
            }
        }
        world.turn();
    }
    // One buffer and two slow workers may take a while; being stuck takes for ever.
    for _ in 0..30_000 {
        if world.peers().all(|peer| peer.closed || peer.outgoing.is_empty()) {
            break;
        }
        world.turn();
    }
    finish(&mut world, &scripts);
    HARDSHIPS.map(|metric| world.registry.sum(metric))
}

/// What the kernel may run out of.
const HARDSHIPS: [Metric; 5] = [
    Metric::BuffersDry,
    Metric::CompletionsOverflowed,
    Metric::RingBusy,
    Metric::KernelNoMemory,
    Metric::ListenDisabledNum,
];

/// Everything is answered, everything is back.
fn finish(world: &mut World, scripts: &[Script]) {
    world.fleet.drain();
    for _ in 0..3000 {
        world.turn();
    }
    assert!(
        world.ring.has_ended(),
        "a connection is stuck: {:?}",
        world.peers().collect::<Vec<_>>()
    );
    assert_eq!(world.peers().count(), scripts.len());
    let dropped = world.registry.sum(Metric::ResponseObjOom);
    for (peer, script) in world.peers().zip(scripts) {
        assert!(peer.closed);
        let expected = replies(&script.requests);
        if script.vanishes || dropped > 0 {
            assert!(expected.starts_with(&peer.got));
        } else {
            let same = peer.got.iter().zip(&expected).take_while(|(one, two)| one == two).count();
            assert!(
                peer.got == expected,
                "{} bytes of {}, right up to {same}; unread {}",
                peer.got.len(),
                expected.len(),
                peer.outgoing.len()
            );
        }
    }
    assert!(world.ring.ring_mut().is_whole(), "a receive buffer is lost");
    assert_eq!(world.ring.ring_mut().blocks().used_bytes(), 0, "a block is lost");
    assert_eq!(world.ring.heap_bytes(), 0);
    assert_eq!(world.fleet.admission.current(), 0);
    assert_eq!(world.registry.sum(Metric::CurrConnections), 0);
}

fn run_seeds(dispatch: Dispatch) {
    let mut met = [0; HARDSHIPS.len()];
    let were_all = for_each_seed(60, |seed| {
        met.iter_mut().zip(run(seed, dispatch)).for_each(|(sum, count)| *sum += count);
    });
    if were_all {
        assert!(met.iter().all(|count| *count > 0), "nothing is short of {met:?}");
    }
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

/// A peer that asks for a little again and again and never reads must not take all blocks.
fn ask_without_reading(dispatch: Dispatch) {
    for seed in 0..4 {
        let _told = Told { seed };
        let mut world = World::new(seed, dispatch);
        let mut peer = Peer::default();
        peer.deaf = true;
        world.ring.ring_mut().arriving.push_back(peer);
        for _ in 0..3000 {
            world.peers().for_each(|peer| peer.outgoing.extend(b"d1\n"));
            world.turn();
        }
        let requests = b"d1\n".repeat(3000);
        for _ in 0..30_000 {
            world.peers().for_each(|peer| peer.deaf = false);
            world.turn();
        }
        assert_eq!(world.ring.ring_mut().blocks().used_bytes(), 0);
        world.peers().for_each(|peer| assert!(replies(&requests).starts_with(&peer.got)));
    }
}

#[test]
fn a_queue_holds_no_more_for_who_does_not_read() {
    ask_without_reading(Dispatch::Queue);
}

#[test]
fn long_work_holds_no_more_for_who_does_not_read() {
    ask_without_reading(Dispatch::Auto);
}

/// A world with one peer that is deaf from the start and one that is not, both let in.
fn deaf_and_polite(dispatch: Dispatch, idle_timeout_s: u32) -> World {
    let mut world = World::with_idle_timeout(1, dispatch, idle_timeout_s);
    world.ring.ring_mut().arriving.extend([Peer::default(), Peer::default()]);
    while world.peers().count() < 2 {
        world.turn();
    }
    world.peers().next().unwrap().deaf = true;
    world
}

/// About 40 seconds; the deaf peer sends `insistence` now and then, the polite one asks.
fn pass_time(world: &mut World, insistence: &[u8]) {
    for turn in 0..4000 {
        if turn % 50 == 0 {
            let mut peers = world.peers();
            peers.next().unwrap().outgoing.extend(insistence);
            peers.next_back().unwrap().outgoing.extend(b"a1\n");
        }
        world.turn();
    }
}

#[test]
fn who_sends_on_without_reading_is_closed_and_nobody_else() {
    for dispatch in [Dispatch::Inline, Dispatch::Queue] {
        let mut world = deaf_and_polite(dispatch, 0);
        pass_time(&mut world, b"b9\nb9\n");
        let closed: Vec<_> = world.peers().map(|peer| peer.closed).collect();
        assert_eq!(closed, [true, false], "{dispatch:?}");
        let replies = replies(&b"a1\n".repeat(80));
        assert!(world.peers().nth(1).unwrap().got == replies, "{dispatch:?}");
    }
}

#[test]
fn who_is_slow_to_read_but_asks_no_more_is_not_closed() {
    let mut world = deaf_and_polite(Dispatch::Inline, 0);
    world.peers().next().unwrap().outgoing.extend(b"b9\n");
    pass_time(&mut world, b"");
    assert!(world.peers().all(|peer| !peer.closed));
    world.peers().for_each(|peer| peer.deaf = false);
    pass_time(&mut world, b"");
    assert!(world.peers().next().unwrap().got == replies(b"b9\n"));
}

#[test]
fn an_idle_timeout_closes_the_idle_alone() {
    let mut world = deaf_and_polite(Dispatch::Inline, 5);
    pass_time(&mut world, b"");
    let closed: Vec<_> = world.peers().map(|peer| peer.closed).collect();
    assert_eq!(closed, [true, false]);
    assert_eq!(world.registry.sum(Metric::IdleKicks), 1);
}

#[test]
fn an_idle_timeout_is_never_early() {
    let mut world = deaf_and_polite(Dispatch::Inline, 2);
    // Something every 1.9 seconds.
    for turn in 0..4000 {
        if turn % 190 == 0 {
            world.peers().next_back().unwrap().outgoing.extend(b"a1\n");
        }
        world.turn();
    }
    let closed: Vec<_> = world.peers().map(|peer| peer.closed).collect();
    assert_eq!(closed, [true, false]);
}

/// Peers that do not read take all the memory there is; who comes later is served all the same,
/// and those who do not even ask for more must go for that.
#[test]
fn who_reads_is_served_where_others_hold_all_memory() {
    for (dispatch, loans_max) in [(Dispatch::Inline, 0), (Dispatch::Queue, 0), (Dispatch::Auto, 1)]
    {
        let mut world = World::with(5, dispatch, 0, loans_max);
        let deaf = || {
            let mut peer = Peer::default();
            peer.deaf = true;
            peer
        };
        world.ring.ring_mut().arriving.extend((0..20).map(|_| deaf()));
        for turn in 0..600 {
            if turn < 300 {
                world.peers().for_each(|peer| peer.outgoing.extend(b"b9\n"));
            }
            world.turn();
        }
        assert!(world.registry.sum(Metric::ReplyWaits) > 0, "{dispatch:?}: memory is not short");
        world.ring.ring_mut().arriving.push_back(Peer::default());
        while world.peers().count() < 21 {
            world.turn();
        }
        world.peers().last().unwrap().outgoing.extend(b"a1\n".repeat(50));
        for _ in 0..1500 {
            world.turn();
        }
        let expected = replies(&b"a1\n".repeat(50));
        let polite = world.peers().last().unwrap();
        assert!(
            !polite.closed && polite.got == expected,
            "{dispatch:?}: {} bytes",
            polite.got.len()
        );
        assert!(world.registry.sum(Metric::ResponseObjOom) > 0, "{dispatch:?}");
    }
}

/// Peers that stop in mid-command go where connections take too much, as many as must.
#[test]
fn who_is_silent_in_mid_command_goes_where_memory_is_overdrawn() {
    let mut world = World::with(7, Dispatch::Inline, 0, 16);
    world.ring.ring_mut().arriving.extend((0..11).map(|_| Peer::default()));
    while world.peers().count() < 11 {
        world.turn();
    }
    world.peers().take(10).for_each(|peer| peer.outgoing.extend([b'a'; 2000]));
    pass_time(&mut world, b"");
    assert!(world.peers().all(|peer| !peer.closed));
    let heap_bytes = world.ring.heap_bytes();
    assert!(heap_bytes >= 20_000, "{heap_bytes}");
    world.ring.service_mut().overdrawn = 5000;
    for _ in 0..56 {
        world.peers().last().unwrap().outgoing.extend(b"a1\n");
        world.turn();
    }
    world.ring.service_mut().overdrawn = 0;
    pass_time(&mut world, b"");
    let closed = world.peers().filter(|peer| peer.closed).count();
    assert!((2..10).contains(&closed), "{closed} are closed");
    assert!(!world.peers().last().unwrap().closed);
}

/// Peers that hold what others need go when they are silent, as many as must.
#[test]
fn who_is_silent_amid_a_value_goes_where_others_find_no_place() {
    let mut world = World::with(9, Dispatch::Inline, 0, 16);
    world.ring.ring_mut().arriving.extend((0..12).map(|_| Peer::default()));
    while world.peers().count() < 12 {
        world.turn();
    }
    world.peers().take(10).for_each(|peer| peer.outgoing.extend(b"a1\n"));
    pass_time(&mut world, b"");
    assert!(world.peers().all(|peer| !peer.closed));
    world.ring.service_mut().starved = 3000;
    for _ in 0..40 {
        world.peers().last().unwrap().outgoing.extend(b"a1\n");
        world.turn();
    }
    world.ring.service_mut().starved = 0;
    pass_time(&mut world, b"");
    let closed = world.peers().take(10).filter(|peer| peer.closed).count();
    assert!((3..10).contains(&closed), "{closed} are closed");
    assert!(world.peers().skip(10).all(|peer| !peer.closed), "who holds nothing may be silent");
}
