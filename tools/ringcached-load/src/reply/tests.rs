//! Replies in every dialect, whole and cut at every byte.

use super::*;
use crate::keys::{Keys, Popularity};
use crate::values::Sizes;
use crate::workload::{Mix, Ratio};

const GET: Request = Request { verb: Verb::Get, key: 3 };
const SET: Request = Request { verb: Verb::Set, key: 3 };
const MANY: Request = Request { verb: Verb::GetMany, key: 9 };
const KEYS_PER_GET: u32 = 4;
const VALUE_BYTES: usize = 20;

fn workload(dialect: Dialect) -> Workload {
    let mix = Mix {
        dialect,
        keys: Keys::new(10, "k", 4).unwrap(),
        popularity: Popularity::Uniform,
        sizes: Sizes::Fixed(VALUE_BYTES),
        ratio: Ratio { sets: 0, gets: 1 },
        keys_per_get: KEYS_PER_GET,
    };
    Workload::new(mix, 1).unwrap()
}

fn value_of(key: u64, bytes: usize) -> Vec<u8> {
    let mut value = Vec::new();
    values::append(key, bytes, &mut value);
    value
}

fn packet(opcode: u8, status: u8, opaque: u64, parts: [&[u8]; 3]) -> Vec<u8> {
    let [extras, key, value] = parts.map(|part| u8::try_from(part.len()).unwrap());
    let body = extras + key + value;
    let mut bytes = vec![0x81, opcode, 0, key, extras, 0, 0, status, 0, 0, 0, body];
    bytes.extend_from_slice(&opaque.to_le_bytes()[..4]);
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&parts.concat());
    bytes
}

/// The answer to `GET` in a dialect; binary does not repeat the key.
fn hit(dialect: Dialect, key: &str, value: &[u8]) -> Vec<u8> {
    let bytes = value.len();
    match dialect {
        Dialect::Text => {
            let head = format!("VALUE {key} 0 {bytes}\r\n").into_bytes();
            [&head, value, b"\r\nEND\r\n"].concat()
        }
        Dialect::Meta => [format!("VA {bytes}\r\n").as_bytes(), value, b"\r\n"].concat(),
        Dialect::Binary => packet(0x00, 0, 3, [b"\0\0\0\0", b"", value]),
    }
}

/// The answer to `MANY` with some keys and whose values they have.
fn many(dialect: Dialect, found: &[(u64, u64)]) -> Vec<u8> {
    let mut reply = Vec::new();
    for (key, whose) in found {
        let (key, value) = (format!("k{key:03}"), value_of(*whose, VALUE_BYTES));
        reply.extend_from_slice(&match dialect {
            Dialect::Text => {
                let head = format!("VALUE {key} 0 {VALUE_BYTES}\r\n");
                [head.as_bytes(), &value, b"\r\n"].concat()
            }
            Dialect::Meta => {
                let head = format!("VA {VALUE_BYTES} k{key}\r\n");
                [head.as_bytes(), &value, b"\r\n"].concat()
            }
            Dialect::Binary => packet(0x0d, 0, MANY.key, [b"\0\0\0\0", key.as_bytes(), &value]),
        });
    }
    reply.extend_from_slice(&match dialect {
        Dialect::Text => b"END\r\n".to_vec(),
        Dialect::Meta => b"MN\r\n".to_vec(),
        Dialect::Binary => packet(0x0a, 0, MANY.key, [b"", b"", b""]),
    });
    reply
}

/// Feeds `input` in pieces of `piece` bytes, as a connection would.
#[allow(clippy::panic_in_result_fn, reason = "a test's own helper")]
fn read(
    dialect: Dialect,
    input: &[u8],
    request: Request,
    piece: usize,
) -> Result<Outcome, Nonsense> {
    let workload = workload(dialect);
    let mut reader = Reader::new(workload.shape());
    let (mut from, mut to) = (0, 0);
    loop {
        to = (to + piece).min(input.len());
        let step = reader.step(&input[from..to], request, Some(&workload))?;
        from += step.consumed;
        if let Some(outcome) = step.outcome {
            assert_eq!(from, input.len(), "the whole reply is consumed");
            return Ok(outcome);
        }
        assert!(to < input.len(), "{} is a whole reply", input.escape_ascii());
    }
}

