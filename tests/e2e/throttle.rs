//! The throttle, seen from outside: who waits, who goes, and what the statistics say of it.

use std::collections::BTreeMap;

use crate::common::client::Client;
use crate::common::server::{OURS, Server};
use crate::common::{PATIENCE, wait_until};

/// Connections by number, each with its rows.
fn connections(client: &mut Client) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (name, value) in client.stats_of("conns") {
        let (number, name) = name.split_once(':').unwrap();
        all.entry(number.to_owned()).or_default().insert(name.to_owned(), value);
    }
    all
}

/// Clients that ask for a value again and again, and do not read. It is small enough to be copied.
fn deaf(server: &Server, count: usize) -> Vec<Client> {
    let request = format!("get{}\r\n", " copied".repeat(100)).repeat(10);
    (0..count)
        .map(|_| {
            let mut client = Client::connect_narrowly(server.address()).unwrap();
            client.send(&request);
            client
        })
        .collect()
}

#[test]
fn every_connection_and_what_it_holds_is_shown() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "64"]) else { continue };
        let mut watcher = server.client();
        watcher.set("copied", &vec![b'v'; 4000]);
        let deaf = deaf(&server, 3);
        let mut uploader = server.client();
        uploader.send("set half 0 0 100000\r\nbegin");
        let mut halves = server.client();
        halves.send("get half_a_comm");
        let row = |name: &str, state: &str, least: u64, watcher: &mut Client| {
            let holds = |one: &BTreeMap<String, String>| {
                one[name].parse::<u64>().unwrap() >= least && (one["state"] == state)
            };
            connections(watcher).values().filter(|one| holds(one)).count()
        };
        for (name, state, least, count) in [
            ("reply_bytes", "must_read", 16 << 10, 3),
            ("item_bytes", "receiving", 5, 1),
            ("request_bytes", "receiving", 11, 1),
        ] {
            let seen = wait_until(PATIENCE, || row(name, state, least, &mut watcher) == count);
            assert!(seen, "{kind:?}: {name} {:#?}", connections(&mut watcher));
        }
        let addresses: Vec<_> =
            connections(&mut watcher).values().map(|one| one["addr"].clone()).collect();
        for client in deaf.iter().chain([&uploader, &halves, &watcher]) {
            let own = format!("tcp:{}", client.stream().local_addr().unwrap());
            assert!(addresses.contains(&own), "{kind:?}: no {own} in {addresses:?}");
        }
        drop(deaf);
        let gone = wait_until(PATIENCE, || connections(&mut watcher).len() == 3);
        assert!(gone, "{kind:?}: {:#?}", connections(&mut watcher));
    }
}

/// More peers than there are blocks ask for more than there is memory for.
#[test]
fn a_crowd_that_does_not_read_is_dropped_by_size_and_reason() {
    for kind in OURS {
        let options = ["-m", "16", "-c", "4096", "--throttle-silence", "1000"];
        let Some(mut server) = Server::start(kind, &options) else { continue };
        let mut neighbour = server.client();
        neighbour.set("copied", &vec![b'v'; 4000]);
        let deaf = deaf(&server, 400);
        let dire = wait_until(PATIENCE, || {
            neighbour.set("small", b"value");
            assert_eq!(neighbour.get("small").unwrap(), b"value");
            neighbour.stat("closed_for_pool") + neighbour.stat("closed_for_replies") > 0
        });
        let stats = neighbour.stats();
        assert!(dire, "{kind:?}: nobody had to go: {stats:#?}");
        let stat = |name: &str| stats[name].parse::<u64>().unwrap();
        // While some go, one row is older than the next.
        let adds_up = wait_until(PATIENCE, || {
            let stats = neighbour.stats();
            let stat_of = |name: &str| stats[name].parse::<u64>().unwrap();
            let reasons =
                ["pool", "replies", "items", "spans"].map(|it| format!("closed_for_{it}"));
            reasons.iter().map(|name| stat_of(name)).sum::<u64>() == stat_of("response_obj_oom")
        });
        assert!(adds_up, "{kind:?}: {:#?}", neighbour.stats());
        assert!(stat("throttle_active") > 0, "{kind:?}");
        assert!(stat("throttle_level") > 0, "{kind:?}: nobody knows that memory is short");
        drop(deaf);
        let calm = wait_until(PATIENCE, || {
            neighbour.stat("throttle_active") <= 1 && neighbour.stat("throttle_level") == 0
        });
        assert!(calm, "{kind:?}: {:#?}", neighbour.stats());
        assert_eq!(neighbour.stat("accepting_conns"), 1);
        assert_eq!(neighbour.stat("throttle_parked"), 0);
        server.assert_serves();
    }
}

/// Nobody goes in that time, however long it takes: who comes is served before all who have not
/// read what they were sent, and do not wait for their turn. Nor is anybody kept out: the places of
/// the crowd are nearly as much as who comes may take beyond the limit.
#[test]
fn who_comes_is_served_before_a_crowd_that_does_not_read() {
    for kind in OURS {
        let options = ["-m", "64", "--conn-memory", "4m", "-c", "1000", "--stall-timeout", "1000"];
        let patience = ["--throttle-silence", "600000", "--throttle-drop", "100"];
        let options = [&options[..], &patience].concat();
        let Some(mut server) = Server::start(kind, &options) else { continue };
        let mut watcher = server.client();
        watcher.set("copied", &vec![b'v'; 4000]);
        watcher.set("small", b"value");
        let mut deaf = deaf(&server, 300);
        let is_short = wait_until(PATIENCE, || {
            deaf.iter_mut().for_each(|client| client.send("get copied\r\n"));
            watcher.stat("reply_waits") > 300
        });
        assert!(is_short, "{kind:?}: {:#?}", watcher.stats());
        for _ in 0..20 {
            deaf.iter_mut().for_each(|client| client.send("get copied\r\n"));
            assert_eq!(server.client().get("small").unwrap(), b"value");
        }
        assert_eq!(watcher.stat("response_obj_oom"), 0, "{kind:?}: somebody had to go");
        drop(deaf);
        server.assert_serves();
    }
}

/// Their places take most of the memory that is for connections; then all of them go.
#[test]
fn a_crowd_that_only_came_and_went_leaves_no_pressure() {
    let options = ["-m", "64", "--conn-memory", "1m", "-c", "2000"];
    let Some(server) = Server::start(OURS[0], &options) else { return };
    let mut watcher = server.client();
    let crowd: Vec<_> = (0..1150).map(|_| server.client()).collect();
    let short = wait_until(PATIENCE, || watcher.stat("throttle_level") > 0);
    assert!(short, "{:#?}", watcher.stats());
    drop(crowd);
    let calm = wait_until(PATIENCE, || watcher.stat("throttle_level") == 0);
    assert!(calm, "{:#?}", watcher.stats());
    assert_eq!(watcher.stat("accepting_conns"), 1);
}

#[test]
fn the_settings_are_what_was_asked_for() {
    let options = ["--conn-memory", "20m", "--throttle-park", "60", "--throttle-floor", "8k"];
    let Some(server) = Server::start(OURS[0], &options) else { return };
    let settings: BTreeMap<_, _> = server.client().stats_of("settings").into_iter().collect();
    for (name, value) in [
        ("conn_memory", "20971520"),
        ("throttle_park", "60"),
        ("throttle_drop", "90"),
        ("throttle_share", "2"),
        ("throttle_floor", "8192"),
        ("throttle_silence", "2000"),
        ("stall_timeout", "10"),
    ] {
        assert_eq!(settings[name], value, "{name}");
    }
}
