//! The ring that the kernel runs.
//!
//! Set up for one thread that submits and reaps: completions are produced inside `enter` and
//! nowhere else (`DEFER_TASKRUN`), so a turn costs one system call whatever happens in it. What
//! older kernels lack is left out (`NO_SQARRAY`, `NO_IOWAIT`).

mod sending;
mod zero_copy;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::Fd;
use io_uring::{
    CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue,
};

use crate::base::slots::SlotId;

use super::blocks::{Block, BlockPool, Landed};
use super::buffers::{BufferRing, Filled};
use super::entry;
use super::gather::Gather;
use super::ladder::{Mode, Rung};
use super::landing::{Landings, Target};
use super::pace::Pace;
use super::region::Loan;
use super::ring::{Arrived, Completion, Fault, Hardships, Received, Ring};
use super::socket::{Listener, Socket};
use super::token::{Operation, Token};
use super::wake::EventFd;

mod clockwork;

use clockwork::Clockwork;
use sending::Messages;
use zero_copy::ZeroCopy;

/// Most bytes of a receive into one buffer.
const ONE_BYTES: u32 = 4096;

/// Sizes of a ring, all powers of two.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub submissions: u32,
    pub completions: u32,
    /// How many buffers, and of how many bytes each.
    pub buffers: (u16, u32),
}

/// What is left of a bundle: a run of buffers that one completion names.
#[derive(Debug)]
struct Bundle {
    slot: SlotId,
    /// The buffer that comes next.
    index: u16,
    bytes: u32,
    armed: bool,
}

/// `struct io_uring_getevents_arg`, which the io-uring crate keeps to itself.
#[repr(C)]
struct Wait {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    timeout: u64,
}

pub struct Uring {
    submitter: Submitter<'static>,
    submissions: SubmissionQueue<'static>,
    completions: CompletionQueue<'static>,
    enter_flags: EnterFlags,
    rung: Rung,
    pace: Pace,
    /// Operations that found the queue full and the kernel unwilling to empty it.
    put_off: VecDeque<squeue::Entry>,
    bundle: Option<Bundle>,
    buffers: BufferRing,
    blocks: BlockPool,
    listeners: Arc<[Listener]>,
    doorbell: Arc<EventFd>,
    clockwork: Clockwork,
    messages: Messages,
    zero_copy: ZeroCopy,
    landings: Landings,
    hardships: Hardships,
}

impl Uring {
    /// Builds a ring for the calling thread, with its buffers, its timer and its doorbell armed.
    ///
    /// The ring is never closed: the kernel may write to its memory until the process ends.
    ///
    /// # Errors
    /// What `io_uring_setup(2)`, `io_uring_register(2)` and mmap(2) say.
    pub fn new(
        number: u16,
        sizes: Sizes,
        rung: Rung,
        listeners: Arc<[Listener]>,
        doorbell: Arc<EventFd>,
    ) -> io::Result<Uring> {
        let ring = Box::leak(Box::new(build_patiently(sizes)?));
        let no_iowait = ring.params().is_feature_no_iowait();
        let (mut submitter, submissions, completions) = ring.split();
        // It saves the look-up of the descriptor; a kernel without it serves all the same.
        let _ = submitter.register_ring_fd();
        let incremental = rung.mode == Mode::Incremental;
        let buffers = BufferRing::register(&submitter, number, sizes.buffers, incremental)?;
        let mut enter_flags = EnterFlags::GETEVENTS;
        enter_flags.set(EnterFlags::NO_IOWAIT, no_iowait);
        let mut this = Uring {
            submitter,
            submissions,
            completions,
            enter_flags,
            rung,
            pace: Pace::new(rung.min_wait_us),
            put_off: VecDeque::new(),
            bundle: None,
            buffers,
            blocks: BlockPool::map(number)?,
            listeners,
            doorbell,
            clockwork: Clockwork::new()?,
            messages: Messages::default(),
            zero_copy: ZeroCopy::from(rung.zero_copy_bytes),
            landings: Landings::map(number)?,
            hardships: Hardships::default(),
        };
        this.arm_doorbell();
        this.arm_timer();
        Ok(this)
    }

