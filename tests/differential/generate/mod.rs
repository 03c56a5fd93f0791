//! Requests that are made up from a seed: mostly right, about few keys, so that they meet.

mod binary;
mod meta;
mod text;

use super::common::Chance;
use super::common::transcript::Version;

/// The release that ours is like. Older ones know fewer words.
pub const LIKE: Version = [1, 6, 45];

/// A key, and the same in base64.
pub type Key = (&'static [u8], &'static [u8]);

/// All keys that an item may have.
pub const KEYS: [Key; 8] = [
    (b"a", b"YQ=="),
    (b"b", b"Yg=="),
    (b"key3", b"a2V5Mw=="),
    (b"number", b"bnVtYmVy"),
    (b"count", b"Y291bnQ="),
    (b"\x01\xff\x7f", b"Af9/"),
    (WITH_SPACE, b"Zm9vIGJhcg=="),
    (&[b'k'; 250], b""),
];

/// A key that only the binary protocol, and base64, can say.
const WITH_SPACE: &[u8] = b"foo bar";

/// The longest opaque and one more.
const LONG_OPAQUE: &[u8] = b" O01234567890123456789012345678901";

/// Seconds that are far from over when a run ends.
const LONG_S: u32 = 1_000_000;

/// What a request is written in. Each has a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    Text,
    Meta,
    Binary,
}

impl Dialect {
    pub const ALL: [Dialect; 3] = [Dialect::Text, Dialect::Meta, Dialect::Binary];

    /// A request whose reply marks the end of the one before it.
    pub fn mark(self) -> &'static [u8] {
        match self {
            Dialect::Text | Dialect::Meta => b"mn\r\n",
            Dialect::Binary => b"\x80\x0a\0\0\0\0\0\0\0\0\0\0MARK\0\0\0\0\0\0\0\0",
        }
    }
}

/// Which cas a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The one that the server gave last for the key.
    Last,
    /// The one before it.
    Former,
    /// One that no server gives.
    Foreign,
}

/// A part of a request.
#[derive(Clone, Debug)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// In decimal or, for the binary protocol, in eight bytes.
    Cas {
        key: Vec<u8>,
        choice: Choice,
    },
}

