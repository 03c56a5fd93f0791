//! What all rings and workers share: the ways between them, who is let in, and when to stop.

use crate::base::sync::Arc;
use crate::base::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use crate::net::admission::Admission;
use crate::net::peers::Peers;
use crate::sys::wake::EventFd;

use super::dispatch::Dispatch;

#[derive(Debug)]
pub struct Fleet<S> {
    pub dispatch: Dispatch<S>,
    pub admission: Admission,
    /// What each peer address has had, where that is limited.
    pub peers: Option<Peers>,
    /// Whether connections beyond the limit wait for a place.
    pub has_queue: bool,
    /// Connections of each ring, or on their way to it.
    loads: Vec<AtomicU32>,
    draining: AtomicBool,
    rings_left: AtomicU32,
    /// Rung when the last ring has ended.
    pub ended: EventFd,
}

impl<S> Fleet<S> {
    pub fn new(
        doorbells: &[Arc<EventFd>],
        workers: usize,
        connections_max: u32,
        ended: EventFd,
    ) -> Fleet<S> {
        let rings = u32::try_from(doorbells.len()).expect("fewer than 2^32 rings");
        Fleet {
            dispatch: Dispatch::new(doorbells, workers, connections_max as usize),
            admission: Admission::new(connections_max),
            peers: None,
            has_queue: false,
            loads: doorbells.iter().map(|_| AtomicU32::new(0)).collect(),
            draining: AtomicBool::new(false),
            rings_left: AtomicU32::new(rings),
            ended,
        }
    }

    /// With limits for each peer address.
    pub fn with_peers(self, peers: Option<Peers>) -> Fleet<S> {
        Fleet { peers, ..self }
    }

    /// With a queue for connections beyond the limit, or without one.
    pub fn with_queue(self, has_queue: bool) -> Fleet<S> {
        Fleet { has_queue, ..self }
    }

    /// Stops accepting; connections are closed once they have their replies.
    pub fn drain(&self) {
        // Release: pairs with `is_draining`.
        self.draining.store(true, Ordering::Release);
        self.dispatch.inboxes.iter().for_each(super::dispatch::Inbox::wake);
    }

    /// Wakes every ring that sleeps: there is memory again.
    pub fn wake_rings(&self) {
        self.dispatch.inboxes.iter().for_each(super::dispatch::Inbox::wake);
    }

    pub fn is_draining(&self) -> bool {
        // Acquire: pairs with `drain`.
        self.draining.load(Ordering::Acquire)
    }

    /// A ring says that it has ended; the last one sends the workers home.
    pub fn ring_ended(&self) {
        // AcqRel: what the rings did happens before what `has_ended` allows.
        if self.rings_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.dispatch.wake_workers();
            self.ended.ring();
        }
    }

    /// True when no ring is left.
    pub fn has_ended(&self) -> bool {
        // Acquire: pairs with `ring_ended`.
        self.rings_left.load(Ordering::Acquire) == 0
    }

    /// Picks the ring with the fewest connections for one more, and counts it there.
    pub fn place(&self) -> usize {
        // Relaxed: loads are a hint.
        let loads = self.loads.iter().map(|load| load.load(Ordering::Relaxed));
        let (ring, _) = loads.enumerate().min_by_key(|(_, load)| *load).expect("there is a ring");
        self.loads[ring].fetch_add(1, Ordering::Relaxed);
        ring
    }

    /// A connection of `ring` is gone.
    pub fn leave(&self, ring: usize) {
        self.loads[ring].fetch_sub(1, Ordering::Relaxed);
        self.admission.leave();
        if self.has_queue {
            // The one that accepts. It looks at the count when it has said that it sleeps.
            self.dispatch.inboxes[0].wake();
        }
    }
}
