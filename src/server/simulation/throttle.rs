//! Every level of the throttle, against the fake ring: who waits, who is parked and comes back, who
//! is let in, who goes, and that nobody goes early.

use super::*;
use crate::net::throttle::Throttle;

const SECOND_NS: u64 = 1_000_000_000;

/// A line whose reply takes more than five blocks.
fn large() -> Vec<u8> {
    [vec![b'b'; 95], b"9\n".to_vec()].concat()
}

/// What a ring has of its own, and no more; levels as told.
fn world(park_percent: u8, drop_percent: u8) -> World {
    let mut world = World::with(3, Dispatch::Inline, 0, 0);
    *world.ring.throttle_mut() = Throttle { park_percent, drop_percent, ..Throttle::default() };
    world
}

/// Lets peers in, in this order.
fn let_in(world: &mut World, count: usize, deaf: bool) {
    for _ in 0..count {
        let before = world.peers().count();
        let mut peer = Peer::default();
        peer.deaf = deaf;
        world.ring.ring_mut().arriving.push_back(peer);
        while world.peers().count() == before {
            world.turn();
        }
    }
}

fn say(world: &mut World, peer: usize, bytes: &[u8]) {
    world.peers().nth(peer).unwrap().outgoing.extend(bytes);
}

fn closed(world: &mut World) -> Vec<bool> {
    world.peers().map(|peer| peer.closed).collect()
}

fn turns(world: &mut World, count: usize) {
    (0..count).for_each(|_| world.turn());
}

fn elapsed_ns(world: &World) -> u64 {
    world.elapsed_ns.load(Ordering::Relaxed)
}

/// Goes on until a second is nearly over, when those that have begun mislead most.
fn late_in_a_second(world: &mut World) {
    while elapsed_ns(world) % SECOND_NS < SECOND_NS * 9 / 10 {
        world.turn();
    }
}

#[test]
fn who_holds_nothing_is_served_although_others_want_all_there_is() {
    for dispatch in [Dispatch::Inline, Dispatch::Queue] {
        let mut world = World::with(3, dispatch, 0, 0);
        // Nobody goes for that.
        world.ring.throttle_mut().silence_ms = u32::MAX;
        let_in(&mut world, 4, true);
        let_in(&mut world, 1, false);
        (0..4).for_each(|peer| say(&mut world, peer, &large().repeat(3)));
        turns(&mut world, 60);
        assert!(world.registry.sum(Metric::ReplyWaits) > 0, "memory is not short");
        for _ in 0..20 {
            say(&mut world, 4, b"a1\n");
            turns(&mut world, 3);
        }
        turns(&mut world, 400);
        let got = world.peers().nth(4).unwrap().got.clone();
        assert!(got == replies(&b"a1\n".repeat(20)), "{dispatch:?}: {} bytes", got.len());
    }
}

#[test]
fn who_holds_more_than_its_share_is_parked_alone_and_comes_back() {
    let mut world = world(30, 100);
    let_in(&mut world, 2, true);
    let_in(&mut world, 1, false);
    say(&mut world, 0, &large().repeat(4));
    turns(&mut world, 40);
    say(&mut world, 1, b"a1\n");
    turns(&mut world, 40);
    for _ in 0..50 {
        (0..3).for_each(|peer| say(&mut world, peer, b"a1\n"));
        turns(&mut world, 2);
    }
    turns(&mut world, 20);
    assert_eq!(world.registry.sum(Metric::ThrottleParked), 1);
    let unread: Vec<_> = world.peers().map(|peer| peer.outgoing.len()).collect();
    assert!(unread[0] >= 3 * 45, "TCP pushes back: {unread:?}");
    assert_eq!(unread[1..], [0, 0], "nobody else is parked");
    world.peers().for_each(|peer| peer.deaf = false);
    turns(&mut world, 600);
    assert_eq!(world.registry.sum(Metric::ThrottleParked), 0);
    let expected = [large().repeat(4), b"a1\n".repeat(50)].concat();
    assert!(world.peers().next().unwrap().got == replies(&expected));
}

#[test]
fn without_pressure_nobody_is_parked() {
    let mut world = world(100, 101);
    let_in(&mut world, 2, true);
    say(&mut world, 0, &large().repeat(4));
    turns(&mut world, 40);
    for _ in 0..50 {
        say(&mut world, 0, b"a1\n");
        turns(&mut world, 2);
    }
    turns(&mut world, 20);
    assert_eq!(world.registry.sum(Metric::ThrottleParks), 0);
    assert!(world.peers().next().unwrap().outgoing.is_empty());
}

