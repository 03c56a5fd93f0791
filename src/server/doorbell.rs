//! Waking whoever sleeps, and only whoever sleeps.
//!
//! The sleeper and the ringer each write one thing and read the other's: the sleeper raises the
//! flag and then looks at its queue; the ringer fills the queue and then looks at the flag. With a
//! full fence between the two steps on both sides, at least one of them sees the other.

use crate::base::sync::atomic::{AtomicBool, Ordering, fence};

#[derive(Debug)]
pub struct Doorbell {
    asleep: AtomicBool,
}

impl Default for Doorbell {
    fn default() -> Doorbell {
        Doorbell { asleep: AtomicBool::new(false) }
    }
}

impl Doorbell {
    /// Says that the caller is about to sleep unless `is_idle` still holds after saying so. True
    /// when it may sleep.
    #[must_use]
    pub fn lie_down(&self, is_idle: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `must_wake`.
        fence(Ordering::SeqCst);
        let may_sleep = is_idle();
        if !may_sleep {
            self.get_up();
        }
        may_sleep
    }

    /// Says that the caller is awake.
    pub fn get_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// To be asked after work was queued: true when the caller must wake the sleeper, and nobody
    /// else will.
    #[must_use]
    pub fn must_wake(&self) -> bool {
        // SeqCst: pairs with the fence in `lie_down`.
        fence(Ordering::SeqCst);
        // The load first: of many ringers of a busy server, none should write the shared line.
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }

    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }
}
