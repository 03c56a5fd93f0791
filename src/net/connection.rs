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

use super::input::Input;
use super::output::Output;
use crate::base::limits::HEAD_BYTES_MAX;
use crate::sys::buffers::Filled;
use crate::sys::socket::Socket;

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
    /// Not in the kernel, because there was no buffer for it; it waits in a queue for one.
    Starved,
}

/// Why requests of a connection are not being executed, if they are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    No,
    /// The peer must read first.
    Output,
    /// There is no block to write replies in; it waits in a queue for one.
    Memory,
    /// The queue to the workers is full.
    Queue,
    /// A worker has the batch.
    Away,
}

/// What must be submitted for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a connection whose step is dropped is stuck for ever"]
pub enum Step {
    Receive,
    CancelReceive,
    Send,
    Shutdown,
    Release,
    Wait,
}

/// Most unexecuted bytes from which on a connection is not received from, so that TCP pushes back;
/// from half of them on a parked connection is received from again.
pub const BACKLOG_BYTES_MAX: usize = 32 * 1024;

/// The least of it: half of it is more than the longest head, so nobody is stuck in one.
pub const BACKLOG_BYTES_MIN: usize = 4 * HEAD_BYTES_MAX;

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
    pub receive: Receive,
    pub held: Held,
    /// True exactly while a send is in flight.
    pub sending: bool,
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
    shut_down: bool,
    /// When bytes last moved in the direction that the connection waits for, in seconds.
    pub active_s: u32,
    /// Bytes of the heap that its ring knows of.
    pub charged: u32,
    /// What of its input is away with a batch.
    away: Away,
    pub input: Input,
    pub output: Output,
    pub session: S,
}

impl<S: Default> Connection<S> {
    pub fn new(socket: Socket, now_s: u32) -> Connection<S> {
        Connection {
            socket,
            phase: Phase::Open,
            receive: Receive::Idle,
            held: Held::No,
            sending: false,
            ended: false,
            runnable: false,
            listed: false,
            holding: false,
            paused: false,
            shut_down: false,
            active_s: now_s,
            charged: 0,
            away: Away::default(),
            input: Input::default(),
            output: Output::default(),
            session: S::default(),
        }
    }
}

impl<S> Connection<S> {
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Records that `event` happened. What follows from it is `step`'s business.
    pub fn record(&mut self, event: Event) {
        self.phase = self.phase.on(event);
    }

    /// True when requests may be executed now.
    pub fn can_execute(&self) -> bool {
        self.phase == Phase::Open && self.held == Held::No
    }

    /// True while the peer must read before anything else is done for it.
    pub fn is_in_debt(&self) -> bool {
        self.output.unsent_bytes() > 0 && matches!(self.held, Held::Output | Held::Memory)
    }

    /// True while the peer owes us its attention: a send waits for it, and it has asked for more.
    pub fn is_stalled(&self) -> bool {
        self.output.unsent_bytes() > 0 && self.sending && !self.input.is_empty()
    }

    /// Lets the input go with a batch. It still counts, so that a peer cannot have more and more of
    /// it on the way.
    pub fn take_input(&mut self) -> Input {
        let input = std::mem::take(&mut self.input);
        let narrow = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        self.away = Away { bytes: narrow(input.bytes()), heap_bytes: narrow(input.heap_bytes()) };
        self.held = Held::Away;
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

    /// Decides, from the state and from how much may wait, what to submit next.
    pub fn step(&self, backlog_bytes: usize) -> Step {
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
        let backlog = self.input.bytes() + self.away.bytes as usize;
        match self.receive {
            Receive::Armed if backlog >= backlog_bytes => Step::CancelReceive,
            Receive::Idle if self.wants_more(backlog, backlog_bytes / 2) => Step::Receive,
            Receive::Idle | Receive::Armed | Receive::Cancelling | Receive::Starved => Step::Wait,
        }
    }

    fn wants_more(&self, backlog: usize, below: usize) -> bool {
        self.phase == Phase::Open && !self.ended && backlog < below
    }

    /// Records that the step `Shutdown` was taken.
    pub fn mark_shut_down(&mut self) {
        self.shut_down = true;
    }

    fn is_quiet(&self) -> bool {
        let receiving = matches!(self.receive, Receive::Armed | Receive::Cancelling);
        !receiving && !self.sending && self.held != Held::Away
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection<()> {
        Connection::new(Socket::for_test(3), 0)
    }

    #[test]
    fn a_closing_connection_is_released_only_when_nothing_is_owed() {
        let mut connection = connection();
        assert_eq!(connection.step(BACKLOG_BYTES_MAX), Step::Receive);
        connection.receive = Receive::Armed;
        connection.sending = true;
        connection.held = Held::Away;
        connection.record(Event::Abort);
        assert_eq!(connection.step(BACKLOG_BYTES_MAX), Step::Shutdown);
        connection.mark_shut_down();
        for settle in [
            |c: &mut Connection<()>| c.receive = Receive::Idle,
            |c: &mut Connection<()>| c.sending = false,
            |c: &mut Connection<()>| c.held = Held::No,
        ] {
            assert_eq!(connection.step(BACKLOG_BYTES_MAX), Step::Wait);
            settle(&mut connection);
        }
        assert_eq!(connection.step(BACKLOG_BYTES_MAX), Step::Release);
    }

    #[test]
    fn a_starved_connection_can_be_released() {
        let mut connection = connection();
        connection.receive = Receive::Starved;
        assert_eq!(connection.step(BACKLOG_BYTES_MAX), Step::Wait);
        connection.record(Event::Abort);
        connection.mark_shut_down();
        assert_eq!(connection.step(BACKLOG_BYTES_MAX), Step::Release);
    }

    #[test]
    fn a_paused_connection_does_nothing_but_close() {
        let mut connection = connection();
        connection.paused = true;
        assert_eq!(connection.step(BACKLOG_BYTES_MAX), Step::Wait);
        connection.record(Event::Abort);
        assert_eq!(connection.step(BACKLOG_BYTES_MAX), Step::Shutdown);
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
