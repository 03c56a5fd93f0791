//! The frame of a datagram, and what is decided by looks alone: what is a request, what is cut.
//!
//! ```text
//!   +------------+------------+------------+------------+
//!   | request id | number     | count      | 0          |  payload, at most 1392 bytes
//!   +------------+------------+------------+------------+
//!     u16 each, big-endian
//! ```

use crate::base::protocol::Protocol;
use crate::protocol::binary;

const HEAD_BYTES: usize = 8;

//= protocol.txt "UDP protocol": datagrams of at most 1400 bytes
const DATAGRAM_BYTES_MAX: usize = 1400;
const PAYLOAD_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEAD_BYTES;

/// A request that came in one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request<'d> {
    pub id: [u8; 2],
    /// Text, or packets.
    pub is_binary: bool,
    /// Commands, the last of which may be cut.
    pub commands: &'d [u8],
}

impl<'d> Request<'d> {
    /// The request in a datagram; `None` when nothing is to be answered.
    ///
    /// As in memcached, a request that is announced in more than one datagram is none, and neither
    /// its number nor the last two bytes matter.
    pub fn parse(datagram: &'d [u8], spoken: Protocol) -> Option<Request<'d>> {
        let (&[id_high, id_low, _, _, count_high, count_low, _, _], payload) =
            datagram.split_first_chunk::<HEAD_BYTES>()?;
        let first = *payload.first()?;
        if [count_high, count_low] != [0, 1] || is_reply(first) {
            return None;
        }
        let is_binary = match spoken {
            Protocol::Negotiating => first == binary::MAGIC,
            Protocol::Ascii => false,
            Protocol::Binary => true,
        };
        let commands = if is_binary { payload } else { whole_lines(payload) };
        Some(Request { id: [id_high, id_low], is_binary, commands })
    }
}

/// True of the first byte of what servers say: words in capitals, numbers, and packets of their
/// own. No request begins so. Answered with an error, which the other side would answer likewise,
/// one forged datagram would keep two servers busy with each other for ever.
fn is_reply(first: u8) -> bool {
    first.is_ascii_uppercase() || first.is_ascii_digit() || first == binary::REPLY_MAGIC
}

/// Text without the line that is cut: keys would be looked for that are none.
fn whole_lines(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    &text[..end]
}

/// Bytes of a reply that fit into datagrams of so many bytes in all.
pub(super) fn payload_bytes_max(reply_bytes_max: usize) -> usize {
    let (full, rest) = (reply_bytes_max / DATAGRAM_BYTES_MAX, reply_bytes_max % DATAGRAM_BYTES_MAX);
    full * PAYLOAD_BYTES_MAX + rest.saturating_sub(HEAD_BYTES)
}

/// A reply in datagrams, all full but the last; none for nothing.
pub(super) fn split(id: [u8; 2], reply: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let count = u16::try_from(reply.len().div_ceil(PAYLOAD_BYTES_MAX)).unwrap_or(u16::MAX);
    (0..count).zip(reply.chunks(PAYLOAD_BYTES_MAX)).map(move |(number, payload)| {
        let [number, count] = [number, count].map(u16::to_be_bytes);
        let head = [id, number, count, [0, 0]];
        [head.as_flattened(), payload].concat()
    })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heard(datagram: &[u8]) -> Option<Request<'_>> {
        Request::parse(datagram, Protocol::Negotiating)
    }

    #[test]
    fn a_request_comes_in_one_datagram() {
        let wanted = Request { id: [1, 2], is_binary: false, commands: b"x\n" };
        assert_eq!(heard(&[1, 2, 0, 0, 0, 1, 0, 0, b'x', b'\n']), Some(wanted));
        assert_eq!(heard(&[1, 2, 0, 7, 0, 1, 8, 9, b'x', b'\n']), Some(wanted), "as memcached");
        for strange in [
            &[][..],
            &[1, 2, 0, 0, 0, 1, 0],
            &[1, 2, 0, 0, 0, 1, 0, 0],
            &[1, 2, 0, 0, 0, 2, 0, 0, b'x', b'\n'],
            &[1, 2, 0, 0, 1, 1, 0, 0, b'x', b'\n'],
            &[1, 2, 0, 0, 0, 0, 0, 0, b'x', b'\n'],
        ] {
            assert_eq!(heard(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn the_first_byte_or_the_address_says_what_is_spoken() {
        let is_binary = |first, spoken| {
            let datagram = [1, 2, 0, 0, 0, 1, 0, 0, first];
            Request::parse(&datagram, spoken).map(|request| request.is_binary)
        };
        assert_eq!(is_binary(0x80, Protocol::Negotiating), Some(true));
        assert_eq!(is_binary(b'g', Protocol::Negotiating), Some(false));
        assert_eq!(is_binary(0x80, Protocol::Ascii), Some(false));
        assert_eq!(is_binary(b'g', Protocol::Binary), Some(true));
    }

    #[test]
    fn what_servers_say_is_no_request() {
        for said in ["ERROR\r\n", "VALUE k 0 1\r\nv\r\nEND\r\n", "12\r\n", "HD\r\n"] {
            let datagram = [&[1, 2, 0, 0, 0, 1, 0, 0], said.as_bytes()].concat();
            assert_eq!(heard(&datagram), None, "{said:?}");
        }
        assert_eq!(heard(&[&[1, 2, 0, 0, 0, 1, 0, 0, 0x81][..], &[0; 23]].concat()), None);
    }

    #[test]
    fn a_line_that_is_cut_is_left_out() {
        assert_eq!(whole_lines(b"get a\r\nget b c"), b"get a\r\n");
        assert_eq!(whole_lines(b"get a b"), b"");
        assert_eq!(whole_lines(b"get a\n"), b"get a\n");
    }

    #[test]
    fn a_reply_fills_its_datagrams() {
        let reply: Vec<u8> = (0..3000u32).map(|byte| byte.to_le_bytes()[0]).collect();
        let datagrams: Vec<_> = split([7, 8], &reply).collect();
        assert_eq!(datagrams.iter().map(Vec::len).collect::<Vec<_>>(), [1400, 1400, 224]);
        assert_eq!(datagrams[2][..8], [7, 8, 0, 2, 0, 3, 0, 0]);
        let payloads: Vec<u8> = datagrams.iter().flat_map(|each| each[8..].to_vec()).collect();
        assert_eq!(payloads, reply);
        assert_eq!(split([0, 0], b"").count(), 0);
    }

    proptest! {
        #[test]
        fn the_limit_is_used_up_and_kept(limit in 64_usize..20_000) {
            let bytes = |payload: usize| -> usize {
                split([0, 0], &vec![0; payload]).map(|datagram| datagram.len()).sum()
            };
            prop_assert!(bytes(payload_bytes_max(limit)) <= limit);
            prop_assert!(bytes(payload_bytes_max(limit) + 1) > limit);
        }
    }
}
