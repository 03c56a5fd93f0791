//! Lists of keys: `get`, `gets`, `gat`, `gats`.

use super::ahead::KeyAhead;
use super::batch::{Batch, Step};
use super::session::{KeyList, Sending, State, Touch};
use super::{BOUNDED_COPY_BYTES, BOUNDED_KEYS, Verdict};
use crate::base::clock::Expiry;
use crate::base::limits::PIECE_BYTES_MAX;
use crate::base::metrics::Metric;
use crate::base::output::Output;
use crate::protocol::memcache::{
    KeyList as ListHead, KeyTouch, NextKey, ProtocolError, next_key, reply,
};
use crate::store::{Miss, Pin};

/// What a key was answered with.
enum Answer {
    /// All of it.
    Whole,
    /// The head of a value that is too large to be copied at once.
    Begun(Pin),
    /// An error: too many peers are being sent the same large value.
    Refused,
}

impl<O: Output> Batch<'_, O> {
    #[inline]
    pub fn start_list(&mut self, head: ListHead, state: &mut State) {
        self.count(Metric::Requests);
        let touch = match head.touch {
            KeyTouch::No => Touch::No,
            KeyTouch::Exptime(exptime) => Touch::Expiry(Expiry::from_wire(exptime, self.now)),
            KeyTouch::BadExptime => Touch::Bad,
        };
        *state = State::KeyList(KeyList { with_cas: head.with_cas, touch, keys: 0 });
    }

    /// Answers keys until the line ends.
    #[inline]
    pub fn key_list(&mut self, state: &mut State) -> Step {
        let State::KeyList(list) = state else { unreachable!() };
        loop {
            let Some(key) = self.key_ahead() else { return self.end_list(state) };
            if let Some(verdict) = self.obstacle() {
                return Some(verdict);
            }
            if list.keys >= BOUNDED_KEYS && self.is_bounded() {
                return Some(Verdict::Defer);
            }
            if matches!(list.touch, Touch::Bad) {
                return self.end_list(state);
            }
            self.pay();
            self.executor.ahead.take();
            self.consume(key.next - self.consumed);
            list.keys = list.keys.saturating_add(1);
            let answer = self.answer(key, list);
            let list = (!key.last).then_some(*list);
            match (answer, list) {
                (Answer::Whole, Some(_)) => {}
                (Answer::Whole, None) => {
                    *state = State::Idle;
                    return None;
                }
                (Answer::Refused, list) => {
                    *state = if list.is_some() { State::SkippingLine } else { State::Idle };
                    return None;
                }
                (Answer::Begun(pin), list) => {
                    *state = State::Sending(Sending { pin, offset: 0, list });
                    return None;
                }
            }
        }
    }

    /// The key that is due, if there is one; others after it may have been read too.
    #[inline]
    fn key_ahead(&mut self) -> Option<KeyAhead> {
        let executor = &mut *self.executor;
        if executor.ahead.first().is_none() {
            executor.ahead.read(self.input, self.consumed, &executor.participant);
        }
        executor.ahead.first()
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
        // What was read of a list that ends here will never be due.
        self.executor.ahead.clear();
        if let Some(verdict) = self.obstacle() {
            return Some(verdict);
        }
        self.pay();
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

    /// Finds the item of one key and writes it, or as much of it as may be written at once.
    #[inline]
    fn answer(&mut self, due: KeyAhead, list: &KeyList) -> Answer {
        let KeyAhead { hash, start, end, next: _, last } = due;
        let key = &self.input[start..end];
        let participant = &self.executor.participant;
        let counters = &self.executor.counters;
        let found = match list.touch {
            Touch::Expiry(expiry) => {
                counters.bump(Metric::CmdTouch);
                participant.touch(key, hash, expiry, self.now)
            }
            Touch::No | Touch::Bad => {
                counters.bump(Metric::CmdGet);
                participant.get(key, hash, self.now)
            }
        };
        let touching = matches!(list.touch, Touch::Expiry(_));
        let item = match found {
            Ok(item) => item,
            Err(miss) => {
                counters.bump(if touching { Metric::TouchMisses } else { Metric::GetMisses });
                match miss {
                    Miss::Absent => {}
                    Miss::Expired => counters.bump(Metric::GetExpired),
                    Miss::Flushed => counters.bump(Metric::GetFlushed),
                }
                if last {
                    self.output.put(reply::END);
                }
                return Answer::Whole;
            }
        };
        counters.bump(if touching { Metric::TouchHits } else { Metric::GetHits });
        let head = reply::ValueHead {
            key,
            flags: item.flags(),
            value_bytes: item.value_bytes(),
            cas: list.with_cas.then(|| item.cas()),
        };
        match item.value() {
            Some(value) if value.len() <= PIECE_BYTES_MAX => {
                reply::value(self.output, &head, value, last);
                Answer::Whole
            }
            _ => match participant.pin(&item) {
                Some(pin) => {
                    reply::value_head(self.output, &head);
                    Answer::Begun(pin)
                }
                None => {
                    self.output.put(reply::REFCOUNT_OVERFLOW);
                    Answer::Refused
                }
            },
        }
    }

    /// Goes on with a value that is replied in pieces.
    pub fn send(&mut self, state: &mut State) -> Step {
        let State::Sending(sending) = state else { unreachable!() };
        let value_bytes = sending.pin.value_bytes();
        while sending.offset < value_bytes {
            if self.output.is_full() {
                return Some(Verdict::OutputFull);
            }
            if self.is_bounded() && value_bytes - sending.offset > BOUNDED_COPY_BYTES {
                return Some(Verdict::Defer);
            }
            let run = self.executor.participant.pinned(&sending.pin, sending.offset);
            let piece = &run[..run.len().min(PIECE_BYTES_MAX)];
            assert!(!piece.is_empty());
            self.output.put(piece);
            sending.offset += piece.len();
        }
        let State::Sending(sending) = std::mem::take(state) else { unreachable!() };
        reply::value_end(self.output, sending.list.is_none());
        self.participant().unpin(sending.pin);
        if let Some(list) = sending.list {
            *state = State::KeyList(list);
        }
        None
    }
}
