//! Clients that die, stall, dawdle or babble: the others are served, and memory comes back.

use crate::common::client::{Client, set_request};
use crate::common::server::{OURS, Server};
use crate::common::{Chance, PATIENCE, wait_until};
use std::time::{Duration, Instant};

crate::in_each_mode! { &["-m", "256", "-c", "4096", "-R", "20"] =>
    a_client_killed_in_mid_value,
    clients_that_reset_in_mid_value,
    clients_that_never_read,
    a_client_that_sends_a_byte_at_a_time,
    random_bytes,
    broken_commands,
    a_flood_of_pipelined_requests_starves_nobody,
}

/// What an honest client gets done meanwhile; the time that the slowest exchange took.
fn honest_work(server: &Server, exchanges: usize) -> Duration {
    let mut client = server.client();
    let mut slowest = Duration::ZERO;
    for number in 0..exchanges {
        let (key, value) = (format!("honest:{}", number % 50), number.to_string());
        let start = Instant::now();
        client.set(&key, value.as_bytes());
        assert_eq!(client.get(&key).unwrap(), value.as_bytes());
        slowest = slowest.max(start.elapsed());
    }
    slowest
}

fn connections_fall_to(server: &Server, most: u64) {
    let mut client = server.client();
    let fell = wait_until(PATIENCE, || client.stat("curr_connections") <= most);
    assert!(fell, "{} connections are left", client.stat("curr_connections"));
}

fn a_client_killed_in_mid_value(mut server: Server) {
    server.client().set("victim", b"before");
    for sent in [0, 1, 1000, 70_000, 499_999] {
        let mut client = server.client();
        client.send("set victim 0 0 500000\r\n");
        client.send(vec![b'x'; sent]);
        // A process that holds the only descriptor of the connection, and is killed by -9.
        let mut holder = std::process::Command::new("sleep")
            .arg("600")
            .stdin(std::process::Stdio::from(client.into_descriptor()))
            .spawn()
            .unwrap();
        honest_work(&server, 50);
        holder.kill().unwrap();
        holder.wait().unwrap();
        connections_fall_to(&server, 5);
        assert_eq!(server.client().get("victim").unwrap(), b"before", "{sent} bytes sent");
    }
    server.assert_serves();
}

fn clients_that_reset_in_mid_value(mut server: Server) {
    honest_work(&server, 50);
    let before = server.rss_kib();
    for round in 0..20 {
        for sent in [1, 30_000, 900_000] {
            let mut client = server.client();
            client.send(format!("set reset:{round} 0 0 1000000\r\n"));
            client.send(vec![b'x'; sent]);
            client.reset_on_close();
        }
        honest_work(&server, 5);
    }
    connections_fall_to(&server, 5);
    assert_eq!(server.client().get("reset:0"), None);
    // What was reserved for them can be used again: more than -m in all is written here.
    let mut client = server.client();
    let value = Chance::new(3).bytes(1_000_000);
    for number in 0..400 {
        client.set(&format!("after:{number}"), &value);
    }
    assert!(client.get("after:399").unwrap() == value);
    let (after, bound) = (server.rss_kib(), before.max(256 << 10) + (96 << 10));
    assert!(after < bound, "RSS {after} KiB after, {before} KiB before, bound {bound}");
    server.assert_serves();
}

fn clients_that_never_read(mut server: Server) {
    let value = Chance::new(5).bytes(500_000);
    server.client().set("large", &value);
    honest_work(&server, 50);
    let before = server.rss_kib();
    let deaf: Vec<_> = (0..200)
        .map(|_| {
            let client = server.client();
            let patience = Some(Duration::from_millis(20));
            client.stream().set_write_timeout(patience).unwrap();
            client
        })
        .map(|mut client| {
            // 100 MB of replies are asked for by each; at some time the server stops reading.
            let _ = client.try_send("get large\r\n".repeat(200));
            for _ in 0..20 {
                if client.try_send("get large\r\n".repeat(1000)).is_err() {
                    break;
                }
            }
            client
        })
        .collect();
    let slowest = honest_work(&server, 500);
    assert!(slowest < Duration::from_secs(2), "an honest exchange took {slowest:?}");
    let (during, bound) = (server.rss_kib(), before.max(256 << 10) + (96 << 10));
    assert!(during < bound, "RSS {during} KiB with deaf clients, bound {bound}, before {before}");
    drop(deaf);
    connections_fall_to(&server, 5);
    let back = wait_until(PATIENCE, || server.rss_kib() < before + (96 << 10));
    assert!(back, "RSS {} KiB in the end, {before} KiB before", server.rss_kib());
    server.assert_serves();
}

