//! `mg`: a run of them is looked for together, as with lists of keys.
//!
//! Between two of them nothing is kept of what was read: each is consumed when it is answered, and
//! the rest is read again.

use super::ahead::{Ahead, GetAhead};
use super::batch::{Batch, Step};
use super::classes::Class;
use super::detail::{Detail, Use};
use super::keys::Tally;
use super::meta::{chosen_cas, expiries, expiry_after, plain_key, read_key};
use super::sending::{Begun, Frame, SPAN_BYTES_MIN, begin_now, must_wait};
use super::session::{After, Sending, State};
use super::{Switches, Verdict};
use crate::base::by_size::OfSize;
use crate::base::clock::{Expiry, Now};
use crate::base::hash::KeyHash;
use crate::base::limits::KEY_BYTES_MAX;
use crate::base::metrics::{Counters, Metric};
use crate::base::output::{Output, Spanning};
use crate::protocol::memcache::meta_reply::{self, Code, OF_GET, OF_NOTHING, Told};
use crate::protocol::memcache::{Flags, LINE_END, Letters, MetaGet, WatchKinds, reply};
use crate::store::{Item, ItemHead, Outcome, Participant, Pin, Refusal, Seek, Span};

/// Flags that ask for the cas, or compare it.
const ABOUT_CAS: Letters = Letters::of(b"cC");

/// Why a run of requests ends.
enum Ended {
    /// Nothing but `mg` was read.
    Through,
    At(Verdict),
    /// The value of the last one that was answered is replied in pieces.
    Sending(Pin),
    /// The next one is to make an item.
    Making,
}

/// How one request was answered.
enum Answered {
    As(Begun),
    /// Not yet: there is no item, and it is to be made.
    Not,
    /// Not yet: too much is being sent for its value to be sent, too.
    Later,
}

/// A value of so many bytes, of which nothing else is told.
struct Plain(usize);

impl Frame for Plain {
    fn begin(&self, output: &mut impl Output) {
        meta_reply::plain_value_head(output, self.0);
    }

    fn end(&self, output: &mut impl Output) {
        output.put(LINE_END);
    }

    fn refuse(&self, output: &mut impl Output) {
        output.put(reply::REFCOUNT_OVERFLOW);
    }
}

/// A value, and what flags ask of it.
struct Flagged<'a> {
    flags: &'a Flags<'a>,
    told: &'a Told<'a>,
}

impl Frame for Flagged<'_> {
    fn begin(&self, output: &mut impl Output) {
        let code = Code::Value(self.told.value_bytes);
        meta_reply::line(output, code, self.flags, OF_GET, self.told);
    }

    fn end(&self, output: &mut impl Output) {
        output.put(LINE_END);
    }

    fn refuse(&self, output: &mut impl Output) {
        output.put(reply::REFCOUNT_OVERFLOW);
    }
}

/// The parts of a batch with which requests are answered.
struct Getting<'a, O> {
    participant: &'a Participant,
    counters: &'a Counters,
    switches: Switches,
    output: &'a mut O,
    now: Now,
    tally: Tally,
    /// Requests that were answered, and those of them that count as touches.
    answered: usize,
    touches: u64,
}

impl<'a, O: Spanning<Span>> Getting<'a, O> {
    /// Answers requests until something stops it.
    #[inline]
    fn run(&mut self, ahead: &mut Ahead<'a, GetAhead<'a>>) -> Ended {
        while let Some((due, seek)) = ahead.key(self.answered) {
            if self.output.is_full() {
                return Ended::At(Verdict::OutputFull);
            }
            let begun = match self.answer(&due.get, seek) {
                Answered::As(begun) => begun,
                Answered::Not => return Ended::Making,
                Answered::Later => return Ended::At(Verdict::SpansFull),
            };
            self.answered += 1;
            match begun {
                Begun::Whole | Begun::Refused => {}
                Begun::Part(pin) => return Ended::Sending(pin),
            }
        }
        Ended::Through
    }

