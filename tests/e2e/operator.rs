//! What operators ask for: lists of all keys, and another limit of memory, beside others at work.

use crate::common::client::{Client, set_request};
use crate::common::server::{Kind, OURS, Server};
use crate::common::{PATIENCE, wait_until};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Stores keys from `first` on, in batches, and is told that each is stored.
fn store(client: &mut Client, prefix: &str, count: usize, size: usize) {
    let value = vec![b'v'; size];
    let numbers: Vec<_> = (0..count).collect();
    for numbers in numbers.chunks(100) {
        let sets = numbers.iter().map(|number| set_request(&format!("{prefix}:{number}"), &value));
        client.send(sets.collect::<Vec<_>>().concat());
        for number in numbers {
            assert_eq!(client.line(), "STORED", "{prefix}:{number}");
        }
    }
}

/// Reads a list of keys as requests to its end, and says how often each was there.
fn keys_listed(client: &mut Client) -> BTreeMap<String, u32> {
    let mut keys = BTreeMap::new();
    loop {
        let line = client.line();
        match line.strip_prefix("mg ") {
            Some(key) => *keys.entry(key.to_owned()).or_default() += 1,
            None if line == "EN" => return keys,
            None => panic!("in a list of keys: {line:?}"),
        }
    }
}

/// Who lists all keys and reads slowly keeps nobody waiting, and sees all that stays meanwhile.
#[test]
fn a_list_of_all_keys_goes_on_beside_others() {
    const KEYS: usize = 20_000;
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64"]) else { continue };
        store(&mut server.client(), "stays", KEYS, 10);
        let mut slow = Client::connect_narrowly(server.address()).unwrap();
        slow.send("lru_crawler mgdump hash\r\nget stays:7\r\n");
        assert_eq!(slow.line(), "OK");
        let mut other = server.client();
        let (mut longest, mut rounds) = (Duration::ZERO, 0);
        while rounds < 300 {
            let begun = Instant::now();
            assert_eq!(other.get("stays:9").unwrap(), b"vvvvvvvvvv");
            longest = longest.max(begun.elapsed());
            let passing = format!("passes:{}", rounds % 90);
            other.set(&passing, b"");
            other.ask(&format!("delete {passing}"), "DELETED");
            rounds += 1;
        }
        // A second one at the same time, which reads at once, has no part in the first one's pace.
        let mut fast = server.client();
        fast.send("lru_crawler mgdump all\r\n");
        assert_eq!(fast.line(), "OK");
        let listed = keys_listed(&mut fast);
        for keys in [listed, keys_listed(&mut slow)] {
            let stays = keys.keys().filter(|key| key.starts_with("stays:")).count();
            assert_eq!(stays, KEYS, "{kind:?}");
            assert!(keys.values().all(|times| *times == 1), "{kind:?}");
        }
        assert_eq!(slow.values().len(), 1, "what was asked for behind the list");
        assert!(longest < Duration::from_secs(1), "{kind:?}: a get took {longest:?}");
        server.assert_serves();
    }
}

/// Who asks for the keys of one class after the other has all of them in the end, beside others.
#[test]
fn every_key_is_in_one_class() {
    const KEYS: usize = 3000;
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut client = server.client();
        for size in [0, 10, 1000, 20_000] {
            store(&mut client, &format!("of-{size}"), KEYS / 4, size);
        }
        let mut other = server.client();
        let mut lister = server.client();
        let mut keys = BTreeMap::<String, u32>::new();
        'classes: for class in 0.. {
            lister.send(format!("stats cachedump {class} 0\r\n"));
            assert_eq!(other.get("of-10:9").unwrap(), b"vvvvvvvvvv");
            loop {
                let line = lister.line();
                match line.strip_prefix("ITEM ").and_then(|row| row.split_once(' ')) {
                    Some((key, told)) => {
                        let size = key.strip_prefix("of-").and_then(|key| key.split_once(':'));
                        assert_eq!(told, format!("[{} b; 0 s]", size.unwrap().0), "{key}");
                        *keys.entry(key.to_owned()).or_default() += 1;
                    }
                    None if line == "END" => break,
                    None if class == 64 && line == "CLIENT_ERROR Illegal slab id" => break 'classes,
                    None => panic!("{kind:?}: in class {class}: {line:?}"),
                }
            }
        }
        assert_eq!(keys.len(), KEYS, "{kind:?}");
        assert!(keys.values().all(|times| *times == 1), "{kind:?}");
        server.assert_serves();
    }
}

