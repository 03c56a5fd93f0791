//! The binary dialect: packets with a header of 24 bytes, numbers in network order.
//!
//! ```text
//!   0      1       2           4       5     6       8            12      16   24
//!   magic  opcode  key length  extras  type  status  body length  opaque  cas  extras, key, value
//! ```
//!
//! The opaque of a request comes back in its reply. Here it is the low half of the request's key
//! number (of the seed, for many keys), so that replies in the wrong order are noticed.

use super::line::LINE_BYTES_MAX;
use super::{Answers, Head};
use crate::failure::Failure;
use crate::reply::{Nonsense, Outcome};
use crate::workload::{Request, Verb};

pub const HEADER_BYTES: usize = 24;
pub const OPAQUE_AT: usize = 12;
pub const BODY_LENGTH_AT: usize = 8;
pub const SET_EXTRAS_BYTES: usize = 8;
const GET_EXTRAS_BYTES: usize = 4;

const REQUEST: u8 = 0x80;
const REPLY: u8 = 0x81;

/// The commands that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Get = 0x00,
    Set = 0x01,
    Noop = 0x0a,
    GetKQ = 0x0d,
}

/// The header of a request without a value, opaque and cas 0.
pub fn header(opcode: Opcode, key_bytes: u8, extras_bytes: u8) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0] = REQUEST;
    header[1] = opcode as u8;
    header[3] = key_bytes;
    header[4] = extras_bytes;
    let body = u32::from(key_bytes) + u32::from(extras_bytes);
    header[BODY_LENGTH_AT..OPAQUE_AT].copy_from_slice(&body.to_be_bytes());
    header
}

/// What identifies a request in its reply.
#[inline]
pub fn opaque(request: Request) -> [u8; 4] {
    let [a, b, c, d, ..] = request.key.to_le_bytes();
    [a, b, c, d]
}

/// Get, Set, GetKQ, Noop.
#[derive(Debug)]
pub struct Binary;

impl Answers for Binary {
    const TAIL: &[u8] = b"";
    const TAIL_OF_MANY: &[u8] = b"";

    #[inline]
    fn head(
        input: &[u8],
        request: Request,
        key_bytes: usize,
    ) -> Result<Option<Head<'_>>, Nonsense> {
        head(input, request, key_bytes)
    }
}

#[inline]
fn head(input: &[u8], request: Request, key_bytes: usize) -> Result<Option<Head<'_>>, Nonsense> {
    let Some((header, body)) = input.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let status = u16::from_be_bytes([header[6], header[7]]);
    let key = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let extras = usize::from(header[4]);
    let length = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let opcode = header[1];
    let is_end = request.verb == Verb::GetMany && opcode == Opcode::Noop as u8;
    let expected = match request.verb {
        Verb::Get => Opcode::Get,
        Verb::GetMany => Opcode::GetKQ,
        Verb::Set => Opcode::Set,
    };
    if header[0] != REPLY
        || (opcode != expected as u8 && !is_end)
        || header[OPAQUE_AT..OPAQUE_AT + 4] != opaque(request)
        || key + extras > length
    {
        return Err(Nonsense);
    }
    if status != 0 {
        return refusal(status, length, body.len(), request.verb);
    }
    if is_end || request.verb == Verb::Set {
        // Neither has a body.
        let head = match request.verb {
            _ if length > 0 => return Err(Nonsense),
            Verb::GetMany => Head::EndOfMany { bytes: HEADER_BYTES },
            Verb::Get | Verb::Set => Head::Whole { bytes: HEADER_BYTES, outcome: Outcome::Stored },
        };
        return Ok(Some(head));
    }
    let asked = if request.verb == Verb::GetMany { key_bytes } else { 0 };
    if extras != GET_EXTRAS_BYTES || key != asked {
        return Err(Nonsense);
    }
    let value_bytes = length - extras - key;
    let key = body.get(extras..extras + key);
    Ok(key.map(|key| Head::Value { bytes: HEADER_BYTES + extras + key.len(), value_bytes, key }))
}

/// A status other than 0, which comes with a text.
fn refusal(
    status: u16,
    length: usize,
    received: usize,
    verb: Verb,
) -> Result<Option<Head<'static>>, Nonsense> {
    if length > LINE_BYTES_MAX {
        return Err(Nonsense);
    }
    if received < length {
        return Ok(None);
    }
    let bytes = HEADER_BYTES + length;
    let failure = match status {
        0x01 if verb == Verb::Get => {
            return Ok(Some(Head::Whole { bytes, outcome: Outcome::Miss }));
        }
        0x05 if verb == Verb::Set => Failure::NotStored,
        0x81 => Failure::Error,
        0x82.. => Failure::ServerError,
        _ => Failure::ClientError,
    };
    Ok(Some(match verb {
        Verb::GetMany => Head::Lapse { bytes, failure },
        Verb::Get | Verb::Set => Head::Whole { bytes, outcome: Outcome::Failed(failure) },
    }))
}