    #[inline]
    fn answer(&mut self, get: &MetaGet<'_>, seek: &Seek<'a>) -> Answered {
        if get.flags.letters() != Flags::VALUE.letters() {
            return self.answer_flags(get, seek);
        }
        let item = match seek.peek(get.key, self.now) {
            Ok(item) => item,
            Err(miss) => {
                self.tally.miss(miss);
                self.output.put(meta_reply::MISS);
                return Answered::As(Begun::Whole);
            }
        };
        if item.is_marked() {
            // Who is told of marks may have to be told to make a newer value.
            return self.answer_flags(get, seek);
        }
        // Counted before it is pinned, or it would not become hotter.
        let begun = match item.value() {
            Some(value) if value.len() < SPAN_BYTES_MIN => {
                self.participant.count_short_hit(&item, value.len());
                self.participant.count_get(&item);
                meta_reply::plain_value(self.output, value);
                Begun::Whole
            }
            _ if must_wait(self.output, self.participant, &item) => return Answered::Later,
            _ => {
                self.participant.count_hit(&item);
                self.participant.count_get(&item);
                let frame = Plain(item.value_bytes());
                begin_now(self.output, self.participant, &item, &frame)
            }
        };
        Answered::As(begun)
    }

    /// As `answer`, whatever the flags are.
    #[inline(never)]
    fn answer_flags(&mut self, get: &MetaGet<'_>, seek: &Seek<'a>) -> Answered {
        let mut space = [0; KEY_BYTES_MAX];
        let key = plain_key(get.key, &get.flags, &mut space);
        let mut found = seek.peek(key, self.now);
        loop {
            let item = match found {
                Ok(item) => item,
                Err(_) if get.flags.has(b'N') => return Answered::Not,
                Err(miss) => {
                    self.tally.miss(miss);
                    tell_miss(self.output, key, &get.flags);
                    return Answered::As(Begun::Whole);
                }
            };
            // Before anything is done to it: a token to make a newer value is given once.
            if get.flags.has(b'v') && self.must_wait(&item) {
                return Answered::Later;
            }
            match self.answer_item(&item, (key, seek.hash()), &get.flags) {
                Some(begun) => return Answered::As(begun),
                // Others have stored something else meanwhile.
                None => found = self.participant.peek(key, seek.hash(), self.now),
            }
        }
    }

    /// Does to an item what the flags say, and tells what they ask for. `None` when the item was
    /// let go meanwhile.
    //= protocol.txt "Meta Get"
    fn answer_item(
        &mut self,
        item: &Item<'a>,
        (key, hash): (&[u8], KeyHash),
        flags: &Flags<'_>,
    ) -> Option<Begun> {
        let (now, fetched) = (self.now, item.is_fetched());
        let idle_s = if flags.has(b'l') { self.participant.table().idle_s(item, now) } else { 0 };
        let (mut item, mut cas) = (*item, 0);
        if flags.letters().has_any(ABOUT_CAS) {
            let settled;
            (item, settled) = item.settled();
            cas = self.switches.shown(settled);
        }
        let before = item.expiry();
        let (shown, after) = expiries(flags, before, false, now);
        if flags.has(b'T') {
            item = self.participant.set_expiry(&item, hash, after)?;
        }
        let mut sent = item.marks().is_won();
        let stale = item.marks().is_stale();
        let mut won = false;
        if !sent && (stale || asks_for_newer(flags, before, now)) {
            won = self.participant.win(&item, hash)?;
            // Another one was faster.
            sent = !won;
        }
        if !flags.has(b'u') {
            // As it is by now, or it would not become hotter.
            self.participant.count_get(&if won { item.settled().0 } else { item });
        }
        match flags.has(b'T') {
            true => self.count_touch(&item),
            false => self.participant.count_hit(&item),
        }
        let told = Told {
            key,
            value_bytes: item.value_bytes(),
            left_s: shown.left_s(now),
            cas,
            flags: item.flags(),
            idle_s,
            fetched,
            sent,
            stale,
            won,
        };
        let is_known = flags.number(b'C') == Some(cas);
        if !flags.has(b'v') || is_known {
            meta_reply::line(self.output, Code::Done, flags, OF_GET, &told);
            return Some(Begun::Whole);
        }
        Some(match item.value() {
            Some(value) if value.len() < SPAN_BYTES_MIN => {
                meta_reply::value(self.output, value, flags, OF_GET, &told);
                Begun::Whole
            }
            _ => begin_now(self.output, self.participant, &item, &Flagged { flags, told: &told }),
        })
    }

