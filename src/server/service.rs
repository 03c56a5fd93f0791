//! What a ring or a worker executes requests with.

use std::net::SocketAddr;

use crate::base::clock::Now;
use crate::base::limits::IDLE_CONNECTION_BYTES;
use crate::base::output::Spanning;
use crate::command::{Budget, Executor, Progress, Session, ValuePart};
use crate::net::close::CloseReason;
use crate::net::connection::Connection;
use crate::server::ring_loop::PLACE_BYTES;
use crate::sys::region::{Loan, Span};

/// The protocol side of a thread. The server itself knows no protocol.
///
/// The null server of the benchmarks and the simulation are other services on the same loop.
pub trait Service {
    /// What a connection must remember between two calls of `drive`.
    type Session: Default + Send;

    /// The session of a connection that the listener of this number has accepted, or of a datagram
    /// that came in there.
    fn session(&self, _listener: Option<u32>) -> Self::Session {
        Self::Session::default()
    }

    /// Executes requests from `input`; see `command::Executor::drive`.
    fn drive(
        &mut self,
        session: &mut Self::Session,
        input: &[u8],
        now: Now,
        budget: &mut Budget,
        output: &mut impl Spanning<Span>,
    ) -> Progress;

    /// From now on this thread does not wait for others while it executes: `drive` says
    /// `Verdict::WouldWait` instead.
    fn defer_waits(&mut self) {}

    /// What has been executed since the last call has taken so long.
    #[inline]
    fn tell_latency(&mut self, _latency_ns: u64) {}

    /// A connection with this number has come, from an address or over a Unix socket.
    fn begin(&mut self, _: &mut Self::Session, _number: u32, _: Option<SocketAddr>, _: Now) {}

    /// A connection ends.
    fn end(&mut self, _: &Self::Session, _: Option<SocketAddr>, _: CloseReason, _: Now) {}

    /// True of a session that is told what happens.
    fn is_watching(&self, _: &Self::Session) -> bool {
        false
    }

    /// True of one that has something to be told: `drive` is to be called for it, without input.
    fn has_news(&self, _: &Self::Session) -> bool {
        false
    }

    /// Gives back what the session of a dead connection holds.
    fn abandon(&mut self, session: &mut Self::Session);

    /// The thread refers to nothing shared just now: once a turn.
    fn quiesce(&mut self);

    /// The thread refers to nothing shared until `wake`: before it may sleep.
    fn rest(&mut self);

    fn wake(&mut self);

    /// Lends memory for replies: a few blocks to 128. `None` when there is none now.
    fn lend(&mut self) -> Option<Loan>;

    /// Takes memory back.
    fn take_back(&mut self, loan: Loan);

    /// Bytes that connections of all threads take beyond what they may.
    fn overdrawn_bytes(&self) -> usize;

    /// Bytes that sessions should give up of what they hold: others ask for it in vain.
    fn starved_bytes(&mut self) -> usize {
        0
    }

    /// Nobody can be received from, as what has come of those who wait for memory is in the way:
    /// who waits until others' values have come should be refused, for a moment.
    fn refuse_arrivals(&mut self, _: Now) {}

    /// Bytes that a session holds of what others may want.
    fn held_bytes(&self, _: &Self::Session) -> usize {
        0
    }

    /// True when a session waits for so much of a value that it should be received straight into
    /// its place.
    fn awaits_much(&self, _: &Self::Session) -> bool {
        false
    }

    /// True when a session that was lent memory for a value goes on without any input.
    fn has_all(&self, _: &Self::Session) -> bool {
        false
    }

    /// Lends the memory that the next bytes of a value belong to; `None` when there is none. Until
    /// it is back, the session is shown no input and is not abandoned.
    fn lend_for_value(&mut self, _: &mut Self::Session, _: Now) -> Option<ValuePart> {
        None
    }

    /// Takes back what was lent; its first `len` bytes are the next ones of the value.
    fn take_value_back(&mut self, _: &mut Self::Session, loan: Loan, _len: usize) {
        unreachable!("{loan:?} was never lent");
    }

    /// Takes back what an output was given to send from where it is, and has sent, or will not.
    fn take_span_back(&mut self, span: Span) {
        unreachable!("{span:?} was never given out");
    }

    /// Bytes by which all that is of use to nobody but who is being sent it is more than even all
    /// that is being sent should be.
    fn outdated_flood_bytes(&self) -> usize {
        0
    }

    /// Bytes of use to nobody but who is being sent them: of the values that these spans are of,
    /// and of that which a session is being sent.
    fn outdated_bytes<'s>(
        &self,
        _: &Self::Session,
        _spans: impl Iterator<Item = &'s Span>,
    ) -> usize {
        0
    }

    /// Bytes by which all threads together keep more of them than they should.
    fn outdated_excess_bytes(&self) -> usize {
        0
    }

    /// True while more values may be sent from where they lie; after `Verdict::SpansFull`, when it
    /// is worth to go on.
    fn may_span_more(&self) -> bool {
        true
    }

    /// So many connections of this thread wait for that now, and so many did before.
    fn tell_spanless(&mut self, _before: usize, _now: usize) {}

    /// How many of all threads do.
    fn spanless(&self) -> usize {
        0
    }

    /// True in the middle of a long reply.
    fn is_amid_reply(&self, _: &Self::Session) -> bool {
        false
    }

    /// Connections take much more or less of the heap than when this was called last.
    fn heap_has_changed(&mut self) {}

    /// Bytes that all threads together may be lent beside those that are.
    fn lendable_bytes(&self) -> usize;

    /// Bytes that all threads together may be lent at most.
    fn pool_bytes(&self) -> usize;
}

