//! What monitors read, in the shapes in which they parse it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::Path;

use crate::common::client::Client;
use crate::common::server::{Kind, OURS, Server, original};

/// General rows of the original that say nothing about this server, or that it has not yet.
const NOT_HERE: &[&str] = &[
    "libevent",
    "read_buf_bytes_free",
    "slab_reassign_chunk_rescues",
    "slab_reassign_inline_reclaim",
    "slab_reassign_evictions_nomem",
    "slab_reassign_last_busy_status",
    "lru_maintainer_juggles",
];

/// Prefixes of such rows.
const FAMILIES_NOT_HERE: &[&str] = &["slab_reassign_busy_", "extstore_", "proxy_"];

fn names(server: &Server, group: &str) -> Vec<String> {
    server.client().stats_of(group).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn general_rows_are_in_the_originals_order() {
    if !Path::new(&original()).exists() {
        return eprintln!("skipped: no {}", original());
    }
    let Some(ours) = Server::start(Kind::Auto, &[]).filter(Server::is_ours) else { return };
    let Some(theirs) = Server::start(Kind::Memcached, &[]) else { return };
    let (ours, theirs) = (names(&ours, ""), names(&theirs, ""));
    let is_here = |row: &&String| {
        !NOT_HERE.contains(&row.as_str())
            && !FAMILIES_NOT_HERE.iter().any(|family| row.starts_with(family))
    };
    let theirs: Vec<_> = theirs.iter().filter(is_here).collect();
    assert!(theirs.len() > 60, "{theirs:?}");
    let place = |row: &String| ours.iter().position(|each| each == row);
    let missing: Vec<_> = theirs.iter().filter(|row| place(row).is_none()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(theirs.iter().map(|row| place(row)).is_sorted(), "{theirs:?}\n{ours:?}");
}

#[test]
fn flushes_are_dated() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &[]).filter(Server::is_ours) else { return };
        let mut client = server.client();
        let oldest = |rows: Vec<(String, String)>| {
            rows.into_iter().find(|(name, _)| name == "oldest").unwrap().1.parse::<u64>().unwrap()
        };
        assert_eq!(oldest(client.stats_of("settings")), 0, "{kind:?}");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        client.ask("flush_all", "OK");
        let (oldest, uptime) = (oldest(client.stats_of("settings")), client.stat("uptime"));
        assert!(oldest >= 1 && oldest <= uptime, "{kind:?}: {oldest} {uptime}");
    }
}

/// Requests of all kinds, for items of many sizes, the same every time; in all dialects.
fn work(client: &mut Client) {
    let mut state = 7u64;
    let mut below = |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % bound
    };
    let mut requests = String::new();
    for _ in 0..4000 {
        let key = format!("k{}", below(400));
        let most = [9, 300, 20_000][usize::try_from(below(3)).unwrap()];
        let value = "7".repeat(usize::try_from(1 + below(most)).unwrap());
        let len = value.len();
        let _ = match below(14) {
            0 | 1 => write!(requests, "set {key} 0 0 {len}\r\n{value}\r\n"),
            2 => write!(requests, "add {key} 5 0 {len}\r\n{value}\r\n"),
            3 => write!(requests, "append {key} 0 0 {len}\r\n{value}\r\n"),
            4 => write!(requests, "cas {key} 0 0 {len} {}\r\n{value}\r\n", below(9)),
            5 => write!(requests, "get {key} other {key}\r\n"),
            6 => write!(requests, "gat 0 {key}\r\n"),
            7 => write!(requests, "touch {key} 0\r\n"),
            8 => write!(requests, "incr {key} 1\r\n"),
            9 => write!(requests, "delete {key}\r\n"),
            10 => write!(requests, "mg {key} v\r\n"),
            11 => write!(requests, "mg {key} t f v N30\r\n"),
            12 => write!(requests, "ms {key} {len} T0\r\n{value}\r\n"),
            _ => write!(requests, "md {key} x\r\n"),
        };
    }
    requests += "mn\r\n";
    client.send(requests);
    while client.line() != "MN" {}
    // And some by the right cas.
    for key in (0..40).map(|number| format!("k{number}")) {
        client.set(&key, b"1");
        client.send(format!("gets {key}\r\n"));
        let line = client.line();
        let cas = line.rsplit(' ').next().unwrap();
        assert_eq!((client.line(), client.line()), ("1".into(), "END".into()));
        client.ask(&format!("cas {key} 0 0 1 {cas}\r\n2"), "STORED");
    }
    client.ask("decr k1 1", "1");
}

