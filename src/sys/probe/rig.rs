//! A tiny ring to try features on, with a buffer pool, a deadline on every wait, and a safe way to
//! submit: an `Operation` names only memory that is never given back (rule R1) or never written.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, SubmitArgs, Timespec};
use io_uring::{Builder, IoUring, cqueue, opcode, squeue};

use super::RingShape;
use crate::sys::entry::end_after;
use crate::sys::region::Region;

/// As small as the trials allow, for locked memory may be scarce.
pub(super) const SMALL: RingShape = RingShape { submissions: 16, completions: 64, buffers: 16 };

/// A wait that takes longer has failed. Everything waited for here is due at once.
const DEADLINE_NS: u32 = 100_000_000;

const ATTEMPTS: u32 = 11;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(10);

/// `IORING_SEND_ZC_REPORT_USAGE`: the notification says whether the kernel copied after all.
const REPORT_USAGE: u16 = 1 << 3;

/// The set-up flags that every ring of the server has.
pub(super) fn base() -> Builder {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
    builder.setup_taskrun_flag().setup_submit_all().setup_clamp();
    builder
}

fn is_enomem(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOMEM)
}

/// Something to submit that cannot hurt: it holds no pointer but to static bytes, which the kernel
/// only reads.
pub(super) struct Operation(squeue::Entry);

impl Operation {
    pub(super) fn nop() -> Operation {
        Operation(opcode::Nop::new().build())
    }

    /// A multishot receive without buffers, which every kernel refuses.
    pub(super) fn refused(socket: BorrowedFd<'_>) -> Operation {
        let socket = Fd(socket.as_raw_fd());
        Operation(opcode::RecvMulti::new(socket, 0).build().clear_flags())
    }

    pub(super) fn accept(listener: BorrowedFd<'_>) -> Operation {
        let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd()));
        Operation(accept.flags(libc::SOCK_CLOEXEC).build())
    }

    /// A multishot receive that ends after `cap` bytes; 0 is no cap.
    pub(super) fn receive(socket: BorrowedFd<'_>, pool: &Pool, cap: u32) -> Operation {
        let receive = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), pool.group);
        Operation(end_after(receive.build(), cap))
    }

    pub(super) fn receive_bundle(socket: BorrowedFd<'_>, pool: &Pool) -> Operation {
        Operation(opcode::RecvMultiBundle::new(Fd(socket.as_raw_fd()), pool.group).build())
    }

    /// Sends two pieces as one message. The message is never freed: a few words.
    pub(super) fn send_zero_copy(
        socket: BorrowedFd<'_>,
        (head, tail): (&'static [u8], &'static [u8]),
    ) -> Operation {
        let piece = |bytes: &'static [u8]| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let pieces = Box::leak(Box::new([piece(head), piece(tail)]));
        // SAFETY: a message header is plain data, for which all zeros is "no name, no control".
        let message: libc::msghdr = unsafe { std::mem::zeroed() };
        let message = Box::leak(Box::new(message));
        (message.msg_iov, message.msg_iovlen) = (pieces.as_mut_ptr(), 2);
        let send = opcode::SendMsgZc::new(Fd(socket.as_raw_fd()), message);
        let flags = libc::MSG_WAITALL.cast_unsigned();
        Operation(send.ioprio(REPORT_USAGE).flags(flags).build())
    }

    fn cancel(token: Token) -> Operation {
        Operation(opcode::AsyncCancel::new(token.0).build())
    }
}

/// Names one submission among the completions of its rig.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(pub(super) u64);

#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    token: Token,
    pub(super) result: i32,
    pub(super) flags: u32,
}

impl Completion {
    /// True when this operation will post more.
    pub(super) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The result, if it is no error.
    pub(super) fn count(self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }
}

pub(super) struct Rig {
    pub(super) ring: IoUring,
    /// Completions that came while another was waited for.
    inbox: VecDeque<Completion>,
    tokens: u64,
    groups: u16,
}

