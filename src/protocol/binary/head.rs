//! What a request says before its value.

use super::error::ProtocolError;
use super::opcode::Opcode;
use super::reply::Echo;
use super::{MAGIC, PACKET_HEAD_BYTES};
use crate::base::limits::{HEAD_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// The longest body that is listened to at all, as memcached has it.
const BODY_BYTES_MAX: u32 = 1 << 30;

const _: () = assert!(BODY_BYTES_MAX as usize >= VALUE_BYTES_MAX);

/// `increment` has the longest extras of all.
const EXTRAS_BYTES_MAX: usize = 20;

const _: () = assert!(PACKET_HEAD_BYTES + EXTRAS_BYTES_MAX + KEY_BYTES_MAX < HEAD_BYTES_MAX);

/// What `increment` has for an exptime where nothing is to be created.
const EXPTIME_NONE: u32 = u32::MAX;

/// What stands at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole request but for its value. `consumed` is head, extras and key.
    Head { head: Head<'a>, consumed: usize },
    /// A proper prefix of one.
    Partial,
    /// `consumed` bytes are beyond use, and so is the rest.
    Invalid { error: ProtocolError, echo: Echo, consumed: usize },
}

/// A request, but for its value. All byte strings are the input's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// What a reply repeats.
    pub echo: Echo,
    /// No reply is awaited where all is as expected.
    pub quiet: bool,
    /// What the cas of the item has to be; 0 for anything.
    pub cas: u64,
    pub request: Request<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    Get {
        key: &'a [u8],
    },
    GetAndTouch {
        key: &'a [u8],
        exptime: u32,
    },
    Touch {
        key: &'a [u8],
        exptime: u32,
    },
    /// `value_bytes` follow.
    Set(StoreHead<'a>),
    Add(StoreHead<'a>),
    Replace(StoreHead<'a>),
    /// As these, without flags and exptime.
    Append(StoreHead<'a>),
    Prepend(StoreHead<'a>),
    Delete {
        key: &'a [u8],
    },
    Increment(Arithmetic<'a>),
    Decrement(Arithmetic<'a>),
    Flush {
        delay: u32,
    },
    Noop,
    Version,
    Verbosity {
        level: u32,
    },
    Quit,
    /// The statistics asked for; empty for the general ones.
    Stat {
        group: &'a [u8],
    },
    SaslList,
    /// `token_bytes` follow.
    SaslAuth {
        mechanism: &'a [u8],
        token_bytes: u32,
    },
    SaslStep {
        mechanism: &'a [u8],
        token_bytes: u32,
    },
    /// An opcode that is none; `body_bytes` follow.
    Unknown {
        body_bytes: u32,
    },
}

impl<'a> Request<'a> {
    /// What a storage command says.
    #[inline]
    pub fn stored(&self) -> Option<StoreHead<'a>> {
        if let Request::Set(head)
        | Request::Add(head)
        | Request::Replace(head)
        | Request::Append(head)
        | Request::Prepend(head) = *self
        {
            return Some(head);
        }
        None
    }
}

/// A storage command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreHead<'a> {
    pub key: &'a [u8],
    pub flags: u32,
    pub exptime: u32,
    pub value_bytes: u32,
}

/// `increment` or `decrement`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arithmetic<'a> {
    pub key: &'a [u8],
    pub delta: u64,
    /// The number and the exptime of an item that is to be made if there is none.
    pub initial: Option<(u64, u32)>,
}

/// A request for one value: `get` and its like, without an exptime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup<'a> {
    pub key: &'a [u8],
    pub opcode: Opcode,
    pub echo: Echo,
}

/// How long the parts of a body are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    pub extras: usize,
    pub key: usize,
    pub value: u32,
}

/// The 24 bytes that every request begins with.
struct PacketHead<'a>(&'a [u8; PACKET_HEAD_BYTES]);

impl PacketHead<'_> {
    fn u16_at(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    fn u32_at(&self, at: usize) -> u32 {
        let Self(bytes) = self;
        u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    fn echo(&self) -> Echo {
        let Self(bytes) = self;
        Echo { opcode: bytes[1], opaque: [bytes[12], bytes[13], bytes[14], bytes[15]] }
    }

    fn cas(&self) -> u64 {
        u64::from(self.u32_at(16)) << 32 | u64::from(self.u32_at(20))
    }

    /// How long the parts of the body are, if they fit into it and into us.
    fn lengths(&self) -> Result<Lengths, ProtocolError> {
        let (extras, key, body) = (self.0[4], self.u16_at(2), self.u32_at(8));
        // Neither sum nor difference can overflow: the lengths have 8 and 16 bits.
        let value = body
            .checked_sub(u32::from(extras) + u32::from(key))
            .ok_or(ProtocolError::BodyTooShort)?;
        if body > BODY_BYTES_MAX {
            return Err(ProtocolError::BodyTooLong);
        }
        let (extras, key) = (usize::from(extras), usize::from(key));
        if key > KEY_BYTES_MAX {
            return Err(ProtocolError::KeyTooLong);
        }
        Ok(Lengths { extras, key, value })
    }
}

/// Parses the first request of `input`.
#[inline]
pub fn parse(input: &[u8]) -> Parsed<'_> {
    match input.first() {
        None => return Parsed::Partial,
        Some(&MAGIC) => {}
        Some(_) => {
            let (error, echo) = (ProtocolError::BadMagic, Echo::default());
            return Parsed::Invalid { error, echo, consumed: 1 };
        }
    }
    let Some((bytes, rest)) = input.split_first_chunk() else { return Parsed::Partial };
    let packet = PacketHead(bytes);
    let echo = packet.echo();
    let invalid = |error| Parsed::Invalid { error, echo, consumed: PACKET_HEAD_BYTES };
    let lengths = match packet.lengths() {
        Ok(lengths) => lengths,
        Err(error) => return invalid(error),
    };
    let Some(opcode) = Opcode::of(echo.opcode) else {
        let request = Request::Unknown { body_bytes: packet.u32_at(8) };
        let head = Head { echo, quiet: false, cas: packet.cas(), request };
        return Parsed::Head { head, consumed: PACKET_HEAD_BYTES };
    };
    if !opcode.fits(lengths) {
        return invalid(ProtocolError::BadParts);
    }
    let Some((extras, rest)) = rest.split_at_checked(lengths.extras) else {
        return Parsed::Partial;
    };
    let Some(key) = rest.get(..lengths.key) else { return Parsed::Partial };
    let request = request(opcode, extras, key, lengths.value);
    let head = Head { echo, quiet: opcode.is_quiet(), cas: packet.cas(), request };
    Parsed::Head { head, consumed: PACKET_HEAD_BYTES + lengths.extras + lengths.key }
}

/// What the opcode makes of parts that are as long as they should be.
fn request<'a>(opcode: Opcode, extras: &[u8], key: &'a [u8], value_bytes: u32) -> Request<'a> {
    match opcode {
        Opcode::Get | Opcode::GetQ | Opcode::GetK | Opcode::GetKQ => Request::Get { key },
        Opcode::Gat | Opcode::GatQ | Opcode::GatK | Opcode::GatKQ => {
            Request::GetAndTouch { key, exptime: word(extras, 0) }
        }
        Opcode::Touch => Request::Touch { key, exptime: word(extras, 0) },
        Opcode::Set | Opcode::SetQ => Request::Set(store(extras, key, value_bytes)),
        Opcode::Add | Opcode::AddQ => Request::Add(store(extras, key, value_bytes)),
        Opcode::Replace | Opcode::ReplaceQ => Request::Replace(store(extras, key, value_bytes)),
        Opcode::Append | Opcode::AppendQ => Request::Append(store(extras, key, value_bytes)),
        Opcode::Prepend | Opcode::PrependQ => Request::Prepend(store(extras, key, value_bytes)),
        Opcode::Delete | Opcode::DeleteQ => Request::Delete { key },
        Opcode::Increment | Opcode::IncrementQ => Request::Increment(arithmetic(extras, key)),
        Opcode::Decrement | Opcode::DecrementQ => Request::Decrement(arithmetic(extras, key)),
        Opcode::Flush | Opcode::FlushQ => Request::Flush { delay: word(extras, 0) },
        Opcode::Noop => Request::Noop,
        Opcode::Version => Request::Version,
        Opcode::Verbosity => Request::Verbosity { level: word(extras, 0) },
        Opcode::Quit | Opcode::QuitQ => Request::Quit,
        Opcode::Stat => Request::Stat { group: key },
        Opcode::SaslList => Request::SaslList,
        Opcode::SaslAuth => Request::SaslAuth { mechanism: key, token_bytes: value_bytes },
        Opcode::SaslStep => Request::SaslStep { mechanism: key, token_bytes: value_bytes },
    }
}