#[track_caller]
fn check(dialect: Dialect, input: &[u8], request: Request, expected: Result<Outcome, Nonsense>) {
    for piece in 1..=input.len() {
        let got = read(dialect, input, request, piece);
        assert_eq!(got, expected, "{dialect:?} {} by {piece}", input.escape_ascii());
    }
}

const DIALECTS: [Dialect; 3] = [Dialect::Text, Dialect::Meta, Dialect::Binary];
const WRONG: Result<Outcome, Nonsense> = Ok(Outcome::Failed(Failure::Content));

#[test]
fn values_are_verified_however_they_are_cut() {
    for dialect in DIALECTS {
        let answer = |key, value: &[u8]| hit(dialect, key, value);
        check(dialect, &answer("k003", &value_of(3, 20)), GET, Ok(Outcome::Hit));
        check(dialect, &answer("k003", &value_of(4, 20)), GET, WRONG);
        check(dialect, &answer("k003", &value_of(3, 19)), GET, WRONG);
    }
    check(Dialect::Text, &hit(Dialect::Text, "k004", &value_of(3, 20)), GET, WRONG);
}

#[test]
fn many_values_are_verified_however_they_are_cut() {
    for dialect in DIALECTS {
        let workload = workload(dialect);
        let mut picks = workload.picks(MANY);
        let asked: Vec<u64> = std::iter::from_fn(|| picks.next(&workload)).collect();
        let [a, b, c, d] = asked[..] else { unreachable!("four keys are asked for") };
        assert!(a != b && b != c && c != d, "{asked:?}");
        let outcome = |hits| Ok(Outcome::Many { hits, misses: KEYS_PER_GET - hits });
        let honest = |keys: &[u64]| {
            let found: Vec<(u64, u64)> = keys.iter().map(|key| (*key, *key)).collect();
            many(dialect, &found)
        };
        check(dialect, &honest(&[a, b, c, d]), MANY, outcome(4));
        check(dialect, &honest(&[b, d]), MANY, outcome(2));
        check(dialect, &honest(&[]), MANY, outcome(0));
        check(dialect, &many(dialect, &[(a, a), (b, c)]), MANY, WRONG);
        let stranger = (0..10).find(|key| !asked.contains(key)).unwrap();
        check(dialect, &honest(&[a, stranger]), MANY, WRONG);
        check(dialect, &honest(&[d, d]), MANY, WRONG);
        check(dialect, &honest(&[a, b, c, d, d]), MANY, Err(Nonsense));
    }
}

#[test]
fn replies_without_a_value_are_told_apart() {
    let text = |input: &[u8], request, outcome| {
        check(Dialect::Text, input, request, Ok(outcome));
    };
    let meta = |input: &[u8], request, outcome| {
        check(Dialect::Meta, input, request, Ok(outcome));
    };
    let binary = |opcode, status, request, outcome| {
        for body in [&b""[..], b"said in words"] {
            if status == 0 && !body.is_empty() {
                continue;
            }
            let input = packet(opcode, status, 3, [b"", b"", body]);
            check(Dialect::Binary, &input, request, Ok(outcome));
        }
    };
    let failed = Outcome::Failed;
    text(b"END\r\n", GET, Outcome::Miss);
    text(b"STORED\r\n", SET, Outcome::Stored);
    text(b"NOT_STORED\r\n", SET, failed(Failure::NotStored));
    text(b"SERVER_ERROR out of memory\r\n", SET, failed(Failure::ServerError));
    text(b"SERVER_ERROR out of memory\r\n", MANY, failed(Failure::ServerError));
    text(b"ERROR\r\n", GET, failed(Failure::Error));
    meta(b"EN\r\n", GET, Outcome::Miss);
    meta(b"HD\r\n", SET, Outcome::Stored);
    meta(b"NS\r\n", SET, failed(Failure::NotStored));
    meta(b"CLIENT_ERROR invalid flag\r\n", GET, failed(Failure::ClientError));
    meta(b"SERVER_ERROR so\r\nERROR\r\nMN\r\n", MANY, failed(Failure::Error));
    binary(0x00, 0x01, GET, Outcome::Miss);
    binary(0x01, 0x00, SET, Outcome::Stored);
    binary(0x01, 0x05, SET, failed(Failure::NotStored));
    binary(0x01, 0x03, SET, failed(Failure::ClientError));
    binary(0x00, 0x81, GET, failed(Failure::Error));
    binary(0x01, 0x82, SET, failed(Failure::ServerError));
    let lapse = packet(0x0d, 0x82, MANY.key, [b"", b"", b"so"]);
    let input = [lapse, many(Dialect::Binary, &[])].concat();
    check(Dialect::Binary, &input, MANY, Ok(failed(Failure::ServerError)));
}

