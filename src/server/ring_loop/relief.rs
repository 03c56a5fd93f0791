//! Who must go, so that others find memory.
//!
//! There are these needs, and each looks only at what would meet it:
//!
//! - replies: somebody waits for a block, and none comes home. What counts are blocks.
//! - pool: more than `drop_percent` of the memory for connections is in use, or more of it than
//!   there is. What counts are blocks, and what the heap keeps.
//! - buffers: nobody is received from, because others keep all receive buffers, and do not go on,
//!   see `holders`. What counts are requests that wait, whatever for. A quarter of what is received
//!   into is to come back, by those that go and by those that are copied in their place.
//! - items: something had to be refused, or a part of the memory is of no use, because it is being
//!   filled or sent from. What counts is what a session keeps of it.
//! - spans: values that are gone take too much of the memory while they are being sent. What counts
//!   is what a connection keeps of them; and who goes is recalled first, see `spans`.
//! - more spans: somebody, on this ring or another, waits to be sent a value, and all that are
//!   being sent take too much. What counts is what a connection keeps of any; it is recalled, too.
//!
//! The rule. Only who is silent may go; and who waits for its rate, as it has asked for more than
//! it may have, and keeps what others need for however long that takes. Silent is, whatever the
//! need, whose peer neither takes what is sent nor goes on with what it began, or no more than a
//! few bytes of it, for `silence_ms`; for an eighth of that, and an eighth of the bytes, when
//! somebody waits who is modest, see `thirst`, is not heard, or is not even let in. What it takes
//! the kernel is asked before it goes, see `silence`. Whoever only thinks between two requests
//! keeps nothing, and never goes. Of the silent the largest go first, by powers of two of what they
//! hold; of about the same size who has been silent longest; and no more of them than meet the
//! need. Who is larger and has been silent for an eighth of that time counts as if it went, unless
//! it is known to read: it goes soon, or moves. And a need for blocks or for the pool must have
//! lasted so long, too. Who holds little is thus the last to go.
//!
//! So whoever reads at that rate stays, and keeps others waiting: for a value that it is sent, or
//! for blocks. Nobody who stores waits for that: where something was refused, and where of values
//! that are gone more is kept than should be of all that are sent, the kernel is not asked, and who
//! is silent is who has not ended a send. And nobody waits longer than `silence_ms` to be sent a
//! large value, or to be received from, because a few read slowly: from then on, what the silent do
//! not give comes from those who have not ended a send for as long.

use std::cmp::Reverse;

use crate::base::metrics::Metric;
use crate::base::slots::SlotId;
use crate::net::close::CloseReason;
use crate::net::connection::{Connection, Event, Held, Recall};
use crate::net::throttle::{Level, NOTICE_SHARE};
use crate::server::service::Service;
use crate::sys::blocks::BLOCK_BYTES;
use crate::sys::ring::Ring;

use super::RingLoop;
use super::memory::BLOCKS_NEEDED;
use super::silence::Silence;
use super::thirst::Appetite;
use super::upkeep::{LOOKS_PER_TICK, OUTPUT_BYTES_MAX};

/// How many go in one tick for want of blocks: to close who has much in its socket takes the kernel
/// a while, in which nobody is served.
const CLOSED_MAX: usize = 16;
/// How many go where the limit of memory, or items, must not wait.
const CLOSED_MAX_IN_HASTE: usize = 256;

/// Where nobody is heard, so much of what receive buffers hold is to go or to be copied: one that
/// is filled piece by piece comes back when all of its pieces are.
const BUFFERS_SHARE: usize = 4;

/// What is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Items,
    Outdated,
    Spans,
    Buffers,
    Pool,
    Blocks,
}

#[derive(Clone, Copy, Debug)]
struct Need {
    what: What,
    bytes: usize,
    /// For so long who goes has been silent.
    silence_ticks: u32,
    /// For so long who counts as if it went.
    notice_ticks: u32,
    /// How many may go at a time.
    closed_max: usize,
    /// False when only what sends tell counts.
    asks: bool,
}

/// Somebody who may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    id: SlotId,
    bytes: usize,
    silent_ticks: u32,
    /// False of who may go whether it is silent or not.
    has_claim: bool,
    /// True of who keeps receive buffers, where those are needed: pieces of one are anybody's, and
    /// in the place of who was copied they are copied in the order in which they came.
    is_in_buffers: bool,
}

