//! Datagrams against a small real table, and the same requests in a connection to another one like
//! it: the body of a fuzz target.
//!
//! ```text
//!   +----------+-------+------+----------+-----------+----------+-----------+--
//!   | listener | limit | cuts | datagram | separator | datagram | separator | ...
//!   +----------+-------+------+----------+-----------+----------+-----------+--
//!     1          1       4 bytes
//! ```

use std::cell::RefCell;

use super::answer::{Answer, answer};
use super::frame::{Request, payload_bytes_max, split};
use crate::base::metrics::Metric;
use crate::base::protocol::Protocol;
use crate::command::fuzzing::{End, LISTENERS, Manner, Rig, is_chance, without_rows};

/// What stands between two datagrams.
pub const SEPARATOR: [u8; 4] = [0xff, 0xfe, 0xfd, 0xfc];

/// Limits that an operator may set: the least, those around one datagram, and many.
const LIMITS: [usize; 8] = [64, 100, 1399, 1400, 1408, 1409, 64 << 10, 4 << 20];

const HEAD_BYTES: usize = 8;
const DATAGRAM_BYTES_MAX: usize = 1400;

/// Replies that stand for all that was not to be told.
const TOO_LARGE: &[u8] = b"SERVER_ERROR output line too long\r\n";
const NO_WATCH: &[u8] = b"CLIENT_ERROR watch commands not allowed\r\n";

/// What becomes of requests, whatever has expired meanwhile.
const COUNTED: [Metric; 5] =
    [Metric::CmdGet, Metric::CmdTouch, Metric::CmdMeta, Metric::GetMisses, Metric::StoreTooLarge];

/// Items that are there from the start: a reply with one of them fits a datagram, or does not.
const ITEMS: [(&str, usize); 3] = [("s", 9), ("m", 700), ("l", 3000)];

thread_local! {
    static PAIR: RefCell<Option<Pair>> = const { RefCell::new(None) };
}

/// The body of the fuzz target: executes datagrams, and holds their replies against the frame, the
/// limit, and what a connection is replied to the same requests.
///
/// # Panics
/// If any of that does not fit.
pub fn replies_are_framed_and_bounded(data: &[u8]) {
    PAIR.with_borrow_mut(|pair| {
        let new = || Pair { asked: Rig::new(true), told: Rig::new(true), ahead: [0; _] };
        pair.get_or_insert_with(new).run(data);
    });
}

/// A request, as anybody can see it.
struct Seen<'d> {
    id: [u8; 2],
    is_binary: bool,
    commands: &'d [u8],
}

impl Seen<'_> {
    /// True of a request for statistics, and perhaps of others.
    fn tells_statistics(&self) -> bool {
        self.is_binary || self.commands.windows(5).any(|bytes| bytes == b"stats")
    }
}

/// Two equal servers: one is sent datagrams, one has a connection for each of them.
#[derive(Debug)]
struct Pair {
    asked: Rig,
    told: Rig,
    /// What the first has counted more than the second. Statistics differ in length by chance, so
    /// that a reply with some becomes too large a few keys sooner or later.
    ahead: [i64; COUNTED.len()],
}

impl Pair {
    fn run(&mut self, data: &[u8]) {
        let (head, rest) = data.split_first_chunk::<6>().unwrap_or((&[0; 6], data));
        let listener = u32::from(head[0]) % 3;
        let limit = LIMITS[usize::from(head[1]) % LIMITS.len()];
        let cuts = u32::from_le_bytes([head[2], head[3], head[4], head[5]]);
        let manner = if cuts == 0 { Manner::Whole } else { Manner::Seeded(cuts.into()) };
        for rig in [&mut self.asked, &mut self.told] {
            rig.reconnect();
            rig.flush();
            rig.pass_ticks(1);
            for (key, bytes) in ITEMS {
                let set = format!("set {key} 0 0 {bytes}\r\n{}\r\n", "1".repeat(bytes));
                assert_eq!(rig.send(set.as_bytes(), Manner::Whole), b"STORED\r\n");
            }
        }
        for datagram in datagrams(rest) {
            self.check(datagram, (listener, limit), manner);
        }
        self.check_both();
    }

