//! Limits for each peer address, against the fake ring: how much is served, to whom and in which
//! order, that nobody waits for ever and that nobody is closed for having to wait.

use super::*;
use crate::base::metrics::Distribution;
use crate::net::connection::Held;
use crate::net::rate::RateLimits;
use std::net::{IpAddr, Ipv4Addr};

const SECOND_NS: u64 = 1_000_000_000;
const LIMITS: RateLimits = RateLimits {
    requests_per_s: 100,
    bytes_per_s: 0,
    burst_ms: 200,
    exempt: [None; crate::net::rate::EXEMPT_MAX],
};

fn world(dispatch: Dispatch, limits: &RateLimits) -> World {
    World::limited(11, dispatch, 0, 16, limits)
}

/// Lets peers in, each from the address with its number.
fn let_in(world: &mut World, addresses: &[u8]) {
    for address in addresses {
        let before = u32::try_from(world.peers().count()).unwrap();
        world.ring.ring_mut().arriving.push_back(Peer::default());
        while world.registry.sum(Metric::TotalConnections) == before.into() {
            world.turn();
        }
        let address = IpAddr::from(Ipv4Addr::new(10, 0, 0, *address));
        world.ring.limit(before, address);
    }
}

fn say(world: &mut World, peer: usize, bytes: &[u8]) {
    world.peers().nth(peer).unwrap().outgoing.extend(bytes);
}

fn answered(world: &mut World) -> Vec<usize> {
    let lines = |peer: &mut Peer| peer.got.iter().filter(|byte| **byte == b'\n').count();
    world.peers().map(lines).collect()
}

fn elapsed_ns(world: &World) -> u64 {
    world.elapsed_ns.load(Ordering::Relaxed)
}

fn pass(world: &mut World, seconds: u64) {
    let end_ns = elapsed_ns(world) + seconds * SECOND_NS;
    while elapsed_ns(world) < end_ns {
        let somebody_waits = world.registry.sum(Metric::RateParked) > 0;
        world.ring.ring_mut().slept_for_ever = 0;
        world.turn();
        let slept_for_ever = world.ring.ring_mut().slept_for_ever;
        assert!(!somebody_waits || slept_for_ever == 0, "nobody wakes who waits");
    }
}

#[test]
fn a_greedy_address_has_its_rate_and_shares_it_in_order_and_others_do_not_notice() {
    for dispatch in [Dispatch::Inline, Dispatch::Queue, Dispatch::Auto] {
        let mut world = world(dispatch, &LIMITS);
        let_in(&mut world, &[1, 1, 1, 2]);
        let start_ns = elapsed_ns(&world);
        (0..3).for_each(|peer| say(&mut world, peer, &b"a1\n".repeat(2000)));
        for asked in 1..=40 {
            say(&mut world, 3, b"a1\n");
            while answered(&mut world)[3] < asked {
                pass(&mut world, 0);
                world.turn();
            }
            pass(&mut world, 1);
        }
        let seconds = usize::try_from((elapsed_ns(&world) - start_ns) / SECOND_NS).unwrap();
        let counts = answered(&mut world);
        let greedy: usize = counts[..3].iter().sum();
        let most = 100 * (seconds + 1) + 20 + 3 * 20;
        assert!((95 * seconds..=most).contains(&greedy), "{dispatch:?}: {greedy} in {seconds} s");
        let (least, most) = (counts[..3].iter().min(), counts[..3].iter().max());
        assert!(most.unwrap() - least.unwrap() <= 40, "{dispatch:?}: {counts:?}");
        assert!(world.registry.sum(Metric::RateParks) > 1000);
        assert!(world.registry.sum(Metric::RateHeldBytes) > 1000);
        let waited_us = world.registry.sum(Metric::RateWaitUs);
        assert!(waited_us > 30_000_000, "{dispatch:?}: {waited_us} us");
    }
}

