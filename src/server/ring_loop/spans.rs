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
use crate::command::BOUNDED_COPY_BYTES;
use crate::net::close::CloseReason;
use crate::net::connection::{Connection, Event, Held, Recall};
use crate::server::service::Service;
use crate::sys::blocks::BLOCK_BYTES;
use crate::sys::ring::Ring;

use super::RingLoop;
use super::memory::{ASKED_PER_TICK, BLOCKS_KEPT, BLOCKS_NEEDED};
use super::thirst::{Appetite, Thirsty};

/// Most blocks that take what was spanned: no more than one connection may hold.
const COPY_BLOCKS_MAX: usize = 24;

/// Blocks that take a value which is soon copied.
const SMALL_BLOCKS: usize = BOUNDED_COPY_BYTES / BLOCK_BYTES + 1;

/// Who waits until less is sent from where it lies.
#[derive(Debug, Default)]
pub(super) struct Spanless {
    queue: Thirsty,
    /// Who went on last; and whether it is sent what it asks for however much others are.
    went: Option<(SlotId, bool)>,
    /// Sends of this ring in flight with something in them that lies in the cache.
    pub(super) sends: usize,
    /// True when somebody went on in this turn however much others are sent.
    has_exceeded: bool,
    /// True when nobody went on in vain since the last tick.
    may_try: bool,
    /// How many waited when that was told last.
    told: usize,
}

impl Spanless {
    pub(super) fn begin_turn(&mut self) {
        self.has_exceeded = false;
    }

    /// True when what a connection asks for is sent however much others are.
    #[inline]
    pub(super) fn takes_any(&self, id: SlotId) -> bool {
        self.went == Some((id, true))
    }

    #[cfg(test)]
    pub(super) fn count(&self, id: SlotId) -> usize {
        self.queue.count(id)
    }
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Puts a connection at the end of the queue of those who wait until less is sent from where it
    /// lies. One whose peer has something to read goes on when a part of that is read; and one that
    /// may have found no blocks to copy to does at once, if there are more now.
    pub(super) fn await_span(&mut self, id: SlotId) {
        let before = self.ring.blocks().free();
        self.borrow_blocks(BLOCKS_KEPT + BLOCKS_NEEDED + SMALL_BLOCKS);
        let has_more = self.ring.blocks().free() > before;
        let Some(connection) = self.connections.get_mut(id) else { return };
        if has_more {
            return self.make_runnable(id);
        }
        self.counters.bump(Metric::SpanWaits);
        if connection.output.unsent_bytes() > 0 {
            connection.held = Held::Output;
            return;
        }
        connection.held = Held::Spans;
        self.spanless.queue.push(id, self.span_appetite(id));
    }

    fn span_appetite(&self, id: SlotId) -> Appetite {
        let untaken_bytes =
            |connection: &Connection<V::Session>| self.ring.untaken_bytes(&connection.socket);
        match self.connections.get(id).map_or(0, untaken_bytes) {
            0 => Appetite::Modest,
            _ => Appetite::Large,
        }
    }

    /// True when a worker has the batch of who went on last: how much it is sent is not known yet.
    fn is_any_on_its_way(&self) -> bool {
        let went = self.spanless.went.and_then(|(id, _)| self.connections.get(id));
        went.is_some_and(|went| matches!(went.held, Held::Away | Held::Queue))
    }

    /// True when somebody waits who can go on.
    pub(super) fn is_anybody_to_span(&self) -> bool {
        let spanless = &self.spanless;
        !spanless.queue.is_empty()
            && !self.is_any_on_its_way()
            && (spanless.sends == 0 || spanless.may_try || self.service.may_span_more())
    }

    /// Who goes on of those who wait, if less is sent now: one at a time, before others who would
    /// have it first. Where nobody of this ring is sent anything, one goes on however much those of
    /// other rings are: they would have had it first for ever. And one in every tick tries in vain,
    /// if there are not more blocks to copy to than when it began to wait.
    pub(super) fn next_spanless(&mut self) -> Option<SlotId> {
        if self.spanless.queue.is_empty() || self.is_any_on_its_way() {
            return None;
        }
        let is_full = !self.service.may_span_more();
        let exceeds = is_full && self.spanless.sends == 0 && !self.spanless.has_exceeded;
        if is_full && !exceeds && !std::mem::take(&mut self.spanless.may_try) {
            return None;
        }
        loop {
            let queue = &mut self.spanless.queue;
            let id = queue.pop(Appetite::Modest).or_else(|| queue.pop(Appetite::Large))?;
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.held = Held::No;
            if connection.can_execute() {
                self.spanless.went = Some((id, exceeds));
                self.spanless.has_exceeded |= exceeds;
                return Some(id);
            }
        }
    }

    /// Drops the names of those who are gone, looks whose peers have read meanwhile, and tells the
    /// other rings for how many somebody should go.
    pub(super) fn look_at_the_spanless(&mut self) {
        let mut queue = std::mem::take(&mut self.spanless.queue);
        queue.forget(|id| self.connections.get(id).is_none());
        queue.look_again(ASKED_PER_TICK, |id| self.span_appetite(id));
        self.spanless.queue = queue;
        self.spanless.may_try = true;
        self.tell_spanless(self.spanless.queue.modest());
    }

    pub(super) fn tell_spanless(&mut self, now: usize) {
        let before = std::mem::replace(&mut self.spanless.told, now);
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
