//! Which protocol a connection speaks, and the binary one over real sockets.

use crate::common::client::Client;
use crate::common::server::{OURS, Server, free_port};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// A request of the binary protocol.
pub fn packet(opcode: u8, extras: &[u8], key: &str, value: &[u8]) -> Vec<u8> {
    let body = u32::try_from(extras.len() + key.len() + value.len()).unwrap();
    let mut packet = vec![0x80, opcode];
    packet.extend(u16::try_from(key.len()).unwrap().to_be_bytes());
    packet.extend([u8::try_from(extras.len()).unwrap(), 0, 0, 0]);
    packet.extend(body.to_be_bytes());
    packet.extend([0; 12]);
    [&packet[..], extras, key.as_bytes(), value].concat()
}

pub const NOOP: u8 = 0x0a;

/// The status and the body of the next reply, which is to this opcode.
#[track_caller]
pub fn reply(client: &mut Client, opcode: u8) -> (u16, Vec<u8>) {
    let head = client.bytes(24);
    assert_eq!(head[..2], [0x81, opcode]);
    let body = u32::from_be_bytes(head[8..12].try_into().unwrap());
    (u16::from_be_bytes([head[6], head[7]]), client.bytes(body as usize))
}

/// Connections go to all rings in turn, and each knows at which address it came in.
#[test]
fn an_address_says_what_is_spoken_there() {
    for kind in OURS {
        let (binary, ascii) = (free_port(), free_port());
        let listen = format!("proto[binary]:127.0.0.1:{binary},proto[ascii]:127.0.0.1:{ascii}");
        let Some(server) = Server::start(kind, &["-l", &listen, "-t", "2"]) else { continue };
        let connect = |port| Client::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        let mut open = Vec::new();
        for _ in 0..4 {
            for port in [binary, server.port()] {
                let mut client = connect(port);
                client.send(packet(NOOP, b"", "", b""));
                assert_eq!(reply(&mut client, NOOP), (0, Vec::new()), "{kind:?}");
                open.push(client);
            }
            for port in [ascii, server.port()] {
                let mut client = connect(port);
                client.ask("no command", "ERROR");
                open.push(client);
            }
            let mut client = connect(binary);
            client.send("get k\r\n");
            assert_eq!(client.rest(), Some(Vec::new()), "{kind:?}: text for binary");
            let mut client = connect(ascii);
            // There is no LF in it.
            client.send(packet(0x0b, b"", "", b""));
            client.ask("\r", "ERROR");
            open.push(client);
        }
    }
}

/// Whatever is received straight into its place, the reply must not wait for a byte behind it.
#[test]
fn large_values_come_and_go_by_packets() {
    for kind in OURS {
        let Some(server) = Server::start(kind, &["-m", "256"]) else { continue };
        let mut client = server.client();
        for (number, pause_at) in [1usize, 100, 5000, 200_000, 999_999].into_iter().enumerate() {
            let key = format!("large-{number}");
            let byte = |place: usize| (place * 31 + number).to_le_bytes()[0];
            let value: Vec<u8> = (0..1_000_000).map(byte).collect();
            let request = packet(0x01, &[0; 8], &key, &value);
            client.send(&request[..request.len() - pause_at]);
            std::thread::sleep(Duration::from_millis(30));
            client.send(&request[request.len() - pause_at..]);
            assert_eq!(reply(&mut client, 0x01), (0, Vec::new()), "{kind:?}");
            client.send([packet(0x09, b"", &key, b""), packet(NOOP, b"", "", b"")].concat());
            let (status, body) = reply(&mut client, 0x09);
            assert!(status == 0 && body[4..] == value, "{kind:?}: {} bytes", body.len());
            assert_eq!(reply(&mut client, NOOP), (0, Vec::new()), "{kind:?}");
        }
    }
}

#[test]
fn packets_come_in_datagrams_too() {
    for kind in OURS {
        let port = free_port();
        let Some(server) = Server::start(kind, &["-U", &port.to_string()]) else { continue };
        server.client().set("k", b"value");
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let frame = [0, 5, 0, 0, 0, 1, 0, 0];
        socket.send(&[&frame[..], &packet(0x00, b"", "k", b"")].concat()).unwrap();
        let mut buffer = [0; 2000];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..8], frame, "{kind:?}");
        assert_eq!(buffer[8..16], [0x81, 0, 0, 0, 4, 0, 0, 0], "{kind:?}");
        assert_eq!(&buffer[32..length], b"\0\0\0\0value", "{kind:?}");
    }
}
