//! memcached's binary protocol: packets with a head of 24 bytes, numbers in network order.
//!
//! ```text
//!   0      1       2           4       5     6        8            12      16   24
//!   magic  opcode  key length  extras  type  status   body length  opaque  cas  body
//!                              length        of a                               extras,
//!                                            reply                              key, value
//! ```
//!
//! `parse` is total and prefix-stable: what it answers about bytes that it consumes depends on no
//! byte after those, and a shorter prefix is answered with `Partial`. It consumes head, extras and
//! key; a value is never seen here, however long it is said to be. It keeps no state: of an
//! incomplete request the head is decoded again, and no more than `HEAD_BYTES_MAX` need be kept.
//!
//! A quiet request (the names end in Q) is answered only where there is something else to tell than
//! what was to be expected: a hit, or an error.
//!
//! Where releases of memcached differ, 1.6.45 is followed. Differences that are meant:
//! - What is wrong with a head is told as soon as the head is there, not when its key has come.
//! - A body that is longer than the request can have is bad framing everywhere; memcached takes the
//!   excess of `touch`, `gat` and `stat` for the next request.
//! - The body of an unknown opcode is swallowed whole; there the key and the extras of it were
//!   swallowed twice, and with them the next request.
//! - `verbosity` is there, as the old specification has it.

mod error;
mod head;
mod opcode;
pub mod reply;
mod sasl;
mod status;

pub use error::ProtocolError;
pub use head::{Arithmetic, Head, Lookup, Parsed, Request, StoreHead, parse, parse_lookup};
pub use opcode::Opcode;
pub use reply::{Echo, REPLY_MAGIC};
pub use sasl::{MECHANISMS, parse_plain};
pub use status::Status;

/// The first byte of a request.
pub const MAGIC: u8 = 0x80;

/// Magic, opcode, lengths, opaque and cas.
pub const PACKET_HEAD_BYTES: usize = 24;

/// The longest name of a way to authenticate.
pub const MECHANISM_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests;
