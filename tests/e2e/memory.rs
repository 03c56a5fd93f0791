//! The memory limit holds, evicts or refuses as told, and what clients took comes back.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::server::{Kind, OURS, Server};
use crate::common::{Chance, PATIENCE, wait_until};

/// That the server has never held more than `-m` and what it said at start to take beside it, and
/// that its account of the pages is whole.
#[track_caller]
fn assert_within_budget(server: &Server) {
    let stats = server.client().stats();
    let stat = |name: &str| stats[name].parse::<u64>().unwrap();
    let limit = stat("rss_limit_bytes");
    assert_eq!(limit - stat("fixed_bytes"), 64 << 20, "of -m 64");
    let peak = server.peak_rss_bytes();
    assert!(peak <= limit, "{peak} bytes of RSS, {limit} allowed; {stats:#?}");
    let parts = ["items", "index", "lent", "debited", "free"];
    let pages: u64 = parts.iter().map(|part| stat(&format!("{part}_page_bytes"))).sum();
    assert_eq!(pages, 64 << 20, "{stats:#?}");
}

#[test]
fn at_rest_it_takes_no_more_than_it_says() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "64"]) else { continue };
        let fixed = server.client().stat("fixed_bytes");
        assert!(fixed < 40 << 20, "{kind:?}: {fixed} bytes beside -m");
        let beside = (server.rss_kib() << 10) - server.arena_rss_bytes();
        assert!(beside <= fixed, "{kind:?}: {beside} bytes beside the arena, {fixed} said");
        assert_within_budget(&server);
    }
}

/// Stores `count` values of `size` bytes in batches, without a reply.
fn store_many(client: &mut Client, prefix: &str, count: usize, size: usize) {
    let value = vec![b'v'; size];
    let mut request = Vec::new();
    for number in 0..count {
        request.extend(format!("set {prefix}:{number} 0 0 {size} noreply\r\n").bytes());
        request.extend_from_slice(&value);
        request.extend_from_slice(b"\r\n");
        if request.len() > 1 << 20 {
            client.send(&request);
            request.clear();
        }
    }
    client.send(&request);
    client.ask("version", "VERSION 1.6.45");
}

#[test]
fn the_limit_holds_while_sizes_change_and_items_grow_in_number() {
    let Some(mut server) = Server::start(Kind::Auto, &["-m", "64"]) else { return };
    let mut client = server.client();
    for (prefix, count, size) in [
        ("small", 300_000, 100),
        ("large", 400, 500_000),
        ("middle", 20_000, 9000),
        ("tiny", 600_000, 1),
        ("large", 300, 900_000),
    ] {
        store_many(&mut client, prefix, count, size);
        assert_within_budget(&server);
    }
    server.assert_serves();
}

#[test]
fn slow_readers_of_large_values_stay_within_the_limit() {
    let Some(mut server) = Server::start(Kind::Auto, &["-m", "64"]) else { return };
    store_many(&mut server.client(), "fill", 100_000, 700);
    server.client().set("large", &vec![b'v'; 1_000_000]);
    let mut readers: Vec<_> =
        (0..50).map(|_| Client::connect_narrowly(server.address()).unwrap()).collect();
    readers.iter_mut().for_each(|reader| reader.send("get large\r\n".repeat(3)));
    for _ in 0..20 {
        readers.iter_mut().for_each(|reader| drop(reader.bytes(10_000)));
    }
    assert!(server.client().stat("spanned_bytes") > 50 << 18);
    assert_within_budget(&server);
    let reader = readers.last_mut().unwrap();
    let rest = 3 * (1_000_000 + "VALUE large 0 1000000\r\n\r\nEND\r\n".len()) - 200_000;
    assert!(reader.bytes(rest).ends_with(b"END\r\n"));
    drop(readers);
    server.assert_serves();
}

/// Readers that ask for a large value of their own each, and read nothing.
fn hoard(server: &Server, client: &mut Client, readers: usize, value: &[u8]) -> Vec<Client> {
    let hoard = |number: usize| {
        let key = format!("large:{number}");
        client.set(&key, value);
        let mut reader = Client::connect_narrowly(server.address()).unwrap();
        reader.send(format!("get {key}\r\n").repeat(4));
        reader
    };
    (0..readers).map(hoard).collect()
}

