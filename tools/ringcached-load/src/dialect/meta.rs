//! Replies to meta commands: two letters, and flags in the order in which they were asked for.
//!
//! A get of one key asks for `v` alone; one of many asks for `k` too, since misses are silent.

use super::line::{failure, newline, number};
use super::{Answers, Head};
use crate::failure::Failure;
use crate::reply::{Nonsense, Outcome};
use crate::workload::{Request, Verb};

const VALUE: &[u8] = b"VA ";
const WORD_BYTES: usize = b"EN\r\n".len();

/// `mg` and `ms`.
#[derive(Debug)]
pub struct Meta;

impl Answers for Meta {
    const TAIL: &[u8] = b"\r\n";
    const TAIL_OF_MANY: &[u8] = b"\r\n";

    #[inline]
    fn head(
        input: &[u8],
        request: Request,
        key_bytes: usize,
    ) -> Result<Option<Head<'_>>, Nonsense> {
        head(input, request.verb, key_bytes)
    }
}

#[inline]
fn head(input: &[u8], verb: Verb, key_bytes: usize) -> Result<Option<Head<'_>>, Nonsense> {
    if verb != Verb::Set && input.starts_with(VALUE) {
        return value(input, verb, key_bytes);
    }
    let Some(word) = input.get(..WORD_BYTES) else {
        // A beginning that belongs to no word is known to be nonsense only with its line's end.
        return Ok(None);
    };
    let bytes = WORD_BYTES;
    Ok(Some(match (verb, word) {
        (Verb::Get, b"EN\r\n") => Head::Whole { bytes, outcome: Outcome::Miss },
        (Verb::Set, b"HD\r\n") => Head::Whole { bytes, outcome: Outcome::Stored },
        (Verb::Set, b"NS\r\n") => {
            Head::Whole { bytes, outcome: Outcome::Failed(Failure::NotStored) }
        }
        (Verb::GetMany, b"MN\r\n") => Head::EndOfMany { bytes },
        (Verb::GetMany, _) => {
            return Ok(failure(input, b"")?.map(|(bytes, failure)| Head::Lapse { bytes, failure }));
        }
        (Verb::Get | Verb::Set, _) => {
            return Ok(failure(input, b"")?
                .map(|(bytes, failure)| Head::Whole { bytes, outcome: Outcome::Failed(failure) }));
        }
    }))
}

/// `VA <bytes>`, or `VA <bytes> k<key>` when it is one of many.
#[inline]
fn value(input: &[u8], verb: Verb, key_bytes: usize) -> Result<Option<Head<'_>>, Nonsense> {
    let mut at = VALUE.len();
    let behind = if verb == Verb::GetMany { b' ' } else { b'\r' };
    let Some((value_bytes, used)) = number(&input[at..], behind)? else { return Ok(None) };
    at += used;
    let mut key: &[u8] = b"";
    if verb == Verb::GetMany {
        let end = at + 1 + key_bytes;
        if input.get(at).is_some_and(|letter| *letter != b'k') {
            return Err(Nonsense);
        }
        match input.get(end) {
            None => return Ok(None),
            Some(b'\r') => key = &input[at + 1..end],
            Some(_) => return Err(Nonsense),
        }
        at = end + 1;
    }
    Ok(newline(input, at)?.map(|bytes| Head::Value { bytes, value_bytes, key }))
}
