//! Large values, received straight into their place: the service lends the memory, the kernel
//! writes it, and nobody reads or frees it before the completion.
//!
//! ```text
//!            cancel             its end              lent
//!     Armed --------> Cancelling ------> Idle ----------------> Direct
//!                     what comes late     ^   the completion      |
//!                     is copied           +-----------------------+
//! ```
//!
//! A piece is as large as the slab memory that is taken for it, so that a peer that stalls holds
//! no more than that. Only when no input waits is the next piece lent: bytes keep their order.
//! With the last piece come the line end and the next head, in memory of the ring.

use crate::base::metrics::Metric;
use crate::base::slots::SlotId;
use crate::command::ValuePart;
use crate::net::close::CloseReason;
use crate::net::connection::{Event, Phase, Receive};
use crate::server::service::Service;
use crate::sys::buffers::Filled;
use crate::sys::region::Loan;
use crate::sys::ring::{Arrived, Ring};

use super::RingLoop;

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Receives the next bytes of a value straight into their place.
    pub(super) fn receive_direct(&mut self, id: SlotId) {
        let Some(connection) = self.connections.get(id) else { return };
        if connection.bucket.is_some() && self.must_wait_for_rate(id) {
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        match self.service.lend_for_value(&mut connection.session, self.now) {
            Some(ValuePart { loan, is_last }) => {
                connection.receive = Receive::Direct;
                self.counters.bump(Metric::DirectReceives);
                self.ring.receive_into(&connection.socket, id, loan, is_last);
            }
            // With the next bytes the session finds that out for itself, and knows what to reply.
            None => connection.awaits_much = false,
        }
    }

    /// What was lent is back, and with it what came behind.
    pub(super) fn arrived(
        &mut self,
        id: SlotId,
        arrived: Arrived,
        loan: Loan,
        behind: Option<Filled>,
    ) {
        let Some(connection) = self.connections.get_mut(id) else {
            unreachable!("a receive completed for a connection that is gone");
        };
        assert!(connection.receive == Receive::Direct);
        connection.receive = Receive::Idle;
        let bytes = if let Arrived::Bytes(bytes) = arrived { bytes } else { 0 };
        self.service.take_value_back(&mut connection.session, loan, bytes);
        match arrived {
            Arrived::Bytes(bytes) => {
                self.counters.add(Metric::BytesRead, bytes as u64);
                let bucket = connection.bucket;
                self.charge(bucket, 0, bytes);
                let Some(connection) = self.connections.get_mut(id) else { return };
                if connection.phase() == Phase::Open {
                    connection.record_received(bytes, |_| true, self.now);
                }
                connection.awaits_much = self.service.awaits_much(&connection.session);
                if self.service.has_all(&connection.session) {
                    self.make_runnable(id);
                }
            }
            Arrived::End => {
                connection.ended = true;
                self.make_runnable(id);
            }
            Arrived::Stopped => {}
            Arrived::NoMemory => self.pause(id),
            Arrived::Failed(_) => connection.end(Event::Abort, CloseReason::Broken),
        }
        if let Some(filled) = behind {
            self.take_in(id, filled);
        }
        self.list(id);
    }
}