impl Candidate {
    /// Who goes first is smallest.
    fn rank(&self) -> (Reverse<u32>, bool, Reverse<u32>) {
        let magnitude = self.bytes.max(1).ilog2();
        (Reverse(magnitude), self.is_in_buffers, Reverse(self.silent_ticks))
    }
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Closes those who must go for the needs of this moment.
    pub(super) fn relieve(&mut self) {
        self.thirsty.forget(|id| self.connections.get(id).is_none());
        self.ask_the_thirsty_again();
        self.look_at_the_spanless();
        let [items, spans, more_spans, pool, replies] = self.needs();
        for need in [items, spans].into_iter().flatten() {
            self.meet(need);
        }
        let since = self.upkeep.spanless_since.take();
        self.upkeep.spanless_since = self.meet_in_the_end(more_spans, since);
        if !self.upkeep.is_parched {
            self.upkeep.parched_since = None;
        }
        if pool.is_none() && replies.is_none() {
            self.upkeep.needy_since = None;
            return;
        }
        let since = self.upkeep.needy_since.get_or_insert(self.now.ticks);
        let lasted_ticks = self.now.ticks - *since;
        for need in [pool, replies].into_iter().flatten() {
            if lasted_ticks >= u64::from(need.notice_ticks) {
                self.meet(need);
            }
        }
    }

    /// Closes those who must go so that others are heard: not at the next tick of the ring only, as
    /// nobody is served meanwhile, but in every one of the clock.
    pub(super) fn relieve_buffers(&mut self) {
        if std::mem::replace(&mut self.upkeep.relieved_at, self.now.ticks) == self.now.ticks {
            return;
        }
        let bytes = self.ring.receive_bytes() / BUFFERS_SHARE;
        let need = self.need(What::Buffers, bytes, true, true);
        let since = self.upkeep.parched_since.take();
        self.upkeep.parched_since = self.meet_in_the_end(need, since);
        self.advance_listed();
    }

    fn need(&self, what: What, bytes: usize, is_urgent: bool, is_hasty: bool) -> Option<Need> {
        let silence_ticks = self.settings.throttle.silence_ticks(is_urgent);
        let notice_ticks = silence_ticks / NOTICE_SHARE;
        let closed_max = if is_hasty { CLOSED_MAX_IN_HASTE } else { CLOSED_MAX };
        let asks = what != What::Items && self.service.outdated_flood_bytes() == 0;
        let need = Need { what, bytes, silence_ticks, notice_ticks, closed_max, asks };
        (bytes > 0).then_some(need)
    }

    fn needs(&mut self) -> [Option<Need>; 5] {
        let throttle = self.settings.throttle;
        let flood = self.service.outdated_flood_bytes();
        let has_none = !self.thirsty.is_empty() && !self.has_blocks_for_all();
        // A listener that has stopped looks as if somebody came.
        let is_serving = self.upkeep.draining_since.is_none();
        let is_shut_out = is_serving && self.upkeep.accepts_paused && self.ring.has_arrivals();
        let is_urgent =
            self.thirsty.modest() > 0 && !self.has_blocks(Appetite::Modest) || is_shut_out;
        let wanted = if has_none { self.thirsty.len() * BLOCKS_NEEDED * BLOCK_BYTES } else { 0 };
        let (rings, pool) = (self.settings.rings, self.pool());
        let excess = match self.upkeep.level {
            Level::Dire => throttle.excess_bytes(pool.used(), pool.bytes),
            Level::Calm | Level::Short => 0,
        };
        let overdrawn = self.service.overdrawn_bytes();
        let excess = excess.max(overdrawn).div_ceil(rings);
        // Asked once a second, as what goes now is of use only a little later; but who waits for
        // its rate may keep much, and goes at once.
        let is_due = self.is_new_second || !self.lanes.is_empty();
        let starved = if is_due { self.service.starved_bytes() } else { 0 };
        let starved = starved.div_ceil(rings);
        let outdated = if flood > 0 { flood } else { self.service.outdated_excess_bytes() };
        let outdated = outdated.div_ceil(rings);
        // Each of them may be sent so much at a time, at least.
        let spanless = if self.service.may_span_more() { 0 } else { self.service.spanless() };
        let spanless = (spanless * OUTPUT_BYTES_MAX).div_ceil(rings);
        [
            self.need(What::Items, starved, false, true),
            self.need(What::Outdated, outdated, false, true),
            self.need(What::Spans, spanless, true, false),
            self.need(What::Pool, excess, is_urgent, overdrawn > 0),
            self.need(What::Blocks, wanted, is_urgent, false),
        ]
    }

