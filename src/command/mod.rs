//! What a request means: protocol and store are strangers that meet here.
//!
//! `Executor::drive` takes what a connection sent and turns it into replies until something stops
//! it. It never blocks, reads no clock and allocates nothing for a request; all that a connection
//! needs between two calls is its `Session`:
//!
//! ```text
//!            get, gat ...          a large value
//!   Idle --------------> KeyList <--------------> Sending       each key is found and answered
//!    ^ |  set, cas ...            all bytes there
//!    | +---------------> Filling ----------------+              the value goes into its item
//!    | |  an error that a value follows          |
//!    | +---------------> Swallowing -------------+              the value goes nowhere
//!    | |  a key that is too long                 |
//!    | +---------------> SkippingLine -----------+
//!    | |  stats                                  |
//!    | +---------------> Reporting --------------+              row by row
//!    | |  lru_crawler metadump, mgdump           |
//!    | +---------------> Dumping ----------------+              key by key
//!    | |  delete_prefix                          |
//!    | +---------------> Pruning ----------------+              some keys at a time
//!    | |  stats sizes                            |
//!    | +---------------> Sizing -----------------+              some items at a time
//!    |    watch
//!    +-----------------> Watching                               line by line, to the end
//!    +-------------------------------------------+
//! ```
//!
//! Invariants: the replies depend on the bytes and on the time alone, not on how the input was cut,
//! on how often the output was full, on budgets, or on who executes. What is consumed is never
//! looked at again. An incomplete head or key is not consumed.
//!
//! An `mg` takes the way of a key in a list, but leaves the session idle: see `meta_get`. An `ms`
//! is a storage command whose peer is answered in another way, `session::Answer`.
//!
//! Follow one `get`: `drive` sees an idle session, `protocol::memcache::parse` says that a list of
//! keys begins, `ahead` reads its key, and those of the gets that follow, and lets the store look
//! for them, `Seek::get` finds the item, and `reply::value` writes it to the output.

#![forbid(unsafe_code)]

mod ahead;
mod batch;
mod binary;
mod class_rows;
mod classes;
mod costs;
mod detail;
mod dumping;
mod execute;
#[cfg(all(any(test, fuzzing), not(loom)))]
pub mod fuzzing;
mod instruments;
mod keys;
mod ledger;
mod login;
mod meta;
mod meta_get;
mod operating;
mod pruning;
mod quota;
mod sending;
mod session;
mod size_rows;
mod stats;
mod storing;
mod watchers;
mod watching;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use costs::{BOUNDED_COPY_BYTES, BOUNDED_KEYS};
pub use detail::{DETAIL_BYTES_MAX, Detail};
pub use ledger::{Fixed, LEDGER, Row};
pub use operating::Tuned;
pub use session::Session;
pub use watching::EvictionLog;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use crate::base::clock::Now;
use crate::base::hot::Sampler;
use crate::base::metrics::{Counters, Registry};
use crate::base::output::Spanning;
use crate::base::protocol::Protocol;
use crate::base::sync::Arc as SyncArc;
use crate::base::users::Roster;
use crate::store::{Item, Loan, Participant, Span, Table};

use batch::Batch;
use classes::Classes;
use quota::Quota;
use session::State;
use watchers::{Observer, Watchers};

/// Memory that the next bytes of a value belong to.
#[derive(Debug)]
pub struct ValuePart {
    pub loan: Loan,
    /// True when the value ends with it.
    pub is_last: bool,
}

/// Of a value that lacks more than this, the rest is worth receiving straight into its item.
pub const DIRECT_BYTES_MIN: usize = 4 << 10;

/// What does not change while the server runs, for `stats`.
#[derive(Clone, Debug)]
pub struct Facts {
    pub pid: u32,
    /// Of this server, not of the protocol.
    pub version: &'static str,
    pub threads: u32,
    pub connections_max: u32,
    pub switches: Switches,
    /// The rows of `stats settings`, in order.
    pub settings: Vec<(&'static str, String)>,
    pub fixed: Fixed,
    /// Reads what the process has used of the processor.
    pub rusage: fn() -> Rusage,
}

#[cfg(all(test, not(loom)))]
impl Facts {
    /// Those of a server that is none.
    pub(crate) fn of_a_test() -> Facts {
        Facts {
            pid: 7,
            version: "0.0.0",
            threads: 1,
            connections_max: 1024,
            switches: Switches::default(),
            settings: Vec::new(),
            fixed: Fixed::default(),
            rusage: Rusage::default,
        }
    }
}

/// What the command line lets peers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// `shutdown` (`-A`).
    pub shutdown: bool,
    /// `flush_all` (not with `-F`).
    pub flush: bool,
    /// Listing keys (not with `-X`).
    pub dumping: bool,
    /// `watch` (not with `-W`).
    pub watch: bool,
    /// Whether items have a CAS value to be shown (not with `-C`); where they have none, it is 0.
    pub cas: bool,
    /// Statistics by prefix from the start (`-D`).
    pub detail: bool,
    /// What separates the prefix of a key from the rest (`-D`).
    pub prefix_delimiter: u8,
    /// `stats sizes` from the start (`-o track_sizes`).
    pub track_sizes: bool,
}

