//! Fields of a receive that the io-uring crate has no names for.

use io_uring::squeue::Entry;

/// `IORING_RECVSEND_POLL_FIRST`, in the field `ioprio`.
const POLL_FIRST: u8 = 1;
/// Where `ioprio` and `optlen` are in a submission.
const IOPRIO_AT: usize = 2;
const OPTLEN_AT: usize = 44;

/// Waits for bytes before it looks for some.
pub(super) fn poll_first(mut entry: Entry) -> Entry {
    bytes(&mut entry)[IOPRIO_AT] |= POLL_FIRST;
    entry
}

/// Ends a multishot receive with the buffer in which it has brought `limit` bytes; 0 is no limit.
pub(super) fn end_after(mut entry: Entry, limit: u32) -> Entry {
    bytes(&mut entry)[OPTLEN_AT..][..4].copy_from_slice(&limit.to_ne_bytes());
    entry
}

fn bytes(entry: &mut Entry) -> &mut [u8; 64] {
    const { assert!(size_of::<Entry>() == 64) }
    // SAFETY: an entry is the kernel's 64 bytes in its layout (`repr(C)`), plain numbers without
    // gaps, for which every pattern is a value; the borrow of the entry is passed on.
    unsafe { &mut *std::ptr::from_mut(entry).cast::<[u8; 64]>() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::{opcode, types::Fd};

    #[test]
    fn only_the_named_fields_change() {
        let plain = || opcode::RecvMulti::new(Fd(7), 9).build().user_data(5);
        let was = *bytes(&mut plain());
        let mut is = *bytes(&mut end_after(poll_first(plain()), 0x0102_0304));
        assert_eq!((was[IOPRIO_AT] & POLL_FIRST, is[IOPRIO_AT]), (0, was[IOPRIO_AT] | POLL_FIRST));
        assert_eq!(is[OPTLEN_AT..][..4], 0x0102_0304_u32.to_ne_bytes());
        is[IOPRIO_AT] = was[IOPRIO_AT];
        is[OPTLEN_AT..][..4].fill(0);
        assert_eq!(is, was);
    }
}
