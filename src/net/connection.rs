//! The life of one connection, as a value. Nothing here does IO.
//!
//! ```text
//!              finish              flushed
//!     Open ------------> Draining ---------> Closing ---(quiet)---> released
//!       |                    |                  ^
//!       +------ abort -------+------------------+
//! ```
//!
//! Events are recorded; `step` then says, from the state alone, what must be submitted. Invariant:
//! a connection is released only when it is quiet, that is, when the kernel owes no completion that
//! names its slot and no worker holds its batch.

use super::close::CloseReason;
use super::input::Input;
use super::output::Output;
use super::peers::BucketId;
use super::progress::Progress;
use super::throttle::Quota;
use crate::base::census::{Doing, Sighting};
use crate::base::clock::Now;
use crate::sys::blocks::BLOCK_BYTES;
use crate::sys::buffers::Filled;
use crate::sys::socket::Socket;

/// A peer on this host that has sent nothing for so long may have ended, and the kernel not told:
/// a multishot receive that has just read many buffers of a Unix socket forgets an end that comes
/// behind them (Linux 6.18; older ones, behind any bytes). One that is armed anew finds it.
const END_OVERDUE_TICKS: u32 = 4;

/// Executions after a large request until many buffers at a time are received again. A value takes
/// two or three: one that its head begins, and those in which its line end comes.
const SINGLY: u8 = 4;

/// Bytes of a request from which on the next one had better not come into buffers as a whole: the
/// copy of 64 KiB costs more than a receive of its own, that of 16 KiB does not.
const LARGE_BYTES: usize = 48 << 10;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Requests are read and answered.
    Open,
    /// No request is read any more; replies already owed are sent.
    Draining,
    /// The socket is shut down; what is in flight is awaited.
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Answer what is owed, then close.
    Finish,
    /// The peer is gone, or must go: close at once.
    Abort,
    /// Nothing is left to send.
    Flushed,
}

impl Phase {
    /// The whole transition table.
    fn on(self, event: Event) -> Phase {
        use {Event::*, Phase::*};
        match (self, event) {
            (Open, Finish) => Draining,
            (Open | Draining, Abort) | (Draining, Flushed) => Closing,
            // Replies are flushed all the time; one turn may report the same death twice.
            (Open, Flushed) | (Draining, Finish) | (Closing, Finish | Abort | Flushed) => self,
        }
    }
}

/// The receive of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// Not in the kernel.
    Idle,
    /// In the kernel.
    Armed,
    /// In the kernel, and asked to end.
    Cancelling,
    /// In the kernel, into memory of the session. It cannot be asked to end.
    Direct,
    /// Not in the kernel, because there was no buffer for it; it waits in a queue for one.
    Starved,
    /// Not in the kernel, because the connection holds more than it may; see `throttle`.
    Parked,
}

/// Why requests of a connection are not being executed, if they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    No,
    /// The peer must read first.
    Output,
    /// There is no block to write replies in; it waits in a queue for one.
    Memory,
    /// There is no memory for an item; it is tried again in every turn.
    Items,
    /// Too much is being sent from where it lies; it waits in a queue until less is.
    Spans,
    /// The queue to the workers is full, or those in it have all blocks that they may have.
    Queue,
    /// A worker has the batch.
    Away,
    /// Its peer's address has had its share; nothing is received, either.
    Rate,
}

/// Whether a send was asked to end because of the large values in it, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    No,
    /// To see whether the peer reads.
    Sounded,
    /// Others need the memory that values keep which are gone.
    Needed,
    /// Others wait to be sent values, live as these are or not.
    Wanted,
    /// It has not ended for long.
    Overdue,
}

/// What must be submitted for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a connection whose step is dropped is stuck for ever"]
pub enum Step {
    Receive,
    /// Receive straight into memory of the session.
    ReceiveDirect,
    CancelReceive,
    /// It is received from no more until it holds less, or all is calm.
    Park,
    Send,
    Shutdown,
    Release,
    Wait,
}

/// Input that is away.
#[derive(Clone, Copy, Debug, Default)]
struct Away {
    /// Unconsumed bytes when it left.
    bytes: u32,
    /// Bytes of the heap that it took.
    heap_bytes: u32,
}

