//! The datagrams of the live statistics, byte by byte.
//!
//! All numbers are big-endian. A request is padded with zeros by whoever asks: **a reply is never
//! longer than its request**, so that a forged source address gains nobody anything.
//!
//! ```text
//!   request, 96 to 1400 bytes              reply, at most as long as its request
//!    0  4  magic "RCS1"                     0  4  magic "RCS1"
//!    4  1  version, 1                       4  1  version, 1
//!    5  1  kind                             5  1  kind; `Hello` where the cookie was stale
//!    6  1  flags: 2 signed                  6  1  flags: 1 reply, 2 signed
//!    7  1  0                                7  1  0
//!    8  8  request id, any number           8  8  request id, as asked
//!   16  4  first: index of the first       16  4  first, as asked
//!          entry wanted                    20  4  thread, as asked
//!   20  4  thread, in `ThreadValues`;      24  8  boot id: random, new with each process
//!          spread, in `Counts`; else 0     32  8  sequence: one more with each reply
//!   24  8  cookie when signed, else 0      40  8  ns from the start of the process to the sample
//!          (0 in `Hello`)                  48  4  total: entries there are, from index 0
//!   32  .. zeros                           52  2  count: entries in this datagram
//!          [32 HMAC-SHA-256]               54  2  0
//!                                          56  .. entries [32 HMAC-SHA-256]
//! ```
//!
//! | kind | asks for | one entry |
//! | --- | --- | --- |
//! | 0 `Hello` | a cookie | the cookie, u64 |
//! | 1 `Values` | the figures of the process | a value, u64 |
//! | 2 `Names` | what they are called | kind u8 (0 counter, 1 gauge), length u8, name |
//! | 3 `Threads` | who counts | 0 u8, length u8, name: "ring 0" |
//! | 4 `ThreadValues` | the figures of one of them | a value, u64 |
//! | 5 `Spreads` | of what it is known how it is spread | 0 u8, length u8, name: "get" |
//! | 6 `Counts` | how the values of one of them are spread | count of a bucket, u64 |
//! | 7 `Classes` | the size classes of items | a word, u64; four words are a class |
//!
//! The buckets of `Counts` are those of `base::histogram`; all threads are counted together. The
//! words of a class are the bytes of a slot, pages, slots, and slots that are free.
//!
//! The figures of a thread are the first of the process's, in the same order. Names and their order
//! hold for as long as the boot id stays. A figure never goes back while the boot id stays, unless
//! it is a gauge: `stats reset` is not seen here.
//!
//! **Signed.** With a key, the last 32 bytes of either datagram are the HMAC of all before them. A
//! request that was overheard could be sent again, so a signed request carries a cookie, which
//! `Hello` asks for: it is bound to the asker's address and port and is good for one to two
//! minutes. A signed request with a stale cookie is answered by a `Hello` with a fresh one. What is
//! unsigned, wrongly signed, malformed or too frequent is met with silence.

use super::sign::{MAC_BYTES, Signer};

pub const MAGIC: [u8; 4] = *b"RCS1";
pub const VERSION: u8 = 1;
/// The shortest request: room for a reply of one value, signed.
pub const REQUEST_BYTES_MIN: usize = REPLY_HEAD_BYTES + 8 + MAC_BYTES;
/// The longest: what passes through a network of 1500 bytes in one piece.
pub const REQUEST_BYTES_MAX: usize = 1400;
const REPLY_HEAD_BYTES: usize = 56;
const FLAG_REPLY: u8 = 1;
const FLAG_SIGNED: u8 = 2;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Hello,
    Values,
    Names,
    Threads,
    ThreadValues,
    Spreads,
    Counts,
    Classes,
}

impl Ask {
    pub const ALL: [Ask; 8] = [
        Ask::Hello,
        Ask::Values,
        Ask::Names,
        Ask::Threads,
        Ask::ThreadValues,
        Ask::Spreads,
        Ask::Counts,
        Ask::Classes,
    ];

