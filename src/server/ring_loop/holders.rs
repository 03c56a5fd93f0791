//! Who may hold receive buffers: so that getting them back costs by how many were handed out, and
//! not by how many connections there are.
//!
//! A connection is noted with the first buffer that it gets. Whether it holds one still is looked
//! at when twice as many are noted as did so at the last look, and when buffers are short, for then
//! all are needed: so a buffer costs a flag, or one look at a connection that was just served.
//!
//! When buffers are short, what waits is copied out of them, but no more than the memory for
//! connections has room for: otherwise who comes with much at a time would be let in with all of
//! it. Who is executed soon gives its buffers back by that. What is not copied keeps its buffers,
//! nobody is received from, and TCP pushes back, until that is executed or its connection goes,
//! see `relief`.

use crate::base::limits::HEAD_BYTES_MAX;
use crate::base::slots::{SlotId, Slots};
use crate::net::connection::Connection;
use crate::net::input::Input;
use crate::server::service::Service;
use crate::sys::ring::Ring;

use super::RingLoop;

/// Where who goes on holds no more than this part of what is held, the others are in the way.
const GOING_SHARE: usize = 4;

/// Fewest connections that are noted before a look at them.
const NOTED_MIN: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Holders {
    noted: Vec<SlotId>,
    /// How many held buffers at the last look.
    held: usize,
}

impl Holders {
    /// Notes a connection that has buffers.
    pub(super) fn note<S>(&mut self, id: SlotId, connection: &mut Connection<S>) {
        if !std::mem::replace(&mut connection.holding, true) {
            self.noted.push(id);
        }
    }

    /// Forgets those that hold nothing any more, if it is time to look. Comes at the end of a turn,
    /// when hardly anybody holds something.
    pub(super) fn settle<S>(&mut self, connections: &mut Slots<Connection<S>>) {
        if self.noted.len() <= 2 * self.held + NOTED_MIN {
            return;
        }
        self.noted.retain(|id| {
            let Some(connection) = connections.get_mut(*id) else { return false };
            connection.holding = connection.input.holds_buffers();
            connection.holding
        });
        self.held = self.noted.len();
    }
}

/// A head that is not whole always, and more while there is room for it.
fn may_be_copied(input: &Input, room: usize) -> bool {
    input.bytes() < HEAD_BYTES_MAX || input.buffer_bytes() <= room
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Copies waiting input out of the pool's buffers, because others need them: a head that is not
    /// whole always, and more while there is room for it. True when some are kept, and few of them
    /// by connections that are executed soon: what those give back is not what others need.
    pub(super) fn evacuate(&mut self) -> bool {
        let mut room = self.input_room();
        let (mut kept_bytes, mut going_bytes) = (0, 0);
        let (peers, lanes, now_ns) = (self.fleet.peers.as_ref(), &self.lanes, self.read_ns);
        let is_to_wait = |bucket| peers.is_some_and(|it| lanes.is_to_wait(bucket, it, now_ns));
        let (connections, spent, heap) = (&mut self.connections, &mut self.spent, &mut self.heap);
        self.holders.noted.retain(|id| {
            let Some(connection) = connections.get_mut(*id) else { return false };
            connection.holding = connection.input.holds_buffers();
            let bytes = connection.input.buffer_bytes();
            if connection.holding && may_be_copied(&connection.input, room) && !connection.runnable
            {
                connection.holding = false;
                connection.input.evacuate(spent);
                heap.charge(connection);
                room = room.saturating_sub(bytes);
            }
            let must_wait = connection.bucket.is_some_and(is_to_wait) && !connection.passes;
            let goes_on = connection.runnable && !must_wait;
            if connection.holding {
                kept_bytes += bytes;
                going_bytes += if goes_on { bytes } else { 0 };
            }
            connection.holding
        });
        self.holders.held = self.holders.noted.len();
        kept_bytes > 0 && going_bytes * GOING_SHARE <= kept_bytes
    }

    /// Copies what one connection has waiting out of the pool's buffers, if it may be: it is about
    /// to wait for others.
    pub(super) fn empty_buffers_of(&mut self, id: SlotId) {
        let room = self.input_room();
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.input.holds_buffers() && may_be_copied(&connection.input, room) {
            connection.input.evacuate(&mut self.spent);
            self.heap.charge(connection);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::base::clock::Now;
    use crate::sys::buffers::{BufferPool, Filled};
    use crate::sys::socket::Socket;

    const NOW: Now = Now { ticks: 7, epoch_unix_s: 0 };

    fn arrive(connections: &mut Slots<Connection<()>>, filled: Filled) -> SlotId {
        let id = connections.insert(Connection::new(Socket::for_test(3), (), NOW));
        connections.get_mut(id).unwrap().input.push(filled);
        id
    }

    #[test]
    fn who_comes_and_goes_is_forgotten_and_who_holds_is_not() {
        let mut pool = BufferPool::map(0, 8, 64).unwrap();
        let mut connections: Slots<Connection<()>> = Slots::default();
        let mut holders = Holders::default();
        let mut spent: Vec<Filled> = Vec::new();
        let holder = arrive(&mut connections, pool.fill(0, b"abc", true));
        holders.note(holder, connections.get_mut(holder).unwrap());
        for _ in 0..10_000 {
            let id = arrive(&mut connections, pool.fill(1, b"abc", true));
            holders.note(id, connections.get_mut(id).unwrap());
            holders.settle(&mut connections);
            assert!(holders.noted.len() <= NOTED_MIN + 4, "{} are noted", holders.noted.len());
            assert!(holders.noted.contains(&holder) && holders.noted.contains(&id));
            connections.get_mut(id).unwrap().input.consume(3, &mut spent);
            spent.drain(..).for_each(|filled| assert_eq!(pool.take_back(filled), Some(1)));
            connections.remove(id);
        }
    }

    #[test]
    fn who_has_read_all_is_noted_again_with_the_next_buffer() {
        let mut connections: Slots<Connection<()>> = Slots::default();
        let mut holders = Holders::default();
        for _ in 0..=NOTED_MIN {
            let id = connections.insert(Connection::new(Socket::for_test(3), (), NOW));
            holders.note(id, connections.get_mut(id).unwrap());
            holders.note(id, connections.get_mut(id).unwrap());
        }
        assert_eq!(holders.noted.len(), NOTED_MIN + 1, "each once");
        holders.settle(&mut connections);
        assert!(holders.noted.is_empty());
        let id = connections.ids().next().unwrap();
        holders.note(id, connections.get_mut(id).unwrap());
        assert_eq!(holders.noted, [id]);
    }
}
