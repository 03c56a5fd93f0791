//! Requests in datagrams: both protocols, limits, and a network that loses, repeats and lies.

use crate::common::server::{Kind, OURS, Server, free_port};
use crate::common::{Chance, PATIENCE, wait_until};
use crate::protocols::packet;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const TOO_LARGE: &[u8] = b"SERVER_ERROR output line too long\r\n";

/// A peer of a server with datagrams.
struct Peer(UdpSocket);

impl Peer {
    /// From another address than the rest of the test, where `host` is not 1.
    fn from(host: u8, port: u16) -> Peer {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, host], 0))).unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Peer(socket)
    }

    fn of(port: u16) -> Peer {
        Peer::from(1, port)
    }

    /// Sends commands under an id. A reply to an earlier datagram may have been refused.
    fn send(&self, id: u16, commands: impl AsRef<[u8]>) {
        let [high, low] = id.to_be_bytes();
        self.send_raw(&[&[high, low, 0, 0, 0, 1, 0, 0], commands.as_ref()].concat());
    }

    fn send_raw(&self, datagram: &[u8]) {
        if self.0.send(datagram).is_err() {
            self.0.send(datagram).unwrap();
        }
    }

    /// The next datagram: id, number, count, payload.
    fn datagram(&self) -> (u16, u16, u16, Vec<u8>) {
        let mut buffer = [0; 2000];
        let len = self.0.recv(&mut buffer).unwrap();
        let word = |at: usize| u16::from_be_bytes([buffer[at], buffer[at + 1]]);
        assert!((9..=1400).contains(&len) && word(6) == 0, "a datagram of {len} bytes");
        (word(0), word(2), word(4), buffer[8..len].to_vec())
    }

    /// A reply that comes alone, and how long its datagrams were.
    fn reply(&self, id: u16) -> (Vec<u8>, Vec<usize>) {
        let (mut parts, mut lengths) = (BTreeMap::new(), Vec::new());
        loop {
            let (of, number, count, payload) = self.datagram();
            assert!(of == id && number < count, "{of}, {number} of {count}");
            lengths.push(payload.len() + 8);
            assert!(parts.insert(number, payload).is_none(), "{number} came twice");
            if parts.len() == usize::from(count) {
                return (parts.into_values().flatten().collect(), lengths);
            }
        }
    }

    fn ask(&self, id: u16, commands: impl AsRef<[u8]>) -> Vec<u8> {
        self.send(id, commands);
        self.reply(id).0
    }

    /// All that has come until nothing comes for a while.
    fn drain(&self) -> Vec<Vec<u8>> {
        self.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let (mut all, mut buffer) = (Vec::new(), [0; 2000]);
        loop {
            match self.0.recv(&mut buffer) {
                Ok(len) => all.push(buffer[..len].to_vec()),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
        self.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        all
    }
}

/// Starts a server in each mode, with datagrams and some options.
fn each(options: &[&str], test: impl Fn(&mut Server, u16)) {
    for kind in OURS {
        let port = free_port();
        let udp_port = port.to_string();
        let options = [&["-U", udp_port.as_str()], options].concat();
        let Some(mut server) = Server::start(kind, &options) else { continue };
        test(&mut server, port);
        server.assert_serves();
    }
}

#[test]
fn each_datagram_says_what_it_speaks() {
    each(&[], |_, port| {
        let peer = Peer::of(port);
        assert_eq!(peer.ask(1, "set k 0 0 1\r\n5\r\nincr k 1\r\n"), b"STORED\r\n6\r\n");
        let packets = [packet(0x05, &incr_extras(3), "k", b""), packet(0x0a, b"", "", b"")];
        let reply = peer.ask(2, packets.concat());
        assert_eq!((reply.len(), reply[31], reply[33]), (32 + 24, 9, 0x0a));
        assert_eq!(peer.ask(3, "get k\r\n"), b"VALUE k 0 1\r\n9\r\nEND\r\n");
        // What is quiet, and what wants no reply, has none.
        peer.send(4, packet(0x09, b"", "none", b""));
        peer.send(5, "delete k noreply\r\n");
        peer.send(6, "quit\r\n");
        assert_eq!(peer.ask(7, "get k\r\n"), b"END\r\n");
        assert_eq!(peer.ask(8, "no such thing\r\n"), b"ERROR\r\n");
    });
}

/// A list of keys fits the limit of a reply, or is refused.
#[test]
fn keys_are_listed_as_far_as_a_reply_goes() {
    each(&["--udp-reply-max", "65536"], |server, port| {
        let peer = Peer::of(port);
        let mut client = server.client();
        client.set("k", b"v");
        client.send("me k\r\n");
        let shown = client.line();
        let class = shown.split(' ').find_map(|word| word.strip_prefix("cls=")).unwrap();
        let ask = format!("stats cachedump {class} 0\r\n");
        assert_eq!(peer.ask(1, &ask), b"ITEM k [1 b; 0 s]\r\nEND\r\n");
        assert_eq!(peer.ask(2, "lru_crawler mgdump all\r\n"), b"OK\r\nmg k\r\nEN\r\n");
        for number in 0..20_000 {
            client.send(format!("set {number} 0 0 1 noreply\r\nv\r\n"));
        }
        client.ask("mn", "MN");
        for all in [&ask, "lru_crawler mgdump all\r\n"] {
            assert_eq!(peer.ask(3, all), TOO_LARGE, "{all}");
        }
        let some = peer.ask(4, format!("stats cachedump {class} 9\r\n"));
        assert_eq!(String::from_utf8(some).unwrap().matches("ITEM ").count(), 9);
    });
}

fn incr_extras(delta: u64) -> Vec<u8> {
    [&delta.to_be_bytes()[..], &[0; 8], &[0xFF; 4]].concat()
}

#[test]
fn an_address_may_say_what_is_spoken() {
    for kind in OURS {
        let [text, packets] = [free_port(), free_port()];
        let list = format!("proto[ascii]:127.0.0.1:{text},proto[binary]:127.0.0.1:{packets}");
        let Some(mut server) = Server::start(kind, &["-U", "-1", "-l", &list]) else { continue };
        assert_eq!(Peer::of(text).ask(1, "get k\r\n"), b"END\r\n", "{kind:?}");
        assert!(Peer::of(text).ask(1, b"\x80\r\n").ends_with(b"\r\n"), "{kind:?}: a packet");
        assert_eq!(Peer::of(packets).ask(1, packet(0x0a, b"", "", b"")).len(), 24);
        Peer::of(packets).send(1, "set k 0 0 1\r\nv\r\nget k\r\nget k\r\n");
        server.assert_serves();
        assert_eq!(server.client().get("k"), None, "{kind:?}: text is not heard there");
    }
}

#[test]
fn a_reply_comes_in_full_datagrams_up_to_a_limit() {
    each(&[], |server, port| {
        let peer = Peer::of(port);
        let mut client = server.client();
        let value = Chance::new(1).bytes(20_000);
        client.set("large", &value);
        client.set("larger", &value.repeat(4));
        client.set("small", b"s");
        peer.send(9, "get small large none small\r\n");
        let (reply, lengths) = peer.reply(9);
        let small = b"VALUE small 0 1\r\ns\r\n";
        let wanted =
            [small, &b"VALUE large 0 20000\r\n"[..], &value, b"\r\n", small, b"END\r\n"].concat();
        assert!(reply == wanted, "{} bytes", reply.len());
        let (last, full) = lengths.split_last().unwrap();
        assert!(full.iter().all(|length| *length == 1400) && *last > 8, "{lengths:?}");
        assert_eq!(lengths.iter().sum::<usize>(), wanted.len() + 8 * lengths.len());
        assert_eq!(peer.ask(10, "get larger\r\n"), TOO_LARGE);
        assert_eq!(client.stat("udp_too_large"), 1);
    });
    each(&["--udp-reply-max", "1000"], |server, port| {
        let peer = Peer::of(port);
        server.client().set("fits", &[b'v'; 900]);
        server.client().set("large", &[b'v'; 2000]);
        assert_eq!(peer.ask(1, "get fits\r\n").len(), 900 + 25);
        for commands in
            ["get fits fits\r\n", "get large\r\n", "stats\r\n", "get fits\r\nversion\r\n"]
        {
            let reply = peer.ask(2, commands);
            let fits = commands.ends_with("version\r\n");
            assert!(fits || reply == TOO_LARGE, "{commands:?}: {} bytes", reply.len());
            assert!(reply.len() + 8 <= 1000, "{commands:?}");
        }
        let reply = peer.ask(3, packet(0x00, b"", "large", b""));
        assert_eq!((&reply[6..8], &reply[24..]), (&[0, 3][..], &b"Too large."[..]));
    });
}

/// Nothing is kept between datagrams: in any order, and however often, each has its reply.
#[test]
fn datagrams_may_come_twice_late_or_never() {
    each(&[], |server, port| {
        let peer = Peer::of(port);
        let mut chance = Chance::new(7);
        let mut client = server.client();
        for number in 0..100 {
            client.set(&format!("k{number}"), &vec![b'v'; number * 20]);
        }
        let mut sent = BTreeMap::<u16, u32>::new();
        let mut due = 0;
        for _ in 0..20 {
            for _ in 0..5 {
                let id = u16::try_from(chance.below(100)).unwrap();
                let commands = format!("get k{id}\r\n");
                // A request that was cut on the way, or of which only a part came.
                peer.send(id, &commands[..commands.len() - 2]);
                peer.send_raw(&[&[0, 0, 0, 0, 0, 2, 0, 0], commands.as_bytes()].concat());
                peer.send(id, &commands);
                *sent.entry(id).or_default() += 1;
                due += (format!("VALUE k{id} 0 {}\r\n\r\nEND\r\n", id * 20).len()
                    + usize::from(id) * 20)
                    .div_ceil(1392);
            }
            while due > 0 {
                let (id, number, _, payload) = peer.datagram();
                let head = format!("VALUE k{id} 0 {}\r\n", id * 20);
                assert!(number > 0 || payload.starts_with(head.as_bytes()), "{id}");
                if number == 0 {
                    *sent.get_mut(&id).unwrap() -= 1;
                }
                due -= 1;
            }
        }
        assert!(sent.values().all(|owed| *owed == 0), "{sent:?}");
        let (requests, dropped) = (client.stat("udp_requests"), client.stat("udp_dropped"));
        assert_eq!((requests, client.stat("udp_replies"), dropped), (200, 100, 100));
    });
}

#[test]
fn whatever_comes_costs_no_more_than_its_limit() {
    each(&["--udp-reply-max", "1400"], |server, port| {
        let peer = Peer::of(port);
        server.client().set("k", &[b'v'; 1300]);
        let mut chance = Chance::new(3);
        for length in 0..=1400 {
            // Bytes of any kind; in a frame; and such that begin well.
            let bytes = chance.bytes(length);
            peer.send_raw(&bytes);
            peer.send(1, &bytes);
            let packet = packet(0x00, b"", "k", &bytes);
            match chance.below(3) {
                0 => peer.send(2, [b"get k\r\n", &bytes[..], b"\r\nget k\r\n"].concat()),
                1 => peer.send(3, packet),
                _ => peer.send(4, "\n".repeat(length)),
            }
            if length % 20 == 0 {
                let replies = peer.drain_now();
                assert!(replies.iter().all(|reply| reply.len() <= 1400));
            }
        }
        peer.drain();
        let other = Peer::of(port);
        assert_eq!(other.ask(5, "get none\r\n"), b"END\r\n");
        let (requests, unsent) = (server.client().stat("udp_requests"), "udp_unsent");
        assert!(requests > 1000 && server.client().stat(unsent) == 0, "{requests}");
    });
}

impl Peer {
    /// All that is there now.
    fn drain_now(&self) -> Vec<Vec<u8>> {
        self.0.set_nonblocking(true).unwrap();
        let mut buffer = [0; 2000];
        let mut all = Vec::new();
        while let Ok(len) = self.0.recv(&mut buffer) {
            all.push(buffer[..len].to_vec());
        }
        self.0.set_nonblocking(false).unwrap();
        all
    }
}

#[test]
fn what_servers_say_is_not_answered() {
    each(&[], |server, port| {
        let peer = Peer::of(port);
        let mut noop = packet(0x0a, b"", "", b"");
        noop[0] = 0x81;
        for said in [&b"ERROR\r\n"[..], b"END\r\n", b"VALUE k 0 1\r\nv\r\nEND\r\n", b"5\r\n", &noop]
        {
            peer.send(1, said);
        }
        peer.send_raw(b"");
        peer.send_raw(&[0, 1, 0, 0, 0, 1, 0, 0]);
        assert_eq!(peer.ask(2, "get k\r\n"), b"END\r\n", "the first reply is to the last");
        assert_eq!(server.client().stat("udp_dropped"), 7);
    });
}

/// Their replies come back as errors from the kernel.
#[test]
fn peers_that_are_gone_disturb_nobody() {
    each(&[], |server, port| {
        server.client().set("k", &[b'v'; 10_000]);
        let stays = Peer::of(port);
        for id in 0..200 {
            Peer::of(port).send(id, "get k\r\n");
            assert_eq!(stays.ask(id, "get none\r\n"), b"END\r\n");
        }
    });
}

#[test]
fn long_work_loses_nobody_elses_request() {
    each(&["-m", "64", "-M"], |server, port| {
        let mut client = server.client();
        let keys: String = (0..10_000).map(|number| format!(" k{number}")).collect();
        let long = format!("get{keys}\r\n");
        // Its class has room once it is gone.
        client.set("small", b"v");
        // Until there is no memory for more: who stores waits for it, in vain.
        let value = vec![b'v'; 500_000];
        for number in 0..150 {
            client.send(crate::common::client::set_request(&format!("v{number}"), &value));
            client.line();
        }
        let peer = Peer::of(port);
        for id in 0..60 {
            match id % 3 {
                0 => peer.send(id, &long),
                1 => peer.send(id, format!("set s{id} 0 0 10000\r\n{}\r\n", "v".repeat(10_000))),
                _ => peer.send(id, "get none\r\n"),
            }
        }
        let mut ids: Vec<_> = (0..60).map(|_| peer.datagram().0).collect();
        ids.sort_unstable();
        assert!(ids.into_iter().eq(0..60));
    });
}

#[test]
fn the_limits_of_an_address_hold_for_its_datagrams() {
    each(
        &["--peer-requests", "50", "--peer-burst", "200", "--peer-exempt", "127.0.0.1"],
        |_, port| {
            let (greedy, other) = (Peer::from(3, port), Peer::from(4, port));
            for id in 0..500 {
                greedy.send(id, "get none\r\n");
            }
            assert_eq!(other.ask(1, "get none\r\n"), b"END\r\n");
            let served = greedy.drain().len();
            assert!((1..=100).contains(&served), "{served}");
            let mut id = 1000;
            let again = wait_until(PATIENCE, || {
                id += 1;
                greedy.send(id, "get none\r\n");
                !greedy.drain().is_empty()
            });
            assert!(again, "it is never served again");
        },
    );
}

#[test]
fn sockets_and_settings_are_shown() {
    each(&[], |server, port| {
        let peer = Peer::of(port);
        assert_eq!(peer.ask(1, "get k\r\n"), b"END\r\n");
        let mut client = server.client();
        // Counted when it has been sent.
        assert!(wait_until(PATIENCE, || client.stats()["udp_replies"] == "1"));
        let stats = client.stats();
        for (name, value) in [
            ("udp_requests", "1"),
            ("udp_replies", "1"),
            ("udp_dropped", "0"),
            ("udp_limited", "0"),
            ("curr_connections", "1"),
        ] {
            assert_eq!(stats[name], value, "{name}");
        }
        let settings: BTreeMap<_, _> = client.stats_of("settings").into_iter().collect();
        assert_eq!(settings["udpport"], port.to_string());
        assert_eq!(settings["udp_reply_max"], "65536");
        let conns = client.stats_of("conns");
        let (row, _) = conns.iter().find(|(row, _)| row.ends_with(":UDP")).expect("a socket");
        let number = row.strip_suffix(":UDP").unwrap();
        let value = |name: &str| {
            let row = format!("{number}:{name}");
            conns.iter().find(|(each, _)| *each == row).map(|(_, value)| value.clone())
        };
        assert_eq!(value("addr"), Some(format!("udp:127.0.0.1:{port}")));
        assert_eq!(value("state").as_deref(), Some("datagrams"));
        assert_eq!(value("secs_since_last_cmd").as_deref(), Some("0"));
    });
}

#[test]
fn shutdown_comes_in_a_datagram_where_it_is_allowed() {
    for kind in OURS {
        let port = free_port();
        let Some(mut server) = Server::start(kind, &["-A", "-U", &port.to_string()]) else {
            continue;
        };
        Peer::of(port).send(1, "shutdown\r\n");
        assert!(server.wait(PATIENCE).is_some_and(|status| status.success()), "{kind:?}");
    }
    each(&[], |_, port| {
        let reply = Peer::of(port).ask(1, "shutdown\r\n");
        assert_eq!(reply, b"SERVER_ERROR: shutdown not enabled\r\n");
    });
}

#[test]
fn beyond_loopback_it_is_asked_for_twice() {
    let [port, other] = [free_port(), free_port()];
    let everywhere = format!("0.0.0.0:{other}");
    let options = ["-U", "-1", "-l", &everywhere];
    let Some(server) = Server::start(Kind::Auto, &["-m", "64"]) else { return };
    if !server.is_ours() {
        return;
    }
    let said = Server::refusal(port, Kind::Auto, &options).expect("it is refused");
    assert!(said.contains("amplify") && said.contains("--udp-beyond-loopback"), "{said}");
    let options = [&options[..], &["--udp-beyond-loopback"]].concat();
    let server = Server::start(Kind::Auto, &options).unwrap();
    let peer = Peer::of(other);
    server.client().set("k", &[b'v'; 1360]);
    server.client().set("larger", &[b'v'; 1370]);
    assert_eq!(peer.ask(1, "get k\r\n").len(), 1360 + 23);
    assert_eq!(peer.ask(2, "get larger\r\n"), TOO_LARGE);
}
