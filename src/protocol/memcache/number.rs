//! Numbers on the wire.

/// Digits only.
pub fn decimal(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0u64, |sum, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Digits, after a minus or not.
pub fn signed(word: &[u8]) -> Option<i64> {
    match word.strip_prefix(b"-") {
        Some(digits) => 0i64.checked_sub_unsigned(decimal(digits)?),
        None => i64::try_from(decimal(word)?).ok(),
    }
}

/// Where memcached uses `strtol`, a plus may stand before a number.
pub fn without_plus(word: &[u8]) -> &[u8] {
    match word {
        [b'+', digit, ..] if digit.is_ascii_digit() => &word[1..],
        _ => word,
    }
}

/// Longest number that `write_decimal` writes.
pub const DECIMAL_BYTES_MAX: usize = 20;

/// Writes `number` at the start of `space` and says how many bytes that took.
///
/// # Panics
/// If `space` is shorter than `DECIMAL_BYTES_MAX` and the number does not fit.
#[inline(always)]
pub fn write_decimal(space: &mut [u8], number: u64) -> usize {
    // Most flags and lengths have one digit or two.
    match number {
        0..10 => {
            space[0] = ascii(number);
            1
        }
        10..100 => {
            space[..2].copy_from_slice(&[ascii(number / 10), ascii(number % 10)]);
            2
        }
        100.. => write_long(space, number),
    }
}

fn write_long(space: &mut [u8], number: u64) -> usize {
    let len = digits(number);
    let mut rest = number;
    for place in space[..len].iter_mut().rev() {
        *place = ascii(rest % 10);
        rest /= 10;
    }
    len
}

#[inline(always)]
fn ascii(digit: u64) -> u8 {
    b'0' + digit.to_le_bytes()[0]
}

fn digits(number: u64) -> usize {
    let mut len = 1;
    let mut bound = 10u64;
    while number >= bound {
        len += 1;
        match bound.checked_mul(10) {
            Some(next) => bound = next,
            None => break,
        }
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_numbers_are_read_back() {
        let mut space = [0; DECIMAL_BYTES_MAX];
        let powers = (0..20).map(|power| 10u64.pow(power));
        for number in powers.flat_map(|p| [p - 1, p, p + 1]).chain(0..1000).chain([u64::MAX]) {
            let len = write_decimal(&mut space, number);
            assert_eq!(space[..len], *number.to_string().as_bytes());
            assert_eq!(decimal(&space[..len]), Some(number));
        }
    }

    #[test]
    fn what_is_no_number() {
        for word in [&b""[..], b"-1", b"+1", b"1x", b"0x1", b" 1", b"18446744073709551616", b"\xff"]
        {
            assert_eq!(decimal(word), None, "{word:?}");
        }
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(signed(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(signed(b"9223372036854775807"), Some(i64::MAX));
        for word in [&b"-9223372036854775809"[..], b"9223372036854775808", b"-", b"--1", b"-+1"] {
            assert_eq!(signed(word), None, "{word:?}");
        }
        assert_eq!(without_plus(b"+5"), b"5");
        assert_eq!(without_plus(b"+-5"), b"+-5");
        assert_eq!(without_plus(b"+"), b"+");
    }
}
