//! Large values: they are sent from where they are, piece by piece, each held by a pin.
//!
//! A value that lies in one piece is done with as soon as it is found: its pin goes with the span.
//! Of any other the session has a pin, and as much is spanned as a peer may owe us: the rest when
//! it has read. Where too much is pinned in all, a value is copied after all, if there is room for
//! it; any other must wait.

use super::Verdict;
use super::batch::{Batch, Step};
use super::costs::Work;
use super::session::{Sending, State};
use crate::base::limits::PIECE_BYTES_MAX;
use crate::base::output::Spanning;
use crate::protocol::memcache::reply;
use crate::store::{Item, Participant, Pin, Span};

/// From this length on a value is not copied. To send it from where it is takes less time from
/// about 4 KiB on (PERFORMANCE.md has the figures), but it writes to the item's header, twice: a
/// line that all cores read where everybody asks for the same item. At twice that length the gain
/// is worth it.
pub(super) const SPAN_BYTES_MIN: usize = 8 << 10;

/// Of a value that comes in pieces, those that are shorter are copied all the same.
const PIECE_BYTES_MIN: usize = 2 << 10;

/// What a key was answered with.
pub(super) enum Begun {
    /// All of it.
    Whole,
    /// The head of a value that comes in pieces.
    Part(Pin),
    /// An error: too many peers are being sent the same large value.
    Refused,
    /// Nothing: too many large values are being sent. The key must be shown again later.
    Later,
}

/// Answers with a value that is too large to be copied at once, as far as that goes.
#[cold]
pub(super) fn begin<O: Spanning<Span>>(
    output: &mut O,
    participant: &Participant,
    item: &Item<'_>,
    head: &reply::ValueHead<'_>,
    last: bool,
) -> Begun {
    if output.takes_spans() && !participant.may_pin(item) {
        if !output.has_room_for(item.value_bytes()) {
            return Begun::Later;
        }
        reply::value_head(output, head);
        item.runs().for_each(|run| output.put(run));
        reply::value_end(output, last);
        return Begun::Whole;
    }
    if output.takes_spans()
        && let Some(span) = participant.span_all(item)
    {
        reply::value_head(output, head);
        output.span(span);
        reply::value_end(output, last);
        return Begun::Whole;
    }
    match participant.pin(item) {
        Some(pin) => {
            reply::value_head(output, head);
            Begun::Part(pin)
        }
        None => {
            output.put(reply::REFCOUNT_OVERFLOW);
            Begun::Refused
        }
    }
}

impl<O: Spanning<Span>> Batch<'_, O> {
    /// Goes on with a value that is replied in pieces.
    pub fn send(&mut self, state: &mut State) -> Step {
        let State::Sending(sending) = state else { unreachable!() };
        while sending.offset < sending.pin.value_bytes() {
            if self.output.is_full() {
                return Some(Verdict::OutputFull);
            }
            match self.send_piece(sending) {
                Some(bytes) => sending.offset += bytes,
                None => return Some(Verdict::Defer),
            }
        }
        let State::Sending(sending) = std::mem::take(state) else { unreachable!() };
        reply::value_end(self.output, sending.list.is_none());
        self.participant().unpin(sending.pin);
        if let Some(list) = sending.list {
            *state = State::KeyList(list);
        }
        None
    }

    /// Spans the next piece of a value, or where that cannot be copies it; says how long it was.
    /// `None` when there is much to copy, which is long work; to span is not, however much it is.
    fn send_piece(&mut self, sending: &Sending) -> Option<usize> {
        let Sending { pin, offset, .. } = sending;
        let participant = &self.executor.participant;
        let run = participant.pinned(pin, *offset);
        if run.len() >= PIECE_BYTES_MIN {
            if self.output.takes_spans()
                && let Some(span) = participant.span_of(pin, *offset)
            {
                self.output.span(span);
                return Some(run.len());
            }
            if self.must_defer(Work::Copy(pin.value_bytes() - offset)) {
                return None;
            }
        }
        let piece = &run[..run.len().min(PIECE_BYTES_MAX)];
        assert!(!piece.is_empty());
        self.output.put(piece);
        Some(piece.len())
    }
}
