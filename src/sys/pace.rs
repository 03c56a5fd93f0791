//! When a ring that is about to sleep should wait for company.
//!
//! A ring that has little to do wakes for every completion: a wait would only make it late. One
//! that has found several at a time lately will find several again, and each wake that it saves is
//! time for the work itself.

/// A ring that finds fewer completions a turn than this has little to do.
const BUSY: u32 = 8;

/// Most completions that are waited for: what comes later fills the next turn.
const COMPANY_MAX: u32 = 128;

/// Turns over which the average is taken, as a power of two.
const TURNS_BITS: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Pace {
    min_wait_us: u32,
    /// Completions a turn, on average, times the number of turns.
    recent: u32,
}

impl Pace {
    pub(super) fn new(min_wait_us: u32) -> Pace {
        Pace { min_wait_us, recent: 0 }
    }

    /// Takes notice of a turn that found so many completions.
    pub(super) fn found(&mut self, completions: usize) {
        let completions = u32::try_from(completions).unwrap_or(u32::MAX).min(1 << 16);
        self.recent = self.recent - (self.recent >> TURNS_BITS) + completions;
    }

    /// Takes notice that nobody came in the time of a wait.
    pub(super) fn calm_down(&mut self) {
        self.recent = 0;
    }

    /// How many completions a sleep should last for, and the microseconds after which one is
    /// enough. `None` when it should end with the first.
    pub(super) fn company(&self) -> Option<(u32, u32)> {
        let usual = self.recent >> TURNS_BITS;
        let is_worth_it = self.min_wait_us > 0 && usual >= BUSY;
        is_worth_it.then_some((usual.min(COMPANY_MAX), self.min_wait_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(turns: &[usize]) -> Pace {
        let mut pace = Pace::new(50);
        turns.iter().for_each(|completions| pace.found(*completions));
        pace
    }

    #[test]
    fn only_a_busy_ring_waits_and_not_for_more_than_is_usual() {
        assert_eq!(after(&[]).company(), None);
        assert_eq!(after(&[1; 1000]).company(), None);
        assert_eq!(after(&[7; 1000]).company(), None);
        let (company, wait_us) = after(&[40; 1000]).company().unwrap();
        assert!((33..=40).contains(&company), "{company}");
        assert_eq!(wait_us, 50);
        assert_eq!(after(&[5000; 1000]).company(), Some((COMPANY_MAX, 50)));
        assert!(after(&[usize::MAX; 1000]).company().is_some());
    }

    #[test]
    fn it_is_over_soon_after_the_rush() {
        let rush = after(&[40; 1000]);
        assert!(rush.company().is_some());
        let mut calm = rush;
        (0..16).for_each(|_| calm.found(1));
        assert_eq!(calm.company(), None);
        let mut calm = after(&[40; 1000]);
        calm.calm_down();
        assert_eq!(calm.company(), None);
    }

    #[test]
    fn no_time_is_no_wait() {
        let mut pace = Pace::new(0);
        (0..1000).for_each(|_| pace.found(40));
        assert_eq!(pace.company(), None);
    }
}
