//! `watch`: a connection that is told what happens, from then on and until it ends.
//!
//! What it sends is of no use any more and is thrown away. Its lines go out as far as there is room
//! for replies: like any other, a peer that does not read has the ring write no more to it, and it
//! loses lines.
//!
//! What there is to tell is found out here, too, by executors that are watched, beside what they do
//! anyway. That is allowed to cost something: the other way stays as it is.

use std::net::SocketAddr;
use std::sync::Arc;

use super::batch::{Batch, Step};
use super::session::{Plan, State};
use super::watchers::{Observer, Watcher};
use super::{Executor, Session, Shared, Verdict};
use crate::base::clock::{Expiry, Now};
use crate::base::hash::KeyHash;
use crate::base::metrics::{Counters, Metric};
use crate::base::output::Output;
use crate::base::sync::Arc as SyncArc;
use crate::protocol::memcache::{Fetched, Head, LogEntry, WatchKinds, reply};
use crate::store::{
    Condition, Eviction, Item, ItemHead, Miss, Outcome, Participant, Refusal, Reservation, Side,
};

/// What was there when a key was looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    status: Fetched,
    class: u8,
    value_bytes: u64,
}

/// A value that is stored, as far as it matters to who watches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storing<'a> {
    pub key: &'a [u8],
    pub expiry: Expiry,
    pub value_bytes: usize,
    pub plan: Plan,
}

impl<'a> Storing<'a> {
    pub(super) fn of(head: &ItemHead<'a>, plan: Plan) -> Storing<'a> {
        Storing { key: head.key, expiry: head.expiry, value_bytes: head.value_bytes, plan }
    }
}

/// The same, kept by itself.
#[derive(Debug)]
pub(super) struct Kept {
    key: Box<[u8]>,
    expiry: Expiry,
    value_bytes: usize,
}

impl Kept {
    pub(super) fn storing(&self, plan: Plan) -> Storing<'_> {
        let Kept { ref key, expiry, value_bytes } = *self;
        Storing { key, expiry, value_bytes, plan }
    }
}

fn verb(plan: Plan) -> &'static str {
    match plan {
        Plan::Put(Condition::Always) => "set",
        Plan::Put(Condition::Absent) => "add",
        Plan::Put(Condition::Present) => "replace",
        Plan::Put(_) => "cas",
        Plan::Join(join) if join.side == Side::Append => "append",
        Plan::Join(_) => "prepend",
    }
}

fn status(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Stored { .. } => "stored",
        Outcome::NotStored => "not_stored",
        Outcome::Exists => "exists",
        Outcome::NotFound => "not_found",
        Outcome::NoMemory => "no_memory",
    }
}

/// The key that a request is about.
fn key_of<'a>(head: &Head<'a>) -> Option<&'a [u8]> {
    match *head {
        Head::Store(head) => Some(head.key),
        Head::Touch { key, .. } | Head::Delete { key, .. } => Some(key),
        Head::Incr(delta) | Head::Decr(delta) => Some(delta.key),
        Head::Refused { .. }
        | Head::FlushAll { .. }
        | Head::Version
        | Head::Verbosity { .. }
        | Head::Quit
        | Head::Shutdown { .. }
        | Head::Stats { .. }
        | Head::Operator { .. } => None,
    }
}

impl Executor {
    /// Takes notice of who watches.
    #[inline]
    pub(super) fn look_for_watchers(&mut self) {
        if self.observer.look(&self.shared.watchers) {
            let tells = self.watches(WatchKinds::EVICTIONS);
            self.participant.tell_evictions(tells);
        }
    }

    /// True when somebody watches one of these.
    #[inline]
    pub(super) fn watches(&self, kinds: WatchKinds) -> bool {
        self.observer.kinds().has(kinds)
    }

    fn log(&self, entry: &LogEntry<'_>, now: Now) {
        self.observer.tell(&self.shared.watchers, &self.counters, entry, now);
    }

    /// Tells what was evicted, if that is watched.
    #[inline]
    pub(super) fn log_evictions(&mut self, now: Now) {
        if self.watches(WatchKinds::EVICTIONS) {
            let told = (&self.observer, &*self.shared, &*self.counters);
            tell_evictions(&mut self.participant, told, now);
        }
    }

