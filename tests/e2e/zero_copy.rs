//! Sends without a copy: over loopback, where the kernel copies all the same, and between two network
//! namespaces. The second needs root and `ip`, and is skipped where they are not.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use crate::common::client::Client;
use crate::common::server::{OURS, Server};
use crate::common::{Chance, PATIENCE, wait_until};

const OPTIONS: [&str; 4] = ["-m", "64", "--send-zero-copy", "20000"];

/// Values of several sizes, read again and again. Returns what was sent without a copy, and what of
/// that was copied all the same.
fn converse(client: &mut Client) -> [u64; 2] {
    let bytes = Chance::new(37).bytes(900_000);
    let sizes = [100, 8192, 19_000, 30_000, 200_000, 900_000];
    for size in sizes {
        client.set(&format!("of:{size}"), &bytes[..size]);
    }
    for _ in 0..20 {
        for size in sizes {
            let got = client.get(&format!("of:{size}"));
            assert!(got.as_deref() == Some(&bytes[..size]), "{size} bytes");
        }
        client.send("get of:30000 of:100 of:200000\r\nget of:8192 of:900000\r\n");
        for keys in [&[30_000, 100, 200_000][..], &[8192, 900_000]] {
            let values = client.values();
            let is_right =
                |((_, value), size): (&(String, Vec<u8>), &usize)| value[..] == bytes[..*size];
            assert!(values.iter().zip(keys).all(is_right) && values.len() == keys.len());
        }
    }
    // Rings tell four times a second.
    let figures =
        |client: &mut Client| ["zero_copy_sends", "zero_copy_copied"].map(|name| client.stat(name));
    wait_until(PATIENCE, || figures(client)[0] > 0);
    figures(client)
}

#[test]
fn over_loopback_each_connection_is_tried_once() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &OPTIONS) else { continue };
        for connections in 1..=3 {
            let [sends, copied] = converse(&mut server.client());
            assert!((1..=connections).contains(&sends), "{kind:?}: {sends} sends");
            assert!(copied <= sends, "{kind:?}");
        }
        let settled = wait_until(PATIENCE, || {
            let mut client = server.client();
            client.stat("zero_copy_copied") == 3 && client.stat("zero_copy_sends") == 3
        });
        assert!(settled, "{kind:?}: {:#?}", server.client().stats());
        assert_eq!(server.client().stat("closed_broken"), 0);
        server.assert_serves();
    }
}

/// Two namespaces with an interface each, which are gone with this.
struct Namespaces {
    names: [String; 2],
}

fn ip(words: &[&str]) -> Option<Output> {
    Command::new("ip").args(words).output().ok().filter(|output| output.status.success())
}

impl Namespaces {
    const SERVER: &'static str = "10.213.97.1";
    const CLIENT: &'static str = "10.213.97.2";

    fn new() -> Option<Namespaces> {
        let id = std::process::id();
        let made = Namespaces { names: ["a", "b"].map(|end| format!("ringcached-{id}-{end}")) };
        let [a, b] = [&made.names[0][..], &made.names[1][..]];
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&["link", "add", "e0", "netns", a, "type", "veth", "peer", "name", "e0", "netns", b])?;
        for (name, address) in [(a, Namespaces::SERVER), (b, Namespaces::CLIENT)] {
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", "e0"])?;
            ip(&["-n", name, "link", "set", "e0", "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Some(made)
    }

    fn inside(&self, end: usize, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[end]]).arg(program);
        command
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&["netns", "delete", name]);
        }
    }
}

#[test]
fn between_two_namespaces_every_byte_comes() {
    let Some(_) = Server::start(OURS[0], &[]) else { return };
    let Some(namespaces) = Namespaces::new() else {
        return eprintln!("SKIPPED: no network namespaces can be made here (ip, root)");
    };
    let program =
        std::env::var("RINGCACHED").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ringcached").into());
    let mut server = namespaces
        .inside(0, program.as_ref())
        .args(["-u", "root", "-l", Namespaces::SERVER, "-p", "11311", "-U", "0"])
        .args(OPTIONS)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let client = namespaces
        .inside(1, &std::env::current_exe().unwrap())
        .args(["zero_copy::the_far_end", "--exact", "--ignored", "--nocapture"])
        .env("FAR_END_OF", format!("{}:11311", Namespaces::SERVER))
        .output();
    let _ = server.kill();
    let _ = server.wait();
    let client = client.unwrap();
    let said = [client.stdout, client.stderr].concat();
    assert!(client.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
#[ignore = "a part of the test above, which starts it in a namespace of its own"]
fn the_far_end() {
    let address: SocketAddr = std::env::var("FAR_END_OF").unwrap().parse().unwrap();
    let is_up = wait_until(PATIENCE, || Client::connect(address).is_ok());
    assert!(is_up, "no server at {address}");
    let [sends, copied] = converse(&mut Client::connect(address).unwrap());
    assert!(sends > 0 && copied <= sends, "{sends} sends, {copied} copied");
    eprintln!("{sends} sends without a copy, of which {copied} were copied");
}
