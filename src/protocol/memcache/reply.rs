//! Replies, as bytes.

use super::LINE_END;
pub use super::dump::{DumpRow, ITEM_ROW_BYTES_MAX, dump_row, item_row, mg_request};
use super::number::{DECIMAL_BYTES_MAX, write_decimal};
use crate::base::bytes::copy;
use crate::base::limits::{KEY_BYTES_MAX, REPLY_HEAD_BYTES_MAX};
use crate::base::output::Output;
use crate::protocol::Rows;

pub const STORED: &[u8] = b"STORED\r\n";
pub const NOT_STORED: &[u8] = b"NOT_STORED\r\n";
pub const EXISTS: &[u8] = b"EXISTS\r\n";
pub const NOT_FOUND: &[u8] = b"NOT_FOUND\r\n";
pub const DELETED: &[u8] = b"DELETED\r\n";
pub const TOUCHED: &[u8] = b"TOUCHED\r\n";
pub const OK: &[u8] = b"OK\r\n";
pub const RESET: &[u8] = b"RESET\r\n";
pub const DETAIL_USAGE: &[u8] = b"CLIENT_ERROR usage: stats detail on|off|dump\r\n";
pub const DETAIL_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR stats detail not allowed\r\n";
pub const HOT_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR stats of hot keys not allowed\r\n";
/// For a large value that thousands of peers are being sent at once.
pub const REFCOUNT_OVERFLOW: &[u8] = b"SERVER_ERROR refcount overflow during fetch\r\n";
pub const END: &[u8] = b"END\r\n";
pub const ERROR: &[u8] = b"ERROR\r\n";
/// To a peer beyond the limit of `-c`, whatever it speaks.
//= memcached.c "maxconns_fast"
pub const TOO_MANY_CONNECTIONS: &[u8] = b"ERROR Too many open connections\r\n";
pub const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
pub const NO_MEMORY_STORING: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";
pub const NO_MEMORY: &[u8] = b"SERVER_ERROR out of memory\r\n";
pub const NON_NUMERIC: &[u8] = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
pub const FLUSH_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR flush_all not allowed\r\n";
/// After a dump as requests.
pub const EN: &[u8] = b"EN\r\n";
pub const CRAWLER_DISABLED: &[u8] = b"CLIENT_ERROR lru crawler disabled\r\n";
pub const CRAWLER_IS_ON: &[u8] = b"ERROR failed to start lru crawler thread\r\n";
pub const CRAWLER_BUSY: &[u8] = b"BUSY currently processing crawler request\r\n";
pub const CRAWLER_ERROR: &[u8] = b"ERROR an unknown error happened\r\n";
pub const METADUMP_NOT_ALLOWED: &[u8] = b"ERROR metadump not allowed\r\n";
pub const MGDUMP_NOT_ALLOWED: &[u8] = b"ERROR key dump not allowed\r\n";
pub const CACHEDUMP_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR stats cachedump not allowed\r\n";
pub const BAD_CLASS: &[u8] = b"BADCLASS invalid class id\r\n";
pub const NOTHING_TO_CRAWL: &[u8] = b"NOTSTARTED no items to crawl\r\n";
pub const LIMIT_NOT_ADJUSTED: &[u8] =
    b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n";
pub const DELETE_PREFIX_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR delete_prefix not allowed\r\n";
pub const DELETE_PREFIX_BUSY: &[u8] = b"BUSY too many delete_prefix at a time\r\n";
pub const WATCH_NOT_ALLOWED: &[u8] = b"CLIENT_ERROR watch commands not allowed\r\n";
pub const TOO_MANY_WATCHERS: &[u8] = b"WATCHER_TOO_MANY log watcher limit reached\r\n";
pub const NO_TLS: &[u8] = b"Error TLS not enabled\r\n";
pub const REASSIGN_BUSY: &[u8] = b"BUSY currently processing reassign request\r\n";
pub const REASSIGN_BAD_CLASS: &[u8] = b"BADCLASS invalid src or dst class id\r\n";
pub const REASSIGN_NO_SPARE: &[u8] = b"NOSPARE source class has no spare pages\r\n";
pub const REASSIGN_SAME: &[u8] = b"SAME src and dst class are identical\r\n";
pub const SHUTDOWN_NOT_ENABLED: &[u8] = b"SERVER_ERROR: shutdown not enabled\r\n";

