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
