//! `stats latency`, `stats rings` and `stats hotkeys`, seen from outside: what was done is told,
//! under its class, and under its key.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};

use crate::common::client::{Client, set_request};
use crate::common::server::{Kind, OURS, Server};
use crate::common::{PATIENCE, wait_until};

fn rows(client: &mut Client, group: &str) -> BTreeMap<String, u64> {
    let number = |(name, value): (String, String)| (name, value.parse().unwrap());
    client.stats_of(group).into_iter().map(number).collect()
}

/// Ten requests of each class but one, one after the other.
fn ask_for_everything(client: &mut Client) {
    for _ in 0..10 {
        client.set("a", b"1");
        client.get("a").unwrap();
        client.send("get a b a\r\n");
        assert_eq!(client.values().len(), 2);
        client.ask("incr a 1", "2");
        client.ask("touch a 0", "TOUCHED");
        client.ask("delete b", "NOT_FOUND");
        client.ask("verbosity 0", "OK");
    }
}

#[test]
fn every_class_has_its_latencies_and_a_reset_forgets_them() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut client = server.client();
        client.ask("stats reset", "RESET");
        ask_for_everything(&mut client);
        let rows_now = rows(&mut client, "latency");
        for (class, count) in [("get", 10), ("multi_get", 10), ("store", 10), ("change", 30)] {
            assert_eq!(rows_now[&format!("{class}:count")], count, "{kind:?}: {rows_now:#?}");
            let bounds = ["p50", "p90", "p99", "p999", "max"]
                .map(|row| rows_now[&format!("{class}:{row}_ns")]);
            assert!(bounds[0] > 0 && bounds.is_sorted(), "{kind:?}: {class} {bounds:?}");
        }
        assert!(rows_now["other:count"] >= 10, "{kind:?}: {rows_now:#?}");
        let batches = rows_now["batch_run:count"];
        assert!(
            batches >= 70 && rows_now["batch_wait:count"] == batches,
            "{kind:?}: {rows_now:#?}"
        );
        let queued = rows_now["queue_wait:count"];
        // Statistics themselves are long work, which is left to a worker where there is one.
        assert_eq!(queued > 0, kind != Kind::Inline, "{kind:?}: {rows_now:#?}");
        client.ask("stats reset", "RESET");
        let rows_then = rows(&mut client, "latency");
        assert_eq!(rows_then["get:count"] + rows_then["store:count"], 0, "{kind:?}");
        assert_eq!(rows_then["get:max_ns"], 0, "{kind:?}");
    }
}

/// A pipeline is told request by request, however it is cut into batches.
#[test]
fn a_pipeline_is_counted_by_class() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut client = server.client();
        client.ask("stats reset", "RESET");
        let keys = "get k\r\n".repeat(100) + &"get k l\r\n".repeat(50) + "get k\r\nget l m\r\n";
        let long = format!("get{}\r\n", " k".repeat(200));
        client
            .send([keys.as_bytes(), long.as_bytes(), &set_request("k", b"v").repeat(20)].concat());
        for _ in 0..153 {
            assert_eq!(client.values().len(), 0);
        }
        for _ in 0..20 {
            assert_eq!(client.line(), "STORED");
        }
        let rows = rows(&mut client, "latency");
        let counts =
            ["get", "multi_get", "store", "change"].map(|each| rows[&format!("{each}:count")]);
        assert_eq!(counts, [101, 52, 20, 0], "{kind:?}: {rows:#?}");
    }
}