impl Default for Switches {
    /// Without any option.
    fn default() -> Switches {
        Switches {
            shutdown: false,
            flush: true,
            dumping: true,
            watch: true,
            cas: true,
            detail: false,
            prefix_delimiter: b':',
            track_sizes: false,
        }
    }
}

impl Switches {
    /// The CAS value of an item as peers are shown it.
    #[inline]
    fn cas_of(self, item: &Item<'_>) -> u64 {
        self.shown(item.cas())
    }

    /// What a CAS value is as peers see it, and as it counts when they say it: as in memcached,
    /// where none is shown, none is right, and a value that is guessed is none.
    #[inline]
    fn shown(self, cas: u64) -> u64 {
        if self.cas { cas } else { NO_CAS }
    }
}

/// What is shown where there are no CAS values. No item has it.
const NO_CAS: u64 = 0;

/// Processor time of the whole process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rusage {
    pub user: Duration,
    pub system: Duration,
}

/// What all executors of the process share.
#[derive(Debug)]
pub struct Shared {
    pub facts: Facts,
    pub table: Arc<Table>,
    pub registry: SyncArc<Registry>,
    /// As `verbosity` set it: 0, 1 or 2.
    pub verbosity: AtomicU8,
    pub tuned: Tuned,
    /// What is spoken at each listener, in their order; at any other, whatever comes first.
    pub protocols: Vec<Protocol>,
    /// Who is let in; `None` for everybody.
    pub auth: Option<Auth>,
    /// Statistics by prefix.
    pub detail: Detail,
    /// Whether who asks for `stats sizes` is told them.
    tracks_sizes: AtomicBool,
    watchers: Watchers,
    /// Deletions by prefix in progress: each keeps a word for every stripe.
    prunings: Quota,
    /// Counts of items by their sizes in progress: each keeps a word or two for every size.
    sizings: Quota,
}

impl Shared {
    /// Whether statistics by prefix are kept, from now on. Then no value is stored at once: what
    /// stores in steps looks whether to count its key.
    pub fn turn_detail(&self, on: bool) {
        self.detail.turn(on);
        self.table.set_at_once(!on);
    }

    /// Where all protocols are spoken, and everybody is let in.
    pub fn open(facts: Facts, table: Arc<Table>, registry: SyncArc<Registry>) -> Shared {
        let Switches { detail: is_on, prefix_delimiter, track_sizes, .. } = facts.switches;
        let shared = Shared {
            facts,
            table,
            registry,
            verbosity: AtomicU8::new(0),
            tuned: Tuned::default(),
            protocols: Vec::new(),
            auth: None,
            detail: Detail::new(is_on, prefix_delimiter),
            tracks_sizes: AtomicBool::new(track_sizes),
            watchers: Watchers::default(),
            prunings: Quota::default(),
            sizings: Quota::default(),
        };
        shared.turn_detail(is_on);
        shared
    }

    fn tracks_sizes(&self) -> bool {
        // Relaxed: it is all that there is to know.
        self.tracks_sizes.load(Ordering::Relaxed)
    }

    /// What is called when much waits to be told to somebody who watches.
    pub fn set_waker(&self, waker: impl Fn() + Send + Sync + 'static) {
        self.watchers.set_waker(waker);
    }
}

/// How peers say who they are.
#[derive(Debug)]
pub struct Auth {
    pub users: Roster,
    /// Whether they may in the binary protocol. Otherwise they do not come far in it.
    pub sasl: bool,
}

/// How much a call of `drive` may do. What it did is taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Heads, keys of lists of keys, and rows of statistics.
    pub requests: u32,
    pub cost: Cost,
}

/// Whether long work may be done; see `costs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    Bounded,
    Any,
}

/// What a call of `drive` came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what was consumed must not be shown again, and somebody must act on the verdict"]
pub struct Progress {
    pub consumed: usize,
    pub verdict: Verdict,
}