/// `VALUE <key> <flags> <bytes>[ <cas>]\r\n` is never longer.
const VALUE_HEAD_BYTES_MAX: usize =
    "VALUE ".len() + KEY_BYTES_MAX + 3 * (1 + DECIMAL_BYTES_MAX) + "\r\n".len();

const _: () = assert!(VALUE_HEAD_BYTES_MAX + TAIL.len() <= REPLY_HEAD_BYTES_MAX);

const TAIL: &[u8; 7] = b"\r\nEND\r\n";

const SHORT_KEY_BYTES_MAX: usize = 64;
const SHORT_VALUE_BYTES_MAX: usize = 128;
/// Room for a short reply, and a little more for what is written and then written over.
const SHORT_REPLY_BYTES: usize = 256;

/// What the head of a value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueHead<'a> {
    pub key: &'a [u8],
    pub flags: u32,
    pub value_bytes: usize,
    /// Only `gets` and `gats` show it.
    pub cas: Option<u64>,
}

impl ValueHead<'_> {
    /// Writes the head at the start of `space` and says how long it is.
    #[inline(always)]
    fn write(&self, space: &mut [u8]) -> usize {
        let mut len = fixed(space, 0, b"VALUE ");
        len = append(space, len, self.key);
        len = append_number(space, len, u64::from(self.flags));
        // Lossless: no target has a wider usize.
        len = append_number(space, len, self.value_bytes as u64);
        if let Some(cas) = self.cas {
            len = append_number(space, len, cas);
        }
        fixed(space, len, LINE_END)
    }
}

#[inline(always)]
pub(super) fn append(space: &mut [u8], at: usize, bytes: &[u8]) -> usize {
    copy(&mut space[at..], bytes);
    at + bytes.len()
}

#[inline(always)]
pub(super) fn fixed<const N: usize>(space: &mut [u8], at: usize, bytes: &[u8; N]) -> usize {
    space[at..at + N].copy_from_slice(bytes);
    at + N
}

#[inline(always)]
pub(super) fn append_number(space: &mut [u8], at: usize, number: u64) -> usize {
    space[at] = b' ';
    at + 1 + write_decimal(&mut space[at + 1..], number)
}

/// Appends the head of a value whose bytes follow in pieces; `value_end` ends it.
pub fn value_head(output: &mut impl Output, head: &ValueHead<'_>) {
    output.write(VALUE_HEAD_BYTES_MAX, |space| head.write(space));
}

/// Appends what follows a value's bytes; `last` ends the whole reply.
pub fn value_end(output: &mut impl Output, last: bool) {
    output.put(tail(last));
}

const fn tail(last: bool) -> &'static [u8] {
    if last { TAIL } else { LINE_END }
}

/// Appends a whole value; `last` ends the reply with it.
#[inline]
pub fn value(output: &mut impl Output, head: &ValueHead<'_>, value: &[u8], last: bool) {
    let is_short = head.key.len() <= SHORT_KEY_BYTES_MAX && value.len() <= SHORT_VALUE_BYTES_MAX;
    if is_short && head.flags == 0 && head.cas.is_none() {
        return short_value(output, head.key, value, last);
    }
    let tail = tail(last);
    let bytes_max = VALUE_HEAD_BYTES_MAX + value.len() + tail.len();
    if bytes_max > REPLY_HEAD_BYTES_MAX {
        value_head(output, head);
        output.put(value);
        output.put(tail);
        return;
    }
    output.write(bytes_max, |space| {
        let mut len = head.write(space);
        len = append(space, len, value);
        // Each of a length that is known: nothing is called.
        match last {
            true => fixed(space, len, TAIL),
            false => fixed(space, len, LINE_END),
        }
    });
}

/// As `value`, for what most replies are made of: a short key without flags, and a short value.
#[inline(always)]
fn short_value(output: &mut impl Output, key: &[u8], value: &[u8], last: bool) {
    output.write(SHORT_REPLY_BYTES, |space| {
        // All that is known of lengths is known here, so that little is asked on the way.
        let Some(space) = space.first_chunk_mut::<SHORT_REPLY_BYTES>() else { unreachable!() };
        let mut len = fixed(space, 0, b"VALUE ");
        len = append(space, len, key);
        len = fixed(space, len, b" 0 ");
        let (line, line_bytes) = short_line(value.len());
        fixed(space, len, &line);
        len = append(space, len + line_bytes, value);
        match last {
            true => fixed(space, len, TAIL),
            false => fixed(space, len, LINE_END),
        }
    });
}

