//! The ways between rings and workers: for each ring a bounded lock-free queue and an inbox.
//!
//! ```text
//!   ring r --jobs[r]--> its workers --inboxes[r]--> ring r
//!   ring 0 --inboxes[r]--> ring r     (accepted sockets)
//! ```
//!
//! A queue that is full gives the batch back; its connection waits in the ring, is received from no
//! more once its backlog is full, and so TCP pushes back. An inbox is never full: it has room for
//! everything that can be on its way, as a connection has at most one batch away.

use std::sync::OnceLock;
use std::thread::Thread;

use crossbeam_queue::ArrayQueue;

use crate::base::sync::Arc;
use crate::sys::socket::Socket;
use crate::sys::wake::EventFd;

use super::batch::Batch;
use super::doorbell::Doorbell;

/// Batches that may wait in the queue of one ring: enough to work at until it looks again, and no
/// more, as each has blocks for its replies. Others wait in the ring, without blocks, and are
/// copied out of receive buffers when these are short.
pub(super) const JOBS_MAX: usize = 128;

/// What reaches a ring from other threads.
#[derive(Debug)]
pub enum Message<S> {
    /// A connection that another ring accepted for this one, and the number of the listener.
    Connection(Socket, u32),
    /// A batch that a worker has executed.
    Home(Box<Batch<S>>),
}

#[derive(Debug)]
pub struct Inbox<S> {
    messages: ArrayQueue<Message<S>>,
    pub doorbell: Doorbell,
    wake: Arc<EventFd>,
}

impl<S> Inbox<S> {
    fn new(connections_max: usize, wake: Arc<EventFd>) -> Inbox<S> {
        // Every connection may be on its way in and have a batch on its way home.
        let messages = ArrayQueue::new(2 * connections_max + 64);
        Inbox { messages, doorbell: Doorbell::default(), wake }
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub fn pop(&self) -> Option<Message<S>> {
        self.messages.pop()
    }

    /// # Panics
    /// If the inbox is full, which the limit of connections excludes.
    pub fn push(&self, message: Message<S>) {
        assert!(self.messages.push(message).is_ok(), "more messages than connections allow");
        self.wake();
    }

    /// Wakes the ring if it sleeps.
    pub fn wake(&self) {
        if self.doorbell.must_wake() {
            self.wake.ring();
        }
    }
}

/// The sleeping place of a worker.
#[derive(Debug, Default)]
pub struct Bed {
    pub doorbell: Doorbell,
    sleeper: OnceLock<Thread>,
}

impl Bed {
    /// Makes the calling thread the one that sleeps here.
    pub fn settle(&self) {
        let _ = self.sleeper.set(std::thread::current());
    }

    pub fn wake(&self) -> bool {
        let must = self.doorbell.must_wake();
        if let (true, Some(thread)) = (must, self.sleeper.get()) {
            thread.unpark();
        }
        must
    }
}

#[derive(Debug)]
pub struct Dispatch<S> {
    pub inboxes: Vec<Inbox<S>>,
    jobs: Vec<ArrayQueue<Box<Batch<S>>>>,
    beds: Vec<Bed>,
}

impl<S> Dispatch<S> {
    /// An inbox and a queue for each ring, which the `doorbells` stand for.
    pub fn new(doorbells: &[Arc<EventFd>], workers: usize, connections_max: usize) -> Dispatch<S> {
        let inbox = |wake: &Arc<EventFd>| Inbox::new(connections_max, Arc::clone(wake));
        Dispatch {
            inboxes: doorbells.iter().map(inbox).collect(),
            jobs: doorbells.iter().map(|_| ArrayQueue::new(JOBS_MAX)).collect(),
            beds: (0..workers).map(|_| Bed::default()).collect(),
        }
    }

    pub fn has_workers(&self) -> bool {
        !self.beds.is_empty()
    }

    /// Wakes all workers, to let them see that the end has come.
    pub fn wake_workers(&self) {
        for bed in &self.beds {
            bed.wake();
        }
    }

    pub fn bed(&self, worker: usize) -> &Bed {
        &self.beds[worker]
    }

    /// Queues a batch of its ring and wakes one of the workers that serve it, if any sleeps. True
    /// when one was woken.
    ///
    /// # Errors
    /// The batch, when the queue is full.
    pub fn offer(&self, batch: Box<Batch<S>>) -> Result<bool, Box<Batch<S>>> {
        let ring = batch.ring;
        self.jobs[ring].push(batch)?;
        let mut served = (0..self.beds.len()).filter(|worker| self.serves(*worker, ring));
        Ok(served.any(|worker| self.beds[worker].wake()))
    }

    /// Batches in the queue of a ring.
    pub fn depth(&self, ring: usize) -> usize {
        self.jobs[ring].len()
    }

    /// True when `worker` takes batches of `ring`: the two lists are dealt out to each other.
    fn serves(&self, worker: usize, ring: usize) -> bool {
        let (workers, rings) = (self.beds.len(), self.jobs.len());
        if workers <= rings { ring % workers == worker } else { worker % rings == ring }
    }

    /// The next batch for a worker, its rings in turn.
    pub fn take(&self, worker: usize, turn: usize) -> Option<Box<Batch<S>>> {
        let rings = self.jobs.len();
        (0..rings)
            .map(|step| (turn + step) % rings)
            .filter(|ring| self.serves(worker, *ring))
            .find_map(|ring| self.jobs[ring].pop())
    }

    pub fn is_idle(&self, worker: usize) -> bool {
        (0..self.jobs.len())
            .filter(|ring| self.serves(worker, *ring))
            .all(|ring| self.jobs[ring].is_empty())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_ring_is_served_and_every_worker_serves() {
        for rings in 1..6 {
            for workers in 1..8 {
                let doorbells: Vec<_> =
                    (0..rings).map(|_| Arc::new(EventFd::new().unwrap())).collect();
                let dispatch: Dispatch<()> = Dispatch::new(&doorbells, workers, 1);
                let serves = |worker, ring| dispatch.serves(worker, ring);
                assert!((0..rings).all(|ring| (0..workers).any(|worker| serves(worker, ring))));
                assert!((0..workers).all(|worker| (0..rings).any(|ring| serves(worker, ring))));
            }
        }
    }
}