/// They do not read, so that none comes back by holding less; then memory is no longer short.
#[test]
fn who_was_parked_first_comes_back_first() {
    let mut world = world(20, 25);
    let_in(&mut world, 6, true);
    for peer in [4, 1, 5, 0, 3, 2] {
        say(&mut world, peer, b"b9\n");
        turns(&mut world, 30);
        say(&mut world, peer, b"a1\na1\n");
        turns(&mut world, 10);
    }
    let queue = world.ring.parked();
    assert!(queue.len() >= 3, "{queue:?}");
    *world.ring.throttle_mut() = Throttle { park_percent: 100, ..Throttle::default() };
    world.ring.ring_mut().receiving.clear();
    turns(&mut world, 4);
    let order = &world.ring.ring_mut().receiving;
    let back: Vec<_> = order.iter().copied().filter(|slot| queue.contains(slot)).collect();
    assert_eq!(back[..queue.len()], queue);
}

/// Three peers that do not read hold more than there is.
fn world_that_lets_nobody_in() -> World {
    let mut world = world(10, 30);
    let_in(&mut world, 3, true);
    (0..3).for_each(|peer| say(&mut world, peer, &large()));
    world.ring.service_mut().overdrawn = 1;
    while world.registry.sum(Metric::AcceptsPaused) == 0 {
        world.turn();
    }
    world
}

#[test]
fn who_waits_to_be_let_in_does_not_wait_for_long() {
    for is_there in [true, false] {
        let mut world = world_that_lets_nobody_in();
        if is_there {
            world.ring.ring_mut().arriving.push_back(Peer::default());
        }
        let waited = until_closed(&mut world);
        assert_eq!(waited < SECOND_NS, is_there, "{waited} ns");
        if is_there {
            turns(&mut world, 40);
            assert_eq!(world.peers().count(), 4);
        }
    }
}

#[test]
fn nobody_is_let_in_while_memory_is_dire_and_more_is_taken_than_there_is() {
    let mut world = world_that_lets_nobody_in();
    world.ring.throttle_mut().silence_ms = u32::MAX;
    turns(&mut world, 5);
    world.ring.ring_mut().arriving.push_back(Peer::default());
    turns(&mut world, 30);
    assert_eq!(world.peers().count(), 3, "somebody was let in");
    world.ring.service_mut().overdrawn = 0;
    assert_eq!(world.registry.sum(Metric::ThrottleDeaf), 1);
    assert_eq!(world.registry.sum(Metric::ListenDisabledNum), 0, "no descriptor is missing");
    world.peers().for_each(|peer| peer.deaf = false);
    turns(&mut world, 200);
    assert_eq!(world.registry.sum(Metric::AcceptsPaused), 0);
    assert_eq!(world.peers().count(), 4);
}

#[test]
fn the_largest_goes_when_memory_is_dire_and_no_more_than_must() {
    let mut world = world(20, 40);
    let_in(&mut world, 3, true);
    say(&mut world, 1, b"a1\n");
    say(&mut world, 2, b"a1\n");
    turns(&mut world, 200);
    say(&mut world, 0, &large());
    turns(&mut world, 20);
    assert_eq!(closed(&mut world), [false; 3], "nobody has been silent for long enough");
    turns(&mut world, 400);
    assert_eq!(closed(&mut world), [true, false, false]);
    assert_eq!(world.registry.sum(Metric::ClosedForPool), 1);
    assert_eq!(world.registry.sum(Metric::ResponseObjOom), 1);
}

/// The time from when nothing more moved until the first peer was closed.
fn until_closed(world: &mut World) -> u64 {
    let (mut moved, mut got) = (elapsed_ns(world), 0);
    for _ in 0..3000 {
        let is_closed = closed(world).contains(&true);
        let now_got = world.peers().next().unwrap().got.len();
        if is_closed {
            return elapsed_ns(world) - moved;
        }
        if std::mem::replace(&mut got, now_got) != now_got {
            moved = elapsed_ns(world);
        }
        world.turn();
    }
    panic!("nobody is closed");
}

#[test]
fn ten_seconds_are_ten_seconds() {
    let mut world = world(100, 101);
    let_in(&mut world, 1, false);
    late_in_a_second(&mut world);
    say(&mut world, 0, b"a1\n");
    while world.peers().next().unwrap().got.is_empty() {
        world.turn();
    }
    world.peers().next().unwrap().deaf = true;
    say(&mut world, 0, &large().repeat(30));
    let waited = until_closed(&mut world);
    assert!((10 * SECOND_NS..12 * SECOND_NS).contains(&waited), "{waited} ns");
    assert_eq!(world.registry.sum(Metric::ClosedStalled), 1);
}

