//! Peers on this host, of whose end the kernel may not tell.

use super::*;

#[test]
fn an_end_that_was_not_told_is_found() {
    for (seed, dispatch) in (0..20).zip([Dispatch::Inline, Dispatch::Queue].into_iter().cycle()) {
        let _told = Told { seed };
        let mut world = World::new(seed, dispatch);
        let mut peer = Peer::default();
        peer.is_local = true;
        peer.outgoing.extend(b"a1\n".repeat(5));
        peer.finished = true;
        world.ring.ring_mut().arriving.push_back(peer);
        for _ in 0..3000 {
            world.turn();
        }
        let peer = world.peers().next().unwrap();
        assert!(peer.got == replies(&b"a1\n".repeat(5)));
        assert!(peer.closed, "it waits for ever");
    }
}

#[test]
fn who_only_thinks_is_received_from_anew_once() {
    let mut world = World::new(1, Dispatch::Inline);
    let mut peer = Peer::default();
    peer.is_local = true;
    world.ring.ring_mut().arriving.push_back(peer);
    let armed = |world: &mut World| world.ring.ring_mut().receiving.len();
    for _ in 0..300 {
        world.turn();
    }
    assert_eq!(armed(&mut world), 2, "when it came, and when it had been silent for a while");
    world.peers().for_each(|peer| peer.outgoing.extend(b"a1\n"));
    for _ in 0..3000 {
        world.turn();
    }
    assert!((3..=5).contains(&armed(&mut world)), "{} times", armed(&mut world));
}
