//! Whether a peer is as silent as it seems.
//!
//! A send ends when the kernel has taken all of it, and of much at a time that may be seconds after
//! the last one, however steadily the peer reads: the kernel keeps a lot for it, and makes room
//! seldom. So of who seems to be silent the kernel is asked how much it takes: when that is
//! noticed, now and again from then on, and before anything is done about it. Who has taken a fair
//! amount since has got on, see `Throttle::fair_bytes`; but where more is kept than may be, only
//! what sends tell counts.

use std::collections::BTreeMap;

use crate::base::metrics::Metric;
use crate::base::slots::SlotId;
use crate::net::progress::FAIR_BYTES;
use crate::server::service::Service;
use crate::sys::ring::Ring;

use super::RingLoop;

/// What the kernel said of a connection.
#[derive(Clone, Copy, Debug)]
struct Watch {
    id: SlotId,
    /// The tick at which its peer had got on last, as far as was known when the kernel was asked.
    fair_at: u64,
    /// Since this tick its peer has taken what its intake has changed by.
    begun_at: u64,
    intake: u64,
    /// The tick at which the kernel was asked last.
    asked_at: u64,
    /// The tick at which its peer had got on last, as sends or the kernel told.
    got_on_at: u64,
    /// True when the kernel said that it had, and has not said anything else since.
    reads: bool,
}

/// Those of whom the kernel was asked, by their places; and perhaps some that are gone.
#[derive(Debug, Default)]
pub(super) struct Watches(BTreeMap<u32, Watch>);

/// What there is to say of who has been silent for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Silence {
    /// It reads.
    Broken,
    /// It has not lasted for so long.
    Noticed,
    Lasting,
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// When a peer got on last.
    fn fair_at(&self, id: SlotId) -> u64 {
        let slow_ticks = self.connections.get(id).map_or(0, |each| each.slow_ticks(self.now));
        self.now.ticks.saturating_sub(u64::from(slow_ticks))
    }

    /// What the kernel said since a peer got on last.
    fn watch_of(&self, id: SlotId) -> Option<Watch> {
        let watch = self.watches.0.get(&id.index).copied();
        watch.filter(|watch| watch.id == id && watch.fair_at == self.fair_at(id))
    }

    fn ask(&mut self, id: SlotId) -> Option<u64> {
        let connection = self.connections.get(id)?;
        self.counters.bump(Metric::SilencesChecked);
        Some(self.ring.intake(&connection.socket))
    }

    /// Watches who is not watched. True when its peer is known to read, however seldom sends end.
    fn begin_to_watch(&mut self, id: SlotId) -> bool {
        let before = self.watches.0.get(&id.index);
        let reads = before.is_some_and(|watch| watch.id == id && watch.reads);
        let (fair_at, now) = (self.fair_at(id), self.now.ticks);
        let Some(intake) = self.ask(id) else { return reads };
        let (begun_at, asked_at, got_on_at) = (now, now, fair_at);
        let watch = Watch { id, fair_at, begun_at, intake, asked_at, got_on_at, reads };
        self.watches.0.insert(id.index, watch);
        reads
    }

    /// Ticks since a peer that is being sent something got on, as the kernel told; without end
    /// where it did not.
    pub(super) fn ticks_since_it_read(&self, id: SlotId) -> u32 {
        let is_sending = self.connections.get(id).is_some_and(|each| each.sending);
        if !is_sending {
            return u32::MAX;
        }
        let watch = self.watch_of(id).filter(|watch| watch.got_on_at > watch.fair_at);
        let ticks = watch.map_or(u64::MAX, |watch| self.now.ticks - watch.got_on_at);
        u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// True when a peer that is being sent something has taken so many bytes since it got on, or
    /// was watched first: then it has got on.
    pub(super) fn has_taken(&mut self, id: SlotId, fair_bytes: u64) -> bool {
        let is_sending = self.connections.get(id).is_some_and(|each| each.sending);
        let Some(watch) = self.watch_of(id).filter(|_| is_sending) else { return false };
        let Some(intake) = self.ask(id) else { return false };
        let has_taken = watch.intake.abs_diff(intake) >= fair_bytes;
        let now = self.now.ticks;
        let watch = Watch { asked_at: now, reads: has_taken, ..watch };
        let watch = match has_taken {
            true => Watch { begun_at: now, intake, got_on_at: now, ..watch },
            false => watch,
        };
        self.watches.0.insert(id.index, watch);
        self.counters.add(Metric::SilencesBroken, u64::from(has_taken));
        has_taken
    }

    /// Looks at a silence that has been noticed, and that something is done about once it has
    /// lasted for `silence_ticks`; `asks` says whether the kernel is to be asked.
    pub(super) fn silence(
        &mut self,
        id: SlotId,
        (silence_ticks, notice_ticks): (u32, u32),
        asks: bool,
    ) -> Silence {
        let Some(connection) = self.connections.get(id) else { return Silence::Broken };
        let is_due = connection.slow_ticks(self.now) >= silence_ticks;
        if !connection.sending || !asks {
            return if is_due { Silence::Lasting } else { Silence::Noticed };
        }
        let Some(watch) = self.watch_of(id) else {
            let reads = self.begin_to_watch(id);
            return if reads { Silence::Broken } else { Silence::Noticed };
        };
        let watched_ticks = self.now.ticks - watch.begun_at;
        if !is_due || watched_ticks + u64::from(notice_ticks) < u64::from(silence_ticks) {
            return if watch.reads { Silence::Broken } else { Silence::Noticed };
        }
        let fair_bytes = self.settings.throttle.fair_bytes(watched_ticks);
        if self.has_taken(id, fair_bytes) { Silence::Broken } else { Silence::Lasting }
    }

    /// Notices who begins to be silent, and asks now and again from then on.
    pub(super) fn watch(&mut self, id: SlotId) {
        let Some(connection) = self.connections.get(id) else { return };
        let throttle = self.settings.throttle;
        if !connection.sending || connection.slow_ticks(self.now) < throttle.notice_ticks() {
            return;
        }
        match self.watch_of(id) {
            None => {
                self.begin_to_watch(id);
            }
            Some(watch) => {
                let ticks = self.now.ticks - watch.asked_at;
                if ticks >= u64::from(throttle.watch_ticks()) {
                    self.has_taken(id, u64::from(FAIR_BYTES));
                }
            }
        }
    }

    /// Forgets those who are being sent nothing any more.
    pub(super) fn forget_watches(&mut self) {
        let connections = &self.connections;
        self.watches.0.retain(|_, watch| connections.get(watch.id).is_some_and(|it| it.sending));
    }
}