#[test]
fn every_ring_and_worker_says_what_it_does() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "64", "-t", "2"]) else { continue };
        let mut client = server.client();
        // The accepting ring deals them out: two rings, two or more clients.
        let mut other = server.client();
        client.ask("stats reset", "RESET");
        ask_for_everything(&mut client);
        ask_for_everything(&mut other);
        let rows = rows(&mut client, "rings");
        let of = |name: &str, row: &str| rows[&format!("{name}:{row}")];
        let rings = ["ring_0", "ring_1"];
        for ring in rings {
            assert!(of(ring, "curr_connections") > 0, "{kind:?}: {rows:#?}");
            assert!(of(ring, "ring_turns") >= 70, "{kind:?}: {rows:#?}");
            assert!(of(ring, "ring_sleeps") > 0, "{kind:?}: {rows:#?}");
            assert!(of(ring, "batches") >= 70, "{kind:?}: {rows:#?}");
            assert!(of(ring, "turn_completions:count") >= 70, "{kind:?}: {rows:#?}");
        }
        for row in ["ring_turns", "batches", "turn_requests:count", "queue_depth:count"] {
            let sum: u64 = rings.iter().map(|ring| of(ring, row)).sum();
            assert!(of("all", row) >= sum, "{kind:?} {row}: {rows:#?}");
        }
        // Four times a second a ring tells how it fares.
        let shares = ["busy_percent", "waited_percent", "asleep_percent"];
        let told = wait_until(PATIENCE, || {
            let rows = self::rows(&mut client, "rings");
            let share = |row| rows.get(&format!("ring_0:{row}")).copied();
            let sum: Option<u64> = shares.iter().map(share).sum();
            sum.is_some_and(|sum| (98..=100).contains(&sum))
        });
        assert!(told, "{kind:?}: {rows:#?}");
        assert_eq!(of("all", "batches_away"), u64::from(kind != Kind::Inline), "this very one");
        if kind == Kind::Queue {
            let workers: u64 =
                (0..8).filter_map(|n| rows.get(&format!("worker_{n}:requests"))).sum();
            assert!(workers >= 140 && of("all", "queue_depth:max") >= 1, "{rows:#?}");
        } else {
            let executed: u64 = rings.iter().map(|ring| of(ring, "requests")).sum();
            assert!(executed >= 140, "{kind:?}: {rows:#?}");
        }
        let general = client.stats();
        for row in ["requests", "batches", "ring_turns", "ring_completions", "busy_us"] {
            assert!(general[row].parse::<u64>().unwrap() >= of("all", row), "{kind:?}: {row}");
        }
    }
}

/// One key in ten requests among thousands that are asked for as seldom as another.
#[test]
fn the_hottest_key_and_prefix_are_found_among_many() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "64", "-t", "2"]) else { continue };
        let mut clients = [server.client(), server.client()];
        for round in 0..200 {
            let gets = (0..100).map(|each| match each % 10 {
                0 => "get hot:1\r\n".into(),
                _ => format!("mg cold:{} q\r\n", round * 100 + each),
            });
            let client = &mut clients[round % 2];
            client.send(gets.collect::<String>());
            (0..10).for_each(|_| assert_eq!(client.line(), "END"));
        }
        let client = &mut clients[0];
        let share =
            |rows: &BTreeMap<String, String>| rows["1:share_percent"].parse::<f64>().unwrap();
        let keys: BTreeMap<_, _> = client.stats_of("hotkeys").into_iter().collect();
        assert_eq!(keys["1:key"], "hot:1", "{kind:?}: {keys:#?}");
        assert!((5.0..15.0).contains(&share(&keys)), "{kind:?}: {keys:#?}");
        assert!(!keys.contains_key("4:key"), "{kind:?}: {keys:#?}");
        let prefixes: BTreeMap<_, _> = client.stats_of("hotprefixes").into_iter().collect();
        assert_eq!([&prefixes["1:prefix"], &prefixes["2:prefix"]], ["cold", "hot"], "{kind:?}");
        assert!((85.0..95.0).contains(&share(&prefixes)), "{kind:?}: {prefixes:#?}");
        let told = told_by_datagram(&server, "stats hotkeys");
        assert!(told.contains("STAT 1:key hot:1\r\n"), "{kind:?}: {told}");
    }
}

/// What the statistics port says in one datagram.
fn told_by_datagram(server: &Server, question: &str) -> String {
    let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut address = server.address();
    address.set_port(server.port() + 10_000);
    socket.send_to(question.as_bytes(), address).unwrap();
    let mut datagram = [0; 2000];
    let bytes = socket.recv(&mut datagram).unwrap();
    String::from_utf8(datagram[..bytes].to_vec()).unwrap()
}
