//! Lookups: `get` and its like, in runs.
//!
//! Clients send them by the dozen, quiet ones with a `noop` at the end: so a whole run is looked
//! for ahead, as lists of keys are.

use super::super::ahead::{Ahead, LookupAhead};
use super::super::batch::{Batch, Step};
use super::super::classes::Class;
use super::super::keys::Tally;
use super::super::sending::{Begun, Frame, SPAN_BYTES_MIN, begin};
use super::super::session::{After, Sending, State};
use super::super::watching::Glimpse;
use super::super::{Switches, Verdict};
use super::Asked;
use crate::base::by_size::OfSize;
use crate::base::clock::Expiry;
use crate::base::output::{Output, Spanning};
use crate::protocol::binary::reply::{self, ValueHead};
use crate::protocol::binary::{Echo, Status, parse_lookup};
use crate::protocol::memcache::WatchKinds;
use crate::store::{Item, Participant, Pin, Span};

/// How the answer to a lookup looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub echo: Echo,
    /// A miss is not told.
    pub quiet: bool,
    /// The reply names the key.
    pub with_key: bool,
}

/// A value, and nothing after it.
struct Packet<'a>(ValueHead<'a>);

impl Frame for Packet<'_> {
    fn begin(&self, output: &mut impl Output) {
        reply::value_head(output, &self.0);
    }

    fn end(&self, _: &mut impl Output) {}

    fn refuse(&self, output: &mut impl Output) {
        reply::error(output, self.0.echo, Status::NoMemory);
    }
}

/// What is left to be done for a lookup.
enum Rest {
    /// To send a large value, of which this is the pin.
    Value(Pin),
    /// All of it, later.
    All,
}

/// Answers with an item, and says what is left. What is answered counts, as a get or as a touch.
#[inline(always)]
fn hit<O: Spanning<Span>>(
    output: &mut O,
    participant: &Participant,
    item: &Item<'_>,
    (key, manner, switches): (&[u8], Manner, Switches),
    is_get: bool,
) -> Option<Rest> {
    let head = |value_bytes| ValueHead {
        echo: manner.echo,
        key: if manner.with_key { key } else { b"" },
        flags: item.flags(),
        value_bytes,
        cas: switches.cas_of(item),
    };
    match item.value() {
        Some(value) if value.len() < SPAN_BYTES_MIN => {
            match is_get {
                true => participant.count_short_hit(item, value.len()),
                false => participant.count_of(item, OfSize::TouchHits),
            }
            reply::value(output, &head(value.len()), value);
            None
        }
        _ => {
            let frame = Packet(head(item.value_bytes()));
            let begun = begin(output, participant, item, &frame);
            if begun.is_some() {
                participant.count_found(item, is_get);
            }
            match begun {
                Some(Begun::Whole | Begun::Refused) => None,
                Some(Begun::Part(pin)) => Some(Rest::Value(pin)),
                None => Some(Rest::All),
            }
        }
    }
}

#[cold]
fn miss(output: &mut impl Output, key: &[u8], manner: Manner) {
    match manner {
        Manner { quiet: true, .. } => {}
        Manner { with_key: true, echo, .. } => reply::missing_key(output, echo, key),
        Manner { echo, .. } => reply::error(output, echo, Status::NotFound),
    }
}

fn sending(pin: Pin) -> State {
    State::Sending(Sending { pin, offset: 0, after: After::Packet })
}

