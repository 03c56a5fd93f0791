//! What the service manager is told: READY, STATUS, WATCHDOG, RELOADING, STOPPING.
//!
//! Without a manager (no NOTIFY_SOCKET) nothing is sent and nothing fails.

use std::time::Duration;

use sd_notify::NotifyState;

use super::Pulse;

/// The manager of this process, if there is one.
#[derive(Debug, Default)]
pub(super) struct Manager {
    /// What the pulses were at the last check.
    last: Vec<Pulse>,
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
    pub(super) fn keep_alive(&mut self, pulses: Vec<Pulse>) -> bool {
        let alive = is_alive(&self.last, &pulses);
        self.last = pulses;
        if alive {
            tell(&[NotifyState::Watchdog]);
        }
        alive
    }
}

/// A thread lives that is idle now, or has moved since. One that is new is taken to live.
fn is_alive(last: &[Pulse], now: &[Pulse]) -> bool {
    (0..now.len()).all(|thread| {
        let pulse = now[thread];
        pulse.idle || last.get(thread).is_none_or(|last| last.beats != pulse.beats)
    })
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
        let busy = |beats| Pulse { beats, idle: false };
        let idle = |beats| Pulse { beats, idle: true };
        assert!(is_alive(&[], &[busy(0)]), "new");
        assert!(is_alive(&[busy(1)], &[busy(2)]));
        assert!(is_alive(&[busy(1)], &[idle(1)]));
        assert!(!is_alive(&[busy(1)], &[busy(1)]));
        assert!(!is_alive(&[idle(1)], &[busy(1)]), "woken, and no turn since");
        assert!(!is_alive(&[busy(1), busy(1)], &[busy(2), busy(1)]), "one is enough");
    }
}
