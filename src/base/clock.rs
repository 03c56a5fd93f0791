//! Time, read in one place and passed on as an argument.
//!
//! ```text
//!   expiry, u32 in an item's header
//!   0                       never
//!   0ttt..t  (31 bits)      due at tick t: 1/32 s since the server's epoch, up to 2.1 years
//!   1sss..s  (31 bits)      due at second s since the server's epoch, up to 68 years
//! ```
//!
//! The epoch lies a little before the start of the process, so that tick 0 is in the past for
//! everybody and "due at tick 1" means "expired at once".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Ticks in a second.
pub const TICKS_PER_S: u64 = 32;

/// Relative times on the wire are at most this long; what is more is a Unix time.
//= protocol.txt "Expiration times"
pub const RELATIVE_S_MAX: i64 = 60 * 60 * 24 * 30;

/// Age of the epoch when the process starts, in seconds.
const EPOCH_AGE_S: u64 = 2;

/// A moment, as far as a command may know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Ticks since the server's epoch; never goes back.
    pub ticks: u64,
    /// The Unix time at the server's epoch, in seconds.
    pub epoch_unix_s: u64,
}

impl Now {
    /// Seconds since the server's epoch.
    pub fn seconds(self) -> u64 {
        self.ticks / TICKS_PER_S
    }

    /// The Unix time, in seconds.
    pub fn unix_s(self) -> u64 {
        self.epoch_unix_s + self.seconds()
    }

    /// Seconds since the process started.
    pub fn uptime_s(self) -> u64 {
        self.seconds().saturating_sub(EPOCH_AGE_S)
    }
}

/// When an item dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(u32);

impl Expiry {
    pub const NEVER: Expiry = Expiry(0);
    /// Before the process started: expired for everybody.
    pub const PAST: Expiry = Expiry(1);
    const IN_SECONDS: u32 = 1 << 31;

    /// Due `ticks` after the server's epoch.
    pub fn at_tick(ticks: u64) -> Expiry {
        match u32::try_from(ticks.max(1)) {
            Ok(ticks) if ticks < Expiry::IN_SECONDS => Expiry(ticks),
            _ => {
                let seconds = (ticks / TICKS_PER_S).min(u64::from(Expiry::IN_SECONDS - 1));
                Expiry(u32::try_from(seconds).unwrap_or(u32::MAX) | Expiry::IN_SECONDS)
            }
        }
    }

    /// An exptime as memcached's clients send it: 0 is never, negative is expired at once, up to 30
    /// days is relative, anything larger is a Unix time.
    //= protocol.txt "Expiration times"
    pub fn from_wire(exptime: i64, now: Now) -> Expiry {
        match u64::try_from(exptime) {
            Ok(0) => Expiry::NEVER,
            Err(_) => Expiry::PAST,
            Ok(seconds) if exptime <= RELATIVE_S_MAX => {
                Expiry::at_tick(now.ticks + seconds * TICKS_PER_S)
            }
            Ok(unix_s) => match unix_s.checked_sub(now.epoch_unix_s) {
                Some(seconds) => Expiry::at_tick(seconds.saturating_mul(TICKS_PER_S)),
                None => Expiry::PAST,
            },
        }
    }

    pub fn from_bits(bits: u32) -> Expiry {
        Expiry(bits)
    }

    pub fn to_bits(self) -> u32 {
        self.0
    }

    pub fn is_due(self, now: Now) -> bool {
        match self.0 {
            0 => false,
            bits if bits & Expiry::IN_SECONDS == 0 => u64::from(bits) <= now.ticks,
            bits => u64::from(bits & !Expiry::IN_SECONDS) <= now.seconds(),
        }
    }

    /// The Unix time when it is due, in seconds, rounded up; `None` is never.
    pub fn unix_s(self, now: Now) -> Option<u64> {
        let seconds = match self.0 {
            0 => return None,
            bits if bits & Expiry::IN_SECONDS == 0 => u64::from(bits).div_ceil(TICKS_PER_S),
            bits => u64::from(bits & !Expiry::IN_SECONDS),
        };
        Some(now.epoch_unix_s + seconds)
    }

    /// Seconds until it is due, rounded up; `None` is never.
    pub fn left_s(self, now: Now) -> Option<u64> {
        match self.0 {
            0 => None,
            bits if bits & Expiry::IN_SECONDS == 0 => {
                Some(u64::from(bits).saturating_sub(now.ticks).div_ceil(TICKS_PER_S))
            }
            bits => Some(u64::from(bits & !Expiry::IN_SECONDS).saturating_sub(now.seconds())),
        }
    }
}

