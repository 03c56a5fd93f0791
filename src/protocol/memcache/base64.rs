//! Keys in base64, as RFC 4648 has it, with padding.
//!
//! Each key has one spelling: what is not it is refused, so that what is told of a key is what was
//! sent.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const PAD: u8 = b'=';

/// Longest that a key of so many bytes becomes.
pub const fn encoded_bytes(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// What a letter stands for.
fn sextet(letter: u8) -> Option<u32> {
    let (first, value) = match letter {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        _ => return None,
    };
    Some(u32::from(letter - first) + value)
}

/// Decodes `text` to the start of `space`, and says how many bytes that made. `None` when it is
/// nothing, or not base64.
///
/// # Panics
/// If `space` is shorter than the text.
pub fn decode(text: &[u8], space: &mut [u8]) -> Option<usize> {
    let (blocks, rest) = text.as_chunks::<4>();
    if blocks.is_empty() || !rest.is_empty() {
        return None;
    }
    let mut len = 0;
    for (place, block) in blocks.iter().enumerate() {
        let is_last = place + 1 == blocks.len();
        let pads = match block {
            [_, _, PAD, PAD] if is_last => 2,
            [_, _, _, PAD] if is_last => 1,
            _ => 0,
        };
        let letters = &block[..4 - pads];
        let bits = letters.iter().try_fold(0, |bits, &letter| Some(bits << 6 | sextet(letter)?))?;
        let bits = bits << (6 * pads);
        let [_, bytes @ ..] = bits.to_be_bytes();
        let (bytes, cut) = bytes.split_at(3 - pads);
        if cut.iter().any(|byte| *byte != 0) {
            return None;
        }
        space[len..len + bytes.len()].copy_from_slice(bytes);
        len += bytes.len();
    }
    Some(len)
}

/// True of what `decode` would decode.
pub fn is_encoded(text: &[u8]) -> bool {
    let mut space = [0; 3];
    let (blocks, rest) = text.as_chunks::<4>();
    let Some((last, others)) = blocks.split_last() else { return false };
    rest.is_empty()
        && others.iter().flatten().all(|letter| sextet(*letter).is_some())
        && decode(last, &mut space).is_some()
}

/// Encodes `bytes` at the start of `space`, and says how long that is.
///
/// # Panics
/// If `space` is too short.
pub fn encode(bytes: &[u8], space: &mut [u8]) -> usize {
    let mut len = 0;
    for group in bytes.chunks(3) {
        let mut whole = [0; 4];
        whole[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(whole);
        let letter = |place: u32| ALPHABET[(bits >> (18 - 6 * place)) as usize % 64];
        let mut block = [letter(0), letter(1), letter(2), letter(3)];
        block[group.len() + 1..].fill(PAD);
        space[len..len + 4].copy_from_slice(&block);
        len += 4;
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        let mut space = [0; 64];
        let len = decode(text.as_bytes(), &mut space);
        assert_eq!(is_encoded(text.as_bytes()), len.is_some(), "{text}");
        len.map(|len| space[..len].to_vec())
    }

    #[test]
    fn keys_have_one_spelling() {
        for (text, key) in [
            ("Zg==", &b"f"[..]),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmFy", b"foobar"),
            ("+/+/", b"\xfb\xff\xbf"),
            ("AAAA", b"\0\0\0"),
        ] {
            assert_eq!(decoded(text).as_deref(), Some(key), "{text}");
        }
        for text in [
            "", "Z", "Zg", "Zg=", "Zm9vZ", "====", "Z===", "Zh==", "Zm9=", "Zg==Zg==", "Zm9!",
            "Zm9_", "=m9v", "Z=9v", "Zm=v", "\u{ff}AA",
        ] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 1..60)) {
            let (mut text, mut again) = ([0; 80], [0; 80]);
            let len = encode(&bytes, &mut text);
            prop_assert_eq!(len, encoded_bytes(bytes.len()));
            prop_assert!(is_encoded(&text[..len]));
            let decoded = decode(&text[..len], &mut again);
            prop_assert_eq!(decoded.map(|len| &again[..len]), Some(&bytes[..]));
        }

        #[test]
        fn what_is_decoded_is_encoded_alike(text in "[A-Da-d0-3+/=]{0,16}") {
            let (mut bytes, mut again) = ([0; 80], [0; 80]);
            let decoded = decode(text.as_bytes(), &mut bytes);
            prop_assert_eq!(is_encoded(text.as_bytes()), decoded.is_some());
            if let Some(len) = decoded {
                let len = encode(&bytes[..len], &mut again);
                prop_assert_eq!(&again[..len], text.as_bytes());
            }
        }
    }
}
