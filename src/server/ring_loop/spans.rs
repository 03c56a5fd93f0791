//! Large values that stay in memory for slow peers: all of them, and those that are gone from the
//! table and stay for nobody else.
//!
//! ```text
//!             silent                    the send is cancelled
//!   sending ----------> recalled ------------------------------> goes on, if bytes had moved
//!                                                                copied, if that is little
//!                                                                closed
//! ```
//!
//! What one peer may be owed is bounded, spans included, so each keeps little more than the values
//! that it is being sent. All together may keep a small part of the memory, and half of that of
//! what is gone. When that becomes more, who is silent and keeps much goes first; who has been
//! silent for long goes whatever the others keep. A value of which all that is left is owed
//! already, and is not much, is copied into blocks, and its memory is free; any other ends its
//! connection.
//!
//! Who is to be sent a value while all together keep as much as they may, and one that is too large
//! to be copied, waits in a queue: first those whose peers have taken all that they were sent. For
//! their sake others must go who are silent, too.

use crate::base::metrics::Metric;
use crate::base::slots::SlotId;
use crate::net::close::CloseReason;
use crate::net::connection::{Connection, Event, Held, Recall};
use crate::server::service::Service;
use crate::sys::blocks::BLOCK_BYTES;
use crate::sys::ring::Ring;

use super::RingLoop;
use super::memory::{ASKED_PER_TICK, BLOCKS_KEPT, BLOCKS_NEEDED};
use super::thirst::Appetite;

/// Most blocks that take what was spanned: no more than one connection may hold.
const COPY_BLOCKS_MAX: usize = 24;

/// Connections that go on in one turn when more may be sent from where it lies.
const GO_ON_MAX: usize = 16;

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Puts a connection at the end of the queue of those who wait until less is sent from where it
    /// lies. One whose peer has something to read goes on when a part of that is read.
    pub(super) fn await_span(&mut self, id: SlotId) {
        self.counters.bump(Metric::SpanWaits);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.output.unsent_bytes() > 0 {
            connection.held = Held::Output;
            return;
        }
        connection.held = Held::Spans;
        self.spanless.push(id, self.span_appetite(id));
    }

    fn span_appetite(&self, id: SlotId) -> Appetite {
        let untaken_bytes = |connection: &Connection<V::Session>| {
            self.ring.untaken_bytes(&connection.socket)
        };
        match self.connections.get(id).map_or(0, untaken_bytes) {
            0 => Appetite::Modest,
            _ => Appetite::Large,
        }
    }

    /// True when somebody waits who could go on at once.
    pub(super) fn is_anybody_to_span(&self) -> bool {
        !self.spanless.is_empty() && self.service.may_span_more()
    }

    /// Makes those runnable who wait until less is sent from where it lies, if less is: before
    /// others, who would have it first.
    pub(super) fn go_on_with_spans(&mut self) {
        let mut place = 0;
        while place < GO_ON_MAX && self.is_anybody_to_span() {
            let modest = self.spanless.pop(Appetite::Modest);
            let Some(id) = modest.or_else(|| self.spanless.pop(Appetite::Large)) else { return };
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.held = Held::No;
            if connection.can_execute() && !connection.runnable {
                connection.runnable = true;
                self.runnable.insert(place, id);
                place += 1;
            }
        }
    }

    /// Drops the names of those who are gone, looks whose peers have read meanwhile, and tells the
    /// other rings for how many somebody should go.
    pub(super) fn look_at_the_spanless(&mut self) {
        let mut spanless = std::mem::take(&mut self.spanless);
        spanless.forget(|id| self.connections.get(id).is_none());
        spanless.look_again(ASKED_PER_TICK, |id| self.span_appetite(id));
        self.spanless = spanless;
        self.tell_spanless(self.spanless.modest());
    }

    pub(super) fn tell_spanless(&mut self, now: usize) {
        let before = std::mem::replace(&mut self.upkeep.spanless, now);
        if before != now {
            self.service.tell_spanless(before, now);
        }
    }

    /// Bytes that a connection keeps of values that are gone.
    pub(super) fn outdated_bytes(&self, connection: &Connection<V::Session>) -> usize {
        self.service.outdated_bytes(&connection.session, connection.output.spans())
    }

    /// Bytes that a connection keeps of values, gone or not.
    pub(super) fn spanned_bytes(&self, connection: &Connection<V::Session>) -> usize {
        match self.service.is_amid_reply(&connection.session) {
            true => self.service.held_bytes(&connection.session),
            false => connection.output.spanned_bytes(),
        }
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
            (Recall::Overdue, Recall::Sounded) => (Recall::Overdue, true),
            (Recall::Sounded | Recall::Needed | Recall::Wanted, Recall::Sounded) => {
                (Recall::Overdue, false)
            }
            (Recall::Sounded | Recall::Needed, _) => (recall, false),
            (before @ (Recall::Wanted | Recall::Overdue), _) => (before, false),
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
            Recall::Needed | Recall::Wanted | Recall::Overdue => false,
        };
        let Some(connection) = self.connections.get(id) else { return };
        let kept_bytes = match recall {
            Recall::Wanted => self.spanned_bytes(connection),
            Recall::No | Recall::Sounded | Recall::Needed | Recall::Overdue => {
                self.outdated_bytes(connection)
            }
        };
        if is_over || connection.reason().is_some() || kept_bytes == 0 {
            return;
        }
        if self.copy_spans(id, recall) {
            self.counters.bump(Metric::SpansCopied);
        } else {
            self.counters.bump(Metric::ResponseObjOom);
            self.end(id, Event::Abort, CloseReason::Spans);
        }
    }

    /// Copies what a connection is being sent of large values. False when it is too much, or not
    /// all of it is there, or blocks are short.
    fn copy_spans(&mut self, id: SlotId, recall: Recall) -> bool {
        let Some(connection) = self.connections.get(id) else { return true };
        let needed = connection.output.unsent_bytes().div_ceil(BLOCK_BYTES);
        let session = &connection.session;
        let is_amid = match recall {
            Recall::Wanted => self.service.is_amid_reply(session),
            Recall::No | Recall::Sounded | Recall::Needed | Recall::Overdue => {
                self.service.outdated_bytes(session, std::iter::empty()) > 0
            }
        };
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
