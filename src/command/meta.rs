//! Meta commands but for `mg`: `ms`, `md`, `ma`, `me`.

use super::batch::{Batch, Step};
use super::classes::Class;
use super::costs::Work;
use super::detail::Use;
use super::session::{Answer, Filling, Plan, State};
use super::storing::swallowing;
use super::{NO_CAS, Switches, Verdict};
use crate::base::clock::{Expiry, Now};
use crate::base::hash::KeyHash;
use crate::base::limits::KEY_BYTES_MAX;
use crate::base::metrics::Metric;
use crate::base::output::Output;
use crate::protocol::memcache::meta_reply::{
    self, Code, Debugged, OF_ARITHMETIC, OF_NOTHING, OF_SET, Told,
};
use crate::protocol::memcache::{
    Flags, LINE_END, MetaHead, MetaVerb, ProtocolError, SetMode, decode_key, reply,
};
use crate::store::{
    ArithmeticError, Change, Changed, Condition, Deletion, Direction, Emptying, ItemHead, Join,
    Outcome, Refusal, Side, Staling,
};

/// Room for a key that comes in base64.
pub(super) type KeySpace = [u8; KEY_BYTES_MAX];

/// The key of a request, whose flags say how it was written.
pub(super) fn plain_key<'k>(key: &'k [u8], flags: &Flags<'_>, space: &'k mut KeySpace) -> &'k [u8] {
    if !flags.has(b'b') {
        return key;
    }
    let len = decode_key(key, space).expect("the parser has tried");
    &space[..len]
}

/// What is read in the key of a request.
#[inline]
pub(super) fn read_key<T>(key: &[u8], flags: &Flags<'_>, read: impl FnOnce(&[u8]) -> T) -> T {
    if !flags.has(b'b') {
        return read(key);
    }
    read(plain_key(key, flags, &mut [0; KEY_BYTES_MAX]))
}

/// The cas that an item must have, if it must.
pub(super) fn wanted_cas(flags: &Flags<'_>, switches: Switches) -> Option<u64> {
    flags.number(b'C').map(|cas| switches.shown(cas))
}

/// The cas that an item is to have, if the peer says so.
pub(super) fn chosen_cas(flags: &Flags<'_>, switches: Switches) -> Option<u64> {
    flags.number(b'E').filter(|_| switches.cas)
}

/// The exptime after a flag.
pub(super) fn expiry_after(flags: &Flags<'_>, letter: u8, now: Now) -> Option<Expiry> {
    flags.exptime(letter).map(|exptime| Expiry::from_wire(exptime, now))
}

/// The exptime that `t` shows of an item, and the one that it has in the end: flags are obeyed in
/// their order, and N only where the item is made.
pub(super) fn expiries(
    flags: &Flags<'_>,
    before: Expiry,
    is_made: bool,
    now: Now,
) -> (Expiry, Expiry) {
    let (mut shown, mut expiry) = (None, before);
    for (letter, _) in flags.each() {
        match letter {
            b'T' => expiry = expiry_after(flags, b'T', now).unwrap_or(expiry),
            b'N' if is_made => expiry = expiry_after(flags, b'N', now).unwrap_or(expiry),
            b't' => shown = Some(expiry),
            _ => {}
        }
    }
    (shown.unwrap_or(expiry), expiry)
}

/// Where a C of 0 is as none.
fn unless_none(flags: &Flags<'_>, cas: Option<u64>) -> Option<u64> {
    cas.filter(|_| flags.number(b'C') != Some(NO_CAS))
}

/// True of what was to take the place of an item: if there is no room for it, the item must not
/// live on.
pub(super) fn replaces(plan: Plan) -> bool {
    !matches!(plan, Plan::Put(Condition::Absent) | Plan::Join(_))
}

