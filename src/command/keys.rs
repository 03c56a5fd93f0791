//! Lists of keys: `get`, `gets`, `gat`, `gats`.

use super::ahead::{Ahead, KeyAhead};
use super::batch::{Batch, Step};
use super::classes::{Class, Classes};
use super::costs::BOUNDED_KEYS;
use super::detail::Use;
use super::sending::{Begun, Line, SPAN_BYTES_MIN, begin};
use super::session::{After, KeyList, Sending, State, Touch};
use super::watching::Glimpse;
use super::{Cost, Switches, Verdict};
use crate::base::by_size::OfSize;
use crate::base::clock::Now;
use crate::base::metrics::{Counters, Metric};
use crate::base::output::{Output, Spanning};
use crate::protocol::memcache::{
    KeyList as ListHead, NextKey, ProtocolError, WatchKinds, next_key, reply,
};
use crate::store::{Miss, Participant, Seek, Span};

/// What was counted for keys, until the counters are told. What was found the store counts, too, by
/// size.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Lists, or requests.
    pub lists: u64,
    misses: u64,
    expired: u64,
    flushed: u64,
}

impl Tally {
    #[cold]
    pub fn miss(&mut self, miss: Miss) {
        self.misses += 1;
        self.expired += u64::from(miss == Miss::Expired);
        self.flushed += u64::from(miss == Miss::Flushed);
    }

    /// What became of one get.
    #[cold]
    pub fn of_get(&self) -> Use {
        if self.misses > 0 { Use::Miss } else { Use::Hit }
    }

    /// `keys` are all that were answered, hit or miss.
    #[inline]
    pub fn tell(&self, keys: u64, touching: bool, counters: &Counters) {
        let (cmd, misses) = match touching {
            true => (Metric::CmdTouch, Metric::TouchMisses),
            false => (Metric::CmdGet, Metric::GetMisses),
        };
        counters.add(Metric::Requests, self.lists);
        counters.add(cmd, keys);
        if self.misses > 0 {
            counters.add(misses, self.misses);
            counters.add(Metric::GetExpired, self.expired);
            counters.add(Metric::GetFlushed, self.flushed);
        }
    }
}

/// Counts the lists whose first key was among so many that were answered, with `list` as it was
/// before, and `next` what comes now.
#[inline]
fn classify(
    classes: &mut Classes,
    (keys, begun): (u64, u64),
    ahead: &Ahead<'_, KeyAhead<'_>>,
    list: &KeyList,
    next: &State,
) {
    let count = |lists: u64| u32::try_from(lists).unwrap_or(u32::MAX);
    let begun = begun + u64::from(list.keys == 0 && keys > 0);
    // Most often every key is a list of its own, or all are of one list.
    let several = if begun == 0 || (begun == keys && matches!(next, State::Idle)) {
        0
    } else if list.keys == 0 && begun == 1 && keys > 1 {
        1
    } else {
        ahead.lists_of_several(keys, list.keys == 0)
    };
    if several > 0 {
        classes.count(Class::MultiGet, count(several));
    }
    classes.count(Class::Get, count(begun - several));
}

/// The parts of a batch with which keys are answered.
struct Answering<'a, O> {
    participant: &'a Participant,
    switches: &'a Switches,
    output: &'a mut O,
    cost: Cost,
    now: Now,
    tally: Tally,
}

/// How far keys were answered.
struct Run {
    tally: Tally,
    /// So many of them.
    answered: usize,
    next: State,
    /// Why it stopped before the last.
    step: Step,
}

