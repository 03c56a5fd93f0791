//! What each head means: one flat match.

use std::sync::atomic::Ordering;

use super::Verdict;
use super::batch::{Batch, Step};
use super::classes::Class;
use super::costs::Work;
use super::detail::Use;
use super::session::{Form, Group, Report, State};
use super::size_rows::Sizing;
use super::storing::swallowing;
use crate::base::by_size::OfSize;
use crate::base::clock::Expiry;
use crate::base::hash::KeyHash;
use crate::base::metrics::Metric;
use crate::base::output::Output;
use crate::protocol::memcache::{self, Delta, Head, MetaVerb, ProtocolError, meta_reply, reply};
use crate::store::{ArithmeticError, Change, Changed, Direction};

/// Highest level of `verbosity`.
const VERBOSITY_MAX: u32 = 2;

impl<O: Output> Batch<'_, O> {
    /// The class of a head; `None` while a value is to come.
    pub fn class_of(head: &Head<'_>) -> Option<Class> {
        match head {
            Head::Store(_) => None,
            Head::Meta(head) => match head.verb {
                MetaVerb::Set { .. } => None,
                MetaVerb::Delete | MetaVerb::Arithmetic { .. } => Some(Class::Change),
                MetaVerb::Debug => Some(Class::Other),
            },
            Head::Refused { .. } => Some(Class::Store),
            Head::Touch { .. } | Head::Delete { .. } | Head::Incr(_) | Head::Decr(_) => {
                Some(Class::Change)
            }
            Head::FlushAll { .. }
            | Head::Version
            | Head::Verbosity { .. }
            | Head::Quit
            | Head::Shutdown { .. }
            | Head::Stats { .. }
            | Head::Noop
            | Head::Operator { .. } => Some(Class::Other),
        }
    }

    /// `hash` is that of the key, if it is about one.
    pub fn execute(&mut self, head: &Head<'_>, hash: KeyHash, state: &mut State) -> Step {
        match *head {
            Head::Store(ref head) => return self.start_value(head, hash, state),
            Head::Refused { error, value_bytes, noreply } => {
                let reply = if noreply { b"" } else { error.reply() };
                *state = swallowing(value_bytes as usize, reply);
            }
            Head::Touch { key, exptime, noreply } => {
                self.touch((key, hash), exptime, noreply);
            }
            Head::Delete { key, noreply } => self.delete((key, hash), noreply),
            Head::Incr(delta) => return self.arithmetic(&delta, hash, Direction::Up),
            Head::Decr(delta) => return self.arithmetic(&delta, hash, Direction::Down),
            Head::FlushAll { delay, noreply } => self.flush_all(delay, noreply),
            Head::Version => self.version(),
            Head::Verbosity { level, noreply } => {
                self.set_verbosity(level);
                self.reply(reply::OK, noreply);
            }
            Head::Quit => return Some(self.close(state)),
            Head::Shutdown { mode, noreply } => {
                let allowed = self.executor.shared.facts.switches.shutdown;
                match (allowed, mode) {
                    (false, _) => self.reply(reply::SHUTDOWN_NOT_ENABLED, noreply),
                    (true, None) => self.reply(ProtocolError::BadShutdownMode.reply(), noreply),
                    (true, Some(_)) => {
                        *state = State::Closed;
                        return Some(Verdict::Shutdown);
                    }
                }
            }
            Head::Stats { group, action } => self.stats(group, action, state),
            Head::Meta(ref head) => return self.meta(head, hash, state),
            Head::Noop => self.output.put(meta_reply::NOOP),
            Head::Operator { ref operator, noreply } => {
                return self.operate(operator, noreply, state);
            }
        }
        None
    }

    fn touch(&mut self, (key, hash): (&[u8], KeyHash), exptime: i64, noreply: bool) {
        let now = self.now;
        let expiry = Expiry::from_wire(exptime, now);
        self.count(Metric::CmdTouch);
        let participant = &self.executor.participant;
        let found = participant.touch(key, hash, expiry, now);
        match &found {
            Ok(item) => participant.count_of(item, OfSize::TouchHits),
            Err(_) => self.count(Metric::TouchMisses),
        }
        let reply = if found.is_ok() { reply::TOUCHED } else { reply::NOT_FOUND };
        self.reply(reply, noreply);
    }

    fn delete(&mut self, (key, hash): (&[u8], KeyHash), noreply: bool) {
        let now = self.now;
        let found = self.participant().delete(key, hash, now);
        self.note(Use::Delete, key);
        if !found {
            self.count(Metric::DeleteMisses);
        }
        self.reply(if found { reply::DELETED } else { reply::NOT_FOUND }, noreply);
    }

    fn arithmetic(&mut self, delta: &Delta<'_>, hash: KeyHash, direction: Direction) -> Step {
        let now = self.now;
        let misses = match direction {
            Direction::Up => Metric::IncrMisses,
            Direction::Down => Metric::DecrMisses,
        };
        let change = Change::by(delta.delta, direction);
        let result = self.participant().arithmetic(delta.key, hash, &change, now);
        let error = match result {
            Ok(Changed { number, .. }) => {
                if !delta.noreply {
                    reply::number(self.output, number);
                }
                return None;
            }
            Err(ArithmeticError::WouldWait) => return Some(Verdict::WouldWait),
            Err(ArithmeticError::NotFound) => {
                self.count(misses);
                reply::NOT_FOUND
            }
            Err(ArithmeticError::Exists) => unreachable!("no cas was asked for"),
            Err(ArithmeticError::NonNumeric) => reply::NON_NUMERIC,
            Err(ArithmeticError::NoMemory) => reply::NO_MEMORY,
        };
        self.reply(error, delta.noreply);
        None
    }

    fn flush_all(&mut self, delay: Option<i64>, noreply: bool) {
        let reply = match (self.may_flush(), delay) {
            (false, _) => reply::FLUSH_NOT_ALLOWED,
            (true, None) => ProtocolError::BadExptime.reply(),
            (true, Some(delay)) => {
                self.flush(delay);
                reply::OK
            }
        };
        self.reply(reply, noreply);
    }

    /// Whether peers may flush. Counts that one wants to.
    pub fn may_flush(&self) -> bool {
        self.count(Metric::CmdFlush);
        self.executor.shared.facts.switches.flush
    }

    pub fn flush(&mut self, delay: i64) {
        self.pay_for(Work::Table);
        let now = self.now;
        let due = (delay > 0).then(|| Expiry::from_wire(delay, now));
        self.participant().flush(due.filter(|due| !due.is_due(now)), now);
    }

    pub fn set_verbosity(&self, level: u32) {
        let level = u8::try_from(level.min(VERBOSITY_MAX)).unwrap_or(u8::MAX);
        // Relaxed: it is a number by itself.
        self.executor.shared.verbosity.store(level, Ordering::Relaxed);
    }

    fn version(&mut self) {
        self.output.put(b"VERSION ");
        self.output.put(memcache::VERSION.as_bytes());
        self.output.put(b"\r\n");
    }

    fn stats(&mut self, group: &[u8], action: &[u8], state: &mut State) {
        self.pay_for(Work::Rows);
        match self.group(group, action) {
            Ok(Asked::Rows(group)) => *state = report(group, Form::Lines),
            Ok(Asked::Sizes) => *state = State::Sizing(Box::new(Sizing::new(Form::Lines))),
            Ok(Asked::Reset) => self.output.put(reply::RESET),
            Ok(Asked::Turned) => self.output.put(reply::OK),
            Err(Refused::Unknown) => self.output.put(reply::ERROR),
            Err(Refused::Usage) => self.output.put(reply::DETAIL_USAGE),
            Err(Refused::NotAllowed) => self.output.put(reply::DETAIL_NOT_ALLOWED),
            Err(Refused::Hidden) => self.output.put(reply::HOT_NOT_ALLOWED),
        }
    }

    /// Does what there is to do at once about a group of statistics.
    pub fn group(&self, group: &[u8], action: &[u8]) -> Result<Asked, Refused> {
        let shared = &self.executor.shared;
        match (group, action) {
            (b"reset", _) => {
                shared.registry.reset();
                shared.detail.clear();
                Ok(Asked::Reset)
            }
            (b"detail", _) if !shared.facts.switches.dumping => Err(Refused::NotAllowed),
            (b"detail", b"on" | b"off") => {
                shared.turn_detail(action == b"on");
                Ok(Asked::Turned)
            }
            (b"detail", b"dump") => Ok(Asked::Rows(Group::Detail)),
            (b"detail", _) => Err(Refused::Usage),
            (b"sizes", _) if !shared.tracks_sizes() => Ok(Asked::Rows(Group::SizesStatus)),
            (b"sizes", _) if !shared.sizings.take() => Ok(Asked::Rows(Group::SizesError)),
            (b"sizes", _) => Ok(Asked::Sizes),
            (b"sizes_enable" | b"sizes_disable", _) => {
                // Relaxed: it is all that there is to know.
                shared.tracks_sizes.store(group == b"sizes_enable", Ordering::Relaxed);
                Ok(Asked::Rows(Group::SizesStatus))
            }
            (b"hotkeys" | b"hotprefixes", _) if !shared.facts.switches.dumping => {
                Err(Refused::Hidden)
            }
            (group, _) => Group::named(group).map(Asked::Rows).ok_or(Refused::Unknown),
        }
    }

    /// Counts what was done to a key, if there are statistics by prefix.
    #[inline]
    pub fn note(&self, what: Use, key: &[u8]) {
        let detail = &self.executor.shared.detail;
        if detail.is_on() {
            detail.count(what, key);
        }
    }
}

/// Statistics that are to be replied.
pub(super) fn report(group: Group, form: Form) -> State {
    State::Reporting(Report { group, rows: 0, form })
}

/// What was asked of statistics, and has been done as far as it can be at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// These are to be replied.
    Rows(Group),
    /// Items are to be counted by their sizes.
    Sizes,
    Reset,
    Turned,
}

/// Why there are no such statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Unknown,
    Usage,
    NotAllowed,
    /// Keys are not told.
    Hidden,
}