    const fn code(self) -> u8 {
        match self {
            Ask::Hello => 0,
            Ask::Values => 1,
            Ask::Names => 2,
            Ask::Threads => 3,
            Ask::ThreadValues => 4,
            Ask::Spreads => 5,
            Ask::Counts => 6,
            Ask::Classes => 7,
        }
    }

    fn from_code(code: u8) -> Option<Ask> {
        Ask::ALL.into_iter().find(|ask| ask.code() == code)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub ask: Ask,
    pub id: u64,
    pub first: u32,
    pub thread: u32,
    pub cookie: u64,
}

impl Request {
    /// The datagram, padded to `bytes` in all.
    ///
    /// # Panics
    /// If `bytes` is not from `REQUEST_BYTES_MIN` to `REQUEST_BYTES_MAX`.
    pub fn encode(&self, bytes: usize, signer: Option<&Signer>) -> Vec<u8> {
        assert!((REQUEST_BYTES_MIN..=REQUEST_BYTES_MAX).contains(&bytes));
        let mut datagram = prologue(self.ask, 0, signer, self.id, self.first, self.thread);
        datagram.extend(self.cookie.to_be_bytes());
        datagram.resize(bytes - signer.map_or(0, |_| MAC_BYTES), 0);
        seal(&mut datagram, signer);
        datagram
    }

    /// Reads a request, and demands a signature exactly when there is a key. `None` is silence.
    pub fn decode(datagram: &[u8], signer: Option<&Signer>) -> Option<Request> {
        if !(REQUEST_BYTES_MIN..=REQUEST_BYTES_MAX).contains(&datagram.len()) {
            return None;
        }
        let mut reader = Reader { rest: datagram };
        let (ask, id, first, thread) = reader.prologue(0, signer)?;
        let cookie = reader.u64()?;
        let padding = match signer {
            Some(_) => reader.rest.get(..reader.rest.len() - MAC_BYTES)?,
            None => reader.rest,
        };
        let thread_fits = thread == 0 || matches!(ask, Ask::ThreadValues | Ask::Counts);
        let cookie_fits = cookie == 0 || (signer.is_some() && ask != Ask::Hello);
        if !thread_fits || !cookie_fits || padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        // Last, because it is what costs.
        open(datagram, signer)?;
        Some(Request { ask, id, first, thread, cookie })
    }
}

/// One entry, as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    Value(u64),
    Name { is_gauge: bool, name: &'a str },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    pub ask: Ask,
    pub id: u64,
    pub first: u32,
    pub thread: u32,
    pub boot_id: u64,
    pub sequence: u64,
    pub elapsed_ns: u64,
    pub total: u32,
}

impl ReplyHead {
    /// The datagram: as many of `entries` as fit into `bytes_max` bytes in all.
    pub fn encode<'a>(
        &self,
        entries: impl Iterator<Item = Entry<'a>>,
        bytes_max: usize,
        signer: Option<&Signer>,
    ) -> Vec<u8> {
        let mut datagram = prologue(self.ask, FLAG_REPLY, signer, self.id, self.first, self.thread);
        datagram.extend(self.boot_id.to_be_bytes());
        datagram.extend(self.sequence.to_be_bytes());
        datagram.extend(self.elapsed_ns.to_be_bytes());
        datagram.extend(self.total.to_be_bytes());
        let count_at = datagram.len();
        datagram.extend([0; 4]);
        let room = bytes_max - signer.map_or(0, |_| MAC_BYTES);
        let mut count = 0u16;
        for entry in entries {
            let before = datagram.len();
            match entry {
                Entry::Value(value) => datagram.extend(value.to_be_bytes()),
                Entry::Name { is_gauge, name } => {
                    let (name, length) = shorten(name);
                    datagram.extend([u8::from(is_gauge), length]);
                    datagram.extend(name);
                }
            }
            if datagram.len() > room {
                datagram.truncate(before);
                break;
            }
            count += 1;
        }
        datagram[count_at..count_at + 2].copy_from_slice(&count.to_be_bytes());
        seal(&mut datagram, signer);
        datagram
    }
}

