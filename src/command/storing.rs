//! Storage commands: the value goes straight into the memory of its item.

use super::batch::{Batch, Step};
use super::classes::Class;
use super::costs::Work;
use super::session::{Filling, State, Swallowing};
use super::{Cost, NO_CAS, Verdict};
use crate::base::clock::Expiry;
use crate::base::hash::KeyHash;
use crate::base::limits::KEY_BYTES_MAX;
use crate::base::metrics::Metric;
use crate::base::output::Output;
use crate::protocol::memcache::{LINE_END, ProtocolError, StoreHead, StoreVerb, reply};
use crate::store::{Condition, ItemHead, Outcome, Refusal, Side};

impl<O: Output> Batch<'_, O> {
    /// Takes memory for a value that is to come.
    pub fn start_value(&mut self, head: &StoreHead<'_>, hash: KeyHash, state: &mut State) -> Step {
        // Lossless: usize has 64 bits.
        let value_bytes = head.value_bytes as usize;
        let item_head = ItemHead {
            key: head.key,
            hash,
            flags: head.flags,
            expiry: Expiry::from_wire(head.exptime, self.now),
            value_bytes,
        };
        if self.store_at_once(head, &item_head) {
            return None;
        }
        let now = self.now;
        let is_there = self.rest().len() >= value_bytes.saturating_add(LINE_END.len());
        let participant = self.participant();
        let reserved = if is_there {
            participant.reserve(item_head, now)
        } else {
            participant.reserve_ahead(item_head, now)
        };
        match reserved {
            Ok(reservation) => {
                self.count(Metric::CmdSet);
                let long = self.is_long_concat(head, hash);
                let filling = Filling { reservation, verb: head.verb, noreply: head.noreply, long };
                *state = State::Filling(filling);
            }
            Err(Refusal::WouldWait) => return Some(Verdict::WouldWait),
            Err(refusal @ (Refusal::TooLarge | Refusal::NoMemory)) => {
                self.classify(Class::Store);
                if head.verb == StoreVerb::Set {
                    // What the peer meant to replace must not live on.
                    self.participant().delete(head.key, hash, now);
                }
                let reply = self.refused(refusal, head.noreply);
                *state = swallowing(value_bytes, reply);
            }
        }
        None
    }

    /// Stores a value that is there, and for which there is room where it is looked for first.
    /// False when nothing has happened: then the value is taken in steps.
    #[inline]
    fn store_at_once(&mut self, head: &StoreHead<'_>, item_head: &ItemHead<'_>) -> bool {
        let Some(condition) = self.condition(head.verb) else { return false };
        let Some((value, rest)) = self.rest().split_at_checked(item_head.value_bytes) else {
            return false;
        };
        if !rest.starts_with(LINE_END) {
            return false;
        }
        let now = self.now;
        let Some(outcome) = self.participant().put(item_head, value, condition, now) else {
            return false;
        };
        self.count(Metric::CmdSet);
        self.classify(Class::Store);
        self.consume(value.len() + LINE_END.len());
        self.tell(outcome, head.verb, head.noreply);
        true
    }

    /// True when joining the value to the one that is there copies much.
    fn is_long_concat(&self, head: &StoreHead<'_>, hash: KeyHash) -> bool {
        match head.verb {
            StoreVerb::Append | StoreVerb::Prepend => {
                let participant = &self.executor.participant;
                let there = participant.peek(head.key, hash, self.now);
                let there = there.map_or(0, |item| item.value_bytes());
                Work::Copy(there + head.value_bytes as usize).is_long()
            }
            StoreVerb::Set | StoreVerb::Add | StoreVerb::Replace | StoreVerb::Cas(_) => false,
        }
    }

    fn refused(&self, refusal: Refusal, noreply: bool) -> &'static [u8] {
        let (metric, reply) = match refusal {
            Refusal::TooLarge => (Metric::StoreTooLarge, reply::TOO_LARGE),
            Refusal::NoMemory => (Metric::StoreNoMemory, reply::NO_MEMORY_STORING),
            Refusal::WouldWait => unreachable!("who is to ask again is not refused"),
        };
        self.count(metric);
        if noreply { b"" } else { reply }
    }

    /// Goes on with a value that is being stored.
    pub fn fill(&mut self, state: &mut State) -> Step {
        let State::Filling(filling) = state else { unreachable!() };
        let missing = filling.reservation.missing();
        if missing > 0 {
            let piece = &self.rest()[..self.rest().len().min(missing)];
            if piece.is_empty() {
                return Some(Verdict::NeedInput);
            }
            if self.must_defer(Work::Copy(piece.len())) {
                return Some(Verdict::Defer);
            }
            let (reservation, now) = (&mut filling.reservation, self.now);
            let result = self.executor.participant.fill(reservation, piece, now);
            // Even if there was no room for all of it, there was for a part.
            let filled = missing - reservation.missing();
            self.consume(filled);
            return match result {
                Ok(()) => None,
                Err(Refusal::WouldWait) => Some(Verdict::WouldWait),
                Err(refusal @ (Refusal::TooLarge | Refusal::NoMemory)) => {
                    self.give_up(refusal, state);
                    None
                }
            };
        }
        let Some(end) = self.rest().first_chunk::<2>() else { return Some(Verdict::NeedInput) };
        if self.output.is_full() {
            return Some(Verdict::OutputFull);
        }
        if filling.long && self.budget.cost == Cost::Bounded {
            return Some(Verdict::Defer);
        }
        self.consume(end.len());
        let State::Filling(filling) = std::mem::take(state) else { unreachable!() };
        if let Some(filling) = self.finish(filling, *end) {
            self.consumed -= end.len();
            *state = State::Filling(filling);
            return Some(Verdict::WouldWait);
        }
        None
    }

    /// There is no memory for the rest of a value. What a `set` was to replace must not live on.
    #[cold]
    fn give_up(&mut self, refusal: Refusal, state: &mut State) {
        self.classify(Class::Store);
        let State::Filling(filling) = std::mem::take(state) else { unreachable!() };
        let missing = filling.reservation.missing();
        let (hash, now) = (filling.reservation.hash(), self.now);
        if filling.verb == StoreVerb::Set {
            let mut copy = [0; KEY_BYTES_MAX];
            let key = self.executor.participant.reserved_key(&filling.reservation);
            let key_bytes = key.len();
            copy[..key_bytes].copy_from_slice(key);
            self.participant().delete(&copy[..key_bytes], hash, now);
        }
        self.participant().abandon(filling.reservation);
        let reply = self.refused(refusal, filling.noreply);
        *state = swallowing(missing, reply);
    }

    /// The whole value has come, and the two bytes after it. It is still there when it would have
    /// to wait for memory to join it to another.
    fn finish(&mut self, filling: Filling, end: [u8; 2]) -> Option<Filling> {
        let Filling { reservation, verb, noreply, long } = filling;
        let now = self.now;
        if end != *LINE_END {
            self.classify(Class::Store);
            self.participant().abandon(reservation);
            self.reply(ProtocolError::BadDataChunk.reply(), noreply);
            return None;
        }
        let condition = self.condition(verb);
        let participant = self.participant();
        let outcome = match (condition, verb) {
            (Some(condition), _) => Ok(participant.commit(reservation, condition, now)),
            (None, StoreVerb::Prepend) => {
                participant.concat(reservation, Side::Prepend, Condition::Always, now)
            }
            (None, _) => participant.concat(reservation, Side::Append, Condition::Always, now),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(reservation) => return Some(Filling { reservation, verb, noreply, long }),
        };
        self.classify(Class::Store);
        self.tell(outcome, verb, noreply);
        None
    }

    #[inline]
    fn tell(&mut self, outcome: Outcome, verb: StoreVerb, noreply: bool) {
        if matches!(verb, StoreVerb::Cas(_)) {
            self.count_cas(outcome);
        }
        let reply = match outcome {
            Outcome::Stored => reply::STORED,
            Outcome::NotStored => reply::NOT_STORED,
            Outcome::Exists => reply::EXISTS,
            Outcome::NotFound => reply::NOT_FOUND,
            // As memcached has it; this is also what two values that make too large a one get.
            Outcome::NoMemory if self.condition(verb).is_none() => reply::NOT_STORED,
            Outcome::NoMemory => {
                self.count(Metric::StoreNoMemory);
                reply::NO_MEMORY_STORING
            }
        };
        self.reply(reply, noreply);
    }

    /// On what condition a value is stored; `None` if it is joined to the one that is there.
    #[inline]
    fn condition(&self, verb: StoreVerb) -> Option<Condition> {
        match verb {
            StoreVerb::Set => Some(Condition::Always),
            StoreVerb::Add => Some(Condition::Absent),
            StoreVerb::Replace => Some(Condition::Present),
            // As in memcached: what is shown is no value, and a value that is guessed is none.
            StoreVerb::Cas(_) if !self.executor.shared.facts.switches.cas => {
                Some(Condition::Cas(NO_CAS))
            }
            StoreVerb::Cas(cas) => Some(Condition::Cas(cas)),
            StoreVerb::Append | StoreVerb::Prepend => None,
        }
    }

    fn count_cas(&self, outcome: Outcome) {
        match outcome {
            Outcome::Stored => self.count(Metric::CasHits),
            Outcome::Exists => self.count(Metric::CasBadval),
            Outcome::NotFound => self.count(Metric::CasMisses),
            Outcome::NotStored | Outcome::NoMemory => {}
        }
    }
}

/// Waits for the rest of a value and its line end to pass by.
pub(super) fn swallowing(value_bytes: usize, reply: &'static [u8]) -> State {
    // Lossless: no target has a wider usize.
    State::Swallowing(Swallowing { bytes: (value_bytes + LINE_END.len()) as u64, reply })
}
