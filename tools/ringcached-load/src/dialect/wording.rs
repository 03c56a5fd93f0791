//! Requests as they go over the wire: templates with key 0 in them, into which numbers are written.

use std::io::Write as _;

use super::Dialect;
use super::binary::{self, BODY_LENGTH_AT, HEADER_BYTES, OPAQUE_AT, Opcode, SET_EXTRAS_BYTES};
use crate::keys::Keys;
use crate::workload::Request;

/// Bytes with a key at some place.
#[derive(Clone, Debug)]
struct Template {
    bytes: Vec<u8>,
    key_at: usize,
}

impl Template {
    fn new(before: &[u8], key: &[u8], behind: &[u8]) -> Template {
        Template { bytes: [before, key, behind].concat(), key_at: before.len() }
    }
}

/// How one dialect says what is asked.
#[derive(Clone, Debug)]
pub struct Wording {
    dialect: Dialect,
    get: Template,
    /// Up to the length of the value, in binary up to the value.
    set: Template,
    /// What a get of many keys begins with, says for each of them, and ends with.
    many: &'static [u8],
    each: Template,
    end: Vec<u8>,
}

impl Wording {
    pub fn new(dialect: Dialect, keys: &Keys) -> Wording {
        let first = keys.first();
        let template = |before: &[u8], behind: &[u8]| Template::new(before, &first, behind);
        match dialect {
            Dialect::Text => Wording {
                dialect,
                get: template(b"get ", b"\r\n"),
                set: template(b"set ", b" 0 0 "),
                many: b"get",
                each: template(b" ", b""),
                end: b"\r\n".to_vec(),
            },
            Dialect::Meta => Wording {
                dialect,
                get: template(b"mg ", b" v\r\n"),
                set: template(b"ms ", b" "),
                many: b"",
                each: template(b"mg ", b" k q v\r\n"),
                end: b"mn\r\n".to_vec(),
            },
            Dialect::Binary => {
                let head = |opcode, extras| binary::header(opcode, keys.bytes_u8(), extras);
                let set = [head(Opcode::Set, 8).as_slice(), &[0; SET_EXTRAS_BYTES]].concat();
                Wording {
                    dialect,
                    get: template(&head(Opcode::Get, 0), b""),
                    set: template(&set, b""),
                    many: b"",
                    each: template(&head(Opcode::GetKQ, 0), b""),
                    end: binary::header(Opcode::Noop, 0, 0).to_vec(),
                }
            }
        }
    }

    /// Appends a get of one key.
    #[inline]
    pub fn append_get(&self, keys: &Keys, request: Request, out: &mut Vec<u8>) {
        self.append(&self.get, keys, (request, request.key), out);
    }

    /// Appends a set up to where its value of `bytes` bytes begins.
    pub fn append_set(&self, keys: &Keys, request: Request, bytes: usize, out: &mut Vec<u8>) {
        let start = out.len();
        self.append(&self.set, keys, (request, request.key), out);
        if self.dialect == Dialect::Binary {
            let body = self.set.bytes.len() - HEADER_BYTES + bytes;
            let body = u32::try_from(body).unwrap_or(u32::MAX).to_be_bytes();
            out[start + BODY_LENGTH_AT..start + OPAQUE_AT].copy_from_slice(&body);
        } else {
            // Writing to memory does not fail.
            let _ = write!(out, "{bytes}\r\n");
        }
    }

    /// What ends a set, behind the value.
    pub fn end_of_set(&self) -> &'static [u8] {
        match self.dialect {
            Dialect::Text | Dialect::Meta => b"\r\n",
            Dialect::Binary => b"",
        }
    }

    /// Appends a get of all of `asked`.
    pub fn append_many(
        &self,
        keys: &Keys,
        request: Request,
        asked: impl Iterator<Item = u64>,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(self.many);
        for key in asked {
            self.append(&self.each, keys, (request, key), out);
        }
        let start = out.len();
        out.extend_from_slice(&self.end);
        self.sign(request, &mut out[start..]);
    }

    #[inline]
    fn append(
        &self,
        template: &Template,
        keys: &Keys,
        (request, key): (Request, u64),
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        out.extend_from_slice(&template.bytes);
        let at = start + template.key_at;
        keys.number(key, &mut out[at..at + keys.bytes()]);
        self.sign(request, &mut out[start..]);
    }

    #[inline]
    fn sign(&self, request: Request, packet: &mut [u8]) {
        if self.dialect == Dialect::Binary {
            packet[OPAQUE_AT..OPAQUE_AT + 4].copy_from_slice(&binary::opaque(request));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Verb;

    fn say(dialect: Dialect, tell: impl FnOnce(&Wording, &Keys, &mut Vec<u8>)) -> Vec<u8> {
        let keys = Keys::new(100, "k", 4).unwrap();
        let mut out = b"before".to_vec();
        tell(&Wording::new(dialect, &keys), &keys, &mut out);
        out.split_off(6)
    }

    const GET: Request = Request { verb: Verb::Get, key: 42 };
    const SET: Request = Request { verb: Verb::Set, key: 7 };
    const MANY: Request = Request { verb: Verb::GetMany, key: 0x0102_0304_0506_0708 };

    #[test]
    fn lines_are_those_of_the_protocol() {
        let get = |dialect| say(dialect, |w, keys, out| w.append_get(keys, GET, out));
        assert_eq!(get(Dialect::Text), b"get k042\r\n");
        assert_eq!(get(Dialect::Meta), b"mg k042 v\r\n");
        let set = |dialect| say(dialect, |w, keys, out| w.append_set(keys, SET, 30, out));
        assert_eq!(set(Dialect::Text), b"set k007 0 0 30\r\n");
        assert_eq!(set(Dialect::Meta), b"ms k007 30\r\n");
        let asked = [5, 6];
        let many = |dialect| {
            say(dialect, |w, keys, out| w.append_many(keys, MANY, asked.into_iter(), out))
        };
        assert_eq!(many(Dialect::Text), b"get k005 k006\r\n");
        assert_eq!(many(Dialect::Meta), b"mg k005 k q v\r\nmg k006 k q v\r\nmn\r\n");
    }

    #[test]
    fn packets_have_the_fields_of_the_protocol() {
        let packet = |opcode: u8, extras: u8, body: u8, opaque: [u8; 4], rest: &[u8]| {
            let key = if opcode == 0x0a { 0 } else { 4 };
            let mut bytes = vec![0x80, opcode, 0, key, extras, 0, 0, 0, 0, 0, 0, body];
            bytes.extend_from_slice(&opaque);
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(rest);
            bytes
        };
        let get = say(Dialect::Binary, |w, keys, out| w.append_get(keys, GET, out));
        assert_eq!(get, packet(0x00, 0, 4, [42, 0, 0, 0], b"k042"));
        let set = say(Dialect::Binary, |w, keys, out| w.append_set(keys, SET, 30, out));
        assert_eq!(set, packet(0x01, 8, 42, [7, 0, 0, 0], b"\0\0\0\0\0\0\0\0k007"));
        let many = say(Dialect::Binary, |w, keys, out| {
            w.append_many(keys, MANY, [5, 6].into_iter(), out);
        });
        let opaque = [8, 7, 6, 5];
        let expected = [
            packet(0x0d, 0, 4, opaque, b"k005"),
            packet(0x0d, 0, 4, opaque, b"k006"),
            packet(0x0a, 0, 0, opaque, b""),
        ];
        assert_eq!(many, expected.concat());
    }
}
