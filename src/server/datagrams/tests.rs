//! Requests in datagrams against a small real table.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::answer::{Answer, answer};
use super::frame::{Request, payload_bytes_max, split};
use super::fuzzing::{SEPARATOR, replies_are_framed_and_bounded};
use crate::base::clock::{Now, TICKS_PER_S};
use crate::base::hash::KeyHasher;
use crate::base::metrics::Registry;
use crate::base::protocol::Protocol;
use crate::base::sync::Arc;
use crate::command::{Executor, Facts, Shared};
use crate::protocol::binary::Opcode;
use crate::store::{Favor, StorePlan, Table};

const NOW: Now = Now { ticks: 100 * TICKS_PER_S, epoch_unix_s: 1_700_000_000 };

fn executor() -> Executor {
    executors(1).remove(0)
}

/// Of one table, for so many threads.
fn executors(threads: u32) -> Vec<Executor> {
    let plan = StorePlan {
        favor: Favor::Objects,
        memory_bytes: 16 << 20,
        item_bytes_max: 192 << 10,
        evict: true,
        threads,
        hasher: KeyHasher::with_seed(1),
        loan_bytes: None,
    };
    let facts = Facts::of_a_test();
    let registry = Arc::new(Registry::default());
    let table = Arc::new(Table::open(plan).unwrap());
    let shared = Arc::new(Shared::open(facts, Arc::clone(&table), Arc::clone(&registry)));
    let executor = |_| {
        let counters = registry.counters("datagrams");
        let participant = table.participant(Arc::clone(&counters));
        Executor::new(Arc::clone(&shared), participant, counters)
    };
    (0..threads).map(executor).collect()
}

fn datagram(commands: &[u8]) -> Vec<u8> {
    [&[1, 2, 0, 0, 0, 1, 0, 0], commands].concat()
}

/// What a datagram is answered with; `None` if it is no request.
fn ask(executor: &mut Executor, datagram: &[u8], limit: usize) -> Option<Answer> {
    let request = Request::parse(datagram, Protocol::Negotiating)?;
    let answer = answer(executor, (0, NOW), &request, payload_bytes_max(limit));
    executor.participant().quiesce();
    Some(answer)
}

fn say(executor: &mut Executor, text: &str, limit: usize) -> String {
    let answer = ask(executor, &datagram(text.as_bytes()), limit).expect("a request");
    String::from_utf8(answer.reply).unwrap()
}

fn packet(opcode: Opcode, opaque: u8, extras: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    let body = u32::try_from(extras.len() + key.len() + value.len()).unwrap().to_be_bytes();
    let [extras_len, key_len] = [extras.len(), key.len()].map(|len| u8::try_from(len).unwrap());
    let mut packet = vec![0x80, opcode as u8, 0, key_len, extras_len, 0, 0, 0];
    packet.extend([&body[..], &[opaque; 4], &[0; 8], extras, key.as_bytes(), value].concat());
    packet
}

#[test]
fn all_of_a_datagram_has_one_reply() {
    let mut executor = executor();
    let text = "set k 0 0 1\r\nv\r\nset n 0 0 1 noreply\r\n1\r\nincr n 4\r\nget k n no\r\n";
    let reply = "STORED\r\n5\r\nVALUE k 0 1\r\nv\r\nVALUE n 0 1\r\n5\r\nEND\r\n";
    assert_eq!(say(&mut executor, text, 1400), reply);
    assert_eq!(say(&mut executor, "delete k noreply\r\n", 1400), "");
    assert_eq!(say(&mut executor, "nonsense\r\nget n\r\n", 1400), {
        "ERROR\r\nVALUE n 0 1\r\n5\r\nEND\r\n"
    });
    assert_eq!(say(&mut executor, "version\r\nquit\r\nversion\r\n", 1400).lines().count(), 1);
    assert!(say(&mut executor, "stats\r\n", 64 << 10).ends_with("END\r\n"));
}

/// What others have retired comes free while a datagram goes through all items again and again.
#[test]
fn a_long_datagram_lets_others_free() {
    let mut both = executors(2);
    let (mut other, mut one) = (both.remove(1), both.remove(0));
    for key in 0..20_000 {
        say(&mut one, &format!("set k{key} 0 0 1 noreply\r\nv\r\n"), 1400);
    }
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let is_freed = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !begun.load(Ordering::Acquire) {
                other.participant().quiesce();
                std::thread::yield_now();
            }
            say(&mut other, "delete k7 noreply\r\n", 1400);
            while other.table().figures().limbo_bytes > 0 && !done.load(Ordering::Acquire) {
                other.participant().quiesce();
                std::thread::yield_now();
            }
            done.store(true, Ordering::Release);
            other.participant().offline();
        });
        let walks = datagram("stats cachedump 50 1\r\n".repeat(20).as_bytes());
        let request = Request::parse(&walks, Protocol::Negotiating).unwrap();
        begun.store(true, Ordering::Release);
        for _ in 0..200 {
            let _ = answer(&mut one, (0, NOW), &request, payload_bytes_max(1400));
            if done.load(Ordering::Acquire) {
                return true;
            }
        }
        done.store(true, Ordering::Release);
        false
    });
    assert!(is_freed);
}

