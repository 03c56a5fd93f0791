//! What many connections cost that do nothing.

use super::*;

/// A world with some peers that have been answered once.
fn crowd(idle_timeout_s: u32) -> World {
    let mut world = World::with_idle_timeout(1, Dispatch::Inline, idle_timeout_s);
    world.ring.ring_mut().arriving.extend((0..5).map(|_| Peer::default()));
    while world.peers().count() < 5 {
        world.turn();
    }
    world.peers().for_each(|peer| peer.outgoing.extend(b"a1\n"));
    (0..50).for_each(|_| world.turn());
    assert!(world.peers().all(|peer| peer.got == replies(b"a1\n")));
    world
}

#[test]
fn nobody_is_looked_at_while_all_are_idle() {
    let mut world = crowd(0);
    assert!(!world.ring.looks_at_ticks());
    // Who holds something may stall.
    world.peers().next().unwrap().deaf = true;
    world.peers().next().unwrap().outgoing.extend(b"b9\nb9\n");
    (0..50).for_each(|_| world.turn());
    assert!(world.ring.looks_at_ticks());
    world.peers().for_each(|peer| peer.deaf = false);
    (0..50).for_each(|_| world.turn());
    assert!(!world.ring.looks_at_ticks(), "all of it was read");
}

#[test]
fn who_may_be_idle_for_so_long_only_is_looked_at() {
    assert!(crowd(5).ring.looks_at_ticks());
}

#[test]
fn who_comes_beyond_the_limit_waits_for_a_place() {
    for seed in 0..20 {
        let _told = Told { seed };
        let mut world = World::with_queue(seed);
        let peers = 3 * CONNECTIONS_MAX as usize;
        let peer = || {
            let mut peer = Peer::default();
            peer.outgoing.extend(b"a1\n");
            peer
        };
        world.ring.ring_mut().arriving.extend((0..peers).map(|_| peer()));
        for turn in 0..4000 {
            // Nobody goes before the places are taken.
            if turn > 500 {
                let served = |peer: &&mut Peer| !peer.got.is_empty();
                world.peers().filter(served).for_each(|peer| peer.finished = true);
            }
            world.turn();
            assert!(world.fleet.admission.current() <= CONNECTIONS_MAX);
        }
        assert_eq!(world.peers().count(), peers);
        assert!(world.peers().all(|peer| peer.closed && peer.got == replies(b"a1\n")));
        assert_eq!(world.registry.sum(Metric::RejectedConnections), 0);
        assert!(world.registry.sum(Metric::ListenDisabledNum) > 0);
        assert_eq!(world.registry.sum(Metric::AcceptsPaused), 0, "it listens again");
        assert!(world.registry.sum(Metric::ListenDisabledUs) > 1_000_000, "for 500 turns");
    }
}

#[test]
fn who_waits_for_a_place_does_not_hold_up_the_end() {
    for seed in 0..20 {
        let _told = Told { seed };
        let mut world = World::with_queue(seed);
        let peers = CONNECTIONS_MAX as usize + 5;
        world.ring.ring_mut().arriving.extend((0..peers).map(|_| Peer::default()));
        (0..500).for_each(|_| world.turn());
        assert_eq!(world.fleet.admission.current(), CONNECTIONS_MAX);
        world.fleet.drain();
        (0..500).for_each(|_| world.turn());
        assert!(world.ring.has_ended());
        assert!(world.peers().all(|peer| peer.closed));
    }
}
