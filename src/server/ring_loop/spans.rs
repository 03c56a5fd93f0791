//! Large values that are gone from the table, and stay in memory for slow peers alone.
//!
//! ```text
//!             silent                    the send is cancelled
//!   sending ----------> recalled ------------------------------> goes on, if bytes had moved
//!                                                                copied, if that is little
//!                                                                closed
//! ```
//!
//! What one peer may be owed is bounded, spans included, so each keeps little more than the values
//! that it is being sent. All together may keep a small part of the memory. When it becomes more,
//! who is silent and keeps much goes first; who has been silent for long goes whatever the others
//! keep. A value of which all that is left is owed already, and is not much, is copied into blocks,
//! and its memory is free; any other ends its connection.

use crate::base::metrics::Metric;
use crate::base::slots::SlotId;
use crate::net::close::CloseReason;
use crate::net::connection::{Connection, Event, Recall};
use crate::server::service::Service;
use crate::sys::blocks::BLOCK_BYTES;
use crate::sys::ring::Ring;

use super::RingLoop;
use super::memory::{BLOCKS_KEPT, BLOCKS_NEEDED};

/// Most blocks that take what was spanned: no more than one connection may hold.
const COPY_BLOCKS_MAX: usize = 24;

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Bytes that a connection keeps of values that are gone.
    pub(super) fn outdated_bytes(&self, connection: &Connection<V::Session>) -> usize {
        self.service.outdated_bytes(&connection.session, connection.output.spans())
    }

    /// Ends the send of a connection, to see whether its peer reads, and to let go of what it is
    /// being sent. One that has not ended since it was recalled last will not: a peer keeps what it
    /// does not acknowledge, where that was sent without a copy.
    pub(super) fn recall(&mut self, id: SlotId, recall: Recall) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.sending || connection.reason().is_some() {
            return;
        }
        let (next, is_over) = match (connection.recall, recall) {
            (Recall::No, _) => {
                self.ring.cancel_send(id);
                (recall, false)
            }
            (Recall::Sounded | Recall::Needed, Recall::Sounded) => (Recall::Overdue, false),
            (Recall::Overdue, Recall::Sounded) => (Recall::Overdue, true),
            (Recall::Sounded, _) => (Recall::Needed, false),
            (before @ (Recall::Needed | Recall::Overdue), _) => (before, false),
        };
        connection.recall = next;
        if is_over {
            self.counters.bump(Metric::ResponseObjOom);
            self.end(id, Event::Abort, CloseReason::Spans);
        }
    }

    /// The send of a connection that was recalled has ended, and the kernel took so much of it.
    pub(super) fn recalled(&mut self, id: SlotId, recall: Recall, taken: usize) {
        let is_over = match recall {
            Recall::No => true,
            Recall::Sounded => taken > 0,
            Recall::Needed | Recall::Overdue => false,
        };
        let Some(connection) = self.connections.get(id) else { return };
        if is_over || connection.reason().is_some() || self.outdated_bytes(connection) == 0 {
            return;
        }
        if self.copy_spans(id) {
            self.counters.bump(Metric::SpansCopied);
        } else {
            self.counters.bump(Metric::ResponseObjOom);
            self.end(id, Event::Abort, CloseReason::Spans);
        }
    }

    /// Copies what a connection is being sent of large values. False when it is too much, or not
    /// all of it is there, or blocks are short.
    fn copy_spans(&mut self, id: SlotId) -> bool {
        let Some(connection) = self.connections.get(id) else { return true };
        let needed = connection.output.unsent_bytes().div_ceil(BLOCK_BYTES);
        let is_amid = self.service.outdated_bytes(&connection.session, std::iter::empty()) > 0;
        if is_amid || needed > COPY_BLOCKS_MAX {
            return false;
        }
        let kept = BLOCKS_KEPT + BLOCKS_NEEDED;
        while self.ring.blocks().free() < needed + kept {
            let Some(loan) = self.service.lend() else { break };
            self.ring.blocks().adopt(loan);
        }
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let (service, blocks) = (&mut self.service, self.ring.blocks());
        let most = blocks.free().saturating_sub(kept);
        connection.output.copy_spans(blocks, most, |span| service.take_span_back(span))
    }
}