const _: () =
    assert!((size_of::<Connection<Session>>() + PLACE_BYTES) as u64 <= IDLE_CONNECTION_BYTES);

impl Service for Executor {
    type Session = Session;

    fn session(&self, listener: Option<u32>) -> Session {
        Executor::session(self, listener)
    }

    fn drive(
        &mut self,
        session: &mut Session,
        input: &[u8],
        now: Now,
        budget: &mut Budget,
        output: &mut impl Spanning<Span>,
    ) -> Progress {
        Executor::drive(self, session, input, now, budget, output)
    }

    fn defer_waits(&mut self) {
        Executor::defer_waits(self);
    }

    #[inline]
    fn tell_latency(&mut self, latency_ns: u64) {
        Executor::tell_latency(self, latency_ns);
    }

    fn begin(&mut self, session: &mut Session, number: u32, peer: Option<SocketAddr>, now: Now) {
        Executor::begin(self, session, number, peer, now);
    }

    fn end(&mut self, session: &Session, peer: Option<SocketAddr>, reason: CloseReason, now: Now) {
        let reason = match reason {
            CloseReason::Command if Executor::is_broken(session) => "error",
            CloseReason::Ended | CloseReason::Command => "normal",
            CloseReason::Idle => "idle_timeout",
            CloseReason::Draining => "shutdown",
            CloseReason::Broken
            | CloseReason::Stalled
            | CloseReason::Replies
            | CloseReason::Pool
            | CloseReason::Items
            | CloseReason::Spans => "error",
        };
        Executor::end(self, session, peer, reason, now);
    }

    fn is_watching(&self, session: &Session) -> bool {
        Executor::is_watching(session)
    }

    fn has_news(&self, session: &Session) -> bool {
        Executor::has_news(session)
    }

    fn abandon(&mut self, session: &mut Session) {
        Executor::abandon(self, session);
    }

    fn quiesce(&mut self) {
        self.participant().quiesce();
    }

    fn rest(&mut self) {
        self.participant().offline();
    }

    fn wake(&mut self) {
        self.participant().online();
    }

    fn lend(&mut self) -> Option<Loan> {
        self.table().lend()
    }

    fn take_back(&mut self, loan: Loan) {
        self.table().take_back(loan);
    }

    fn overdrawn_bytes(&self) -> usize {
        self.table().overdrawn_bytes()
    }

    fn starved_bytes(&mut self) -> usize {
        self.participant().starved_bytes()
    }

    fn refuse_arrivals(&mut self, now: Now) {
        self.table().refuse_arrivals(now);
    }

    fn held_bytes(&self, session: &Session) -> usize {
        Executor::held_bytes(session)
    }

    fn awaits_much(&self, session: &Session) -> bool {
        Executor::awaits_much(session)
    }

    fn has_all(&self, session: &Session) -> bool {
        Executor::has_all(session)
    }

    fn lend_for_value(&mut self, session: &mut Session, now: Now) -> Option<ValuePart> {
        Executor::lend_for_value(self, session, now)
    }

    fn take_value_back(&mut self, session: &mut Session, loan: Loan, len: usize) {
        Executor::take_value_back(self, session, loan, len);
    }

    fn take_span_back(&mut self, span: Span) {
        Executor::take_span_back(self, span);
    }

    fn outdated_bytes<'s>(
        &self,
        session: &Session,
        spans: impl Iterator<Item = &'s Span>,
    ) -> usize {
        Executor::outdated_bytes(self, session, spans)
    }

    fn outdated_flood_bytes(&self) -> usize {
        usize::try_from(self.table().outdated_flood_bytes()).unwrap_or(usize::MAX)
    }

    fn outdated_excess_bytes(&self) -> usize {
        usize::try_from(self.table().outdated_excess_bytes()).unwrap_or(usize::MAX)
    }

    fn may_span_more(&self) -> bool {
        Executor::may_span_more(self)
    }

    fn tell_spanless(&mut self, before: usize, now: usize) {
        self.table().tell_spanless(before, now);
    }

    fn spanless(&self) -> usize {
        self.table().spanless()
    }

    fn is_amid_reply(&self, session: &Session) -> bool {
        Executor::is_amid_reply(session)
    }

    fn heap_has_changed(&mut self) {
        self.table().call_keeper();
    }

    fn lendable_bytes(&self) -> usize {
        self.table().lendable_bytes()
    }

    fn pool_bytes(&self) -> usize {
        self.table().lendable_bytes_max()
    }
}
