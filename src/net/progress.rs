//! Whether a peer gets on with what it has begun: reads what it is sent, sends what it announced.
//!
//! Two clocks. One begins anew with every byte: who is idle. The other only with a fair amount, or
//! with the end of what the peer owes: so one that takes or sends a byte now and then, and keeps
//! memory all the while, is as slow as one that does nothing. Who owes nothing is never slow: the
//! second clock begins anew with what is owed next.

use crate::base::clock::Now;

/// Bytes that who owes more must move before it counts as having got on.
pub const FAIR_BYTES: u16 = 16 * 1024;

/// Fewer bytes at a time are few: requests one by one, and no pipeline.
const LITTLE_BYTES: usize = 1024;

/// Wraps every four years, which no silence lasts.
fn tick(now: Now) -> u32 {
    u32::try_from(now.ticks & u64::from(u32::MAX)).expect("32 bits")
}

#[derive(Debug)]
pub(super) struct Progress {
    /// The tick at which bytes last moved in the direction that the connection waits for.
    active_at: u32,
    /// The tick at which a fair amount had moved, or nothing was owed, last.
    fair_at: u32,
    /// What has moved since.
    moved_bytes: u16,
    /// True from when replies are sent until they are taken.
    must_read: bool,
    /// True when what came last was little.
    brings_little: bool,
}

impl Progress {
    pub(super) fn new(now: Now) -> Progress {
        let tick = tick(now);
        Progress {
            active_at: tick,
            fair_at: tick,
            moved_bytes: 0,
            must_read: false,
            brings_little: true,
        }
    }

    /// Both clocks begin anew.
    pub(super) fn restart(&mut self, now: Now) {
        self.active_at = tick(now);
        self.settle(now);
    }

    fn settle(&mut self, now: Now) {
        self.fair_at = tick(now);
        self.moved_bytes = 0;
    }

    fn moved(&mut self, bytes: usize, now: Now) {
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        self.moved_bytes = self.moved_bytes.saturating_add(bytes);
        if self.moved_bytes >= FAIR_BYTES {
            self.settle(now);
        }
    }

    /// So many bytes came at a time.
    #[inline]
    pub(super) fn brought(&mut self, bytes: usize) {
        self.brings_little = bytes < LITTLE_BYTES;
    }

    /// True when those that came last were few, or none have come.
    pub(super) fn brings_little(&self) -> bool {
        self.brings_little
    }

    /// Bytes came from the peer; `is_amid` says whether it owed them.
    #[inline]
    pub(super) fn received(&mut self, bytes: usize, is_amid: impl FnOnce() -> bool, now: Now) {
        self.active_at = tick(now);
        // Who must read first is not excused by sending on.
        if self.fair_at == self.active_at || self.must_read {
            return;
        }
        if is_amid() { self.moved(bytes, now) } else { self.settle(now) }
    }

    /// Replies are on their way: from now on the peer must read.
    #[inline]
    pub(super) fn sending(&mut self, now: Now) {
        if !std::mem::replace(&mut self.must_read, true) {
            self.settle(now);
        }
    }

    /// The peer took bytes, and now so many are left for it.
    #[inline]
    pub(super) fn sent(&mut self, bytes: usize, left_bytes: usize, now: Now) {
        if bytes > 0 {
            self.active_at = tick(now);
        }
        if left_bytes == 0 {
            self.must_read = false;
            self.settle(now);
        } else {
            self.moved(bytes, now);
        }
    }

    /// Ticks since bytes moved last; the first of them had begun already.
    pub(super) fn silent_ticks(&self, now: Now) -> u32 {
        tick(now).wrapping_sub(self.active_at)
    }

    /// Ticks since it got on, for who owes something.
    pub(super) fn slow_ticks(&self, now: Now) -> u32 {
        tick(now).wrapping_sub(self.fair_at)
    }

    pub(super) fn active_at(&self) -> u32 {
        self.active_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ticks: u64) -> Now {
        Now { ticks, epoch_unix_s: 0 }
    }

    #[test]
    fn a_sip_is_no_progress_and_a_fair_amount_is() {
        let mut progress = Progress::new(at(0));
        progress.sending(at(10));
        for tick in 11..=20 {
            progress.sent(1, 1 << 20, at(tick));
            progress.sending(at(tick));
            assert_eq!(progress.slow_ticks(at(tick)), u32::try_from(tick - 10).unwrap());
            assert_eq!(progress.silent_ticks(at(tick)), 0);
        }
        progress.sent(usize::from(FAIR_BYTES) - 10, 1 << 20, at(21));
        assert_eq!(progress.slow_ticks(at(21)), 0, "a fair amount, piece by piece");
        progress.sent(usize::from(FAIR_BYTES) - 1, 7, at(30));
        assert_eq!(progress.slow_ticks(at(30)), 9);
        progress.sent(7, 0, at(31));
        assert_eq!(progress.slow_ticks(at(31)), 0, "all of it");
    }

    #[test]
    fn what_is_owed_next_begins_when_it_begins() {
        let mut progress = Progress::new(at(0));
        progress.received(5, || false, at(1000));
        assert_eq!(progress.slow_ticks(at(1000)), 0, "it has only thought before");
        progress.received(5, || true, at(1100));
        assert_eq!((progress.slow_ticks(at(1100)), progress.silent_ticks(at(1100))), (100, 0));
        progress.sending(at(1200));
        assert_eq!(progress.slow_ticks(at(1200)), 0, "now it is to read");
        progress.received(1 << 20, || false, at(1300));
        assert_eq!(progress.slow_ticks(at(1300)), 100, "which sending on does not replace");
    }

    #[test]
    fn silence_is_counted_over_the_end_of_the_numbers() {
        let end = u64::from(u32::MAX);
        let progress = Progress::new(at(end));
        assert_eq!((progress.silent_ticks(at(end + 5)), progress.slow_ticks(at(end + 5))), (5, 5));
    }
}