/// The one place that reads the system's clocks.
#[derive(Clone, Debug)]
pub struct Clock {
    source: Source,
    epoch_unix_s: u64,
}

#[derive(Clone, Debug)]
enum Source {
    System {
        started: Instant,
    },
    /// Nanoseconds that a simulation sets.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn start() -> Clock {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let source = Source::System { started: Instant::now() };
        Clock { source, epoch_unix_s: unix.as_secs().saturating_sub(EPOCH_AGE_S) }
    }

    /// A clock that stands still until its nanoseconds are set.
    pub fn manual(elapsed_ns: Arc<AtomicU64>) -> Clock {
        Clock { source: Source::Manual(elapsed_ns), epoch_unix_s: 1_700_000_000 }
    }

    pub fn now(&self) -> Now {
        self.at(self.elapsed_ns())
    }

    /// The moment that many nanoseconds after the process started.
    pub fn at(&self, ns: u64) -> Now {
        let ticks = (ns / 1_000_000_000) * TICKS_PER_S
            + (ns % 1_000_000_000) * TICKS_PER_S / 1_000_000_000
            + EPOCH_AGE_S * TICKS_PER_S;
        Now { ticks, epoch_unix_s: self.epoch_unix_s }
    }

    /// Nanoseconds since the process started.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn elapsed_ns(&self) -> u64 {
        match &self.source {
            Source::System { started } => {
                let elapsed = Instant::now().duration_since(*started);
                u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
            }
            // Relaxed: time orders nothing.
            Source::Manual(ns) => ns.load(Ordering::Relaxed),
        }
    }
}

/// How long something has taken so far, for waits that must end. What a command means never depends
/// on it.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    #[allow(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn elapsed(self) -> Duration {
        Instant::now().duration_since(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { ticks: 100 * TICKS_PER_S + 31, epoch_unix_s: 1_700_000_000 };

    fn after(ticks: u64) -> Now {
        Now { ticks: NOW.ticks + ticks, ..NOW }
    }

    #[test]
    fn a_ttl_of_one_second_lives_for_one_second() {
        let expiry = Expiry::from_wire(1, NOW);
        assert!(!expiry.is_due(after(31)));
        assert!(expiry.is_due(after(32)));
        assert_eq!(expiry.left_s(NOW), Some(1));
        assert_eq!(expiry.left_s(after(33)), Some(0));
    }

    #[test]
    fn wire_times() {
        assert_eq!(Expiry::from_wire(0, NOW), Expiry::NEVER);
        assert!(Expiry::from_wire(-1, NOW).is_due(NOW));
        assert!(Expiry::from_wire(i64::MIN, NOW).is_due(NOW));
        let month = Expiry::from_wire(RELATIVE_S_MAX, NOW);
        assert_eq!(month.left_s(NOW), Some(RELATIVE_S_MAX.unsigned_abs()));
        assert!(Expiry::from_wire(RELATIVE_S_MAX + 1, NOW).is_due(NOW), "1970");
        assert_eq!(month.unix_s(NOW), Some(NOW.unix_s() + 1 + RELATIVE_S_MAX.unsigned_abs()));
        assert_eq!(Expiry::NEVER.unix_s(NOW), None);
        let unix = Expiry::from_wire(1_700_000_105, NOW);
        assert_eq!(unix.unix_s(after(9)), Some(1_700_000_105));
        assert!(!unix.is_due(after(0)));
        assert!(unix.is_due(after(5 * TICKS_PER_S)));
    }

    #[test]
    fn far_times_are_kept_in_seconds() {
        let ten_years = i64::try_from(NOW.unix_s()).unwrap() + 315_360_000;
        let expiry = Expiry::from_wire(ten_years, NOW);
        assert_eq!(expiry.left_s(NOW), Some(315_360_000));
        assert_eq!(Expiry::from_bits(expiry.to_bits()), expiry);
        assert_eq!(expiry.unix_s(NOW), Some(ten_years.unsigned_abs()));
        assert!(!Expiry::from_wire(i64::MAX, NOW).is_due(NOW));
    }

    #[test]
    fn the_clock_starts_after_its_epoch() {
        let now = Clock::start().now();
        assert!(Expiry::PAST.is_due(now));
        assert_eq!(now.uptime_s(), 0);
    }
}
