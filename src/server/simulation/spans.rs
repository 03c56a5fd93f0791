//! Peers that do not read large values, which others overwrite meanwhile: what they are owed is
//! copied, or they go, and the memory comes back; whoever is sent bytes is sent the right ones.

use super::values::{World, found, value};
use crate::base::metrics::Metric;
use crate::config::Dispatch;
use crate::sys::fake::{Chance, Peer};

/// A world in which the first peers are deaf, and one more is not.
fn world(seed: u64, dispatch: Dispatch, deaf: usize) -> World {
    let mut world = World::new(seed, dispatch);
    world.ring.ring_mut().zero_copy = false;
    world.ring.ring_mut().arriving.extend((0..=deaf).map(|_| Peer::default()));
    while world.peers().count() <= deaf {
        world.turn();
    }
    world.peers().take(deaf).for_each(|peer| peer.deaf = true);
    world
}

/// The polite peer stores a value, and has its reply.
fn set(world: &mut World, key: usize, value: &[u8]) {
    let peer = world.peers().next_back().unwrap();
    let before = peer.got.len();
    peer.outgoing.extend(format!("set k{key} 0 0 {}\r\n", value.len()).bytes());
    peer.outgoing.extend(value.iter().chain(b"\r\n"));
    for _ in 0..10_000 {
        world.turn();
        let peer = world.peers().next_back().unwrap();
        if peer.got.len() >= before + 8 {
            assert_eq!(&peer.got[before..], b"STORED\r\n");
            return;
        }
    }
    panic!("no reply");
}

/// Lets each deaf peer ask for so many times the value with its number.
fn ask(world: &mut World, deaf: usize, times: usize) {
    for (key, peer) in world.peers().take(deaf).enumerate() {
        peer.outgoing.extend(format!("get k{key}\r\n").repeat(times).bytes());
    }
    let asked_all = |world: &mut World| world.peers().all(|peer| peer.outgoing.is_empty());
    (0..300).for_each(|_| world.turn());
    assert!(asked_all(world));
}

fn outdated_bytes(world: &mut World) -> u64 {
    world.ring.service_mut().table().outdated_bytes()
}

/// About so many seconds.
fn pass_s(world: &mut World, seconds: usize) {
    (0..500 * seconds).for_each(|_| world.turn());
}

#[test]
fn what_a_silent_peer_is_owed_is_copied_when_it_is_gone() {
    for (seed, dispatch) in [(1, Dispatch::Inline), (2, Dispatch::Queue), (3, Dispatch::Auto)] {
        let mut world = world(seed, dispatch, 1);
        let old = value(&mut Chance::new(seed), 1).repeat(100_000);
        set(&mut world, 0, &old);
        ask(&mut world, 1, 2);
        assert!(world.registry.sum(Metric::Spans) > 2, "{dispatch:?}");
        pass_s(&mut world, 15);
        assert_eq!(world.registry.sum(Metric::SpansCopied), 0, "it is in nobody's way");
        set(&mut world, 0, &[1; 5000]);
        pass_s(&mut world, 50);
        assert_eq!(outdated_bytes(&mut world), 0, "{dispatch:?}");
        assert_eq!(world.registry.sum(Metric::SpansCopied), 1, "{dispatch:?}");
        let peer = world.peers().next().unwrap();
        assert!(!peer.closed);
        peer.deaf = false;
        pass_s(&mut world, 1);
        assert!(world.peers().next().unwrap().got == found("k0", &old).repeat(2), "{dispatch:?}");
        world.stop();
        world.assert_all_is_back();
    }
}

#[test]
fn who_keeps_too_much_that_is_gone_to_be_copied_goes() {
    let mut gone = 0;
    for seed in 20..30 {
        let dispatch = if seed < 25 { Dispatch::Inline } else { Dispatch::Queue };
        let mut world = world(seed, dispatch, 1);
        let old = value(&mut Chance::new(seed), 1).repeat(190_000);
        set(&mut world, 0, &old);
        ask(&mut world, 1, 2);
        set(&mut world, 0, &[1; 5000]);
        pass_s(&mut world, 3);
        // A worker of this world looks up only when it has something to do.
        let is_told = dispatch == Dispatch::Queue || outdated_bytes(&mut world) > 190_000;
        assert!(is_told, "seed {seed}");
        pass_s(&mut world, 100);
        // Where the kernel takes a little when it is asked, the rest may be little enough.
        let closed = world.registry.sum(Metric::ClosedForSpans);
        assert_eq!(closed + world.registry.sum(Metric::SpansCopied), 1, "seed {seed}");
        assert_eq!(outdated_bytes(&mut world), 0, "seed {seed}");
        gone += closed;
        let peer = world.peers().next().unwrap();
        assert_eq!(peer.closed, closed == 1, "seed {seed}");
        assert!(found("k0", &old).repeat(2).starts_with(&peer.got), "seed {seed}");
        world.stop();
        world.assert_all_is_back();
    }
    assert!(gone > 1, "{gone}");
}

