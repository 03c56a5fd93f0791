//! Whether a peer takes what it is sent, where sends do not tell.
//!
//! What is sent is told when the kernel has room for it, which may be seldom although the peer takes
//! bytes all the time: the kernel keeps much for it, and makes room in large pieces. So of a peer
//! that seems to be silent the kernel is asked how much it has yet to take: when the silence
//! begins, which is noted, and again before anybody goes for it.

use std::collections::BTreeMap;

use crate::base::slots::SlotId;
use crate::net::progress::FAIR_BYTES;
use crate::server::service::Service;
use crate::sys::ring::Ring;

use super::RingLoop;
use super::relief::NOTICE_SHARE;

/// What the kernel said of a connection.
#[derive(Clone, Copy, Debug)]
struct Watch {
    id: SlotId,
    /// When its peer had got on last by then.
    fair_at: u64,
    asked_at: u64,
    /// What the peer had yet to take, with what was sent since.
    owed_bytes: usize,
}

/// Those of whom the kernel was asked, by their places.
#[derive(Debug, Default)]
pub(super) struct Watches(BTreeMap<u32, Watch>);

impl Watches {
    /// Bytes were sent.
    #[inline]
    pub(super) fn sent(&mut self, id: SlotId, bytes: usize) {
        if let Some(watch) = self.0.get_mut(&id.index) {
            watch.owed_bytes += bytes;
        }
    }

    fn of(&self, id: SlotId, fair_at: u64) -> Option<Watch> {
        let watch = self.0.get(&id.index).copied();
        watch.filter(|watch| watch.id == id && watch.fair_at == fair_at)
    }
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// When a peer got on last.
    fn fair_at(&self, id: SlotId) -> Option<u64> {
        let connection = self.connections.get(id)?;
        Some(self.now.ticks.saturating_sub(u64::from(connection.slow_ticks(self.now))))
    }

    /// Ticks for which it is known that a peer has not got on.
    pub(super) fn known_slow_ticks(&self, id: SlotId) -> u32 {
        let Some(connection) = self.connections.get(id) else { return 0 };
        let slow_ticks = connection.slow_ticks(self.now);
        if !connection.sending {
            return slow_ticks;
        }
        let watch = self.fair_at(id).and_then(|fair_at| self.watches.of(id, fair_at));
        let watched_ticks = watch.map_or(0, |watch| self.now.ticks - watch.asked_at);
        slow_ticks.min(u32::try_from(watched_ticks).unwrap_or(u32::MAX))
    }

    /// Asks the kernel whether a peer takes what it is sent. True when it took so much since the
    /// kernel was asked first: then it has got on.
    ///
    /// Sent bytes may be there that are not told yet: then there was room, so it took some.
    pub(super) fn has_taken(&mut self, id: SlotId, fair_bytes: u16) -> bool {
        let Some(fair_at) = self.fair_at(id) else { return false };
        let Some(connection) = self.connections.get_mut(id) else { return false };
        if !connection.sending {
            return false;
        }
        let untaken_bytes = self.ring.untaken_bytes(&connection.socket);
        let watch = self.watches.of(id, fair_at);
        let taken_bytes = watch.map_or(0, |watch| watch.owed_bytes.abs_diff(untaken_bytes));
        let has_taken = taken_bytes >= usize::from(fair_bytes);
        if has_taken {
            connection.excuse(self.now);
        }
        if has_taken || watch.is_none() {
            let fair_at = if has_taken { self.now.ticks } else { fair_at };
            let asked_at = self.now.ticks;
            let watch = Watch { id, fair_at, asked_at, owed_bytes: untaken_bytes };
            self.watches.0.insert(id.index, watch);
        }
        has_taken
    }

    /// Asks for the first time of who seems to be silent, and now and again before it is closed for
    /// that: what was taken may have been sent anew by then.
    pub(super) fn watch(&mut self, id: SlotId) {
        let (Some(connection), Some(fair_at)) = (self.connections.get(id), self.fair_at(id)) else {
            return;
        };
        let throttle = self.settings.throttle;
        let (silence_ticks, stall_ticks) = (throttle.silence_ticks(false), throttle.stall_ticks());
        let slow_ticks = connection.slow_ticks(self.now);
        let is_new =
            slow_ticks >= silence_ticks / NOTICE_SHARE && self.watches.of(id, fair_at).is_none();
        let from_ticks = stall_ticks.saturating_sub(silence_ticks);
        if connection.sending && (is_new || (from_ticks..stall_ticks).contains(&slow_ticks)) {
            self.has_taken(id, FAIR_BYTES);
        }
    }

    /// Forgets those who are gone.
    pub(super) fn forget_watches(&mut self) {
        let connections = &self.connections;
        self.watches.0.retain(|_, watch| connections.get(watch.id).is_some_and(|it| it.sending));
    }
}
