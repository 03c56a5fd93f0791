//! Replies, as bytes.

use super::PACKET_HEAD_BYTES;
use super::status::Status;
use crate::base::bytes::copy;
use crate::base::limits::{KEY_BYTES_MAX, REPLY_HEAD_BYTES_MAX};
use crate::base::output::Output;
use crate::protocol::Rows;

/// The first byte of a reply.
/// What a reply begins with.
pub const REPLY_MAGIC: u8 = 0x81;

/// Text of `Status::NoMemory` where there is none for a value.
pub const NO_MEMORY_STORING: &[u8] = b"Out of memory allocating item";
/// Text of `Status::NoMemory` where there is none for a number.
pub const NO_MEMORY_COUNTING: &[u8] = b"Out of memory incrementing value";
/// Text of `Status::Ok` once a peer has said who it is.
pub const AUTHENTICATED: &[u8] = b"Authenticated";

const FLAGS_BYTES: usize = 4;

const VALUE_HEAD_BYTES_MAX: usize = PACKET_HEAD_BYTES + FLAGS_BYTES + KEY_BYTES_MAX;

const SHORT_KEY_BYTES_MAX: usize = 64;
const SHORT_VALUE_BYTES_MAX: usize = 128;
const SHORT_REPLY_BYTES: usize =
    PACKET_HEAD_BYTES + FLAGS_BYTES + SHORT_KEY_BYTES_MAX + SHORT_VALUE_BYTES_MAX;

const _: () = assert!(VALUE_HEAD_BYTES_MAX <= REPLY_HEAD_BYTES_MAX);
const _: () = assert!(SHORT_REPLY_BYTES <= REPLY_HEAD_BYTES_MAX);

/// What a reply repeats of its request, so that a peer knows which it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Echo {
    /// As the byte it came as.
    pub opcode: u8,
    /// As the bytes they came as.
    pub opaque: [u8; 4],
}

/// What the head of a value says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueHead<'a> {
    pub echo: Echo,
    /// Empty where the peer has not asked for it.
    pub key: &'a [u8],
    pub flags: u32,
    pub value_bytes: usize,
    pub cas: u64,
}

impl ValueHead<'_> {
    /// Writes the head at the start of `space` and says how long it is.
    #[inline(always)]
    fn write(&self, space: &mut [u8]) -> usize {
        let lengths = Lengths { extras: FLAGS_BYTES, key: self.key.len(), value: self.value_bytes };
        let packet = packet_head(self.echo, Status::Ok, lengths, self.cas);
        space[..PACKET_HEAD_BYTES].copy_from_slice(&packet);
        space[PACKET_HEAD_BYTES..][..FLAGS_BYTES].copy_from_slice(&self.flags.to_be_bytes());
        copy(&mut space[PACKET_HEAD_BYTES + FLAGS_BYTES..], self.key);
        PACKET_HEAD_BYTES + FLAGS_BYTES + self.key.len()
    }
}

/// How long the parts of a reply's body are.
#[derive(Clone, Copy, Debug, Default)]
struct Lengths {
    extras: usize,
    key: usize,
    value: usize,
}

/// The head of a reply.
///
/// Lossless: extras have a few bytes, keys 250, and values at most as many as the limit on items
/// allows, which is below 2^31.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "see above")]
fn packet_head(echo: Echo, status: Status, lengths: Lengths, cas: u64) -> [u8; PACKET_HEAD_BYTES] {
    let Lengths { extras, key, value } = lengths;
    let [key_high, key_low] = (key as u16).to_be_bytes();
    let mut head = [0; PACKET_HEAD_BYTES];
    head[..5].copy_from_slice(&[REPLY_MAGIC, echo.opcode, key_high, key_low, extras as u8]);
    head[6..8].copy_from_slice(&status.code().to_be_bytes());
    head[8..12].copy_from_slice(&((extras + key + value) as u32).to_be_bytes());
    head[12..16].copy_from_slice(&echo.opaque);
    head[16..24].copy_from_slice(&cas.to_be_bytes());
    head
}

/// Appends the head of a value whose bytes follow in pieces. Nothing follows those.
pub fn value_head(output: &mut impl Output, head: &ValueHead<'_>) {
    output.write(VALUE_HEAD_BYTES_MAX, |space| head.write(space));
}

/// Appends a whole value.
#[inline]
pub fn value(output: &mut impl Output, head: &ValueHead<'_>, value: &[u8]) {
    if head.key.len() <= SHORT_KEY_BYTES_MAX && value.len() <= SHORT_VALUE_BYTES_MAX {
        output.write(SHORT_REPLY_BYTES, |space| {
            // All that is known of lengths is known here, so that little is asked on the way.
            let Some(space) = space.first_chunk_mut::<SHORT_REPLY_BYTES>() else { unreachable!() };
            let len = head.write(space);
            copy(&mut space[len..], value);
            len + value.len()
        });
        return;
    }
    value_head(output, head);
    output.put(value);
}

/// Appends that all has gone well. `cas` is that of the item, or 0.
#[inline]
pub fn done(output: &mut impl Output, echo: Echo, cas: u64) {
    let head = packet_head(echo, Status::Ok, Lengths::default(), cas);
    output.write(PACKET_HEAD_BYTES, |space| {
        copy(space, &head);
        PACKET_HEAD_BYTES
    });
}

/// Appends an error, in memcached's words.
pub fn error(output: &mut impl Output, echo: Echo, status: Status) {
    error_in_words(output, echo, status, status.text());
}

/// Appends an error in other words than those of the status.
pub fn error_in_words(output: &mut impl Output, echo: Echo, status: Status, text: &[u8]) {
    let lengths = Lengths { value: text.len(), ..Lengths::default() };
    output.put(&packet_head(echo, status, lengths, 0));
    output.put(text);
}

