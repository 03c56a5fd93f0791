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
    /// Says that the caller is about to sleep if `is_idle` still holds after saying so. True when
    /// it may sleep.
    #[must_use]
    pub fn lie_down(&self, is_idle: impl FnOnce() -> bool) -> bool {
        // AcqRel, and an exchange rather than a store: the flag's writers form one chain, in which
        // a ringer that takes the flag down cannot stand behind a sleeper's later `true` unseen.
        self.asleep.swap(true, Ordering::AcqRel);
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
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }

    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::base::sync::Arc;
    use crate::base::sync::atomic::AtomicUsize;
    use loom::sync::{Condvar, Mutex};

    /// What an eventfd and a parked thread have in common: a wake-up waits for its sleeper.
    #[derive(Default)]
    struct Bed {
        rung: Mutex<bool>,
        bell: Condvar,
    }

    impl Bed {
        fn ring(&self) {
            *self.rung.lock().unwrap() = true;
            self.bell.notify_one();
        }

        fn sleep(&self) {
            let mut rung = self.rung.lock().unwrap();
            while !*rung {
                rung = self.bell.wait(rung).unwrap();
            }
            *rung = false;
        }
    }

    /// Two ringers queue one piece of work each; the sleeper must see both, and never sleep while
    /// one is queued. A lost wake-up is a deadlock, which loom finds.
    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let doorbell = Arc::new(Doorbell::default());
            let queued = Arc::new(AtomicUsize::new(0));
            let bed = Arc::new(Bed::default());
            for _ in 0..2 {
                let (doorbell, queued, bed) = (doorbell.clone(), queued.clone(), bed.clone());
                loom::thread::spawn(move || {
                    // Relaxed: the doorbell brings its own order.
                    queued.fetch_add(1, Ordering::Relaxed);
                    if doorbell.must_wake() {
                        bed.ring();
                    }
                });
            }
            let mut taken = 0;
            while taken < 2 {
                taken += queued.swap(0, Ordering::Relaxed);
                if taken < 2 && doorbell.lie_down(|| queued.load(Ordering::Relaxed) == 0) {
                    bed.sleep();
                    doorbell.get_up();
                }
            }
        });
    }
}
