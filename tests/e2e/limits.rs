//! The limits that options set: connections, idle time, the size of an item.

use crate::common::server::{OURS, Server};
use crate::common::{PATIENCE, wait_until};
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

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-o", "idle_timeout=2"]) else { continue };
        let (mut idle, mut busy) = (server.client(), server.client());
        let mut half = server.client();
        idle.set("k", b"v");
        half.send("get half_a_li");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(6) {
            assert_eq!(busy.get("k").unwrap(), b"v", "{kind:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(idle.rest().as_deref(), Some(b"".as_slice()), "{kind:?}: idle");
        assert_eq!(half.rest().as_deref(), Some(b"".as_slice()), "{kind:?}: in half a line");
        assert!(busy.stat("idle_kicks") >= 2, "{kind:?}");
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