/// A reply that was read and, where there is a key, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub head: ReplyHead,
    /// Of `Hello`, `Values`, `ThreadValues`, `Counts` and `Classes`.
    pub values: Vec<u64>,
    /// Of `Names`, `Threads` and `Spreads`: whether it is a gauge, and the name.
    pub names: Vec<(bool, String)>,
}

impl Reply {
    pub fn decode(datagram: &[u8], signer: Option<&Signer>) -> Option<Reply> {
        open(datagram, signer)?;
        let mut reader = Reader { rest: datagram };
        let (ask, id, first, thread) = reader.prologue(FLAG_REPLY, signer)?;
        let (boot_id, sequence, elapsed_ns) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (total, count) = (reader.u32()?, reader.u16()?);
        let head = ReplyHead { ask, id, first, thread, boot_id, sequence, elapsed_ns, total };
        let mut reply = Reply { head, values: Vec::new(), names: Vec::new() };
        if reader.u16()? != 0 {
            return None;
        }
        for _ in 0..count {
            match ask {
                Ask::Hello | Ask::Values | Ask::ThreadValues | Ask::Counts | Ask::Classes => {
                    reply.values.push(reader.u64()?);
                }
                Ask::Names | Ask::Threads | Ask::Spreads => reply.names.push(reader.name()?),
            }
        }
        let tail = signer.map_or(0, |_| MAC_BYTES);
        (reader.rest.len() == tail).then_some(reply)
    }
}

/// The bytes that both directions begin with.
fn prologue(
    ask: Ask,
    flags: u8,
    signer: Option<&Signer>,
    id: u64,
    first: u32,
    thread: u32,
) -> Vec<u8> {
    let signed = if signer.is_some() { FLAG_SIGNED } else { 0 };
    let mut datagram = Vec::with_capacity(REQUEST_BYTES_MAX);
    datagram.extend(MAGIC);
    datagram.extend([VERSION, ask.code(), flags | signed, 0]);
    datagram.extend(id.to_be_bytes());
    datagram.extend(first.to_be_bytes());
    datagram.extend(thread.to_be_bytes());
    datagram
}

fn seal(datagram: &mut Vec<u8>, signer: Option<&Signer>) {
    if let Some(signer) = signer {
        let mac = signer.sign(datagram);
        datagram.extend(mac);
    }
}

fn open(datagram: &[u8], signer: Option<&Signer>) -> Option<()> {
    let Some(signer) = signer else { return Some(()) };
    let (message, mac) = datagram.split_at_checked(datagram.len().checked_sub(MAC_BYTES)?)?;
    signer.verify(message, mac).then_some(())
}

