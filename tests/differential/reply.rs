//! Replies, and what of them can be compared.

use super::common::transcript::Version;
use super::generate::{Dialect, MARK, NO_OP, Request};
use std::collections::BTreeMap;

/// The end of a reply in text: that of the no-op, whose letters no value has.
const END: &[u8] = b"MN\r\n";
const HEAD_BYTES: usize = 24;

/// The numbers of cas that a server gave, in the order in which they were seen.
#[derive(Debug, Default)]
pub struct Ordinals(BTreeMap<u64, usize>);

impl Ordinals {
    fn of(&mut self, cas: u64) -> usize {
        let next = self.0.len() + 1;
        *self.0.entry(cas).or_insert(next)
    }
}

/// A reply as it can be compared, and the last cas in it.
pub struct Seen {
    pub bytes: Vec<u8>,
    pub cas: Option<u64>,
}

/// True when the mark has come.
pub fn is_whole(dialect: Dialect, reply: &[u8]) -> bool {
    match dialect {
        Dialect::Text | Dialect::Meta => reply.ends_with(END),
        Dialect::Binary => {
            let last = reply.len().checked_sub(HEAD_BYTES).map(|at| &reply[at..]);
            last.is_some_and(|head| head.starts_with(&[0x81, NO_OP]) && head[12..16] == MARK)
        }
    }
}

pub fn comparable(dialect: Dialect, reply: &[u8], ordinals: &mut Ordinals) -> Seen {
    match dialect {
        Dialect::Text | Dialect::Meta => of_text(reply, ordinals),
        Dialect::Binary => of_binary(reply, ordinals),
    }
}

fn of_text(mut rest: &[u8], ordinals: &mut Ordinals) -> Seen {
    let mut seen = Seen { bytes: Vec::new(), cas: None };
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, after) = rest.split_at(end);
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let value_bytes = match words[..] {
            [b"VALUE", _, _, bytes, ..] | [b"VA", bytes, ..] => decimal(bytes).map(|n| n + 2),
            _ => None,
        };
        let is_meta = matches!(words[0], b"VA" | b"HD" | b"EN" | b"NS" | b"EX" | b"NF");
        for (place, word) in words.iter().enumerate() {
            let cas = match word.strip_prefix(b"c") {
                Some(number) if is_meta && place > 0 => decimal(number),
                _ if words[0] == b"VALUE" && place == 4 => decimal(word),
                _ => None,
            };
            if place > 0 {
                seen.bytes.push(b' ');
            }
            match cas {
                Some(cas) => {
                    let cas = u64::try_from(cas).unwrap();
                    seen.cas = Some(cas);
                    let end = if word.ends_with(b"\r\n") { "\r\n" } else { "" };
                    let ordinal = format!("#{}{end}", ordinals.of(cas));
                    seen.bytes.extend_from_slice(ordinal.as_bytes());
                }
                None => seen.bytes.extend_from_slice(word),
            }
        }
        let (value, after) = after.split_at(value_bytes.unwrap_or(0).min(after.len()));
        seen.bytes.extend_from_slice(value);
        rest = after;
    }
    seen
}

fn decimal(word: &[u8]) -> Option<usize> {
    std::str::from_utf8(word.trim_ascii_end()).ok()?.parse().ok()
}

fn of_binary(mut rest: &[u8], ordinals: &mut Ordinals) -> Seen {
    let mut seen = Seen { bytes: Vec::new(), cas: None };
    while let Some((head, after)) = rest.split_at_checked(HEAD_BYTES) {
        let cas = u64::from_be_bytes(head[16..].try_into().unwrap());
        let body = u32::from_be_bytes(head[8..12].try_into().unwrap()) as usize;
        let ordinal = if cas == 0 { 0 } else { ordinals.of(cas) };
        seen.cas = (cas != 0).then_some(cas).or(seen.cas);
        seen.bytes.extend_from_slice(&head[..16]);
        seen.bytes.extend_from_slice(&(ordinal as u64).to_be_bytes());
        let (body, after) = after.split_at(body.min(after.len()));
        seen.bytes.extend_from_slice(body);
        rest = after;
    }
    seen.bytes.extend_from_slice(rest);
    seen
}

pub fn shown(reply: &[u8]) -> String {
    let most = &reply[..reply.len().min(300)];
    format!("{} ({} bytes)", most.escape_ascii(), reply.len())
}

/// Why two replies may differ, where that is meant.
pub fn is_meant(
    _request: &Request,
    _ours: &[u8],
    _theirs: &[u8],
    _version: Version,
) -> Option<&'static str> {
    None
}
