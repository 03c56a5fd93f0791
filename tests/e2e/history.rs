//! The classes of defects that memcached's releases of the last years closed, each as a test: what
//! broke it must not break us.

use crate::common::client::{Client, set_request};
use crate::common::server::{OURS, Server};
use crate::common::{PATIENCE, many_files, wait_until};
use std::io::{Read, Write};
use std::net::TcpStream;

/// A server for each of our modes.
fn servers<'o>(options: &'o [&'o str]) -> impl Iterator<Item = Server> + 'o {
    OURS.into_iter().filter_map(move |kind| Server::start(kind, options)).filter(Server::is_ours)
}

/// A binary request with these fields, whatever its body really is.
fn head(opcode: u8, key_bytes: u16, extra_bytes: u8, body_bytes: u32) -> Vec<u8> {
    let [a, b] = key_bytes.to_be_bytes();
    let mut head = vec![0x80, opcode, a, b, extra_bytes, 0, 0, 0];
    head.extend_from_slice(&body_bytes.to_be_bytes());
    head.extend_from_slice(&[0; 12]);
    head
}

/// What the server says until it closes; none when it does neither for a second.
fn said(server: &Server, request: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
    // It may have closed before it has read all.
    let _ = stream.write_all(request);
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => Some(all),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(all),
        Err(_) if all.is_empty() => None,
        Err(_) => Some(all),
    }
}

/// More peers than are counted of those whom an item is being sent to.
const READERS: usize = 2300;

/// The references to an item were counted in 16 bits, and pipelined binary gets took one each.
#[test]
fn more_gets_of_one_item_than_its_references_are_counted_by() {
    many_files();
    for mut server in servers(&["-m", "2048", "-c", "4096"]) {
        let large = vec![b'v'; 900_000];
        server.client().set("k", &large);
        let peer = |_| {
            let mut peer = Client::connect_narrowly(server.address()).unwrap();
            peer.send("get k\r\n");
            peer
        };
        // Nobody reads more than a line, so that all of them are being sent it at once.
        let mut slow: Vec<_> = (0..READERS).map(peer).collect();
        slow.retain_mut(|peer| match peer.line().as_str() {
            "VALUE k 0 900000" => true,
            "SERVER_ERROR refcount overflow during fetch" => false,
            other => panic!("{other}"),
        });
        assert!(slow.len() > 1000 && slow.len() < READERS, "{} are sent it", slow.len());
        let mut client = server.client();
        client.ask("delete k", "DELETED");
        for number in 0..200 {
            client.set(&format!("other{}", number % 100), &vec![b'x'; 900_000]);
        }
        for peer in slow.iter_mut().step_by(50) {
            let value = peer.bytes(900_000);
            assert!(value.iter().all(|byte| *byte == b'v'), "another's bytes");
            assert_eq!((peer.line(), peer.line()), (String::new(), "END".into()));
        }
        drop(slow);
        for _ in 0..20 {
            client.set("k", &[b'v'; 9000]);
            client.ask("delete k", "DELETED");
            client.set("k", &[b'w'; 9000]);
            assert_eq!(client.get("k").unwrap(), [b'w'; 9000]);
        }
        let gets = [head(0x09, 1, 0, 1), b"k".to_vec()].concat().repeat(70_000);
        // Who reads gets every one of them, from before or after the change.
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || writer.write_all(&gets));
        let mut reply = vec![0; 24 + 4 + 9000];
        for number in 0..70_000 {
            if number % 100 == 0 {
                // What is let go too early is taken for this.
                client.set("k", &[b'w'; 9000]);
                client.set(&format!("other{number}"), &[b'x'; 9000]);
            }
            stream.read_exact(&mut reply).unwrap();
            assert_eq!(&reply[..2], b"\x81\x09");
            assert!(reply[28..].iter().all(|byte| *byte == b'w'), "another's bytes");
        }
        sender.join().unwrap().unwrap();
        server.assert_serves();
    }
}

