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

/// Tells the readers that it is over, also when something fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a slow reader takes in a second.
const SLOW_BYTES: u32 = 38_000;

/// Asks for a value through a window of a few KiB, and reads so slowly until `is_over`. True when
/// all of it came, each byte of it `byte`.
fn reads_slowly(server: &Server, key: &str, len: usize, byte: u8, is_over: &AtomicBool) -> bool {
    let mut client = Client::connect_narrowly(server.address()).unwrap();
    client.send(format!("get {key}\r\n"));
    assert_eq!(client.line(), format!("VALUE {key} 0 {len}"));
    let tail = b"\r\nEND\r\n";
    let (mut got, mut piece) = (Vec::new(), vec![0; 1 << 16]);
    let (mut start, mut paced) = (Instant::now(), 0);
    while got.len() < len + tail.len() {
        if is_over.load(Ordering::Relaxed) {
            socket2::SockRef::from(client.stream()).set_recv_buffer_size(MIB).unwrap();
        } else {
            let due = Duration::from_secs(1) * paced / SLOW_BYTES;
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let Ok(count @ 1..) = client.some(&mut piece) else { return false };
        got.extend_from_slice(&piece[..count]);
        paced += u32::try_from(count).unwrap();
        if start.elapsed() > Duration::from_secs(1) {
            (start, paced) = (Instant::now(), 0);
        }
    }
    got[..len].iter().all(|it| *it == byte) && got[len..] == tail[..]
}

/// The kernel takes much for them at a time, so that their sends end once in seconds.
#[test]
fn who_reads_steadily_through_a_narrow_window_is_served_whole() {
    let Some(mut server) = Server::start(OURS[0], &["-m", "64", "-t", "1"]) else { return };
    let (mut writer, is_over) = (server.client(), AtomicBool::new(false));
    let key = |number: usize| format!("slow:{number}");
    (0..6).for_each(|number| writer.set(&key(number), &vec![b'v'; MIB - 1000]));
    let whole = thread::scope(|scope| {
        let (server, is_over) = (&server, &is_over);
        let read = |number| move || reads_slowly(server, &key(number), MIB - 1000, b'v', is_over);
        let over = Over(is_over);
        let mut readers = Vec::new();
        (0..6).for_each(|number| readers.push(scope.spawn(read(number))));
        // Five values take up to 64 KiB more than their bytes each.
        let all_bytes = (5 * MIB + MIB / 2) as u64;
        let begun = wait_until(PATIENCE, || writer.stat("pinned_bytes") > all_bytes);
        // More than a sixteenth of the memory is kept for them alone.
        (0..6).for_each(|number| writer.set(&key(number), b"new"));
        let end = Instant::now() + Duration::from_secs(8);
        while Instant::now() < end {
            assert_eq!(writer.get(&key(0)).unwrap(), b"new");
            thread::sleep(Duration::from_millis(20));
        }
        drop(over);
        let whole = readers.into_iter().map(|it| it.join().unwrap());
        assert!(begun, "they have not begun");
        whole.filter(|whole| *whole).count()
    });
    assert_eq!(whole, 6, "{:#?}", writer.stats());
    assert!(writer.stat("silences_broken") > 6, "{:#?}", writer.stats());
    server.assert_serves();
}

/// Sixty of them keep as much of the memory as they may, and more; none of that is waited for.
#[test]
fn who_stores_does_not_wait_for_slow_readers() {
    let options = ["-m", "16", "-t", "1"];
    let Some(mut server) = Server::start(OURS[0], &options) else { return };
    let (mut writer, is_over) = (server.client(), AtomicBool::new(false));
    let key = |number: usize| format!("slow:{}", number % 20);
    let value = vec![b'v'; 300_000];
    (0..20).for_each(|number| writer.set(&key(number), &value));
    thread::scope(|scope| {
        let (server, is_over) = (&server, &is_over);
        let _over = Over(is_over);
        for number in 0..60 {
            // It may have been evicted, or closed.
            scope.spawn(move || {
                let mut client = Client::connect_narrowly(server.address()).unwrap();
                let mut piece = [0; 4096];
                while !is_over.load(Ordering::Relaxed) {
                    if client.try_send(format!("get {}\r\n", key(number))).is_err() {
                        return;
                    }
                    for _ in 0..80 {
                        let pause = Duration::from_secs(1) * 4096 / SLOW_BYTES;
                        thread::sleep(pause);
                        if is_over.load(Ordering::Relaxed) {
                            return;
                        }
                        let _ = client.stream().set_read_timeout(Some(pause));
                        let _ = client.stream().read(&mut piece);
                    }
                }
            });
        }
        let full = wait_until(PATIENCE, || writer.stat("span_waits") > 10);
        for number in 0..300 {
            writer.set(&key(number), &value);
            writer.set(&format!("other:{number}"), &value[..60_000]);
        }
        assert!(full, "{:#?}", writer.stats());
    });
    let (peak, limit) = (server.peak_rss_bytes(), writer.stat("rss_limit_bytes"));
    assert!(peak <= limit, "{peak} bytes of RSS, {limit} allowed");
    server.assert_serves();
}

#[test]
fn who_takes_a_byte_at_a_time_does_not_keep_what_others_need() {
    let Some(mut server) = Server::start(OURS[0], &["-m", "16", "-t", "1"]) else { return };
    let mut writer = server.client();
    let value = vec![b'v'; 900_000];
    let mut readers: Vec<_> = ["one", "two"]
        .into_iter()
        .map(|key| {
            writer.set(key, &value);
            Reader::of(&server, key, &value)
        })
        .collect();
    writer.set("one", b"new");
    writer.set("two", b"new");
    let gone = wait_until(PATIENCE, || {
        readers.iter_mut().for_each(|it| it.begun.extend(it.client.bytes(1)));
        thread::sleep(Duration::from_millis(100));
        writer.stat("closed_for_spans") > 0
    });
    assert!(gone, "{:#?}", writer.stats());
    for reader in readers {
        let _ = reader.reads_what_was(&value);
    }
    server.assert_serves();
}

/// Nothing follows the value in a packet, so that a value is all that such a peer keeps.
#[test]
fn who_is_silent_amid_a_packet_does_not_keep_what_is_gone() {
    let options = ["-m", "64", "-t", "1", "--stall-timeout", "2"];
    let Some(mut server) = Server::start(OURS[0], &options) else { return };
    let mut writer = server.client();
    writer.set("one", &vec![b'v'; 900_000]);
    let mut reader = Client::connect_narrowly(server.address()).unwrap();
    reader.send([&[0x80, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 3][..], &[0; 12], b"one"].concat());
    assert_eq!(reader.bytes(24)[..8], [0x81, 0, 0, 0, 4, 0, 0, 0]);
    writer.set("one", b"new");
    assert!(writer.stat("pinned_bytes") > 0, "{:#?}", writer.stats());
    let gone = wait_until(PATIENCE, || {
        // Nobody else is to be looked at meanwhile.
        thread::sleep(Duration::from_millis(500));
        writer.stat("pinned_bytes") == 0
    });
    assert!(gone, "{:#?}", writer.stats());
    server.assert_serves();
}