fn read_large(client: &mut Client, value: &[u8]) {
    assert_eq!(client.line(), format!("VALUE mine 0 {}", value.len()));
    assert!(client.bytes(value.len()) == value);
    assert_eq!((client.line(), client.line()), (String::new(), "END".to_owned()));
}

/// Sixty values of 256 KiB are all of the memory, and nobody who was sent one reads it.
#[test]
fn slow_readers_of_large_values_keep_nobody_from_storing() {
    for kind in OURS {
        let options =
            ["-m", "16", "-t", "2", "--throttle-silence", "600000", "--stall-timeout", "1000"];
        let Some(mut server) = Server::start(kind, &options) else { continue };
        let mut client = server.client();
        let value = vec![b'v'; 256 << 10];
        let mut readers = hoard(&server, &mut client, 60, &value);
        for number in 0..2000 {
            client.set(&format!("other:{number}"), &value[..20_000]);
        }
        assert_eq!(client.stat("store_no_memory"), 0, "{kind:?}");
        assert!(client.stat("span_waits") > 10, "{kind:?}");
        // Each thread may go too far by one value.
        let pinned_bytes = client.stat("pinned_bytes");
        assert!((1 << 20..5 << 20).contains(&pinned_bytes), "{kind:?}: {pinned_bytes}");
        // Who waits goes on when others are gone, on whichever ring they were.
        client.set("mine", &value);
        let mut waiters = [server.client(), server.client()];
        waiters.iter_mut().for_each(|waiter| waiter.send("get mine\r\n"));
        readers.truncate(1);
        waiters.iter_mut().for_each(|waiter| read_large(waiter, &value));
        drop(readers);
        let is_empty = wait_until(PATIENCE, || client.stat("pinned_bytes") == 0);
        assert!(is_empty, "{kind:?}: {}", client.stat("pinned_bytes"));
        server.assert_serves();
    }
}

/// As above, but who reads waits no longer than for the silence of those who asked before.
#[test]
fn who_reads_large_values_does_not_wait_long_for_who_does_not() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "16", "-t", "2"]) else { continue };
        let mut client = server.client();
        let value = vec![b'v'; 256 << 10];
        let readers = hoard(&server, &mut client, 60, &value);
        let begun = Instant::now();
        for _ in 0..100 {
            // Each time it is another item, which nobody is being sent.
            client.set("mine", &value);
            client.send("get mine\r\n");
            read_large(&mut client, &value);
        }
        // The sixty come about eight at a time.
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(8), "{kind:?}: {took:?}");
        assert_eq!(client.stat("store_no_memory"), 0, "{kind:?}");
        drop(readers);
        server.assert_serves();
    }
}

/// Half of the crowd stops in mid-command, the other half asks for much and does not read. Those
/// come later: for their sake the first are closed when two seconds have passed.
#[test]
fn a_crowd_that_neither_reads_nor_ends_its_commands_stays_within_the_limit() {
    for kind in [Kind::Inline, Kind::Queue] {
        let Some(mut server) = Server::start(kind, &["-m", "64", "-c", "4096"]) else { return };
        store_many(&mut server.client(), "fill", 100_000, 700);
        server.client().set("copied", &vec![b'v'; 4000]);
        let half = format!("get {}", "k".repeat(200));
        let half = format!("{}{half}", "version ".repeat(220));
        let copies = format!("get{}\r\n", " copied".repeat(100)).repeat(10);
        let debited = || server.client().stat("debited_page_bytes");
        let held = || ["input_bytes", "conn_bytes"].map(|name| server.client().stat(name));
        let mut crowd = Vec::new();
        let come = |request: &str| {
            let mut client = Client::connect_narrowly(server.address()).unwrap();
            client.send(request);
            client
        };
        crowd.extend((0..750).map(|_| come(&half)));
        let is_there = wait_until(PATIENCE, || held()[0] > 700 * 1500);
        let [input, places] = held();
        assert!(is_there, "{kind:?}: {input} bytes of halves of commands");
        assert!(wait_until(PATIENCE, || debited() >= input + places), "{kind:?}");
        crowd.extend((0..750).map(|_| come(&copies)));
        let mut honest = server.client();
        for number in 0..200 {
            honest.set(&format!("honest:{number}"), &vec![b'h'; 20_000]);
        }
        assert_within_budget(&server);
        // Page 0 is no page of anybody's, and may be part of a huge page.
        let surplus =
            || (server.arena_rss_bytes() + debited()).saturating_sub((64 << 20) + (64 << 10));
        let given = wait_until(PATIENCE, || surplus() == 0);
        assert!(given, "{kind:?}: {} bytes of pages are not given back", surplus());
        drop(crowd);
        assert!(wait_until(PATIENCE, || debited() < input), "{kind:?}: {} bytes", debited());
        assert_within_budget(&server);
        server.assert_serves();
    }
}

