//! Requests, and the file they are kept in.
//!
//! ```text
//!   0        4                12       16               24
//!   | time s | key            | bytes  | next           |    little-endian, 24 bytes a request
//! ```
//!
//! `next` is the index of the next request for the same key, or -1. It is what libcachesim calls
//! the oracleGeneral format. `bytes` is what an item costs where nothing is lost: its value, its
//! key, a header of 16 bytes and 15 bytes of index. So our store and the others, who account for no
//! overhead of their own, pay the same for an item, and what we lose beyond that is our loss.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use super::chance::mix;

/// Every key is written with so many characters.
pub const KEY_BYTES: usize = 27;
/// What `bytes` counts beside the value.
pub const BESIDE_BYTES: u32 = 16 + 15 + 27;

/// What values consist of.
pub static FILLER: [u8; 64 << 10] = [b'v'; 64 << 10];

const RECORD_BYTES: usize = 24;
const NEVER: i64 = -1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Virtual time, in seconds.
    pub time_s: u32,
    pub key: u64,
    pub bytes: u32,
}

impl Request {
    /// Length of the value; what is smaller than its own overhead has one byte.
    pub fn value_bytes(&self) -> usize {
        self.bytes.saturating_sub(BESIDE_BYTES).max(1) as usize
    }
}

/// A trace, and what is known of it as a whole.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub requests: Vec<Request>,
    /// For each request the index of the next one for its key, or -1.
    next: Vec<i64>,
}

impl Trace {
    pub fn new(requests: Vec<Request>) -> Trace {
        let mut order: Vec<(u64, u32)> =
            requests.iter().zip(0u32..).map(|(request, index)| (request.key, index)).collect();
        order.sort_unstable();
        let mut next = vec![NEVER; requests.len()];
        for two in order.windows(2).filter(|two| two[0].0 == two[1].0) {
            next[two[0].1 as usize] = i64::from(two[1].1);
        }
        Trace { requests, next }
    }

    /// The last request for each key.
    pub fn last_requests(&self) -> impl Iterator<Item = &Request> {
        let pairs = self.requests.iter().zip(&self.next);
        pairs.filter(|(_, next)| **next == NEVER).map(|(request, _)| request)
    }

    pub fn objects(&self) -> u64 {
        self.last_requests().count() as u64
    }

    /// Bytes of all objects together.
    pub fn footprint_bytes(&self) -> u64 {
        self.last_requests().map(|request| u64::from(request.bytes)).sum()
    }

    /// A number that other requests hardly have.
    pub fn fingerprint(&self) -> u64 {
        self.requests.iter().fold(0, |sum, request| {
            let rest = u64::from(request.time_s) << 32 | u64::from(request.bytes);
            mix(sum ^ mix(request.key ^ mix(rest)))
        })
    }

    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        for (request, next) in self.requests.iter().zip(&self.next) {
            let mut record = [0; RECORD_BYTES];
            record[..4].copy_from_slice(&request.time_s.to_le_bytes());
            record[4..12].copy_from_slice(&request.key.to_le_bytes());
            record[12..16].copy_from_slice(&request.bytes.to_le_bytes());
            record[16..].copy_from_slice(&next.to_le_bytes());
            file.write_all(&record)?;
        }
        file.flush()
    }
}

/// Reads requests from a file as `Trace::write` makes it.
pub fn read_records(input: &mut impl Read) -> io::Result<Vec<Request>> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes)?;
    if !bytes.len().is_multiple_of(RECORD_BYTES) {
        let text = format!("{} bytes are no whole number of records", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0u32, |sum, b| sum << 8 | u32::from(*b));
    let key = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
    let records = bytes.chunks_exact(RECORD_BYTES).map(|record| Request {
        time_s: word(&record[..4]),
        key: key(&record[4..12]),
        bytes: word(&record[12..16]),
    });
    Ok(records.collect())
}

/// What an item takes in a page at least: header, key and value.
pub fn item_bytes(value_bytes: usize) -> u64 {
    (16 + KEY_BYTES + value_bytes) as u64
}

/// A key as it is stored: readable, and without a space.
pub fn key_text(key: u64) -> [u8; KEY_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"a-request:-0000000000000000";
    for (digit, shift) in text[KEY_BYTES - 16..].iter_mut().zip((0..16).rev()) {
        *digit = DIGITS[usize::try_from(key >> (4 * shift) & 15).unwrap_or(0)];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Trace {
        let request = |time_s, key, bytes| Request { time_s, key, bytes };
        Trace::new(vec![
            request(0, 7, 100),
            request(1, 1 << 40, 258),
            request(1, 7, 100),
            request(2, 7, 120),
        ])
    }

    #[test]
    fn next_requests_and_footprint() {
        let trace = trace();
        assert_eq!(trace.next, [2, -1, 3, -1]);
        assert_eq!((trace.objects(), trace.footprint_bytes()), (2, 258 + 120));
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("request-test-{}", std::process::id()));
        let trace = trace();
        trace.write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bytes.len(), 4 * 24);
        assert_eq!(
            bytes[24..48],
            *b"\x01\0\0\0\0\0\0\0\0\x01\0\0\x02\x01\0\0\xff\xff\xff\xff\xff\xff\xff\xff"
        );
        let read = read_records(&mut bytes.as_slice()).unwrap();
        assert_eq!(read, trace.requests);
        assert_eq!(Trace::new(read).fingerprint(), trace.fingerprint());
        assert!(read_records(&mut &bytes[..30]).is_err());
    }

    #[test]
    fn fingerprints_see_every_field_and_the_order() {
        let same = trace().fingerprint();
        let changed = |change: fn(&mut Vec<Request>)| {
            let mut requests = trace().requests;
            change(&mut requests);
            Trace::new(requests).fingerprint()
        };
        assert_eq!(changed(|_| {}), same);
        assert_ne!(changed(|r| r[0].time_s = 1), same);
        assert_ne!(changed(|r| r[1].key = 8), same);
        assert_ne!(changed(|r| r[2].bytes = 101), same);
        assert_ne!(changed(|r| r.swap(0, 1)), same);
    }

    #[test]
    fn keys_are_text() {
        assert_eq!(key_text(0xAB), *b"a-request:-00000000000000ab");
        assert_eq!(Request { time_s: 0, key: 0, bytes: 158 }.value_bytes(), 100);
        assert_eq!(Request { time_s: 0, key: 0, bytes: 20 }.value_bytes(), 1);
    }
}
