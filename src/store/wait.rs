//! Waiting for memory that others hold back: what was let go of is of use when all have quiesced.
//!
//! ```text
//!   take --no--> let go of something --> a grace: everybody has quiesced --> take again
//!                      | there is nothing                                        ^
//!                      +--> a grace, and look again --- `GRACES` times in vain --+--> refused
//! ```
//!
//! A wait ends by what was seen, not by the clock: a thread that has lost its core for a while has
//! not quiesced, and may be about to say what it let go of. Why four graces are enough: at the end
//! of the first, everybody has sealed what it had retired when the wait began; at the end of the
//! second, everybody has announced an epoch after those seals; in the third, everybody has found
//! that out and begun to free; and when the fourth ends, it has freed. The clock only ends the wait
//! for a thread that hangs.
//!
//! Who serves nobody else waits on the spot. Who serves many `defers`: it looks a few times, is
//! told `Refusal::WouldWait`, serves the others, and asks again. Meanwhile the wait is kept here,
//! by what is waited for: a class of slots, or pages.

use std::time::Duration;

use super::Refusal;
use super::epochs::Epochs;
use super::memory::Then;
use super::participant::Participant;
use crate::base::clock::{Now, Stopwatch, TICKS_PER_S};
use crate::base::sync::atomic::Ordering;

/// How long who needs memory waits for the others to quiesce. Only threads that hang, or test code
/// that forgets to quiesce, let it pass.
const PATIENCE: Duration = Duration::from_millis(500);
/// The same for who asks again and again, counted from when it let go of something last: others may
/// have taken what came of that.
const PATIENCE_TICKS: u64 = TICKS_PER_S / 2;
/// The same from its beginning: what it lets go of does not come if it is being sent from.
const PATIENCE_TICKS_MAX: u64 = 2 * TICKS_PER_S;
/// Having found nothing to let go of, it looks again after so many graces before it believes it.
const GRACES: u32 = 4;
/// So often it looks without giving its core away.
const SPINS: u32 = 64;
/// So often who asks again looks each time.
const LOOKS_AGAIN: u32 = 4;
/// For so long after a refusal nobody waits long on the spot for what did not come then.
const DEARTH_TICKS: u64 = TICKS_PER_S / 4;
/// How long one waits nevertheless.
const PATIENCE_IN_DEARTH: Duration = Duration::from_millis(1);
/// So often, after a refusal, it lets go of something without waiting for what went before.
const HASTY_ROUNDS: u32 = 4;

/// What is waited for: slots of a class, or pages, or that less arrives.
pub(in crate::store) type Place = Option<u8>;

/// Waits that are gone on with later, by what is waited for.
#[derive(Debug, Default)]
pub(in crate::store) struct Deferred(Vec<(Place, Wait)>);

impl Deferred {
    fn find(&self, place: Place) -> Option<&Wait> {
        self.0.iter().find(|(of, _)| *of == place).map(|(_, wait)| wait)
    }

    fn put(&mut self, place: Place, mut wait: Wait, now: Now) {
        wait.asked_at = now.ticks;
        self.0.push((place, wait));
    }

    fn take(&mut self, place: Place) -> Option<Wait> {
        let index = self.0.iter().position(|(of, _)| *of == place)?;
        Some(self.0.swap_remove(index).1)
    }
}

/// A wait for other threads, round by round.
#[derive(Debug)]
pub(in crate::store) struct Wait {
    pub(in crate::store) round: u32,
    watch: Stopwatch,
    in_dearth: bool,
    /// When the memory was asked for first, and last, and when something was let go of last.
    began_at: u64,
    asked_at: u64,
    made_at: u64,
    /// How often there was nothing to let go of.
    in_vain: u32,
    /// The grace that is waited for has passed when the horizon is here.
    grace: Option<u64>,
    /// True in a round before which that was seen.
    pub(in crate::store) has_passed: bool,
}

impl Wait {
    fn begin(in_dearth: bool, now: Now) -> Wait {
        Wait {
            round: 0,
            watch: Stopwatch::start(),
            in_dearth,
            began_at: now.ticks,
            asked_at: now.ticks,
            made_at: now.ticks,
            in_vain: 0,
            grace: None,
            has_passed: false,
        }
    }

    /// True when what was let go of has not brought anything.
    pub(in crate::store) fn is_late(&self) -> bool {
        self.has_passed || self.in_dearth && self.round < HASTY_ROUNDS
    }

    /// True when there was nothing to let go of, and nothing can have changed since.
    fn is_known_to_be_in_vain(&self) -> bool {
        self.in_vain > 0 && !self.has_passed
    }

    /// True when all have had the time to say what they let go of, and to free it.
    fn is_over(&self) -> bool {
        self.in_vain > GRACES
    }

    /// True for who asks again and again when it has done so for too long.
    fn is_too_long(&self, now: Now) -> bool {
        now.ticks - self.made_at > PATIENCE_TICKS || now.ticks - self.began_at > PATIENCE_TICKS_MAX
    }

