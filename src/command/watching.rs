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
use super::meta::{KeySpace, plain_key, wanted_cas};
use super::session::{Plan, State};
use super::watchers::{Observer, Watcher};
use super::{Executor, Session, Shared, Switches, Verdict};
use crate::base::clock::Now;
use crate::base::hash::KeyHash;
use crate::base::limits::KEY_BYTES_MAX;
use crate::base::metrics::{Counters, Metric};
use crate::base::output::Output;
use crate::base::sync::Arc as SyncArc;
use crate::protocol::memcache::{Fetched, Head, LogEntry, MetaHead, MetaVerb, WatchKinds, reply};
use crate::store::{
    Condition, Eviction, Item, Miss, Outcome, Participant, Refusal, Reservation, Side,
};

/// What there is to tell of each value that is stored, if somebody watches it.
pub(super) const STORES: WatchKinds = WatchKinds::FETCHERS.with(WatchKinds::MUTATIONS);

/// What there is to tell of each other request about a key.
pub(super) const OTHERS: WatchKinds = STORES.with(WatchKinds::DELETIONS);

/// What was there when a key was looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    status: Fetched,
    class: u8,
    value_bytes: u64,
    /// 0 is for ever.
    ttl_s: u64,
    cas: u64,
}

impl Sight {
    const MISSED: Sight =
        Sight { status: Fetched::NotFound, class: 0, value_bytes: 0, ttl_s: 0, cas: 0 };