#[test]
fn two_seconds_of_silence_are_two_seconds() {
    let mut world = world(10, 20);
    let_in(&mut world, 1, false);
    late_in_a_second(&mut world);
    say(&mut world, 0, b"a1\n");
    while world.peers().next().unwrap().got.is_empty() {
        world.turn();
    }
    world.peers().next().unwrap().deaf = true;
    say(&mut world, 0, &large());
    let waited = until_closed(&mut world);
    assert!((2 * SECOND_NS..3 * SECOND_NS).contains(&waited), "{waited} ns");
    assert_eq!(world.registry.sum(Metric::ClosedForPool), 1);
}

#[test]
fn five_seconds_to_drain_are_five_seconds() {
    let mut world = world(100, 101);
    let_in(&mut world, 1, true);
    say(&mut world, 0, &large());
    turns(&mut world, 40);
    late_in_a_second(&mut world);
    world.fleet.drain();
    world.turn();
    let waited = until_closed(&mut world);
    assert!((5 * SECOND_NS - 100_000_000..7 * SECOND_NS).contains(&waited), "{waited} ns");
    assert_eq!(world.registry.sum(Metric::ClosedDraining), 1);
}

#[test]
fn who_keeps_little_of_what_items_want_stays() {
    let mut world = World::with(9, Dispatch::Inline, 0, 16);
    let_in(&mut world, 3, false);
    say(&mut world, 0, b"a1\n");
    say(&mut world, 2, b"a1\n");
    turns(&mut world, 300);
    say(&mut world, 1, b"a1\na1\na1\n");
    turns(&mut world, 400);
    world.ring.service_mut().starved = 2500;
    while world.registry.sum(Metric::ClosedForItems) == 0 {
        world.turn();
    }
    world.ring.service_mut().starved = 0;
    turns(&mut world, 100);
    assert_eq!(closed(&mut world), [false, true, false], "the largest, not the longest silent");
}

#[test]
fn every_end_is_counted_by_its_reason() {
    let mut world = World::with(4, Dispatch::Inline, 0, 2);
    let_in(&mut world, 6, false);
    (0..6).for_each(|peer| say(&mut world, peer, b"a1\n"));
    turns(&mut world, 30);
    say(&mut world, 0, b"q\n");
    world.peers().nth(1).unwrap().finished = true;
    world.peers().nth(2).unwrap().finished = true;
    world.peers().nth(3).unwrap().reset = true;
    turns(&mut world, 60);
    let counts = |world: &World| {
        [Metric::ClosedCommand, Metric::ClosedEnded, Metric::ClosedBroken, Metric::ClosedDraining]
            .map(|metric| world.registry.sum(metric))
    };
    assert_eq!(counts(&world), [1, 2, 1, 0]);
    world.fleet.drain();
    turns(&mut world, 60);
    assert_eq!(counts(&world), [1, 2, 1, 2]);
}

/// Reads a byte in every send, and asks for more all the time.
fn let_in_who_sips(world: &mut World) {
    let_in(world, 1, true);
    let peer = world.peers().last().unwrap();
    (peer.deaf, peer.sips) = (false, true);
}

#[test]
fn who_only_sips_is_as_silent_as_who_does_not_read() {
    let mut world = world(20, 40);
    let_in_who_sips(&mut world);
    let_in(&mut world, 1, false);
    say(&mut world, 0, &large().repeat(2));
    for _ in 0..10 {
        say(&mut world, 1, b"a1\n");
        turns(&mut world, 100);
    }
    assert!(world.peers().next().unwrap().got.len() > 20, "it reads now and then");
    assert_eq!(closed(&mut world), [true, false]);
    assert_eq!(world.registry.sum(Metric::ClosedForPool), 1);
}

#[test]
fn who_sips_and_sends_on_is_stalled() {
    let mut world = world(100, 101);
    let_in_who_sips(&mut world);
    for _ in 0..30 {
        say(&mut world, 0, &large());
        turns(&mut world, 50);
    }
    assert_eq!((closed(&mut world), world.registry.sum(Metric::ClosedStalled)), (vec![true], 1));
}

