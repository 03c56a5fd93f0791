//! What a ring can be asked, and what it reports: the one seam between the server and the kernel.
//!
//! Requests are only noted; `enter` hands all of them over and takes whatever has completed, in one
//! system call a turn. Each completion is then seen exactly once, through `next` (R4).

use std::io;

use crate::base::slots::SlotId;

use super::blocks::{Block, BlockPool, Landed};
use super::buffers::Filled;
use super::gather::Gather;
use super::region::Loan;
use super::socket::Socket;

/// What became of an armed receive, as far as this completion tells.
#[derive(Debug)]
pub enum Received {
    Bytes(Filled),
    /// The peer will send no more.
    End,
    /// No buffer was left. Arming again at once would fail at once.
    Dry,
    /// It was cancelled, or ended on its own; nothing was lost.
    Stopped,
    /// The kernel has no memory for it now; nothing was lost.
    NoMemory,
    /// The connection is dead, for the reason that the errno gives.
    Failed(i32),
}

/// What became of a receive into lent memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// So many bytes, from the beginning of the loan on; never 0.
    Bytes(usize),
    /// The peer will send no more.
    End,
    /// It ended on its own; nothing was lost.
    Stopped,
    /// The kernel has no memory for it now; nothing was lost.
    NoMemory,
    /// The connection is dead, for the reason that the errno gives.
    Failed(i32),
}

impl Arrived {
    /// The same, where what came beyond so many bytes is told elsewhere.
    pub(super) fn within(self, bytes_max: usize) -> Arrived {
        if let Arrived::Bytes(bytes) = self { Arrived::Bytes(bytes.min(bytes_max)) } else { self }
    }

    /// What a receive came to that ended with this number of bytes, or negated errno.
    pub(super) fn of_result(result: i32) -> Arrived {
        match usize::try_from(result) {
            Ok(0) => Arrived::End,
            Ok(bytes) => Arrived::Bytes(bytes),
            Err(_) => match -result {
                libc::ECANCELED | libc::EAGAIN | libc::EINTR => Arrived::Stopped,
                libc::ENOMEM => Arrived::NoMemory,
                errno => Arrived::Failed(errno),
            },
        }
    }
}

/// Why the kernel did not do something, by what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It was in the way of nothing: the same again will do.
    Passing,
    /// There is no memory for it now.
    NoMemory,
    /// No descriptor is free, in this process or on this host.
    NoDescriptor,
    /// The same again would fail again, with this errno.
    Lasting(i32),
}

#[derive(Debug)]
pub enum Completion {
    /// `armed` is false when the multishot accept has ended and must be armed again.
    Accepted { listener: u32, result: Result<Socket, Fault>, armed: bool },
    /// `armed` is false when the multishot receive has ended.
    Received { slot: SlotId, received: Received, armed: bool },
    /// The receive into `loan` has ended, and the loan is the ring's no more. What came `behind` is
    /// there only when the loan is full.
    Arrived { slot: SlotId, arrived: Arrived, loan: Loan, behind: Option<Filled> },
    /// `result` is the number of bytes that the kernel took. It reads them no more.
    Sent { slot: SlotId, result: Result<usize, Fault>, landed: Landed },
    /// Somebody rang the doorbell.
    Woken,
    /// A part of a second has passed.
    Tick,
}

/// How often the kernel could not do at once what it was asked for. Nothing was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardships {
    /// Turns in which it kept completions back because their queue was full.
    pub overflows: u64,
    /// Entries that it put off until completions are taken.
    pub busy: u64,
    /// Entries for which it had no memory.
    pub no_memory: u64,
    /// Sends without a copy, and those that it copied all the same, or would not take.
    pub zero_copy_sends: u64,
    pub zero_copy_copied: u64,
}

/// A ring. One thread owns it.
pub trait Ring {
    /// Arms the accept of a listener.
    fn accept(&mut self, listener: u32);

