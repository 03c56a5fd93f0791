//! Dumps of many keys, in any cut, and what tunes.

use std::collections::BTreeSet;

use super::talk;
use crate::base::clock::TICKS_PER_S;
use crate::command::fuzzing::{Manner, Rig};

const KEYS: usize = 3000;

/// Of a dump as requests, the keys; each must be there once.
fn keys(reply: &str) -> BTreeSet<&str> {
    let lines: Vec<_> = reply.split_terminator("\r\n").collect();
    assert_eq!((lines[0], lines[lines.len() - 1]), ("OK", "EN"), "{}", lines.len());
    let keys = lines[1..lines.len() - 1].iter().map(|line| line.strip_prefix("mg ").unwrap());
    let once: BTreeSet<_> = keys.clone().collect();
    assert_eq!(once.len(), keys.count());
    once
}

#[test]
fn a_dump_is_the_same_however_it_is_cut() {
    let mut rig = Rig::new(false);
    for key in 0..KEYS {
        let _ = talk(&mut rig, &format!("set key{key} {key} 0 1 noreply\nx\n"));
    }
    let mut dump = |request: &[u8], manner| {
        String::from_utf8(rig.send(&[request, b"get key7\r\n"].concat(), manner)).unwrap()
    };
    let whole = dump(b"lru_crawler metadump all\r\n", Manner::Whole);
    assert_eq!(whole.matches(" fetch=no ").count(), KEYS - 1 + 1);
    assert!(whole.ends_with(" \nEND\r\nVALUE key7 7 1\r\nx\r\nEND\r\n"));
    for number in [0, 1, KEYS - 1] {
        let row = whole.lines().find(|line| line.starts_with(&format!("key=key{number} ")));
        let row = row.unwrap();
        assert!(row.contains(" exp=-1 la=17000") && row.contains(" size="), "{row}");
        assert!(row.ends_with(&format!(" flags={number} ")), "{row}");
    }
    let tail = "VALUE key7 7 1\r\nx\r\nEND\r\n";
    let of_keys = dump(b"lru_crawler mgdump hash\r\n", Manner::Whole);
    assert_eq!(keys(of_keys.strip_suffix(tail).unwrap()).len(), KEYS);
    for manner in [Manner::Bytewise, Manner::Seeded(1), Manner::Seeded(77)] {
        assert_eq!(dump(b"lru_crawler mgdump all\r\n", manner), of_keys, "{manner:?}");
    }
}

#[test]
fn when_somebody_asked_last_is_a_guess() {
    let mut rig = Rig::new(false);
    let _ = talk(&mut rig, "set k 0 0 1\nx\n");
    let then = rig.now().unix_s();
    rig.pass_ticks(7 * TICKS_PER_S);
    let dumped = talk(&mut rig, "lru_crawler metadump all\n");
    assert!(dumped.contains(&format!(" la={then} ")), "{dumped}");
    assert!(talk(&mut rig, "me k\n").contains(" la=7 "));
}

/// A class has the same number wherever one is shown.
#[test]
fn classes_have_one_number() {
    let mut rig = Rig::new(false);
    for bytes in [1, 100, 900, 5000, 60_000] {
        let _ = talk(&mut rig, &format!("set k 0 0 {bytes}\n{}\n", "x".repeat(bytes)));
        let class = |line: &str| -> String {
            let word = line.split(' ').find_map(|word| word.strip_prefix("cls="));
            word.unwrap_or_else(|| panic!("{line}")).to_owned()
        };
        let class_of_dump = class(&talk(&mut rig, "lru_crawler metadump all\n"));
        assert_eq!(class(&talk(&mut rig, "me k\n")), class_of_dump, "{bytes}");
        let asked = format!("lru_crawler mgdump {class_of_dump}\n");
        assert_eq!(talk(&mut rig, &asked), "OK\nmg k\nEN\n");
    }
}

