//! Storage commands: the value goes straight into the memory of its item.

use super::Verdict;
use super::batch::{Batch, Step};
use super::binary::swallowing_packet;
use super::classes::Class;
use super::costs::Work;
use super::detail::Use;
use super::meta::replaces;
use super::session::{Access, Answer, Filling, Next, Plan, State, Swallowing};
use super::watching::STORES;
use crate::base::clock::Expiry;
use crate::base::hash::KeyHash;
use crate::base::limits::KEY_BYTES_MAX;
use crate::base::metrics::Metric;
use crate::base::output::Output;
use crate::protocol::memcache::{LINE_END, ProtocolError, StoreHead, StoreVerb, reply};
use crate::store::{Condition, ItemHead, Join, Outcome, Refusal, Reservation, Side};

impl<O: Output> Batch<'_, O> {
    /// Takes memory for a value that is to come.
    pub fn start_value(&mut self, head: &StoreHead<'_>, hash: KeyHash, state: &mut State) -> Step {
        let item_head = ItemHead {
            key: head.key,
            hash,
            flags: head.flags,
            expiry: Expiry::from_wire(head.exptime, self.now),
            // Lossless: usize has 64 bits.
            value_bytes: head.value_bytes as usize,
            cas: None,
        };
        let plan = self.plan(head.verb);
        if let Some(outcome) = self.store_at_once(&item_head, plan, LINE_END) {
            self.tell(outcome, plan, head.noreply);
            return None;
        }
        self.reserve_value(&item_head, plan, Answer::Text { noreply: head.noreply }, state)
    }

    /// Takes memory for a value that is taken in steps.
    pub fn reserve_value(
        &mut self,
        head: &ItemHead<'_>,
        plan: Plan,
        answer: Answer,
        state: &mut State,
    ) -> Step {
        let (now, value_bytes) = (self.now, head.value_bytes);
        let end_bytes = answer.value_end().len();
        let is_there = self.rest().len() >= value_bytes.saturating_add(end_bytes);
        let participant = self.participant();
        let reserved = if is_there {
            participant.reserve(*head, now)
        } else {
            participant.reserve_ahead(*head, now)
        };
        match reserved {
            Ok(reservation) => {
                self.executor.participant.count_set(head);
                self.note(Use::Set, head.key);
                let work = self.join_work(head, plan);
                *state = State::Filling(Filling { reservation, plan, answer, work });
            }
            Err(Refusal::WouldWait) => return Some(Verdict::WouldWait),
            Err(refusal @ (Refusal::TooLarge | Refusal::NoMemory)) => {
                self.note(Use::Set, head.key);
                let about = (head.key, head.hash);
                self.refuse_value(refusal, about, (plan, &answer), value_bytes, state);
            }
        }
        None
    }

    /// Stores a value that is there, and what follows it, and for which there is room where it is
    /// looked for first. `None` when nothing has happened: then the value is taken in steps, as it
    /// is where somebody watches.
    #[inline(always)]
    pub fn store_at_once(
        &mut self,
        head: &ItemHead<'_>,
        plan: Plan,
        end: &[u8],
    ) -> Option<Outcome> {
        let Plan::Put(condition) = plan else { return None };
        if self.executor.watches(STORES) {
            return None;
        }
        let (value, rest) = self.rest().split_at_checked(head.value_bytes)?;
        if !rest.starts_with(end) {
            return None;
        }
        let now = self.now;
        let outcome = self.participant().put(head, value, condition, now)?;
        self.classify(Class::Store);
        self.consume(value.len() + end.len());
        Some(outcome)
    }

    /// What it takes to join the value to the one that is there.
    pub fn join_work(&self, head: &ItemHead<'_>, plan: Plan) -> Work {
        match plan {
            Plan::Join(_) => {
                let participant = &self.executor.participant;
                let there = participant.peek(head.key, head.hash, self.now);
                let there = there.map_or(0, |item| item.value_bytes());
                Work::Copy(there + head.value_bytes)
            }
            Plan::Put(_) => Work::Item,
        }
    }

    /// Counts a value that there is no memory for, and says what to tell its peer.
    #[cold]
    pub fn refuse(
        &mut self,
        refusal: Refusal,
        (key, hash): (&[u8], KeyHash),
        (plan, replaces): (Plan, bool),
    ) -> &'static [u8] {
        self.classify(Class::Store);
        self.log_refusal(key, plan, refusal);
        let now = self.now;
        if replaces {
            // What the peer meant to replace must not live on.
            self.participant().forget(key, hash, now);
        }
        let (metric, reply) = match refusal {
            Refusal::TooLarge => (Metric::StoreTooLarge, reply::TOO_LARGE),
            Refusal::NoMemory => (Metric::StoreNoMemory, reply::NO_MEMORY_STORING),
            Refusal::WouldWait => unreachable!("who is to ask again is not refused"),
        };
        self.count(metric);
        reply
    }

    /// There is no memory for a value that was to be stored, of which so many bytes are to come.
    #[cold]
    fn refuse_value(
        &mut self,
        refusal: Refusal,
        about: (&[u8], KeyHash),
        (plan, answer): (Plan, &Answer),
        bytes: usize,
        state: &mut State,
    ) {
        let reply = self.refuse(refusal, about, (plan, answer.replaces(plan)));
        *state = match *answer {
            Answer::Text { noreply: true } => swallowing(bytes, b""),
            Answer::Text { noreply: false } | Answer::Meta(_) => swallowing(bytes, reply),
            Answer::Packet { echo, .. } => {
                self.refuse_packet(refusal, echo);
                // Lossless: a packet does not say more than 2^32.
                swallowing_packet(bytes as u64, Access::Granted)
            }
        };
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
        let end_bytes = filling.answer.value_end().len();
        let Some(end) = self.rest().get(..end_bytes) else { return Some(Verdict::NeedInput) };
        if self.output.is_full() {
            return Some(Verdict::OutputFull);
        }
        if self.must_defer(filling.work) {
            return Some(Verdict::Defer);
        }
        self.consume(end.len());
        let State::Filling(filling) = std::mem::take(state) else { unreachable!() };
        if let Some(filling) = self.finish(filling, end, state) {
            self.consumed -= end.len();
            *state = State::Filling(filling);
            return Some(Verdict::WouldWait);
        }
        None
    }

    /// There is no memory for the rest of a value.
    #[cold]
    fn give_up(&mut self, refusal: Refusal, state: &mut State) {
        let State::Filling(filling) = std::mem::take(state) else { unreachable!() };
        let Filling { reservation, plan, answer, .. } = filling;
        let missing = reservation.missing();
        let (key, hash) = (self.key_of(&reservation), reservation.hash());
        self.participant().abandon(reservation);
        self.refuse_value(refusal, (key.bytes(), hash), (plan, &answer), missing, state);
    }

    /// A copy of the key that a reservation is for.
    fn key_of(&self, reservation: &Reservation) -> KeyCopy {
        let key = self.executor.participant.reserved_key(reservation);
        let mut copy = KeyCopy { space: [0; KEY_BYTES_MAX], len: key.len() };
        copy.space[..key.len()].copy_from_slice(key);
        copy
    }

    /// Makes an item of a full reservation, which is still there when it would have to wait for
    /// memory to be joined to another.
    #[inline]
    pub fn conclude(
        &mut self,
        reservation: Reservation,
        plan: Plan,
    ) -> Result<Outcome, Reservation> {
        match self.executor.watches(STORES) {
            true => self.conclude_watched(reservation, plan),
            false => self.make_item(reservation, plan),
        }
    }

    #[inline]
    pub fn make_item(
        &mut self,
        reservation: Reservation,
        plan: Plan,
    ) -> Result<Outcome, Reservation> {
        let now = self.now;
        match plan {
            Plan::Put(condition) => Ok(self.participant().commit(reservation, condition, now)),
            Plan::Join(join) => self.participant().concat(reservation, join, now),
        }
    }

    /// The whole value has come, and as many bytes after it as should. It is still there when it
    /// would have to wait for memory to join it to another.
    fn finish(&mut self, filling: Filling, end: &[u8], state: &mut State) -> Option<Filling> {
        let Filling { reservation, plan, answer, work } = filling;
        if end != answer.value_end() {
            self.classify(Class::Store);
            self.participant().abandon(reservation);
            let noreply = matches!(answer, Answer::Text { noreply: true });
            self.reply(ProtocolError::BadDataChunk.reply(), noreply);
            return None;
        }
        let key = match &answer {
            Answer::Text { .. } | Answer::Packet { .. } => None,
            Answer::Meta(_) => Some((self.key_of(&reservation), reservation.value_bytes())),
        };
        let outcome = match self.conclude(reservation, plan) {
            Ok(outcome) => outcome,
            Err(reservation) => return Some(Filling { reservation, plan, answer, work }),
        };
        self.pay_for(work);
        self.classify(Class::Store);
        match (answer, key) {
            (Answer::Meta(flags), Some((key, value_bytes))) => {
                self.tell_set(outcome, plan, (key.bytes(), value_bytes), &flags.flags());
            }
            (Answer::Packet { echo, quiet }, _) => {
                self.tell_packet(outcome, plan, (echo, quiet));
                *state = State::Binary(Access::Granted);
            }
            (Answer::Text { noreply }, _) => self.tell(outcome, plan, noreply),
            (Answer::Meta(_), None) => unreachable!(),
        }
        None
    }

    #[inline]
    fn tell(&mut self, outcome: Outcome, plan: Plan, noreply: bool) {
        self.count_cas(outcome, plan);
        let reply = match outcome {
            Outcome::Stored { .. } => reply::STORED,
            Outcome::NotStored => reply::NOT_STORED,
            Outcome::Exists => reply::EXISTS,
            Outcome::NotFound => reply::NOT_FOUND,
            // As memcached has it; this is also what two values that make too large a one get.
            Outcome::NoMemory if matches!(plan, Plan::Join(_)) => reply::NOT_STORED,
            Outcome::NoMemory => {
                self.count(Metric::StoreNoMemory);
                reply::NO_MEMORY_STORING
            }
        };
        self.reply(reply, noreply);
    }

    /// What becomes of the value of a storage command.
    #[inline]
    fn plan(&self, verb: StoreVerb) -> Plan {
        let join = |side| Plan::Join(Join { side, cas: None, create: false });
        match verb {
            StoreVerb::Set => Plan::Put(Condition::Always),
            StoreVerb::Add => Plan::Put(Condition::Absent),
            StoreVerb::Replace => Plan::Put(Condition::Present),
            StoreVerb::Cas(cas) => {
                Plan::Put(Condition::Cas(self.executor.shared.facts.switches.shown(cas)))
            }
            StoreVerb::Append => join(Side::Append),
            StoreVerb::Prepend => join(Side::Prepend),
        }
    }

    /// Counts a value that was to replace an item by its cas, where there is none. What it comes to
    /// where there is one, the store counts.
    #[inline]
    pub fn count_cas(&self, outcome: Outcome, plan: Plan) {
        if outcome == Outcome::NotFound
            && matches!(plan, Plan::Put(Condition::Cas(_) | Condition::CasOrOlder(_)))
        {
            self.count(Metric::CasMisses);
        }
    }
}

/// A key, for who does away with what it is in.
struct KeyCopy {
    space: [u8; KEY_BYTES_MAX],
    len: usize,
}

impl KeyCopy {
    fn bytes(&self) -> &[u8] {
        &self.space[..self.len]
    }
}

impl Answer {
    /// True when a value of this plan that is not stored takes the one that is there with it.
    fn replaces(&self, plan: Plan) -> bool {
        match self {
            Answer::Text { .. } | Answer::Packet { .. } => plan == Plan::Put(Condition::Always),
            Answer::Meta(_) => replaces(plan),
        }
    }
}

/// Waits for the rest of a value and its line end to pass by.
pub(super) fn swallowing(value_bytes: usize, reply: &'static [u8]) -> State {
    // Lossless: no target has a wider usize.
    let bytes = (value_bytes + LINE_END.len()) as u64;
    State::Swallowing(Swallowing { bytes, reply, next: Next::Text })
}
