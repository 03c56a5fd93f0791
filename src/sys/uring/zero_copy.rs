//! Sends without a copy: which ones, and what they come to.
//!
//! ```text
//!   send --> result, more to come --> notification: nobody reads the bytes any more
//!      \---> result, nothing to come
//! ```
//!
//! A send has ended when its last completion has come, and not before: until then what it names is
//! in flight (R3), which takes as long as the far end needs to acknowledge it. Where the kernel
//! says that it copied after all, or that it cannot, the connection is sent to plainly from then
//! on.

use crate::base::slots::SlotId;

/// `IORING_SEND_ZC_REPORT_USAGE`: the notification says whether the kernel copied after all.
pub(super) const REPORT_USAGE: u16 = 1 << 3;

/// `IORING_NOTIF_USAGE_ZC_COPIED`, in the result of a notification.
const COPIED: u32 = 1 << 31;

/// A connection in its place.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// The generation of the connection that is sent to plainly, if there is one.
    plain: Option<u32>,
    /// True exactly while a send without a copy is in flight.
    in_flight: bool,
    /// What it came to, while its notification is due.
    result: Option<i32>,
}

#[derive(Debug)]
pub(super) struct ZeroCopy {
    /// Bytes from which a send is not copied; 0 is never.
    bytes_min: usize,
    places: Vec<Place>,
    /// Sends so far, and those that the kernel copied, or would not take.
    pub sends: u64,
    pub copied: u64,
}

impl ZeroCopy {
    pub fn from(bytes_min: u32) -> ZeroCopy {
        ZeroCopy { bytes_min: bytes_min as usize, places: Vec::new(), sends: 0, copied: 0 }
    }

    fn place(&mut self, slot: SlotId) -> &mut Place {
        let place = slot.index as usize;
        if self.places.len() <= place {
            self.places.resize(place + 1, Place::default());
        }
        &mut self.places[place]
    }

    /// True when so many bytes are to be sent without a copy; they are, then.
    pub fn takes(&mut self, slot: SlotId, bytes: usize) -> bool {
        if self.bytes_min == 0 || bytes < self.bytes_min {
            return false;
        }
        let place = self.place(slot);
        if place.plain == Some(slot.generation) {
            return false;
        }
        place.in_flight = true;
        self.sends += 1;
        true
    }

    /// True while a send without a copy is in flight on the connection.
    pub fn is_in_flight(&self, slot: SlotId) -> bool {
        self.places.get(slot.index as usize).is_some_and(|place| place.in_flight)
    }

    /// Records a completion; `Some` when it is the last one of its send, with what that came to.
    ///
    /// # Panics
    /// If there was no send.
    pub fn completed(
        &mut self,
        slot: SlotId,
        result: i32,
        is_notification: bool,
        more: bool,
    ) -> Option<i32> {
        let place = self.place(slot);
        assert!(place.in_flight, "a completion of no send");
        let ended = if is_notification {
            let first = place.result.take().expect("a notification comes last");
            if result.cast_unsigned() & COPIED != 0 {
                place.plain = Some(slot.generation);
                self.copied += 1;
            }
            first
        } else if more {
            place.result = Some(result);
            return None;
        } else {
            result
        };
        let place = self.place(slot);
        place.in_flight = false;
        match -ended {
            // There is no room to keep account of what is not copied, or the socket does not do it.
            libc::ENOMEM | libc::ENOBUFS | libc::EOPNOTSUPP | libc::EINVAL => {
                place.plain = Some(slot.generation);
                self.copied += 1;
                Some(-libc::EAGAIN)
            }
            _ => Some(ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SlotId = SlotId { index: 3, generation: 7 };
    const NEXT: SlotId = SlotId { index: 3, generation: 8 };
    const COPIED_RESULT: i32 = i32::MIN;

    #[test]
    fn a_send_ends_with_its_last_completion() {
        let mut zero_copy = ZeroCopy::from(100);
        assert!(!zero_copy.takes(ONE, 99) && !zero_copy.is_in_flight(ONE));
        assert!(zero_copy.takes(ONE, 100) && zero_copy.is_in_flight(ONE));
        assert_eq!(zero_copy.completed(ONE, 60, false, true), None);
        assert!(zero_copy.is_in_flight(ONE));
        assert_eq!(zero_copy.completed(ONE, 0, true, false), Some(60));
        assert!(!zero_copy.is_in_flight(ONE));
        assert!(zero_copy.takes(ONE, 100), "nothing was copied");
        assert_eq!(zero_copy.completed(ONE, -libc::EPIPE, false, false), Some(-libc::EPIPE));
        assert!(zero_copy.takes(ONE, 100));
        assert_eq!(zero_copy.completed(ONE, -libc::ECONNRESET, false, true), None);
        assert_eq!(zero_copy.completed(ONE, 0, true, false), Some(-libc::ECONNRESET));
        assert_eq!((zero_copy.sends, zero_copy.copied), (3, 0));
    }

    #[test]
    fn who_is_copied_for_is_sent_to_plainly_and_nobody_else() {
        let mut zero_copy = ZeroCopy::from(100);
        assert!(zero_copy.takes(ONE, 100));
        assert_eq!(zero_copy.completed(ONE, 100, false, true), None);
        assert_eq!(zero_copy.completed(ONE, COPIED_RESULT, true, false), Some(100));
        assert!(!zero_copy.takes(ONE, 100_000));
        assert!(zero_copy.takes(NEXT, 100), "it is another connection");
        assert_eq!((zero_copy.sends, zero_copy.copied), (2, 1));
    }

    #[test]
    fn what_cannot_be_sent_without_a_copy_is_sent_again() {
        for errno in [libc::ENOMEM, libc::ENOBUFS, libc::EOPNOTSUPP] {
            for notified in [false, true] {
                let mut zero_copy = ZeroCopy::from(1);
                assert!(zero_copy.takes(ONE, 100));
                let mut end = zero_copy.completed(ONE, -errno, false, notified);
                if notified {
                    assert_eq!(end, None);
                    end = zero_copy.completed(ONE, 0, true, false);
                }
                assert_eq!(end, Some(-libc::EAGAIN));
                assert!(!zero_copy.takes(ONE, 100));
            }
        }
    }

    #[test]
    fn off_is_never() {
        assert!(!ZeroCopy::from(0).takes(ONE, usize::MAX));
    }
}
