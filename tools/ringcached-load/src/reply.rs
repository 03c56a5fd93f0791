//! Replies: the least reading that still proves the framing right.
//!
//! ```text
//!   Head --"VALUE <key> <flags> <bytes>\r\n"--> Value --bytes--> Tail --"\r\nEND\r\n"--> Head
//!   Head --any other line, which is a whole reply--------------------------------------> Head
//! ```
//!
//! A value passes through piece by piece; only an incomplete line is ever shown twice.

use serde::{Deserialize, Serialize};

use crate::values;
use crate::workload::{Request, Verb, Workload};

/// No line of a reply is longer.
const LINE_BYTES_MAX: usize = 2048;

/// What a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Hit,
    Miss,
    Stored,
    /// The server refused, or sent another value than was stored; the stream goes on.
    Failed(Failure),
}

/// Ways to fail, each with its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    NotStored,
    Error,
    ClientError,
    ServerError,
    /// Key, length or content of a value is wrong.
    Content,
    /// The bytes are no reply to the request; the connection is given up.
    Framing,
    /// The connection was closed or failed.
    Closed,
    /// No reply came in time.
    Unanswered,
}

/// Failures by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    pub not_stored: u64,
    pub error: u64,
    pub client_error: u64,
    pub server_error: u64,
    pub content: u64,
    pub framing: u64,
    pub closed: u64,
    pub unanswered: u64,
}

impl Failures {
    pub fn add(&mut self, failure: Failure, count: u64) {
        *match failure {
            Failure::NotStored => &mut self.not_stored,
            Failure::Error => &mut self.error,
            Failure::ClientError => &mut self.client_error,
            Failure::ServerError => &mut self.server_error,
            Failure::Content => &mut self.content,
            Failure::Framing => &mut self.framing,
            Failure::Closed => &mut self.closed,
            Failure::Unanswered => &mut self.unanswered,
        } += count;
    }

    pub fn rows(&self) -> [(&'static str, u64); 8] {
        [
            ("NOT_STORED", self.not_stored),
            ("ERROR", self.error),
            ("CLIENT_ERROR", self.client_error),
            ("SERVER_ERROR", self.server_error),
            ("wrong content", self.content),
            ("wrong framing", self.framing),
            ("connection closed", self.closed),
            ("unanswered", self.unanswered),
        ]
    }

    pub fn total(&self) -> u64 {
        self.rows().iter().map(|(_, count)| count).sum()
    }
}

/// The stream makes no sense any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonsense;

/// How far the input took one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub consumed: usize,
    /// None: more input is needed.
    pub outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Value { offset: usize, left: usize, sound: bool },
    Tail { sound: bool },
}

/// Reads the replies of one connection.
#[derive(Debug)]
pub struct Reader {
    state: State,
    key_bytes: usize,
}

impl Reader {
    pub fn new(key_bytes: usize) -> Reader {
        Reader { state: State::Head, key_bytes }
    }

    /// Reads on in the reply to `request`. With a workload at hand, key, length and content of a
    /// value are verified too. Bytes not consumed are to be shown again with more behind them.
    #[inline]
    pub fn step(
        &mut self,
        input: &[u8],
        request: Request,
        verify: Option<&Workload>,
    ) -> Result<Step, Nonsense> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match self.state {
                State::Head if request.verb == Verb::Get && rest.first() == Some(&b'V') => {
                    let Some(head) = value_head(rest, self.key_bytes)? else { break };
                    let key = &rest[VALUE.len()..VALUE.len() + self.key_bytes];
                    let sound = verify
                        .is_none_or(|workload| workload.head_matches(request.key, key, head.value));
                    self.state = State::Value { offset: 0, left: head.value, sound };
                    at += head.bytes;
                }
                State::Head => {
                    let Some((bytes, outcome)) = line(rest, request.verb)? else { break };
                    return Ok(Step { consumed: at + bytes, outcome: Some(outcome) });
                }
                State::Value { offset, left, mut sound } => {
                    let piece = &rest[..left.min(rest.len())];
                    if verify.is_some() {
                        sound &= values::matches(request.key, offset, piece);
                    }
                    at += piece.len();
                    if piece.len() < left {
                        let (offset, left) = (offset + piece.len(), left - piece.len());
                        self.state = State::Value { offset, left, sound };
                        break;
                    }
                    self.state = State::Tail { sound };
                }
                State::Tail { sound } => {
                    let known = rest.len().min(TAIL.len());
                    if rest[..known] != TAIL[..known] {
                        return Err(Nonsense);
                    }
                    if known < TAIL.len() {
                        break;
                    }
                    self.state = State::Head;
                    let outcome =
                        if sound { Outcome::Hit } else { Outcome::Failed(Failure::Content) };
                    return Ok(Step { consumed: at + known, outcome: Some(outcome) });
                }
            }
        }
        Ok(Step { consumed: at, outcome: None })
    }
}