    /// Notes an operation for the next `enter`.
    fn push(&mut self, entry: squeue::Entry, operation: Operation, slot: SlotId) {
        let entry = entry.user_data(Token::new(operation, slot).encode());
        if !self.put_off.is_empty() || !self.note(&entry) {
            self.put_off.push_back(entry);
        }
    }

    /// Puts an operation into the queue. False when the queue is full and the kernel takes nothing
    /// off it, because it wants completions to be taken first, or has no memory.
    ///
    /// # Panics
    /// If it refuses for ever.
    fn note(&mut self, entry: &squeue::Entry) -> bool {
        loop {
            // SAFETY: whatever memory the entry names belongs to a region (R1), or to a message
            // that `messages` keeps until the completion.
            if unsafe { self.submissions.push(entry) }.is_ok() {
                return true;
            }
            self.submissions.sync();
            // The queue is full: hand it over early.
            let result = self.submitter.submit();
            self.submissions.sync();
            match result {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => {
                    assert!(self.is_passing(&error), "no submission is taken: {error}");
                    return false;
                }
            }
        }
    }

    /// True where `io_uring_enter(2)` was interrupted, found no memory for now, or wants
    /// completions to be taken first: the next turn goes on. Anything else is for ever.
    fn is_passing(&mut self, error: &io::Error) -> bool {
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EBUSY) => self.hardships.busy += 1,
            Some(libc::EAGAIN | libc::ENOMEM) => self.hardships.no_memory += 1,
            Some(_) | None => return false,
        }
        true
    }

    fn completed(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let Token { operation, slot } = Token::decode(entry.user_data());
        let armed = cqueue::more(entry.flags());
        match operation {
            Operation::Receive => {
                let received = self.received(entry, slot, armed);
                // What follows in a bundle says whether it stays armed.
                let armed = armed || self.bundle.is_some();
                Some(Completion::Received { slot, received, armed })
            }
            Operation::Send => Some(self.sent(slot, entry.result())),
            Operation::SendZeroCopy => {
                let is_notification = cqueue::notif(entry.flags());
                let result =
                    self.zero_copy.completed(slot, entry.result(), is_notification, armed)?;
                Some(self.sent(slot, result))
            }
            Operation::Accept => {
                let result = match entry.result() {
                    errno if errno < 0 => Err(Fault::of_accept(-errno)),
                    fd => Ok(self.listeners[slot.index as usize].accepted(fd)),
                };
                Some(Completion::Accepted { listener: slot.index, result, armed })
            }
            Operation::Wake => {
                self.arm_doorbell();
                Some(Completion::Woken)
            }
            Operation::Timer => {
                self.arm_timer();
                self.buffers.look();
                Some(Completion::Tick)
            }
            Operation::Alarm => {
                self.clockwork.alarm_rang();
                Some(Completion::Woken)
            }
            Operation::ReceiveInto => Some(self.arrived(entry, slot)),
            Operation::Cancel => None,
        }
    }

    /// The end of a send: nobody reads what it named any more.
    fn sent(&mut self, slot: SlotId, result: i32) -> Completion {
        self.messages.land(slot);
        let taken = usize::try_from(result).map_err(|_| Fault::of_send(-result));
        Completion::Sent { slot, result: taken, landed: Landed(()) }
    }

    /// The end of a receive into lent memory.
    fn arrived(&mut self, entry: &cqueue::Entry, slot: SlotId) -> Completion {
        let (loan, behind) = self.landings.land(slot, usize::try_from(entry.result()).unwrap_or(0));
        let arrived = Arrived::of_result(entry.result()).within(loan.len());
        Completion::Arrived { slot, arrived, loan, behind }
    }

    fn received(&mut self, entry: &cqueue::Entry, slot: SlotId, armed: bool) -> Received {
        let buffer = cqueue::buffer_select(entry.flags());
        let done = !cqueue::buffer_more(entry.flags());
        match (u32::try_from(entry.result()), buffer) {
            (Ok(0), None) => Received::End,
            (Ok(bytes), Some(index)) => {
                match self.claim(Bundle { slot, index, bytes, armed }, done) {
                    filled if bytes == 0 => {
                        self.buffers.provide(filled);
                        Received::End
                    }
                    filled => Received::Bytes(filled),
                }
            }
            (Ok(_), None) => unreachable!("bytes without a buffer"),
            (Err(_), Some(index)) => {
                let nothing = self.buffers.claim(index, 0, done);
                self.buffers.provide(nothing);
                Received::of_errno(-entry.result())
            }
            (Err(_), None) => {
                let received = Received::of_errno(-entry.result());
                if matches!(received, Received::Dry) {
                    self.buffers.found_dry();
                }
                received
            }
        }
    }

    /// Claims the first buffer of what a completion names; the others wait in `bundle`.
    fn claim(&mut self, bundle: Bundle, done: bool) -> Filled {
        let Bundle { index, bytes, .. } = bundle;
        let here = bytes.min(self.buffers.buffer_bytes());
        if here < bytes {
            assert!(self.rung.mode == Mode::Bundle, "more bytes than a buffer has");
            let index = self.buffers.behind(index);
            self.bundle = Some(Bundle { index, bytes: bytes - here, ..bundle });
        }
        self.buffers.claim(index, here, done)
    }
}