#[derive(Debug)]
pub struct Connection<S> {
    pub socket: Socket,
    phase: Phase,
    /// Why it ends, from when that is known.
    reason: Option<CloseReason>,
    pub receive: Receive,
    pub held: Held,
    /// True when the session, as it was left last, waits for much of a value.
    pub awaits_much: bool,
    /// So many executions more it is received from into one buffer at a time: after a large value
    /// another one is likely, of which no more than the beginning should come into buffers.
    pub singly: u8,
    /// True when it took much of its ring's turn the last time, and wants to go on.
    pub spends_much: bool,
    /// True exactly while a send is in flight.
    pub sending: bool,
    /// True exactly while it is one of spans.
    pub gathered: bool,
    /// Whether that send was asked to end.
    pub recall: Recall,
    /// True from the moment the peer has said that it will send no more.
    pub ended: bool,
    /// True exactly while the connection stands in the ring's queue of runnable ones.
    pub runnable: bool,
    /// True exactly while the connection stands in the ring's list of those to step.
    pub listed: bool,
    /// True exactly while the connection stands in the ring's list of those that may hold buffers.
    pub holding: bool,
    /// True while the kernel has no memory for what the connection does.
    pub paused: bool,
    /// True when it may go on whatever its address has had: it has waited for that.
    pub passes: bool,
    shut_down: bool,
    /// True exactly while the connection stands in the ring's queue of those it parked.
    pub queued: bool,
    /// True exactly while its ring counts it among those that hold something.
    pub counted: bool,
    /// True when, since bytes moved last, the receive was armed anew to find an end.
    sounded: bool,
    progress: Progress,
    /// When it began to stand in that queue, in nanoseconds since the process started.
    pub came_ns: u64,
    /// What its address has had, where that is limited.
    pub bucket: Option<BucketId>,
    /// Bytes of the heap that its ring knows of.
    pub charged: u32,
    /// What of its input is away with a batch.
    away: Away,
    pub input: Input,
    pub output: Output,
    pub session: S,
}