/// Of the memory, 4 MiB, a sixteenth may be kept for slow peers.
#[test]
fn what_is_gone_takes_a_small_part_of_the_memory() {
    let mut world = world(6, Dispatch::Inline, 4);
    world.ring.throttle_mut().stall_s = 1_000_000;
    let old: Vec<_> = (1..5).map(|byte| vec![byte; 120_000]).collect();
    (0..4).for_each(|key| set(&mut world, key, &old[key]));
    ask(&mut world, 4, 1);
    (0..4).for_each(|key| set(&mut world, key, &[9; 5000]));
    (0..10).for_each(|_| world.turn());
    assert!(outdated_bytes(&mut world) > 4 * 120_000);
    pass_s(&mut world, 10);
    let left = outdated_bytes(&mut world);
    assert!((1..4 << 16).contains(&left), "{left}: no more go than must");
    let told = [Metric::SpansCopied, Metric::ClosedForSpans, Metric::ClosedForItems];
    let told = told.map(|metric| world.registry.sum(metric));
    assert!(told[0] >= 2 && told[1..] == [0, 0], "{told:?}, {left} left");
    world.peers().for_each(|peer| peer.deaf = false);
    pass_s(&mut world, 1);
    for (key, peer) in world.peers().take(4).enumerate() {
        assert!(peer.got == found(&format!("k{key}"), &old[key]), "{key}");
    }
    world.stop();
    world.assert_all_is_back();
}

/// Without a copy, what was sent is kept for as long as a peer does not acknowledge it: who does
/// not is cut off.
#[test]
fn who_acknowledges_nothing_goes() {
    let mut gone = 0;
    for seed in 10..16 {
        let mut world = world(seed, Dispatch::Inline, 1);
        world.ring.ring_mut().zero_copy = true;
        let old = value(&mut Chance::new(seed), 1).repeat(100_000);
        set(&mut world, 0, &old);
        ask(&mut world, 1, 2);
        set(&mut world, 0, &[1; 5000]);
        pass_s(&mut world, 50);
        assert_eq!(outdated_bytes(&mut world), 0, "seed {seed}");
        let copied = world.registry.sum(Metric::SpansCopied);
        let closed = world.registry.sum(Metric::ClosedForSpans);
        assert_eq!(copied + closed, 1, "seed {seed}");
        gone += closed;
        let peer = world.peers().next().unwrap();
        peer.deaf = false;
        pass_s(&mut world, 1);
        let peer = world.peers().next().unwrap();
        let wanted = found("k0", &old).repeat(2);
        assert!(wanted.starts_with(&peer.got) && (closed == 1 || peer.got == wanted));
        world.stop();
        world.assert_all_is_back();
    }
    assert!(gone > 0, "whatever was taken, the rest could be copied");
}

/// Deaf peers ask for more values than there is memory for, all of them live.
#[test]
fn what_is_being_sent_keeps_nobody_from_storing() {
    for dispatch in [Dispatch::Inline, Dispatch::Queue, Dispatch::Auto] {
        let mut world = world(6, dispatch, 20);
        world.ring.throttle_mut().silence_ms = u32::MAX;
        world.ring.throttle_mut().stall_s = 1_000_000;
        for key in 0..20 {
            set(&mut world, key, &[1; 150_000]);
            let peer = world.peers().nth(key).unwrap();
            peer.outgoing.extend(format!("get k{key}\r\n").bytes());
            (0..30).for_each(|_| world.turn());
        }
        (100..160).for_each(|key| set(&mut world, key, &[2; 100_000]));
        world.stop();
        world.assert_all_is_back();
    }
}
