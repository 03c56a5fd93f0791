//! Bytes that are sent from where they are.

use std::ptr::NonNull;

use super::Region;
use crate::sys::blocks::Landed;

/// Bytes of a region that do not change until their lender has this back. Not `Clone`: it stands
/// for one share in what keeps them as they are, a pin.
#[derive(Debug)]
#[must_use = "a dropped span keeps its memory from being used again for ever"]
pub struct Span {
    start: NonNull<u8>,
    len: u32,
    /// True exactly while the kernel may read the bytes.
    in_flight: bool,
    /// By what the lender knows it.
    note: u64,
}

// SAFETY: the bytes are only read through it, nobody writes them, and they stay mapped (R1).
unsafe impl Send for Span {}

impl Span {
    /// Lends `len` bytes at `offset` for reading. The lender gets `note` back with them.
    ///
    /// # Panics
    /// If any of them is outside, or if they are 4 GiB.
    ///
    /// # Safety
    /// Nobody may write to these bytes until the lender has this span back (R3).
    pub unsafe fn of(region: Region, offset: usize, len: usize, note: u64) -> Span {
        let start = region.span(offset, len);
        let len = u32::try_from(len).expect("a slot is smaller than 4 GiB");
        Span { start, len, in_flight: false, note }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: R1, and who made the span has promised that the bytes do not change (R3).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }

    #[allow(clippy::len_without_is_empty, reason = "nothing is spanned that is empty")]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// By what the lender knows it; `None` when the bytes are of another region.
    ///
    /// # Panics
    /// If the kernel may still read the bytes.
    pub fn note_in(&self, region: Region) -> Option<u64> {
        assert!(!self.in_flight, "a span is given back while the kernel reads it");
        let base = region.base.addr().get();
        let is_inside = (base..base + region.len).contains(&self.start.addr().get());
        is_inside.then_some(self.note)
    }

    /// By what the lender knows it, whosever it is.
    pub fn note(&self) -> u64 {
        self.note
    }

    pub(in crate::sys) fn launch(&mut self) {
        self.in_flight = true;
    }

    pub fn land(&mut self, _proof: &Landed) {
        self.in_flight = false;
    }
}

#[cfg(test)]
impl Span {
    /// For tests of what becomes of spans: these bytes, lent by nobody.
    pub fn for_test(bytes: &[u8], note: u64) -> Span {
        let region = Region::map(bytes.len().max(1)).unwrap();
        // SAFETY: nobody else knows the region, and it has as many bytes.
        unsafe { region.at(0).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        // SAFETY: nobody writes to them from now on.
        unsafe { Span::of(region, 0, bytes.len(), note) }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn span(region: Region) -> Span {
        // SAFETY: nobody else knows the region.
        unsafe { Span::of(region, 10, 20, 77) }
    }

    #[test]
    fn a_lender_knows_its_own() {
        let (one, other) = (Region::map(4096).unwrap(), Region::map(4096).unwrap());
        let mut span = span(one);
        assert_eq!((span.bytes(), span.len()), (&[0; 20][..], 20));
        assert_eq!((span.note_in(one), span.note_in(other)), (Some(77), None));
        span.launch();
        span.land(&Landed::for_test());
        assert_eq!(span.note_in(one), Some(77));
    }

    #[test]
    #[should_panic(expected = "while the kernel reads it")]
    fn a_span_in_flight_is_not_given_back() {
        let region = Region::map(4096).unwrap();
        let mut span = span(region);
        span.launch();
        let _ = span.note_in(region);
    }
}
