//! Replies, and what of them can be compared.

use super::generate::{Dialect, Request};
use std::collections::BTreeMap;

const HEAD_BYTES: usize = 24;

/// How far the two clocks may be apart, in seconds: the original's has whole ones.
const CLOCKS_APART_S: u64 = 3;

/// The numbers of cas that a server gave, for each key in the order in which they were seen: they
/// need not be other than those of other keys.
#[derive(Debug, Default)]
pub struct Ordinals(BTreeMap<Vec<u8>, BTreeMap<u64, usize>>);

impl Ordinals {
    pub fn forget(&mut self, key: &[u8]) {
        self.0.remove(key);
    }

    fn of(&mut self, key: &[u8], cas: u64) -> usize {
        let seen = self.0.entry(key.to_vec()).or_default();
        let next = seen.len() + 1;
        *seen.entry(cas).or_insert(next)
    }
}

/// A reply as it can be compared.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// What is each server's own business is replaced: each cas by its ordinal, each time by `~`.
    pub bytes: Vec<u8>,
    /// Seconds until something dies.
    pub times: Vec<u64>,
    /// The numbers of cas in it, with their keys.
    pub cas: Vec<(Vec<u8>, u64)>,
}

impl Reply {
    fn push_cas(&mut self, key: &[u8], cas: u64, ordinals: &mut Ordinals) {
        self.cas.push((key.to_vec(), cas));
        self.bytes.extend_from_slice(format!("cas#{}", ordinals.of(key, cas)).as_bytes());
    }

    pub fn is_like(&self, other: &Reply) -> bool {
        let mut times = self.times.iter().zip(&other.times);
        self.bytes == other.bytes
            && self.times.len() == other.times.len()
            && times.all(|(one, two)| one.abs_diff(*two) <= CLOCKS_APART_S)
    }

    pub fn shown(&self) -> String {
        format!("{} ({} bytes) {:?}", ends(&self.bytes), self.bytes.len(), self.times)
    }
}

/// How bytes begin and, where they are many, end.
pub fn ends(bytes: &[u8]) -> String {
    const SHOWN: usize = 90;
    match bytes.len() {
        0..300 => bytes.escape_ascii().to_string(),
        len => {
            let (first, last) = (&bytes[..SHOWN], &bytes[len - SHOWN..]);
            format!("{} ... {}", first.escape_ascii(), last.escape_ascii())
        }
    }
}

/// Where the next mark in a reply begins, and where it ends. Of the first bytes, so many have been
/// looked at before.
pub fn mark(dialect: Dialect, reply: &[u8], seen: usize) -> Option<(usize, usize)> {
    if dialect != Dialect::Binary {
        let mark = b"MN\r\n";
        let start = seen.saturating_sub(mark.len());
        let at = reply[start..].windows(mark.len()).position(|window| window == mark)?;
        return Some((start + at, start + at + mark.len()));
    }
    let mut at = 0;
    loop {
        let head = reply.get(at..at + HEAD_BYTES)?;
        let end = at + HEAD_BYTES + body_bytes(head);
        if head[1] == 0x0a && &head[12..16] == b"MARK" {
            return (end <= reply.len()).then_some((at, end));
        }
        at = end;
    }
}

fn body_bytes(head: &[u8]) -> usize {
    u32::from_be_bytes(head[8..12].try_into().unwrap()) as usize
}

pub fn comparable(request: &Request, bytes: &[u8], ordinals: &mut Ordinals) -> Reply {
    let key = request.keys.first().map_or(&b""[..], |key| key);
    match request.dialect {
        Dialect::Text | Dialect::Meta => of_text(bytes, key, ordinals),
        Dialect::Binary => of_binary(bytes, key, ordinals),
    }
}

fn of_text(mut rest: &[u8], key: &[u8], ordinals: &mut Ordinals) -> Reply {
    let mut reply = Reply::default();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        let value_bytes = of_line(line, key, &mut reply, ordinals);
        let (value, after) = after.split_at(value_bytes.min(after.len()));
        reply.bytes.extend_from_slice(value);
        rest = after;
    }
    reply
}

/// How many bytes of a value follow the line.
fn of_line(line: &[u8], key: &[u8], reply: &mut Reply, ordinals: &mut Ordinals) -> usize {
    let end = line.trim_ascii_end().len();
    let words: Vec<&[u8]> = line[..end].split(|byte| *byte == b' ').collect();
    let is_meta = matches!(words[0], b"VA" | b"HD" | b"NS" | b"EX" | b"NF");
    for (place, word) in words.iter().enumerate() {
        if place > 0 {
            reply.bytes.push(b' ');
        }
        let (named, number) = match (words[0], place, *word) {
            (b"VALUE", 4, number) => (&b"cas"[..], decimal(number)),
            (b"ME", 2.., field) => {
                let equals = field.iter().position(|byte| *byte == b'=').unwrap_or(0);
                (&field[..equals], decimal(&field[(equals + 1).min(field.len())..]))
            }
            (_, 1.., [b'c', number @ ..]) if is_meta => (&b"cas"[..], decimal(number)),
            (_, 1.., [b't', number @ ..]) if is_meta => (&b"exp"[..], decimal(number)),
            (_, 1.., [b'l', number @ ..]) if is_meta => (&b"la"[..], decimal(number)),
            _ => (&b""[..], None),
        };
        match (named, number) {
            (b"cas", Some(cas)) => {
                let key = if words[0] == b"VALUE" { words[1] } else { key };
                reply.push_cas(key, cas, ordinals);
            }
            (b"exp", Some(seconds)) => {
                reply.times.push(seconds);
                reply.bytes.extend_from_slice(b"exp~");
            }
            (b"la" | b"cls" | b"size", Some(_)) => {
                reply.bytes.extend_from_slice(named);
                reply.bytes.push(b'~');
            }
            _ => reply.bytes.extend_from_slice(word),
        }
    }
    reply.bytes.extend_from_slice(&line[end..]);
    let value_bytes = match words[..] {
        [b"VALUE", _, _, bytes, ..] | [b"VA", bytes, ..] => decimal(bytes).map(|bytes| bytes + 2),
        _ => None,
    };
    value_bytes.map_or(0, |bytes| usize::try_from(bytes).unwrap())
}

fn decimal(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn of_binary(mut rest: &[u8], key: &[u8], ordinals: &mut Ordinals) -> Reply {
    let mut reply = Reply::default();
    while let Some((head, after)) = rest.split_at_checked(HEAD_BYTES) {
        let cas = u64::from_be_bytes(head[16..].try_into().unwrap());
        reply.bytes.extend_from_slice(&head[..16]);
        if cas != 0 {
            reply.push_cas(key, cas, ordinals);
        }
        let (body, after) = after.split_at(body_bytes(head).min(after.len()));
        reply.bytes.extend_from_slice(body);
        rest = after;
    }
    reply.bytes.extend_from_slice(rest);
    reply
}