/// Sends as much of a request as fits between here and there; says how many bytes that is.
fn send_what_fits(client: &Client, mut request: &[u8]) -> usize {
    let (mut stream, bytes) = (client.stream(), request.len());
    stream.set_nonblocking(true).unwrap();
    while let Ok(sent @ 1..) = stream.write(request) {
        request = &request[sent..];
    }
    bytes - request.len()
}

#[test]
fn what_a_crowd_sends_at_once_is_let_in_as_there_is_room_and_executed() {
    let set = [&b"set k 0 0 1000 noreply\r\n"[..], &[b'v'; 1000], b"\r\n"].concat();
    let request = set.repeat(250);
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64"]) else { continue };
        let crowd: Vec<_> = (0..600).map(|_| server.client()).collect();
        let sent: usize = crowd.iter().map(|each| send_what_fits(each, &request) / set.len()).sum();
        assert!(sent * set.len() > 100 << 20, "{kind:?}: {sent} requests");
        let executed = || server.client().stat("cmd_set");
        assert!(wait_until(2 * PATIENCE, || executed() >= sent as u64), "{kind:?}: of {sent}");
        assert_within_budget(&server);
        drop(crowd);
        server.assert_serves();
    }
}

#[test]
fn large_values_that_do_not_come_keep_nobody_from_storing_small_ones() {
    let begun = [&b"set large 0 0 1000000\r\n"[..], &[b'v'; 60_000]].concat();
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64", "-c", "4096"]) else { continue };
        let mut honest = server.client();
        let crowd: Vec<_> = (0..1500).map(|_| server.client()).collect();
        crowd.iter().for_each(|each| _ = send_what_fits(each, &begun));
        for number in 0..30 {
            honest.set(&format!("small:{number}"), b"0123456789");
        }
        assert_within_budget(&server);
        drop(crowd);
        honest.set("large", &vec![b'v'; 900_000]);
        assert_within_budget(&server);
        server.assert_serves();
    }
}

#[test]
fn eviction_never_refuses_and_the_limit_holds() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut client = server.client();
        let mut chance = Chance::new(17);
        let bytes = chance.bytes(200_000);
        // About 400 MB of values of mixed sizes, in batches.
        let mut last = Vec::new();
        for batch in 0..400 {
            last.clear();
            let mut request = Vec::new();
            while request.len() < 1 << 20 {
                let size = [40, 700, 5000, 30_000, 180_000][chance.below(5)];
                let size = 1 + chance.below(size);
                let key = format!("fill:{batch}:{}", last.len());
                request.extend(format!("set {key} 0 0 {size}\r\n").bytes());
                request.extend_from_slice(&bytes[..size]);
                request.extend_from_slice(b"\r\n");
                last.push((key, size));
            }
            client.send(&request);
            for (key, _) in &last {
                assert_eq!(client.line(), "STORED", "{kind:?}: reply to set {key}");
            }
        }
        let (key, size) = last.last().unwrap();
        assert!(client.get(key).unwrap() == bytes[..*size], "{kind:?}: the newest item");
        assert!(client.stat("evictions") > 100, "{kind:?}");
        assert!(client.stat("bytes") <= 64 << 20, "{kind:?}");
        assert!(client.stat("curr_items") > 100, "{kind:?}");
        assert_within_budget(&server);
        server.assert_serves();
    }
}