#[test]
fn who_goes_away_in_the_middle_of_a_list_leaves_nothing_behind() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64", "-c", "20"]) else { continue };
        store(&mut server.client(), "key", 30_000, 10);
        for _ in 0..30 {
            let mut client = Client::connect_narrowly(server.address()).unwrap();
            client.send("lru_crawler metadump all\r\n");
            assert_eq!(client.line(), "OK");
            client.reset_on_close();
            drop(client);
            let gone = wait_until(PATIENCE, || {
                Client::connect(server.address()).is_ok_and(|mut client| {
                    client.try_send("version\r\n").is_ok()
                        && client.try_line().is_ok_and(|line| line.starts_with("VERSION"))
                })
            });
            assert!(gone, "{kind:?}");
        }
        assert!(wait_until(PATIENCE, || server.client().stat("curr_connections") <= 2), "{kind:?}");
        server.assert_serves();
    }
}

/// The limit goes down and up in a full cache while others store into it: nobody is refused, and
/// the memory is really the system's again.
#[test]
fn the_limit_of_memory_moves_beside_others() {
    for kind in [Kind::Inline, Kind::Auto] {
        let Some(mut server) = Server::start(kind, &["-m", "256"]) else { continue };
        let mut client = server.client();
        store(&mut client, "fill", 300_000, 1000);
        let before = server.rss_kib() << 10;
        assert!(before > 240 << 20, "{kind:?}: full at {before} bytes");
        let (done, stored) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for writer in 0..2 {
                let (mut client, done, stored) = (server.client(), &done, &stored);
                scope.spawn(move || {
                    for round in 0.. {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        store(&mut client, &format!("more:{writer}:{round}"), 500, 1000);
                        stored.fetch_add(500, Ordering::Relaxed);
                    }
                });
            }
            client.ask("cache_memlimit 64", "OK");
            assert_eq!(client.stat("limit_maxbytes"), 64 << 20);
            let limit = client.stat("rss_limit_bytes");
            assert_eq!(limit - client.stat("fixed_bytes"), 64 << 20);
            let begun = Instant::now();
            let is_down = wait_until(PATIENCE, || server.rss_kib() << 10 <= limit);
            let stats = client.stats();
            println!("{kind:?}: {} sets in {:?}", stored.load(Ordering::Relaxed), begun.elapsed());
            done.store(true, Ordering::Relaxed);
            assert!(is_down, "{kind:?}: {} KiB of {limit} bytes; {stats:#?}", server.rss_kib());
        });
        let settings: BTreeMap<_, _> = client.stats_of("settings").into_iter().collect();
        assert_eq!(settings["maxbytes"], (64 << 20).to_string());
        assert!(client.stat("curr_items") > 30_000, "{kind:?}: {}", client.stat("curr_items"));
        assert_eq!(client.stat("store_no_memory"), 0, "{kind:?}");
        let adjust_failed = "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust";
        client.ask("cache_memlimit 257", adjust_failed);
        client.ask("cache_memlimit 256", "OK");
        store(&mut client, "again", 300_000, 1000);
        let after = server.rss_kib() << 10;
        assert!(after > 240 << 20, "{kind:?}: full again at {after} bytes");
        assert!(after <= client.stat("rss_limit_bytes"), "{kind:?}: {after}");
        server.assert_serves();
    }
}

