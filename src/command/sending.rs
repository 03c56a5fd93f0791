//! Large values: they are sent from where they are, piece by piece, each held by a pin.
//!
//! A value that lies in one piece is done with as soon as it is found: its pin goes with the span.
//! Of any other the session has a pin, and as much is spanned as a peer may owe us: the rest when
//! it has read. Where too much is pinned in all, a value that is soon copied is copied after all,
//! if there is room for it; any other must wait.

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

/// Answers with a value that is too large to be copied at once, as far as that goes. `None`, and
/// nothing is written, while too much is being sent: the key must be shown again later.
#[cold]
pub(super) fn begin<O: Spanning<Span>>(
    output: &mut O,
    participant: &Participant,
    item: &Item<'_>,
    frame: &impl Frame,
) -> Option<Begun> {
    (!must_wait(output, participant, item)).then(|| begin_now(output, participant, item, frame))
}

/// True while too much is being sent for this value to be sent, too.
#[cold]
pub(super) fn must_wait<O: Spanning<Span>>(
    output: &O,
    participant: &Participant,
    item: &Item<'_>,
) -> bool {
    is_too_much(output, participant, item) && !may_copy(output, item)
}

/// As `begin`, where it is too late to wait.
#[cold]
pub(super) fn begin_now<O: Spanning<Span>>(
    output: &mut O,
    participant: &Participant,
    item: &Item<'_>,
    frame: &impl Frame,
) -> Begun {
    if is_too_much(output, participant, item) && may_copy(output, item) {
        frame.begin(output);
        item.runs().for_each(|run| output.put(run));
        frame.end(output);
        return Begun::Whole;
    }
    if output.takes_spans()
        && let Some(span) = participant.span_all(item)
    {
        frame.begin(output);
        output.span(span);
        frame.end(output);
        return Begun::Whole;
    }
    let Some(pin) = participant.pin(item) else {
        frame.refuse(output);
        return Begun::Refused;
    };
    frame.begin(output);
    Begun::Part(pin)
}

fn is_too_much<O: Spanning<Span>>(output: &O, participant: &Participant, item: &Item<'_>) -> bool {
    output.takes_spans() && !participant.may_pin(item) && !output.takes_any_span()
}

fn may_copy<O: Spanning<Span>>(output: &O, item: &Item<'_>) -> bool {
    let bytes = item.value_bytes();
    !Work::Copy(bytes).is_long() && output.has_room_for(bytes)
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
