//! Where the server listens: several addresses, a unix socket, an address by name.

use crate::common::client::Client;
use crate::common::server::{OURS, Server};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[test]
fn each_named_address_is_served() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-l", "127.0.0.2"]) else { continue };
        server.client().set("k", b"v");
        let mut other = Client::connect(([127, 0, 0, 2], server.port()).into()).unwrap();
        assert_eq!(other.get("k").unwrap(), b"v", "{kind:?}");
        assert!(Client::connect(([127, 0, 0, 3], server.port()).into()).is_err(), "{kind:?}");
    }
}

#[test]
fn a_unix_socket_takes_the_place_of_tcp() {
    for kind in OURS {
        let path = format!("{}/unix-{kind:?}.sock", env!("CARGO_TARGET_TMPDIR"));
        let options = ["-s", &path, "-a", "0750"];
        // The second start finds the file that the first, killed, left behind.
        for _ in 0..2 {
            let Some(server) = Server::start_on_path(&path, kind, &options) else { continue };
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(b"set k 0 0 1\r\nv\r\nget k\r\nquit\r\n").unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            assert_eq!(reply, "STORED\r\nVALUE k 0 1\r\nv\r\nEND\r\n", "{kind:?}");
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o750, "{kind:?}");
            assert!(Client::connect(server.address()).is_err(), "{kind:?}: TCP is on, too");
        }
    }
}
