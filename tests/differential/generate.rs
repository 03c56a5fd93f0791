//! Requests that are made up from a seed: mostly right, about few keys.

use super::common::Chance;
use super::common::transcript::Version;

/// The release of the original from which on all of the meta flags are there.
const FLAGS_SINCE: Version = [1, 6, 45];

/// What a request is written in. Each has a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    Text,
    Meta,
    Binary,
}

/// The opcode of a no-op, and the opaque of those that mark the end of a reply.
pub const NO_OP: u8 = 0x0a;
pub const MARK: [u8; 4] = *b"MARK";

impl Dialect {
    pub const ALL: [Dialect; 3] = [Dialect::Text, Dialect::Meta, Dialect::Binary];

    /// A request whose reply marks the end of the one before it.
    pub fn no_op(self) -> &'static [u8] {
        match self {
            Dialect::Text | Dialect::Meta => b"mn\r\n",
            Dialect::Binary => b"\x80\x0a\0\0\0\0\0\0\0\0\0\0MARK\0\0\0\0\0\0\0\0",
        }
    }
}

/// A part of a request.
#[derive(Clone, Debug)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// The cas of a key as the server gave it, or one that it did not give.
    CasInText {
        key: Vec<u8>,
        is_right: bool,
    },
    CasInBinary {
        key: Vec<u8>,
        is_right: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Request {
    pub dialect: Dialect,
    pub pieces: Vec<Piece>,
    /// The key that it is about, if it is one.
    pub key: Option<Vec<u8>>,
}

impl Request {
    fn text(dialect: Dialect, key: Option<&[u8]>, text: impl AsRef<[u8]>) -> Request {
        let pieces = vec![Piece::Bytes(text.as_ref().to_vec())];
        Request { dialect, pieces, key: key.map(<[u8]>::to_vec) }
    }

    fn push(&mut self, bytes: impl AsRef<[u8]>) {
        self.pieces.push(Piece::Bytes(bytes.as_ref().to_vec()));
    }

    /// As a developer would like to read it.
    pub fn shown(&self, bytes: &[u8]) -> String {
        let most = &bytes[..bytes.len().min(300)];
        format!("{:?} {}", self.dialect, most.escape_ascii())
    }
}

/// A request of any dialect.
pub fn request(chance: &mut Chance, version: Version) -> Request {
    match chance.below(10) {
        0..=3 => text(chance),
        4..=6 => meta(chance, version),
        _ => binary(chance),
    }
}

fn one_of<T: Copy>(chance: &mut Chance, choices: &[T]) -> T {
    choices[chance.below(choices.len())]
}

fn happens(chance: &mut Chance, one_in: usize) -> bool {
    chance.below(one_in) == 0
}

fn key(chance: &mut Chance) -> Vec<u8> {
    match chance.below(40) {
        0 => vec![b'k'; 250],
        1 => vec![b'k'; 251],
        2 => b"\x01\xff\x7f".to_vec(),
        number => format!("key{}", number % 7).into_bytes(),
    }
}

/// Never with the letter by which the mark begins.
fn value(chance: &mut Chance) -> Vec<u8> {
    if happens(chance, 3) {
        return one_of(chance, &["0", "1", "42", "18446744073709551615", "007", "12 "]).into();
    }
    let len = match chance.below(60) {
        0 => 100_000,
        1 => 1_048_400,
        2 => 1_048_576,
        3..=9 => 5000,
        _ => chance.below(200),
    };
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789 \r\n";
    (0..len).map(|_| one_of(chance, letters)).collect()
}

/// Nothing that is over before the test is.
fn exptime(chance: &mut Chance) -> &'static str {
    one_of(chance, &["0", "0", "0", "100", "1000", "2592000", "-1", "4000000000"])
}

fn flags(chance: &mut Chance) -> &'static str {
    one_of(chance, &["0", "0", "7", "4294967295"])
}

fn noreply(chance: &mut Chance) -> &'static str {
    if happens(chance, 8) { " noreply" } else { "" }
}

