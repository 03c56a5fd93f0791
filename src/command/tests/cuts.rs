//! Replies do not depend on how input, output and budget are cut.

use proptest::prelude::*;

use crate::command::fuzzing::{
    replies_do_not_depend_on_cuts, replies_to_strangers_do_not_depend_on_cuts,
};

/// Requests more often than noise.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("get a\r\n".to_owned()),
        Just("gets a b c d\r\n".to_owned()),
        Just("gat 5 a b\r\n".to_owned()),
        Just("gats x a\r\n".to_owned()),
        Just("incr a 1\r\ndecr b 2 noreply\r\n".to_owned()),
        Just("delete a\r\ntouch b 1\r\n".to_owned()),
        Just("flush_all\r\n".to_owned()),
        Just("flush_all 3 noreply\r\n".to_owned()),
        Just("stats\r\nstats settings\r\nstats none\r\n".to_owned()),
        Just("version\r\nverbosity 1\r\nshutdown\r\n".to_owned()),
        Just("lru_crawler metadump all\r\n".to_owned()),
        Just("lru_crawler mgdump 1,9,20\r\nlru_crawler mgdump x\r\n".to_owned()),
        Just("stats cachedump 9 0\r\nstats cachedump 1 2\r\nstats cachedump\r\n".to_owned()),
        Just("delete_prefix a\r\ndelete_prefix b noreply\r\ndelete_prefix\r\n".to_owned()),
        Just("slabs automove 1\r\nlru tune 1 2 3 noreply\r\n".to_owned()),
        Just("nonsense\r\n\r\n".to_owned()),
        Just("cas a 0 0 1 5\r\nx\r\n".to_owned()),
        Just("set a x 0 3\r\nabc\r\n".to_owned()),
        Just("set a 0 0 3\r\nabcde\r\n".to_owned()),
        Just("set a 0 0 300000 noreply\r\n".to_owned()),
        Just("quit\r\n".to_owned()),
        Just("mg a v\r\nmg b v\r\nmg c v\r\n".to_owned()),
        Just("mg a s v c t f h k O1 q\r\n".to_owned()),
        Just("mg a N9 v\r\nmg b R30 T9 t\r\nmg YQ== b k\r\n".to_owned()),
        Just("ms a 3 MA N0 c s k Oopaque\r\nabc\r\n".to_owned()),
        Just("ms Yg== 3 b k T9 E5 c\r\nabc\r\nms b 3 C5 I\r\nabc\r\n".to_owned()),
        Just("ms a 3 Z\r\nabc\r\nms a 300000 q\r\n".to_owned()),
        Just("md a I q\r\nmd b x I T5 k\r\nmd c C0\r\n".to_owned()),
        Just("ma a N0 J5 v t c\r\nma b MD D2 T9\r\n".to_owned()),
        Just("me a\r\nmn\r\nmg a v v\r\n".to_owned()),
        (245usize..256).prop_map(|len| format!("get a {} b\r\n", "k".repeat(len))),
        (2040usize..2055).prop_map(|len| format!("{}\r\n", "x".repeat(len))),
        (500usize..530).prop_map(|keys| format!("get{}\r\n", " a".repeat(keys))),
    ];
    let verb =
        prop::sample::select(vec!["set", "set", "set", "add", "replace", "append", "prepend"]);
    let bytes = prop_oneof![0usize..20, 1000usize..2000, 16_000usize..17_000, 60_000usize..140_000];
    let store = (verb, prop::sample::select(vec!["a", "b", "c"]), bytes, any::<bool>()).prop_map(
        |(verb, key, bytes, noreply)| {
            let noreply = if noreply { " noreply" } else { "" };
            format!("{verb} {key} 7 0 {bytes}{noreply}\r\n{}\r\n", "7".repeat(bytes))
        },
    );
    let bytes = prop_oneof![0usize..20, 1000usize..2000, 16_000usize..17_000, 60_000usize..140_000];
    let flags = prop::sample::select(vec!["", " k O7 c", " MA N0 s c", " MP q", " E9 I C8", " ME"]);
    let meta_store = (flags, prop::sample::select(vec!["a", "b", "c"]), bytes).prop_map(
        |(flags, key, bytes)| format!("ms {key} {bytes}{flags}\r\n{}\r\n", "7".repeat(bytes)),
    );
    let piece = prop_oneof![
        6 => line.prop_map(String::into_bytes),
        4 => store.prop_map(String::into_bytes),
        2 => meta_store.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..30),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// A packet; its key and what it says of it are as likely right as not.
