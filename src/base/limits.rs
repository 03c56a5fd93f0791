//! Numbers that more than one room must agree on.

/// Longest key, in bytes.
//= protocol.txt "Keys"
pub const KEY_BYTES_MAX: usize = 250;

/// Longest command line that is not a list of keys, in bytes, line end included.
///
/// A list of keys is read key by key and has no limit.
pub const HEAD_BYTES_MAX: usize = 2048;

/// Largest contiguous space that `Output::write` grants: room for any reply but a value.
pub const REPLY_HEAD_BYTES_MAX: usize = 1024;

/// Largest piece of a value that is written between two looks at `Output::is_full`.
pub const PIECE_BYTES_MAX: usize = 16 << 10;

/// Bytes that an idle connection takes of the memory for connections, at most.
pub const IDLE_CONNECTION_BYTES: u64 = 960;

/// Bytes of the largest value that any setting of `-I` allows.
pub const VALUE_BYTES_MAX: usize = 1 << 30;