    /// Ends the accept of a listener.
    fn cancel_accept(&mut self, listener: u32);

    /// True when somebody waits to be accepted, by any listener. To ask takes a system call.
    fn has_arrivals(&self) -> bool;

    /// Lets nobody connect to a listener any more, from now on and for good.
    fn stop_listening(&mut self, listener: u32);

    /// Arms the receive of a connection; where there is a cap, it ends after so many bytes.
    fn receive(&mut self, socket: &Socket, slot: SlotId, cap_bytes: u32);

    /// As `receive`, for one buffer and no more: what follows stays in the socket.
    fn receive_one(&mut self, socket: &Socket, slot: SlotId);

    /// Receives once, straight into lent memory; `is_last` says that a value ends with it, so that
    /// a few bytes more may come with it. Nothing else may be armed or in flight that receives for
    /// this connection. There is no buffer to run out of, and no way to cancel it: to shut the
    /// socket down ends it.
    fn receive_into(&mut self, socket: &Socket, slot: SlotId, loan: Loan, is_last: bool);

    /// Ends the receive of a connection into buffers; its last completion follows.
    fn cancel_receive(&mut self, slot: SlotId);

    /// Sends the bytes of `blocks`, without the first `skip`, as far as one operation goes.
    ///
    /// A connection has at most one send in flight.
    fn send<'b>(
        &mut self,
        socket: &Socket,
        slot: SlotId,
        blocks: impl Iterator<Item = &'b mut Block>,
        skip: usize,
    );

    /// As `send`, of the pieces that `fill` gathers, as far as they go.
    fn send_gathered(&mut self, socket: &Socket, slot: SlotId, fill: impl FnOnce(&mut Gather));

    /// Ends the send of a connection; its completion follows, and says what was taken by then.
    fn cancel_send(&mut self, slot: SlotId);

    /// Shuts both directions down; operations in flight end soon. What is sent without a copy, and
    /// was not acknowledged, is dropped.
    fn shutdown(&mut self, socket: &Socket, slot: SlotId);

    /// Closes a socket that nothing in flight names.
    fn close(&mut self, socket: Socket);

    /// Says `words` to a peer that is not let in, and closes.
    fn refuse(&mut self, socket: Socket, words: &[u8]);

    /// Brings a completion, `Woken`, after so long, or earlier: only one is under way at a time.
    fn wake_after(&mut self, ns: u64);

    /// Submits everything noted and takes what has completed. With `wait`, sleeps until something
    /// has.
    ///
    /// # Errors
    /// Only for what no retry mends.
    fn enter(&mut self, wait: bool) -> io::Result<()>;

    /// The next completion of this turn.
    fn next(&mut self) -> Option<Completion>;

    /// Gives a receive buffer back.
    fn provide(&mut self, filled: Filled);

    /// Provides the kernel with receive buffers that were kept back.
    fn refill(&mut self);

    /// Bytes of all receive buffers.
    fn receive_bytes(&self) -> usize;

    /// True when a receive armed now would find no buffer.
    fn is_dry(&self) -> bool;

    /// Says how many connections there are.
    fn resize(&mut self, connections: usize);

    fn blocks(&mut self) -> &mut BlockPool;

    /// Bytes that were sent and that the peer has not taken: over TCP, what it has not
    /// acknowledged; over a Unix socket, what it has not read. To ask takes a system call.
    fn untaken_bytes(&self, socket: &Socket) -> usize;

    /// A number that changes by as many bytes as the peer takes of what it is sent, also of a send
    /// that has not ended. To ask takes a system call.
    fn intake(&self, socket: &Socket) -> u64;

    /// True when the connection of a socket is no more, as when its peer has reset it. To ask takes
    /// a system call.
    fn is_gone(&self, socket: &Socket) -> bool;

    /// What has befallen the ring so far. Were a completion lost, `enter` would fail.
    fn hardships(&self) -> Hardships;
}