impl<O: Spanning<Span>> Answering<'_, O> {
    /// As `run`, for items that get another exptime, and count for that.
    #[inline(never)]
    fn run_touching(self, ahead: &mut Ahead<'_, KeyAhead<'_>>, list: KeyList) -> Run {
        self.run::<true>(ahead, list)
    }

    /// Answers keys, of which the first is due in `list`, until something stops it.
    #[inline(always)]
    fn run<const TOUCHING: bool>(
        mut self,
        ahead: &mut Ahead<'_, KeyAhead<'_>>,
        mut list: KeyList,
    ) -> Run {
        let mut is_open = true;
        let mut answered = 0;
        let (next, step) = loop {
            let Some((key, seek)) = ahead.key(answered) else { break (after(list, is_open), None) };
            if key.begins {
                list.keys = 0;
            }
            let stop = match self.cost {
                _ if self.output.is_full() => Some(Verdict::OutputFull),
                Cost::Bounded if list.keys >= BOUNDED_KEYS => Some(Verdict::Defer),
                Cost::Bounded | Cost::Any => None,
            };
            if stop.is_some() {
                break (after(list, is_open), stop);
            }
            let Some(begun) = self.answer::<TOUCHING>(key, seek, &list) else {
                break (after(list, is_open), Some(Verdict::SpansFull));
            };
            self.tally.lists += u64::from(key.begins);
            list.keys = list.keys.saturating_add(1);
            is_open = !key.last;
            answered += 1;
            match begun {
                Begun::Whole => {}
                Begun::Refused if is_open => break (State::SkippingLine, None),
                Begun::Refused => break (State::Idle, None),
                Begun::Part(pin) => {
                    let after = if is_open { After::Keys(list) } else { After::End };
                    break (State::Sending(Sending { pin, offset: 0, after }), None);
                }
            }
        };
        Run { tally: self.tally, answered, next, step }
    }

    /// Finds the item of one key and writes it, or as much of it as may be written at once. `None`
    /// when that is nothing, and the key is still due: with the exptime that it had, for it might
    /// be gone with the new one until it is shown again.
    #[inline(always)]
    fn answer<const TOUCHING: bool>(
        &mut self,
        due: &KeyAhead<'_>,
        seek: &Seek<'_>,
        list: &KeyList,
    ) -> Option<Begun> {
        let item = match seek.get(due.key, self.now) {
            Ok(item) => item,
            Err(miss) => {
                self.tally.miss(miss);
                if due.last {
                    self.output.put(reply::END);
                }
                return Some(Begun::Whole);
            }
        };
        let head = |value_bytes| reply::ValueHead {
            key: due.key,
            flags: item.flags(),
            value_bytes,
            cas: list.with_cas.then(|| self.switches.cas_of(&item)),
        };
        let begun = match item.value() {
            Some(value) if value.len() < SPAN_BYTES_MIN => {
                match TOUCHING {
                    true => self.participant.count_of(&item, OfSize::TouchHits),
                    false => self.participant.count_short_hit(&item, value.len()),
                }
                reply::value(self.output, &head(value.len()), value, due.last);
                Some(Begun::Whole)
            }
            _ => {
                let line = Line(head(item.value_bytes()), due.last);
                let begun = begin(self.output, self.participant, &item, &line);
                if begun.is_some() {
                    self.participant.count_found(&item, !TOUCHING);
                }
                begun
            }
        };
        match list.touch {
            Touch::Expiry(expiry) if TOUCHING && begun.is_some() => {
                // Who is let go of meanwhile was touched before that.
                self.participant.set_expiry(&item, seek.hash(), expiry);
            }
            Touch::No | Touch::Bad | Touch::Expiry(_) => {}
        }
        begun
    }
}

fn after(list: KeyList, is_open: bool) -> State {
    if is_open { State::KeyList(list) } else { State::Idle }
}

impl<O: Output> Batch<'_, O> {
    #[inline]
    pub fn start_list(&mut self, head: ListHead, state: &mut State) {
        self.count(Metric::Requests);
        *state = State::KeyList(KeyList::begin(head, self.now));
    }
}