#[test]
fn wrong_framing_is_noticed() {
    let cases: [(Dialect, &[u8], Request); 17] = [
        (Dialect::Text, b"VALUE k003 0 2\r\nabc\r\nEND\r\n", GET),
        (Dialect::Text, b"VALUE k003 0 2\r\nab\r\nVALUE", GET),
        (Dialect::Text, b"VALUE k03 0 2\r\nab\r\nEND\r\n", GET),
        (Dialect::Text, b"VALUE k003 0 x\r\nab\r\nEND\r\n", GET),
        (Dialect::Text, b"VALUE k003 0 \r\nab\r\nEND\r\n", GET),
        (Dialect::Text, b"VALUE k003 0 2\nab\r\nEND\r\n", GET),
        (Dialect::Text, b"VALUE k003 0 2\r\nab\r\nEND\r\n", SET),
        (Dialect::Text, b"STORED\r\n", GET),
        (Dialect::Text, b"END\r\n", SET),
        (Dialect::Text, b"ERROR\n", SET),
        (Dialect::Text, b"STORED\r\n", MANY),
        (Dialect::Meta, b"VA 2 kk003\r\nab\r\n", GET),
        (Dialect::Meta, b"VA 2\r\nab\r\nMN\r\n", MANY),
        (Dialect::Meta, b"VA 2 xk003\r\nab\r\nMN\r\n", MANY),
        (Dialect::Meta, b"VA 2\r\nabc\r\n", GET),
        (Dialect::Meta, b"EN\r\n", MANY),
        (Dialect::Meta, b"HD\r\n", GET),
    ];
    for (dialect, input, request) in cases {
        check(dialect, input, request, Err(Nonsense));
    }
    let packets = [
        (packet(0x00, 0, 4, [b"\0\0\0\0", b"", b"x"]), GET, "opaque"),
        (packet(0x01, 0, 3, [b"\0\0\0\0", b"", b"x"]), GET, "opcode"),
        (packet(0x00, 0, 3, [b"", b"", b"x"]), GET, "extras"),
        (packet(0x00, 0, 3, [b"\0\0\0\0", b"k003", b"x"]), GET, "key"),
        (packet(0x01, 0, 3, [b"", b"", b"x"]), SET, "body"),
        (packet(0x0a, 0, 3, [b"", b"", b""]), GET, "noop"),
        (packet(0x0d, 0, MANY.key, [b"\0\0\0\0", b"", b"x"]), MANY, "no key"),
    ];
    for (input, request, what) in packets {
        for piece in 1..=input.len() {
            let got = read(Dialect::Binary, &input, request, piece);
            assert_eq!(got, Err(Nonsense), "{what} by {piece}");
        }
    }
    let mut request = packet(0x00, 0, 3, [b"\0\0\0\0", b"", b"x"]);
    request[0] = 0x80;
    check(Dialect::Binary, &request, GET, Err(Nonsense));
    let endless = [b'x'; 2048];
    let mut reader = Reader::new(workload(Dialect::Text).shape());
    assert_eq!(reader.step(&endless, GET, None), Err(Nonsense));
    assert_eq!(reader.step(&endless[1..], GET, None).map(|step| step.outcome), Ok(None));
}

#[test]
fn a_run_of_replies_is_taken_one_by_one() {
    for dialect in DIALECTS {
        let miss: &[u8] = match dialect {
            Dialect::Text => b"END\r\n",
            Dialect::Meta => b"EN\r\n",
            Dialect::Binary => &packet(0x00, 1, 3, [b"", b"", b"Not found"]),
        };
        let first = hit(dialect, "k003", &value_of(3, 20));
        let input = [&first, miss, &hit(dialect, "k003", b"x")].concat();
        let mut reader = Reader::new(workload(dialect).shape());
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
