//! Copying and comparing byte strings as short as keys are, without a call for each.
//!
//! ```text
//!   | first 8 or 16 bytes ... |
//!               | ... last 8 or 16 bytes |      the two overlap where the length is not twice that
//! ```

/// True when both are the same.
#[inline]
pub fn equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    match one.len() {
        8..=16 => ends_equal::<8>(one, other),
        17..=32 => ends_equal::<16>(one, other),
        _ => one == other,
    }
}

#[inline]
fn ends_equal<const N: usize>(one: &[u8], other: &[u8]) -> bool {
    one.first_chunk::<N>() == other.first_chunk::<N>()
        && one.last_chunk::<N>() == other.last_chunk::<N>()
}

/// Copies `from` to the start of `to`.
///
/// # Panics
/// If `to` is shorter.
#[inline]
pub fn copy(to: &mut [u8], from: &[u8]) {
    let to = &mut to[..from.len()];
    match from.len() {
        8..=16 => copy_ends::<8>(to, from),
        17..=32 => copy_ends::<16>(to, from),
        33..=64 => copy_ends::<32>(to, from),
        _ => to.copy_from_slice(from),
    }
}

#[inline]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk::<N>()) {
        *to = *from;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts_and_is_copied_at_any_length() {
        for len in 0..80 {
            let from: Vec<u8> = (1..=len).collect();
            let mut to = [0; 81];
            copy(&mut to, &from);
            assert_eq!(to[..from.len()], from);
            assert!(to[from.len()..].iter().all(|byte| *byte == 0));
            assert!(equal(&from, &to[..from.len()]));
            assert!(!equal(&from, &to[..=from.len()]));
            for place in 0..from.len() {
                to[place] ^= 0x80;
                assert!(!equal(&from, &to[..from.len()]), "byte {place} of {len}");
                to[place] ^= 0x80;
            }
        }
    }

    #[test]
    #[should_panic(expected = "range end index")]
    fn what_has_no_room_is_not_copied() {
        copy(&mut [0; 19], &[1; 20]);
    }
}