impl Received {
    fn of_errno(errno: i32) -> Received {
        match errno {
            libc::ENOBUFS => Received::Dry,
            libc::ECANCELED | libc::EAGAIN | libc::EINTR => Received::Stopped,
            libc::ENOMEM => Received::NoMemory,
            errno => Received::Failed(errno),
        }
    }
}

impl Fault {
    fn of_send(errno: i32) -> Fault {
        match errno {
            libc::EAGAIN | libc::EINTR | libc::ECANCELED => Fault::Passing,
            libc::ENOMEM | libc::ENOBUFS => Fault::NoMemory,
            errno => Fault::Lasting(errno),
        }
    }

    /// As accept(2) says: what is wrong with one new connection is gone with it.
    fn of_accept(errno: i32) -> Fault {
        match errno {
            libc::EAGAIN
            | libc::EINTR
            | libc::ECANCELED
            | libc::ECONNABORTED
            | libc::EPERM
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENETUNREACH
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::EHOSTUNREACH
            | libc::ENONET => Fault::Passing,
            libc::EMFILE | libc::ENFILE => Fault::NoDescriptor,
            libc::ENOMEM | libc::ENOBUFS => Fault::NoMemory,
            errno => Fault::Lasting(errno),
        }
    }
}

/// The slot of operations that belong to no connection.
const NOBODY: SlotId = SlotId { index: 0, generation: 0 };

/// Builds again for a moment where memory is short: from Linux 6.14 on, the rings of a process that
/// has just ended count against the limit of locked memory a little longer.
#[allow(clippy::disallowed_methods, reason = "no ring to wait in yet")]
fn build_patiently(sizes: Sizes) -> io::Result<IoUring> {
    let mut result = build(sizes);
    for _ in 0..20 {
        match &result {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                std::thread::sleep(Duration::from_millis(10));
                result = build(sizes);
            }
            Ok(_) | Err(_) => break,
        }
    }
    result
}

fn build(sizes: Sizes) -> io::Result<IoUring> {
    let with = |no_sqarray: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(sizes.completions);
        if no_sqarray {
            builder.setup_no_sqarray();
        }
        builder.build(sizes.submissions)
    };
    match with(true) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => with(false),
        result => result,
    }
}