fn a_client_that_sends_a_byte_at_a_time(mut server: Server) {
    let mut slow = server.client();
    for byte in b"set slow 5 0 5\r\nhello\r\nget slow\r\n" {
        slow.send([*byte]);
        let start = Instant::now();
        let slowest = honest_work(&server, 20);
        assert!(slowest < Duration::from_secs(1), "an honest exchange took {slowest:?}");
        std::thread::sleep(Duration::from_millis(80).saturating_sub(start.elapsed()));
    }
    assert_eq!(slow.line(), "STORED");
    assert_eq!(slow.line(), "VALUE slow 5 5");
    assert_eq!(slow.line(), "hello");
    assert_eq!(slow.line(), "END");
    server.assert_serves();
}

fn random_bytes(mut server: Server) {
    for seed in 0..100 {
        let mut chance = Chance::new(seed);
        let mut client = server.client();
        let count = 1 + chance.below(8000);
        // The server may close at any time.
        let _ = client.try_send(chance.bytes(count));
        let _ = client.stream().shutdown(std::net::Shutdown::Write);
        assert!(client.rest().is_some(), "seed {seed}: neither closed nor silent");
    }
    connections_fall_to(&server, 5);
    server.assert_serves();
}

/// Valid traffic with a few bytes changed, lost or doubled.
fn broken_commands(mut server: Server) {
    const VALID: &[u8] =
        b"set a 1 0 5\r\nhello\r\nget a b c\r\ngets a\r\nincr a 1\r\ntouch a 0\r\n\
        append a 0 0 1\r\nx\r\ncas a 0 0 1 77\r\ny\r\ngat 0 a\r\ndelete a\r\nverbosity 0\r\n\
        stats\r\nadd a 0 -1 2 noreply\r\nzz\r\ndecr a 18446744073709551615\r\nversion\r\n";
    for seed in 0..300 {
        let mut chance = Chance::new(1000 + seed);
        let mut bytes = VALID.repeat(1 + chance.below(4));
        for _ in 0..=chance.below(6) {
            let at = chance.below(bytes.len());
            match chance.below(4) {
                0 => bytes[at] = chance.number().to_be_bytes()[0],
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, bytes[at]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let mut client = server.client();
        let _ = client.try_send(&bytes);
        let _ = client.stream().shutdown(std::net::Shutdown::Write);
        let rest = client.rest();
        assert!(rest.is_some(), "seed {seed}: the server neither answers nor closes");
    }
    connections_fall_to(&server, 5);
    server.assert_serves();
}

fn a_flood_of_pipelined_requests_starves_nobody(mut server: Server) {
    server.client().set("k", b"v");
    let address = server.address();
    let deadline = Instant::now() + Duration::from_secs(3);
    let flood: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address).unwrap();
                let (batch, reply) = ("get k\r\n".repeat(1000), "VALUE k 0 1\r\nv\r\nEND\r\n");
                let mut batches = 0;
                while Instant::now() < deadline {
                    client.send(&batch);
                    assert!(client.bytes(reply.len() * 1000) == reply.repeat(1000).as_bytes());
                    batches += 1;
                }
                batches
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    while Instant::now() < deadline {
        slowest = slowest.max(honest_work(&server, 20));
    }
    assert!(slowest < Duration::from_secs(1), "an honest exchange took {slowest:?}");
    for thread in flood {
        assert!(thread.join().unwrap() > 0, "a client of the flood got no batch through");
    }
    let mut client = server.client();
    client.send(set_request("after", b"the flood"));
    assert_eq!(client.line(), "STORED");
    server.assert_serves();
}

/// Peers that stop in mid-upload keep what has come. All of the memory is not theirs for ever.
#[test]
fn silent_peers_do_not_keep_all_memory() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "16"]) else { return };
        let large = vec![b'v'; 900_000];
        let mut silent = Vec::new();
        for number in 0..40 {
            let mut client = server.client();
            client.send(format!("set half:{number} 0 0 900000\r\n"));
            client.send(&large[..450_000]);
            silent.push(client);
        }
        let mut honest = server.client();
        let recovered = wait_until(PATIENCE, || {
            for number in 0..200 {
                honest.send(set_request(&format!("fill:{number}"), &large[..20_000]));
                honest.line();
            }
            honest.stat("curr_items") > 100
        });
        assert!(recovered, "{kind:?}: {} items", honest.stat("curr_items"));
        drop(silent);
        server.assert_serves();
    }
}