/// What was saved up is gone: from now on no turn serves more than its time has brought.
#[test]
fn who_waits_goes_on_smoothly() {
    let mut world = world(Dispatch::Inline, &LIMITS);
    let_in(&mut world, &[1, 1]);
    (0..2).for_each(|peer| say(&mut world, peer, &b"a1\n".repeat(2000)));
    pass(&mut world, 1);
    world.registry.reset();
    pass(&mut world, 10);
    let requests = world.registry.spread(Distribution::TurnRequests);
    assert!(requests.count() > 500);
    let most = requests.quantile(100_000);
    assert!((1..=4).contains(&most), "{most} requests in a turn of at most 20 ms");
}

/// However often something is paid for by others meanwhile.
#[test]
fn who_waits_goes_on_one_by_one_beside_others() {
    for dispatch in [Dispatch::Inline, Dispatch::Auto] {
        let mut world = world(dispatch, &LIMITS);
        let_in(&mut world, &[1; 12]);
        let_in(&mut world, &[2, 2, 2, 2, 2, 2]);
        (0..12).for_each(|peer| say(&mut world, peer, &b"a1\n".repeat(3000)));
        pass(&mut world, 2);
        assert!(world.registry.sum(Metric::RateParked) >= 10);
        let mut most = 0;
        for turn in 0..1000 {
            if turn % 16 == 0 {
                (12..18).for_each(|peer| say(&mut world, peer, b"a1\n"));
            }
            // Each waits again when it has gone on.
            let before = world.registry.sum(Metric::RateParks);
            world.turn();
            most = most.max(world.registry.sum(Metric::RateParks) - before);
        }
        assert!((1..=3).contains(&most), "{dispatch:?}: {most} in a turn of at most 20 ms");
    }
}

#[test]
fn who_begins_to_wait_first_goes_on_first() {
    let mut world = world(Dispatch::Inline, &RateLimits { requests_per_s: 1, ..LIMITS });
    let_in(&mut world, &[1; 6]);
    say(&mut world, 0, b"a1\na1\n");
    pass(&mut world, 0);
    while world.ring.waiting_for_rate().is_empty() {
        world.turn();
    }
    for peer in [4, 2, 5, 1, 3] {
        let before = world.ring.waiting_for_rate().len();
        say(&mut world, peer, b"a1\n");
        while world.ring.waiting_for_rate().len() == before {
            world.turn();
        }
    }
    let order: Vec<_> = world.ring.waiting_for_rate().iter().map(|id| id.index).collect();
    assert_eq!(order, [0, 4, 2, 5, 1, 3]);
    let mut gone = Vec::new();
    let (mut before, start_ns) = (order, elapsed_ns(&world));
    while !before.is_empty() {
        world.turn();
        let now: Vec<_> = world.ring.waiting_for_rate().iter().map(|id| id.index).collect();
        gone.extend(before.iter().copied().filter(|index| !now.contains(index)));
        before = now;
    }
    assert_eq!(gone, [0, 4, 2, 5, 1, 3]);
    assert!(elapsed_ns(&world) - start_ns > 4 * SECOND_NS, "one a second");
}

/// A debt of minutes: it is silent, it has asked for more, it is amid a request; nobody minds.
#[test]
fn who_has_to_wait_is_neither_stalled_nor_idle() {
    let limits = RateLimits { requests_per_s: 0, bytes_per_s: 1000, ..LIMITS };
    for dispatch in [Dispatch::Inline, Dispatch::Queue] {
        let mut world = World::limited(11, dispatch, 5, 16, &limits);
        let_in(&mut world, &[1, 2]);
        let mut requests = vec![b'b'; 95];
        requests.extend(b"9\na1\na1\nhalf");
        say(&mut world, 0, &requests);
        for _ in 0..40 {
            say(&mut world, 1, b"a1\n");
            pass(&mut world, 1);
        }
        let closed: Vec<_> = world.peers().map(|peer| peer.closed).collect();
        assert_eq!((closed, world.registry.sum(Metric::RateParked)), (vec![false; 2], 1));
        pass(&mut world, 60);
        let first = world.peers().next().unwrap();
        assert!(first.closed && first.got == replies(&requests), "idle after what it had to pay");
    }
}

