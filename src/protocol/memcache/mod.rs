//! The memcached text protocol: classic, and meta commands.
//!
//! ```text
//!   set key 7 0 5\r\n          a head, then `bytes` of value and \r\n, which `parse` never sees
//!   hello\r\n
//!   get a b c\r\n              a head is `get `; the keys are read one at a time by `next_key`
//!   delete a noreply\r\n       a head that is the whole request
//!   mg a v\r\n                 and so are those of `meta`, but for `ms`
//! ```
//!
//! `parse` and `next_key` are total and prefix-stable: what they answer about bytes they consume
//! depends on no byte after those, and a shorter prefix is answered with `Partial`. So replies
//! cannot depend on how the input was cut. Neither keeps a state: an incomplete head is searched
//! again when more of it has come, which is bounded by `HEAD_BYTES_MAX` and by a key's length.
//!
//! Where releases of memcached differ, 1.6.45 is followed, and clients who ask are told so: some
//! choose what to say, or to expect, by the version. Differences that are meant:
//! - A head longer than `HEAD_BYTES_MAX` always closes the connection, and the peer is told why;
//!   memcached looks only when it has run out of input, and says nothing. A list of keys has no
//!   limit, `gat` included.
//! - A key that is too long in a list of keys ends the list with one `CLIENT_ERROR bad command line
//!   format`; values before it have been sent, the rest of the line is ignored.
//! - A head that starts with a space is an unknown command, as it is there for all but a few.
//! - An exptime has 64 bits everywhere, and leading zeros do not make a number too long.

mod base64;
mod dump;
mod error;
mod flags;
mod head;
mod keys;
mod log;
mod login;
mod meta;
pub mod meta_reply;
mod number;
mod operator;
mod pen;
mod plain;
pub mod reply;
mod search;
mod words;

pub use base64::decode as decode_key;
pub use dump::is_plain;
pub use error::{Blame, ProtocolError};
pub use flags::{Flags, KeptFlags, Letters};
pub use head::{Delta, Head, Parsed, ShutdownMode, StoreHead, StoreVerb, parse};
pub use keys::{KeyList, KeyTouch, NextKey, next_key, parse_list, rest_of_line};
pub use log::{Fetched, LOG_LINE_BYTES_MAX, LogEntry, LogStamp, WatchKinds, write_log_line};
pub use login::{AUTHENTICATION_FAILURE, Login, parse_login, parse_token};
pub use meta::{MetaGet, MetaHead, MetaVerb, SetMode, next_get};
pub(super) use number::{DECIMAL_BYTES_MAX, write_decimal};
pub use operator::{ClassDump, DumpForm, Hundredths, Operator, Tune};

/// The release of memcached whose words are spoken.
pub const VERSION: &str = "1.6.45";

/// What ends a value.
pub const LINE_END: &[u8; 2] = b"\r\n";

#[cfg(test)]
mod tests;