/// What begins alike is deleted beside others at work, who notice nothing but that it is gone.
#[test]
fn deleting_what_begins_alike_stops_nobody() {
    const KEYS: usize = 50_000;
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64"]) else { continue };
        if !server.is_ours() {
            return;
        }
        let mut client = server.client();
        store(&mut client, "goes", KEYS, 10);
        store(&mut client, "goes-not", KEYS, 10);
        let mut deleter = server.client();
        deleter
            .send("delete_prefix goes:\r\nset goes:1 0 0 1\r\nx\r\ndelete_prefix none noreply\r\n");
        let mut longest = Duration::ZERO;
        for round in 0..300 {
            let begun = Instant::now();
            assert!(client.get(&format!("goes-not:{round}")).is_some(), "{kind:?}");
            longest = longest.max(begun.elapsed());
            client.set(&format!("later:{round}"), b"");
        }
        assert_eq!(deleter.line(), format!("DELETED {KEYS}"), "{kind:?}");
        assert_eq!(deleter.line(), "STORED");
        assert_eq!(deleter.get("goes:1").unwrap(), b"x", "what came behind it is there");
        assert!(client.get("goes:2").is_none() && client.get("goes-not:1").is_some());
        assert_eq!(client.stat("curr_items"), 300 + 1 + KEYS as u64, "{kind:?}");
        assert_eq!(client.stat("deleted_by_prefix"), KEYS as u64);
        assert!(longest < Duration::from_secs(1), "{kind:?}: a get took {longest:?}");
        server.assert_serves();
    }
}

/// The rows of `stats sizes` are those of all keys with their sizes, and are counted beside others.
#[test]
fn sizes_are_counted_when_they_are_asked_for() {
    for kind in OURS {
        let options = &["-m", "64", "-o", "track_sizes"];
        let Some(mut server) = Server::start(kind, options).filter(Server::is_ours) else { return };
        let mut client = server.client();
        for (number, size) in [(0, 0), (1, 10), (2, 40), (3, 500), (4, 9000), (5, 200_000)] {
            store(&mut client, &format!("size{number}"), 6000 / (size / 30 + 1) + 1, size);
        }
        client.send("lru_crawler metadump all\r\n");
        let mut wanted: BTreeMap<u64, u64> = BTreeMap::new();
        loop {
            // A row ends in a bare line feed.
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                line.extend(client.bytes(1));
            }
            let line = String::from_utf8(line).unwrap();
            if line == "END\r\n" {
                break;
            }
            let size = line.split(' ').find_map(|word| word.strip_prefix("size="));
            if let Some(size) = size {
                let size: u64 = size.parse().unwrap();
                *wanted.entry(size.div_ceil(32) * 32).or_default() += 1;
            }
        }
        let told = |client: &mut Client| -> Vec<(u64, u64)> {
            let rows = client.stats_of("sizes").into_iter();
            let numbers =
                |(size, count): (String, String)| Some((size.parse().ok()?, count.parse().ok()?));
            rows.filter_map(numbers).collect()
        };
        let rows = told(&mut client);
        assert!(rows.len() >= 6, "{rows:?}");
        assert_eq!(rows, wanted.into_iter().collect::<Vec<_>>(), "{kind:?}");
        let count: u64 = rows.iter().map(|(_, count)| count).sum();
        assert_eq!(count, client.stat("curr_items"));
        let settings: BTreeMap<_, _> = client.stats_of("settings").into_iter().collect();
        assert_eq!(settings["track_sizes"], "yes");
        // Who goes away amid it keeps nothing from others.
        for _ in 0..200 {
            server.client().send("stats sizes\r\n");
        }
        let free = wait_until(PATIENCE, || told(&mut server.client()) == rows);
        assert!(free, "{kind:?}: it is never told again");
        server.assert_serves();
    }
}