const VALUE: &[u8] = b"VALUE ";
const TAIL: &[u8] = b"\r\nEND\r\n";

struct ValueHead {
    /// The line, its end included.
    bytes: usize,
    /// What the line says of the value.
    value: usize,
}

/// `VALUE <key> <flags> <bytes>\r\n`, None when it is not all there.
#[inline]
fn value_head(input: &[u8], key_bytes: usize) -> Result<Option<ValueHead>, Nonsense> {
    let known = input.len().min(VALUE.len());
    if input[..known] != VALUE[..known] {
        return Err(Nonsense);
    }
    let mut at = VALUE.len() + key_bytes;
    match input.get(at) {
        None => return Ok(None),
        Some(b' ') => at += 1,
        Some(_) => return Err(Nonsense),
    }
    let Some((_flags, used)) = number(&input[at..], b' ')? else { return Ok(None) };
    at += used;
    let Some((value, used)) = number(&input[at..], b'\r')? else { return Ok(None) };
    at += used;
    match input.get(at) {
        None => Ok(None),
        Some(b'\n') => Ok(Some(ValueHead { bytes: at + 1, value })),
        Some(_) => Err(Nonsense),
    }
}

/// A decimal number of at most ten digits, and the bytes that it and the byte behind it take.
#[inline]
fn number(input: &[u8], end: u8) -> Result<Option<(usize, usize)>, Nonsense> {
    let mut value = 0;
    for (at, byte) in input.iter().enumerate() {
        match byte {
            b'0'..=b'9' if at < 10 => value = value * 10 + usize::from(byte - b'0'),
            _ if *byte == end && at > 0 => return Ok(Some((value, at + 1))),
            _ => return Err(Nonsense),
        }
    }
    Ok(None)
}

