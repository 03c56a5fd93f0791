//! What the service manager is told: READY, STATUS, WATCHDOG, RELOADING, STOPPING.
//!
//! Without a manager (no NOTIFY_SOCKET) nothing is sent and nothing fails.

use std::time::Duration;

use sd_notify::NotifyState;

/// The manager of this process, if there is one.
#[derive(Debug, Default)]
pub(super) struct Manager {
    /// What the heartbeats were at the last check.
    last: Vec<Option<u64>>,
}

impl Manager {
    /// How often `keep_alive` is to be called, if the manager wants it: twice as often as it asks.
    pub(super) fn watchdog_interval() -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|interval| interval / 2)
    }

    pub(super) fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    pub(super) fn status(&self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }

    pub(super) fn stopping(&self, status: &str) {
        tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// A reload that took no time. The clock goes with it: a manager that waits for it would hang.
    pub(super) fn reloaded(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
            tell(&[NotifyState::Ready]);
        }
    }

    /// Feeds the watchdog if no thread has stalled since the last call; says whether it did.
    #[must_use]
    pub(super) fn keep_alive(&mut self, heartbeats: Vec<Option<u64>>) -> bool {
        let alive = is_alive(&self.last, &heartbeats);
        self.last = heartbeats;
        if alive {
            tell(&[NotifyState::Watchdog]);
        }
        alive
    }
}

/// Whether every thread is idle, or was, or has moved since. One that is new is taken to live.
fn is_alive(last: &[Option<u64>], now: &[Option<u64>]) -> bool {
    last.iter().zip(now).all(|(last, now)| now.is_none() || last != now)
}

fn tell(state: &[NotifyState<'_>]) {
    // A manager that cannot be told is gone or never was; the server serves on.
    let _ = sd_notify::notify(state);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_neither_moves_nor_idles_has_stalled() {
        assert!(is_alive(&[], &[Some(0)]), "new");
        assert!(is_alive(&[Some(1)], &[Some(2)]));
        assert!(is_alive(&[Some(1)], &[None]));
        assert!(is_alive(&[None], &[None]));
        assert!(is_alive(&[None], &[Some(1)]), "woken a moment ago");
        assert!(!is_alive(&[Some(1)], &[Some(1)]));
        assert!(!is_alive(&[Some(1), Some(1)], &[Some(2), Some(1)]), "one is enough");
    }
}