/// It has asked for more, which is not executed, and its replies are in flight for longer than who
/// asks on may leave them there.
#[test]
fn who_does_not_read_while_it_has_to_wait_is_not_stalled() {
    let limits = RateLimits { requests_per_s: 0, bytes_per_s: 1000, ..LIMITS };
    let mut world = world(Dispatch::Inline, &limits);
    let_in(&mut world, &[1]);
    world.peers().next().unwrap().deaf = true;
    say(&mut world, 0, &[vec![b'b'; 95], b"9\n".to_vec()].concat());
    pass(&mut world, 1);
    say(&mut world, 0, b"a1\n");
    pass(&mut world, 40);
    let held = world.ring.held(0);
    assert_eq!((held, world.peers().next().unwrap().closed), (Some(Held::Rate), false));
}

#[test]
fn who_waits_is_not_received_from() {
    let limits = RateLimits { requests_per_s: 0, bytes_per_s: 100, ..LIMITS };
    let mut world = world(Dispatch::Inline, &limits);
    let_in(&mut world, &[1]);
    say(&mut world, 0, b"b9\n");
    pass(&mut world, 2);
    say(&mut world, 0, b"a1\n");
    pass(&mut world, 2);
    assert_eq!(world.registry.sum(Metric::RateParked), 1);
    say(&mut world, 0, &b"a1\n".repeat(1000));
    pass(&mut world, 2);
    let unread = world.peers().next().unwrap().outgoing.len();
    assert!(unread >= 3000, "TCP pushes back: {unread}");
}

/// Turns until a peer who has no limit, and comes now, has its answer.
fn turns_until_a_newcomer_is_answered(world: &mut World) -> usize {
    let peer = world.peers().count();
    world.ring.ring_mut().arriving.push_back(Peer::default());
    while world.peers().count() == peer {
        world.turn();
    }
    say(world, peer, b"a1\n");
    (0..1000)
        .find(|_| {
            world.turn();
            answered(world)[peer] > 0
        })
        .unwrap_or(usize::MAX)
}

/// How many are over their limits.
const CROWD: usize = 18;

/// A crowd over its limits beside which newcomers are answered, with receive buffers of this size.
fn crowded_world(seed: u64, buffer_bytes: u32) -> World {
    let mut world = World::short_of_memory(seed, Dispatch::Inline, &LIMITS, (16, buffer_bytes));
    let_in(&mut world, &[[0; CROWD / 3], [1; CROWD / 3], [2; CROWD / 3]].concat());
    (0..CROWD).for_each(|peer| say(&mut world, peer, &b"a1\n".repeat(12_000)));
    for _ in 0..5 {
        pass(&mut world, 1);
        let turns = turns_until_a_newcomer_is_answered(&mut world);
        assert!(turns < 100, "{turns}");
    }
    world
}

/// What a crowd over its limits sends fits into memory, buffer by buffer.
#[test]
fn who_has_to_wait_does_not_keep_others_from_being_heard() {
    for_each_seed(20, |seed| {
        let mut world = crowded_world(seed, 8192);
        assert!(world.peers().all(|peer| !peer.closed), "they wait, and nobody goes");
        let copied = world.ring.heap_bytes();
        // And the names of pieces.
        let most = CROWD * (8192 + 1024);
        assert!(copied <= most, "a buffer for each at the most, and not {copied} bytes");
    });
}

/// Where even that is too much, those with most of it go.
#[test]
fn those_over_their_limits_go_before_others_are_not_heard() {
    for_each_seed(20, |seed| {
        let mut world = crowded_world(seed, 16_384);
        let mut newcomers = world.peers().skip(CROWD);
        assert!(newcomers.all(|peer| !peer.closed), "nobody goes who may have more");
    });
}

#[test]
fn to_stop_waits_for_nobody_who_has_to_wait() {
    for dispatch in [Dispatch::Inline, Dispatch::Queue] {
        let mut world = world(dispatch, &RateLimits { requests_per_s: 1, ..LIMITS });
        let_in(&mut world, &[1, 1, 1]);
        (0..3).for_each(|peer| say(&mut world, peer, &b"a1\n".repeat(20)));
        pass(&mut world, 3);
        assert!(world.registry.sum(Metric::RateParked) >= 2);
        let start_ns = elapsed_ns(&world);
        world.fleet.drain();
        while !world.ring.has_ended() {
            world.turn();
            assert!(elapsed_ns(&world) - start_ns < 3 * SECOND_NS, "{dispatch:?}: it hangs");
        }
        assert_eq!(world.registry.sum(Metric::RateParked), 0);
        let counts = answered(&mut world);
        assert!(counts.iter().all(|count| *count >= 1), "what had come is answered: {counts:?}");
    }
}

