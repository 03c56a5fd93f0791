//! Who may hold receive buffers: so that getting them back costs by how many were handed out, and
//! not by how many connections there are.
//!
//! A connection is noted with the first buffer that it gets. Whether it holds one still is looked
//! at when twice as many are noted as did so at the last look, and when buffers are short, for then
//! all are needed: so a buffer costs a flag, or one look at a connection that was just served.

use crate::base::slots::{SlotId, Slots};
use crate::net::connection::Connection;
use crate::server::service::Service;
use crate::sys::ring::Ring;

use super::RingLoop;

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

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Copies waiting input out of the pool's buffers, because others need them.
    pub(super) fn evacuate(&mut self) {
        for id in self.holders.noted.drain(..) {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.holding = false;
            if connection.input.holds_buffers() {
                connection.input.evacuate(&mut self.spent);
                self.heap.charge(connection);
            }
        }
        self.holders.held = 0;
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
