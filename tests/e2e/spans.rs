//! Large values that are sent from where they are, to peers that read slowly or not at all, while
//! others overwrite, delete and evict them.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::client::Client;
use crate::common::server::{OURS, Server};
use crate::common::{Chance, PATIENCE, wait_until};

const MIB: usize = 1 << 20;

/// Somebody who has asked for a value and read a little of the reply.
struct Reader {
    client: Client,
    key: &'static str,
    begun: Vec<u8>,
}

impl Reader {
    fn of(server: &Server, key: &'static str, value: &[u8]) -> Reader {
        let mut client = Client::connect_narrowly(server.address()).unwrap();
        client.send(format!("get {key}\r\n"));
        assert_eq!(client.line(), format!("VALUE {key} 0 {}", value.len()));
        let begun = client.bytes(1000);
        Reader { client, key, begun }
    }

    /// Reads the rest: the value as it was, or the start of that and a close. True if it is whole.
    fn reads_what_was(mut self, value: &[u8]) -> bool {
        let Reader { client, key, begun } = &mut self;
        client.send("quit\r\n");
        let rest = client.rest().unwrap_or_else(|| panic!("{key}: neither a reply nor a close"));
        let got = [&begun[..], &rest[..]].concat();
        let is_right = |at: usize| got[..at] == value[..at];
        assert!(is_right(got.len().min(value.len())), "{key}: {} bytes, some wrong", got.len());
        assert!(got.len() <= value.len() || got[value.len()..] == b"\r\nEND\r\n"[..]);
        got.len() == value.len() + "\r\nEND\r\n".len()
    }
}

/// Stores far more than there is memory for.
fn fill_up(client: &mut Client, memory_bytes: usize) {
    let value = vec![b'f'; 50_000];
    for number in 0..2 * memory_bytes / value.len() {
        client.send(format!("set fill:{number} 0 0 {} noreply\r\n", value.len()));
        client.send([&value[..], b"\r\n"].concat());
    }
    client.ask("version", "VERSION 1.6.45");
}

#[test]
fn a_slow_reader_gets_the_old_value_whole_or_a_close() {
    for kind in OURS {
        let Some(mut server) = Server::start(kind, &["-m", "256", "-I", "110m"]) else { continue };
        let mut client = server.client();
        let mut chance = Chance::new(31);
        let one = chance.bytes(MIB);
        let hundred = chance.bytes(MIB + 7).repeat(100);
        client.set("one", &one);
        client.set("hundred", &hundred);
        let mut readers: Vec<_> = (0..4).map(|_| Reader::of(&server, "one", &one)).collect();
        let large = [(); 2].map(|()| Reader::of(&server, "hundred", &hundred));
        assert!(client.stat("spans") > 6 && client.stat("spanned_bytes") > MIB as u64);
        // Each in another way.
        client.set("one", &chance.bytes(MIB));
        let whole = readers.pop().unwrap().reads_what_was(&one);
        assert!(whole, "{kind:?}: nobody was in its way");
        client.ask("delete one", "DELETED");
        client.set("hundred", b"small now");
        client.ask("flush_all", "OK");
        fill_up(&mut client, 256 << 20);
        // It is far more than a sixteenth of the memory, and whoever stores needs it.
        let gone =
            |client: &mut Client| client.stat("closed_for_spans") + client.stat("closed_for_items");
        let goes = wait_until(PATIENCE, || gone(&mut client) > 0);
        assert!(goes, "{kind:?}: {:#?}", client.stats());
        for reader in readers {
            let _ = reader.reads_what_was(&one);
        }
        let whole = large.map(|each| each.reads_what_was(&hundred));
        assert!(whole.contains(&false), "{kind:?}: somebody was closed");
        let (peak, limit) = (server.peak_rss_bytes(), client.stat("rss_limit_bytes"));
        assert!(peak <= limit, "{kind:?}: {peak} bytes of RSS, {limit} allowed");
        assert_eq!(client.get("one"), None);
        server.assert_serves();
    }
}

/// So long others overwrite what they are being sent.
const OVERWRITTEN_FOR: Duration = Duration::from_secs(10);

/// The kernel takes much for them at a time, and tells of that seldom.
#[test]
fn who_reads_all_the_time_through_a_narrow_window_is_served_whole() {
    let Some(server) = Server::start(OURS[0], &["-m", "64", "-t", "2"]) else { return };
    let value = vec![b'v'; 1_000_000];
    let key = |number: usize| format!("w{}", number % 12);
    let mut writer = server.client();
    (0..12).for_each(|number| writer.set(&key(number), &value));
    let is_over = AtomicBool::new(false);
    let read = &|number: usize| {
        let mut client = Client::connect(server.address()).unwrap();
        socket2::SockRef::from(client.stream()).set_recv_buffer_size(4096).unwrap();
        let keys: Vec<_> = (number..number + 4).map(key).collect();
        client.send(format!("get {}\r\n", keys.join(" ")));
        let one = |key: &String| {
            let head = format!("VALUE {key} 0 {}\r\n", value.len()).into_bytes();
            [&head[..], &value, b"\r\n"].concat()
        };
        let whole = [keys.iter().map(one).collect::<Vec<_>>().concat(), b"END\r\n".to_vec()];
        let whole = whole.concat();
        let (mut got, mut is_wide) = (0, false);
        let mut piece = vec![0; 1 << 16];
        while got < whole.len() {
            if !is_wide && is_over.load(Ordering::Relaxed) {
                is_wide = true;
                socket2::SockRef::from(client.stream()).set_recv_buffer_size(MIB).unwrap();
            }
            let count = client.stream().read(&mut piece).unwrap_or(0);
            if count == 0 || whole[got..][..count] != piece[..count] {
                break;
            }
            got += count;
        }
        got == whole.len()
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..12).map(|number| scope.spawn(move || read(number))).collect();
        let start = Instant::now();
        while start.elapsed() < OVERWRITTEN_FOR {
            (0..12).for_each(|number| writer.set(&key(number), &value));
            thread::sleep(Duration::from_millis(20));
        }
        is_over.store(true, Ordering::Relaxed);
        let whole = readers.into_iter().map(|it| it.join().unwrap());
        assert_eq!(whole.filter(|whole| *whole).count(), 12, "{:#?}", writer.stats());
    });
}
