//! Replies do not depend on how input, output and budget are cut.

use proptest::prelude::*;

use crate::command::fuzzing::replies_do_not_depend_on_cuts;

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
        Just("delete_prefix a\r\ndelete_prefix b noreply\r\ndelete_prefix\r\n".to_owned()),
        Just("slabs automove 1\r\nlru tune 1 2 3 noreply\r\n".to_owned()),
        Just("nonsense\r\n\r\n".to_owned()),
        Just("cas a 0 0 1 5\r\nx\r\n".to_owned()),
        Just("set a x 0 3\r\nabc\r\n".to_owned()),
        Just("set a 0 0 3\r\nabcde\r\n".to_owned()),
        Just("set a 0 0 300000 noreply\r\n".to_owned()),
        Just("quit\r\n".to_owned()),
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
    let piece = prop_oneof![
        6 => line.prop_map(String::into_bytes),
        4 => store.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..30),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn replies_depend_on_bytes_alone(seed in any::<u64>(), stream in stream()) {
        replies_do_not_depend_on_cuts(&[&seed.to_le_bytes()[..], &stream].concat());
    }
}

/// What a fuzzer would try: a few thousand inputs, mutated from requests without regard for sense.
#[test]
fn mutated_requests() {
    let seeds: [&[u8]; 8] = [
        b"set a 0 0 5\r\nhello\r\nget a b\r\ngets a\r\n",
        b"gat 10 a b c\r\ntouch a 5\r\ndelete a\r\nincr a 5\r\n",
        b"append a 0 0 2\r\nxx\r\nprepend a 0 0 2 noreply\r\nyy\r\n",
        b"cas a 0 0 1 18446744073709551615\r\nx\r\nflush_all 2\r\n",
        b"set a 1 9 1\r\nx\r\nlru_crawler metadump all\r\nlru_crawler mgdump hash\r\n",
        b"set a 0 0 1\r\nx\r\ndelete_prefix a\r\nget a b\r\nwatch fetchers\r\nget a\r\n",
        b"stats\r\nstats settings\r\nstats reset\r\nversion\r\nverbosity 2\r\n",
        b"get aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nquit\r\n",
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
