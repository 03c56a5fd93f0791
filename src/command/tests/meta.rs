//! Meta commands where a transcript cannot look: exact times, counts, large values, and what is
//! kept between two calls of `drive`.

use super::talk;
use crate::base::clock::TICKS_PER_S;
use crate::base::metrics::Metric;
use crate::command::Switches;
use crate::command::fuzzing::{ITEM_BYTES_MAX, Manner, Rig};

#[test]
fn times_are_told_in_whole_seconds() {
    let mut rig = Rig::new(false);
    assert_eq!(talk(&mut rig, "ms k 1 T30\n1\nmg k t\n"), "HD\nHD t30\n");
    rig.pass_ticks(1);
    assert_eq!(talk(&mut rig, "mg k t\nmg k R30\n"), "HD t30\nHD\n", "not yet less than 30");
    rig.pass_ticks(TICKS_PER_S - 1);
    assert_eq!(talk(&mut rig, "mg k t\nmg k R30\nmg k R30\n"), "HD t29\nHD W\nHD Z\n");
    assert_eq!(talk(&mut rig, "mg k t T100\nmg k T50 t\n"), "HD t29 Z\nHD t50 Z\n");
    assert_eq!(talk(&mut rig, "mg k T1700000200 t\n"), "HD t99 Z\n", "of 1700000101");
    // More than 30 days are a time of day, with R too: it is past.
    assert_eq!(talk(&mut rig, "ms k 1 T9\n1\nmg k R2592001\nmg k R10\n"), "HD\nHD\nHD W\n");
    assert_eq!(talk(&mut rig, "mg k T-1 t\nmg k\n"), "HD t0 Z\nEN\n");
    assert_eq!(talk(&mut rig, "ma n N20 t T40\nma n t T60\n"), "HD t20\nHD t40\n");
    assert_eq!(talk(&mut rig, "ma n T80 t\nmg n t\n"), "HD t80\nHD t80\n");
    assert_eq!(talk(&mut rig, "md n I T5\nmg n t u\n"), "HD\nHD t5 X W\n");
    rig.pass_ticks(5 * TICKS_PER_S);
    assert_eq!(talk(&mut rig, "md n I\nma n\nmg n N7 t\n"), "NF\nNF\nHD t7 W\n");
    assert_eq!(talk(&mut rig, "mg n t\nmg m N7 t T9\nmg m t\n"), "HD t7 Z\nHD t7 W\nHD t9 Z\n");
}

/// An item does not know when it was last asked for. Its page knows when it last got one.
#[test]
fn how_long_nobody_asked_is_a_guess() {
    let mut rig = Rig::new(false);
    assert_eq!(talk(&mut rig, "ms k 1\n1\nmg k l\n"), "HD\nHD l0\n");
    rig.pass_ticks(7 * TICKS_PER_S);
    assert_eq!(talk(&mut rig, "mg k l\n"), "HD l7\n");
    assert!(talk(&mut rig, "me k\n").contains(" la=7 "));
    assert_eq!(talk(&mut rig, "mg k l\n"), "HD l7\n", "that somebody asked is not known");
    assert_eq!(talk(&mut rig, "ms k 1\n1\nmg k l\n"), "HD\nHD l0\n");
}

#[test]
fn requests_are_counted_as_memcached_counts_them() {
    let mut rig = Rig::new(false);
    let text = "mg none\nmg none T5 q\nmg v N0\nmg v N0\nmg w N0 T0\nms k 1\n1\nmg k v\nmg k T0\n\
        mg k O0123456789012345678901234567890123\nms k 1 C0\n1\nms none 1 C5\n1\nms k 1 C1 I\n1\n\
        ms k 1 ME C5\n1\nms k 9999999\n";
    let _ = talk(&mut rig, text);
    rig.reconnect();
    let text = "md none\nms k 1\n1\nmd k C0\nmd k I\nmd k I q\nmd k x\nmd k\n\
        ma none\nma none MD\nma n N0\nma n\nma n MD q\nma n C0\nma n C77\nme n\nme none\nmn\n";
    let _ = talk(&mut rig, text);
    use Metric::*;
    for (metric, wanted) in [
        (Requests, 31),
        (CmdGet, 5),
        (GetHits, 3),
        (GetMisses, 2),
        (CmdTouch, 2),
        (TouchHits, 2),
        (TouchMisses, 0),
        (CmdSet, 6),
        (CasBadval, 1),
        (CasMisses, 1),
        (CasHits, 1),
        (StoreTooLarge, 1),
        (DeleteMisses, 2),
        (DeleteHits, 2),
        (IncrMisses, 1),
        (DecrMisses, 1),
        (IncrHits, 2),
        (DecrHits, 1),
        (CmdMeta, 2),
    ] {
        assert_eq!(rig.counted(metric), wanted, "{metric:?}");
    }
    let _ = talk(&mut rig, "ms c 1\n1\nmd c I\nms c 1 C1 I\n1\n");
    assert_eq!(rig.counted(CasHits), 2, "taken as stale");
}

