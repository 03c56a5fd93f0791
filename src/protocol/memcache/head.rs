//! What a request says before its value.

use super::error::ProtocolError;
use super::keys::{KeyList, parse_list};
use super::meta::{MetaGet, MetaHead, MetaVerb, parse_meta, plain_get};
use super::number::{decimal, signed, without_plus};
use super::operator::{Operator, parse_class_dump, parse_operator};
use super::plain::plain_store;
use super::search::find;
use super::words::Words;
use crate::base::limits::{HEAD_BYTES_MAX, KEY_BYTES_MAX};

/// What a value may at most be said to have: with its line end it fits 31 bits.
pub(super) const VALUE_BYTES_SAID_MAX: u64 = (1 << 31) - 3;

/// A shorter line, end included, is not even an unknown command.
const LINE_BYTES_MIN: usize = 4;

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole head. What a value it announces needs never passes through the parser.
    Head { head: Head<'a>, consumed: usize },
    /// The start of a list of keys: the keys are read by `next_key`.
    Keys { list: KeyList, consumed: usize },
    /// A whole `mg`.
    MetaGet { get: MetaGet<'a>, consumed: usize },
    /// A proper prefix of a head.
    Partial,
    /// `consumed` bytes are beyond use; `error.blame()` says whether the rest is.
    Invalid { error: ProtocolError, noreply: bool, consumed: usize },
}

/// A request, but for its value and its list of keys. All byte strings are the input's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// `value_bytes` and a line end follow.
    Store(StoreHead<'a>),
    /// A storage command in error: `value_bytes` and a line end follow and are of no use; the error
    /// is told after them.
    Refused {
        error: ProtocolError,
        value_bytes: u32,
        noreply: bool,
    },
    Touch {
        key: &'a [u8],
        exptime: i64,
        noreply: bool,
    },
    Delete {
        key: &'a [u8],
        noreply: bool,
    },
    Incr(Delta<'a>),
    Decr(Delta<'a>),
    FlushAll {
        /// `None` when it cannot be read.
        delay: Option<i64>,
        noreply: bool,
    },
    Version,
    Verbosity {
        level: u32,
        noreply: bool,
    },
    Quit,
    /// `None` is a mode that does not exist.
    Shutdown {
        mode: Option<ShutdownMode>,
        noreply: bool,
    },
    /// The statistics asked for, empty for the general ones, and what is to be done about them.
    Stats {
        group: &'a [u8],
        action: &'a [u8],
    },
    /// `value_bytes` and a line end follow, if it is `ms`.
    Meta(MetaHead<'a>),
    /// `mn`
    Noop,
    Operator {
        operator: Operator<'a>,
        noreply: bool,
    },
}

impl Head<'_> {
    /// Bytes of the value that follows a storage command, which has a line end behind it.
    #[inline]
    pub fn value_bytes(&self) -> Option<u32> {
        if let Head::Store(StoreHead { value_bytes, .. })
        | Head::Meta(MetaHead { verb: MetaVerb::Set { value_bytes, .. }, .. }) = self
        {
            return Some(*value_bytes);
        }
        None
    }
}

/// A storage command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreHead<'a> {
    pub verb: StoreVerb,
    pub key: &'a [u8],
    pub flags: u32,
    pub exptime: i64,
    pub value_bytes: u32,
    pub noreply: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreVerb {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    Cas(u64),
}

/// `incr` or `decr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta<'a> {
    pub key: &'a [u8],
    pub delta: u64,
    pub noreply: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    AtOnce,
    Graceful,
}

/// Parses the first request head of `input`.
#[inline]
pub fn parse(input: &[u8]) -> Parsed<'_> {
    // Each returns by itself: what one found is not to be carried past the others.
    if let Some(parsed) = parse_list(input) {
        return parsed;
    }
    if let Some(parsed) = plain_store(input) {
        return parsed;
    }
    if let Some(parsed) = plain_get(input) {
        return parsed;
    }
    parse_head(input)
}

pub(super) fn parse_head(input: &[u8]) -> Parsed<'_> {
    let Some(end) = find(&input[..input.len().min(HEAD_BYTES_MAX)], b'\n') else {
        return match input.len() {
            HEAD_BYTES_MAX.. => Parsed::Invalid {
                error: ProtocolError::HeadTooLong,
                noreply: false,
                consumed: HEAD_BYTES_MAX,
            },
            _ => Parsed::Partial,
        };
    };
    let consumed = end + 1;
    let line = &input[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if let Some(parsed) = parse_meta(line, consumed) {
        return parsed;
    }
    match parse_line(line, consumed) {
        Ok(head) => Parsed::Head { head, consumed },
        Err(Refusal { error, noreply }) => Parsed::Invalid { error, noreply, consumed },
    }
}

/// Why a line is no head.
struct Refusal {
    error: ProtocolError,
    /// Errors are suppressed too.
    noreply: bool,
}

/// Too few words, or one by which the request is framed: told whatever the line ends with.
const BAD_FORMAT: Refusal = Refusal { error: ProtocolError::BadFormat, noreply: false };

fn parse_line(line: &[u8], line_bytes: usize) -> Result<Head<'_>, Refusal> {
    if line_bytes < LINE_BYTES_MIN {
        return Err(BAD_FORMAT);
    }
    if line.starts_with(b" ") {
        return Err(unknown(&Words::of(line)));
    }
    let words = Words::of(line);
    match words.at(0) {
        b"set" => parse_store(StoreVerb::Set, &words),
        b"add" => parse_store(StoreVerb::Add, &words),
        b"cas" => parse_store(StoreVerb::Cas(0), &words),
        b"append" => parse_store(StoreVerb::Append, &words),
        b"replace" => parse_store(StoreVerb::Replace, &words),
        b"prepend" => parse_store(StoreVerb::Prepend, &words),
        b"incr" => Ok(Head::Incr(parse_delta(&words)?)),
        b"decr" => Ok(Head::Decr(parse_delta(&words)?)),
        b"touch" => parse_touch(&words),
        b"delete" => parse_delete(&words),
        // A list of keys without a key, or it would not have come here.
        b"get" | b"gets" | b"gat" | b"gats" => Err(BAD_FORMAT),
        b"version" => Ok(Head::Version),
        b"quit" => Ok(Head::Quit),
        b"stats" => Ok(parse_stats(&words)),
        b"flush_all" => Ok(parse_flush_all(&words)),
        b"verbosity" => parse_verbosity(&words),
        b"shutdown" => Ok(parse_shutdown(&words)),
        _ => parse_other(line, &words),
    }
}

