//! Where the server listens: several addresses, a unix socket, an address by name.

use crate::common::PATIENCE;
use crate::common::client::Client;
use crate::common::server::{Kind, OURS, Server, free_port};
use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

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
            let request = b"set k 0 0 1\r\nv\r\nget k\r\nstats conns\r\nquit\r\n";
            stream.write_all(request).unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            let (value, rows) = reply.split_once("END\r\n").unwrap();
            assert_eq!(value, "STORED\r\nVALUE k 0 1\r\nv\r\n", "{kind:?}");
            assert!(rows.contains(&format!(":listen_addr unix:{path}\r\n")), "{kind:?}: {rows}");
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o750, "{kind:?}");
            assert!(Client::connect(server.address()).is_err(), "{kind:?}: TCP is on, too");
            drop(server);
            // The kernel takes the rings of a killed process apart a little later than the process,
            // and until then its listener answers.
            let deadline = Instant::now() + Duration::from_secs(5);
            while UnixStream::connect(&path).is_ok() {
                assert!(Instant::now() < deadline, "{kind:?}: the listener outlives its process");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn udp_answers_with_the_frame_of_the_request() {
    for kind in OURS {
        // The same number as for TCP is customary; any other will do.
        let port = free_port();
        let Some(server) = Server::start(kind, &["-U", &port.to_string()]) else { continue };
        server.client().set("k", b"value");
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // Request id, sequence number, datagrams in all, reserved: big-endian.
        let mut buffer = [0; 2000];
        for id in [0, 7, 0xFFFF_u16] {
            let mut request = id.to_be_bytes().to_vec();
            request.extend_from_slice(&[0, 0, 0, 1, 0, 0]);
            request.extend_from_slice(b"get k\r\n");
            socket.send(&request).unwrap();
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..8], request[..8], "{kind:?}");
            assert_eq!(&buffer[8..length], b"VALUE k 0 5\r\nvalue\r\nEND\r\n", "{kind:?}");
        }
    }
}

/// Kernels forget to tell a multishot receive the end of a Unix socket that comes right behind many
/// bytes: every such peer gets its replies, and the end of them.
#[test]
fn who_ends_right_behind_its_requests_is_not_left_waiting() {
    let path = format!("{}/unix-ends.sock", env!("CARGO_TARGET_TMPDIR"));
    let options = ["-s", &path, "-t", "2"];
    let Some(_server) = Server::start_on_path(&path, Kind::Auto, &options) else { return };
    let requests = [b"set k 0 0 50000\r\n", &[b'v'; 50_000][..], b"\r\nget none\r\n"].concat();
    let requests = requests.repeat(4);
    let ask = || {
        for _ in 0..100 {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut sending = stream.try_clone().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    sending.write_all(&requests).unwrap();
                    sending.shutdown(Shutdown::Write).unwrap();
                });
                let mut reply = String::new();
                stream.read_to_string(&mut reply).unwrap();
                assert_eq!(reply, "STORED\r\nEND\r\n".repeat(4));
            });
        }
    };
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(ask))));
}
