//! How much of the memory for connections one connection may hold.
//!
//! ```text
//!   of the pool is in use    0 %             park: 70 %             drop: 90 %           100 %
//!   level                    |     Calm      |        Short         |        Dire         |
//!   one may hold             |   anything    |  2 x free / active   |      the floor      |
//!   who holds more           |     stays     |      is parked       |      is parked      |
//!   who comes                |   is let in   |      is let in       | is let in, or waits |
//!   the largest              |     stay      |        stay          |   go, once silent   |
//! ```
//!
//! Parked is who is received from no more, so that TCP pushes back. It is received from again when
//! it holds half of what it may, or when all is calm: then those parked first come first. What one
//! holds are its replies, block by block, and its requests that wait. Invariant: half of the floor
//! is more than any incomplete head, so nobody is parked who must send on to be of less weight.

use crate::base::clock::TICKS_PER_S;
use crate::base::limits::HEAD_BYTES_MAX;

use super::progress::FAIR_BYTES;

/// The least that one connection may hold, whatever the settings say.
pub const FLOOR_BYTES_MIN: u32 = 4096;
const _: () = assert!(FLOOR_BYTES_MIN as usize / 2 >= HEAD_BYTES_MAX);

/// Most waiting bytes of requests from which on a connection is received from no more, however
/// calm it is; it is received from again at half of them.
pub const BACKLOG_BYTES_MAX: usize = 32 * 1024;

/// A part of the silence that is asked of who goes, when somebody who holds nothing waits for it.
const URGENT_SHARE: u32 = 8;

/// The part of a silence from which on it is noticed.
pub const NOTICE_SHARE: u32 = 8;

/// So often, at least, who is silent is looked at before it is closed for that alone.
const WATCHES_PER_STALL: u32 = 4;

/// What the operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// From this part of the pool on connections above their share are parked.
    pub park_percent: u8,
    /// From this part on nobody is let in who takes memory beyond it, and the largest go.
    pub drop_percent: u8,
    /// The share, in parts of what each would have of the free memory.
    pub share_factor: u32,
    /// What everybody may hold always.
    pub floor_bytes: u32,
    /// Who has moved nothing for so long may be closed for others.
    pub silence_ms: u32,
    /// Who sends on without reading is closed after so long.
    pub stall_s: u32,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle {
            park_percent: 70,
            drop_percent: 90,
            share_factor: 2,
            floor_bytes: FLOOR_BYTES_MIN,
            silence_ms: 2000,
            stall_s: 10,
        }
    }
}

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    Calm,
    Short,
    Dire,
}

/// What one connection may bring at a time, and hold before it is received from no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes that come before it is asked again, where the kernel has such a cap.
    pub receive_bytes: u32,
    /// Unexecuted bytes.
    pub backlog_bytes: usize,
    /// All of it.
    pub held_bytes: usize,
}

impl Quota {
    /// While there is plenty.
    pub const CALM: Quota =
        Quota { receive_bytes: u32::MAX, backlog_bytes: BACKLOG_BYTES_MAX, held_bytes: usize::MAX };
}

impl Throttle {
    pub fn level(&self, used_bytes: usize, pool_bytes: usize) -> Level {
        let reaches = |percent: u8| used_bytes >= pool_bytes / 100 * usize::from(percent);
        match (reaches(self.park_percent), reaches(self.drop_percent)) {
            (_, true) => Level::Dire,
            (true, false) => Level::Short,
            (false, false) => Level::Calm,
        }
    }

    /// Bytes that must be free again until the level is no longer dire.
    pub fn excess_bytes(&self, used_bytes: usize, pool_bytes: usize) -> usize {
        (used_bytes + 1).saturating_sub(pool_bytes / 100 * usize::from(self.drop_percent))
    }

    /// What each of the `active`, who hold something, may hold of what is free.
    pub fn share_bytes(&self, free_bytes: usize, active: usize) -> usize {
        let share = (self.share_factor as usize).saturating_mul(free_bytes) / active.max(1);
        share.max(self.floor_bytes as usize)
    }

    /// `active` are those who hold something, of `connections` in all.
    pub fn quota(
        &self,
        level: Level,
        free_bytes: usize,
        active: usize,
        connections: usize,
    ) -> Quota {
        let floor_bytes = self.floor_bytes as usize;
        let held_bytes = match level {
            Level::Calm => usize::MAX,
            Level::Short => self.share_bytes(free_bytes, active),
            Level::Dire => floor_bytes,
        };
        // Requests come unasked, and all may come at once.
        let share_bytes = (free_bytes / connections.max(1)).max(floor_bytes);
        Quota {
            receive_bytes: u32::try_from(share_bytes).unwrap_or(u32::MAX),
            backlog_bytes: share_bytes.min(held_bytes).min(BACKLOG_BYTES_MAX),
            held_bytes,
        }
    }