    fn is_there(self) -> bool {
        self.status == Fetched::Found
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

fn status(outcome: Outcome, plan: Plan) -> &'static str {
    match outcome {
        Outcome::Stored { .. } => "stored",
        Outcome::NotStored => "not_stored",
        Outcome::Exists => "exists",
        Outcome::NotFound => "not_found",
        // As the peer is told.
        Outcome::NoMemory if matches!(plan, Plan::Join(_)) => "not_stored",
        Outcome::NoMemory => "no_memory",
    }
}

/// What there was of a key that is looked for next.
#[derive(Debug)]
pub(super) struct Glimpse {
    key: Box<[u8]>,
    sight: Sight,
    /// How much was consumed before.
    consumed: usize,
}

/// What a request does about its key, beside looking for it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    Look,
    /// It deletes the item, and tells so.
    Delete(&'static str),
    /// It takes the value out of an item, whose cas has to be this one, if it matters.
    Empty {
        cas: Option<u64>,
        tells: bool,
    },
    /// It may make an item.
    Count,
}

/// What a head does, and the key that it is about, if it is about one and no value follows.
fn deed<'k>(
    head: &Head<'k>,
    switches: Switches,
    space: &'k mut KeySpace,
) -> Option<(&'k [u8], Deed)> {
    match *head {
        Head::Touch { key, .. } => Some((key, Deed::Look)),
        Head::Delete { key, .. } => Some((key, Deed::Delete("delete"))),
        Head::Incr(delta) | Head::Decr(delta) => Some((delta.key, Deed::Look)),
        Head::Meta(MetaHead { verb, key, ref flags }) => {
            let deed = match verb {
                MetaVerb::Set { .. } => return None,
                MetaVerb::Debug => Deed::Look,
                MetaVerb::Arithmetic { .. } => Deed::Count,
                MetaVerb::Delete if flags.has(b'x') => {
                    Deed::Empty { cas: wanted_cas(flags, switches), tells: !flags.has(b'I') }
                }
                MetaVerb::Delete if flags.has(b'I') => Deed::Look,
                MetaVerb::Delete => Deed::Delete("md"),
            };
            Some((plain_key(key, flags, space), deed))
        }
        Head::Store(_)
        | Head::Refused { .. }
        | Head::FlushAll { .. }
        | Head::Version
        | Head::Verbosity { .. }
        | Head::Quit
        | Head::Shutdown { .. }
        | Head::Stats { .. }
        | Head::Operator { .. }
        | Head::Noop => None,
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
            State::Opening(_)
            | State::Idle
            | State::KeyList(_)
            | State::Sending(_)
            | State::Filling(_)
            | State::Swallowing(_)
            | State::SkippingLine
            | State::Reporting(_)
            | State::Dumping(_)
            | State::Pruning(_)
            | State::Sizing(_)
            | State::Login(_)
            | State::Binary(_)
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
        let Some((skipped, line)) = watcher.pop(counters) else { return };
        if skipped > 0 {
            self.output.put(format!("skipped={skipped}\n").as_bytes());
        }
        self.output.put(&line);
        counters.bump(Metric::LogWatcherSent);
    }

    /// Looks for a key without being noticed.
    pub(super) fn sight(&self, key: &[u8], hash: KeyHash) -> Sight {
        let missed = |status| Sight { status, ..Sight::MISSED };
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
        let value_bytes = item.value_bytes() as u64;
        let ttl_s = item.expiry().left_s(self.now).unwrap_or(0);
        Sight { status: Fetched::Found, class, value_bytes, ttl_s, cas: item.cas() }
    }

    /// Looks for a key that comes next. One alone is answered then.
    #[cold]
    pub(super) fn glimpse(&self, key: &[u8]) -> Option<Box<Glimpse>> {
        let sight = self.sight(key, self.executor.table().hash(key));
        Some(Box::new(Glimpse { key: key.into(), sight, consumed: self.consumed }))
    }

    /// Tells of it, if it was answered.
    #[cold]
    pub(super) fn log_glimpse(&self, glimpse: &Glimpse) {
        if self.consumed > glimpse.consumed {
            self.log_fetch(&glimpse.key, glimpse.sight);
        }
    }

    pub(super) fn log_fetch(&self, key: &[u8], it: Sight) {
        let Sight { status, class, value_bytes, .. } = it;
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
        let mut space = [0; KEY_BYTES_MAX];
        let switches = self.executor.shared.facts.switches;
        let Some((key, deed)) = deed(head, switches, &mut space) else {
            return self.execute(head, hash, state);
        };
        let before = self.sight(key, hash);
        let step = self.execute(head, hash, state);
        // What is shown again is told then.
        if !matches!(step, Some(Verdict::WouldWait | Verdict::Defer)) {
            self.log_deed((key, hash), before, deed);
        }
        step
    }

    /// Tells what a request has come to, by what was there before, and what is there now. What
    /// makes an item on the way looks for its key once more, as memcached has it.
    #[cold]
    pub(super) fn log_deed(&self, (key, hash): (&[u8], KeyHash), before: Sight, deed: Deed) {
        self.log_fetch(key, before);
        let after = self.sight(key, hash);
        match deed {
            Deed::Look => {}
            Deed::Delete(verb) => {
                if before.is_there() && !after.is_there() {
                    self.log_deletion(key, before, verb);
                }
            }
            Deed::Empty { cas, tells } => {
                let may = before.is_there() && cas.is_none_or(|cas| cas == before.cas);
                if may && after.is_there() && after.value_bytes == 0 {
                    self.log_fetch(key, before);
                    self.log_store(key, "stored", "set", after);
                    if tells {
                        self.log_deletion(key, after, "md");
                    }
                }
            }
            Deed::Count => {
                if !before.is_there() && after.is_there() {
                    self.log_fetch(key, before);
                    self.log_store(key, "stored", "add", after);
                }
            }
        }
    }

    fn log_deletion(&self, key: &[u8], gone: Sight, verb: &'static str) {
        let Sight { class, value_bytes, .. } = gone;
        self.executor.log(&LogEntry::Deletion { key, verb, class, value_bytes }, self.now);
    }

    /// Tells of a value that was stored, or was not.
    fn log_store(&self, key: &[u8], status: &'static str, verb: &'static str, it: Sight) {
        let Sight { class, value_bytes, ttl_s, .. } = it;
        let connection = self.number;
        let entry = LogEntry::Store { key, status, verb, ttl_s, class, connection, value_bytes };
        self.executor.log(&entry, self.now);
    }

    /// As `make_item`, where somebody watches.
    #[cold]
    pub(super) fn conclude_watched(
        &mut self,
        reservation: Reservation,
        plan: Plan,
    ) -> Result<Outcome, Reservation> {
        let (participant, table) = (&self.executor.participant, self.executor.table());
        let key: Box<[u8]> = participant.reserved_key(&reservation).into();
        let (hash, value_bytes) = (reservation.hash(), reservation.value_bytes());
        let mut it = Sight {
            class: table.class_for(key.len() + value_bytes),
            value_bytes: value_bytes as u64,
            ttl_s: participant.reserved_expiry(&reservation).left_s(self.now).unwrap_or(0),
            ..Sight::MISSED
        };
        let before = self.sight(&key, hash);
        let outcome = self.make_item(reservation, plan)?;
        if let (Plan::Join(_), Outcome::Stored { .. }) = (plan, outcome) {
            // What the two make together.
            it = self.sight(&key, hash);
        }
        self.log_fetch(&key, before);
        self.log_store(&key, status(outcome, plan), verb(plan), it);
        Ok(outcome)
    }

    /// Tells of a value that there was no room for.
    pub(super) fn log_refusal(&self, key: &[u8], plan: Plan, refusal: Refusal) {
        if self.executor.watches(WatchKinds::MUTATIONS) {
            let is_too_large = refusal == Refusal::TooLarge;
            let status = if is_too_large { "too_large" } else { "no_memory" };
            self.log_store(key, status, verb(plan), Sight::MISSED);
        }
    }
}
