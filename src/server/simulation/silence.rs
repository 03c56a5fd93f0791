//! Peers that read slowly and steadily, to whom sends end seldom, as the kernel keeps much for
//! them: nobody takes them for silent, and nobody who stores waits for them. Who takes next to
//! nothing is silent.

use super::spans::{ask, bounds, large, outdated_bytes, pass_s, set, set_while, world};
use super::values::{World, found};
use crate::base::metrics::Metric;
use crate::config::Dispatch;
use crate::sys::fake::Peer;

/// Lets turns pass in which the first peers take so many bytes in each of them.
fn read_slowly(world: &mut World, peers: usize, bytes_per_turn: usize, turns: usize) {
    for _ in 0..turns {
        for peer in world.peers().take(peers) {
            let taken = peer.untaken.len().min(bytes_per_turn);
            peer.got.extend(peer.untaken.drain(..taken));
        }
        world.turn();
    }
}

/// What the kernel keeps for each of the first peers; it takes more when all of that is gone.
fn keep_for(world: &mut World, peers: usize, room: usize) {
    world.peers().take(peers).for_each(|peer| (peer.room, peer.room_min) = (room, room));
}

/// Peers that were copied for, or closed for any reason.
fn wronged(world: &World) -> u64 {
    let told = [Metric::SpansCopied, Metric::ResponseObjOom, Metric::ClosedStalled];
    let told = told.map(|metric| world.registry.sum(metric));
    told.iter().sum::<u64>() + world.registry.sum(Metric::IdleKicks)
}

/// Their sends end once in three seconds, and what they are sent is gone.
#[test]
fn who_reads_steadily_is_not_silent_however_seldom_its_sends_end() {
    for is_local in [false, true] {
        let mut world = world(6, Dispatch::Inline, 3);
        world.peers().take(3).for_each(|peer| peer.is_local = is_local);
        keep_for(&mut world, 3, 60_000);
        let old: Vec<_> = (1..4).map(|byte| vec![byte; 160_000]).collect();
        (0..3).for_each(|key| set(&mut world, key, &old[key]));
        ask(&mut world, 3, 1);
        (0..3).for_each(|key| set(&mut world, key, &[9; 5000]));
        read_slowly(&mut world, 3, 40, 10);
        assert!(outdated_bytes(&mut world) > 4 << 16, "nobody needs what they keep");
        read_slowly(&mut world, 3, 40, 6000);
        for (key, peer) in world.peers().take(3).enumerate() {
            let whole = found(&format!("k{key}"), &old[key]);
            assert!(peer.got == whole, "{key}: {} bytes, local: {is_local}", peer.got.len());
        }
        assert_eq!(wronged(&world), 0);
        assert!(world.registry.sum(Metric::SilencesBroken) > 3);
        world.stop();
        world.assert_all_is_back();
    }
}

/// Another waits for a while, and is sent its value long before they have read all of theirs.
#[test]
fn who_waits_for_steady_readers_does_not_wait_for_long() {
    let mut world = world(6, Dispatch::Inline, 3);
    keep_for(&mut world, 3, 60_000);
    let read = |world: &mut World| read_slowly(world, 3, 40, 1);
    (0..3).for_each(|key| set_while(&mut world, key, &large(key), read));
    set_while(&mut world, 8, &large(8), read);
    for (key, peer) in world.peers().take(3).enumerate() {
        peer.outgoing.extend(format!("get k{key}\r\n").bytes());
    }
    read_slowly(&mut world, 3, 40, 100);
    let polite = world.peers().next_back().unwrap();
    polite.got.clear();
    polite.outgoing.extend(b"get k8\r\n");
    read_slowly(&mut world, 3, 40, 100);
    assert!(world.registry.sum(Metric::SpanWaits) > 0);
    let got = world.peers().next_back().unwrap().got.len();
    assert_eq!(got, 0, "it does not wait: {:?}", bounds(&mut world));
    assert_eq!(wronged(&world), 0, "after a second");
    read_slowly(&mut world, 3, 40, 2000);
    assert!(world.peers().next_back().unwrap().got == found("k8", &large(8)));
    assert!(wronged(&world) > 0);
    for (key, peer) in world.peers().take(3).enumerate() {
        let whole = found(&format!("k{key}"), &large(key));
        assert!(peer.got.len() < whole.len() && whole.starts_with(&peer.got), "{key}");
    }
    world.stop();
    world.assert_all_is_back();
}

/// Its sends end once in twelve seconds, and it has asked for more.
#[test]
fn who_reads_steadily_is_neither_stalled_nor_idle() {
    for idle_timeout_s in [0, 8] {
        let mut world = world(6, Dispatch::Inline, 1);
        world.ring.settings_mut().idle_timeout_s = idle_timeout_s;
        keep_for(&mut world, 1, 60_000);
        set(&mut world, 0, &large(0));
        let line = format!("get k0\r\n{}", "get none\r\n".repeat(2));
        world.peers().next().unwrap().outgoing.extend(line.repeat(4).bytes());
        // The other is idle, if that may be.
        read_slowly(&mut world, 1, 10, 60_000);
        let whole = [found("k0", &large(0)), b"END\r\n".repeat(2)].concat().repeat(4);
        let peer = world.peers().next().unwrap();
        assert!(!peer.closed && whole.starts_with(&peer.got), "{} bytes", peer.got.len());
        assert!(peer.got.len() > 500_000);
        let closed =
            world.registry.sum(Metric::IdleKicks) + world.registry.sum(Metric::ClosedStalled);
        assert_eq!(closed, u64::from(idle_timeout_s > 0));
        world.stop();
        world.assert_all_is_back();
    }
}

