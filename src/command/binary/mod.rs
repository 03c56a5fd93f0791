//! The binary protocol: what each request means, in one flat match.
//!
//! A request is executed once its head, extras and key are there; a value goes into its item as it
//! comes, as everywhere. Runs of lookups, and of what else is about one key, are read ahead of
//! their turn: see `lookups`, and `ahead`.
//!
//! Of a quiet request, too, it is told when something is not as expected; only a miss of a quiet
//! lookup is as expected as a hit.

mod lookups;
mod sasl;
mod storing;

use super::Verdict;
use super::ahead::{HeadAhead, Heads};
use super::batch::{Batch, Step};
use super::classes::Class;
use super::costs::Work;
use super::detail::Use;
use super::execute::{Asked as Told, Refused, report};
use super::session::{Access, Form, Next, State, Swallowing};
use super::size_rows::Sizing;
use super::watching::{Deed, OTHERS};
use crate::base::by_size::OfSize;
use crate::base::clock::Expiry;
use crate::base::hash::KeyHash;
use crate::base::metrics::Metric;
use crate::base::output::Spanning;
use crate::protocol::Rows;
use crate::protocol::binary::reply::{self, Packets};
use crate::protocol::binary::{
    Arithmetic, Echo, Head, Opcode, Parsed, Request, Status, parse, parse_lookup,
};
use crate::protocol::memcache;
use crate::store::{ArithmeticError, Change, Changed, Deletion, Direction, Span};

use sasl::Credentials;

/// What a request about one key says, but for what it is to do.
#[derive(Clone, Copy, Debug)]
struct Asked<'a> {
    key: &'a [u8],
    hash: KeyHash,
    echo: Echo,
    quiet: bool,
    /// What the cas of the item has to be, if that matters.
    cas: Option<u64>,
}

impl<'b, O: Spanning<Span>> Batch<'b, O> {
    /// Executes requests until something stops it, or one of them is not done with at once.
    pub fn binary(&mut self, state: &mut State) -> Step {
        let mut heads = Heads::new();
        while let State::Binary(access) = *state {
            let step = if let Some(ahead) = heads.take(self.consumed) {
                self.begin_request(&ahead, access, state)
            } else if access == Access::Granted && parse_lookup(self.rest()).is_some() {
                self.lookups(state)
            } else {
                self.read_request(&mut heads, access, state)
            };
            if step.is_some() {
                return step;
            }
        }
        None
    }

    fn read_request(
        &mut self,
        heads: &mut Heads<Head<'b>>,
        access: Access,
        state: &mut State,
    ) -> Step {
        match parse(self.rest()) {
            Parsed::Partial => Some(Verdict::NeedInput),
            Parsed::Head { head, consumed } => {
                if self.rest().len() < consumed + self.token_bytes(&head) {
                    return Some(Verdict::NeedInput);
                }
                let participant = &self.executor.participant;
                heads.read((self.input, self.consumed), (head, consumed), participant);
                let ahead = heads.take(self.consumed);
                let ahead =
                    ahead.unwrap_or_else(|| HeadAhead::about_none(head, self.consumed, consumed));
                self.begin_request(&ahead, access, state)
            }
            Parsed::Invalid { error, echo, consumed } => {
                if let Some(verdict) = self.obstacle() {
                    return Some(verdict);
                }
                self.pay();
                self.count(Metric::Requests);
                self.classify(Class::Other);
                self.consume(consumed);
                if let Some(status) = error.status() {
                    reply::error(self.output, echo, status);
                }
                Some(self.close(state))
            }
        }
    }

    /// Executes a request if nothing stands against it.
    #[inline]
    fn begin_request(
        &mut self,
        ahead: &HeadAhead<Head<'b>>,
        access: Access,
        state: &mut State,
    ) -> Step {
        let HeadAhead { head, hash, bytes, .. } = *ahead;
        if let Some(verdict) = self.obstacle() {
            return Some(verdict);
        }
        let is_free = access == Access::Granted || sasl::is_free(&head.request);
        if is_free
            && let Some(store) = head.request.stored()
            && !self.is_whole(bytes, store.value_bytes, 0)
        {
            return Some(Verdict::NeedInput);
        }
        if is_free && self.must_defer(work(&head.request)) {
            return Some(Verdict::Defer);
        }
        self.pay();
        self.count(Metric::Requests);
        self.consume(bytes);
        if !is_free {
            self.classify(Class::Other);
            reply::error(self.output, head.echo, Status::AuthFailure);
            return Some(self.close(state));
        }
        let step = if self.executor.watches(OTHERS) {
            self.execute_watched_request(&head, hash, access, state)
        } else {
            self.execute_request(&head, hash, access, state)
        };
        if matches!(step, Some(Verdict::WouldWait | Verdict::SpansFull)) {
            self.take_back(bytes);
            return step;
        }
        if let Some(class) = class(&head.request) {
            self.classify(class);
        }
        self.sample(&head);
        step
    }