#[test]
fn who_goes_while_it_waits_leaves_nothing_behind() {
    let mut world = world(Dispatch::Inline, &RateLimits { requests_per_s: 1, ..LIMITS });
    let_in(&mut world, &[1, 1, 1]);
    (0..3).for_each(|peer| say(&mut world, peer, b"a1\na1\n"));
    pass(&mut world, 1);
    assert!(world.registry.sum(Metric::RateParked) >= 2);
    world.peers().for_each(|peer| peer.reset = true);
    pass(&mut world, 10);
    assert!(world.peers().all(|peer| peer.closed));
    assert_eq!(world.registry.sum(Metric::RateParked), 0);
    assert!(world.ring.waiting_for_rate().is_empty());
}

/// Nothing is received from them that would tell, and their turns are far away.
#[test]
fn who_goes_while_it_waits_gives_its_place_up() {
    let mut world = world(Dispatch::Inline, &RateLimits { requests_per_s: 1, ..LIMITS });
    let_in(&mut world, &[1; 12]);
    (0..12).for_each(|peer| say(&mut world, peer, b"a1\na1\n"));
    pass(&mut world, 2);
    assert!(world.registry.sum(Metric::RateParked) >= 9);
    world.peers().for_each(|peer| peer.reset = true);
    pass(&mut world, 3);
    assert!(world.peers().all(|peer| peer.closed));
    assert_eq!(world.registry.sum(Metric::RateParked), 0);
}

/// Everything that a ring may meet, and limits besides: all is answered, all is back.
#[test]
fn limits_lose_and_repeat_nothing() {
    for dispatch in [Dispatch::Inline, Dispatch::Queue, Dispatch::Auto] {
        let mut parks = 0;
        let were_all = for_each_seed(8, |seed| {
            let mut chance = Chance::new(seed ^ 0x5EED);
            let limits = RateLimits { requests_per_s: 300, bytes_per_s: 400_000, ..LIMITS };
            let mut world = World::limited(seed, dispatch, 0, 16, &limits);
            let scripts: Vec<Script> = (0..20).map(|_| script(&mut chance)).collect();
            let addresses: Vec<_> = (0..20).map(|_| *chance.pick(&[1, 2, 3])).collect();
            let_in(&mut world, &addresses);
            for (peer, script) in world.peers().zip(&scripts) {
                peer.outgoing.extend(&script.requests);
            }
            let expected: Vec<_> =
                scripts.iter().map(|script| replies(&script.requests).len()).collect();
            for turn in 0..60_000 {
                let is_done = world
                    .peers()
                    .zip(&expected)
                    .all(|(peer, bytes)| peer.closed || peer.got.len() == *bytes);
                if is_done {
                    break;
                }
                let is_late = turn > 500;
                world.peers().zip(&scripts).for_each(|(peer, script)| {
                    peer.reset |= is_late && script.vanishes;
                });
                world.turn();
            }
            parks += world.registry.sum(Metric::RateParks);
            finish(&mut world, &scripts);
            assert_eq!(world.fleet.peers.as_ref().unwrap().connections(), 0);
        });
        // Slow requests are within the limits by themselves.
        assert!(!were_all || parks > 8, "{dispatch:?}: hardly anybody had to wait");
    }
}

#[test]
fn who_waits_is_seen_to() {
    let mut world = world(Dispatch::Inline, &RateLimits { requests_per_s: 1, ..LIMITS });
    let_in(&mut world, &[1]);
    say(&mut world, 0, &b"a1\n".repeat(9));
    pass(&mut world, 1);
    let (_, seen, _) = world.registry.census.next(0).unwrap();
    assert_eq!(seen.doing.name(), "awaits_rate");
    assert_eq!(world.ring.held(0), Some(Held::Rate));
}
