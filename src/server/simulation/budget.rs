//! Connections that take long, and their neighbours.

use super::echo::SLOW_NS;
use super::*;

/// What a connection of these tests has executed at a time, at the most.
const BATCH_NS_MAX: u64 = 32 * 9 * SLOW_NS;

const TURN_NS_MAX: u64 = 200_000;

/// Ten peers who ask for much that is slow, and one who asks for a little in every turn.
fn crowd(dispatch: Dispatch) -> World {
    let mut world = World::with(3, dispatch, 0, 16);
    world.ring.ring_mut().arriving.extend((0..11).map(|_| Peer::default()));
    while world.peers().count() < 11 {
        world.turn();
    }
    world.peers().take(10).for_each(|peer| peer.outgoing.extend(b"s9\n".repeat(400)));
    world
}

fn crowd_is_done(world: &mut World) -> bool {
    let slow = replies(&b"s9\n".repeat(400));
    world.peers().take(10).all(|peer| peer.got == slow)
}

#[test]
fn a_turn_ends_when_it_has_taken_its_time() {
    for dispatch in [Dispatch::Inline, Dispatch::Auto] {
        let mut world = crowd(dispatch);
        let (mut longest_ns, mut asked) = (0, 0);
        while !crowd_is_done(&mut world) {
            world.peers().next_back().unwrap().outgoing.extend(b"a1\n");
            asked += 1;
            assert!(asked < 30_000, "it takes for ever");
            let before_ns = world.elapsed_ns.load(Ordering::Relaxed);
            world.ring.turn_checked();
            let took_ns = world.elapsed_ns.load(Ordering::Relaxed) - before_ns;
            longest_ns = longest_ns.max(took_ns);
            for worker in &mut world.workers {
                worker.work();
            }
        }
        let allowed_ns = TURN_NS_MAX + BATCH_NS_MAX;
        assert!(longest_ns <= allowed_ns, "{dispatch:?}: a turn took {longest_ns} ns");
        assert!(world.registry.sum(Metric::TurnsOverBudget) > 10, "{dispatch:?}");
        let is_elsewhere = world.registry.sum(Metric::BatchesOverBudget) > 10;
        assert_eq!(is_elsewhere, dispatch == Dispatch::Auto);
        let neighbour = world.peers().next_back().unwrap();
        let served = neighbour.got.iter().filter(|byte| **byte == b'\n').count();
        assert!(served * 2 > asked, "{dispatch:?}: {served} of {asked} times something came");
    }
}