/// A name cut to what its length byte can say, at a character's end.
fn shorten(name: &str) -> (&[u8], u8) {
    let end = name.floor_char_boundary(usize::from(u8::MAX));
    (&name.as_bytes()[..end], u8::try_from(end).unwrap_or(u8::MAX))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn name(&mut self) -> Option<(bool, String)> {
        let [is_gauge, length] = self.array()?;
        let (name, rest): (&'a [u8], _) = self.rest.split_at_checked(usize::from(length))?;
        self.rest = rest;
        Some((is_gauge == 1, std::str::from_utf8(name).ok()?.to_owned()))
    }

    fn prologue(&mut self, flags: u8, signer: Option<&Signer>) -> Option<(Ask, u64, u32, u32)> {
        let signed = if signer.is_some() { FLAG_SIGNED } else { 0 };
        let magic: [u8; 4] = self.array()?;
        let [version, code, got, zero] = self.array()?;
        if magic != MAGIC || version != VERSION || got != flags | signed || zero != 0 {
            return None;
        }
        Some((Ask::from_code(code)?, self.u64()?, self.u32()?, self.u32()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REQUEST: Request = Request { ask: Ask::Values, id: 77, first: 3, thread: 0, cookie: 0 };
    const HEAD: ReplyHead = ReplyHead {
        ask: Ask::Values,
        id: 77,
        first: 3,
        thread: 0,
        boot_id: 5,
        sequence: 6,
        elapsed_ns: 7,
        total: 60,
    };

    #[test]
    fn a_request_comes_back() {
        let signer = Signer::new(b"0123456789abcdef");
        for bytes in [REQUEST_BYTES_MIN, 1000, REQUEST_BYTES_MAX] {
            let plain = REQUEST.encode(bytes, None);
            assert_eq!(plain.len(), bytes);
            assert_eq!(Request::decode(&plain, None), Some(REQUEST));
            assert_eq!(Request::decode(&plain, Some(&signer)), None, "unsigned");
            let request = Request { cookie: 9, ..REQUEST };
            let signed = request.encode(bytes, Some(&signer));
            assert_eq!(signed.len(), bytes);
            assert_eq!(Request::decode(&signed, Some(&signer)), Some(request));
            assert_eq!(Request::decode(&signed, Some(&Signer::new(b"another key 1234"))), None);
            assert_eq!(Request::decode(&signed, None), None);
        }
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let datagram = Request { thread: 2, ask: Ask::ThreadValues, ..REQUEST }.encode(96, None);
        let head = b"RCS1\x01\x04\0\0\0\0\0\0\0\0\0\x4d\0\0\0\x03\0\0\0\x02";
        assert_eq!(datagram[..24], *head);
        assert!(datagram[24..].iter().all(|byte| *byte == 0));
        let entries = [Entry::Name { is_gauge: true, name: "bytes" }];
        let reply = ReplyHead { ask: Ask::Names, ..HEAD }.encode(entries.into_iter(), 96, None);
        assert_eq!(reply[..8], *b"RCS1\x01\x02\x01\0");
        assert_eq!(reply[24..32], 5u64.to_be_bytes());
        assert_eq!(reply[48..], *b"\0\0\0\x3c\0\x01\0\0\x01\x05bytes");
    }

    #[test]
    fn a_reply_carries_what_fits_and_not_a_byte_more() {
        let signer = Signer::new(b"0123456789abcdef");
        for signer in [None, Some(&signer)] {
            for room in REQUEST_BYTES_MIN..300 {
                let datagram = HEAD.encode((0..1000).map(Entry::Value), room, signer);
                assert!(datagram.len() <= room && datagram.len() + 8 > room);
                let reply = Reply::decode(&datagram, signer).unwrap();
                assert_eq!(reply.head, HEAD);
                assert!(!reply.values.is_empty());
                assert!((0..).zip(&reply.values).all(|(index, value)| index == *value));
            }
        }
    }

    #[test]
    fn a_long_name_is_cut() {
        let name = "ü".repeat(200);
        let entries = [Entry::Name { is_gauge: false, name: &name }];
        let head = ReplyHead { ask: Ask::Names, ..HEAD };
        let reply = Reply::decode(&head.encode(entries.into_iter(), 1400, None), None).unwrap();
        assert_eq!(reply.names[0].1, "ü".repeat(127));
    }

    proptest! {
        /// Any byte of a signed request or reply that changes makes it nothing.
        #[test]
        fn a_changed_byte_is_noticed(at in 0usize..96, change in 1u8..) {
            let signer = Signer::new(b"0123456789abcdef");
            let mut datagram = Request { cookie: 9, ..REQUEST }.encode(96, Some(&signer));
            datagram[at] ^= change;
            prop_assert_eq!(Request::decode(&datagram, Some(&signer)), None);
            let mut reply = HEAD.encode([Entry::Value(1)].into_iter(), 96, Some(&signer));
            reply[at] ^= change;
            prop_assert_eq!(Reply::decode(&reply, Some(&signer)), None);
        }

        /// Decoding is total.
        #[test]
        fn anything_may_arrive(datagram in prop::collection::vec(any::<u8>(), 0..300)) {
            for head in [&b""[..], b"RCS1\x01\x01\0\0", b"RCS1\x01\x02\x01\0"] {
                let datagram = [head, &datagram].concat();
                let request = Request::decode(&datagram, None);
                prop_assert!(request.is_none() || datagram.len() >= REQUEST_BYTES_MIN);
                let _ = Reply::decode(&datagram, None);
            }
        }
    }
}