pub fn packet(opcode: u8, extras: &[u8], key: &str, value: &[u8], cas: u8) -> Vec<u8> {
    let body = u32::try_from(extras.len() + key.len() + value.len()).unwrap();
    let mut packet = vec![0x80, opcode];
    packet.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
    packet.extend([u8::try_from(extras.len()).unwrap(), 0, 0, 0]);
    packet.extend(body.to_be_bytes());
    packet.extend([opcode, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, cas]);
    [&packet[..], extras, key.as_bytes(), value].concat()
}

/// Packets more often than noise.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let key = || prop::sample::select(vec!["a", "b", "c"]);
    let cas = || prop::sample::select(vec![0u8, 0, 0, 1, 2]);
    let bytes = prop_oneof![0usize..20, 1000usize..2000, 16_000usize..17_000, 60_000usize..200_000];
    let exptime = || prop::sample::select(vec![[0u8; 4], [0, 0, 0, 5], [0xff; 4]]);
    let store = prop::sample::select(vec![0x01u8, 0x01, 0x11, 0x02, 0x12, 0x03, 0x13]);
    let store =
        (store, exptime(), key(), bytes, cas()).prop_map(|(opcode, exptime, key, len, cas)| {
            let extras = [&[0, 0, 0, 7][..], &exptime].concat();
            packet(opcode, &extras, key, &vec![b'7'; len], cas)
        });
    let join = prop::sample::select(vec![0x0eu8, 0x0f, 0x19, 0x1a]);
    let join = (join, key(), 0usize..70_000, cas())
        .prop_map(|(opcode, key, len, cas)| packet(opcode, b"", key, &vec![b'8'; len], cas));
    let look = prop::sample::select(vec![0x00u8, 0x09, 0x0c, 0x0d, 0x04, 0x14]);
    let look =
        (look, key(), cas()).prop_map(|(opcode, key, cas)| packet(opcode, b"", key, b"", cas));
    let touch = prop::sample::select(vec![0x1cu8, 0x1d, 0x1e, 0x23, 0x24]);
    let touch = (touch, exptime(), key())
        .prop_map(|(opcode, exptime, key)| packet(opcode, &exptime, key, b"", 0));
    let count = prop::sample::select(vec![0x05u8, 0x06, 0x15, 0x16]);
    let count = (count, exptime(), key(), cas()).prop_map(|(opcode, exptime, key, cas)| {
        let extras = [&[0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9][..], &exptime].concat();
        packet(opcode, &extras, key, b"", cas)
    });
    let about_none = prop::sample::select(vec![0x0au8, 0x0b, 0x08, 0x18, 0x10, 0x20]);
    let about_none = about_none.prop_map(|opcode| packet(opcode, b"", "", b"", 0));
    let group = prop::sample::select(vec!["settings", "reset", "none"]);
    let token = prop::sample::select(vec![&b"\0foo\0bar"[..], b"\0foo\0baz", b"", &[b'x'; 1025]]);
    let login =
        (0x21u8..0x23, token).prop_map(|(opcode, token)| packet(opcode, b"", "PLAIN", token, 0));
    let other = prop_oneof![
        3 => group.prop_map(|group| packet(0x10, b"", group, b"", 0)),
        3 => (0x25u8..0xff, 0usize..300)
            .prop_map(|(op, len)| packet(op, b"", "k", &vec![0x80; len], 0)),
        1 => Just(packet(0x07, b"", "", b"", 0)),
        1 => Just(packet(0x1b, &[0, 0, 0, 1], "", b"", 0)),
        1 => prop::collection::vec(any::<u8>(), 0..30),
    ];
    let piece = prop_oneof![
        6 => look,
        4 => store,
        2 => join,
        2 => touch,
        2 => count,
        2 => about_none,
        1 => login,
        2 => other,
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn replies_depend_on_bytes_alone(seed in any::<u64>(), stream in stream()) {
        replies_do_not_depend_on_cuts(&[&seed.to_le_bytes()[..], &stream].concat());
    }

    #[test]
    fn replies_depend_on_packets_alone(seed in any::<u64>(), packets in packets()) {
        replies_do_not_depend_on_cuts(&[&seed.to_le_bytes()[..], &packets].concat());
    }

    #[test]
    fn replies_to_strangers_depend_on_bytes_alone(
        seed in any::<u64>(),
        login in prop::sample::select(vec![
            &b""[..],
            b"set a 0 0 7\r\nfoo bar\r\n",
            b"set a 0 0 7\r\nfoo baz\r\nset a 0 0 4000\r\n",
            b"\x80\x21\0\x05\0\0\0\0\0\0\0\x0d\0\0\0\0\0\0\0\0\0\0\0\0PLAIN\0foo\0bar",
            b"\x80\x21\0\x05\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0PLAIN",
        ]),
        stream in prop_oneof![stream(), packets()],
    ) {
        let data = [&seed.to_le_bytes()[..], login, &stream].concat();
        replies_to_strangers_do_not_depend_on_cuts(&data);
    }
}