fn text(chance: &mut Chance) -> Request {
    let key = key(chance);
    let shown = &key[..];
    let mut request = Request::text(Dialect::Text, Some(shown), "");
    match chance.below(24) {
        0..=6 => return text_store(chance, &key),
        7..=10 => {
            request.push(one_of(chance, &["get ", "gets "]));
            request.push(shown);
            if happens(chance, 3) {
                request.key = None;
                for _ in 0..chance.below(4) {
                    request.push(" ");
                    request.push(self::key(chance));
                }
            }
        }
        11..=12 => {
            request.push(one_of(chance, &["gat ", "gats "]));
            request.push(format!("{} ", exptime(chance)));
            request.push(shown);
        }
        13..=14 => {
            request.push("touch ");
            request.push(shown);
            request.push(format!(" {}{}", exptime(chance), noreply(chance)));
        }
        15..=17 => {
            request.push("delete ");
            request.push(shown);
            request.push(noreply(chance));
        }
        18..=21 => {
            let deltas = ["1", "5", "18446744073709551615", "0", "x", "-1"];
            request.push(one_of(chance, &["incr ", "decr "]));
            request.push(shown);
            request.push(format!(" {}{}", one_of(chance, &deltas), noreply(chance)));
        }
        22 => request.push(one_of(chance, &["nonsense", "GET k", "verbosity 0", "set k"])),
        _ if happens(chance, 8) => request.push("flush_all"),
        _ => request.push("flush_all 1000"),
    }
    request.push("\r\n");
    request
}

fn text_store(chance: &mut Chance, key: &[u8]) -> Request {
    let verbs = ["set", "set", "add", "replace", "append", "prepend", "cas"];
    let (verb, value) = (one_of(chance, &verbs), value(chance));
    let mut request = Request::text(Dialect::Text, Some(key), format!("{verb} "));
    request.push(key);
    request.push(format!(" {} {} {}", flags(chance), exptime(chance), value.len()));
    if verb == "cas" {
        request.push(" ");
        let is_right = !happens(chance, 3);
        request.pieces.push(Piece::CasInText { key: key.to_vec(), is_right });
    }
    request.push(format!("{}\r\n", noreply(chance)));
    request.push(value);
    request.push("\r\n");
    request
}

/// A key as the meta commands take it, with the flag that says how it is written.
fn meta_key(chance: &mut Chance) -> (Vec<u8>, Vec<u8>, bool) {
    if happens(chance, 8) {
        let (plain, coded): (&[u8], &[u8]) =
            one_of(chance, &[(b"key1", b"a2V5MQ=="), (b"foo bar", b"Zm9vIGJhcg==")]);
        return (plain.to_vec(), coded.to_vec(), true);
    }
    let key = key(chance);
    (key.clone(), key, false)
}

/// The flags of a meta command: those named, each perhaps, in any order. `*` is the cas.
fn meta_flags(chance: &mut Chance, request: &mut Request, choices: &[&str]) {
    let mut choices = choices.to_vec();
    for place in (1..choices.len()).rev() {
        choices.swap(place, chance.below(place + 1));
    }
    let key = request.key.clone().unwrap_or_default();
    for flag in &choices[..chance.below(choices.len().min(7) + 1)] {
        match flag.strip_suffix('*') {
            Some(letter) => {
                request.push(format!(" {letter}"));
                let is_right = !happens(chance, 3);
                request.pieces.push(Piece::CasInText { key: key.clone(), is_right });
            }
            None => request.push(format!(" {flag}")),
        }
    }
}