impl<O: Output> Batch<'_, O> {
    pub fn meta(&mut self, head: &MetaHead<'_>, hash: KeyHash, state: &mut State) -> Step {
        let mut space = [0; KEY_BYTES_MAX];
        let key = (plain_key(head.key, &head.flags, &mut space), hash);
        match head.verb {
            MetaVerb::Set { mode, value_bytes } => {
                // Lossless: usize has 64 bits.
                self.meta_set(key, (mode, value_bytes as usize), &head.flags, state)
            }
            MetaVerb::Delete => self.meta_delete(key, &head.flags),
            MetaVerb::Arithmetic { down } => {
                let direction = if down { Direction::Down } else { Direction::Up };
                self.meta_arithmetic(key, direction, &head.flags)
            }
            MetaVerb::Debug => self.meta_debug(key, &head.flags),
        }
    }

    fn switches(&self) -> Switches {
        self.executor.shared.facts.switches
    }

    fn shown_cas(&self, cas: u64) -> u64 {
        self.switches().shown(cas)
    }

    fn meta_set(
        &mut self,
        (key, hash): (&[u8], KeyHash),
        (mode, value_bytes): (SetMode, usize),
        flags: &Flags<'_>,
        state: &mut State,
    ) -> Step {
        let plan = self.set_plan(mode, flags);
        let exptime = match plan {
            Plan::Join(_) => b'N',
            Plan::Put(_) => b'T',
        };
        let head = ItemHead {
            key,
            hash,
            flags: flags.client_flags(),
            expiry: expiry_after(flags, exptime, self.now).unwrap_or(Expiry::NEVER),
            value_bytes,
            // 0 is for one that the table chooses.
            cas: chosen_cas(flags, self.switches()).filter(|cas| *cas != NO_CAS),
        };
        if let Some(outcome) = self.store_at_once(&head, plan, LINE_END) {
            self.tell_set(outcome, plan, (key, value_bytes), flags);
            return None;
        }
        if self.rest().len() >= value_bytes.saturating_add(LINE_END.len()) {
            return self.set_whole(&head, plan, flags, state);
        }
        self.reserve_value(&head, plan, Answer::Meta(Box::new(flags.keep())), state)
    }

    //= protocol.txt "Meta Set": C, I, M, N
    fn set_plan(&self, mode: SetMode, flags: &Flags<'_>) -> Plan {
        let cas = wanted_cas(flags, self.switches());
        let put = |otherwise| {
            Plan::Put(match cas {
                None => otherwise,
                // 0 is not older than any: it is none.
                Some(cas) if flags.has(b'I') && cas != NO_CAS => Condition::CasOrOlder(cas),
                Some(cas) => Condition::Cas(cas),
            })
        };
        let join = |side| {
            let cas = unless_none(flags, cas);
            Plan::Join(Join { side, cas, create: flags.has(b'N') })
        };
        match mode {
            SetMode::Set => put(Condition::Always),
            SetMode::Replace => put(Condition::Present),
            SetMode::Add => Plan::Put(Condition::Absent),
            SetMode::Append => join(Side::Append),
            SetMode::Prepend => join(Side::Prepend),
        }
    }

    /// Stores a value that is there. Only where that takes a while, its peer's flags are kept.
    fn set_whole(
        &mut self,
        head: &ItemHead<'_>,
        plan: Plan,
        flags: &Flags<'_>,
        state: &mut State,
    ) -> Step {
        let (now, value_bytes) = (self.now, head.value_bytes);
        let work = self.join_work(head, plan);
        if self.must_defer(Work::Copy(value_bytes)) || self.must_defer(work) {
            return Some(Verdict::Defer);
        }
        let mut reservation = match self.participant().reserve(*head, now) {
            Ok(reservation) => reservation,
            Err(Refusal::WouldWait) => return Some(Verdict::WouldWait),
            Err(refusal @ (Refusal::TooLarge | Refusal::NoMemory)) => {
                self.note(Use::Set, head.key);
                let reply = self.refuse(refusal, (head.key, head.hash), (plan, replaces(plan)));
                *state = swallowing(value_bytes, reply);
                return None;
            }
        };
        self.executor.participant.count_set(head);
        self.note(Use::Set, head.key);
        let answer = || Answer::Meta(Box::new(flags.keep()));
        let (value, rest) = self.rest().split_at(value_bytes);
        let filled = self.executor.participant.fill(&mut reservation, value, now);
        self.consume(value_bytes - reservation.missing());
        if filled.is_err() {
            // What the matter is is found again when the rest is.
            *state = State::Filling(Filling { reservation, plan, answer: answer(), work });
            return None;
        }
        if !rest.starts_with(LINE_END) {
            self.classify(Class::Store);
            self.participant().abandon(reservation);
            self.consume(LINE_END.len());
            self.output.put(ProtocolError::BadDataChunk.reply());
            return None;
        }
        let outcome = match self.conclude(reservation, plan) {
            Ok(outcome) => outcome,
            Err(reservation) => {
                let filling = Filling { reservation, plan, answer: answer(), work };
                *state = State::Filling(filling);
                return None;
            }
        };
        self.pay_for(work);
        self.consume(LINE_END.len());
        self.classify(Class::Store);
        self.tell_set(outcome, plan, (head.key, value_bytes), flags);
        None
    }

    /// Tells what came of an `ms` of so many bytes.
    pub fn tell_set(
        &mut self,
        outcome: Outcome,
        plan: Plan,
        (key, value_bytes): (&[u8], usize),
        flags: &Flags<'_>,
    ) {
        self.count_cas(outcome, plan);
        let mut told = Told { value_bytes, ..Told::of(key) };
        let code = match outcome {
            Outcome::Stored { .. } if flags.has(b'q') => return,
            Outcome::Stored { cas, value_bytes } => {
                told.cas = self.shown_cas(cas);
                told.value_bytes = value_bytes;
                Code::Done
            }
            Outcome::Exists => Code::Exists,
            Outcome::NotFound => Code::NotFound,
            Outcome::NotStored => Code::NotStored,
            Outcome::NoMemory if matches!(plan, Plan::Join(_)) => Code::NotStored,
            Outcome::NoMemory => {
                self.count(Metric::StoreNoMemory);
                return self.output.put(reply::NO_MEMORY_STORING);
            }
        };
        meta_reply::line(self.output, code, flags, OF_SET, &told);
    }

    //= protocol.txt "Meta Delete"
    fn meta_delete(&mut self, (key, hash): (&[u8], KeyHash), flags: &Flags<'_>) -> Step {
        let now = self.now;
        let switches = self.switches();
        let (cas, new_cas) = (wanted_cas(flags, switches), chosen_cas(flags, switches));
        let expiry = expiry_after(flags, b'T', now);
        let stale = flags.has(b'I');
        let outcome = if flags.has(b'x') {
            let (expiry, flags) = (expiry.unwrap_or(Expiry::NEVER), flags.client_flags());
            let emptying = Emptying { cas, new_cas, flags, expiry, stale };
            self.participant().take_value(key, hash, emptying, now)
        } else if stale {
            let work = if new_cas.is_some() { self.copy_work((key, hash)) } else { Work::Item };
            if self.must_defer(work) {
                return Some(Verdict::Defer);
            }
            let staling = Staling { cas, new_cas, expiry };
            let outcome = self.participant().mark_stale(key, hash, staling, now);
            if outcome != Err(Refusal::WouldWait) {
                self.pay_for(work);
            }
            outcome
        } else {
            Ok(match self.participant().delete_if(key, hash, cas, now) {
                Deletion::Deleted => Outcome::Stored { cas: NO_CAS, value_bytes: 0 },
                Deletion::NotFound => Outcome::NotFound,
                Deletion::Exists => Outcome::Exists,
            })
        };
        let code = match outcome {
            Err(Refusal::WouldWait) => return Some(Verdict::WouldWait),
            Ok(Outcome::Stored { .. }) => Code::Done,
            Ok(Outcome::NotFound) => Code::NotFound,
            Ok(Outcome::Exists) => Code::Exists,
            Ok(Outcome::NotStored) => Code::NotStored,
            Ok(Outcome::NoMemory) | Err(Refusal::NoMemory | Refusal::TooLarge) => {
                self.output.put(reply::NO_MEMORY);
                return None;
            }
        };
        match code {
            Code::NotFound | Code::Exists => self.count(Metric::DeleteMisses),
            Code::Done | Code::NotStored | Code::End | Code::Value(_) => {}
        }
        self.note(Use::Delete, key);
        if code != Code::Done || !flags.has(b'q') {
            meta_reply::line(self.output, code, flags, OF_NOTHING, &Told::of(key));
        }
        None
    }

    //= protocol.txt "Meta Arithmetic"
    fn meta_arithmetic(
        &mut self,
        (key, hash): (&[u8], KeyHash),
        direction: Direction,
        flags: &Flags<'_>,
    ) -> Step {
        let now = self.now;
        let made = expiries(flags, Expiry::NEVER, true, now).1;
        let change = Change {
            direction,
            delta: flags.number(b'D').unwrap_or(1),
            cas: unless_none(flags, wanted_cas(flags, self.switches())),
            new_cas: chosen_cas(flags, self.switches()),
            expiry: expiry_after(flags, b'T', now),
            initial: flags.has(b'N').then(|| (flags.number(b'J').unwrap_or(0), made)),
        };
        let result = self.participant().arithmetic(key, hash, &change, now);
        let misses = match direction {
            Direction::Up => Metric::IncrMisses,
            Direction::Down => Metric::DecrMisses,
        };
        let code = match result {
            Ok(changed) => {
                if !flags.has(b'q') {
                    self.tell_number(changed, key, flags);
                }
                return None;
            }
            Err(ArithmeticError::WouldWait) => return Some(Verdict::WouldWait),
            Err(ArithmeticError::NotFound) => {
                self.count(misses);
                Code::NotFound
            }
            Err(ArithmeticError::Exists) => Code::Exists,
            Err(ArithmeticError::NonNumeric) => {
                self.output.put(reply::NON_NUMERIC);
                return None;
            }
            Err(ArithmeticError::NoMemory) => {
                self.output.put(reply::NO_MEMORY);
                return None;
            }
        };
        meta_reply::line(self.output, code, flags, OF_NOTHING, &Told::of(key));
        None
    }

    fn tell_number(&mut self, changed: Changed, key: &[u8], flags: &Flags<'_>) {
        let (before, is_made) = (changed.expiry, changed.expiry.is_none());
        let (shown, _) = expiries(flags, before.unwrap_or(Expiry::NEVER), is_made, self.now);
        let cas = self.shown_cas(changed.cas);
        let told = Told { left_s: shown.left_s(self.now), cas, ..Told::of(key) };
        if flags.has(b'v') {
            meta_reply::number(self.output, changed.number, flags, &told);
        } else {
            meta_reply::line(self.output, Code::Done, flags, OF_ARITHMETIC, &told);
        }
    }

    //= protocol.txt "Meta Debug"
    fn meta_debug(&mut self, (key, hash): (&[u8], KeyHash), flags: &Flags<'_>) -> Step {
        self.count(Metric::CmdMeta);
        let (participant, table) = (&self.executor.participant, &self.executor.shared.table);
        let Ok(item) = participant.peek(key, hash, self.now) else {
            let told = Told::of(key);
            meta_reply::line(self.output, Code::End, &Flags::NONE, OF_NOTHING, &told);
            return None;
        };
        let it = Debugged {
            key,
            is_binary: flags.has(b'b'),
            left_s: item.expiry().left_s(self.now),
            idle_s: table.idle_s(&item, self.now),
            cas: self.shown_cas(item.cas()),
            fetched: item.is_fetched(),
            class: table.class_of(&item).into(),
            item_bytes: item.item_bytes(),
        };
        meta_reply::debug(self.output, &it);
        None
    }

    /// To copy the value of a key.
    fn copy_work(&self, (key, hash): (&[u8], KeyHash)) -> Work {
        let item = self.executor.participant.peek(key, hash, self.now);
        Work::Copy(item.map_or(0, |item| item.value_bytes()))
    }
}