#[test]
fn who_reads_slowly_but_gets_on_stays() {
    let mut world = world(20, 40);
    let_in(&mut world, 1, true);
    say(&mut world, 0, &large().repeat(2));
    for _ in 0..40 {
        // A send now and then: three blocks at most, and often less.
        turns(&mut world, 60);
        let got = world.peers().next().unwrap().got.len();
        world.peers().next().unwrap().deaf = false;
        while world.peers().next().unwrap().got.len() < got + 20_000
            && !world.peers().next().unwrap().got.ends_with(b"\n")
        {
            world.turn();
        }
        world.peers().next().unwrap().deaf = true;
    }
    assert_eq!(closed(&mut world), [false]);
}

/// A line that comes byte by byte keeps something that items want.
#[test]
fn who_sends_a_byte_now_and_then_is_silent() {
    let mut world = World::with(9, Dispatch::Inline, 0, 16);
    let_in(&mut world, 2, false);
    say(&mut world, 0, b"a1\n");
    turns(&mut world, 30);
    world.ring.service_mut().starved = 500;
    for _ in 0..20 {
        say(&mut world, 0, b"a");
        turns(&mut world, 50);
    }
    assert_eq!(closed(&mut world), [true, false]);
    assert_eq!(world.registry.sum(Metric::ClosedForItems), 1);
}

/// Each ring is told all that is wanted, and asks for its part.
#[test]
fn rings_share_what_items_want() {
    let mut world = World::with(9, Dispatch::Inline, 0, 16);
    world.ring.settings_mut().rings = 4;
    let_in(&mut world, 10, false);
    (0..10).for_each(|peer| say(&mut world, peer, b"a1\n"));
    turns(&mut world, 400);
    world.ring.service_mut().starved = 4000;
    while world.registry.sum(Metric::ClosedForItems) == 0 {
        world.turn();
    }
    world.ring.service_mut().starved = 0;
    turns(&mut world, 200);
    let gone = closed(&mut world).iter().filter(|closed| **closed).count();
    assert_eq!(gone, 1, "a quarter of 4000 bytes");
}

/// Others hold all that is lent for replies and let nothing go: who comes is let in and served.
#[test]
fn who_comes_does_not_wait_until_others_go() {
    let mut world = World::with(3, Dispatch::Inline, 0, 16);
    *world.ring.throttle_mut() = Throttle {
        park_percent: 20,
        drop_percent: 40,
        silence_ms: u32::MAX,
        ..Throttle::default()
    };
    let_in(&mut world, 20, true);
    (0..20).for_each(|peer| say(&mut world, peer, &large().repeat(9)));
    turns(&mut world, 300);
    assert_eq!(world.registry.sum(Metric::ThrottleLevel), 2, "memory is not dire");
    let start_ns = elapsed_ns(&world);
    world.ring.ring_mut().arriving.push_back(Peer::default());
    while world.peers().count() < 21 {
        world.turn();
        assert!(elapsed_ns(&world) - start_ns < SECOND_NS, "it is not let in");
    }
    say(&mut world, 20, b"a1\n");
    while world.peers().nth(20).unwrap().got.is_empty() {
        world.turn();
        assert!(elapsed_ns(&world) - start_ns < SECOND_NS, "it is not served");
    }
}

/// More than there are blocks, and fewer than are let in.
const DEAF: usize = 20;

/// Peers that ask for a little again and again and never read: their sockets take the first few
/// replies. They hold all blocks but the last ones, and nobody goes for that.
fn world_of_deaf(dispatch: Dispatch) -> World {
    let mut world = World::with(3, dispatch, 0, 0);
    world.ring.throttle_mut().silence_ms = u32::MAX;
    let_in(&mut world, DEAF, true);
    world.peers().for_each(|peer| peer.room = 30);
    for _ in 0..40 {
        world.peers().for_each(|peer| peer.outgoing.extend(b"a1\na1\na1\n"));
        turns(&mut world, 8);
    }
    world
}

fn turns_until_answered(world: &mut World, peer: usize) -> usize {
    let before = world.peers().nth(peer).unwrap().got.len();
    say(world, peer, b"a1\n");
    let is_answered = |_: &usize| {
        world.turn();
        let got = &world.peers().nth(peer).unwrap().got;
        got.len() > before && got.ends_with(b"\n")
    };
    (1..1000).find(is_answered).expect("it is never served")
}

