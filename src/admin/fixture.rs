//! A server that tests can look into.

use crate::base::sync::Mutex;

use super::{Control, Pulse};

/// What a test made of the server, and what was asked of it.
#[derive(Default)]
pub(super) struct Fixture {
    pub(super) drains: Mutex<u32>,
    /// Calls of `is_drained` after `drain` until it is; `None` is never.
    pub(super) drained_after: Mutex<Option<u32>>,
    pub(super) on_drain: Option<fn()>,
    /// Beats that are left before the pulse stops.
    pub(super) beats: Mutex<u64>,
    pub(super) pulses: Mutex<u64>,
    pub(super) on_pulse: Option<fn(u64)>,
}

impl Control for Fixture {
    fn drain(&self) {
        *self.drains.lock() += 1;
        if let Some(act) = self.on_drain {
            act();
        }
    }

    fn is_drained(&self) -> bool {
        if *self.drains.lock() == 0 {
            return false;
        }
        let mut left = self.drained_after.lock();
        match *left {
            Some(0) => true,
            Some(calls) => {
                *left = Some(calls - 1);
                false
            }
            None => false,
        }
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![("limit_maxbytes", 64 << 20), ("hash_bytes", 17)]
    }

    fn pulses(&self) -> Vec<Pulse> {
        let mut calls = self.pulses.lock();
        *calls += 1;
        if let Some(act) = self.on_pulse {
            act(*calls);
        }
        vec![
            Pulse { beats: 9, idle: true },
            Pulse { beats: (*calls).min(*self.beats.lock()), idle: false },
        ]
    }
}