/// A reply of one line, None when it is not all there.
fn line(input: &[u8], verb: Verb) -> Result<Option<(usize, Outcome)>, Nonsense> {
    let usual: (&[u8], Outcome) = match verb {
        Verb::Get => (b"END\r\n", Outcome::Miss),
        Verb::Set => (b"STORED\r\n", Outcome::Stored),
    };
    if input.starts_with(usual.0) {
        return Ok(Some((usual.0.len(), usual.1)));
    }
    let Some(end) = input.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return if input.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Nonsense) };
    };
    let text = input[..end].strip_suffix(b"\r").ok_or(Nonsense)?;
    let failure = match text {
        b"NOT_STORED" if verb == Verb::Set => Failure::NotStored,
        b"ERROR" => Failure::Error,
        _ if text.starts_with(b"CLIENT_ERROR") => Failure::ClientError,
        _ if text.starts_with(b"SERVER_ERROR") => Failure::ServerError,
        _ => return Err(Nonsense),
    };
    Ok(Some((end + 1, Outcome::Failed(failure))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Keys, Popularity};
    use crate::values::Sizes;
    use crate::workload::Ratio;

    const GET: Request = Request { verb: Verb::Get, key: 3 };
    const SET: Request = Request { verb: Verb::Set, key: 3 };

    fn workload() -> Workload {
        let keys = Keys::new(10, "k", 4).unwrap();
        let ratio = Ratio { sets: 0, gets: 1 };
        Workload::new(keys, Popularity::Uniform, Sizes::Fixed(20), ratio, 1).unwrap()
    }

    fn hit(key: &str, value_of: u64, bytes: usize) -> Vec<u8> {
        let mut reply = format!("VALUE {key} 0 {bytes}\r\n").into_bytes();
        values::append(value_of, bytes, &mut reply);
        reply.extend_from_slice(b"\r\nEND\r\n");
        reply
    }

    /// Feeds `input` in pieces of `piece` bytes, as a connection would.
    #[allow(clippy::panic_in_result_fn, reason = "a test's own helper")]
    fn read(input: &[u8], request: Request, piece: usize) -> Result<Outcome, Nonsense> {
        let workload = workload();
        let mut reader = Reader::new(4);
        let (mut from, mut to) = (0, 0);
        loop {
            to = (to + piece).min(input.len());
            let step = reader.step(&input[from..to], request, Some(&workload))?;
            from += step.consumed;
            if let Some(outcome) = step.outcome {
                assert_eq!(from, input.len(), "the whole reply is consumed");
                return Ok(outcome);
            }
            assert!(to < input.len(), "{:?} is a whole reply", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn replies_are_told_apart_however_they_are_cut() {
        let cases: [(Vec<u8>, Request, Outcome); 9] = [
            (hit("k003", 3, 20), GET, Outcome::Hit),
            (hit("k004", 3, 20), GET, Outcome::Failed(Failure::Content)),
            (hit("k003", 4, 20), GET, Outcome::Failed(Failure::Content)),
            (hit("k003", 3, 19), GET, Outcome::Failed(Failure::Content)),
            (b"END\r\n".to_vec(), GET, Outcome::Miss),
            (b"STORED\r\n".to_vec(), SET, Outcome::Stored),
            (b"NOT_STORED\r\n".to_vec(), SET, Outcome::Failed(Failure::NotStored)),
            (
                b"SERVER_ERROR out of memory\r\n".to_vec(),
                SET,
                Outcome::Failed(Failure::ServerError),
            ),
            (b"ERROR\r\n".to_vec(), GET, Outcome::Failed(Failure::Error)),
        ];
        for (input, request, outcome) in cases {
            for piece in 1..=input.len() {
                let text = String::from_utf8_lossy(&input);
                assert_eq!(read(&input, request, piece), Ok(outcome), "{text:?} by {piece}");
            }
        }
    }

    #[test]
    fn wrong_framing_is_noticed() {
        let cases: [(&[u8], Request); 10] = [
            (b"VALUE k003 0 2\r\nabc\r\nEND\r\n", GET),
            (b"VALUE k003 0 2\r\nab\r\nVALUE", GET),
            (b"VALUE k03 0 2\r\nab\r\nEND\r\n", GET),
            (b"VALUE k003 0 x\r\nab\r\nEND\r\n", GET),
            (b"VALUE k003 0 \r\nab\r\nEND\r\n", GET),
            (b"VALUE k003 0 2\nab\r\nEND\r\n", GET),
            (b"VALUE k003 0 2\r\nab\r\nEND\r\n", SET),
            (b"STORED\r\n", GET),
            (b"END\r\n", SET),
            (b"ERROR\n", SET),
        ];
        for (input, request) in cases {
            for piece in 1..=input.len() {
                let text = String::from_utf8_lossy(input);
                assert_eq!(read(input, request, piece), Err(Nonsense), "{text:?} by {piece}");
            }
        }
        assert_eq!(line(&[b'x'; LINE_BYTES_MAX], Verb::Get), Err(Nonsense));
    }

    #[test]
    fn a_run_of_replies_is_taken_one_by_one() {
        let input = [hit("k003", 3, 20), b"END\r\n".to_vec(), hit("k003", 9, 1)].concat();
        let mut reader = Reader::new(4);
        let mut outcomes = Vec::new();
        let mut at = 0;
        while at < input.len() {
            let step = reader.step(&input[at..], GET, None).unwrap();
            at += step.consumed;
            outcomes.push(step.outcome.unwrap());
        }
        // Without a workload to compare with, a hit is a hit.
        assert_eq!(outcomes, [Outcome::Hit, Outcome::Miss, Outcome::Hit]);
    }
}
