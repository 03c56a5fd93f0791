//! The differences that are meant, as `README.md` lists them: how each is recognized.

use super::Pair;
use super::common::transcript::Version;
use super::generate::{Dialect, Effect, LIKE, Piece, Request};
use super::peer::CLOSED;
use super::reply::Reply;

const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
const ERROR: &[u8] = b"ERROR\r\n";
const OPAQUE_TOO_LONG: &[u8] = b"CLIENT_ERROR opaque token too long\r\n";
const NON_NUMERIC: &[u8] = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";

/// Statuses of packets.
const EXISTS: u8 = 2;
const NO_NUMBER: u8 = 6;

/// Bytes of the longest key, and of the longest value that ours takes for a number.
const KEY_BYTES_MAX: usize = 250;
const NUMBER_BYTES_MAX: usize = 20;

/// A difference that is meant.
pub struct Meant {
    /// As `README.md` has it.
    pub name: &'static str,
    /// True when both know the same afterwards.
    pub is_harmless: bool,
    is_it: fn(&Case<'_>) -> bool,
}

const fn leaves_the_same(name: &'static str, is_it: fn(&Case<'_>) -> bool) -> Meant {
    Meant { name, is_harmless: true, is_it }
}

const fn leaves_another(name: &'static str, is_it: fn(&Case<'_>) -> bool) -> Meant {
    Meant { name, is_harmless: false, is_it }
}

pub const TABLE: &[Meant] = &[
    leaves_another("older words", older_words),
    leaves_another("older loudness", older_loudness),
    leaves_another("long key in a list", long_key_in_list),
    leaves_another("number and more", number_and_more),
    leaves_another("word behind the key of a delete", word_behind_delete),
    leaves_another("value of a refused ms", value_of_refused),
    leaves_another("opaque that is too long", |case| has_other_effect(case.ours)),
    leaves_the_same("cas of a long value", cas_of_long_value),
    leaves_the_same("time left of what is over", time_of_what_is_over),
    leaves_the_same("key as it was sent", key_as_sent),
    leaves_the_same("marks of a number that has grown", marks_of_grown),
];

/// What there is to tell a difference by.
struct Case<'a> {
    dialect: Dialect,
    /// Of the request's first line.
    words: Vec<&'a [u8]>,
    ours: &'a Reply,
    theirs: &'a Reply,
    version: Version,
    /// The value that is to be counted, as ours has it.
    value: Option<Vec<u8>>,
    /// Whether the key has, or may have, a number that was shorter.
    has_grown: bool,
}

/// Which difference this is, where it is meant.
pub fn difference(
    pair: &mut Pair,
    request: &Request,
    ours: &Reply,
    theirs: &Reply,
) -> Option<&'static Meant> {
    let text: Vec<u8> = request.pieces.iter().flat_map(Piece::text).copied().collect();
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let words = line.trim_ascii_end().split(|byte| *byte == b' ');
    let (key, is_counting) = (request.keys.first(), request.effect == Effect::Counts);
    let case = Case {
        dialect: request.dialect,
        words: words.filter(|word| !word.is_empty()).collect(),
        ours,
        theirs,
        version: pair.version,
        value: key.filter(|_| is_counting).and_then(|key| pair.value(key)),
        has_grown: key.is_some_and(|key| pair.grown.contains(key)),
    };
    TABLE.iter().find(|meant| (meant.is_it)(&case))
}

/// True of a reply behind which the original has done what it refuses.
pub fn has_other_effect(reply: &Reply) -> bool {
    reply.bytes == OPAQUE_TOO_LONG
}

impl Case<'_> {
    fn verb(&self) -> &[u8] {
        match self.dialect {
            Dialect::Text | Dialect::Meta => self.words.first().copied().unwrap_or_default(),
            Dialect::Binary => b"",
        }
    }

    fn has_flag(&self, letter: u8) -> bool {
        self.dialect == Dialect::Meta && self.words.iter().skip(2).any(|word| word[0] == letter)
    }
}

fn lines(reply: &Reply) -> impl Iterator<Item = &[u8]> {
    reply.bytes.split_inclusive(|byte| *byte == b'\n')
}

fn status(reply: &Reply) -> Option<u8> {
    reply.bytes.get(7).copied()
}