    /// A connection with this number has come, which the session remembers.
    pub fn begin(
        &mut self,
        session: &mut Session,
        number: u32,
        peer: Option<SocketAddr>,
        now: Now,
    ) {
        session.number = number;
        self.look_for_watchers();
        if self.watches(WatchKinds::CONNEVENTS) {
            self.log(&LogEntry::Arrival { peer, connection: number }, now);
        }
    }

    /// A connection ends, for this reason in memcached's words.
    pub fn end(
        &mut self,
        session: &Session,
        peer: Option<SocketAddr>,
        reason: &'static str,
        now: Now,
    ) {
        self.look_for_watchers();
        if self.watches(WatchKinds::CONNEVENTS) {
            self.log(&LogEntry::Departure { peer, reason, connection: session.number }, now);
        }
    }

    /// True when a session was closed because its peer broke the protocol.
    pub fn is_broken(session: &Session) -> bool {
        matches!(session.state, State::Broken)
    }

    /// True of a session that watches.
    pub fn is_watching(session: &Session) -> bool {
        matches!(session.state, State::Watching(_))
    }

    /// True of a session that watches, and has something to be told.
    pub fn has_news(session: &Session) -> bool {
        match &session.state {
            State::Watching(watcher) => watcher.has_lines(),
            State::Idle
            | State::KeyList(_)
            | State::Sending(_)
            | State::Filling(_)
            | State::Swallowing(_)
            | State::SkippingLine
            | State::Reporting(_)
            | State::Dumping(_)
            | State::Pruning(_)
            | State::Closed
            | State::Broken => false,
        }
    }
}

/// Tells what a thread has evicted that executes no requests.
#[derive(Debug)]
pub struct EvictionLog {
    shared: Arc<Shared>,
    counters: SyncArc<Counters>,
    observer: Observer,
}

impl EvictionLog {
    pub fn new(shared: Arc<Shared>, counters: SyncArc<Counters>) -> EvictionLog {
        EvictionLog { shared, counters, observer: Observer::default() }
    }

    pub fn tell(&mut self, participant: &mut Participant, now: Now) {
        let was_watched = self.observer.kinds().has(WatchKinds::EVICTIONS);
        if was_watched {
            let told = (&self.observer, &*self.shared, &*self.counters);
            tell_evictions(participant, told, now);
        }
        if self.observer.look(&self.shared.watchers) {
            participant.tell_evictions(self.observer.kinds().has(WatchKinds::EVICTIONS));
        }
    }
}

/// Tells of an item that was deleted for how its key begins.
#[cold]
pub(super) fn log_deletion_of(
    item: &Item<'_>,
    (observer, shared, counters): (&Observer, &Shared, &Counters),
    now: Now,
) {
    let entry = LogEntry::Deletion {
        key: item.key(),
        verb: "delete_prefix",
        class: shared.table.class_of(item),
        value_bytes: item.value_bytes() as u64,
    };
    observer.tell(&shared.watchers, counters, &entry, now);
}

#[cold]
fn tell_evictions(
    participant: &mut Participant,
    (observer, shared, counters): (&Observer, &Shared, &Counters),
    now: Now,
) {
    for evicted in participant.take_evictions() {
        let Eviction { ref key, is_fetched, ttl_s, idle_s, class, value_bytes } = evicted;
        let entry = LogEntry::Eviction { key, is_fetched, ttl_s, idle_s, class, value_bytes };
        observer.tell(&shared.watchers, counters, &entry, now);
    }
}

