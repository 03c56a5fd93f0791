//! Values that say whose they are: key, version, and bytes that follow from both.
//!
//! ```text
//!   key 8 | version 8 | born 8 | wins of each thread, 8 each, in shared records | payload
//! ```
//!
//! The payload's length and bytes follow from key and version, so that neither another value's
//! bytes nor a part of the right ones can pass.

use ringcached_load::values::{append, matches, mix};

/// Threads whose wins fit a record.
pub const WINS_MAX: usize = 32;
const WORD: usize = size_of::<u64>();
/// Key, version and birth.
const HEAD_WORDS: usize = 3;
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

const LARGE_BYTES_MIN: u64 = 64 << 10;
const LARGE_BYTES_MAX: u64 = 900_000;
const MIDDLE_BYTES_MAX: u64 = 8 << 10;
const SMALL_BYTES_MAX: u64 = 400;

/// What a value says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: u64,
    pub version: u64,
    /// The version with which a shared record began.
    pub born: u64,
    /// How often each thread has replaced it by cas since then.
    pub wins: [u64; WINS_MAX],
}

/// How records of one kind are laid out.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Threads whose wins are counted; 0 in records that one thread alone writes.
    pub threads: usize,
    /// Most bytes of a payload.
    pub payload_bytes_max: u64,
}

impl Record {
    /// A record that one thread alone writes.
    pub fn owned(key: u64, version: u64) -> Record {
        Record { key, version, born: 0, wins: [0; WINS_MAX] }
    }
}

impl Layout {
    pub fn write(self, record: &Record, out: &mut Vec<u8>) {
        out.clear();
        let head = [record.key, record.version, record.born];
        for word in head.iter().chain(&record.wins[..self.threads]) {
            out.extend_from_slice(&word.to_le_bytes());
        }
        append(seed(record), self.payload_bytes(record), out);
    }

    /// The record that a value is; none when not each of its bytes is right.
    pub fn read(self, key: u64, value: &[u8]) -> Option<Record> {
        let (head, payload) = value.split_at_checked((HEAD_WORDS + self.threads) * WORD)?;
        let mut words =
            head.chunks_exact(WORD).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || words.next().unwrap_or(0);
        let mut record = Record { key: next(), version: next(), born: next(), wins: [0; WINS_MAX] };
        record.wins[..self.threads].fill_with(next);
        let right = record.key == key
            && payload.len() == self.payload_bytes(&record)
            && matches(seed(&record), 0, payload);
        right.then_some(record)
    }

    fn payload_bytes(self, record: &Record) -> usize {
        let draw = mix(seed(record));
        let (least, most) = match draw % 2000 {
            0 => (LARGE_BYTES_MIN, LARGE_BYTES_MAX),
            1..100 => (SMALL_BYTES_MAX, MIDDLE_BYTES_MAX),
            _ => (0, SMALL_BYTES_MAX),
        };
        let bytes = (least + (draw >> 32) % (most - least)).min(self.payload_bytes_max);
        usize::try_from(bytes).unwrap_or(0)
    }
}

/// What the payload follows from. Wins and birth are in it, so that they are not mixed either.
fn seed(record: &Record) -> u64 {
    let start = mix(record.key).wrapping_add(mix(record.version));
    let words = record.wins.iter().chain([&record.born]);
    words.fold(start, |seed, word| seed.wrapping_mul(STEP).wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { threads: 2, payload_bytes_max: 1 << 20 };

    fn record() -> Record {
        let mut record = Record { key: 7, version: 40, born: 30, wins: [0; WINS_MAX] };
        record.wins[..2].copy_from_slice(&[4, 6]);
        record
    }

    #[test]
    fn every_wrong_byte_and_every_cut_is_found() {
        let mut value = Vec::new();
        LAYOUT.write(&record(), &mut value);
        assert!(value.len() > 48, "{}", value.len());
        assert_eq!(LAYOUT.read(7, &value), Some(record()));
        assert_eq!(LAYOUT.read(8, &value), None);
        for at in 0..value.len() {
            value[at] ^= 1;
            assert_eq!(LAYOUT.read(7, &value), None, "byte {at}");
            value[at] ^= 1;
            assert_eq!(LAYOUT.read(7, &value[..at]), None, "cut at {at}");
        }
        value.push(0);
        assert_eq!(LAYOUT.read(7, &value), None);
    }

    #[test]
    fn sizes_are_mixed_and_bounded() {
        let (mut large, mut bytes) = (0, 0);
        let mut value = Vec::new();
        for version in 0..4000 {
            let layout = Layout { threads: 0, payload_bytes_max: 1 << 20 };
            layout.write(&Record::owned(5, version), &mut value);
            large += u32::from(value.len() > 64 << 10);
            bytes += value.len();
            assert_eq!(layout.read(5, &value).unwrap().version, version);
            Layout { payload_bytes_max: 90, ..layout }
                .write(&Record::owned(5, version), &mut value);
            assert!(value.len() <= 24 + 90);
        }
        assert!((1..10).contains(&large), "{large} large ones");
        assert!((300..2000).contains(&(bytes / 4000)), "{} on average", bytes / 4000);
    }
}