/// The length of a body was read as a signed number.
#[test]
fn bodies_that_are_said_to_be_longer_than_any() {
    for mut server in servers(&["-m", "64"]) {
        for opcode in (0..=0x24).chain([0x30, 0x80, 0xff]) {
            for (key, extras, body) in [
                (1, 8, u32::MAX),
                (1, 8, 1 << 31),
                (1, 8, (1 << 31) - 1),
                (u16::MAX, 0xff, u32::MAX),
                (10, 8, 5),
                (u16::MAX, 8, 8),
                (0, 0, 1 << 30),
            ] {
                let mut request = head(opcode, key, extras, body);
                request.extend_from_slice(&[b'x'; 4000]);
                let mut stream = TcpStream::connect(server.address()).unwrap();
                // It may have closed before it has read all.
                let _ = stream.write_all(&request);
            }
        }
        let too_long = said(&server, &head(0x01, 1, 8, u32::MAX)).expect("neither reply nor close");
        assert!(too_long.len() >= 8 && too_long[0] == 0x81 && too_long[7] != 0, "{too_long:?}");
        server.assert_serves();
    }
}

/// A login of any size was read into a buffer for small ones.
#[test]
fn logins_that_are_too_long() {
    let path = std::env::temp_dir().join(format!("ringcached-users-{}", std::process::id()));
    std::fs::write(&path, "user:password\n").unwrap();
    for server in servers(&["-Y", path.to_str().unwrap()]) {
        for bytes in [16_385_usize, 100_000, 4_294_967_295, 2_147_483_645] {
            let mut client = server.client();
            client.send(format!("set auth 0 0 {bytes}\r\n"));
            // It may have closed before it has read all.
            let _ = client.try_send(vec![b'a'; bytes.min(200_000)]);
            match client.try_line() {
                Ok(said) => assert_eq!(said, "CLIENT_ERROR auth token too long", "{bytes}"),
                Err(_) => assert!(bytes > 100_000, "{bytes}: no reply"),
            }
        }
        let mut client = server.client();
        client.send("set auth 0 0 13\r\nuser password\r\n");
        assert_eq!(client.line(), "STORED");
        client.set("k", b"v");
        assert_eq!(client.get("k").unwrap(), b"v");
    }
    std::fs::remove_file(&path).unwrap();
}

/// A dump wrote keys that triple when they are encoded into a buffer for plain ones.
#[test]
fn dumps_of_keys_that_grow_when_they_are_written() {
    for mut server in servers(&["-m", "64"]) {
        let mut client = server.client();
        let key = |number: usize| {
            let mut key = vec![0xff; 246];
            key.extend_from_slice(format!("{number:04}").as_bytes());
            key
        };
        for number in 0..2000 {
            let mut request = b"set ".to_vec();
            request.extend_from_slice(&key(number));
            request.extend_from_slice(b" 4294967295 2000000 1\r\nv\r\n");
            client.send(request);
            assert_eq!(client.line(), "STORED");
        }
        client.send("lru_crawler metadump all\r\n");
        let mut lines = Vec::new();
        loop {
            let line = next_line(&mut client);
            match line.as_str() {
                "OK" => {}
                "END" => break,
                _ => lines.push(line),
            }
        }
        lines.sort();
        assert_eq!(lines.len(), 2000);
        for (number, line) in lines.iter().enumerate() {
            let wanted = format!("key={}{number:04} ", "%FF".repeat(246));
            assert!(line.starts_with(&wanted) && line.contains(" exp="), "{line}");
        }
        server.assert_serves();
    }
}

/// A line of a dump, which ends in a bare line feed.
fn next_line(client: &mut Client) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.extend(client.bytes(1));
    }
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

/// A watcher that went away was written to.
#[test]
fn watchers_that_go_away() {
    for mut server in servers(&["-m", "64"]) {
        for round in 0..30 {
            let mut watchers: Vec<_> = (0..8).map(|_| server.client()).collect();
            for watcher in &mut watchers {
                watcher.ask("watch fetchers mutations evictions connevents deletions", "OK");
            }
            let mut client = server.client();
            for number in 0..50 {
                client.set(&format!("k{number}"), b"v");
                client.get(&format!("k{number}"));
                client.ask(&format!("delete k{number}"), "DELETED");
                if let Some(watcher) = watchers.pop()
                    && (round + number) % 2 == 0
                {
                    watcher.reset_on_close();
                }
            }
        }
        let mut client = server.client();
        let gone = wait_until(PATIENCE, || client.stat("log_watchers") == 0);
        assert!(gone, "{} watchers are left", client.stat("log_watchers"));
        server.assert_serves();
    }
}