impl<O: Output> Batch<'_, O> {
    /// Makes a watcher of the connection.
    pub(super) fn start_watch(&mut self, kinds: Option<WatchKinds>, state: &mut State) -> Step {
        let shared = &self.executor.shared;
        if !shared.facts.switches.watch {
            self.output.put(reply::WATCH_NOT_ALLOWED);
            return None;
        }
        let Some(kinds) = kinds else {
            self.output.put(reply::ERROR);
            return None;
        };
        let Some(watcher) = shared.watchers.add(kinds) else {
            self.output.put(reply::TOO_MANY_WATCHERS);
            return None;
        };
        self.output.put(reply::OK);
        *state = State::Watching(watcher);
        Some(Verdict::Watch)
    }

    /// Tells a watcher what there is to tell.
    pub(super) fn watch(&mut self, state: &mut State) -> Step {
        let State::Watching(watcher) = state else { unreachable!() };
        self.consume(self.rest().len());
        while watcher.has_lines() {
            if let Some(verdict) = self.obstacle() {
                return Some(verdict);
            }
            self.pay();
            self.tell_line(watcher);
        }
        Some(Verdict::NeedInput)
    }

    fn tell_line(&mut self, watcher: &Watcher) {
        let counters = &self.executor.counters;
        let Some(line) = watcher.pop(counters) else { return };
        let skipped = watcher.take_skipped();
        if skipped > 0 {
            self.output.put(format!("skipped={skipped}\n").as_bytes());
        }
        self.output.put(&line);
        counters.bump(Metric::LogWatcherSent);
    }

    /// Looks for a key without being noticed.
    pub(super) fn sight(&self, key: &[u8], hash: KeyHash) -> Sight {
        let missed = |status| Sight { status, class: 0, value_bytes: 0 };
        match self.executor.participant.look(key, hash, self.now) {
            Ok(item) => self.sight_of(&item),
            Err(Miss::Absent) => missed(Fetched::NotFound),
            Err(Miss::Flushed) => missed(Fetched::Flushed),
            Err(Miss::Expired) => missed(Fetched::Expired),
        }
    }

    fn sight_of(&self, item: &Item<'_>) -> Sight {
        let class = self.executor.table().class_of(item);
        // Lossless: no target has a wider usize.
        Sight { status: Fetched::Found, class, value_bytes: item.value_bytes() as u64 }
    }

    pub(super) fn log_fetch(&self, key: &[u8], Sight { status, class, value_bytes }: Sight) {
        let connection = self.number;
        let entry = LogEntry::Get { key, status, class, connection, value_bytes };
        self.executor.log(&entry, self.now);
    }

    /// As `execute`, where somebody watches.
    #[cold]
    pub(super) fn execute_watched(
        &mut self,
        head: &Head<'_>,
        hash: KeyHash,
        state: &mut State,
    ) -> Step {
        let Some(key) = key_of(head) else { return self.execute(head, hash, state) };
        let before = self.sight(key, hash);
        self.log_fetch(key, before);
        let step = self.execute(head, hash, state);
        if matches!(head, Head::Delete { .. }) {
            self.log_deletion(key, before, "delete");
        }
        step
    }

    fn log_deletion(&self, key: &[u8], before: Sight, verb: &'static str) {
        let Sight { status, class, value_bytes } = before;
        if status == Fetched::Found {
            self.executor.log(&LogEntry::Deletion { key, verb, class, value_bytes }, self.now);
        }
    }

    /// Tells of a value that was stored, or was not.
    #[cold]
    pub(super) fn log_store(&self, storing: &Storing<'_>, status: &'static str) {
        let Storing { key, expiry, value_bytes, plan } = *storing;
        let entry = LogEntry::Store {
            key,
            status,
            verb: verb(plan),
            ttl_s: expiry.left_s(self.now).unwrap_or(0),
            class: self.executor.table().class_for(key.len() + value_bytes),
            connection: self.number,
            value_bytes: value_bytes as u64,
        };
        self.executor.log(&entry, self.now);
    }

    /// What there will be to tell of a value that is about to be stored, if that is watched.
    #[inline]
    pub(super) fn keep_watched(&self, reservation: &Reservation) -> Option<Box<Kept>> {
        let keep = || {
            let participant = &self.executor.participant;
            Box::new(Kept {
                key: participant.reserved_key(reservation).into(),
                expiry: participant.reserved_expiry(reservation),
                value_bytes: reservation.value_bytes(),
            })
        };
        self.executor.watches(WatchKinds::MUTATIONS).then(keep)
    }

    pub(super) fn log_refusal(&self, storing: &Storing<'_>, refusal: Refusal) {
        if self.executor.watches(WatchKinds::MUTATIONS) {
            let is_too_large = refusal == Refusal::TooLarge;
            self.log_store(storing, if is_too_large { "too_large" } else { "no_memory" });
        }
    }

    #[inline]
    pub(super) fn log_outcome(&self, storing: &Storing<'_>, outcome: Outcome) {
        if self.executor.watches(WatchKinds::MUTATIONS) {
            self.log_store(storing, status(outcome));
        }
    }
}