    /// As `execute_request`, where somebody watches.
    #[cold]
    fn execute_watched_request(
        &mut self,
        head: &Head<'_>,
        hash: KeyHash,
        access: Access,
        state: &mut State,
    ) -> Step {
        let Some((key, deed)) = deed(&head.request) else {
            return self.execute_request(head, hash, access, state);
        };
        let before = self.sight(key, hash);
        let step = self.execute_request(head, hash, access, state);
        if !matches!(step, Some(Verdict::WouldWait | Verdict::SpansFull)) {
            self.log_deed((key, hash), before, deed);
        }
        step
    }

    /// `hash` is that of the key, if it is about one.
    fn execute_request(
        &mut self,
        head: &Head<'_>,
        hash: KeyHash,
        access: Access,
        state: &mut State,
    ) -> Step {
        let Head { echo, quiet, .. } = *head;
        // As for text: where no cas is shown, none is right.
        let cas = self.executor.shared.facts.switches.shown(head.cas);
        let cas = (head.cas != 0).then_some(cas);
        let with_key = Opcode::of(echo.opcode).is_some_and(Opcode::returns_key);
        let about = |key| Asked { key, hash, echo, quiet, cas };
        match head.request {
            Request::Get { key } => return self.look_up(&about(key), None, with_key, state),
            Request::GetAndTouch { key, exptime } => {
                return self.look_up(&about(key), Some(exptime), with_key, state);
            }
            Request::Touch { key, exptime } => self.touch_one(&about(key), exptime),
            Request::Set(stored)
            | Request::Add(stored)
            | Request::Replace(stored)
            | Request::Append(stored)
            | Request::Prepend(stored) => {
                let plan = storing::plan(&head.request, cas);
                return self.store_one(&about(stored.key), &stored, plan, state);
            }
            Request::Delete { key } => self.delete_one(&about(key)),
            Request::Increment(number) => {
                return self.count_one(&about(number.key), &number, Direction::Up);
            }
            Request::Decrement(number) => {
                return self.count_one(&about(number.key), &number, Direction::Down);
            }
            Request::Flush { delay } if self.may_flush() => {
                self.flush(delay.into());
                self.done(echo, quiet, 0);
            }
            Request::Flush { .. } => reply::error(self.output, echo, Status::AuthFailure),
            Request::Noop => self.done(echo, false, 0),
            Request::Version => {
                reply::text(self.output, echo, memcache::VERSION.as_bytes());
            }
            Request::Verbosity { level } => {
                self.set_verbosity(level);
                self.done(echo, quiet, 0);
            }
            Request::Quit => {
                self.done(echo, quiet, 0);
                return Some(self.close(state));
            }
            Request::Stat { group } => self.stat(echo, group, state),
            Request::SaslList => self.sasl_list(echo),
            Request::SaslAuth { mechanism, token_bytes }
            | Request::SaslStep { mechanism, token_bytes } => {
                let is_step = matches!(head.request, Request::SaslStep { .. });
                let asked = Credentials { echo, mechanism, token_bytes, is_step };
                self.sasl_auth(asked, access, state);
            }
            Request::Unknown { body_bytes } => {
                reply::error(self.output, echo, Status::UnknownCommand);
                *state = swallowing_packet(body_bytes.into(), access);
            }
        }
        None
    }

    fn touch_one(&mut self, asked: &Asked<'_>, exptime: u32) {
        let (participant, now) = (&self.executor.participant, self.now);
        let expiry = Expiry::from_wire(exptime.into(), now);
        let found = participant.touch(asked.key, asked.hash, expiry, now);
        self.count(Metric::CmdTouch);
        match found {
            Ok(item) => {
                participant.count_of(&item, OfSize::TouchHits);
                let cas = self.executor.shared.facts.switches.cas_of(&item);
                reply::flags(self.output, asked.echo, item.flags(), cas);
            }
            Err(_) => {
                self.count(Metric::TouchMisses);
                reply::error(self.output, asked.echo, Status::NotFound);
            }
        }
    }

    fn delete_one(&mut self, asked: &Asked<'_>) {
        let now = self.now;
        self.note(Use::Delete, asked.key);
        match self.participant().delete_if(asked.key, asked.hash, asked.cas, now) {
            Deletion::Deleted => self.done(asked.echo, asked.quiet, 0),
            Deletion::NotFound => {
                self.count(Metric::DeleteMisses);
                reply::error(self.output, asked.echo, Status::NotFound);
            }
            Deletion::Exists => reply::error(self.output, asked.echo, Status::Exists),
        }
    }