impl Rig {
    /// Builds a ring and sees one operation through it.
    ///
    /// `ENOMEM` may be the memory of rings just closed, ours or those of the process before us: the
    /// kernel takes some 50 ms to give their locked memory back, so it is asked again for 100 ms.
    pub(super) fn build(builder: &mut Builder, shape: RingShape) -> io::Result<Rig> {
        builder.setup_cqsize(shape.completions);
        let mut attempts = 0;
        let ring = loop {
            attempts += 1;
            match builder.build(shape.submissions) {
                Err(error) if is_enomem(&error) && attempts < ATTEMPTS => {
                    std::thread::park_timeout(ATTEMPT_INTERVAL);
                }
                built => break built?,
            }
        };
        let mut rig = Rig { ring, inbox: VecDeque::new(), tokens: 0, groups: 0 };
        let nop = rig.submit(Operation::nop())?;
        rig.wait(nop)?.count()?;
        Ok(rig)
    }

    /// Puts `operation` into the queue. The next `wait` submits it.
    pub(super) fn queue(&mut self, operation: Operation) -> io::Result<Token> {
        self.tokens += 1;
        let entry = operation.0.user_data(self.tokens);
        // SAFETY: an `Operation` names static bytes at most, and a pool's group, whose memory is
        // never unmapped (R1).
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))?;
        Ok(Token(self.tokens))
    }

    pub(super) fn submit(&mut self, operation: Operation) -> io::Result<Token> {
        let token = self.queue(operation)?;
        self.ring.submit()?;
        Ok(token)
    }

    /// The next completion of `token`.
    ///
    /// # Errors
    /// `ETIME` when none comes in time.
    pub(super) fn wait(&mut self, token: Token) -> io::Result<Completion> {
        loop {
            if let Some(index) = self.inbox.iter().position(|one| one.token == token) {
                return self.inbox.remove(index).ok_or_else(|| io::ErrorKind::NotFound.into());
            }
            if self.ring.completion().is_empty() {
                self.enter(1, 0)?;
            }
            self.collect();
        }
    }

    /// The next completion, whatever it is of.
    ///
    /// # Errors
    /// `ETIME` when none comes in time.
    pub(super) fn next(&mut self) -> io::Result<(Token, Completion)> {
        loop {
            if let Some(completion) = self.inbox.pop_front() {
                return Ok((completion.token, completion));
            }
            if self.ring.completion().is_empty() {
                self.enter(1, 0)?;
            }
            self.collect();
        }
    }

    /// Submits, and waits for `want` completions, or for fewer after `min_wait_us`.
    pub(super) fn enter(&self, want: usize, min_wait_us: u32) -> io::Result<()> {
        let deadline = Timespec::new().nsec(DEADLINE_NS);
        let wait = SubmitArgs::new().min_wait_usec(min_wait_us).timespec(&deadline);
        match self.ring.submitter().submit_with_args(want, &wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result.map(drop),
        }
    }

    /// Takes all completions off the queue (R4: only here).
    fn collect(&mut self) {
        self.inbox.extend(self.ring.completion().map(|entry| Completion {
            token: Token(entry.user_data()),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// Ends a multishot operation and waits for its last completion.
    pub(super) fn cancel(&mut self, token: Token) -> io::Result<()> {
        let cancel = self.submit(Operation::cancel(token))?;
        self.wait(cancel)?;
        while self.wait(token)?.more() {}
        Ok(())
    }

    /// One operation through a registered ring descriptor, which is given back at once: a task has
    /// 16 places for them.
    pub(super) fn nop_through_registered_descriptor(&mut self) -> io::Result<()> {
        let token = self.queue(Operation::nop())?;
        let mut submitter = self.ring.submitter();
        submitter.register_ring_fd()?;
        let submitted = submitter.submit_and_wait(1);
        submitter.unregister_ring_fd()?;
        submitted?;
        self.wait(token)?.count()?;
        Ok(())
    }

    /// Registers a pool of `count` buffers, a power of two, and provides all of them, once.
    pub(super) fn pool(&mut self, count: u16, buffer_bytes: u32, flags: u16) -> io::Result<Pool> {
        let entries_bytes = usize::from(count) * size_of::<BufRingEntry>();
        let memory = Region::map(entries_bytes + usize::from(count) * buffer_bytes as usize)?;
        let pool = Pool {
            group: self.groups,
            memory,
            entries_bytes,
            buffer_bytes: buffer_bytes as usize,
            filled: vec![0; usize::from(count)],
        };
        for index in 0..count {
            pool.provide(index, buffer_bytes);
        }
        let address = memory.at(0).as_ptr() as u64;
        let submitter = self.ring.submitter();
        // SAFETY: `memory` is page-aligned, begins with the entries, and is never unmapped (R1).
        unsafe { submitter.register_buf_ring_with_flags(address, count, pool.group, flags) }?;
        pool.publish(count);
        self.groups += 1;
        Ok(pool)
    }

    /// Takes the pool away from the kernel. Its memory stays mapped (R1).
    pub(super) fn close(&mut self, pool: Pool) -> io::Result<()> {
        self.ring.submitter().unregister_buf_ring(pool.group)
    }
}

/// Buffers for the kernel to fill, each provided once and never again.
///
/// ```text
///   entry 0 (its last half-word is the tail) | entry 1 .. | buffer 0 | buffer 1 | ..
/// ```
pub(super) struct Pool {
    group: u16,
    memory: Region,
    entries_bytes: usize,
    buffer_bytes: usize,
    /// Bytes of each buffer that completions have named so far.
    filled: Vec<usize>,
}

impl Pool {
    fn entry(&self, index: u16) -> NonNull<BufRingEntry> {
        self.memory.at(usize::from(index) * size_of::<BufRingEntry>()).cast()
    }

    fn provide(&self, index: u16, buffer_bytes: u32) {
        let buffer = self.memory.at(self.entries_bytes + usize::from(index) * self.buffer_bytes);
        // SAFETY: the entry is aligned, zero-filled, and not yet known to the kernel.
        let entry = unsafe { self.entry(index).as_mut() };
        entry.set_addr(buffer.as_ptr() as u64);
        entry.set_len(buffer_bytes);
        entry.set_bid(index);
    }

    fn publish(&self, tail: u16) {
        // SAFETY: entry 0 of the registered ring, as `tail` demands.
        let shared = unsafe { BufRingEntry::tail(self.entry(0).as_ptr()) };
        // SAFETY: aligned, never unmapped, and only loaded by the kernel.
        let shared = unsafe { AtomicU16::from_ptr(shared.cast_mut()) };
        // Release: the entries become visible to the kernel before the tail that covers them.
        shared.store(tail, Ordering::Release);
    }

    /// The buffer and the bytes that `completion` reports, or `None` if it names no buffer.
    ///
    /// A bundle is a run of whole buffers, and these lie side by side.
    pub(super) fn take(&mut self, completion: Completion) -> Option<(u16, &[u8])> {
        let buffer = cqueue::buffer_select(completion.flags)?;
        let len = completion.count().ok()?;
        let filled = self.filled.get_mut(usize::from(buffer))?;
        let start = self.entries_bytes + usize::from(buffer) * self.buffer_bytes + *filled;
        *filled += len;
        if len > self.memory.len().checked_sub(start)? {
            return None;
        }
        let bytes = self.memory.span(start, len);
        // SAFETY: in bounds, never unmapped (R1), and the kernel has given these bytes up for good:
        // a completion named them, and no buffer is provided twice (R2).
        Some((buffer, unsafe { std::slice::from_raw_parts(bytes.as_ptr(), len) }))
    }
}