fn numbers(rows: Vec<(String, String)>) -> BTreeMap<String, u64> {
    let parsed = |(name, value): (String, String)| Some((name, value.parse().ok()?));
    rows.into_iter().filter_map(parsed).collect()
}

/// Ours, and the original where it is installed.
fn all_there_are() -> impl Iterator<Item = Kind> {
    let is_there = |kind: &Kind| *kind != Kind::Memcached || Path::new(&original()).exists();
    OURS.into_iter().chain([Kind::Memcached]).filter(is_there)
}

/// What the rows `name` of all classes come to.
fn sum(rows: &BTreeMap<String, u64>, name: &str) -> u64 {
    let of_class = |row: &str| row.rsplit_once(':').is_some_and(|(_, last)| last == name);
    rows.iter().filter(|(row, _)| of_class(row)).map(|(_, value)| value).sum()
}

/// The totals are the sums of the classes, in both servers.
#[test]
fn classes_add_up() {
    for kind in all_there_are() {
        let Some(server) = Server::start(kind, &["-m", "64"]) else { return };
        let mut client = server.client();
        work(&mut client);
        let general = numbers(client.stats_of(""));
        let (items, slabs) = (numbers(client.stats_of("items")), numbers(client.stats_of("slabs")));
        let both = |rows: &BTreeMap<String, u64>, of_class: &str, total: &str| {
            assert_eq!(sum(rows, of_class), general[total], "{kind:?}: {of_class} {rows:#?}");
            general[total]
        };
        assert!(both(&items, "number", "curr_items") > 100);
        let is_ours = kind != Kind::Memcached;
        for hits in ["get", "delete", "incr", "decr", "cas", "touch"] {
            let hits = format!("{hits}_hits");
            assert!(both(&slabs, &hits, &hits) > 0, "{kind:?}: {hits}");
        }
        assert!(both(&slabs, "cmd_set", "cmd_set") > 1000);
        both(&slabs, "cas_badval", "cas_badval");
        if is_ours {
            both(&items, "mem_requested", "bytes");
        }
        let by_heat = ["number_hot", "number_warm", "number_cold"].map(|name| sum(&items, name));
        assert_eq!(by_heat.iter().sum::<u64>(), general["curr_items"], "{kind:?}");
        let hits = ["hits_to_hot", "hits_to_warm", "hits_to_cold"].map(|name| sum(&items, name));
        if is_ours {
            assert_eq!(hits.iter().sum::<u64>(), general["get_hits"], "{kind:?}");
        }
        for class in slabs.keys().filter_map(|row| row.strip_suffix(":total_chunks")) {
            let of = |name: &str| slabs[&format!("{class}:{name}")];
            assert_eq!(of("used_chunks") + of("free_chunks"), of("total_chunks"), "{kind:?}");
            assert_eq!(of("total_pages") * of("chunks_per_page"), of("total_chunks"), "{kind:?}");
        }
        assert!(slabs["active_slabs"] > 3 && slabs["total_malloced"] >= general["bytes"] / 2);
    }
}

/// What `memcached-tool` makes of both groups, which shows classes that have pages: chunk size,
/// bytes of pages, items, whether it is full, evicted.
fn displayed(client: &mut Client) -> Vec<(u64, u64, u64, bool, u64)> {
    let (items, slabs) = (numbers(client.stats_of("items")), numbers(client.stats_of("slabs")));
    let classes = slabs.keys().filter_map(|row| row.strip_suffix(":chunk_size"));
    let rows = classes.map(|class| {
        let slab = |name: &str| slabs[&format!("{class}:{name}")];
        let item = |name: &str| items[&format!("items:{class}:{name}")];
        let is_full = slab("used_chunks") == slab("total_chunks");
        let pages = slab("total_pages") * slab("chunks_per_page") * slab("chunk_size");
        (slab("chunk_size"), pages, item("number"), is_full, item("evicted"))
    });
    let mut shown: Vec<_> = rows.filter(|(_, pages, ..)| *pages > 0).collect();
    shown.sort_unstable();
    shown
}

