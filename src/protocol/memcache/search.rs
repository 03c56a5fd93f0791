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