impl<O: Spanning<Span>> Batch<'_, O> {
    /// Answers the lookups that come next, of which the first is there.
    #[inline]
    pub(super) fn lookups(&mut self, state: &mut State) -> Step {
        if let Some(verdict) = self.obstacle() {
            return Some(verdict);
        }
        let glimpse = match self.executor.watches(WatchKinds::FETCHERS) {
            true => self.glimpse_of_lookup(),
            false => None,
        };
        let detailed = self.executor.shared.detail.is_on();
        // No more than will be answered now: whoever goes on has to read the others again.
        let most = match glimpse {
            None if !detailed => usize::try_from(self.budget.requests).unwrap_or(usize::MAX),
            _ => 1,
        };
        let step = self.answer_lookups(most, state);
        if let Some(glimpse) = glimpse {
            self.log_glimpse(&glimpse);
        }
        step
    }

    #[cold]
    fn glimpse_of_lookup(&self) -> Option<Box<Glimpse>> {
        let (lookup, _) = parse_lookup(self.rest())?;
        self.glimpse(lookup.key)
    }

    /// Answers so many of them at most.
    #[inline(always)]
    fn answer_lookups(&mut self, most: usize, state: &mut State) -> Step {
        let participant = &self.executor.participant;
        let switches = self.executor.shared.facts.switches;
        let mut ahead: Ahead<'_, LookupAhead<'_>> = Ahead::new();
        ahead.read((self.input, self.consumed), most, participant);
        let (mut tally, mut step) = (Tally::default(), None);
        let mut answered = 0;
        while let Some((LookupAhead { lookup, .. }, seek)) = ahead.key(answered) {
            if self.output.is_full() {
                step = Some(Verdict::OutputFull);
                break;
            }
            let opcode = lookup.opcode;
            let (quiet, with_key) = (opcode.is_quiet(), opcode.returns_key());
            let manner = Manner { echo: lookup.echo, quiet, with_key };
            match seek.get(lookup.key, self.now) {
                Ok(item) => {
                    let asked = (lookup.key, manner, switches);
                    match hit(self.output, participant, &item, asked, true) {
                        None => {}
                        Some(Rest::Value(pin)) => {
                            answered += 1;
                            *state = sending(pin);
                            break;
                        }
                        Some(Rest::All) => {
                            step = Some(Verdict::SpansFull);
                            break;
                        }
                    }
                }
                Err(reason) => {
                    tally.miss(reason);
                    miss(self.output, lookup.key, manner);
                }
            }
            answered += 1;
        }
        if let Some(last) = answered.checked_sub(1).and_then(|last| ahead.at(last)) {
            self.consumed = last.next;
            if most == 1 {
                self.note(tally.of_get(), last.lookup.key);
            }
        }
        // Lossless: no more were read than there are requests left.
        let count = u32::try_from(answered).unwrap_or(u32::MAX);
        self.budget.requests -= count;
        participant.count_requests(answered);
        tally.lists = count.into();
        tally.tell(count.into(), false, &self.executor.counters);
        self.executor.classes.count(Class::Get, count);
        self.executor.sampler.pass(count, self.now, |place, sample| {
            if let Some(LookupAhead { lookup, .. }) = ahead.at(place as usize) {
                sample.is_of(lookup.key);
            }
        });
        step
    }

    /// Answers one lookup, or stops before it; the item gets the exptime, if there is one, when it
    /// is answered: it might be gone with that until it is shown again.
    pub(super) fn look_up(
        &mut self,
        asked: &Asked<'_>,
        exptime: Option<u32>,
        with_key: bool,
        state: &mut State,
    ) -> Step {
        let (participant, now) = (&self.executor.participant, self.now);
        let switches = self.executor.shared.facts.switches;
        let expiry = exptime.map(|exptime| Expiry::from_wire(exptime.into(), now));
        let manner = Manner { echo: asked.echo, quiet: asked.quiet, with_key };
        let mut tally = Tally::default();
        match participant.get(asked.key, asked.hash, now) {
            Ok(item) => {
                let about = (asked.key, manner, switches);
                match hit(self.output, participant, &item, about, expiry.is_none()) {
                    None => {}
                    Some(Rest::Value(pin)) => *state = sending(pin),
                    Some(Rest::All) => return Some(Verdict::SpansFull),
                }
                if let Some(expiry) = expiry {
                    // Who is let go of meanwhile was touched before that.
                    participant.set_expiry(&item, asked.hash, expiry);
                }
            }
            Err(reason) => {
                tally.miss(reason);
                miss(self.output, asked.key, manner);
            }
        }
        self.note(tally.of_get(), asked.key);
        tally.tell(1, exptime.is_some(), &self.executor.counters);
        None
    }
}
