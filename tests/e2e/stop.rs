//! Start and stop: signals, taken ports, options that make no sense.

use crate::common::Chance;
use crate::common::client::Client;
use crate::common::server::{Kind, OURS, Server, free_port, replacement};
use std::time::Duration;

#[test]
fn sigterm_finishes_replies_and_exits_0() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &[]) else { continue };
        let mut idle = server.client();
        let mut reader = server.client();
        let value = Chance::new(29).bytes(400_000);
        reader.set("large", &value);
        idle.ask("delete nobody", "NOT_FOUND");
        reader.send("get large\r\n");
        // The first line is read: the reply is on its way, more of it than the sockets hold.
        assert_eq!(reader.line(), "VALUE large 0 400000");
        server.signal("TERM");
        if server.is_ours() {
            assert!(reader.bytes(400_000) == value, "{kind:?}: the value was cut");
            assert_eq!(reader.line(), "", "{kind:?}");
            assert_eq!(reader.line(), "END", "{kind:?}");
            assert_eq!(reader.rest().as_deref(), Some(b"".as_slice()), "{kind:?}");
        }
        assert!(idle.rest().is_some(), "{kind:?}: an idle connection was not closed");
        let status = server.wait(Duration::from_secs(10));
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{kind:?}: {status:?}");
        assert!(Client::connect(server.address()).is_err(), "{kind:?}: it still accepts");
    }
}

#[test]
fn sigterm_does_not_wait_for_ever_for_a_client_that_never_reads() {
    // At once for all modes: ours gives such a client time to come round.
    let servers = OURS.into_iter().filter_map(|kind| Server::start(kind, &[]));
    let mut servers: Vec<_> = servers.collect();
    let mut deaf = Vec::new();
    for server in &servers {
        let mut client = server.client();
        client.set("large", &vec![b'x'; 900_000]);
        client.send("get large\r\n".repeat(100));
        deaf.push(client);
    }
    std::thread::sleep(Duration::from_millis(200));
    for server in &servers {
        server.signal("TERM");
    }
    for server in &servers {
        // It is still busy with who does not read, for seconds.
        let is_refused = || Client::connect(server.address()).is_err();
        let soon = std::iter::repeat_with(|| std::thread::sleep(Duration::from_millis(10)));
        assert!(soon.take(100).any(|()| is_refused()), "{server:?}: it still listens");
    }
    for server in &mut servers {
        let status = server.wait(Duration::from_secs(40));
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{server:?}: {status:?}");
    }
}

#[test]
fn sigint_exits_0_and_the_port_is_free_at_once() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &[]) else { continue };
        let mut client = server.client();
        client.set("k", b"v");
        server.signal("INT");
        let status = server.wait(Duration::from_secs(10));
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{kind:?}: {status:?}");
        let again = if server.is_ours() { kind } else { Kind::Memcached };
        let mut again = Server::start_on(server.port(), again, &[]).unwrap();
        assert_eq!(again.client().get("k"), None, "{kind:?}");
        again.assert_serves();
    }
}

#[test]
fn a_taken_port_is_refused_and_named() {
    for kind in OURS {
        let port = free_port();
        let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let Some(server) = Server::start(kind, &[]) else { continue };
        let other = if server.is_ours() { kind } else { Kind::Memcached };
        // Neither a stranger's port nor that of a second instance may be shared.
        for port in [port, server.port()] {
            let said = start_must_fail(port, other, &[]);
            assert!(said.contains("in use"), "{kind:?}: {said}");
        }
        server.client().set("still", b"there");
    }
}

#[test]
fn senseless_options_are_refused() {
    if replacement().is_some() {
        return;
    }
    for options in [["-m", "nothing"], ["-t", "0"], ["-I", "1"], ["-c", "0"], ["--what", "5"]] {
        // Whether this machine has io_uring does not matter: options are judged first.
        let said = start_must_fail(free_port(), Kind::Auto, &options);
        assert!(!said.contains("panicked"), "{options:?}: {said}");
        assert!(said.contains(options[0]) || said.contains(options[1]), "{options:?}: {said}");
    }
}

/// What the server says when it refuses to start. A stranger that listens on the port accepts in
/// its place, so the process is watched and not the port.
fn start_must_fail(port: u16, kind: Kind, options: &[&str]) -> String {
    Server::refusal(port, kind, options).unwrap_or_else(|| panic!("{kind:?} {options:?} starts"))
}