    /// Ticks for which who is closed for others must have been silent.
    pub fn silence_ticks(&self, is_urgent: bool) -> u32 {
        let ms = if is_urgent { self.silence_ms / URGENT_SHARE } else { self.silence_ms };
        // Rounded up, and one more: the first tick had begun before the silence did.
        u32::try_from((u64::from(ms) * TICKS_PER_S).div_ceil(1000) + 1).unwrap_or(u32::MAX)
    }

    /// Bytes that who is not silent takes in so many ticks: as much as is fair in a whole silence,
    /// and of that the part that those are of it.
    pub fn fair_bytes(&self, ticks: u64) -> u64 {
        let whole = u64::from(self.silence_ticks(false));
        (u64::from(FAIR_BYTES) * ticks.min(whole) / whole).max(1)
    }

    /// Ticks between two looks at whether who seems to be silent reads.
    pub fn watch_ticks(&self) -> u32 {
        self.silence_ticks(false).min(self.stall_ticks() / WATCHES_PER_STALL).max(1)
    }

    /// Ticks of silence after which that is looked at first.
    pub fn notice_ticks(&self) -> u32 {
        self.watch_ticks() / NOTICE_SHARE
    }

    /// Ticks after which who neither reads nor stops sending is closed.
    pub fn stall_ticks(&self) -> u32 {
        ticks_of_seconds(self.stall_s)
    }
}

/// So many ticks are never less than `seconds`, although the first of them had begun already.
pub fn ticks_of_seconds(seconds: u32) -> u32 {
    u32::try_from(u64::from(seconds) * TICKS_PER_S + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_levels_are_those_of_the_picture() {
        let throttle = Throttle::default();
        let level = |percent: usize| throttle.level(percent * 1000, 100_000);
        assert_eq!([level(0), level(69), level(70)], [Level::Calm, Level::Calm, Level::Short]);
        assert_eq!([level(89), level(90), level(101)], [Level::Short, Level::Dire, Level::Dire]);
        assert_eq!(throttle.excess_bytes(90_000, 100_000), 1);
        assert_eq!(throttle.excess_bytes(89_999, 100_000), 0);
        assert_eq!(throttle.level(0, 0), Level::Dire, "nothing of nothing is left");
    }

    #[test]
    fn the_less_is_free_the_less_may_be_held() {
        let throttle = Throttle::default();
        let calm = throttle.quota(Level::Calm, 9 << 20, 9, 9);
        assert_eq!(calm, Quota { receive_bytes: 1 << 20, ..Quota::CALM });
        let crowd = throttle.quota(Level::Calm, 1 << 20, 9, 128);
        assert_eq!(crowd, Quota { receive_bytes: 8192, backlog_bytes: 8192, ..Quota::CALM });
        let quota = |free, active| throttle.quota(Level::Short, free, active, 1).held_bytes;
        assert_eq!(quota(1 << 20, 4), 512 << 10);
        assert_eq!(quota(1 << 20, 64), 32 << 10);
        assert_eq!(quota(1 << 20, 100_000), 4096);
        let dire = throttle.quota(Level::Dire, 1 << 30, 1, 1 << 20);
        assert_eq!(dire, Quota { receive_bytes: 4096, backlog_bytes: 4096, held_bytes: 4096 });
        assert!(dire.backlog_bytes / 2 >= HEAD_BYTES_MAX, "or a head would never be whole");
    }

    #[test]
    fn no_wait_is_shorter_than_it_says() {
        let throttle = Throttle::default();
        assert_eq!(throttle.silence_ticks(false), 2 * 32 + 1);
        assert_eq!(throttle.silence_ticks(true), 8 + 1);
        assert_eq!((throttle.watch_ticks(), throttle.notice_ticks()), (65, 8));
        assert_eq!(throttle.stall_ticks(), 10 * 32 + 1);
        assert_eq!(ticks_of_seconds(u32::MAX), u32::MAX);
        let patient = Throttle { silence_ms: u32::MAX, ..throttle };
        assert!(patient.watch_ticks() < patient.stall_ticks(), "for that it is looked at, too");
    }

    #[test]
    fn what_is_fair_in_a_part_of_a_silence_is_that_part() {
        let throttle = Throttle::default();
        let fair = u64::from(FAIR_BYTES);
        let [urgent, whole] = [true, false].map(|it| u64::from(throttle.silence_ticks(it)));
        assert_eq!([whole, 10 * whole].map(|it| throttle.fair_bytes(it)), [fair, fair]);
        assert!((fair / 8..fair / 7).contains(&throttle.fair_bytes(urgent)));
        let patient = Throttle { silence_ms: u32::MAX, ..throttle };
        assert_eq!(patient.fair_bytes(0), 1, "to take nothing is never fair");
    }
}
