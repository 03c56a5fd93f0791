//! Who has which cache line: a line is held by those who have read it since it was last written,
//! and by its last writer.
//!
//! A line that nobody has written yet comes from memory and is nobody's loss. Caches are without
//! end here, so this is the most that threads can take from each other.

use std::collections::BTreeMap;
use std::panic::Location;

use ringcached::base::counted::{Access, Deed};

/// At most so many threads: a bit each.
pub const THREADS_MAX: u32 = u64::BITS;

/// Where in the source something is done.
pub type Site = &'static Location<'static>;

#[derive(Debug, Default)]
pub struct Lines(BTreeMap<usize, Line>);

#[derive(Debug, Default)]
struct Line {
    /// A bit for each thread that has it.
    holders: u64,
    /// Somebody has written it, so that who does not have it had to give it up, or never had it.
    was_written: bool,
}

/// What was done, and what had to come from others for it.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    pub stores: u64,
    pub updates: u64,
    pub locks: u64,
    pub fences: u64,
    /// Lines that another thread had written since this one had them, or held when it wrote.
    pub taken: u64,
    /// The same, by who did it.
    pub sites: BTreeMap<Site, u64>,
}

impl Lines {
    /// Follows the accesses of one thread, and adds them up.
    pub fn follow(&mut self, thread: u32, accesses: &[Access], sum: &mut Sum) {
        for access in accesses {
            match access.deed {
                Deed::Load => {}
                Deed::Store => sum.stores += 1,
                Deed::Update => sum.updates += 1,
                Deed::Lock => sum.locks += 1,
                Deed::Fence => sum.fences += 1,
            }
            if access.deed != Deed::Fence && self.touch(thread, access.line, access.writes()) {
                sum.taken += 1;
                *sum.sites.entry(access.site).or_default() += 1;
            }
        }
    }

    /// True when the line has to come from another thread, or to be taken from it.
    fn touch(&mut self, thread: u32, line: usize, writes: bool) -> bool {
        let own = 1 << (thread % THREADS_MAX);
        let line = self.0.entry(line).or_default();
        let others = line.holders & !own;
        if writes {
            *line = Line { holders: own, was_written: true };
            return others != 0;
        }
        let is_taken = line.was_written && line.holders & own == 0;
        line.holders |= own;
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_from_who_wrote_it_and_from_who_reads_it() {
        let mut lines = Lines::default();
        let mut touch = |thread, writes| lines.touch(thread, 7, writes);
        assert!(!touch(0, true), "from memory");
        assert!(!touch(0, true) && !touch(0, false), "its own");
        assert!(touch(1, false), "0 has written it");
        assert!(!touch(1, false) && !touch(0, false), "both may read");
        assert!(touch(2, false) && !touch(2, false), "once for each who reads it");
        assert!(touch(0, true), "1 and 2 have it");
        assert!(touch(63, true), "0 has it");
        assert!(touch(1, false) && touch(1, true));
        assert!(!lines.touch(0, 8, false) && !lines.touch(1, 8, false), "nobody has written it");
    }
}