/// Classes are listed from the first item on, not only when memory is full.
#[test]
fn a_class_is_shown_as_soon_as_it_has_an_item() {
    for kind in all_there_are() {
        let Some(server) = Server::start(kind, &["-m", "64"]) else { return };
        let mut client = server.client();
        for (count, bytes) in [(10, 40), (300, 900), (4, 30_000)] {
            for number in 0..count {
                client.set(&format!("{bytes}-{number}"), &vec![b'x'; bytes]);
            }
        }
        let shown = displayed(&mut client);
        let of = |count: u64| shown.iter().find(|row| row.2 == count);
        for (count, bytes) in [(10, 40), (300, 900), (4, 30_000)] {
            let (chunk, pages, _, is_full, evicted) =
                of(count).unwrap_or_else(|| panic!("{kind:?}: {count} {shown:?}"));
            assert!(*pages > count * bytes && *pages < count * bytes + (2 << 20), "{shown:?}");
            // Our largest chunks are shorter, and an item may have several.
            assert!(bytes > 1000 || (bytes..bytes * 2 + 100).contains(chunk), "{shown:?}");
            assert_eq!((*is_full, *evicted), (false, 0), "{kind:?}: {shown:?}");
        }
        assert_eq!(shown.iter().map(|row| row.2).sum::<u64>(), 314, "{kind:?}: {shown:?}");
        client.ask("delete 40-0", "DELETED");
        assert!(displayed(&mut client).iter().any(|row| row.2 == 9), "{kind:?}");
    }
}

/// Each connection is shown with its peer's address and that of the listener.
#[test]
fn connections_are_shown_with_both_addresses() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &[]).filter(Server::is_ours) else { return };
        let mut client = server.client();
        let own = format!("tcp:{}", client.stream().local_addr().unwrap());
        let rows = client.stats_of("conns");
        let (row, _) = rows.iter().find(|(_, value)| *value == own).expect("it is there");
        let number = row.strip_suffix(":addr").unwrap();
        let of_it: Vec<_> = rows
            .iter()
            .filter_map(|(name, value)| {
                let (each, name) = name.split_once(':')?;
                (each == number).then_some((name, value.as_str()))
            })
            .collect();
        assert_eq!(of_it[1], ("listen_addr", format!("tcp:{}", server.address()).as_str()));
        let names: Vec<_> = of_it.iter().take(4).map(|(name, _)| *name).collect();
        assert_eq!(names, ["addr", "listen_addr", "state", "secs_since_last_cmd"], "{kind:?}");
    }
}

/// The rows of each class are those of the original, in its order.
#[test]
fn rows_of_classes_are_the_originals() {
    if !Path::new(&original()).exists() {
        return eprintln!("skipped: no {}", original());
    }
    let Some(ours) = Server::start(Kind::Auto, &[]).filter(Server::is_ours) else { return };
    let Some(theirs) = Server::start(Kind::Memcached, &[]) else { return };
    let rows = |server: &Server, group: &str| -> Vec<String> {
        let mut client = server.client();
        client.set("k", b"v");
        let names = client.stats_of(group).into_iter().map(|(name, _)| name);
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let bare = |name: String| name.split(':').filter(|part| !is_number(part)).collect();
        names.map(bare).collect()
    };
    for group in ["items", "slabs"] {
        assert_eq!(rows(&ours, group), rows(&theirs, group), "{group}");
    }
}

/// prometheus' memcached_exporter: without these, it says that the server is down; and one figure
/// that it finds in both groups, it exports twice, which is an error.
#[test]
fn the_exporter_finds_what_it_must() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &[]).filter(Server::is_ours) else { return };
        let mut client = server.client();
        work(&mut client);
        let general = client.stats();
        for name in ["cmd_set", "cas_misses", "cas_hits", "cas_badval"] {
            assert!(general[name].parse::<f64>().is_ok(), "{kind:?}: {name}");
        }
        for name in ["rusage_user", "rusage_system"] {
            let (seconds, micros) = general[name].split_once('.').unwrap();
            assert!(seconds.parse::<u64>().is_ok() && micros.len() == 6, "{kind:?}: {name}");
        }
        let number = |name: &str| general[name].parse::<u64>().unwrap();
        let cas: u64 = ["cas_misses", "cas_hits", "cas_badval"].map(number).iter().sum();
        assert!(number("cmd_set") > cas && cas > 0, "{kind:?}: it subtracts");
        let mut groups = Vec::new();
        for (group, prefix) in [("items", "items:"), ("slabs", "")] {
            let mut of_class: BTreeMap<u8, BTreeMap<String, f64>> = BTreeMap::new();
            for (name, value) in client.stats_of(group) {
                let name = name.strip_prefix(prefix).unwrap_or_else(|| panic!("{name}"));
                let Some((class, name)) = name.split_once(':') else { continue };
                let class = of_class.entry(class.parse().unwrap()).or_default();
                assert!(class.insert(name.into(), value.parse().unwrap()).is_none(), "{name}");
            }
            groups.push(of_class);
        }
        let [items, slabs] = &groups[..] else { unreachable!() };
        assert_eq!(items.keys().collect::<Vec<_>>(), slabs.keys().collect::<Vec<_>>());
        for class in slabs.values() {
            assert!(
                ["cmd_set", "cas_hits", "cas_badval"].iter().all(|name| class.contains_key(*name))
            );
            assert!(class["cmd_set"] >= class["cas_hits"] + class["cas_badval"], "{class:?}");
            assert!(!class.contains_key("mem_requested"));
        }
        assert!(items.values().all(|class| class.contains_key("mem_requested")));
        let settings: BTreeMap<_, _> = client.stats_of("settings").into_iter().collect();
        assert!(settings["maxconns"].parse::<f64>().is_ok());
        if settings["lru_crawler"] == "yes" {
            for name in ["lru_crawler_sleep", "lru_crawler_tocrawl", "hot_lru_pct"] {
                assert!(settings[name].parse::<f64>().is_ok(), "{name}");
            }
        }
    }
}