    /// Waits a little more on the spot. False when it has waited long enough.
    fn go_on(&mut self) -> bool {
        self.round = self.round.wrapping_add(1);
        if self.round < SPINS {
            std::hint::spin_loop();
            return true;
        }
        std::thread::yield_now();
        !self.round.is_multiple_of(SPINS) || self.watch.elapsed() <= PATIENCE
    }
}

impl Participant {
    /// From now on, whoever would have to wait for memory is told so instead: this thread has
    /// others to serve. It is to quiesce and to ask again.
    pub fn defer_waits(&mut self) {
        self.defers = true;
    }

    /// Takes what `take` takes; if it is not there, lets go of something by `make_room`, which
    /// decides when it should and says whether it could, and waits for others to quiesce. `None`
    /// where there is nothing to let go of, and something else is to be tried then.
    #[cold]
    pub(in crate::store) fn wait_for<T>(
        &mut self,
        place: Place,
        take: impl Fn(&Participant) -> Option<T>,
        mut make_room: impl FnMut(&Participant, &Wait) -> Option<bool>,
        otherwise: Then,
        now: Now,
    ) -> Result<Option<T>, Refusal> {
        let is_first = self.deferred.find(place).is_none();
        self.efforts.set(self.efforts.get() + u64::from(is_first));
        let mut wait = self.go_on_with(place, now);
        let mut looks = if is_first { SPINS } else { LOOKS_AGAIN };
        loop {
            let epochs = &self.table.epochs;
            // Before the look: what became free by this grace is found by it.
            wait.has_passed = wait.grace.is_some_and(|grace| epochs.horizon() >= grace);
            self.quiesce();
            #[cfg(test)]
            self.looks.set(self.looks.get() + 1);
            if let Some(taken) = take(self) {
                return Ok(Some(taken));
            }
            if !wait.is_known_to_be_in_vain() {
                let made = make_room(self, &wait);
                if made.is_some() || wait.has_passed || wait.grace.is_none() {
                    wait.grace = Some(self.begin_grace());
                }
                match made {
                    Some(true) => {
                        wait.made_at = now.ticks;
                        // Each look empties a part of a page: others are served in between.
                        if self.table.slabs.is_departing() {
                            looks = looks.min(LOOKS_AGAIN);
                        }
                    }
                    Some(false) => wait.in_vain += 1,
                    None => {}
                }
            }
            if wait.in_vain > 0 {
                if otherwise == Then::Elsewhere {
                    self.deferred.put(place, wait, now);
                    return Ok(None);
                }
                let is_pointless = !self.table.evict && !self.is_anything_waiting();
                if is_pointless || wait.is_over() {
                    return Err(self.refuse(now));
                }
            }
            looks -= 1;
            match self.defers {
                true if wait.is_too_long(now) => return Err(self.refuse(now)),
                true if looks == 0 => {
                    self.deferred.put(place, wait, now);
                    return Err(Refusal::WouldWait);
                }
                true => wait.round = wait.round.wrapping_add(1),
                false if !wait.go_on() || wait.is_hopeless() => return Err(self.refuse(now)),
                false => looks = looks.max(2),
            }
        }
    }

    /// A wait for this place that was deferred, if that is not too long ago to mean anything.
    fn go_on_with(&mut self, place: Place, now: Now) -> Wait {
        // Relaxed: a hint.
        let in_dearth = now.ticks < self.table.dearth_until.load(Ordering::Relaxed);
        let deferred = self.deferred.take(place);
        deferred
            .filter(|wait| now.ticks - wait.asked_at <= PATIENCE_TICKS)
            .unwrap_or_else(|| Wait::begin(in_dearth, now))
    }

    /// True when who waits for this place has found nothing to let go of, and nothing can have
    /// changed since.
    pub(in crate::store) fn waits_in_vain(&self, place: Place) -> bool {
        let horizon = || self.table.epochs.horizon();
        let is_passed = |wait: &Wait| wait.grace.is_some_and(|grace| horizon() >= grace);
        self.deferred.find(place).is_some_and(|wait| wait.in_vain > 0 && !is_passed(wait))
    }

    /// The horizon at which everybody has quiesced after this moment, in which nobody looks at
    /// anything here.
    fn begin_grace(&mut self) -> u64 {
        self.quiesce();
        let epochs: &Epochs = &self.table.epochs;
        let grace = epochs.advance();
        epochs.quiesce(self.section.cell);
        grace
    }

    #[cold]
    fn refuse(&self, now: Now) -> Refusal {
        if self.table.evict {
            // Relaxed: hints.
            self.table.dearth_until.store(now.ticks + DEARTH_TICKS, Ordering::Relaxed);
            self.table.refusals.fetch_add(1, Ordering::Relaxed);
        }
        Refusal::NoMemory
    }
}

impl Wait {
    /// True when others were refused a moment ago, and there is still nothing to let go of.
    fn is_hopeless(&self) -> bool {
        self.in_dearth && self.in_vain > 0 && self.watch.elapsed() > PATIENCE_IN_DEARTH
    }
}