#[test]
fn only_the_classes_that_were_asked_for_are_listed() {
    let mut rig = Rig::new(false);
    let _ =
        talk(&mut rig, &format!("set small 0 0 1\nx\nset large 0 0 900\n{}\n", "x".repeat(900)));
    let all = talk(&mut rig, "lru_crawler metadump all\n");
    let class = |key: &str| {
        let row = all.lines().find(|line| line.starts_with(&format!("key={key} "))).unwrap();
        row.split(' ').find_map(|word| word.strip_prefix("cls=")).unwrap().to_owned()
    };
    let (small, large) = (class("small"), class("large"));
    assert_ne!(small, large);
    let dump = |rig: &mut Rig, ids: &str| talk(rig, &format!("lru_crawler mgdump {ids}\n"));
    assert_eq!(dump(&mut rig, &small), "OK\nmg small\nEN\n");
    assert_eq!(dump(&mut rig, &format!("9,{large},10")), "OK\nmg large\nEN\n");
    assert_eq!(dump(&mut rig, &format!("{small},{large}")).lines().count(), 4);
    assert_eq!(dump(&mut rig, "60,61"), "OK\nEN\n");
}

/// Keys of a class, with what is told of each, in the order of the list.
fn items(reply: &str) -> Vec<(&str, &str)> {
    let rows = reply.strip_suffix("END\r\n").unwrap();
    rows.split_terminator("\r\n")
        .map(|row| row.strip_prefix("ITEM ").unwrap().split_once(' ').unwrap())
        .collect()
}

#[test]
fn the_keys_of_a_class_are_listed_up_to_a_limit() {
    let mut rig = Rig::new(false);
    for key in 0..KEYS {
        let _ = talk(&mut rig, &format!("set key{key:04} 0 0 1 noreply\nx\n"));
    }
    let large = "x".repeat(60_000);
    let _ = talk(&mut rig, &format!("set large 0 100 60000\n{large}\n"));
    let expires_at = rig.now().unix_s() + 100;
    let [small, large] = ["key0000", "large"].map(|key| {
        let shown = talk(&mut rig, &format!("me {key}\n"));
        shown.split(' ').find_map(|word| word.strip_prefix("cls=")).unwrap().to_owned()
    });
    let mut dump = |asked: &str, manner| {
        let request = format!("stats cachedump {asked}\r\nmn\r\n");
        let reply = String::from_utf8(rig.send(request.as_bytes(), manner)).unwrap();
        reply.strip_suffix("MN\r\n").unwrap().to_owned()
    };
    let whole = dump(&format!("{small} 0"), Manner::Whole);
    let listed = items(&whole);
    assert!(listed.iter().all(|(_, told)| *told == "[1 b; 0 s]"));
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), KEYS);
    assert_eq!(listed.len(), KEYS);
    for manner in [Manner::Bytewise, Manner::Seeded(1), Manner::Seeded(77)] {
        assert_eq!(dump(&format!("{small} 0"), manner), whole, "{manner:?}");
        let some = dump(&format!("{small} 100"), manner);
        assert_eq!(items(&some), listed[..100], "{manner:?}");
    }
    let told = format!("ITEM large [60000 b; {expires_at} s]\r\nEND\r\n");
    assert_eq!(dump(&format!("{large} 1"), Manner::Whole), told);
    assert_eq!(dump("0 0", Manner::Whole), "END\r\n");
    // Who counts up comes to an end, and sees each key once on the way.
    let mut all = 0;
    for class in 0.. {
        let reply = dump(&format!("{class} 0"), Manner::Whole);
        if reply == "CLIENT_ERROR Illegal slab id\r\n" {
            assert_eq!(class, 64);
            break;
        }
        all += items(&reply).len();
    }
    assert_eq!(all, KEYS + 1);
}