/// Why `drive` stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What is left of the input is nothing, or the start of a head or key.
    NeedInput,
    /// The peer must read first.
    OutputFull,
    /// The budget is used up.
    Yield,
    /// The next step is long, and long work was not allowed.
    Defer,
    /// The next step wants memory that others hold back a moment longer, and this thread may not
    /// wait. It is to quiesce; what is left of the input, shown again, is executed then or refused.
    WouldWait,
    /// The next value is too large to be copied now, and too much is being sent from where it lies
    /// to others: their peers must read first. What is left of the input, shown again, is executed
    /// then.
    SpansFull,
    /// From now on the peer is told what happens. `drive` is to be called again when
    /// `Executor::has_news` says so.
    Watch,
    /// Send what was replied, then close. What is left of the input is of no use.
    Close,
    /// As `Close`; and the peer, who may, wants the server to stop.
    Shutdown,
}

/// One thread's means of executing requests.
#[derive(Debug)]
pub struct Executor {
    shared: Arc<Shared>,
    participant: Participant,
    counters: SyncArc<Counters>,
    /// What has been executed and not been told.
    classes: Classes,
    observer: Observer,
    sampler: Sampler,
}

impl Executor {
    /// `counters` are the thread's, and the participant's too.
    pub fn new(
        shared: Arc<Shared>,
        participant: Participant,
        counters: SyncArc<Counters>,
    ) -> Executor {
        let (classes, observer) = (Classes::default(), Observer::default());
        let sampler = shared.registry.hot.sampler(shared.facts.switches.prefix_delimiter);
        Executor { shared, participant, counters, classes, observer, sampler }
    }

    /// The session of a new connection to this listener, or of a datagram; without one, of a peer
    /// that may speak anything.
    pub fn session(&self, listener: Option<u32>) -> Session {
        let protocols = &self.shared.protocols;
        let protocol = listener.and_then(|listener| protocols.get(listener as usize));
        Session::of(protocol.copied().unwrap_or_default())
    }

    /// From now on this thread does not wait for memory: it has others to serve.
    pub fn defer_waits(&mut self) {
        self.participant.defer_waits();
    }

    /// Executes what `input` asks for, until something stops it.
    ///
    /// `input` is everything the peer has sent that was not consumed yet, or a prefix of it.
    pub fn drive(
        &mut self,
        session: &mut Session,
        input: &[u8],
        now: Now,
        budget: &mut Budget,
        output: &mut impl Spanning<Span>,
    ) -> Progress {
        self.participant.begin(now);
        self.look_for_watchers();
        let number = session.number;
        let mut batch = Batch::new((self, number), input, now, budget, output);
        loop {
            let state = &mut session.state;
            let step = match state {
                State::Idle => batch.idle(state),
                State::Opening(_) => batch.open(state),
                State::KeyList(_) => batch.key_list(state),
                State::Sending(_) => batch.send(state),
                State::Filling(_) => batch.fill(state),
                State::Swallowing(_) => batch.swallow(state),
                State::SkippingLine => batch.skip_line(state),
                State::Reporting(_) => batch.report(state),
                State::Dumping(_) => batch.dump(state),
                State::Login(_) => batch.login(state),
                State::Binary(_) => batch.binary(state),
                State::Pruning(_) => batch.prune(state),
                State::Sizing(_) => batch.size(state),
                State::Watching(_) => batch.watch(state),
                State::Closed | State::Broken => Some(Verdict::Close),
            };
            if let Some(verdict) = step {
                let progress = Progress { consumed: batch.consumed(), verdict };
                self.log_evictions(now);
                return progress;
            }
        }
    }

    /// Counts the requests that have been executed since this was called last as such that took so
    /// long.
    #[inline]
    pub fn tell_latency(&mut self, latency_ns: u64) {
        self.classes.tell(&self.counters, latency_ns);
    }

    /// Gives back what a session holds of the store. Its connection is dead.
    pub fn abandon(&mut self, session: &mut Session) {
        match std::mem::replace(&mut session.state, State::Closed) {
            State::Filling(filling) => self.participant.abandon(filling.reservation),
            State::Sending(sending) => self.participant.unpin(sending.pin),
            State::Pruning(_) => self.shared.prunings.give_back(),
            State::Sizing(_) => self.shared.sizings.give_back(),
            State::Watching(watcher) => self.shared.watchers.remove(&watcher, &self.counters),
            State::Opening(_)
            | State::Idle
            | State::KeyList(_)
            | State::Swallowing(_)
            | State::SkippingLine
            | State::Reporting(_)
            | State::Dumping(_)
            | State::Login(_)
            | State::Binary(_)
            | State::Closed
            | State::Broken => {}
        }
    }

