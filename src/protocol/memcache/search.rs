//! Finding the end of a line or of a key, eight bytes at a time.

const LOW: u64 = u64::from_le_bytes([0x01; 8]);
const HIGH: u64 = u64::from_le_bytes([0x80; 8]);

/// The high bit of each byte that is zero; only the lowest one set is to be relied on.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & HIGH
}

const fn spread(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The first byte that is `limit` or less, and where it is. `limit` must be less than 128.
///
/// Fewer than eight bytes are not searched.
#[inline]
pub fn find_low(bytes: &[u8], limit: u8) -> Option<(usize, u8)> {
    // A borrow reaches only bytes after the first that is low, and of those the first is taken.
    let low = |word: u64| word.wrapping_sub(spread(limit + 1)) & !word & HIGH;
    let first = |found: u64| (found.trailing_zeros() / 8) as usize;
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let found = low(u64::from_le_bytes(*word));
        if found != 0 {
            let place = index * 8 + first(found);
            return Some((place, bytes[place]));
        }
    }
    // The last eight bytes, of which those were searched that no tail is made of.
    let found = low(u64::from_le_bytes(*bytes.last_chunk::<8>()?)) >> (8 * (8 - tail.len()) % 64);
    let place = words.len() * 8 + first(found);
    (found != 0 && !tail.is_empty()).then(|| (place, bytes[place]))
}

/// Where `bytes` first holds `one` or `other`.
#[inline]
pub fn find_either(bytes: &[u8], one: u8, other: u8) -> Option<usize> {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ spread(one)) | zeros(word ^ spread(other));
        if found != 0 {
            return Some(index * 8 + (found.trailing_zeros() / 8) as usize);
        }
    }
    let place = tail.iter().position(|&byte| byte == one || byte == other)?;
    Some(words.len() * 8 + place)
}

#[inline]
pub fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    find_either(bytes, byte, byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_low_byte() {
        for filler in [b' ' + 1, b'a', 0x7f, 0x80, 0x8a, 0xa0, 0xff] {
            for len in 0..40 {
                let mut bytes = vec![filler; len];
                assert_eq!(find_low(&bytes, b' '), None);
                for place in (0..len).rev() {
                    bytes[place] = [b' ', b'\r', 0][place % 3];
                    let found = (len >= 8).then_some((place, bytes[place]));
                    assert_eq!(find_low(&bytes, b' '), found);
                }
            }
        }
    }

    #[test]
    fn finds_what_a_simple_search_finds() {
        // Neighbours that differ in one bit are what a word-wide search gets wrong.
        for filler in [0x00, 0x09, 0x0b, b' ' + 1, b' ' - 1, 0x80, 0x8a, 0xa0, 0xff] {
            for len in 0..40 {
                let mut bytes = vec![filler; len];
                assert_eq!(find_either(&bytes, b' ', b'\n'), None);
                for place in (0..len).rev() {
                    bytes[place] = if place % 2 == 0 { b' ' } else { b'\n' };
                    assert_eq!(find_either(&bytes, b' ', b'\n'), Some(place));
                    let line_end = bytes.iter().position(|&byte| byte == b'\n');
                    assert_eq!(find(&bytes, b'\n'), line_end);
                }
            }
        }
    }
}
