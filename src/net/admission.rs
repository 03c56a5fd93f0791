//! How many connections are let in.

use crate::base::sync::atomic::{AtomicU32, Ordering};

/// The count of connections of the whole process against its limit.
#[derive(Debug)]
pub struct Admission {
    current: AtomicU32,
    limit: u32,
}

impl Admission {
    pub fn new(limit: u32) -> Admission {
        Admission { current: AtomicU32::new(0), limit }
    }

    /// Counts a connection in, unless the limit is reached.
    #[must_use]
    pub fn enter(&self) -> bool {
        // Relaxed: the count orders nothing else.
        let counted = self.current.fetch_add(1, Ordering::Relaxed) < self.limit;
        if !counted {
            self.leave();
        }
        counted
    }

    /// True when one more would be counted in.
    pub fn has_place(&self) -> bool {
        self.current.load(Ordering::Relaxed) < self.limit
    }

    pub fn leave(&self) {
        self.current.fetch_sub(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub fn current(&self) -> u32 {
        self.current.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact() {
        let admission = Admission::new(2);
        assert!(admission.enter() && admission.enter());
        assert!(!admission.enter() && !admission.has_place());
        admission.leave();
        assert!(admission.has_place());
        assert!(admission.enter());
        assert_eq!(admission.current(), 2);
    }
}