impl Piece {
    /// What is the same for every server; a digit for a cas.
    pub fn text(&self) -> &[u8] {
        match self {
            Piece::Bytes(bytes) => bytes,
            Piece::Cas { .. } => b"0",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Request {
    pub dialect: Dialect,
    pub pieces: Vec<Piece>,
    /// The keys that it may be about; the first is the one whose cas it tells.
    pub keys: Vec<Vec<u8>>,
    /// True when it may be about all keys.
    pub is_wide: bool,
    pub effect: Effect,
}

/// What a request is for, as far as it matters to those beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    /// Asks for values.
    Reads,
    /// Adds to a number, or subtracts from it.
    Counts,
    #[default]
    Other,
}

impl Request {
    pub fn new(dialect: Dialect) -> Request {
        Request {
            dialect,
            pieces: Vec::new(),
            keys: Vec::new(),
            is_wide: false,
            effect: Effect::Other,
        }
    }

    fn about(dialect: Dialect, key: &[u8]) -> Request {
        Request { keys: vec![key.to_vec()], ..Request::new(dialect) }
    }

    /// Whether it counts and gives the number an exptime, or a cas of the peer's own.
    pub fn gives_to_counted(&self) -> bool {
        let gives = |piece: &Piece| {
            let mut words = piece.text().split(|byte| *byte == b' ');
            words.any(|word| matches!(word, [b'T' | b'E', ..]))
        };
        let is_counting = self.dialect == Dialect::Meta && self.effect == Effect::Counts;
        is_counting && self.pieces.iter().any(gives)
    }

    /// Whether its opaque is too long, which the original finds when it has done the rest.
    fn is_half_done(&self) -> bool {
        let mut pieces = self.pieces.iter().map(Piece::text);
        let is_meta = self.dialect == Dialect::Meta;
        is_meta
            && pieces.any(|text| text.windows(LONG_OPAQUE.len()).any(|some| some == LONG_OPAQUE))
    }

    fn push(&mut self, bytes: impl AsRef<[u8]>) {
        match self.pieces.last_mut() {
            Some(Piece::Bytes(last)) => last.extend_from_slice(bytes.as_ref()),
            Some(Piece::Cas { .. }) | None => {
                self.pieces.push(Piece::Bytes(bytes.as_ref().to_vec()));
            }
        }
    }

    fn push_cas(&mut self, key: &[u8], choice: Choice) {
        self.pieces.push(Piece::Cas { key: key.to_vec(), choice });
    }
}

/// Made-up requests for an original of this version.
pub struct Source {
    chance: Chance,
    version: Version,
    /// Whether peers choose cas themselves, or flush: what a flush takes depends on both a second
    /// and a cas in the original.
    chooses_cas: bool,
}

impl Source {
    pub fn new(seed: u64, version: Version) -> Source {
        let chooses_cas = seed % 2 == 1;
        Source { chance: Chance::new(seed), version, chooses_cas }
    }

    /// One request, or several of a dialect that are sent as one.
    pub fn step(&mut self) -> Vec<Request> {
        if self.happens(30) {
            return self.run_of_counts();
        }
        let dialect = self.one_of(&Dialect::ALL);
        let count = if self.happens(4) { 2 + self.below(8) } else { 1 };
        let request = |_| match dialect {
            Dialect::Text => self.text(),
            Dialect::Meta => self.meta(),
            Dialect::Binary => self.binary(),
        };
        let mut step: Vec<Request> = (0..count).map(request).collect();
        // The original looks at whether a number is being sent when it changes it, and changes what
        // is none here.
        let is_counting = |request: &Request| request.effect == Effect::Counts;
        if step.iter().any(is_counting) {
            step.retain(|request| request.effect != Effect::Reads);
        }
        // What it does otherwise is met by the next request.
        let misleads = |request: &Request| is_counting(request) || request.is_half_done();
        if let Some(last) = step.iter().position(misleads) {
            step.truncate(last + 1);
        }
        step
    }

    fn is_new(&self) -> bool {
        self.version >= LIKE
    }

    fn below(&mut self, end: usize) -> usize {
        self.chance.below(end)
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Once in so many times.
    fn happens(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn key(&mut self) -> Key {
        match self.below(30) {
            0 => KEYS[7],
            1..=2 => KEYS[5],
            number => KEYS[number % 5],
        }
    }

    fn choice(&mut self) -> Choice {
        match self.below(6) {
            0 => Choice::Foreign,
            1 => Choice::Former,
            _ => Choice::Last,
        }
    }

    fn number(&mut self) -> &'static str {
        const FINE: &[&str] =
            &["0", "1", "5", "42", "99", "1000", "18446744073709551615", "18446744073709551614"];
        const ODD: &[&str] = &[
            "007",
            "12 ",
            "1 2",
            "0x10",
            "",
            " ",
            "18446744073709551616",
            "1e3",
            "00000000000000000001",
            "12x",
            "9    ",
            "12\r\n",
        ];
        if self.happens(4) { self.one_of(ODD) } else { self.one_of(FINE) }
    }

    /// Never with letters that could be taken for a mark.
    fn value(&mut self, key: &[u8]) -> Vec<u8> {
        let is_number = key == b"number" || key == b"count";
        if if is_number { !self.happens(8) } else { self.happens(6) } {
            return self.number().into();
        }
        let bytes = match self.below(300) {
            0 => 100_000,
            1 => 1_040_000,
            2 => 600_000,
            3..=20 => 5000,
            21..=30 => 0,
            _ => self.below(200),
        };
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789 \r\n";
        if bytes > 10_000 {
            return vec![self.one_of(LETTERS); bytes];
        }
        (0..bytes).map(|_| self.one_of(LETTERS)).collect()
    }

    /// Nothing that is over before the run is.
    fn exptime(&mut self) -> &'static str {
        self.one_of(&["0", "0", "0", "0", "1000000", "2592000", "-1", "2592001", "2000000000"])
    }
}