fn meta(chance: &mut Chance, version: Version) -> Request {
    let (plain, written, is_coded) = meta_key(chance);
    let verb = one_of(chance, &["mg", "mg", "mg", "ms", "ms", "md", "ma", "ma"]);
    let mut request = Request::text(Dialect::Meta, Some(&plain), format!("{verb} "));
    request.push(written);
    let value = value(chance);
    if verb == "ms" {
        request.push(format!(" {}", value.len()));
    }
    if is_coded {
        request.push(" b");
    }
    let is_new = version >= FLAGS_SINCE;
    let mut choices: Vec<&str> = match verb {
        "mg" => vec!["v", "f", "c", "k", "s", "q", "O123", "h", "T1000", "N1000", "R500"],
        "ms" => vec!["F5", "T1000", "c", "k", "q", "Oabc", "I", "C*"],
        "md" => vec!["q", "O9", "k", "I", "T1000", "C*"],
        _ => vec!["N1000", "J7", "D3", "T1000", "q", "v", "c", "k", "Ox", "C*"],
    };
    let modes: &[&str] = match verb {
        "ms" => &["ME", "MA", "MP", "MR", "MS", "ME"],
        "ma" => &["MI", "MD", "M+", "M-", "MI"],
        _ => &[],
    };
    if !modes.is_empty() {
        choices.push(one_of(chance, modes));
    }
    if is_new && verb == "md" {
        choices.push("x");
    }
    if happens(chance, 30) {
        choices.push(one_of(chance, &["v v", "!", "Mz", "Tx"]));
    }
    meta_flags(chance, &mut request, &choices);
    request.push("\r\n");
    if verb == "ms" {
        request.push(value);
        request.push("\r\n");
    }
    request
}

const GETS: [u8; 4] = [0x00, 0x09, 0x0c, 0x0d];
const STORES: [u8; 6] = [0x01, 0x02, 0x03, 0x11, 0x12, 0x13];
const JOINS: [u8; 4] = [0x0e, 0x0f, 0x19, 0x1a];
const COUNTS: [u8; 4] = [0x05, 0x06, 0x15, 0x16];
const DELETES: [u8; 2] = [0x04, 0x14];
const TOUCHES: [u8; 5] = [0x1c, 0x1d, 0x1e, 0x23, 0x24];

fn binary(chance: &mut Chance) -> Request {
    let key = key(chance);
    // Its length would be wrong for good.
    let key = if key.len() > 250 { b"key3".to_vec() } else { key };
    let expiry = || -> Vec<u8> { Vec::new() };
    let seconds = one_of(chance, &[0u32, 0, 100, 1000, 4_000_000_000]).to_be_bytes();
    let (opcode, extras, value) = match chance.below(20) {
        0..=5 => (one_of(chance, &GETS), expiry(), Vec::new()),
        6..=10 => {
            let flags = one_of(chance, &[0u32, 9, u32::MAX]).to_be_bytes();
            (one_of(chance, &STORES), [flags, seconds].concat(), value(chance))
        }
        11..=12 => (one_of(chance, &JOINS), expiry(), value(chance)),
        13..=15 => {
            let numbers = [1u64, 10, u64::MAX];
            let [delta, initial] = [(); 2].map(|()| one_of(chance, &numbers).to_be_bytes());
            let seconds = if happens(chance, 2) { [0xff; 4] } else { seconds };
            (one_of(chance, &COUNTS), [&delta[..], &initial, &seconds].concat(), Vec::new())
        }
        16 => (one_of(chance, &DELETES), expiry(), Vec::new()),
        _ => (one_of(chance, &TOUCHES), seconds.to_vec(), Vec::new()),
    };
    let takes_cas = !GETS.contains(&opcode) && !TOUCHES.contains(&opcode);
    let cas = (takes_cas && happens(chance, 4)).then(|| !happens(chance, 3));
    packet(opcode, &key, &extras, &value, cas)
}

fn packet(opcode: u8, key: &[u8], extras: &[u8], value: &[u8], cas: Option<bool>) -> Request {
    let body = u32::try_from(key.len() + extras.len() + value.len()).unwrap();
    let [a, b] = u16::try_from(key.len()).unwrap().to_be_bytes();
    let mut head = vec![0x80, opcode, a, b, u8::try_from(extras.len()).unwrap(), 0, 0, 0];
    head.extend_from_slice(&body.to_be_bytes());
    head.extend_from_slice(b"Oqe\0");
    let mut request = Request::text(Dialect::Binary, Some(key), head);
    match cas {
        Some(is_right) => {
            request.pieces.push(Piece::CasInBinary { key: key.to_vec(), is_right });
        }
        None => request.push([0; 8]),
    }
    request.push([extras, key, value].concat());
    request
}