    fn count_one(
        &mut self,
        asked: &Asked<'_>,
        number: &Arithmetic<'_>,
        direction: Direction,
    ) -> Step {
        let now = self.now;
        let misses = match direction {
            Direction::Up => Metric::IncrMisses,
            Direction::Down => Metric::DecrMisses,
        };
        let initial = number.initial;
        let initial =
            initial.map(|(first, exptime)| (first, Expiry::from_wire(exptime.into(), now)));
        let change = Change { cas: asked.cas, initial, ..Change::by(number.delta, direction) };
        let status = match self.participant().arithmetic(asked.key, asked.hash, &change, now) {
            Ok(Changed { number, cas, .. }) => {
                if !asked.quiet {
                    let cas = self.executor.shared.facts.switches.shown(cas);
                    reply::number(self.output, asked.echo, number, cas);
                }
                return None;
            }
            Err(ArithmeticError::WouldWait) => return Some(Verdict::WouldWait),
            Err(ArithmeticError::NotFound) => {
                self.count(misses);
                Status::NotFound
            }
            Err(ArithmeticError::Exists) => Status::Exists,
            Err(ArithmeticError::NonNumeric) => Status::NonNumeric,
            Err(ArithmeticError::NoMemory) => {
                let text = reply::NO_MEMORY_COUNTING;
                reply::error_in_words(self.output, asked.echo, Status::NoMemory, text);
                return None;
            }
        };
        reply::error(self.output, asked.echo, status);
        None
    }

    fn stat(&mut self, echo: Echo, group: &[u8], state: &mut State) {
        self.pay_for(Work::Rows);
        let (group, action) = match group.iter().position(|byte| *byte == b' ') {
            Some(blank) => (&group[..blank], &group[blank + 1..]),
            None => (group, &b""[..]),
        };
        match self.group(group, action) {
            Ok(Told::Rows(group)) => *state = report(group, Form::Packets(echo)),
            Ok(Told::Sizes) => *state = State::Sizing(Box::new(Sizing::new(Form::Packets(echo)))),
            Ok(Told::Reset | Told::Turned) => Packets(&mut *self.output, echo).end(),
            Err(Refused::NotAllowed | Refused::Hidden | Refused::Unknown | Refused::Usage) => {
                reply::error(self.output, echo, Status::NotFound);
            }
        }
    }
}

/// What a request does, and the key that it is about, if it is about one and no value follows.
/// Deletions are not told, as memcached has it.
fn deed<'a>(request: &Request<'a>) -> Option<(&'a [u8], Deed)> {
    match *request {
        Request::Get { key }
        | Request::GetAndTouch { key, .. }
        | Request::Touch { key, .. }
        | Request::Delete { key } => Some((key, Deed::Look)),
        Request::Increment(number) | Request::Decrement(number) => Some((number.key, Deed::Count)),
        Request::Set(_)
        | Request::Add(_)
        | Request::Replace(_)
        | Request::Append(_)
        | Request::Prepend(_)
        | Request::Flush { .. }
        | Request::Noop
        | Request::Version
        | Request::Verbosity { .. }
        | Request::Quit
        | Request::Stat { .. }
        | Request::SaslList
        | Request::SaslAuth { .. }
        | Request::SaslStep { .. }
        | Request::Unknown { .. } => None,
    }
}

/// Waits for a body that is of no use to pass by.
pub(super) fn swallowing_packet(bytes: u64, access: Access) -> State {
    let next = Next::Binary(access);
    if bytes == 0 { next.into() } else { State::Swallowing(Swallowing { bytes, reply: b"", next }) }
}

/// What a request costs, as far as its head says.
fn work(request: &Request<'_>) -> Work {
    match request {
        // A value is copied as it comes.
        Request::Get { .. }
        | Request::GetAndTouch { .. }
        | Request::Touch { .. }
        | Request::Set(_)
        | Request::Add(_)
        | Request::Replace(_)
        | Request::Append(_)
        | Request::Prepend(_)
        | Request::Delete { .. }
        | Request::Increment(_)
        | Request::Decrement(_)
        | Request::Noop
        | Request::Version
        | Request::Verbosity { .. }
        | Request::Quit
        | Request::SaslList
        | Request::SaslAuth { .. }
        | Request::SaslStep { .. }
        | Request::Unknown { .. } => Work::Item,
        Request::Stat { .. } => Work::Rows,
        Request::Flush { .. } => Work::Table,
    }
}

/// The class of a request; `None` while a value is to come.
fn class(request: &Request<'_>) -> Option<Class> {
    match request {
        Request::Get { .. } | Request::GetAndTouch { .. } => Some(Class::Get),
        Request::Set(_)
        | Request::Add(_)
        | Request::Replace(_)
        | Request::Append(_)
        | Request::Prepend(_) => None,
        Request::Touch { .. }
        | Request::Delete { .. }
        | Request::Increment(_)
        | Request::Decrement(_) => Some(Class::Change),
        Request::Flush { .. }
        | Request::Noop
        | Request::Version
        | Request::Verbosity { .. }
        | Request::Quit
        | Request::Stat { .. }
        | Request::SaslList
        | Request::SaslAuth { .. }
        | Request::SaslStep { .. }
        | Request::Unknown { .. } => Some(Class::Other),
    }
}
