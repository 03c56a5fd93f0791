//! A field of a receive that the io-uring crate has no name for.
//!
//! `IORING_RECVSEND_POLL_FIRST` is another one, and not used: on Linux 6.18 a multishot receive
//! that begins with it misses the reset of a peer that was faster than the receive.

use io_uring::squeue::Entry;

/// Where `optlen` is in a submission.
const OPTLEN_AT: usize = 44;

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
    fn only_the_named_field_changes() {
        let plain = || opcode::RecvMulti::new(Fd(7), 9).build().user_data(5);
        let was = *bytes(&mut plain());
        let mut is = *bytes(&mut end_after(plain(), 0x0102_0304));
        assert_eq!(is[OPTLEN_AT..][..4], 0x0102_0304_u32.to_ne_bytes());
        is[OPTLEN_AT..][..4].fill(0);
        assert_eq!(is, was);
    }
}