    fn must_wait(&self, item: &Item<'_>) -> bool {
        let is_small = item.value().is_some_and(|value| value.len() < SPAN_BYTES_MIN);
        !is_small && must_wait(self.output, self.participant, item)
    }

    fn count_touch(&mut self, item: &Item<'_>) {
        self.touches += 1;
        self.counters.bump(Metric::CmdTouch);
        self.participant.count_of(item, OfSize::TouchHits);
    }
}

/// Tells that there is nothing, unless that is not to be told.
#[cold]
fn tell_miss(output: &mut impl Spanning<Span>, key: &[u8], flags: &Flags<'_>) {
    if !flags.has(b'q') {
        meta_reply::line(output, Code::End, flags, OF_NOTHING, &Told::of(key));
    }
}

/// True when somebody should be told to make a newer value, because R says how long the one that is
/// there must live. Where T comes first, what it says counts.
fn asks_for_newer(flags: &Flags<'_>, before: Expiry, now: Now) -> bool {
    let Some(least) = expiry_after(flags, b'R', now) else { return false };
    let order = flags.each().map(|(letter, _)| letter).find(|letter| matches!(letter, b'T' | b'R'));
    let expiry = match order {
        Some(b'T') => expiry_after(flags, b'T', now).unwrap_or(before),
        _ => before,
    };
    match (expiry.left_s(now), least.left_s(now)) {
        (Some(left_s), Some(least_s)) => left_s < least_s,
        (None, _) | (_, None) => false,
    }
}

/// As `Batch::note`, while other parts of the batch are borrowed.
#[cold]
fn note(detail: &Detail, what: Use, get: &MetaGet<'_>) {
    if detail.is_on() {
        detail.count(what, plain_key(get.key, &get.flags, &mut [0; KEY_BYTES_MAX]));
    }
}

impl<'b, O: Spanning<Span>> Batch<'b, O> {
    /// Answers an `mg` of so many bytes, and those that follow it.
    #[inline]
    pub fn meta_gets(&mut self, first: MetaGet<'b>, bytes: usize, state: &mut State) -> Step {
        if let Some(verdict) = self.obstacle() {
            return Some(verdict);
        }
        let glimpse = match self.executor.watches(WatchKinds::FETCHERS) {
            true => self.glimpse(plain_key(first.key, &first.flags, &mut [0; KEY_BYTES_MAX])),
            false => None,
        };
        let detailed = self.executor.shared.detail.is_on();
        // No more than will be answered now: whoever goes on has to read the others again.
        let most = match glimpse {
            None if !detailed => usize::try_from(self.budget.requests).unwrap_or(usize::MAX),
            _ => 1,
        };
        let step = self.answer_gets(first, bytes, most.min(self.gets_ahead), state);
        if let Some(glimpse) = glimpse {
            self.log_glimpse(&glimpse);
        }
        step
    }