/// What a fuzzer would try: a few thousand inputs, mutated from requests without regard for sense.
#[test]
fn mutated_requests() {
    let seeds: [&[u8]; 10] = [
        b"set a 0 0 5\r\nhello\r\nget a b\r\ngets a\r\n",
        b"gat 10 a b c\r\ntouch a 5\r\ndelete a\r\nincr a 5\r\n",
        b"append a 0 0 2\r\nxx\r\nprepend a 0 0 2 noreply\r\nyy\r\n",
        b"cas a 0 0 1 18446744073709551615\r\nx\r\nflush_all 2\r\n",
        b"set a 1 9 1\r\nx\r\nlru_crawler metadump all\r\nlru_crawler mgdump hash\r\n\
          stats cachedump 2 1\r\n",
        b"set a 0 0 1\r\nx\r\ndelete_prefix a\r\nget a b\r\nwatch fetchers\r\nget a\r\n",
        b"stats\r\nstats settings\r\nstats reset\r\nversion\r\nverbosity 2\r\n",
        b"get aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nquit\r\n",
        b"ms a 5 T9 c k O1 s\r\nhello\r\nmg a v t f\r\nmg a v\r\nmg bm9uZQ== b N9 k v\r\n",
        b"md a I T5\r\nma n N0 J9 v c\r\nma n MD D5\r\nmd a x q\r\nme a\r\nmn\r\nmg a R30 v\r\n",
    ];
    let dictionary: [&[u8]; 8] =
        [b"\r\n", b"\n", b" ", b"noreply", b"get ", b"set k 0 0 9\r\n", b"-1", b"99999999999"];
    let mut word = 1u64;
    let mut random = |below: usize| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(word >> 33).unwrap() % below
    };
    for round in 0..4000u64 {
        let mut input = round.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().to_vec();
        for _ in 0..=random(3) {
            input.extend_from_slice(seeds[random(seeds.len())]);
        }
        for _ in 0..random(6) {
            let place = 8 + random(input.len() - 8);
            match random(4) {
                0 => input[place] = u8::try_from(random(256)).unwrap(),
                1 => drop(input.remove(place)),
                2 => drop(input.splice(place..place, *b"k k k k")),
                _ => drop(input.splice(place..place, dictionary[random(8)].iter().copied())),
            }
        }
        replies_do_not_depend_on_cuts(&input);
    }
}

/// The same of packets. What changes a length makes nonsense of all that follows, so most of what
/// is changed is not one.
#[test]
fn mutated_packets() {
    let stored = [&[0, 0, 0, 7, 0, 0, 0, 0][..], b""].concat();
    let counted = [&[0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0][..], b""].concat();
    let seeds = [
        [packet(0x01, &stored, "a", b"hello", 0), packet(0x00, b"", "a", b"", 0)].concat(),
        [
            packet(0x0d, b"", "a", b"", 0),
            packet(0x0d, b"", "b", b"", 0),
            packet(0x0a, b"", "", b"", 0),
        ]
        .concat(),
        [packet(0x05, &counted, "n", b"", 0), packet(0x0e, b"", "n", b"77", 0)].concat(),
        [packet(0x11, &stored, "a", &[b'v'; 500], 0), packet(0x1d, &[0; 4], "a", b"", 0)].concat(),
        [packet(0x10, b"", "settings", b"", 0), packet(0x08, b"", "", b"", 0)].concat(),
    ];
    let mut word = 7u64;
    let mut random = |below: usize| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(word >> 33).unwrap() % below
    };
    for round in 0..4000u64 {
        let mut input = round.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes().to_vec();
        for _ in 0..=random(4) {
            input.extend_from_slice(&seeds[random(seeds.len())]);
        }
        for _ in 0..random(4) {
            let place = 8 + random(input.len() - 8);
            match random(8) {
                0 => drop(input.remove(place)),
                1 => drop(input.splice(place..place, [0x80, 0x0a])),
                2 => input[place] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
                _ => input[place] ^= 1 << random(8),
            }
        }
        replies_do_not_depend_on_cuts(&input);
        replies_to_strangers_do_not_depend_on_cuts(&input);
    }
}