    /// Sends one datagram, and what it asks for in a connection.
    fn check(&mut self, datagram: &[u8], (listener, limit): (u32, usize), manner: Manner) {
        let spoken = LISTENERS[listener as usize];
        let seen = look(datagram, spoken);
        let request = Request::parse(datagram, spoken);
        let (Some(seen), Some(request)) = (&seen, request) else {
            assert!(seen.is_none() && request.is_none(), "whether it is a request: {datagram:?}");
            return;
        };
        let payload_max = payload_bytes_max(limit);
        let now = self.asked.now();
        let executor = self.asked.executor();
        let answer = answer(executor, (listener, now), &request, payload_max);
        executor.participant().quiesce();
        let sent = payload_of(split(request.id, &answer.reply), seen.id, limit);
        assert_eq!(sent, answer.reply);

        self.told.reconnect_in(spoken);
        let told = self.told.send_within(seen.commands, manner, payload_max);
        let is_full = self.told.end() == End::Full;
        assert_eq!(answer.is_too_large, is_full, "{} bytes in a connection", told.len());
        assert_eq!(answer.stops, self.told.end() == End::Shutdown);
        if is_full {
            check_refusal(&answer, seen.is_binary);
            if seen.tells_statistics() {
                self.allow_for_chance(datagram.len());
            }
        } else if self.told.is_watching() {
            assert_eq!(answer.reply, NO_WATCH);
        } else {
            // A list that begins behind a reply which is too large counts as a request or does not.
            let may_differ = |row: &[u8]| is_chance(row) || row == b"requests";
            let without = |reply: &[u8]| without_rows(reply, may_differ);
            let (wanted, got) = (without(&told), without(&answer.reply));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert!(wanted == got, "{:?}, {:?}", text(&wanted), text(&got));
        }
    }

    /// Whether the one server goes on, and has counted what the other one has.
    fn check_both(&mut self) {
        let request = Request { id: [5, 6], is_binary: false, commands: b"get none\r\n" };
        let now = self.asked.now();
        let answer = answer(self.asked.executor(), (1, now), &request, 64);
        self.told.reconnect_in(Protocol::Ascii);
        assert_eq!(answer.reply, self.told.send(request.commands, Manner::Whole));
        assert_eq!(self.differences(), self.ahead, "{COUNTED:?}");
    }

    /// What a reply was too large for may have been counted by one of them alone: no more of it
    /// than there are keys in so many bytes.
    fn allow_for_chance(&mut self, bytes: usize) {
        let differences = self.differences();
        for (now, before) in differences.iter().zip(self.ahead) {
            assert!(now.abs_diff(before) <= bytes as u64 / 2, "{differences:?}, {before:?}");
        }
        self.ahead = differences;
    }

    fn differences(&self) -> [i64; COUNTED.len()] {
        COUNTED.map(|metric| {
            self.asked.counted(metric).wrapping_sub(self.told.counted(metric)).cast_signed()
        })
    }
}

/// The datagrams of an input.
fn datagrams(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let data = rest?;
        let end = data.windows(SEPARATOR.len()).position(|bytes| bytes == SEPARATOR);
        rest = end.map(|end| &data[end + SEPARATOR.len()..]);
        Some(&data[..end.unwrap_or(data.len())])
    })
}

/// Whether a datagram is a request, from its first nine bytes and its last line end.
fn look(datagram: &[u8], spoken: Protocol) -> Option<Seen<'_>> {
    if datagram.len() <= HEAD_BYTES || datagram[4..6] != [0, 1] {
        return None;
    }
    let payload = &datagram[HEAD_BYTES..];
    if matches!(payload[0], b'A'..=b'Z' | b'0'..=b'9' | 0x81) {
        return None;
    }
    let is_binary =
        spoken == Protocol::Binary || (spoken == Protocol::Negotiating && payload[0] == 0x80);
    let mut end = payload.len();
    while !is_binary && end > 0 && payload[end - 1] != b'\n' {
        end -= 1;
    }
    Some(Seen { id: [datagram[0], datagram[1]], is_binary, commands: &payload[..end] })
}

/// What the datagrams of a reply carry together, whose heads and sizes are checked.
fn payload_of(sent: impl Iterator<Item = Vec<u8>>, id: [u8; 2], limit: usize) -> Vec<u8> {
    let sent: Vec<_> = sent.collect();
    let total: usize = sent.iter().map(Vec::len).sum();
    assert!(total <= limit, "{total} bytes are sent, and {limit} allowed");
    let mut payload = Vec::new();
    for (number, datagram) in sent.iter().enumerate() {
        let [number_high, number_low] = u16::try_from(number).expect("few").to_be_bytes();
        let [count_high, count_low] = u16::try_from(sent.len()).expect("few").to_be_bytes();
        let head = [id[0], id[1], number_high, number_low, count_high, count_low, 0, 0];
        assert_eq!(datagram[..HEAD_BYTES], head);
        assert!(datagram.len() > HEAD_BYTES && datagram.len() <= DATAGRAM_BYTES_MAX);
        assert!(datagram.len() == DATAGRAM_BYTES_MAX || number + 1 == sent.len());
        payload.extend_from_slice(&datagram[HEAD_BYTES..]);
    }
    payload
}

/// Whether a reply that is too large was refused, and in the protocol of its request.
fn check_refusal(answer: &Answer, is_binary: bool) {
    let reply = &answer.reply;
    if is_binary {
        assert_eq!((reply[0], &reply[6..8], &reply[24..]), (0x81, &[0, 3][..], &b"Too large."[..]));
    } else {
        assert_eq!(reply, TOO_LARGE);
    }
}