impl Ring for Uring {
    fn accept(&mut self, listener: u32) {
        let fd = Fd(self.listeners[listener as usize].raw());
        let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry, Operation::Accept, SlotId { index: listener, generation: 0 });
    }

    fn cancel_accept(&mut self, listener: u32) {
        let slot = SlotId { index: listener, generation: 0 };
        let target = Token::new(Operation::Accept, slot).encode();
        self.push(opcode::AsyncCancel::new(target).build(), Operation::Cancel, slot);
    }

    fn stop_listening(&mut self, listener: u32) {
        self.listeners[listener as usize].stop();
    }

    fn has_arrivals(&self) -> bool {
        self.listeners.iter().any(Listener::has_arrivals)
    }

    fn receive(&mut self, socket: &Socket, slot: SlotId, cap_bytes: u32) {
        let fd = Fd(socket.raw());
        let cap_bytes = self.rung.cap_bytes.min(cap_bytes);
        let receive = opcode::RecvMulti::new(fd, BufferRing::GROUP);
        let entry = match self.rung.mode {
            Mode::Multishot => receive.build(),
            // Where a buffer is much larger than the cap, it is no bound: a receive must be.
            Mode::Incremental => receive.len(cap_bytes).build(),
            Mode::Bundle => opcode::RecvMultiBundle::new(fd, BufferRing::GROUP).build(),
        };
        let entry = entry::end_after(entry, cap_bytes);
        self.push(entry, Operation::Receive, slot);
    }

    fn receive_one(&mut self, socket: &Socket, slot: SlotId) {
        // No more than a small buffer has, where buffers are large.
        let entry = opcode::Recv::new(Fd(socket.raw()), std::ptr::null_mut(), ONE_BYTES);
        let entry = entry.buf_group(BufferRing::GROUP).build();
        self.push(entry.flags(squeue::Flags::BUFFER_SELECT), Operation::Receive, slot);
    }

    fn receive_into(&mut self, socket: &Socket, slot: SlotId, loan: Loan, is_last: bool) {
        let fd = Fd(socket.raw());
        let entry = match self.landings.launch(slot, loan, is_last) {
            Target::Plain(start, len) => opcode::Recv::new(fd, start.as_ptr(), len).build(),
            Target::Message(message) => opcode::RecvMsg::new(fd, message.as_ptr()).build(),
        };
        self.push(entry, Operation::ReceiveInto, slot);
    }

    fn cancel_receive(&mut self, slot: SlotId) {
        let target = Token::new(Operation::Receive, slot).encode();
        self.push(opcode::AsyncCancel::new(target).build(), Operation::Cancel, slot);
    }

    fn send<'b>(
        &mut self,
        socket: &Socket,
        slot: SlotId,
        blocks: impl Iterator<Item = &'b mut Block>,
        skip: usize,
    ) {
        let entry = self.messages.of_blocks(Fd(socket.raw()), slot, blocks, skip);
        entry.into_iter().for_each(|entry| self.push(entry, Operation::Send, slot));
    }

    fn send_gathered(&mut self, socket: &Socket, slot: SlotId, fill: impl FnOnce(&mut Gather)) {
        let (messages, zero_copy) = (&mut self.messages, &mut self.zero_copy);
        let (entry, operation) = messages.of_pieces(Fd(socket.raw()), slot, zero_copy, fill);
        self.push(entry, operation, slot);
    }

    fn cancel_send(&mut self, slot: SlotId) {
        let operation = match self.zero_copy.is_in_flight(slot) {
            true => Operation::SendZeroCopy,
            false => Operation::Send,
        };
        let target = Token::new(operation, slot).encode();
        self.push(opcode::AsyncCancel::new(target).build(), Operation::Cancel, slot);
    }

    fn shutdown(&mut self, socket: &Socket, slot: SlotId) {
        if self.zero_copy.is_in_flight(slot) {
            // What is sent and not acknowledged would be kept for as long as TCP tries.
            socket.disconnect();
        }
        // SAFETY: no pointers are passed. An error means that the peer was faster.
        unsafe { libc::shutdown(socket.raw(), libc::SHUT_RDWR) };
    }

    fn close(&mut self, socket: Socket) {
        drop(socket.into_owned());
    }

    fn refuse(&mut self, socket: Socket, words: &[u8]) {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: `words` is readable for its length. A peer that is gone needs no words.
        unsafe { libc::send(socket.raw(), words.as_ptr().cast(), words.len(), flags) };
        drop(socket.into_owned());
    }

    fn wake_after(&mut self, ns: u64) {
        self.arm_alarm(ns);
    }

    fn enter(&mut self, wait: bool) -> io::Result<()> {
        self.buffers.publish();
        while let Some(entry) = self.put_off.pop_front() {
            if !self.note(&entry) {
                self.put_off.push_front(entry);
                break;
            }
        }
        self.completions.sync();
        self.submissions.sync();
        let submit = u32::try_from(self.submissions.len()).expect("a queue is shorter than 2^32");
        let may_sleep = wait && self.put_off.is_empty() && self.completions.is_empty();
        let result = match self.pace.company().filter(|_| may_sleep) {
            Some((want, min_wait_us)) => {
                let wait = Wait { sigmask: 0, sigmask_bytes: 0, min_wait_us, timeout: 0 };
                let flags = self.enter_flags | EnterFlags::EXT_ARG;
                // SAFETY: `wait` is the argument that the flag announces, and names no memory; the
                // entries were vouched for by `note`.
                unsafe { self.submitter.enter(submit, want, flags.bits(), Some(&wait)) }
            }
            None => {
                let (want, flags) = (u32::from(may_sleep), self.enter_flags.bits());
                // SAFETY: no argument is passed; the entries were vouched for by `note`.
                unsafe { self.submitter.enter::<libc::sigset_t>(submit, want, flags, None) }
            }
        };
        self.submissions.sync();
        self.completions.sync();
        self.pace.found(self.completions.len());
        self.hardships.overflows += u64::from(self.submissions.cq_overflow());
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
                // The wait for company was in vain.
                self.pace.calm_down();
                Ok(())
            }
            Err(error) if self.is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn next(&mut self) -> Option<Completion> {
        if let Some(bundle) = self.bundle.take() {
            let Bundle { slot, armed, .. } = bundle;
            let received = Received::Bytes(self.claim(bundle, true));
            let armed = armed || self.bundle.is_some();
            return Some(Completion::Received { slot, received, armed });
        }
        loop {
            let entry = self.completions.next()?;
            if let Some(completion) = self.completed(&entry) {
                return Some(completion);
            }
        }
    }

    fn provide(&mut self, filled: Filled) {
        if let Some(filled) = self.landings.take_back(filled) {
            self.buffers.provide(filled);
        }
    }

    fn refill(&mut self) {
        self.buffers.found_dry();
    }

    fn receive_bytes(&self) -> usize {
        self.buffers.bytes()
    }

    fn is_dry(&self) -> bool {
        self.buffers.is_dry()
    }

    fn resize(&mut self, connections: usize) {
        self.buffers.resize(connections);
        self.messages.keep_for(connections);
    }

    fn blocks(&mut self) -> &mut BlockPool {
        &mut self.blocks
    }

    fn untaken_bytes(&self, socket: &Socket) -> usize {
        socket.untaken_bytes()
    }

    fn intake(&self, socket: &Socket) -> u64 {
        socket.intake()
    }

    fn is_gone(&self, socket: &Socket) -> bool {
        socket.is_gone()
    }

    fn hardships(&self) -> Hardships {
        let ZeroCopy { sends: zero_copy_sends, copied: zero_copy_copied, .. } = self.zero_copy;
        Hardships { zero_copy_sends, zero_copy_copied, ..self.hardships }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
