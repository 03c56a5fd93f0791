//! A storage command as clients write it, read in one pass.
//!
//! ```text
//!   set <key> <flags> <exptime> <bytes>[ noreply]\r\n
//! ```
//!
//! Single spaces, plain digits, nothing that is out of bounds: whatever is written otherwise is
//! left to `head`, which knows what is wrong with it. What is read here, `head` would read alike.

use super::head::{Head, Parsed, StoreHead, StoreVerb};
use super::search::find_low;
use crate::base::limits::KEY_BYTES_MAX;

/// So many digits are no number that is out of bounds.
const DIGITS_MAX: usize = 9;

const NOREPLY: &[u8; 8] = b"noreply\r";

/// The storage command at the start of `input`, if it is there and plain.
#[inline]
pub fn plain_store(input: &[u8]) -> Option<Parsed<'_>> {
    let verb = match input.first_chunk()? {
        b"set " => StoreVerb::Set,
        b"add " => StoreVerb::Add,
        _ => return None,
    };
    let rest = &input[4..];
    let (key_bytes, b' ') = find_low(&rest[..rest.len().min(KEY_BYTES_MAX + 1)], b' ')? else {
        return None;
    };
    let (key, rest) = rest.split_at(key_bytes);
    let (flags, rest) = number(&rest[1..], b' ')?;
    let (exptime, rest) = number(rest, b' ')?;
    let (value_bytes, rest, noreply) = match number(rest, b'\r') {
        Some((value_bytes, rest)) => (value_bytes, rest, false),
        None => {
            let (value_bytes, rest) = number(rest, b' ')?;
            (value_bytes, rest.strip_prefix(NOREPLY)?, true)
        }
    };
    let rest = rest.strip_prefix(b"\n")?;
    if key.is_empty() {
        return None;
    }
    let exptime = i64::from(exptime);
    let head = Head::Store(StoreHead { verb, key, flags, exptime, value_bytes, noreply });
    Some(Parsed::Head { head, consumed: input.len() - rest.len() })
}

/// The number before `end`, and what follows that.
#[inline]
fn number(bytes: &[u8], end: u8) -> Option<(u32, &[u8])> {
    let mut sum = 0;
    for (place, byte) in bytes.iter().take(DIGITS_MAX + 1).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return (*byte == end && place > 0).then(|| (sum, &bytes[place + 1..]));
        }
        // Of the tenth digit, which is one too many, nothing is told.
        sum = sum.wrapping_mul(10).wrapping_add(u32::from(digit));
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::head::parse_head;
    use super::*;

    #[test]
    fn what_is_plain_is_read() {
        let key = "k".repeat(KEY_BYTES_MAX);
        for line in [
            "set k 0 0 32\r\n",
            "add some-key 999999999 1 0 noreply\r\n",
            &format!("set {key} 1 2 999999999\r\n"),
        ] {
            let parsed = plain_store(line.as_bytes());
            assert_eq!(parsed, Some(parse_head(line.as_bytes())), "{line:?}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left() {
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        for line in [
            "set  k 0 0 1\r\n",
            "set k 0 0 1 \r\n",
            "set k 0 0 1\n",
            "set k\t 0 0 1\r\n",
            "set k 0 -1 1\r\n",
            "set k +1 0 1\r\n",
            "set k 0 0 1000000000\r\n",
            "set k 0 0 1 noreply \r\n",
            "set k 0 0 \r\n",
            "set k 0 0 1\r",
            "cas k 0 0 1 1\r\n",
            &format!("set {long} 0 0 1\r\n"),
        ] {
            assert_eq!(plain_store(line.as_bytes()), None, "{line:?}");
        }
    }

    proptest! {
        /// Whatever is read here is read alike where everything is read.
        #[test]
        fn what_is_read_is_right(
            words in prop::collection::vec("[a0-9\r -]{1,3}|k{8,12}|noreply|[0-9]{8,11}", 3..6),
            tail in "\r\n|\n|\r|\r\nset k",
        ) {
            let line = format!("set {}{tail}", words.join(" "));
            if let Some(parsed) = plain_store(line.as_bytes()) {
                prop_assert_eq!(parsed, parse_head(line.as_bytes()));
            }
        }
    }
}