/// memcached lists no more than it has allocated for the list.
#[test]
fn the_list_of_a_class_has_a_size() {
    let mut rig = Rig::new(false);
    for key in 0..9000 {
        let _ = talk(&mut rig, &format!("set {key:0>250} 0 0 1 noreply\nx\n"));
    }
    let shown = talk(&mut rig, &format!("me {:0>250}\n", 7));
    let class = shown.split(' ').find_map(|word| word.strip_prefix("cls=")).unwrap();
    let listed = rig.send(format!("stats cachedump {class} 0\r\n").as_bytes(), Manner::Whole);
    let row_bytes = "ITEM  [1 b; 0 s]\r\n".len() + 250;
    assert!(listed.len() <= 2 << 20 && listed.len() > (2 << 20) - 2 * row_bytes);
    assert!(listed.ends_with(b" s]\r\nEND\r\n"));
}

#[test]
fn what_begins_alike_goes_however_the_request_is_cut() {
    for manner in [Manner::Whole, Manner::Bytewise, Manner::Seeded(3), Manner::Seeded(9)] {
        let mut rig = Rig::new(false);
        for key in 0..KEYS {
            let _ = talk(&mut rig, &format!("set key{key} 0 0 1 noreply\nx\n"));
        }
        let replies = rig.send(b"delete_prefix key1\r\nset key1 0 0 1\r\ny\r\n", manner);
        // 1, 1x, 1xx and 1xxx.
        assert_eq!(String::from_utf8(replies).unwrap(), "DELETED 1111\r\nSTORED\r\n");
        let listed = rig.send(b"lru_crawler mgdump all\r\n", manner);
        assert_eq!(keys(std::str::from_utf8(&listed).unwrap()).len(), KEYS - 1111 + 1);
        let _ = rig.send(b"delete_prefix k\r\n", Manner::Whole);
        rig.reconnect();
    }
}

/// Who goes away in the middle of it leaves room for others.
#[test]
fn deletions_by_prefix_that_are_lost_are_over() {
    let mut rig = Rig::new(false);
    for _ in 0..100 {
        assert_eq!(rig.stop_after(1, b"delete_prefix k\r\n"), b"");
        rig.reconnect();
    }
    assert_eq!(talk(&mut rig, "delete_prefix k\n"), "DELETED 0\n");
}

#[test]
fn a_crawl_is_one_at_a_time() {
    let mut rig = Rig::new(false);
    let busy = "BUSY currently processing crawler request\n";
    let asked = talk(&mut rig, "lru_crawler crawl 1,2\nlru_crawler crawl all\n");
    assert_eq!(asked, format!("OK\n{busy}"));
    let unknown = "ERROR an unknown error happened\n";
    assert_eq!(talk(&mut rig, "lru_crawler crawl hash\n"), unknown);
}

#[test]
fn what_is_tuned_is_shown() {
    let mut rig = Rig::new(false);
    let settings = |rig: &mut Rig| talk(rig, "stats settings\n");
    assert!(settings(&mut rig).contains("STAT lru_crawler_sleep 0\n"), "as it was started");
    for (request, rows) in [
        ("lru_crawler sleep 1000", "lru_crawler_sleep 1000"),
        ("lru_crawler tocrawl 9", "lru_crawler_tocrawl 9"),
        ("lru_crawler disable", "lru_crawler no"),
        ("lru_crawler enable", "lru_crawler yes"),
        ("slabs automove 2", "slab_automove 2"),
        ("slabs automove ratio 0.5", "slab_automove_ratio 0.50"),
        ("slabs automove ratio -0.5", "slab_automove_ratio -0.50"),
        ("slabs automove window 30", "slab_automove_window 30"),
        (
            "lru tune 10 25 0.1 2",
            "hot_lru_pct 10,warm_lru_pct 25,hot_max_factor 0.10,warm_max_factor 2.00",
        ),
        ("lru mode segmented", "lru_segmented yes"),
        ("lru temp_ttl 61", "temp_lru yes,temporary_ttl 61"),
        ("lru temp_ttl -1", "temp_lru no,temporary_ttl 61"),
        ("extstore low_ttl 5", ""),
    ] {
        assert_eq!(talk(&mut rig, &format!("{request}\n")), "OK\n", "{request}");
        let shown = settings(&mut rig);
        for row in rows.split_terminator(',') {
            assert!(shown.contains(&format!("STAT {row}\n")), "{row} in {shown}");
        }
    }
}