    /// Answers so many of them at most.
    #[inline(always)]
    fn answer_gets(
        &mut self,
        first: MetaGet<'b>,
        bytes: usize,
        most: usize,
        state: &mut State,
    ) -> Step {
        let participant = &self.executor.participant;
        let mut ahead: Ahead<'_, GetAhead<'_>> = Ahead::new();
        ahead.read((self.input, self.consumed + bytes), first, most, participant);
        let mut getting = Getting {
            participant,
            counters: &self.executor.counters,
            switches: self.executor.shared.facts.switches,
            output: &mut *self.output,
            now: self.now,
            tally: Tally::default(),
            answered: 0,
            touches: 0,
        };
        let ended = getting.run(&mut ahead);
        let Getting { mut tally, answered, touches, .. } = getting;
        if let Some(last) = answered.checked_sub(1).and_then(|last| ahead.at(last)) {
            self.consumed = last.next;
            if most == 1 {
                note(&self.executor.shared.detail, tally.of_get(), &last.get);
            }
        }
        // Lossless: no more were read than there are requests left.
        let answered = u32::try_from(answered).unwrap_or(u32::MAX);
        self.budget.requests -= answered;
        tally.lists = answered.into();
        tally.tell(u64::from(answered) - touches, false, &self.executor.counters);
        self.executor.classes.count(Class::Get, answered);
        self.executor.sampler.pass(answered, self.now, |place, sample| {
            if let Some(GetAhead { get, .. }) = ahead.at(place as usize) {
                read_key(get.key, &get.flags, |key| sample.is_of(key));
            }
        });
        match ended {
            Ended::Through => {
                self.gets_ahead = self.gets_ahead.saturating_mul(2);
                None
            }
            Ended::At(verdict) => Some(verdict),
            Ended::Sending(pin) => {
                *state = State::Sending(Sending { pin, offset: 0, after: After::Line });
                None
            }
            Ended::Making => {
                // The next ones may be of that kind, too, and make what follows be read again.
                self.gets_ahead = 1;
                self.make()
            }
        }
    }

    /// Makes the item that the next `mg` asks for, for its peer to fill, and answers with it.
    #[cold]
    fn make(&mut self) -> Step {
        let Some((get, bytes)) = crate::protocol::memcache::next_get(self.rest()) else {
            unreachable!("it was read before")
        };
        // Those before it may have used up what there was.
        if let Some(verdict) = self.obstacle() {
            return Some(verdict);
        }
        let (flags, now) = (&get.flags, self.now);
        let mut space = [0; KEY_BYTES_MAX];
        let key = plain_key(get.key, flags, &mut space);
        let hash = self.participant().table().hash(key);
        let switches = self.executor.shared.facts.switches;
        let (shown, expiry) = expiries(flags, Expiry::NEVER, true, now);
        let made = (expiry, chosen_cas(flags, switches));
        let cas = match self.participant().vivify(key, hash, made, now) {
            Ok(Outcome::Stored { cas, .. }) => Some(cas),
            // There is one by now: it is found when the request is read again.
            Ok(Outcome::NotStored) => return None,
            Err(Refusal::WouldWait) => return Some(Verdict::WouldWait),
            Ok(Outcome::NoMemory | Outcome::Exists | Outcome::NotFound)
            | Err(Refusal::NoMemory | Refusal::TooLarge) => None,
        };
        self.pay();
        self.count(Metric::Requests);
        self.classify(Class::Get);
        self.consume(bytes);
        self.note(if cas.is_some() { Use::Hit } else { Use::Miss }, key);
        let Some(cas) = cas else {
            self.count(Metric::CmdGet);
            self.count(Metric::GetMisses);
            tell_miss(self.output, key, flags);
            return None;
        };
        let is_touch = flags.has(b'T');
        self.count(if is_touch { Metric::CmdTouch } else { Metric::CmdGet });
        let participant = &self.executor.participant;
        let head = ItemHead { key, hash, flags: 0, expiry, value_bytes: 0, cas: made.1 };
        participant.count_made(&head, is_touch);
        if !flags.has(b'u')
            && let Ok(item) = participant.peek(key, hash, now)
        {
            participant.count_get(&item);
        }
        let cas = switches.shown(cas);
        let told = Told { left_s: shown.left_s(now), cas, won: true, ..Told::of(key) };
        if flags.has(b'v') && flags.number(b'C') != Some(cas) {
            meta_reply::value(self.output, b"", flags, OF_GET, &told);
        } else {
            meta_reply::line(self.output, Code::Done, flags, OF_GET, &told);
        }
        None
    }
}