/// As in a connection, a line of junk ends all, and the peer is told so.
#[test]
fn junk_has_a_reply() {
    let mut executor = executor();
    let long = |bytes: usize| format!("version\r\n{}\r\nversion\r\n", "x".repeat(bytes));
    let version = say(&mut executor, "version\r\n", 1400);
    let reply = format!("{version}ERROR\r\n{version}");
    assert_eq!(say(&mut executor, &long(2046), 1400), reply);
    let reply = format!("{version}CLIENT_ERROR line too long\r\n");
    assert_eq!(say(&mut executor, &long(2047), 1400), reply);
    assert_eq!(say(&mut executor, &long(60_000), 1400), reply);
}

#[test]
fn what_is_cut_is_not_executed() {
    let mut executor = executor();
    say(&mut executor, "set k 0 0 1\r\nv\r\n", 1400);
    let cut = "get k k k\r\nget k k";
    assert_eq!(say(&mut executor, cut, 1400).matches("VALUE").count(), 3);
    assert_eq!(say(&mut executor, cut, 1400).matches("END").count(), 1);
    assert_eq!(say(&mut executor, "set k 0 0 9\r\nnew\r\n", 1400), "");
    assert_eq!(say(&mut executor, "set k 0 0 9\r\nnew", 1400), "");
    assert_eq!(say(&mut executor, "get k\r\n", 1400), "VALUE k 0 1\r\nv\r\nEND\r\n");
    let packets = [
        packet(Opcode::Set, 1, &[0; 8], "k", b"w"),
        packet(Opcode::Set, 2, &[0; 8], "k", b"never"),
    ]
    .concat();
    let answer = ask(&mut executor, &datagram(&packets[..packets.len() - 1]), 1400).unwrap();
    assert_eq!((answer.reply.len(), answer.requests), (24, 1));
    assert_eq!(say(&mut executor, "get k\r\n", 1400), "VALUE k 0 1\r\nw\r\nEND\r\n");
}

#[test]
fn beyond_the_limit_there_is_one_short_error() {
    let mut executor = executor();
    let value = "v".repeat(1000);
    say(&mut executor, &format!("set k 0 0 1000\r\n{value}\r\n"), 1400);
    let whole = format!("VALUE k 0 1000\r\n{value}\r\nEND\r\n");
    let limit = whole.len() + 8;
    assert_eq!(say(&mut executor, "get k\r\n", limit), whole);
    let error = "SERVER_ERROR output line too long\r\n";
    assert_eq!(say(&mut executor, "get k\r\n", limit - 1), error);
    assert_eq!(say(&mut executor, "get k k\r\n", 1400), error);
    assert_eq!(say(&mut executor, &"x\r\n".repeat(300), 1400), error);
    assert_eq!(say(&mut executor, "stats\r\n", 1400), error);
    let answer = ask(&mut executor, &datagram(b"get k\r\nget k\r\n"), 1400).unwrap();
    assert!(answer.is_too_large);
    // A large value is replied in pieces.
    let large = "v".repeat(60_000);
    say(&mut executor, &format!("set l 0 0 60000\r\n{large}\r\n"), 1400);
    assert_eq!(say(&mut executor, "get l\r\n", 1400), error);
    assert_eq!(say(&mut executor, "get l\r\n", 64 << 10).len(), 60_000 + 24);
}

#[test]
fn the_error_of_a_packet_is_about_the_packet_that_had_no_room() {
    let mut executor = executor();
    say(&mut executor, &format!("set k 0 0 2000\r\n{}\r\n", "v".repeat(2000)), 1400);
    let packets = [
        packet(Opcode::Get, 7, b"", "no", b""),
        packet(Opcode::Get, 8, b"", "k", b""),
        packet(Opcode::Set, 9, &[0; 8], "k", b"never"),
    ];
    let answer = ask(&mut executor, &datagram(&packets.concat()), 1400).unwrap();
    assert!(answer.is_too_large);
    assert_eq!(answer.reply[..8], [0x81, 0, 0, 0, 0, 0, 0, 3], "too large");
    assert_eq!((&answer.reply[12..16], &answer.reply[24..]), (&[8; 4][..], &b"Too large."[..]));
    let whole = ask(&mut executor, &datagram(&packets[1]), 4000).unwrap();
    assert_eq!(whole.reply.len(), 24 + 4 + 2000, "and what follows was not executed");
}