/// Appends that there is nothing at a key, by naming it.
pub fn missing_key(output: &mut impl Output, echo: Echo, key: &[u8]) {
    let lengths = Lengths { key: key.len(), ..Lengths::default() };
    output.put(&packet_head(echo, Status::NotFound, lengths, 0));
    output.put(key);
}

/// Appends the new value of `increment` or `decrement`.
pub fn number(output: &mut impl Output, echo: Echo, number: u64, cas: u64) {
    let lengths = Lengths { value: size_of_val(&number), ..Lengths::default() };
    output.put(&packet_head(echo, Status::Ok, lengths, cas));
    output.put(&number.to_be_bytes());
}

/// Appends the flags of an item without its value.
pub fn flags(output: &mut impl Output, echo: Echo, flags: u32, cas: u64) {
    let lengths = Lengths { extras: FLAGS_BYTES, ..Lengths::default() };
    output.put(&packet_head(echo, Status::Ok, lengths, cas));
    output.put(&flags.to_be_bytes());
}

/// Appends a text that was asked for.
pub fn text(output: &mut impl Output, echo: Echo, text: &[u8]) {
    error_in_words(output, echo, Status::Ok, text);
}

/// Statistics, a packet for each row, and an empty one at the end.
#[derive(Debug)]
pub struct Packets<'a, O>(pub &'a mut O, pub Echo);

impl<O: Output> Rows for Packets<'_, O> {
    fn row(&mut self, name: &str, value: &[u8]) {
        let Self(output, echo) = self;
        let lengths = Lengths { extras: 0, key: name.len(), value: value.len() };
        output.put(&packet_head(*echo, Status::Ok, lengths, 0));
        output.put(name.as_bytes());
        output.put(value);
    }

    fn line(&mut self, name: &str, line: &[u8]) {
        self.row(name, line);
    }

    fn end(&mut self) {
        done(&mut *self.0, self.1, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::output::Memory;

    const ECHO: Echo = Echo { opcode: 0x0c, opaque: *b"\x01\x02\x03\x04" };

    fn written(write: impl FnOnce(&mut Memory)) -> Vec<u8> {
        let mut output = Memory::new(usize::MAX);
        write(&mut output);
        output.take()
    }

    #[test]
    fn every_field_is_in_its_place() {
        let head = ValueHead {
            echo: ECHO,
            key: b"key",
            flags: 0x0a0b_0c0d,
            value_bytes: 2,
            cas: 0x1122_3344_5566_7788,
        };
        let want = b"\x81\x0c\0\x03\x04\0\0\0\0\0\0\x09\x01\x02\x03\x04\
            \x11\x22\x33\x44\x55\x66\x77\x88\x0a\x0b\x0c\x0dkeyvv";
        assert_eq!(written(|output| value(output, &head, b"vv")), want);
        let want = b"\x81\x0c\0\0\0\0\0\x82\0\0\0\x0d\x01\x02\x03\x04\0\0\0\0\0\0\0\0Out of memory";
        assert_eq!(written(|output| error(output, ECHO, Status::NoMemory)), want);
    }

    #[test]
    fn values_of_any_size() {
        for key_bytes in [0, 1, 64, 65, KEY_BYTES_MAX] {
            for value_bytes in [0, 1, 128, 129, 700, 1024, 5000] {
                let (key, bytes) = (vec![b'k'; key_bytes], vec![b'v'; value_bytes]);
                let head = ValueHead {
                    echo: ECHO,
                    key: &key,
                    flags: u32::MAX,
                    value_bytes,
                    cas: u64::MAX,
                };
                let whole = written(|output| value(output, &head, &bytes));
                let pieces = written(|output| {
                    value_head(output, &head);
                    output.put(&bytes);
                });
                assert_eq!(whole, pieces);
                let body = u32::try_from(4 + key_bytes + value_bytes).unwrap();
                assert_eq!(whole[8..12], body.to_be_bytes());
                assert_eq!(whole.len() - PACKET_HEAD_BYTES, body as usize);
                assert_eq!(whole[28..], [&key[..], &bytes].concat());
            }
        }
    }

    #[test]
    fn what_has_no_value() {
        let head = |status: u8, lengths: [u8; 3], cas: u8| {
            let [key, extras, body] = lengths;
            let start = [0x81, 0x0c, 0, key, extras, 0, 0, status, 0, 0, 0, body, 1, 2, 3, 4];
            [&start[..], &[0, 0, 0, 0, 0, 0, 0, cas]].concat()
        };
        assert_eq!(written(|output| done(output, ECHO, 9)), head(0, [0, 0, 0], 9));
        let want = [head(0, [0, 0, 8], 7), vec![0, 0, 0, 0, 0, 0, 1, 0]].concat();
        assert_eq!(written(|output| number(output, ECHO, 256, 7)), want);
        let want = [head(0, [0, 4, 4], 7), vec![0, 0, 0, 5]].concat();
        assert_eq!(written(|output| flags(output, ECHO, 5, 7)), want);
        let want = [head(1, [2, 0, 2], 0), b"ab".to_vec()].concat();
        assert_eq!(written(|output| missing_key(output, ECHO, b"ab")), want);
        let want = [head(0, [3, 0, 5], 0), b"pid42".to_vec(), head(0, [0, 0, 0], 0)].concat();
        let rows = |output: &mut Memory| {
            let mut packets = Packets(output, ECHO);
            packets.number("pid", 42);
            packets.end();
        };
        assert_eq!(written(rows), want);
        assert_eq!(
            written(|output| text(output, ECHO, b"1")),
            [&head(0, [0, 0, 1], 0)[..], b"1"].concat()
        );
    }
}
