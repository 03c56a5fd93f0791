//! Replies in memcached's text: `VALUE <key> <flags> <bytes>`, and lines of a word.

use super::line::{failure, newline, number};
use super::{Answers, Head};
use crate::reply::{Nonsense, Outcome};
use crate::workload::{Request, Verb};

const VALUE: &[u8] = b"VALUE ";
const END: &[u8] = b"END\r\n";
const STORED: &[u8] = b"STORED\r\n";

/// `get` and `set`.
#[derive(Debug)]
pub struct Text;

impl Answers for Text {
    const TAIL: &[u8] = b"\r\nEND\r\n";
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
    if verb != Verb::Set && input.first() == Some(&b'V') {
        return value(input, key_bytes);
    }
    let known = match verb {
        Verb::Get if input.starts_with(END) => {
            Head::Whole { bytes: END.len(), outcome: Outcome::Miss }
        }
        Verb::GetMany if input.starts_with(END) => Head::EndOfMany { bytes: END.len() },
        Verb::Set if input.starts_with(STORED) => {
            Head::Whole { bytes: STORED.len(), outcome: Outcome::Stored }
        }
        Verb::Get | Verb::GetMany | Verb::Set => return refusal(input, verb),
    };
    Ok(Some(known))
}

fn refusal(input: &[u8], verb: Verb) -> Result<Option<Head<'_>>, Nonsense> {
    let not_stored: &[u8] = if verb == Verb::Set { b"NOT_STORED" } else { b"" };
    Ok(failure(input, not_stored)?
        .map(|(bytes, failure)| Head::Whole { bytes, outcome: Outcome::Failed(failure) }))
}

#[inline]
fn value(input: &[u8], key_bytes: usize) -> Result<Option<Head<'_>>, Nonsense> {
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
    let Some((value_bytes, used)) = number(&input[at..], b'\r')? else { return Ok(None) };
    at += used;
    let key = &input[VALUE.len()..VALUE.len() + key_bytes];
    Ok(newline(input, at)?.map(|bytes| Head::Value { bytes, value_bytes, key }))
}
