//! A server that tests can look into.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use crate::base::sync::Mutex;

use super::{ClassFigures, Control};

/// What a test made of the server, and what was asked of it.
#[derive(Default)]
pub(super) struct Fixture {
    pub(super) drains: Mutex<u32>,
    /// Calls of `has_ended` after `drain` until it has; `None` is never.
    pub(super) drained_after: Mutex<Option<u32>>,
    pub(super) on_drain: Option<fn()>,
    /// What a thread's heartbeat counts up to before it stalls.
    pub(super) beats: Mutex<u64>,
    pub(super) heartbeats: Mutex<u64>,
    pub(super) on_heartbeat: Option<fn(u64)>,
    /// What comes of reloading, the last first.
    pub(super) reloads: Mutex<Vec<Result<String, String>>>,
    pub(super) ended: Bell,
}

/// A descriptor that nobody makes readable: tests ask `has_ended`.
pub(super) struct Bell(UnixDatagram);

impl Default for Bell {
    fn default() -> Bell {
        Bell(UnixDatagram::unbound().unwrap())
    }
}

impl Control for Fixture {
    fn drain(&self) {
        *self.drains.lock() += 1;
        if let Some(act) = self.on_drain {
            act();
        }
    }

    fn has_ended(&self) -> bool {
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

    fn ended(&self) -> BorrowedFd<'_> {
        self.ended.0.as_fd()
    }

    fn reload(&self) -> Option<Result<String, String>> {
        self.reloads.lock().pop()
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![("limit_maxbytes", 64 << 20), ("hash_bytes", 17)]
    }

    fn classes(&self) -> Vec<ClassFigures> {
        let class = |slot_bytes, pages, slots, slots_free| ClassFigures {
            slot_bytes,
            pages,
            slots,
            slots_free,
            ..ClassFigures::default()
        };
        vec![class(96, 2, 20, 5), class(112, 0, 0, 0)]
    }

    fn verbosity(&self) -> u8 {
        0
    }

    fn heartbeats(&self) -> Vec<Option<u64>> {
        let mut calls = self.heartbeats.lock();
        *calls += 1;
        if let Some(act) = self.on_heartbeat {
            act(*calls);
        }
        vec![None, Some((*calls).min(*self.beats.lock()))]
    }
}