#[test]
fn requests_that_come_together_are_counted_as_if_each_came_alone() {
    use Metric::*;
    let get = |number| match number % 8 {
        0 => "mg a v f\r\n",
        1 | 2 => "mg none v q\r\n",
        3 => "mg a T0 t\r\n",
        4 => "mg YQ== b k\n",
        5 => "mg b N0 v\r\nmd b\r\n",
        _ => "mg a v\r\n",
    };
    let gets: String = (0..200).map(get).collect();
    let all = [Requests, CmdGet, GetHits, GetMisses, CmdTouch, TouchHits];
    let outcome = |manner| {
        let mut rig = Rig::new(false);
        let _ = talk(&mut rig, "set a 1 0 1\nx\n");
        let reply = rig.send(gets.as_bytes(), manner);
        (reply, all.map(|metric| rig.counted(metric)))
    };
    let together = outcome(Manner::Whole);
    assert_eq!(together.1, [226, 175, 125, 50, 25, 25]);
    assert_eq!(together, outcome(Manner::Bytewise));
}

/// Values that come in one piece, and in many, are answered alike; so are those that are sent in
/// pieces.
#[test]
fn values_of_all_sizes_go_both_ways() {
    for bytes in [0, 1, 700, 4000, 5000, 9000, 70_000, 150_000] {
        let value = "v".repeat(bytes);
        let text = format!(
            "ms k {bytes} T0 F3 k O1 s\n{value}\nms k {bytes} MA E5 c q s\n{value}\n\
             ms eA== {bytes} b MP N0 k E6 c\n{value}\nmg k v\nmg k s f v c O2\n\
             mg k s\nmg eA== b v k\n"
        );
        let text = text.replace('\n', "\r\n");
        let twice = value.repeat(2);
        let (joined, mark, size) = match 2 * bytes < ITEM_BYTES_MAX {
            true => (twice, "c5", 2 * bytes),
            // Both together are too large for an item.
            false => (value.clone(), "c1", bytes),
        };
        let joining = match size == bytes && bytes > 0 {
            true => format!("NS c0 s{bytes}\n"),
            false => String::new(),
        };
        let want = format!(
            "HD kk O1 s{bytes}\n{joining}HD keA== b c6\nVA {size}\n{joined}\n\
             VA {size} s{size} f3 {mark} O2\n{joined}\nHD s{size}\nVA {bytes} keA== b\n{value}\n"
        );
        let seeded = (1..=4).map(Manner::Seeded);
        for manner in [Manner::Whole, Manner::Bytewise].into_iter().chain(seeded) {
            let mut rig = Rig::new(false);
            let got = rig.send(text.as_bytes(), manner);
            assert!(got == want.replace('\n', "\r\n").as_bytes(), "{bytes} {manner:?}");
        }
    }
}

#[test]
fn what_there_is_no_memory_for_is_told_of() {
    let mut rig = Rig::without_eviction();
    let _ = talk(&mut rig, "ms old 1\n1\nms n 1\n9\n");
    let large = format!("{}\n", "x".repeat(150_000));
    let mut filler = 0;
    loop {
        match talk(&mut rig, &format!("ms f{filler} 150000 q\n{large}")).as_str() {
            "" => filler += 1,
            refused => {
                assert_eq!(refused, "SERVER_ERROR out of memory storing object\n");
                break;
            }
        }
    }
    while talk(&mut rig, &format!("ms s{filler} 10\n0123456789\n")) == "HD\n" {
        filler += 1;
    }
    // There is no memory for the value, or later for what makes it a part of the other.
    assert_eq!(talk(&mut rig, "mg new N0\nmg new N0 q\nmn\n"), "EN\nMN\n");
    assert_eq!(talk(&mut rig, "ma new N0\n"), "SERVER_ERROR out of memory\n");
    let join = format!("ms old 150000 MA q\n{large}mg old v\n");
    assert_eq!(
        talk(&mut rig, &join),
        "SERVER_ERROR out of memory storing object\nVA 1\n1\n",
        "what it was to be joined to stays"
    );
    let set = format!("ms old 150000 q\n{large}mg old\n");
    assert_eq!(talk(&mut rig, &set), "SERVER_ERROR out of memory storing object\nEN\n");
}

/// With `-C` nothing has a cas.
#[test]
fn without_cas_none_matches_and_none_is_told() {
    let mut rig = Rig::switched(Switches { cas: false, ..Switches::default() });
    let text = "ms k 1 E5 c\n1\nmg k c\nms k 1 C5\n2\nms k 1 C0\n2\nms none 1 C5\n2\nmd k C5\n\
        ma k C5\nma k c E7\nmg k C0 v\nmg k C5 v\nme k\n";
    let want = "HD c0\nHD c0\nEX\nEX\nNF\nEX\nEX\nHD c0\nHD\nVA 1\n2\n";
    let got = talk(&mut rig, text);
    let (got, debug) = got.split_once("ME ").unwrap();
    assert_eq!(got, want);
    assert!(debug.contains(" cas=0 "), "{debug}");
}
