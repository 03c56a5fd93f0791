//! Users: who is let in, what strangers may do, and a file that changes.

use super::protocols::{NOOP, packet, reply};
use crate::common::client::Client;
use crate::common::server::{Kind, OURS, Server};
use crate::common::wait_until;
use std::path::PathBuf;
use std::time::Duration;

/// A file of users of a test's own.
struct Users(PathBuf);

impl Users {
    fn new(test: &str, text: &str) -> Users {
        let path = PathBuf::from(format!("{}/users-{test}", env!("CARGO_TARGET_TMPDIR")));
        std::fs::write(&path, text).unwrap();
        Users(path)
    }

    fn start(&self, kind: Kind, options: &[&str]) -> Option<Server> {
        let path = self.0.to_str().unwrap();
        Server::start(kind, &[&["-S", "-Y", path], options].concat())
    }
}

/// What a peer of the text protocol is told that says it is this user.
fn login(client: &mut Client, name: &str, password: &str) -> String {
    let token = format!("{name} {password}");
    client.send(format!("set auth 0 0 {}\r\n{token}\r\n", token.len()));
    client.line()
}

const STORED: &str = "STORED";
const FAILURE: &str = "CLIENT_ERROR authentication failure";

fn sasl(client: &mut Client, name: &str, password: &str) -> u16 {
    client.send(packet(0x21, b"", "PLAIN", format!("\0{name}\0{password}").as_bytes()));
    reply(client, 0x21).0
}

#[test]
fn users_are_let_in_and_nobody_else() {
    for kind in OURS {
        let users = Users::new(&format!("in-{kind:?}"), "alice:secret\nbob:se:cret\n");
        let Some(server) = users.start(kind, &["-t", "2"]) else { continue };
        // Some of them on each ring, and all at once.
        let mut clients: Vec<_> = (0..6).map(|_| server.client()).collect();
        for client in &mut clients[..3] {
            client.ask("get k", "CLIENT_ERROR unauthenticated");
            assert_eq!(login(client, "alice", "se:cret"), FAILURE, "{kind:?}");
            assert_eq!(login(client, "bob", "se:cret"), STORED, "{kind:?}");
            client.set("k", b"v");
        }
        for client in &mut clients[3..] {
            assert_eq!(sasl(client, "bob", "secret"), 0x20, "{kind:?}");
            assert_eq!(sasl(client, "alice", "secret"), 0, "{kind:?}");
            client.send(packet(0x00, b"", "k", b""));
            assert_eq!(reply(client, 0x00), (0, b"\0\0\0\0v".to_vec()), "{kind:?}");
        }
        let mut stranger = server.client();
        stranger.send(packet(0x04, b"", "k", b"").repeat(2));
        assert_eq!(reply(&mut stranger, 0x04), (0x20, b"Auth failure.".to_vec()), "{kind:?}");
        assert_eq!(stranger.rest(), Some(Vec::new()), "{kind:?}");
        let stats = clients[0].stats();
        assert_eq!((&stats["auth_cmds"][..], &stats["auth_errors"][..]), ("12", "6"), "{kind:?}");
    }
}

#[test]
fn a_file_that_changes_is_read_again() {
    for kind in OURS {
        let users = Users::new(&format!("again-{kind:?}"), "old:1\n");
        let Some(server) = users.start(kind, &[]) else { continue };
        let try_in = |name, password| login(&mut server.client(), name, password);
        let mut stays = server.client();
        assert_eq!(login(&mut stays, "old", "1"), STORED, "{kind:?}");
        std::fs::write(&users.0, "new:2\n").unwrap();
        assert_eq!(try_in("new", "2"), FAILURE, "{kind:?}: nobody asked to read it");
        server.signal("HUP");
        let is_read = wait_until(Duration::from_secs(5), || try_in("new", "2") == STORED);
        assert!(is_read, "{kind:?}: it is not read again");
        assert_eq!(try_in("old", "1"), FAILURE, "{kind:?}");
        stays.set("k", b"who is in stays in");
        // One that says nothing keeps those whom there are.
        for nonsense in ["no colon\n", ":\n", "a:b\n:c\n", "", &"a:b\n".repeat(9)] {
            std::fs::write(&users.0, nonsense).unwrap();
            server.signal("HUP");
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(try_in("new", "2"), STORED, "{kind:?}");
            assert_eq!(try_in("a", "b"), FAILURE, "{kind:?}");
            assert_eq!(try_in("", ""), FAILURE, "{kind:?}");
        }
        std::fs::remove_file(&users.0).unwrap();
        server.signal("HUP");
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(try_in("new", "2"), STORED, "{kind:?}");
    }
}

#[test]
fn a_stranger_does_not_stay_and_gets_no_memory() {
    for kind in OURS {
        let users = Users::new(&format!("idle-{kind:?}"), "a:b\n");
        let Some(server) = users.start(kind, &["-o", "idle_timeout=1"]) else { continue };
        let (mut text, mut binary, mut token) = (server.client(), server.client(), server.client());
        text.ask("get k", "CLIENT_ERROR unauthenticated");
        text.ask("get", "CLIENT_ERROR unauthenticated");
        binary.send(&packet(NOOP, b"", "", b"")[..10]);
        token.send("set auth 0 0 16384\r\n");
        for client in [&mut text, &mut binary, &mut token] {
            assert_eq!(client.rest(), Some(Vec::new()), "{kind:?}: it stays though it is silent");
        }
        // A line without an end, tokens without an end, and a body as large as it may be.
        let mut line = server.client();
        let _ = line.try_send(vec![b'x'; 1 << 20]);
        let told = line.rest().map(|told| String::from_utf8(told).unwrap());
        assert_eq!(told.as_deref(), Some("CLIENT_ERROR line too long\r\n"), "{kind:?}");
        let mut tokens = server.client();
        let token = [&b"set auth 0 0 16384\r\n"[..], &[b'x'; 16386]].concat();
        for _ in 0..100 {
            tokens.send(&token);
            assert_eq!(tokens.line(), FAILURE, "{kind:?}");
        }
        let mut body = server.client();
        body.send(packet(0x01, &[0; 8], "k", &[0; 1 << 16]));
        let told = body.rest().unwrap();
        assert!(told.is_empty() || told.ends_with(b"Auth failure."), "{kind:?}");
    }
}

#[test]
fn what_would_be_a_door_without_a_lock_is_no_start() {
    let users = Users::new("refused", "a:b\n");
    let path = users.0.to_str().unwrap();
    let port = crate::common::server::free_port();
    for (options, cause) in [
        (&["-Y", path, "-B", "binary"][..], "ascii authentication"),
        (&["-Y", path, "-l", "proto[binary]:127.0.0.2"], "ascii authentication"),
        (&["-Y", path, "-U", "11"], "UDP"),
        (&["-S"], "no file of users"),
        (&["-Y", "/nowhere/users"], "No such file"),
    ] {
        let Some(said) = Server::refusal(port, Kind::Auto, options) else {
            panic!("{options:?} starts a server")
        };
        assert!(said.contains(cause), "{options:?}: {said}");
    }
}
