//! CLOCK_MONOTONIC, in nanoseconds since the run began. The only file that reads the time.

use std::time::{Duration, Instant};

/// Nanoseconds in a second.
pub const NS_PER_S: f64 = 1e9;

/// Counts from its own start, so that a `u64` is enough for centuries.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "a load generator is here to measure time")]
    pub fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// Nanoseconds since the start.
    pub fn ns(&self) -> u64 {
        duration_ns(self.origin.elapsed())
    }
}

/// A duration in nanoseconds, at most `u64::MAX`.
pub fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
