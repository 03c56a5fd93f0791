//! Limits for each peer address, seen from outside: one who asks for too much, and a neighbour.

use std::net::{IpAddr, Ipv4Addr};

use crate::common::client::Client;
use crate::common::server::{Kind, OURS, Server};
use crate::common::{PATIENCE, wait_until};

const RATE: u64 = 400;
const BURST: u64 = RATE / 5;
/// Each ring may be one batch ahead.
const AHEAD: u64 = 2 * 32;

fn start(kind: Kind) -> Option<Server> {
    Server::start(kind, &["--peer-requests", "400", "--peer-burst", "200"])
}

fn neighbour(server: &Server) -> Client {
    Client::connect_from(IpAddr::from(Ipv4Addr::new(127, 0, 0, 2)), server.address()).unwrap()
}

/// Connections of one address, on all rings, that ask for far more than they may.
fn greedy(server: &Server) -> Vec<Client> {
    let ask = |_| {
        let mut client = server.client();
        client.send("get a\r\n".repeat(20_000));
        client
    };
    (0..4).map(ask).collect()
}

#[test]
fn a_greedy_address_has_its_rate_and_its_neighbour_does_not_notice() {
    for kind in OURS {
        let Some(server) = start(kind) else { continue };
        let mut neighbour = neighbour(&server);
        let (began_s, before) = (neighbour.stat("uptime"), neighbour.stat("cmd_get"));
        let greedy = greedy(&server);
        let waits = |state: &str| state == "awaits_rate";
        let all_wait = wait_until(PATIENCE, || {
            let rows = neighbour.stats_of("conns");
            rows.iter().filter(|(_, value)| waits(value)).count() == greedy.len()
        });
        assert!(all_wait, "{kind:?}: {:#?}", neighbour.stats_of("conns"));
        for _ in 0..BURST / 2 {
            assert_eq!(neighbour.get("a"), None);
        }
        let later = wait_until(PATIENCE, || neighbour.stat("uptime") >= began_s + 3);
        assert!(later, "{kind:?}");
        let stats = neighbour.stats();
        let stat = |name: &str| stats[name].parse::<u64>().unwrap();
        let (seconds, served) = (stat("uptime") - began_s, stat("cmd_get") - before - BURST / 2);
        let most = RATE * (seconds + 1) + BURST + AHEAD;
        assert!((1..=most).contains(&served), "{kind:?}: {served} in {seconds} s");
        assert!(stat("rate_parks") > 0 && stat("rate_held_bytes") > 0, "{kind:?}");
        let goes_on = wait_until(PATIENCE, || {
            neighbour.stat("cmd_get") - before > served + BURST
                && neighbour.stat("rate_wait_us") > 0
        });
        assert!(goes_on, "{kind:?}: nobody is served any more");
    }
}

/// Thousands of connections bring more than fits into what the ring receives into, and into the
/// memory for requests that wait.
#[test]
fn a_crowd_that_has_to_wait_is_not_in_the_way() {
    const CROWD: usize = 6000;
    let options = "-t 1 -c 7000 --conn-memory 1m --peer-requests 1 --peer-exempt 127.0.0.1";
    let options: Vec<_> = options.split(' ').collect();
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &options) else { continue };
        let crowd: Vec<_> = (0..CROWD)
            .map(|number| {
                let host = 1 + u8::try_from(number % 200).unwrap();
                let address = IpAddr::from(Ipv4Addr::new(127, 0, 1, host));
                let mut client = Client::connect_from(address, server.address()).unwrap();
                client.send("get a\r\n".repeat(1000));
                client
            })
            .collect();
        let mut newcomer = server.client();
        newcomer.set("k", b"v");
        assert_eq!(newcomer.get("k").as_deref(), Some(b"v".as_slice()), "{kind:?}");
        assert!(newcomer.stat("curr_connections") > 100, "{kind:?}: they need not all go");
        drop(crowd);
        server.assert_serves();
    }
}

#[test]
fn to_stop_does_not_wait_for_who_has_to() {
    for kind in OURS {
        let Some(mut server) = start(kind) else { continue };
        let greedy = greedy(&server);
        let mut neighbour = neighbour(&server);
        let parked = wait_until(PATIENCE, || neighbour.stat("rate_parked") >= 3);
        assert!(parked, "{kind:?}: {:#?}", neighbour.stats());
        server.signal("TERM");
        let status = server.wait(PATIENCE);
        assert!(status.is_some_and(|status| status.success()), "{kind:?}: {status:?}");
        drop(greedy);
    }
}

#[test]
fn who_is_exempt_has_no_limit() {
    let exempt = ["--peer-requests", "1", "--peer-exempt", "10.0.0.0/8,127.0.0.1"];
    let Some(server) = Server::start(OURS[0], &exempt) else { return };
    let mut client = server.client();
    client.send("get a\r\n".repeat(5000));
    (0..5000).for_each(|_| assert_eq!(client.line(), "END"));
    assert_eq!(client.stat("rate_parks"), 0);
    let settings = client.stats_of("settings");
    for (name, value) in [("peer_requests", "1"), ("peer_bytes", "0"), ("peer_burst", "1000")] {
        assert!(settings.contains(&(name.into(), value.into())), "{name}: {settings:?}");
    }
}

/// Values that come in pieces, and go in pieces: what is long is held to the rate, too.
#[test]
fn large_values_are_paid_for() {
    for kind in OURS {
        let options = ["--peer-bytes", "1m", "--peer-burst", "100"];
        let Some(server) = Server::start(kind, &options) else { continue };
        let mut client = server.client();
        let began_s = client.stat("uptime");
        let value = vec![b'v'; 900_000];
        (0..2).for_each(|_| client.set("large", &value));
        (0..2).for_each(|_| assert!(client.get("large").unwrap() == value));
        let seconds = client.stat("uptime") - began_s;
        assert!(seconds >= 2, "{kind:?}: 2.6 MB and a debt at 1 MB a second, in {seconds} s");
        assert!(client.stat("rate_parks") > 0, "{kind:?}");
    }
}