fn parse_other<'a>(line: &'a [u8], words: &Words<'a>) -> Result<Head<'a>, Refusal> {
    let noreply = words.noreply();
    match parse_operator(line, words) {
        Some(Ok(operator)) => Ok(Head::Operator { operator, noreply }),
        Some(Err(error)) => Err(Refusal { error, noreply }),
        None => Err(unknown(words)),
    }
}

fn unknown(words: &Words<'_>) -> Refusal {
    let http = words.count() > 1 && words.last().starts_with(b"HTTP/");
    let error = if http { ProtocolError::Http } else { ProtocolError::UnknownCommand };
    Refusal { error, noreply: words.noreply() }
}

/// The key of a request that needs at least `words_min` words.
fn key_of<'a>(words: &Words<'a>, words_min: usize) -> Result<&'a [u8], Refusal> {
    if words.count() < words_min {
        return Err(BAD_FORMAT);
    }
    match words.at(1) {
        key if key.len() <= KEY_BYTES_MAX => Ok(key),
        _ => Err(Refusal { error: ProtocolError::BadFormat, noreply: words.noreply() }),
    }
}

//= protocol.txt "Storage commands"
fn parse_store<'a>(verb: StoreVerb, words: &Words<'a>) -> Result<Head<'a>, Refusal> {
    if words.count() < 5 {
        return Err(BAD_FORMAT);
    }
    let value_bytes = decimal(words.at(4))
        .filter(|bytes| *bytes <= VALUE_BYTES_SAID_MAX)
        .and_then(|bytes| u32::try_from(bytes).ok())
        .ok_or(BAD_FORMAT)?;
    let noreply = words.noreply();
    let refused = Head::Refused { error: ProtocolError::BadFormat, value_bytes, noreply };
    let key = words.at(1);
    let flags = decimal(without_plus(words.at(2)));
    let exptime = signed(without_plus(words.at(3)));
    let verb = match verb {
        StoreVerb::Cas(_) => decimal(words.at(5)).map(StoreVerb::Cas),
        StoreVerb::Set
        | StoreVerb::Add
        | StoreVerb::Replace
        | StoreVerb::Append
        | StoreVerb::Prepend => Some(verb),
    };
    Ok(match (flags, exptime, verb) {
        (Some(flags), Some(exptime), Some(verb)) if key.len() <= KEY_BYTES_MAX => {
            let flags = low_32_bits(flags);
            Head::Store(StoreHead { verb, key, flags, exptime, value_bytes, noreply })
        }
        _ => refused,
    })
}