/// telegraf: each line is three words.
#[test]
fn every_row_is_three_words() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &[]).filter(Server::is_ours) else { return };
        let mut client = server.client();
        work(&mut client);
        for group in ["", " settings", " items", " slabs", " conns"] {
            client.send(format!("stats{group}\r\n"));
            loop {
                let line = client.line();
                if line == "END" {
                    break;
                }
                assert_eq!(line.split(' ').count(), 3, "{kind:?}: {line}");
            }
        }
    }
}

/// The rows of a group in the binary protocol.
fn packets(server: &Server, group: &str) -> Vec<(String, String)> {
    let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
    let mut request = vec![0x80, 0x10, 0, u8::try_from(group.len()).unwrap()];
    request.extend([0; 4]);
    request.extend(u32::try_from(group.len()).unwrap().to_be_bytes());
    request.extend([0; 12]);
    request.extend(group.as_bytes());
    stream.write_all(&request).unwrap();
    let mut rows = Vec::new();
    loop {
        let mut head = [0; 24];
        stream.read_exact(&mut head).unwrap();
        assert_eq!((head[0], head[1], &head[6..8]), (0x81, 0x10, &[0, 0][..]), "{group}");
        let key = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let mut body = vec![0; u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize];
        stream.read_exact(&mut body).unwrap();
        if key == 0 {
            assert!(body.is_empty());
            return rows;
        }
        let value = String::from_utf8(body.split_off(key)).unwrap();
        rows.push((String::from_utf8(body).unwrap(), value));
    }
}

/// Datadog speaks the binary protocol.
#[test]
fn packets_tell_what_lines_do() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &[]).filter(Server::is_ours) else { return };
        let mut client = server.client();
        work(&mut client);
        for group in ["", "settings", "items", "slabs"] {
            let lines = client.stats_of(group);
            let packets = packets(&server, group);
            let names = |rows: &[(String, String)]| -> Vec<String> {
                rows.iter().map(|(name, _)| name.clone()).collect()
            };
            assert_eq!(names(&lines), names(&packets), "{kind:?} {group}");
            if group == "slabs" || group == "items" {
                let (lines, packets) = (numbers(lines), numbers(packets));
                let steady = |name: &&str| lines.keys().any(|row| row.ends_with(*name));
                for name in ["number", "cmd_set", "get_hits", "chunk_size"]
                    .iter()
                    .filter(|name| steady(name))
                {
                    assert_eq!(sum(&lines, name), sum(&packets, name), "{kind:?} {name}");
                }
            }
        }
    }
}

/// munin, and metricbeat.
#[test]
fn others_find_theirs() {
    let Some(server) = Server::start(Kind::Auto, &[]).filter(Server::is_ours) else { return };
    let general = numbers(server.client().stats_of(""));
    for name in [
        "get_hits",
        "get_misses",
        "cmd_get",
        "cmd_set",
        "total_items",
        "curr_items",
        "bytes",
        "total_connections",
        "curr_connections",
        "bytes_read",
        "bytes_written",
        "pid",
        "uptime",
        "threads",
        "evictions",
        "limit_maxbytes",
        "max_connections",
    ] {
        assert!(general.contains_key(name), "{name}");
    }
}