/// A number below 1000 and a line end, and how many bytes these are; what follows is nothing.
#[inline(always)]
fn short_line(number: usize) -> ([u8; 8], usize) {
    let digit = |unit: usize| b'0' + (number / unit % 10).to_le_bytes()[0];
    let all = [digit(100), digit(10), digit(1), b'\r', b'\n', 0, 0, 0];
    let leading_zeros = usize::from(number < 100) + usize::from(number < 10);
    let bytes = u64::from_le_bytes(all) >> (8 * leading_zeros);
    (bytes.to_le_bytes(), 3 - leading_zeros + LINE_END.len())
}

/// Appends the new value of `incr` or `decr`.
pub fn number(output: &mut impl Output, number: u64) {
    output.write(DECIMAL_BYTES_MAX + 2, |space| {
        let len = write_decimal(space, number);
        append(space, len, b"\r\n")
    });
}

/// Appends how many items were deleted.
pub fn deleted(output: &mut impl Output, items: u64) {
    output.put(b"DELETED ");
    number(output, items);
}

/// Statistics, a line for each row.
#[derive(Debug)]
pub struct Lines<'a, O>(pub &'a mut O);

impl<O: Output> Rows for Lines<'_, O> {
    fn row(&mut self, name: &str, value: &[u8]) {
        let Self(output) = self;
        output.put(b"STAT ");
        output.put(name.as_bytes());
        output.put(b" ");
        output.put(value);
        output.put(LINE_END);
    }

    fn line(&mut self, _: &str, line: &[u8]) {
        self.0.put(line);
        self.0.put(LINE_END);
    }

    fn end(&mut self) {
        self.0.put(END);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::output::Memory;

    #[test]
    fn values_of_any_size() {
        for value_bytes in [0, 1, 9, 10, 99, 100, 128, 129, 600, 700, 1024, 5000] {
            let bytes = vec![b'v'; value_bytes];
            let key = [b'k'; KEY_BYTES_MAX];
            let head = ValueHead { key: &key, flags: u32::MAX, value_bytes, cas: Some(u64::MAX) };
            let mut output = Memory::new(usize::MAX);
            value(&mut output, &head, &bytes, true);
            let mut pieces = Memory::new(usize::MAX);
            value_head(&mut pieces, &head);
            pieces.put(&bytes);
            value_end(&mut pieces, true);
            let want = format!(
                "VALUE {} 4294967295 {value_bytes} 18446744073709551615\r\n{}\r\nEND\r\n",
                "k".repeat(KEY_BYTES_MAX),
                "v".repeat(value_bytes)
            );
            assert_eq!(output.take(), want.as_bytes());
            assert_eq!(pieces.take(), want.as_bytes());
        }
    }

    #[test]
    fn short_values_are_as_others() {
        for key_bytes in [1, 20, 64, 65] {
            for value_bytes in [0, 1, 9, 10, 32, 99, 100, 128, 129] {
                let (key, bytes) = (vec![b'k'; key_bytes], vec![b'v'; value_bytes]);
                let head = ValueHead { key: &key, flags: 0, value_bytes, cas: None };
                for last in [false, true] {
                    let mut output = Memory::new(usize::MAX);
                    value(&mut output, &head, &bytes, last);
                    let mut want = Memory::new(usize::MAX);
                    value_head(&mut want, &head);
                    want.put(&bytes);
                    value_end(&mut want, last);
                    assert_eq!(output.take(), want.take());
                }
            }
        }
    }

    #[test]
    fn rows() {
        let mut output = Memory::new(usize::MAX);
        let mut lines = Lines(&mut output);
        lines.number("curr_items", u64::MAX);
        lines.row("version", b"1");
        lines.end();
        number(&mut output, 0);
        let want = "STAT curr_items 18446744073709551615\r\nSTAT version 1\r\nEND\r\n0\r\n";
        assert_eq!(output.take(), want.as_bytes());
    }
}