fn store<'a>(extras: &[u8], key: &'a [u8], value_bytes: u32) -> StoreHead<'a> {
    StoreHead { key, flags: word(extras, 0), exptime: word(extras, 4), value_bytes }
}

fn arithmetic<'a>(extras: &[u8], key: &'a [u8]) -> Arithmetic<'a> {
    let initial = match word(extras, 16) {
        EXPTIME_NONE => None,
        exptime => Some((long_word(extras, 8), exptime)),
    };
    Arithmetic { key, delta: long_word(extras, 0), initial }
}

/// The number of four bytes at `at`; 0 where the extras, which may be left out, are not there.
fn word(extras: &[u8], at: usize) -> u32 {
    extras.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u32::from_be_bytes)
}

fn long_word(extras: &[u8], at: usize) -> u64 {
    u64::from(word(extras, at)) << 32 | u64::from(word(extras, at + 4))
}

/// The request at the start of `input` and its bytes, if it is a whole one for one value. What is
/// read here, `parse` reads alike.
#[inline(always)]
pub fn parse_lookup(input: &[u8]) -> Option<(Lookup<'_>, usize)> {
    let (bytes, rest) = input.split_first_chunk()?;
    let packet = PacketHead(bytes);
    let opcode = match bytes[1] {
        0x00 => Opcode::Get,
        0x09 => Opcode::GetQ,
        0x0c => Opcode::GetK,
        0x0d => Opcode::GetKQ,
        _ => return None,
    };
    // Lossless: usize has 64 bits.
    let (key_bytes, body_bytes) = (usize::from(packet.u16_at(2)), packet.u32_at(8) as usize);
    let fits = bytes[0] == MAGIC && bytes[4] == 0 && body_bytes == key_bytes;
    if !fits || !(1..=KEY_BYTES_MAX).contains(&key_bytes) {
        return None;
    }
    let key = rest.get(..key_bytes)?;
    Some((Lookup { key, opcode, echo: packet.echo() }, PACKET_HEAD_BYTES + key_bytes))
}