/// The longest lists of keys and of commands that a datagram can hold.
#[test]
fn much_work_in_a_datagram_is_bounded() {
    let mut executor = executor();
    let keys = format!("get{}\r\n", " k".repeat(32_700));
    assert_eq!(say(&mut executor, &keys, 1400), "END\r\n");
    say(&mut executor, &format!("set k 0 0 100\r\n{}\r\n", "v".repeat(100)), 1400);
    let answer = ask(&mut executor, &datagram(keys.as_bytes()), 1400).unwrap();
    assert!(answer.is_too_large && answer.requests < 100, "{} keys", answer.requests);
    assert!(say(&mut executor, &"get n\r\n".repeat(9_000), 64 << 10).len() == 45_000);
}

fn commands() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "get k\r\n",
        "get k l k no\r\n",
        "gets l\r\n",
        "set k 0 0 5\r\nvalue\r\n",
        "set l 0 0 30000\r\n",
        "append k 0 0 2\r\nxy\r\n",
        "stats\r\n",
        "incr k 1\r\n",
        "touch k 9\r\n",
        "delete k noreply\r\n",
        "flush_all\r\n",
        "verbosity 1\r\n",
        "watch\r\n",
        "shutdown\r\n",
        "quit\r\n",
        "\r\n",
        "VALUE k 0 1\r\n",
    ]);
    let packets = (any::<u8>(), any::<u8>(), 0..40_usize).prop_map(|(opcode, opaque, len)| {
        let mut packet = packet(Opcode::Get, opaque, b"", "k", &vec![b'k'; len]);
        packet[1] = opcode;
        packet
    });
    let part = prop_oneof![
        4 => words.prop_map(|text| text.as_bytes().to_vec()),
        4 => packets,
        1 => prop::collection::vec(any::<u8>(), 0..60),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    /// Whatever comes, in whatever order, the reply is within the limit, and the server well.
    #[test]
    fn nothing_is_answered_with_more_than_the_limit(
        datagrams in prop::collection::vec((commands(), 0..9_u8, any::<u16>()), 1..12),
        limit in prop::sample::select(vec![64, 100, 1400, 1408, 1409, 5000]),
    ) {
        let mut executor = executor();
        say(&mut executor, &format!("set l 0 0 900\r\n{}\r\n", "v".repeat(900)), 1400);
        for (commands, damage, place) in datagrams {
            let mut datagram = datagram(&commands);
            match damage {
                0 => datagram.truncate(usize::from(place) % (datagram.len() + 1)),
                1 => {
                    let index = usize::from(place) % datagram.len();
                    datagram[index] ^= 0x80;
                }
                _ => {}
            }
            let Some(answer) = ask(&mut executor, &datagram, limit) else { continue };
            let sent: usize = split([0, 0], &answer.reply).map(|part| part.len()).sum();
            prop_assert!(sent <= limit, "{sent} bytes for {datagram:?}");
            if answer.is_too_large {
                prop_assert!(answer.reply.len() <= 35);
            }
            prop_assert!(!answer.stops, "shutdown was not allowed");
        }
        prop_assert_eq!(say(&mut executor, "get none\r\n", 64), "END\r\n");
    }
}

/// What a fuzzer would try: a few thousand inputs, mutated from datagrams without regard for sense.
#[test]
fn mutated_datagrams() {
    let set = packet(Opcode::Set, 1, &[0; 8], "k", b"value");
    let get = packet(Opcode::Get, 2, b"", "k", b"");
    let seeds = [
        datagram(b"set k 0 0 5\r\nhello\r\nget k no\r\nincr k 1\r\n"),
        datagram(format!("set k 0 0 900\r\n{}\r\nget k k\r\n", "v".repeat(900)).as_bytes()),
        datagram(b"stats\r\nflush_all\r\nlru_crawler metadump all\r\nwatch\r\nget k\r\n"),
        datagram(b"get k\r\nget k l"),
        datagram(b"VALUE k 0 1\r\n"),
        datagram(b"shutdown\r\nquit\r\n"),
        datagram(&[set, get.clone()].concat()),
        datagram(&[get, packet(Opcode::Stat, 3, b"", "", b"")].concat()),
    ];
    let mut word = 3_u64;
    let mut random = |below: usize| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(word >> 33).unwrap() % below
    };
    for round in 0..3000_u32 {
        let cuts = (round / 2).wrapping_mul(0x9e37_79b9) * (round % 2);
        let mut input = [&round.to_le_bytes()[..2], &cuts.to_le_bytes()[..]].concat();
        for _ in 0..=random(4) {
            input.extend_from_slice(&seeds[random(seeds.len())]);
            input.extend(SEPARATOR);
        }
        for _ in 0..random(4) {
            let place = random(input.len());
            match random(5) {
                0 => drop(input.remove(place)),
                1 => drop(input.splice(place..place, SEPARATOR)),
                2 => drop(input.splice(place..place, *b"get k\r\n")),
                3 => input[place] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
                _ => input[place] ^= 1 << random(8),
            }
        }
        replies_are_framed_and_bounded(&input);
    }
}
