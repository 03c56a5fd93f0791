//! A toy memcached in threads of the test, in three dialects, honest or with one fault.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;

#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// Every tenth value has a wrong byte.
    Corrupt,
    /// Meta commands are unknown, once; then nothing is answered.
    NotMeta,
    /// Gets are never answered.
    Silent,
    /// Connections are closed after some gets.
    Close,
    /// Some hits lack their END.
    Unframed,
}

const GETS_BEFORE_FAULT: u64 = 200;
const BINARY: u8 = 0x80;

#[derive(Default)]
pub struct Store {
    values: RwLock<BTreeMap<String, Vec<u8>>>,
    gets: AtomicU64,
}

impl Store {
    fn get(&self, key: &str, fault: Fault) -> Option<Vec<u8>> {
        let count = self.gets.fetch_add(1, Ordering::Relaxed);
        let mut value = self.values.read().unwrap().get(key).cloned()?;
        if fault == Fault::Corrupt && count.is_multiple_of(10) {
            *value.last_mut().unwrap() ^= 1;
        }
        Some(value)
    }

    fn set(&self, key: &str, value: Vec<u8>) {
        self.values.write().unwrap().insert(key.to_owned(), value);
    }

    /// Whether a fault that comes after some gets has come.
    fn has_begun(&self) -> bool {
        self.gets.load(Ordering::Relaxed) > GETS_BEFORE_FAULT
    }
}

/// Serves one connection; returns when it is closed.
pub fn serve(stream: impl Read, mut out: impl Write, store: &Store, fault: Fault) -> Option<()> {
    let mut input = BufReader::new(stream);
    loop {
        let first = *input.fill_buf().ok()?.first()?;
        let reply = match first {
            BINARY => packet(&mut input, store, fault)?,
            _ => line(&mut input, store, fault)?,
        };
        out.write_all(&reply).ok()?;
    }
}

fn line(input: &mut impl BufRead, store: &Store, fault: Fault) -> Option<Vec<u8>> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut value = |bytes: &str| {
        let mut value = vec![0; bytes.parse().ok()?];
        input.read_exact(&mut value).ok()?;
        input.read_exact(&mut [0; 2]).ok()?;
        Some(value)
    };
    match *words.as_slice() {
        ["ms", "key-0000000000000000", ..] if fault == Fault::NotMeta => {
            return Some(b"ERROR\r\n".to_vec());
        }
        _ if fault == Fault::NotMeta => return Some(Vec::new()),
        ["set", key, _, _, bytes] => {
            store.set(key, value(bytes)?);
            return Some(b"STORED\r\n".to_vec());
        }
        ["ms", key, bytes] => {
            store.set(key, value(bytes)?);
            return Some(b"HD\r\n".to_vec());
        }
        ["mn"] => return Some(b"MN\r\n".to_vec()),
        ["mg", key, "v"] => {
            let found = store.get(key, fault);
            return Some(found.map_or_else(|| b"EN\r\n".to_vec(), |value| va("", &value)));
        }
        ["mg", key, "k", "q", "v"] => {
            let found = store.get(key, fault);
            return Some(found.map_or(Vec::new(), |value| va(&format!(" k{key}"), &value)));
        }
        _ => assert_eq!(words[0], "get"),
    }
    if fault == Fault::Silent {
        return Some(Vec::new());
    }
    let mut reply = Vec::new();
    for key in &words[1..] {
        if let Some(value) = store.get(key, fault) {
            reply.extend_from_slice(format!("VALUE {key} 0 {}\r\n", value.len()).as_bytes());
            reply.extend_from_slice(&value);
            reply.extend_from_slice(b"\r\n");
        }
    }
    match fault {
        Fault::Close if store.has_begun() => return None,
        Fault::Unframed if store.has_begun() => {}
        Fault::None
        | Fault::Corrupt
        | Fault::NotMeta
        | Fault::Silent
        | Fault::Close
        | Fault::Unframed => {
            reply.extend_from_slice(b"END\r\n");
        }
    }
    Some(reply)
}

fn va(flags: &str, value: &[u8]) -> Vec<u8> {
    [format!("VA {}{flags}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}

fn packet(input: &mut impl BufRead, store: &Store, fault: Fault) -> Option<Vec<u8>> {
    let mut header = [0; 24];
    input.read_exact(&mut header).ok()?;
    let (key_bytes, extras) = (usize::from(header[3]), usize::from(header[4]));
    let mut body = vec![0; u32::from_be_bytes(header[8..12].try_into().ok()?) as usize];
    input.read_exact(&mut body).ok()?;
    let key = String::from_utf8(body[extras..extras + key_bytes].to_vec()).ok()?;
    let answer = |status: u8, extras: &[u8], key: &str, value: &[u8]| {
        let length = u32::try_from(extras.len() + key.len() + value.len()).unwrap();
        let key_bytes = u8::try_from(key.len()).unwrap();
        let extras_bytes = u8::try_from(extras.len()).unwrap();
        let mut reply = vec![0x81, header[1], 0, key_bytes, extras_bytes, 0, 0, status];
        reply.extend_from_slice(&length.to_be_bytes());
        reply.extend_from_slice(&header[12..16]);
        reply.extend_from_slice(&[0; 8]);
        Some([&reply, extras, key.as_bytes(), value].concat())
    };
    match header[1] {
        0x00 => match store.get(&key, fault) {
            Some(value) => answer(0, &[0; 4], "", &value),
            None => answer(1, &[], "", b"Not found"),
        },
        0x01 => {
            assert_eq!(extras, 8);
            store.set(&key, body[extras + key_bytes..].to_vec());
            answer(0, &[], "", &[])
        }
        0x0a => answer(0, &[], "", &[]),
        0x0d => match store.get(&key, fault) {
            Some(value) => answer(0, &[0; 4], &key, &value),
            None => Some(Vec::new()),
        },
        opcode => unreachable!("opcode {opcode:#x} is not sent"),
    }
}

/// Starts a server that ends with the test.
pub fn start(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let store = Arc::new(Store::default());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Replies of a few bytes each must not wait for one another.
            stream.set_nodelay(true).unwrap();
            let store = store.clone();
            thread::spawn(move || serve(&stream, &stream, &store, fault));
        }
    });
    address
}
