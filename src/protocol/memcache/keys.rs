//! A list of keys, read one at a time, so that it needs no buffer and has no limit.

use super::error::ProtocolError;
use super::head::Parsed;
use super::number::signed;
use super::search::{find, find_either, find_low};
use crate::base::limits::{HEAD_BYTES_MAX, KEY_BYTES_MAX};

/// The head of a list of keys: what to do with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyList {
    /// Replies carry the cas unique (`gets`, `gats`).
    pub with_cas: bool,
    pub touch: KeyTouch,
}

/// What a list of keys does to the exptimes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyTouch {
    /// `get`, `gets`
    #[default]
    No,
    /// `gat`, `gats`
    Exptime(i64),
    /// The first key, if one comes, is answered with the error.
    BadExptime,
}

/// What comes next in a list of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextKey<'a> {
    /// A key; `last` when `consumed` includes the end of the line.
    Key { key: &'a [u8], last: bool, consumed: usize },
    /// The line ended.
    End { consumed: usize },
    /// A key that is too long. The end of its line is not consumed.
    TooLong { consumed: usize },
    /// A proper prefix of a key, or nothing.
    Partial { consumed: usize },
}

/// The head of a list of keys, if `input` starts with one or may become one.
#[inline]
pub fn parse_list(input: &[u8]) -> Option<Parsed<'_>> {
    let list = |with_cas, touch, consumed| {
        Some(Parsed::Keys { list: KeyList { with_cas, touch }, consumed })
    };
    if input.first_chunk() == Some(b"get ") {
        return list(false, KeyTouch::No, 4);
    }
    match input {
        [b'g', b'e', b't', b's', b' ', ..] => list(true, KeyTouch::No, 5),
        [b'g', b'a', b't', b' ', ..] => parse_touch(input, 4, false),
        [b'g', b'a', b't', b's', b' ', ..] => parse_touch(input, 5, true),
        _ => None,
    }
}

fn parse_touch(input: &[u8], verb_bytes: usize, with_cas: bool) -> Option<Parsed<'_>> {
    let head = &input[..input.len().min(HEAD_BYTES_MAX)];
    let spaces = head[verb_bytes..].iter().take_while(|&&byte| byte == b' ').count();
    let start = verb_bytes + spaces;
    match find_either(&head[start..], b' ', b'\n') {
        Some(len) if head[start + len] == b' ' => {
            let touch =
                signed(&head[start..start + len]).map_or(KeyTouch::BadExptime, KeyTouch::Exptime);
            let list = KeyList { with_cas, touch };
            Some(Parsed::Keys { list, consumed: start + len })
        }
        // There is no key. A line that has no exptime either is as bad.
        Some(len) => Some(Parsed::Invalid {
            error: ProtocolError::BadFormat,
            noreply: false,
            consumed: start + len + 1,
        }),
        None => None,
    }
}

/// Reads the next key of a list.
#[inline(always)]
pub fn next_key(input: &[u8]) -> NextKey<'_> {
    plain_key(input).unwrap_or_else(|| any_key(input))
}

/// The next key, if it is as most keys are: one space before it at most, no control character in
/// it, and what follows it is there.
#[inline(always)]
fn plain_key(input: &[u8]) -> Option<NextKey<'_>> {
    let start = usize::from(input.first() == Some(&b' '));
    let rest = &input[start..];
    let (len, end) = find_low(&rest[..rest.len().min(KEY_BYTES_MAX + 2)], b' ')?;
    let (last, end_bytes) = match end {
        b' ' => (false, 0),
        b'\r' if rest.get(len + 1) == Some(&b'\n') => (true, 2),
        _ => return None,
    };
    let key = rest.get(..len).filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()))?;
    Some(NextKey::Key { key, last, consumed: start + len + end_bytes })
}

fn any_key(input: &[u8]) -> NextKey<'_> {
    // Spaces are consumed at once, or a peer could make us keep any number of them.
    let start = input.iter().take_while(|&&byte| byte == b' ').count();
    let rest = &input[start..];
    // One byte more than a key may have could be the CR of the line's end.
    let Some(len) = find_either(&rest[..rest.len().min(KEY_BYTES_MAX + 2)], b' ', b'\n') else {
        return match rest.len() <= KEY_BYTES_MAX + 1 {
            true => NextKey::Partial { consumed: start },
            false => NextKey::TooLong { consumed: start },
        };
    };
    let last = rest[len] == b'\n';
    let key = match &rest[..len] {
        [key @ .., b'\r'] if last => key,
        key => key,
    };
    let consumed = start + len + usize::from(last);
    match key.len() {
        0 => NextKey::End { consumed },
        1..=KEY_BYTES_MAX => NextKey::Key { key, last, consumed },
        _ => NextKey::TooLong { consumed: start },
    }
}

/// Up to where `input` belongs to the present line, and whether the line ends there.
pub fn rest_of_line(input: &[u8]) -> (usize, bool) {
    match find(input, b'\n') {
        Some(place) => (place + 1, true),
        None => (input.len(), false),
    }
}