    /// True when a session waits for so much of a value that it should be received straight into
    /// its item.
    pub fn awaits_much(session: &Session) -> bool {
        match &session.state {
            State::Filling(filling) => filling.reservation.missing() > DIRECT_BYTES_MIN,
            State::Opening(_)
            | State::Idle
            | State::KeyList(_)
            | State::Sending(_)
            | State::Swallowing(_)
            | State::SkippingLine
            | State::Reporting(_)
            | State::Dumping(_)
            | State::Login(_)
            | State::Binary(_)
            | State::Pruning(_)
            | State::Sizing(_)
            | State::Watching(_)
            | State::Closed
            | State::Broken => false,
        }
    }

    /// True when a session has all of a value, and what remains to be done with it needs no more
    /// input.
    pub fn has_all(session: &Session) -> bool {
        match &session.state {
            State::Filling(filling) => {
                filling.reservation.missing() == 0 && filling.answer.value_end().is_empty()
            }
            State::Opening(_)
            | State::Idle
            | State::KeyList(_)
            | State::Sending(_)
            | State::Swallowing(_)
            | State::SkippingLine
            | State::Reporting(_)
            | State::Dumping(_)
            | State::Login(_)
            | State::Binary(_)
            | State::Pruning(_)
            | State::Sizing(_)
            | State::Watching(_)
            | State::Closed
            | State::Broken => false,
        }
    }

    /// Lends the memory that the next bytes of a value belong to. Until it is back, the session
    /// must be shown no input, and must not be abandoned. `None` when there is no value, or no
    /// memory without waiting for it; then what to do about that is left to `drive`, at the next
    /// bytes.
    pub fn lend_for_value(&mut self, session: &mut Session, now: Now) -> Option<ValuePart> {
        let State::Filling(filling) = &mut session.state else { return None };
        let missing = filling.reservation.missing();
        let loan = self.participant.lend_for_value(&mut filling.reservation, now).ok()?;
        let is_last = loan.len() == missing;
        Some(ValuePart { loan, is_last })
    }

    /// Takes back what was lent; its first `len` bytes are the next ones of the value.
    ///
    /// # Panics
    /// If it was not lent for this session.
    pub fn take_value_back(&mut self, session: &mut Session, loan: Loan, len: usize) {
        let State::Filling(filling) = &mut session.state else {
            unreachable!("only a value is lent memory")
        };
        self.participant.take_value_back(&mut filling.reservation, loan, len);
    }

    /// Bytes that a session keeps from being evicted: those of a value that it is being sent, or
    /// those that have come of one that it sends.
    pub fn held_bytes(session: &Session) -> usize {
        match &session.state {
            State::Filling(filling) => filling.reservation.held_bytes(),
            State::Sending(sending) => sending.pin.value_bytes(),
            State::Opening(_)
            | State::Idle
            | State::KeyList(_)
            | State::Swallowing(_)
            | State::SkippingLine
            | State::Reporting(_)
            | State::Dumping(_)
            | State::Login(_)
            | State::Binary(_)
            | State::Pruning(_)
            | State::Sizing(_)
            | State::Watching(_)
            | State::Closed
            | State::Broken => 0,
        }
    }

    /// Takes back what an output was given to send from where it is, and has sent.
    pub fn take_span_back(&mut self, span: Span) {
        self.participant.give_back(span);
    }

    /// True while more values may be sent from where they lie.
    pub fn may_span_more(&self) -> bool {
        self.participant.may_pin_more()
    }

    /// Bytes of values that only those who are being sent them keep any more: of the one that a
    /// session is being sent, and of those that the spans are of, each once.
    pub fn outdated_bytes<'s>(
        &self,
        session: &Session,
        spans: impl Iterator<Item = &'s Span>,
    ) -> usize {
        let own = match &session.state {
            State::Sending(sending) => self.participant.outdated_bytes_of(&sending.pin),
            State::Opening(_)
            | State::Idle
            | State::KeyList(_)
            | State::Filling(_)
            | State::Swallowing(_)
            | State::SkippingLine
            | State::Reporting(_)
            | State::Dumping(_)
            | State::Login(_)
            | State::Binary(_)
            | State::Pruning(_)
            | State::Sizing(_)
            | State::Watching(_)
            | State::Closed
            | State::Broken => 0,
        };
        let mut last = None;
        let mut of_span = |span: &Span| match last.replace(span.note()) == Some(span.note()) {
            true => 0,
            false => self.participant.outdated_bytes(span),
        };
        own + spans.map(&mut of_span).sum::<usize>()
    }

    /// True in the middle of a value that is replied in pieces, or of a list of all keys.
    pub fn is_amid_reply(session: &Session) -> bool {
        matches!(session.state, State::Sending(_) | State::Dumping(_))
    }

    pub fn table(&self) -> &Table {
        &self.shared.table
    }

    /// For `quiesce`, `offline` and `online`.
    pub fn participant(&mut self) -> &mut Participant {
        &mut self.participant
    }
}
