//! The limits that options set: connections, idle time, the size of an item.

use crate::common::server::{OURS, Server};
use crate::common::{PATIENCE, wait_until};
use socket2::{Domain, Socket, Type};
use std::time::{Duration, Instant};

#[test]
fn connections_over_the_limit_are_told_so() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-c", "20"]) else { continue };
        let mut clients: Vec<_> = (0..40).map(|_| server.client()).collect();
        let (mut served, mut refused) = (0, 0);
        for client in &mut clients {
            // The refusal is there before anything is asked.
            let _ = client.try_send("version\r\n");
            match client.try_line() {
                Ok(line) if line.starts_with("VERSION ") => served += 1,
                Ok(line) => {
                    assert_eq!(line, "ERROR Too many open connections");
                    assert_eq!(client.rest().as_deref(), Some(b"".as_slice()));
                    refused += 1;
                }
                Err(error) => panic!("neither served nor refused: {error}"),
            }
        }
        // The original counts descriptors of its own, too.
        let least = if server.is_ours() { 19 } else { 1 };
        assert!((least..=20).contains(&served), "{kind:?}: {served} served with -c 20");
        assert_eq!(served + refused, 40);
        drop(clients);
        let again = wait_until(PATIENCE, || {
            let mut client = server.client();
            let _ = client.try_send("version\r\n");
            client.try_line().is_ok_and(|line| line.starts_with("VERSION "))
        });
        assert!(again, "{kind:?}: nobody is served after the others left");
        assert!(server.client().stat("rejected_connections") >= refused);
        server.assert_serves();
    }
}

/// The server is allowed more connections than descriptors, for it inherits many that it does not
/// know of.
#[test]
fn who_finds_no_descriptor_waits_until_another_goes() {
    const CONNECTIONS: u64 = 60;
    let inherited: Vec<_> = (0..100)
        .map(|_| {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_cloexec(false).unwrap();
            socket
        })
        .collect();
    for kind in OURS {
        let options = ["-c", "60", "-t", "1"];
        let started = Server::start_with_descriptors(145, kind, &options);
        let Some(mut server) = started.filter(Server::is_ours) else { continue };
        let mut first = server.client();
        first.set("k", b"v");
        let mut others: Vec<_> = (1..CONNECTIONS).map(|_| server.client()).collect();
        for client in &mut others {
            client.send("get k\r\n");
        }
        // Counted by who is served all the time.
        let short = wait_until(PATIENCE, || first.stat("listen_disabled_num") > 0);
        assert!(short, "{kind:?}: there were enough descriptors");
        let served = first.stat("curr_connections");
        assert!((2..CONNECTIONS).contains(&served), "{kind:?}: {served} are served");
        drop(others.drain(..others.len() - 5));
        for client in &mut others {
            assert_eq!(client.values(), [("k".to_owned(), b"v".to_vec())], "{kind:?}");
        }
        server.assert_serves();
    }
    drop(inherited);
}

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    // At once for all modes: it takes as long as it takes.
    let start = |kind| Server::start(kind, &["-o", "idle_timeout=4"]);
    let servers: Vec<_> = OURS.into_iter().filter_map(start).collect();
    let client = |server: &Server| server.client();
    let mut idle: Vec<_> = servers.iter().map(client).collect();
    let mut half: Vec<_> = servers.iter().map(client).collect();
    let mut busy: Vec<_> = servers.iter().map(client).collect();
    idle.iter_mut().for_each(|client| client.set("k", b"v"));
    half.iter_mut().for_each(|client| client.send("get half_a_li"));
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(8) {
        for (client, server) in busy.iter_mut().zip(&servers) {
            assert_eq!(client.get("k").unwrap(), b"v", "{server:?}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    for client in idle.iter_mut().chain(&mut half) {
        assert_eq!(client.rest().as_deref(), Some(b"".as_slice()), "idle, or in half a line");
    }
    for (client, server) in busy.iter_mut().zip(&servers) {
        assert!(client.stat("idle_kicks") >= 2, "{server:?}");
    }
}

#[test]
fn the_size_of_an_item_is_limited() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-I", "2m"]) else { continue };
        let mut client = server.client();
        client.set("k", &vec![b'x'; 2_000_000]);
        client.send(format!("set k 0 0 2100000\r\n{}\r\nversion\r\n", "y".repeat(2_100_000)));
        assert_eq!(client.line(), "SERVER_ERROR object too large for cache", "{kind:?}");
        assert!(client.line().starts_with("VERSION "), "{kind:?}: the value was not swallowed");
        assert_eq!(client.get("k"), None, "{kind:?}: what could not be replaced is gone");
        server.assert_serves();
    }
}