    /// Meets a need of those who wait for what others keep: by who is silent, and by who reads
    /// slowly once it has lasted for long. Says since when it has.
    fn meet_in_the_end(&mut self, need: Option<Need>, since: Option<u64>) -> Option<u64> {
        let need = need?;
        let silence_ticks = self.settings.throttle.silence_ticks(false);
        let since = since.unwrap_or(self.now.ticks);
        let bytes = self.meet(need);
        if bytes > 0 && self.now.ticks - since >= u64::from(silence_ticks) {
            let notice_ticks = silence_ticks / NOTICE_SHARE;
            self.meet(Need { bytes, silence_ticks, notice_ticks, asks: false, ..need });
        }
        Some(since)
    }

    /// What is still needed then, as if all had gone who will soon.
    fn meet(&mut self, need: Need) -> usize {
        let places = self.connections.places();
        let start = self.upkeep.cursor;
        let looked = (0..places.min(LOOKS_PER_TICK)).map(|step| (start + step) % places.max(1));
        let mut candidates: Vec<_> = looked
            .filter_map(|place| self.connections.at(u32::try_from(place).ok()?))
            .filter_map(|(id, each)| self.candidate(id, each, need))
            .collect();
        candidates.sort_unstable_by_key(Candidate::rank);
        let (mut wanted, mut left) = (need.bytes, need.closed_max);
        for Candidate { id, bytes, has_claim, .. } in candidates {
            if wanted == 0 || left == 0 {
                break;
            }
            let ticks = (need.silence_ticks, need.notice_ticks);
            let silence = match has_claim {
                true => self.silence(id, ticks, need.asks),
                false => Silence::Lasting,
            };
            if silence != Silence::Broken {
                wanted = wanted.saturating_sub(bytes);
            }
            if silence != Silence::Lasting {
                continue;
            }
            left -= 1;
            let is_sending = self.connections.get(id).is_some_and(|each| each.sending);
            let reason = match need.what {
                What::Outdated if is_sending => {
                    self.recall(id, Recall::Needed);
                    continue;
                }
                What::Spans if is_sending => {
                    self.recall(id, Recall::Wanted);
                    continue;
                }
                What::Outdated | What::Spans => CloseReason::Spans,
                What::Items => CloseReason::Items,
                What::Pool | What::Buffers => CloseReason::Pool,
                What::Blocks => CloseReason::Replies,
            };
            self.counters.bump(Metric::ResponseObjOom);
            self.end(id, Event::Abort, reason);
        }
        wanted
    }

    fn candidate(
        &self,
        id: SlotId,
        each: &Connection<V::Session>,
        need: Need,
    ) -> Option<Candidate> {
        let kept = self.service.held_bytes(&each.session) + each.output.spanned_bytes();
        let block_bytes = each.output.blocks() * BLOCK_BYTES;
        let bytes = match need.what {
            What::Items => kept,
            What::Outdated => self.outdated_bytes(each),
            What::Spans => self.spanned_bytes(each),
            What::Blocks => block_bytes,
            What::Pool => block_bytes + each.charged as usize,
            // What goes of what was copied makes room for the rest.
            What::Buffers => each.input.bytes(),
        };
        let is_idle = match each.held {
            Held::No | Held::Rate => true,
            // Those who wait for what others have stand in each other's way.
            Held::Output | Held::Memory | Held::Spans | Held::Queue => need.what == What::Buffers,
            Held::Items | Held::Away => false,
        };
        let is_amid = is_idle && (kept > 0 || !each.input.is_empty());
        // It asked for more than it may have, and waits for that and not for its peer.
        let has_claim = each.held != Held::Rate;
        let silent_ticks = each.slow_ticks(self.now);
        let may_go = each.reason().is_none()
            && each.held != Held::Away
            && (each.sending || is_amid)
            && (silent_ticks >= need.notice_ticks || !has_claim);
        let is_in_buffers = need.what == What::Buffers && each.input.holds_buffers();
        let candidate = Candidate { id, bytes, silent_ticks, has_claim, is_in_buffers };
        (bytes > 0 && may_go).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_go_first_and_of_those_the_longest_silent() {
        let candidate = |index, bytes, silent_ticks| {
            let id = SlotId { index, generation: 0 };
            Candidate { id, bytes, silent_ticks, has_claim: true, is_in_buffers: false }
        };
        let mut all = [
            candidate(4, 20_000, 999),
            candidate(2, 40_000, 70),
            candidate(5, 1, 9999),
            candidate(1, 65_535, 90),
            candidate(3, 33_000, 65),
            candidate(0, 65_536, 65),
        ];
        all.sort_unstable_by_key(Candidate::rank);
        assert_eq!(all.map(|each| each.id.index), [0, 1, 2, 3, 4, 5]);
    }
}