impl<S> Connection<S> {
    pub fn new(socket: Socket, session: S, now: Now) -> Connection<S> {
        Connection {
            socket,
            phase: Phase::Open,
            reason: None,
            receive: Receive::Idle,
            held: Held::No,
            awaits_much: false,
            singly: 0,
            spends_much: false,
            sending: false,
            gathered: false,
            recall: Recall::No,
            ended: false,
            runnable: false,
            listed: false,
            holding: false,
            paused: false,
            passes: false,
            shut_down: false,
            queued: false,
            counted: false,
            sounded: false,
            progress: Progress::new(now),
            came_ns: 0,
            bucket: None,
            charged: 0,
            away: Away::default(),
            input: Input::default(),
            output: Output::default(),
            session,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Records that nothing is left to send. What follows from it is `step`'s business.
    pub fn record_flushed(&mut self) {
        self.phase = self.phase.on(Event::Flushed);
    }

    /// Records an event that ends the connection. The first reason is the one that counts.
    pub fn end(&mut self, event: Event, reason: CloseReason) {
        self.phase = self.phase.on(event);
        self.reason.get_or_insert(reason);
    }

    /// Why it ends, if that is known.
    pub fn reason(&self) -> Option<CloseReason> {
        self.reason
    }

    /// Records that bytes came. `is_amid` says whether the session has begun with something.
    #[inline]
    pub fn record_received(&mut self, bytes: usize, is_amid: impl FnOnce(&S) -> bool, now: Now) {
        self.progress.brought(bytes);
        // Who must read first is not excused by sending on.
        if self.is_in_debt() {
            return;
        }
        self.sounded = false;
        let (input, session) = (&self.input, &self.session);
        let is_amid = || !input.is_empty() || is_amid(session);
        self.progress.received(bytes, is_amid, now);
    }

    /// True when what came last was little; of who has brought nothing yet, too.
    pub fn brings_little(&self) -> bool {
        self.progress.brings_little()
    }

    /// Records that replies are on their way.
    pub fn record_sending(&mut self, now: Now) {
        self.sending = true;
        self.progress.sending(now);
    }

    /// Records that so many bytes of replies were taken.
    pub fn record_sent(&mut self, bytes: usize, now: Now) {
        self.sounded &= bytes == 0;
        self.progress.sent(bytes, self.output.unsent_bytes(), now);
    }

    /// Records that it was not the peer who kept it waiting.
    pub fn excuse(&mut self, now: Now) {
        self.progress.restart(now);
    }

    /// Ticks since bytes moved last; the first of them had begun already.
    pub fn silent_ticks(&self, now: Now) -> u32 {
        self.progress.silent_ticks(now)
    }

    /// Ticks since the peer, if it owes something, got on with it.
    pub fn slow_ticks(&self, now: Now) -> u32 {
        self.progress.slow_ticks(now)
    }

    /// True when the receive should be armed anew, to find an end that was not told: once in every
    /// silence.
    pub fn sound(&mut self, now: Now) -> bool {
        let is_due = self.socket.is_local()
            && self.receive == Receive::Armed
            && self.silent_ticks(now) >= END_OVERDUE_TICKS;
        is_due && !std::mem::replace(&mut self.sounded, true)
    }

    /// What it holds of the memory for connections: its replies by the block, and the requests that
    /// wait.
    pub fn held_bytes(&self) -> usize {
        self.output.blocks() * BLOCK_BYTES + self.backlog_bytes()
    }

    /// What there is to tell of it, which keeps so many bytes of items.
    pub fn sighting(&self, item_bytes: usize) -> Sighting {
        // Lossless: no target has a wider usize.
        Sighting {
            doing: self.doing(),
            reply_bytes: (self.output.blocks() * BLOCK_BYTES) as u64,
            request_bytes: self.backlog_bytes() as u64,
            item_bytes: item_bytes as u64,
            active_at: self.progress.active_at(),
        }
    }

    fn doing(&self) -> Doing {
        match (self.phase, self.receive, self.held) {
            (Phase::Closing, _, _) => Doing::Closing,
            (Phase::Draining, _, _) => Doing::Draining,
            (Phase::Open, _, Held::Rate) => Doing::AwaitsRate,
            (Phase::Open, Receive::Parked, _) => Doing::Parked,
            (Phase::Open, _, Held::Memory) => Doing::AwaitsBlock,
            (Phase::Open, _, Held::Output) => Doing::MustRead,
            (Phase::Open, _, Held::Items) => Doing::AwaitsItem,
            (Phase::Open, _, Held::Spans) => Doing::AwaitsSpan,
            (Phase::Open, _, Held::Queue) => Doing::Queueing,
            (Phase::Open, _, Held::Away) => Doing::AtWorker,
            (Phase::Open, Receive::Starved, Held::No) => Doing::AwaitsBuffer,
            (Phase::Open, _, Held::No) if self.sending => Doing::Sending,
            (Phase::Open, _, Held::No) => Doing::Receiving,
        }
    }

    /// True while its replies may wait a turn for those that come after them.
    pub fn holds_little(&self) -> bool {
        self.phase == Phase::Open && self.output.blocks() <= 1
    }

    /// Bytes of requests that are away with a batch.
    pub fn away_bytes(&self) -> usize {
        self.away.bytes as usize
    }

    /// Bytes of requests that wait, here or with a batch.
    fn backlog_bytes(&self) -> usize {
        self.input.bytes() + self.away_bytes()
    }

    /// True when requests may be executed now.
    pub fn can_execute(&self) -> bool {
        self.phase == Phase::Open && self.held == Held::No
    }

    /// True when what comes next is a part of a large value, and can go straight into its place:
    /// nothing that came before it waits here or is away.
    pub fn is_direct(&self) -> bool {
        self.awaits_much && self.can_execute() && self.input.is_empty() && !self.ended
    }

    /// Records what the session waits for, after an execution.
    pub fn record_wait(&mut self, awaits_much: bool) {
        self.awaits_much = awaits_much;
        if awaits_much {
            self.singly = SINGLY;
        }
    }

    /// Records how many bytes an execution has taken, and how many requests that was.
    #[inline]
    pub fn record_taken(&mut self, bytes: usize, requests: u32) {
        let large = LARGE_BYTES * requests as usize;
        self.singly =
            if requests > 0 && bytes >= large { SINGLY } else { self.singly.saturating_sub(1) };
    }

    /// True while the peer must read before anything else is done for it.
    pub fn is_in_debt(&self) -> bool {
        self.output.unsent_bytes() > 0 && matches!(self.held, Held::Output | Held::Memory)
    }

    /// True while the peer owes us its attention: a send waits for it, and it has asked for more.
    pub fn is_stalled(&self) -> bool {
        let asks = !self.input.is_empty() && self.held != Held::Rate;
        self.output.unsent_bytes() > 0 && self.sending && asks
    }

    /// Lets the input go with a batch. It still counts, so that a peer cannot have more and more of
    /// it on the way.
    pub fn take_input(&mut self) -> Input {
        let input = std::mem::take(&mut self.input);
        let narrow = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        self.away = Away { bytes: narrow(input.bytes()), heap_bytes: narrow(input.heap_bytes()) };
        self.held = Held::Away;
        self.awaits_much = false;
        input
    }

    /// Puts what is left of the input back, before what has come in meanwhile. True when something
    /// has.
    pub fn put_input(&mut self, input: Input, spent: &mut Vec<Filled>) -> bool {
        let mut later = std::mem::replace(&mut self.input, input);
        let has_more = !later.is_empty();
        self.input.append(&mut later, spent);
        self.away = Away::default();
        self.held = Held::No;
        has_more
    }

    /// Says how many bytes of the heap the connection takes, and how many it took when it was asked
    /// last.
    pub fn charge(&mut self) -> (u32, u32) {
        let here = self.input.heap_bytes() + self.output.heap_bytes();
        let here = u32::try_from(here).unwrap_or(u32::MAX);
        let now = here.saturating_add(self.away.heap_bytes);
        (std::mem::replace(&mut self.charged, now), now)
    }

    /// Decides, from the state and from how much may be held, what to submit next.
    pub fn step(&self, quota: Quota) -> Step {
        match self.phase {
            Phase::Closing if !self.shut_down => return Step::Shutdown,
            Phase::Closing if self.is_quiet() => return Step::Release,
            Phase::Closing => return Step::Wait,
            Phase::Open | Phase::Draining => {}
        }
        if self.paused {
            return Step::Wait;
        }
        if self.output.unsent_bytes() > 0 && !self.sending {
            return Step::Send;
        }
        let (backlog, held) = (self.backlog_bytes(), self.held_bytes());
        let is_served = self.held != Held::Rate;
        let has_more = self.bucket.is_some() && (self.runnable || self.held != Held::No);
        let wants_more = self.phase == Phase::Open && !self.ended && is_served && !has_more;
        let direct = self.is_direct();
        match self.receive {
            Receive::Armed if direct || !is_served => Step::CancelReceive,
            Receive::Armed if backlog >= quota.backlog_bytes || held > quota.held_bytes => {
                Step::CancelReceive
            }
            Receive::Idle if wants_more && held > quota.held_bytes => Step::Park,
            // It takes no buffer, so that it need not wait for one.
            Receive::Idle | Receive::Starved if direct => Step::ReceiveDirect,
            Receive::Idle if wants_more && backlog <= quota.backlog_bytes / 2 => Step::Receive,
            Receive::Parked if wants_more && held <= quota.held_bytes / 2 => Step::Receive,
            Receive::Idle
            | Receive::Armed
            | Receive::Cancelling
            | Receive::Direct
            | Receive::Starved
            | Receive::Parked => Step::Wait,
        }
    }

    /// True when it brings one buffer at a time, as no more of a limited address should wait here.
    pub fn is_received_from_singly(&self) -> bool {
        self.singly > 0 || self.bucket.is_some()
    }

    /// Records that the step `Shutdown` was taken.
    pub fn mark_shut_down(&mut self) {
        self.shut_down = true;
    }

    fn is_quiet(&self) -> bool {
        let receiving =
            matches!(self.receive, Receive::Armed | Receive::Cancelling | Receive::Direct);
        !receiving && !self.sending && self.held != Held::Away
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::output::Output as _;
    use crate::net::output::Writer;
    use crate::sys::blocks::BlockPool;

    const NOW: Now = Now { ticks: 7, epoch_unix_s: 0 };

    fn connection() -> Connection<()> {
        Connection::new(Socket::for_test(3), (), NOW)
    }

    #[test]
    fn a_closing_connection_is_released_only_when_nothing_is_owed() {
        let mut connection = connection();
        assert_eq!(connection.step(Quota::CALM), Step::Receive);
        connection.receive = Receive::Armed;
        connection.sending = true;
        connection.held = Held::Away;
        connection.end(Event::Abort, CloseReason::Broken);
        assert_eq!(connection.step(Quota::CALM), Step::Shutdown);
        connection.mark_shut_down();
        for settle in [
            |c: &mut Connection<()>| c.receive = Receive::Idle,
            |c: &mut Connection<()>| c.sending = false,
            |c: &mut Connection<()>| c.held = Held::No,
        ] {
            assert_eq!(connection.step(Quota::CALM), Step::Wait);
            settle(&mut connection);
        }
        assert_eq!(connection.step(Quota::CALM), Step::Release);
    }

    #[test]
    fn a_starved_connection_can_be_released() {
        let mut connection = connection();
        connection.receive = Receive::Starved;
        assert_eq!(connection.step(Quota::CALM), Step::Wait);
        connection.end(Event::Abort, CloseReason::Broken);
        connection.mark_shut_down();
        assert_eq!(connection.step(Quota::CALM), Step::Release);
    }

    #[test]
    fn who_holds_too_much_is_parked_until_it_holds_half_of_what_it_may() {
        let mut pool = BlockPool::map(0).unwrap();
        let mut connection = connection();
        let quota = |held_bytes| Quota { held_bytes, ..Quota::CALM };
        Writer::new(&mut connection.output, &mut pool, 1).put(b"END\r\n");
        connection.sending = true;
        connection.receive = Receive::Armed;
        assert_eq!(connection.step(quota(BLOCK_BYTES)), Step::Wait);
        assert_eq!(connection.step(quota(BLOCK_BYTES - 1)), Step::CancelReceive);
        connection.receive = Receive::Idle;
        assert_eq!(connection.step(quota(BLOCK_BYTES - 1)), Step::Park);
        connection.receive = Receive::Parked;
        assert_eq!(connection.step(quota(2 * BLOCK_BYTES - 1)), Step::Wait);
        assert_eq!(connection.step(quota(2 * BLOCK_BYTES)), Step::Receive);
        connection.output.clear(&mut pool, drop);
        assert_eq!(connection.step(quota(0)), Step::Receive);
        connection.ended = true;
        assert_eq!(connection.step(quota(0)), Step::Wait);
    }

    #[test]
    fn the_first_reason_is_the_one() {
        let mut connection = connection();
        assert_eq!(connection.reason(), None);
        connection.end(Event::Finish, CloseReason::Command);
        connection.end(Event::Abort, CloseReason::Broken);
        assert_eq!(connection.reason(), Some(CloseReason::Command));
        assert_eq!(connection.phase(), Phase::Closing);
    }

    #[test]
    fn a_paused_connection_does_nothing_but_close() {
        let mut connection = connection();
        connection.paused = true;
        assert_eq!(connection.step(Quota::CALM), Step::Wait);
        connection.end(Event::Abort, CloseReason::Broken);
        assert_eq!(connection.step(Quota::CALM), Step::Shutdown);
    }

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Connection<[u64; 8]>>() <= 256);
    }

    /// Snapshot of the table: a change of one arm shows as one line of diff.
    #[test]
    fn table() {
        use {Event::*, Phase::*};
        let mut got = String::new();
        for phase in [Open, Draining, Closing] {
            for event in [Finish, Abort, Flushed] {
                got += &format!("{phase:?} {event:?} {:?}\n", phase.on(event));
            }
        }
        let expected = "\
Open Finish Draining
Open Abort Closing
Open Flushed Open
Draining Finish Draining
Draining Abort Closing
Draining Flushed Closing
Closing Finish Closing
Closing Abort Closing
Closing Flushed Closing
";
        assert_eq!(got, expected);
    }
}