/// A byte a second is nothing: where others need what is kept, where somebody waits, and where it
/// has asked for more.
#[test]
fn who_takes_a_byte_now_and_then_is_silent() {
    let trickle = |world: &mut World, seconds: usize| {
        for _ in 0..seconds {
            read_slowly(world, 3, 1, 1);
            pass_s(world, 1);
        }
    };
    let begin = |times: usize| {
        let mut world = world(6, Dispatch::Inline, 3);
        keep_for(&mut world, 3, 60_000);
        (0..3).for_each(|key| set(&mut world, key, &large(key)));
        ask(&mut world, 3, times);
        world
    };
    let mut needed = begin(1);
    (0..3).for_each(|key| set(&mut needed, key, &[9; 5000]));
    trickle(&mut needed, 4);
    assert!(outdated_bytes(&mut needed) <= 4 << 16);
    let mut wanted = begin(1);
    set(&mut wanted, 8, &large(8));
    wanted.peers().next_back().unwrap().outgoing.extend(b"get k8\r\n");
    trickle(&mut wanted, 3);
    assert!(wanted.peers().next_back().unwrap().got.ends_with(&found("k8", &large(8))));
    let mut stalled = begin(5);
    trickle(&mut stalled, 8);
    assert_eq!(wronged(&stalled), 0, "nobody needs anything");
    trickle(&mut stalled, 5);
    assert_eq!(stalled.registry.sum(Metric::ClosedStalled), 3);
    assert!(wronged(&needed) > 0 && wronged(&wanted) > 0);
    for world in [&mut needed, &mut wanted, &mut stalled] {
        assert_eq!(world.registry.sum(Metric::SilencesBroken), 0);
        world.stop();
        world.assert_all_is_back();
    }
}

/// What they keep is gone as soon as they have begun to read it. For those among them who wait for
/// long some is copied, or one goes; and one where the ring of a queue has asked for a page for as
/// long as it may, because all that it lets go of is being sent.
#[test]
fn who_stores_does_not_wait_for_steady_readers() {
    for dispatch in [Dispatch::Inline, Dispatch::Queue] {
        let mut world = world(6, dispatch, 20);
        keep_for(&mut world, 20, 60_000);
        let read = |world: &mut World| read_slowly(world, 20, 40, 1);
        (0..20).for_each(|key| set_while(&mut world, key, &large(key)[..100_000], read));
        for round in 0..60 {
            let key = round % 20;
            let peer = world.peers().nth(key).unwrap();
            if peer.outgoing.is_empty() {
                peer.outgoing.extend(format!("get k{key}\r\n").bytes());
            }
            read_slowly(&mut world, 20, 40, 50);
            set_while(&mut world, key, &large(round)[..100_000], read);
            set_while(&mut world, 100 + round, &[2; 100_000], read);
            let (pinned, most) = bounds(&mut world);
            let kept = pinned.max(outdated_bytes(&mut world));
            assert!(kept < most + 4 * 200_000, "{kept} {dispatch:?}");
        }
        let told = [
            Metric::SpanWaits,
            Metric::SilencesBroken,
            Metric::ClosedForPool,
            Metric::ClosedForReplies,
            Metric::ClosedStalled,
        ];
        let told = told.map(|metric| world.registry.sum(metric));
        assert!(told[..2].iter().all(|it| *it > 0), "{told:?} {dispatch:?}");
        assert_eq!(told[2..], [0; 3], "{told:?} {dispatch:?}");
        let gone = [Metric::ClosedForSpans, Metric::ClosedForItems];
        let gone: u64 = gone.into_iter().map(|metric| world.registry.sum(metric)).sum();
        assert!(gone <= 2, "{gone} of 20 {dispatch:?}");
        world.stop();
        world.assert_all_is_back();
    }
}

/// More is gone than should be kept of all that is sent, however they read: some of them go, and no
/// more than must.
#[test]
fn what_steady_readers_keep_that_is_gone_is_bounded() {
    let mut world = world(6, Dispatch::Inline, 3);
    keep_for(&mut world, 3, 60_000);
    let read = |world: &mut World| read_slowly(world, 3, 40, 1);
    let old: Vec<_> = (1..4).map(|byte| vec![byte; 185_000]).collect();
    (0..3).for_each(|key| set(&mut world, key, &old[key]));
    ask(&mut world, 3, 1);
    (0..3).for_each(|key| set_while(&mut world, key, &[9; 5000], read));
    let most = bounds(&mut world).1;
    assert!(outdated_bytes(&mut world) > most);
    read_slowly(&mut world, 3, 40, 2000);
    assert!(outdated_bytes(&mut world) <= most);
    read_slowly(&mut world, 3, 40, 5000);
    let is_whole = |(key, peer): (usize, &mut Peer)| {
        let whole = found(&format!("k{key}"), &old[key]);
        assert!(whole.starts_with(&peer.got), "{key}");
        peer.got == whole
    };
    let whole = world.peers().take(3).enumerate().map(is_whole).filter(|it| *it).count();
    assert!((1..3).contains(&whole) || world.registry.sum(Metric::SpansCopied) == 1, "{whole}");
    assert_eq!(wronged(&world), 1);
    world.stop();
    world.assert_all_is_back();
}