/// Classes that do not exist were looked up.
#[test]
fn pages_moved_between_classes_that_do_not_exist() {
    for mut server in servers(&["-m", "64"]) {
        let mut client = server.client();
        client.set("k", b"v");
        let ids = ["-1", "0", "1", "63", "255", "256", "65536", "4294967295", "99999999999", "x"];
        for source in ids {
            for target in ids {
                client.send(format!("slabs reassign {source} {target}\r\n"));
                let line = client.line();
                let first = line.split(' ').next().unwrap_or_default();
                let known = ["OK", "BUSY", "BADCLASS", "NOSPARE", "SAME", "CLIENT_ERROR", "ERROR"];
                assert!(known.contains(&first), "{source} {target}: {line}");
            }
        }
        assert_eq!(client.get("k").unwrap(), b"v");
        server.assert_serves();
    }
}

/// A line of nothing but spaces was read beyond its end.
#[test]
fn lines_of_spaces() {
    for mut server in servers(&["-m", "64"]) {
        for spaces in [1, 99, 100, 101, 1000, 2046, 2047, 2048, 2049, 16_384, 1_000_000] {
            for end in ["", "\n", "\r\n", "get k\r\n"] {
                let mut request = vec![b' '; spaces];
                request.extend_from_slice(end.as_bytes());
                let mut stream = TcpStream::connect(server.address()).unwrap();
                // It may have closed before it has read all.
                let _ = stream.write_all(&request);
            }
        }
        server.assert_serves();
    }
}

/// A meta set whose flags were wrong kept a reference to its item for ever.
#[test]
fn meta_sets_that_are_wrong_keep_nothing() {
    for mut server in servers(&["-m", "16"]) {
        let mut client = server.client();
        client.set("k", &[b'v'; 1000]);
        let before = client.stat("bytes");
        let wrong = ["!", "F F", "Tx", "Cx", "MZ", "k k", "Oaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"];
        for flags in wrong {
            let one = [format!("ms k 1000 {flags}\r\n").into_bytes(), vec![b'x'; 1000]].concat();
            let one = [one, b"\r\n".to_vec()].concat();
            for _ in 0..30 {
                client.send(one.repeat(100));
                for _ in 0..100 {
                    let line = client.line();
                    assert!(line.starts_with("CLIENT_ERROR"), "{flags}: {line}");
                }
            }
        }
        assert_eq!(client.stat("bytes"), before);
        // Twice the memory goes through it: what was kept would be missed.
        for number in 0..32_000 {
            client.send(set_request(&format!("n{number}"), &[b'n'; 1000]));
            assert_eq!(client.line(), "STORED");
        }
        server.assert_serves();
    }
}

/// A flag with a number that is none was believed.
#[test]
fn client_flags_that_are_no_number() {
    for mut server in servers(&["-m", "64"]) {
        let mut client = server.client();
        for flag in ["F", "F-1", "Fabc", "F99999999999999999999999", "F1x", "F0x10", "F "] {
            client.send(format!("ms k 5 {flag}\r\nhello\r\n"));
            let line = client.line();
            assert!(line.starts_with("CLIENT_ERROR"), "{flag}: {line}");
            client.ask("mg k f", "EN");
        }
        server.assert_serves();
    }
}

/// The table of prefixes grew with whatever clients made up.
#[test]
fn more_prefixes_than_are_kept() {
    for mut server in servers(&["-m", "64", "-D", ":"]) {
        let mut client = server.client();
        for start in (0..100_000).step_by(1000) {
            let gets: Vec<String> =
                (start..start + 1000).map(|number| format!("get prefix{number}:k\r\n")).collect();
            client.send(gets.concat());
            for _ in 0..1000 {
                assert_eq!(client.line(), "END");
            }
        }
        client.send("stats detail dump\r\n");
        let mut prefixes = 0;
        loop {
            let line = client.line();
            // Where there is no table of them, it cannot grow.
            if line == "END" || line == "ERROR" {
                break;
            }
            assert!(line.starts_with("PREFIX "), "{line}");
            prefixes += 1;
        }
        assert!(prefixes <= 65_536, "{prefixes}");
        let limit = client.stat("rss_limit_bytes");
        assert!(server.rss_kib() * 1024 <= limit, "{} KiB of {limit}", server.rss_kib());
        server.assert_serves();
    }
}