#[test]
fn who_has_read_is_served_before_any_number_of_those_who_have_not() {
    for dispatch in [Dispatch::Inline, Dispatch::Queue, Dispatch::Auto] {
        let mut world = world_of_deaf(dispatch);
        let waits = world.registry.sum(Metric::ReplyWaits);
        assert!(waits > DEAF as u64, "{dispatch:?}: memory is not short: {waits}");
        for fresh in DEAF..DEAF + 4 {
            let_in(&mut world, 1, false);
            for _ in 0..5 {
                let turns = turns_until_answered(&mut world, fresh);
                assert!(turns < 48, "{dispatch:?}: {turns} turns, of which 16 are a tick");
            }
            assert!(world.peers().nth(fresh).unwrap().got == replies(&b"a1\n".repeat(5)));
        }
        assert!(closed(&mut world).iter().all(|closed| !closed));
    }
}

/// It asked while something that it was sent was on its way, and stands with those who never read.
#[test]
fn who_has_read_late_is_found_among_those_who_have_not() {
    let mut world = world_of_deaf(Dispatch::Inline);
    let_in(&mut world, 1, true);
    world.peers().for_each(|peer| peer.room = 30);
    say(&mut world, DEAF, b"a1\n");
    turns(&mut world, 40);
    say(&mut world, DEAF, b"a1\n");
    turns(&mut world, 40);
    let peer = world.peers().nth(DEAF).unwrap();
    assert_eq!((peer.untaken.len(), peer.got.len()), (5, 0), "the second reply waits");
    peer.deaf = false;
    turns(&mut world, 100);
    assert!(world.peers().nth(DEAF).unwrap().got == replies(b"a1\na1\n"));
}

/// Those who have not read what they were sent wait for longer than others before somebody goes.
#[test]
fn nobody_goes_in_haste_for_who_does_not_read() {
    let mut world = world_of_deaf(Dispatch::Inline);
    let begun = elapsed_ns(&world);
    (world.ring.throttle_mut().silence_ms, world.ring.throttle_mut().stall_s) = (60_000, 1000);
    for _ in 0..20_000 {
        world.turn();
        if closed(&mut world).contains(&true) {
            break;
        }
    }
    let waited = elapsed_ns(&world) - begun;
    assert!((55 * SECOND_NS..70 * SECOND_NS).contains(&waited), "{waited} ns");
    assert!(world.registry.sum(Metric::ClosedForReplies) > 0);
}

/// A few come first and fill the memory for what waits, and others all receive buffers.
#[test]
fn who_waits_to_store_does_not_keep_others_from_being_heard() {
    for_each_seed(40, |seed| {
        let mut world = World::with(seed, Dispatch::Inline, 0, 0);
        let waits = [&[b'v'; 900][..], b"0\n"].concat().repeat(30);
        for (peers, count) in [(0..5, 5), (5..19, 14)] {
            let_in(&mut world, count, false);
            peers.for_each(|peer| say(&mut world, peer, &waits));
            turns(&mut world, 200);
        }
        let_in(&mut world, 1, false);
        let turns = turns_until_answered(&mut world, 19);
        assert!(turns < 100, "{turns}");
    });
}

/// Workers that do not get on have what a ring has asked of them, but neither all of its receive
/// buffers nor of its blocks.
#[test]
fn what_waits_for_workers_does_not_keep_others_from_being_heard() {
    for_each_seed(10, |seed| {
        let mut world = World::with_buffers(seed, Dispatch::Auto, (32, 1024));
        world.workers.clear();
        let_in(&mut world, 22, false);
        (0..21).for_each(|peer| say(&mut world, peer, &b"d1\n".repeat(700)));
        turns(&mut world, 200);
        let turns = turns_until_answered(&mut world, 21);
        assert!(turns < 100, "{turns}");
    });
}

/// What they ask for is more than there is room for, until some of them go.
#[test]
fn who_does_not_read_does_not_keep_others_from_being_heard() {
    for dispatch in [Dispatch::Inline, Dispatch::Queue, Dispatch::Auto] {
        let mut dry = 0;
        let were_all = for_each_seed(10, |seed| {
            let limits = RateLimits::default();
            let mut world = World::short_of_memory(seed, dispatch, &limits, (16, 8192));
            let_in(&mut world, 18, true);
            (0..18).for_each(|peer| say(&mut world, peer, &b"a1\n".repeat(20_000)));
            turns(&mut world, 200);
            for newcomer in 18..22 {
                let_in(&mut world, 1, false);
                let turns = turns_until_answered(&mut world, newcomer);
                assert!(turns < 100, "{dispatch:?}: {turns}");
            }
            assert!(closed(&mut world)[18..].iter().all(|closed| !closed));
            assert!(world.registry.sum(Metric::ClosedForReplies) > 0);
            dry += world.registry.sum(Metric::BuffersDry);
        });
        assert!(dry > 0 || !were_all, "{dispatch:?}: nobody was in the way");
    }
}
