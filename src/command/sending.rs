//! Large values: they are sent from where they are, piece by piece, each held by a pin.
//!
//! A value that lies in one piece is done with as soon as it is found: its pin goes with the span.
//! Of any other the session has a pin, and as much is spanned as a peer may owe us: the rest when
//! it has read.

use super::Verdict;
use super::batch::{Batch, Step};
use super::costs::Work;
use super::session::{Access, After, Sending, State};
use crate::base::limits::PIECE_BYTES_MAX;
use crate::base::output::{Output, Spanning};
use crate::protocol::memcache::{LINE_END, reply};
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
}

/// What stands around the bytes of a value.
pub(super) trait Frame {
    /// Appends what comes before them.
    fn begin(&self, output: &mut impl Output);

    /// Appends what comes after them.
    fn end(&self, output: &mut impl Output);

    /// Appends what is told instead of all that.
    fn refuse(&self, output: &mut impl Output);
}

/// A value of the text protocol; the last of its reply or not.
pub(super) struct Line<'a>(pub reply::ValueHead<'a>, pub bool);

impl Frame for Line<'_> {
    fn begin(&self, output: &mut impl Output) {
        reply::value_head(output, &self.0);
    }

    fn end(&self, output: &mut impl Output) {
        reply::value_end(output, self.1);
    }

    fn refuse(&self, output: &mut impl Output) {
        output.put(reply::REFCOUNT_OVERFLOW);
    }
}

/// Answers with a value that is too large to be copied at once, as far as that goes.
#[cold]
pub(super) fn begin<O: Spanning<Span>>(
    output: &mut O,
    participant: &Participant,
    item: &Item<'_>,
    frame: &impl Frame,
) -> Begun {
    if output.takes_spans()
        && let Some(span) = participant.span_all(item)
    {
        frame.begin(output);
        output.span(span);
        frame.end(output);
        return Begun::Whole;
    }
    match participant.pin(item) {
        Some(pin) => {
            frame.begin(output);
            Begun::Part(pin)
        }
        None => {
            frame.refuse(output);
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
        self.participant().unpin(sending.pin);
        *state = match sending.after {
            After::Keys(list) => {
                reply::value_end(self.output, false);
                State::KeyList(list)
            }
            After::End => {
                reply::value_end(self.output, true);
                State::Idle
            }
            After::Line => {
                self.output.put(LINE_END);
                State::Idle
            }
            After::Packet => State::Binary(Access::Granted),
        };
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