impl<O: Spanning<Span>> Batch<'_, O> {
    /// Answers keys: those that come next in the list, and in lists like it that follow at once.
    #[inline]
    pub fn key_list(&mut self, state: &mut State) -> Step {
        let glimpse = match self.executor.watches(WatchKinds::FETCHERS) {
            true => self.glimpse_of_key(),
            false => None,
        };
        let detailed = self.executor.shared.detail.is_on();
        // No more than will be answered now: whoever goes on has to read the others again.
        let most = match glimpse {
            None if !detailed => usize::try_from(self.budget.requests).unwrap_or(usize::MAX).max(1),
            _ => 1,
        };
        let step = self.answer_keys(most, state);
        if let Some(glimpse) = glimpse {
            self.log_glimpse(&glimpse);
        }
        step
    }

    #[cold]
    fn glimpse_of_key(&self) -> Option<Box<Glimpse>> {
        match next_key(self.rest()) {
            NextKey::Key { key, .. } => self.glimpse(key),
            NextKey::End { .. } | NextKey::TooLong { .. } | NextKey::Partial { .. } => None,
        }
    }

    /// Answers so many keys at most.
    #[inline(always)]
    fn answer_keys(&mut self, most: usize, state: &mut State) -> Step {
        let State::KeyList(list) = state else { unreachable!() };
        let list = *list;
        let participant = &self.executor.participant;
        let mut ahead: Ahead<'_, KeyAhead<'_>> = Ahead::new();
        ahead.read((self.input, self.consumed), most, &list, self.now, participant);
        if ahead.is_empty() {
            return self.end_list(state);
        }
        if let Some(verdict) = self.obstacle() {
            return Some(verdict);
        }
        if list.touch == Touch::Bad {
            return self.end_list(state);
        }
        let answering = Answering {
            participant,
            switches: &self.executor.shared.facts.switches,
            output: &mut *self.output,
            cost: self.budget.cost,
            now: self.now,
            tally: Tally::default(),
        };
        let run = match list.touch {
            Touch::Expiry(_) => answering.run_touching(&mut ahead, list),
            Touch::No | Touch::Bad => answering.run::<false>(&mut ahead, list),
        };
        let Run { tally, answered, next, step } = run;
        if let Some(last) = answered.checked_sub(1).and_then(|last| ahead.at(last)) {
            self.consumed = last.next;
            if most == 1 {
                self.note(tally.of_get(), last.key);
            }
        }
        // Lossless: no more were read than there are requests left.
        let count = u32::try_from(answered).unwrap_or(u32::MAX);
        self.budget.requests -= count;
        let keys = u64::from(count);
        if list.touch == Touch::No {
            participant.count_requests(answered);
        }
        tally.tell(keys, list.touch != Touch::No, &self.executor.counters);
        classify(&mut self.executor.classes, (keys, tally.lists), &ahead, &list, &next);
        self.executor.sampler.pass(count, self.now, |place, sample| {
            if let Some(read) = ahead.at(place as usize) {
                sample.is_of(read.key);
            }
        });
        *state = next;
        step
    }

    /// No key comes: the line ends, or something in it ends the list, or more is needed.
    #[cold]
    fn end_list(&mut self, state: &mut State) -> Step {
        let State::KeyList(list) = state else { unreachable!() };
        let next = next_key(self.rest());
        if let NextKey::Partial { consumed } = next {
            self.consume(consumed);
            return Some(Verdict::NeedInput);
        }
        if let Some(verdict) = self.obstacle() {
            return Some(verdict);
        }
        self.pay();
        if list.keys == 0 {
            self.executor.classes.count(Class::Other, 1);
        }
        let bad_format = ProtocolError::BadFormat.reply();
        match (next, list.touch) {
            (NextKey::End { consumed }, _) => {
                self.consume(consumed);
                let reply = if list.keys > 0 { reply::END } else { bad_format };
                self.output.put(reply);
                *state = State::Idle;
            }
            (_, Touch::Bad) => {
                self.output.put(ProtocolError::BadExptime.reply());
                *state = State::SkippingLine;
            }
            (_, Touch::No | Touch::Expiry(_)) => {
                self.output.put(bad_format);
                *state = State::SkippingLine;
            }
        }
        None
    }
}