/// But for what says that a request is not proper, the lines are the same.
fn older_words(case: &Case<'_>) -> bool {
    let is_meta = case.dialect == Dialect::Meta;
    let is_error = |line: &&[u8]| {
        *line == ERROR || *line == BAD_FORMAT || is_meta && line.starts_with(b"CLIENT_ERROR ")
    };
    let is_end = |line: &&[u8]| case.verb() == b"gat" && *line == b"END\r\n";
    let rest = |line: &&[u8]| !is_error(line) && !is_end(line);
    case.version < LIKE
        && case.dialect != Dialect::Binary
        && lines(case.ours).chain(lines(case.theirs)).any(|line| is_error(&line))
        && lines(case.ours).filter(rest).eq(lines(case.theirs).filter(rest))
}

fn older_loudness(case: &Case<'_>) -> bool {
    let told = &case.theirs.bytes;
    case.version < LIKE
        && case.verb() == b"ma"
        && case.has_flag(b'q')
        && case.has_flag(b'N')
        && case.ours.bytes.is_empty()
        && (told.starts_with(b"HD") || told.starts_with(b"VA "))
}

fn long_key_in_list(case: &Case<'_>) -> bool {
    matches!(case.verb(), b"get" | b"gets" | b"gat" | b"gats")
        && case.words.iter().any(|word| word.len() > KEY_BYTES_MAX)
        && case.ours.bytes.ends_with(BAD_FORMAT)
}

fn number_and_more(case: &Case<'_>) -> bool {
    let is_refused = match case.dialect {
        Dialect::Text | Dialect::Meta => case.ours.bytes == NON_NUMERIC,
        Dialect::Binary => status(case.ours) == Some(NO_NUMBER),
    };
    is_refused && case.value.as_ref().is_none_or(|value| is_number_there(value))
}

/// Whether a value is no number here, and one there.
pub fn is_number_there(value: &[u8]) -> bool {
    let digits = value.trim_ascii_end();
    let is_plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let may_begin = value.trim_ascii_start().first().is_none_or(u8::is_ascii_digit);
    !value.is_empty() && may_begin && (!is_plain || value.len() > NUMBER_BYTES_MAX)
}

fn word_behind_delete(case: &Case<'_>) -> bool {
    matches!(case.words[..], [b"delete", _, word, ..] if word != b"0" && word != b"noreply")
        && case.ours.bytes.starts_with(b"CLIENT_ERROR bad command line format.  Usage: delete")
}

fn value_of_refused(case: &Case<'_>) -> bool {
    case.verb() == b"ms"
        && case.words.iter().skip(3).any(|word| !word[0].is_ascii_alphabetic())
        && case.ours.bytes.starts_with(BAD_FORMAT)
        // A long one is a line without an end, and its connection is closed.
        && (case.theirs.bytes.starts_with(BAD_FORMAT) || case.theirs.bytes == CLOSED)
}

fn cas_of_long_value(case: &Case<'_>) -> bool {
    match case.dialect {
        Dialect::Text | Dialect::Meta => {
            case.ours.bytes.starts_with(b"EX") && case.theirs.bytes == NON_NUMERIC
        }
        Dialect::Binary => {
            status(case.ours) == Some(EXISTS) && status(case.theirs) == Some(NO_NUMBER)
        }
    }
}

/// Seconds below zero have no sign there.
fn time_of_what_is_over(case: &Case<'_>) -> bool {
    let mut times = case.ours.times.iter().zip(&case.theirs.times);
    case.ours.bytes == case.theirs.bytes
        && times.any(|(ours, theirs)| *ours == 0 && *theirs > u64::from(u32::MAX / 2))
}

fn key_as_sent(case: &Case<'_>) -> bool {
    (case.has_flag(b'k') || case.verb() == b"me")
        && without(case.ours, b"kb") == without(case.theirs, b"kb")
}

fn marks_of_grown(case: &Case<'_>) -> bool {
    // And, of `me`, whether it was fetched. How the key is written may differ as well.
    let marks = if case.verb() == b"me" { &b"f"[..] } else { b"hWXZkb" };
    case.dialect == Dialect::Meta
        && case.has_grown
        && without(case.ours, marks) == without(case.theirs, marks)
}

/// The words of the first line that do not begin with these letters, and what follows the line.
fn without(reply: &Reply, letters: &[u8]) -> Vec<Vec<u8>> {
    let bytes = &reply.bytes;
    let end = bytes.iter().position(|byte| *byte == b'\r').unwrap_or(bytes.len());
    let words = bytes[..end].split(|byte| *byte == b' ');
    // The second word is the key.
    let named = if bytes.starts_with(b"ME ") { 2 } else { 0 };
    let words =
        words.skip(named).filter(|word| word.first().is_none_or(|one| !letters.contains(one)));
    words.map(<[u8]>::to_vec).chain([bytes[end..].to_vec()]).collect()
}