#[test]
fn without_eviction_a_full_cache_refuses_and_keeps() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "64", "-M"]) else { continue };
        let mut client = server.client();
        client.set("first", b"kept");
        let value = Chance::new(19).bytes(100_000);
        let mut refused = None;
        for number in 0..1000 {
            client.send(crate::common::client::set_request(&format!("fill:{number}"), &value));
            match client.line().as_str() {
                "STORED" => {}
                "SERVER_ERROR out of memory storing object" => {
                    refused = Some(number);
                    break;
                }
                other => panic!("{kind:?}: reply to set: {other}"),
            }
        }
        let refused = refused.unwrap_or_else(|| panic!("{kind:?}: 100 MB fit into 64 MB"));
        assert!(refused > 300, "{kind:?}: full after {refused} values of 100 KB");
        assert_eq!(client.stat("evictions"), 0, "{kind:?}");
        let of_items = client.stats_of("items");
        let told = of_items.iter().filter(|(name, _)| name.ends_with(":outofmemory"));
        let told: u64 = told.map(|(_, figure)| figure.parse::<u64>().unwrap()).sum();
        assert_eq!((told, client.stat("store_no_memory")), (1, 1), "{kind:?}");
        assert_eq!(client.get("first").unwrap(), b"kept", "{kind:?}");
        assert!(client.get("fill:0").unwrap() == value, "{kind:?}: what was stored stays");
        // Room that is given back is room again.
        for number in 0..refused {
            client.ask(&format!("delete fill:{number}"), "DELETED");
        }
        client.set("again", &value);
    }
}

/// Stores values of one size until one is refused, and says how many are there.
fn fill_up(client: &mut Client, value: &[u8]) -> usize {
    for number in 0..10_000 {
        client.send(crate::common::client::set_request(&format!("fill:{number}"), value));
        if client.line() != "STORED" {
            return number;
        }
    }
    panic!("values of {} bytes fit for ever", value.len());
}

#[test]
fn without_eviction_room_that_is_given_back_is_room_for_any_size() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "64", "-M"]) else { continue };
        let mut client = server.client();
        for (round, size) in [1_000_000, 20_000, 200_000].into_iter().enumerate() {
            let count = fill_up(&mut client, &vec![b'v'; size]);
            assert!(count * size > 32 << 20, "{kind:?}: {count} values of {size} bytes");
            if round == 1 {
                client.ask("flush_all", "OK");
            } else {
                let deletes = (0..count).map(|number| format!("delete fill:{number} noreply\r\n"));
                client.send(deletes.collect::<String>());
                client.ask("mn", "MN");
            }
            for size in [10, 100, 1000, 5000, 30_000, 200_000, 900_000] {
                let request = crate::common::client::set_request("other", &vec![b'o'; size]);
                let mut is_stored = || {
                    client.send(&request);
                    client.line() == "STORED"
                };
                // Other threads may not have said yet what they let go of.
                assert!((0..4).any(|_| is_stored()), "{kind:?}: {size} bytes in round {round}");
            }
            client.ask("delete other", "DELETED");
        }
        assert_eq!(client.stat("evictions"), 0, "{kind:?}");
    }
}

#[test]
fn flush_and_overwrite_give_memory_back() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut client = server.client();
        let value = Chance::new(23).bytes(10_000);
        let mut highest = 0;
        for _ in 0..30 {
            for number in 0..500 {
                client.set(&format!("over:{number}"), &value);
            }
            highest = highest.max(client.stat("bytes"));
        }
        assert_eq!(client.stat("evictions"), 0, "{kind:?}: 5 MB of live items in 64 MB");
        assert!(highest < 8 << 20, "{kind:?}: {highest} bytes for 5 MB of items");
        client.ask("flush_all", "OK");
        assert_eq!(client.get("over:1"), None, "{kind:?}");
        for number in 0..5000 {
            client.set(&format!("new:{number}"), &value);
        }
        assert_eq!(client.get("new:4999").unwrap(), value, "{kind:?}");
    }
}