/// Flags of more than 32 bits are cut, as memcached does.
#[allow(clippy::cast_possible_truncation, reason = "cutting is what is asked for")]
const fn low_32_bits(flags: u64) -> u32 {
    flags as u32
}

fn parse_delta<'a>(words: &Words<'a>) -> Result<Delta<'a>, Refusal> {
    let key = key_of(words, 3)?;
    let noreply = words.noreply();
    let delta = decimal(words.at(2)).ok_or(Refusal { error: ProtocolError::BadDelta, noreply })?;
    Ok(Delta { key, delta, noreply })
}

/// Old clients send a time, which must be 0. 1.6.45 does not look at what follows the key;
/// memccapable wants it refused, as older memcacheds do.
fn parse_delete<'a>(words: &Words<'a>) -> Result<Head<'a>, Refusal> {
    let key = key_of(words, 2)?;
    let noreply = words.noreply();
    match (words.count(), words.at(2)) {
        (2, _) | (3, b"0" | b"noreply") => Ok(Head::Delete { key, noreply }),
        (4, b"0") if noreply => Ok(Head::Delete { key, noreply }),
        _ => Err(Refusal { error: ProtocolError::BadDelete, noreply }),
    }
}

fn parse_touch<'a>(words: &Words<'a>) -> Result<Head<'a>, Refusal> {
    let key = key_of(words, 3)?;
    let noreply = words.noreply();
    let exptime =
        signed(words.at(2)).ok_or(Refusal { error: ProtocolError::BadExptime, noreply })?;
    Ok(Head::Touch { key, exptime, noreply })
}

/// Statistics, or what only looks like them.
fn parse_stats<'a>(words: &Words<'a>) -> Head<'a> {
    match words.at(1) {
        b"cachedump" => Head::Operator { operator: parse_class_dump(words), noreply: false },
        group => Head::Stats { group, action: words.at(2) },
    }
}

fn parse_flush_all<'a>(words: &Words<'a>) -> Head<'a> {
    let noreply = words.noreply();
    let delay = match words.count() - usize::from(noreply) {
        1 => Some(0),
        // What is no time is a slip, and must not mean never, as in memcached 1.6.45.
        _ => signed(words.at(1)).filter(|delay| i32::try_from(*delay).is_ok()),
    };
    Head::FlushAll { delay, noreply }
}

fn parse_verbosity<'a>(words: &Words<'a>) -> Result<Head<'a>, Refusal> {
    let noreply = words.noreply();
    let level = decimal(words.at(1)).and_then(|level| u32::try_from(level).ok());
    let level = level.ok_or(Refusal { error: ProtocolError::BadFormat, noreply })?;
    Ok(Head::Verbosity { level, noreply })
}

fn parse_shutdown<'a>(words: &Words<'a>) -> Head<'a> {
    let mode = match (words.count(), words.at(1)) {
        (1, _) => Some(ShutdownMode::AtOnce),
        (2, b"graceful") => Some(ShutdownMode::Graceful),
        _ => None,
    };
    Head::Shutdown { mode, noreply: words.noreply() }
}
