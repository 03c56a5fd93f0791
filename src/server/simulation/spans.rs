//! Peers that do not read large values, which others overwrite meanwhile: what they are owed is
//! copied, or they go, and the memory comes back; whoever is sent bytes is sent the right ones.
//! What is still of use to others may not be kept by many of them, either: who comes later waits.

use super::values::{World, found, value};
use crate::base::clock::Now;
use crate::base::metrics::Metric;
use crate::config::Dispatch;
use crate::sys::fake::{Chance, Peer};

/// A world in which the first peers are deaf, and one more is not.
pub(super) fn world(seed: u64, dispatch: Dispatch, deaf: usize) -> World {
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
pub(super) fn set(world: &mut World, key: usize, value: &[u8]) {
    set_while(world, key, value, World::turn);
}

/// As `set`, with what happens meanwhile.
pub(super) fn set_while(
    world: &mut World,
    key: usize,
    value: &[u8],
    mut turn: impl FnMut(&mut World),
) {
    let peer = world.peers().next_back().unwrap();
    let before = peer.got.len();
    peer.outgoing.extend(format!("set k{key} 0 0 {}\r\n", value.len()).bytes());
    peer.outgoing.extend(value.iter().chain(b"\r\n"));
    for _ in 0..10_000 {
        turn(world);
        let peer = world.peers().next_back().unwrap();
        if peer.got.len() >= before + 8 {
            assert_eq!(&peer.got[before..], b"STORED\r\n");
            return;
        }
    }
    panic!("no reply");
}

/// Lets each deaf peer ask for so many times the value with its number.
pub(super) fn ask(world: &mut World, deaf: usize, times: usize) {
    for (key, peer) in world.peers().take(deaf).enumerate() {
        peer.outgoing.extend(format!("get k{key}\r\n").repeat(times).bytes());
    }
    let asked_all = |world: &mut World| world.peers().all(|peer| peer.outgoing.is_empty());
    (0..300).for_each(|_| world.turn());
    assert!(asked_all(world));
}

pub(super) fn outdated_bytes(world: &mut World) -> u64 {
    world.ring.service_mut().table().outdated_bytes()
}

/// About so many seconds.
pub(super) fn pass_s(world: &mut World, seconds: usize) {
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

/// Nobody is closed for being slow.
fn be_patient(world: &mut World) {
    world.ring.throttle_mut().silence_ms = u32::MAX;
    world.ring.throttle_mut().stall_s = 1_000_000;
}

pub(super) fn large(key: usize) -> Vec<u8> {
    vec![u8::try_from(key).unwrap(); 150_000]
}

/// So many deaf peers ask for values of their own, one after the other.
fn ask_for_live(world: &mut World, deaf: usize) {
    for key in 0..deaf {
        set(world, key, &large(key));
        let peer = world.peers().nth(key).unwrap();
        peer.outgoing.extend(format!("get k{key}\r\n").bytes());
        (0..30).for_each(|_| world.turn());
    }
}

pub(super) fn bounds(world: &mut World) -> (u64, u64) {
    let table = world.ring.service_mut().table();
    (table.pinned_bytes(), table.pinned_bytes_max())
}

const EVERY_DISPATCH: [Dispatch; 3] = [Dispatch::Inline, Dispatch::Queue, Dispatch::Auto];

/// Deaf peers ask for more values than there is memory for, all of them live.
#[test]
fn what_is_being_sent_keeps_nobody_from_storing() {
    for dispatch in EVERY_DISPATCH {
        let mut world = world(6, dispatch, 20);
        be_patient(&mut world);
        ask_for_live(&mut world, 20);
        (100..160).for_each(|key| set(&mut world, key, &[2; 100_000]));
        let (pinned, most) = bounds(&mut world);
        // Each thread may go too far by one item, and the page of the log that it is in.
        assert_eq!(most, (4 << 20) / 8);
        assert!((most..most + 4 * 200_000).contains(&pinned), "{pinned} {dispatch:?}");
        assert!(world.registry.sum(Metric::SpanWaits) > 10);
        world.stop();
        world.assert_all_is_back();
    }
}

/// Some of them are gone before that.
#[test]
fn who_waits_is_sent_its_value_when_others_have_read() {
    for dispatch in EVERY_DISPATCH {
        let mut world = world(6, dispatch, 20);
        be_patient(&mut world);
        ask_for_live(&mut world, 20);
        for number in [0, 9, 18] {
            world.peers().nth(number).unwrap().reset = true;
        }
        world.peers().nth(17).unwrap().finished = true;
        (0..100).for_each(|_| world.turn());
        world.peers().for_each(|peer| peer.deaf = false);
        (0..2000).for_each(|_| world.turn());
        let mut found_count = 0;
        for (key, peer) in world.peers().take(20).enumerate().filter(|(_, peer)| !peer.reset) {
            // It may have been evicted while its peer waited.
            let is_found = peer.got == found(&format!("k{key}"), &large(key));
            assert!(is_found || peer.got == b"END\r\n", "{key} {dispatch:?}");
            assert_eq!(peer.closed, peer.finished);
            found_count += usize::from(is_found);
        }
        assert!(found_count > 8, "{found_count} {dispatch:?}");
        world.stop();
        world.assert_all_is_back();
    }
}

/// One connection asks for more in one list than may be sent from where it lies.
#[test]
fn a_list_is_longer_than_what_may_be_sent_at_a_time() {
    for dispatch in EVERY_DISPATCH {
        let mut world = world(6, dispatch, 3);
        be_patient(&mut world);
        ask_for_live(&mut world, 3);
        (3..9).for_each(|key| set(&mut world, key, &large(key)));
        let polite = world.peers().next_back().unwrap();
        polite.got.clear();
        polite.outgoing.extend("get k3 k4 k5 k6 k7 k8\r\n".repeat(5).bytes());
        (0..20).for_each(|_| world.turn());
        // In the middle of that others let go of what they were sent.
        world.peers().for_each(|peer| peer.deaf = false);
        (0..4000).for_each(|_| world.turn());
        let value = |key: usize| {
            let head = format!("VALUE k{key} 0 150000\r\n").into_bytes();
            [&head[..], &large(key), b"\r\n"].concat()
        };
        let list = [(3..9).map(value).collect::<Vec<_>>().concat(), b"END\r\n".to_vec()].concat();
        assert!(world.peers().next_back().unwrap().got == list.repeat(5), "{dispatch:?}");
        world.stop();
        world.assert_all_is_back();
    }
}

/// What others ask for again and again is small enough to be copied.
#[test]
fn a_large_value_is_not_behind_small_ones_for_ever() {
    for dispatch in EVERY_DISPATCH {
        let mut world = world(6, dispatch, 8);
        be_patient(&mut world);
        set(&mut world, 50, &[5; 40_000]);
        ask_for_live(&mut world, 4);
        // The last of them waits, and would read; so do four others.
        world.peers().skip(3).for_each(|peer| peer.deaf = false);
        let answer = found("k50", &[5; 40_000]);
        let is_waiting = |world: &mut World| world.peers().nth(3).unwrap().got.is_empty();
        let (mut turns, mut copies) = (0, 0);
        while is_waiting(&mut world) {
            turns += 1;
            assert!(turns < 1000, "{dispatch:?}");
            if turns == 500 {
                world.peers().next().unwrap().deaf = false;
            }
            for peer in world.peers().skip(4).take(4).filter(|peer| peer.outgoing.is_empty()) {
                copies += usize::from(peer.got.ends_with(&answer));
                peer.outgoing.extend(b"get k50\r\n");
            }
            world.turn();
        }
        assert!(turns > 500, "{dispatch:?}");
        assert!(copies > 100, "{copies} {dispatch:?}");
        world.stop();
        world.assert_all_is_back();
    }
}

/// Who could be copied for, had there been blocks, is when there are.
#[test]
fn who_waits_is_copied_for_when_there_are_blocks() {
    for dispatch in EVERY_DISPATCH {
        let mut world = world(6, dispatch, 12);
        be_patient(&mut world);
        set(&mut world, 50, &[5; 60_000]);
        set(&mut world, 60, &[6; 7000]);
        ask_for_live(&mut world, 4);
        for peer in world.peers().skip(4).take(8) {
            peer.outgoing.extend(b"get k60\r\n".repeat(50));
        }
        (0..300).for_each(|_| world.turn());
        let polite = world.peers().next_back().unwrap();
        polite.got.clear();
        polite.outgoing.extend(b"get k50\r\n");
        (0..300).for_each(|_| world.turn());
        assert!(world.peers().next_back().unwrap().got.is_empty(), "{dispatch:?}");
        world.peers().skip(4).for_each(|peer| peer.deaf = false);
        (0..1000).for_each(|_| world.turn());
        let got = &world.peers().next_back().unwrap().got;
        assert!(*got == found("k50", &[5; 60_000]), "{dispatch:?}");
        world.stop();
        world.assert_all_is_back();
    }
}

/// As if another ring sent as much as may be sent, for ever: on this one values go one at a time.
#[test]
fn a_ring_sends_something_whatever_others_send() {
    for dispatch in EVERY_DISPATCH {
        let mut world = world(6, dispatch, 12);
        be_patient(&mut world);
        (0..20).for_each(|key| set(&mut world, key, &large(key)));
        let table = world.ring.service_mut().participant().table().clone();
        let mut other = table.participant(world.registry.counters("other"));
        let mut pins = Vec::new();
        for key in 0..10 {
            let key = format!("k{key}").into_bytes();
            let item = other.get(&key, table.hash(&key), Now { ticks: 0, epoch_unix_s: 0 });
            if let Ok(item) = item
                && other.may_pin(&item)
            {
                pins.extend(other.pin(&item));
            }
        }
        assert!(!other.may_pin_more());
        other.offline();
        // One of them does not read for a while.
        world.peers().skip(1).for_each(|peer| peer.deaf = false);
        let keys = |number: usize| (10 + number % 10, 10 + (number + 5) % 10);
        for (number, peer) in world.peers().take(12).enumerate() {
            let (first, second) = keys(number);
            peer.outgoing.extend(format!("get k{first}\r\nget k{second}\r\n").bytes());
        }
        (0..1000).for_each(|_| world.turn());
        let (pinned, most) = bounds(&mut world);
        assert!(pinned < most + 3 * 200_000, "{pinned}");
        world.peers().for_each(|peer| peer.deaf = false);
        (0..3000).for_each(|_| world.turn());
        for (number, peer) in world.peers().take(12).enumerate() {
            let (first, second) = keys(number);
            let found = |key: usize| found(&format!("k{key}"), &large(key));
            assert!(peer.got == [found(first), found(second)].concat(), "{dispatch:?}");
        }
        assert!(world.registry.sum(Metric::SpanWaits) > 10);
        other.online();
        pins.into_iter().for_each(|pin| other.unpin(pin));
        drop(other);
        world.stop();
        world.assert_all_is_back();
    }
}

/// For the sake of one who has read all, others who have not are copied for, or go: also where what
/// they do not acknowledge is sent without a copy.
#[test]
fn the_silent_make_room_for_who_waits() {
    for zero_copy in [false, true] {
        let mut gone = 0;
        for seed in [6, 7, 9, 10, 12] {
            let mut world = world(seed, Dispatch::Inline, 3);
            if bounds(&mut world).1 > 1 << 20 {
                continue;
            }
            world.ring.ring_mut().zero_copy = zero_copy;
            ask_for_live(&mut world, 3);
            set(&mut world, 8, &large(8));
            let polite = world.peers().next_back().unwrap();
            polite.got.clear();
            polite.outgoing.extend(b"get k8\r\n");
            let mut seconds = 0;
            while world.peers().next_back().unwrap().got != found("k8", &large(8)) {
                pass_s(&mut world, 1);
                seconds += 1;
                assert!(seconds < if zero_copy { 60 } else { 5 }, "{zero_copy}, seed {seed}");
            }
            // Those who are left alone have been silent for longer by now.
            pass_s(&mut world, 20);
            let copied = world.registry.sum(Metric::SpansCopied);
            let closed = world.registry.sum(Metric::ClosedForSpans);
            assert!((1..=3).contains(&(copied + closed)), "{copied} {closed} seed {seed}");
            gone += closed;
            world.stop();
            world.assert_all_is_back();
        }
        assert_eq!(gone > 0, zero_copy);
    }
}

/// However many turns a worker takes with them: each ends before what it owes is too much.
#[test]
fn a_worker_owes_no_more_than_a_ring() {
    for seed in 0..12 {
        let mut world = world(seed, Dispatch::Queue, 1);
        set(&mut world, 0, &[7; 9000]);
        set(&mut world, 1, &[7; 10]);
        let peer = world.peers().next().unwrap();
        peer.outgoing.extend(b"get k0\r\nget k1\r\n".repeat(150));
        (0..300).for_each(|_| world.turn());
        let owed = world.ring.spanned(0).unwrap();
        assert!((9000..=(256 << 10) + 9000).contains(&owed), "seed {seed}: {owed}");
    }
}
