//! The pool of receive buffers, from which the kernel picks one for each run of received bytes.
//!
//! ```text
//!   a buffer at a time:  kernel's --(completion)--> Filled --provide--> kernel's, or kept back
//!
//!   piece by piece:      | Filled | Filled | not filled yet |
//!                        a completion appends; the kernel has the rest until one says it is done
//! ```
//!
//! A byte has exactly one owner: the kernel, or the holder of the one `Filled` that names it. A
//! buffer goes back when the kernel has done with it and every `Filled` of it has come home. The
//! kernel takes buffers in the order in which they were provided, so every buffer that it holds is
//! touched in turn; only as many as `Supply` wants are provided, the others are kept back, and the
//! working set stays in the cache.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::region::Region;
use super::supply::Supply;

/// `IOU_PBUF_RING_INC`: the kernel fills a buffer piece by piece.
pub(super) const INCREMENTAL: u16 = 2;

/// Received bytes: a buffer of the pool, or a part of one. Not `Clone`: it is the proof that the
/// kernel has given these bytes up, minted only by `BufferPool::claim`.
#[derive(Debug)]
#[must_use = "a dropped buffer is lost to its ring for ever"]
pub struct Filled {
    start: NonNull<u8>,
    len: u32,
    index: u16,
    pool: u16,
}

// SAFETY: a `Filled` is the only owner of its bytes (R2), which stay mapped for ever (R1); whoever
// holds it may read them on any thread.
unsafe impl Send for Filled {}

impl Filled {
    /// What is left to read.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: R1, R2: `start..start + len` is inside the region, initialised from birth, and
        // the kernel writes there only after `provide` has consumed this token: what else it may
        // write of the same buffer lies behind.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }

    /// The number of the pool that it is of.
    pub(super) fn pool(&self) -> u16 {
        self.pool
    }

    /// Drops the first `bytes`.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn consume(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).expect("a buffer is smaller than 4 GiB");
        assert!(bytes <= self.len);
        self.len -= bytes;
        // SAFETY: R1: at most one past the end of the same buffer.
        self.start = unsafe { self.start.add(bytes as usize) };
    }
}

/// Who owns a buffer, and how far it is filled.
#[derive(Clone, Copy, Debug, Default)]
struct Tenure {
    /// True while the kernel may write to it, behind what is filled.
    with_kernel: bool,
    /// Bytes from its start that completions have named.
    filled: u32,
    /// How many `Filled` name a part of it.
    parts: u32,
}

impl Tenure {
    fn is_over(self) -> bool {
        !self.with_kernel && self.parts == 0
    }
}

/// The memory of the buffers and the witness of who owns each.
#[derive(Debug)]
pub struct BufferPool {
    memory: Region,
    buffer_bytes: u32,
    tenures: Box<[Tenure]>,
    pool: u16,
}

impl BufferPool {
    /// # Errors
    /// What mmap(2) says.
    pub fn map(pool: u16, count: u16, buffer_bytes: u32) -> io::Result<BufferPool> {
        let memory = Region::map(usize::from(count) * buffer_bytes as usize)?;
        let tenures = vec![Tenure::default(); usize::from(count)].into();
        Ok(BufferPool { memory, buffer_bytes, tenures, pool })
    }

    pub(super) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    pub(super) fn address(&self, index: u16) -> NonNull<u8> {
        self.memory.at(usize::from(index) * self.buffer_bytes as usize)
    }

    /// Lets the kernel have a buffer.
    ///
    /// # Panics
    /// If it has it already, or if somebody else has a part of it.
    pub(super) fn hand_over(&mut self, index: u16) {
        let tenure = &mut self.tenures[usize::from(index)];
        assert!(tenure.is_over(), "buffer {index} is not ours to give");
        *tenure = Tenure { with_kernel: true, ..Tenure::default() };
    }

    /// Takes over the next `len` bytes of a buffer, which a completion names; `done` says that the
    /// kernel will not write to it any more. Visible in `sys` only: a completion must be claimed
    /// once, in order, and the one loop that takes completions off the queue lives here (R4).
    pub(super) fn claim(&mut self, index: u16, len: u32, done: bool) -> Filled {
        let address = self.address(index);
        let tenure = &mut self.tenures[usize::from(index)];
        assert!(tenure.with_kernel, "the kernel gave buffer {index}, which it did not have");
        let offset = tenure.filled;
        assert!(len <= self.buffer_bytes - offset, "buffer {index} is longer than it is");
        tenure.filled += len;
        tenure.with_kernel = !done;
        tenure.parts += 1;
        // SAFETY: R1: at most one past the end of the same buffer.
        let start = unsafe { address.add(offset as usize) };
        Filled { start, len, index, pool: self.pool }
    }

    /// Ends the life of a token. Says which buffer may be given to the kernel again, if one may.
    pub(super) fn settle(&mut self, filled: Filled) -> Option<u16> {
        assert!(filled.pool == self.pool, "a buffer came home to a foreign ring");
        let tenure = &mut self.tenures[usize::from(filled.index)];
        tenure.parts -= 1;
        tenure.is_over().then_some(filled.index)
    }

    /// Plays the kernel: appends `bytes` to a buffer that it has, or is given now, and names them.
    ///
    /// # Panics
    /// If the buffer is held, or has less room.
    pub fn fill(&mut self, index: u16, bytes: &[u8], done: bool) -> Filled {
        if !self.tenures[usize::from(index)].with_kernel {
            self.hand_over(index);
        }
        let len = u32::try_from(bytes.len()).expect("no more than a buffer holds");
        let filled = self.claim(index, len, done);
        // SAFETY: the bytes are in bounds, for `claim` checked it, and nobody else knows them yet.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), filled.start.as_ptr(), bytes.len())
        };
        filled
    }

    /// Room that `fill` finds in a buffer.
    #[cfg(test)]
    pub fn room(&self, index: u16) -> usize {
        let tenure = self.tenures[usize::from(index)];
        (self.buffer_bytes - if tenure.with_kernel { tenure.filled } else { 0 }) as usize
    }

    /// How many `Filled` there are.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.tenures.iter().map(|tenure| tenure.parts as usize).sum()
    }

    /// Takes a part back as `BufferRing` does.
    #[cfg(test)]
    pub fn take_back(&mut self, filled: Filled) -> Option<u16> {
        self.settle(filled)
    }
}

/// A pool that is registered with a ring as a buffer group.
#[derive(Debug)]
pub struct BufferRing {
    pool: BufferPool,
    entries: Region,
    /// One less than the number of entries, which is a power of two.
    mask: u16,
    /// Our copy of the tail. We are its only writer; the kernel only reads the shared one.
    tail: u16,
    /// The buffer in each entry. The kernel changes entries as it fills buffers piece by piece.
    order: Box<[u16]>,
    /// Where each buffer was provided last: the tail at that time.
    places: Box<[u16]>,
    /// How many buffers the kernel holds.
    provided: u16,
    /// How many it should hold.
    supply: Supply,
    /// Buffers that neither the kernel nor a `Filled` holds.
    kept: Vec<u16>,
}

impl BufferRing {
    pub const GROUP: u16 = 0;

    /// Registers `count` buffers of `buffer_bytes` each, to be filled piece by piece if
    /// `incremental`.
    ///
    /// # Errors
    /// What mmap(2) and `io_uring_register(2)` say; a `count` that is not a power of two, or above
    /// 2^15, is refused.
    pub fn register(
        submitter: &Submitter<'_>,
        pool: u16,
        (count, buffer_bytes): (u16, u32),
        incremental: bool,
    ) -> io::Result<BufferRing> {
        if !count.is_power_of_two() || count > 1 << 15 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let entries = Region::map(usize::from(count) * size_of::<BufRingEntry>())?;
        let address = entries.at(0).as_ptr() as u64;
        let flags = if incremental { INCREMENTAL } else { 0 };
        // SAFETY: R1: `entries` is page-aligned, zero-filled, `count` entries long, never unmapped.
        unsafe { submitter.register_buf_ring_with_flags(address, count, Self::GROUP, flags)? };
        let mut ring = BufferRing {
            pool: BufferPool::map(pool, count, buffer_bytes)?,
            entries,
            mask: count - 1,
            tail: 0,
            order: vec![0; usize::from(count)].into(),
            places: vec![0; usize::from(count)].into(),
            provided: 0,
            supply: Supply::new(count, buffer_bytes),
            kept: (0..count).rev().collect(),
        };
        ring.refill();
        ring.publish();
        Ok(ring)
    }

    pub fn buffer_bytes(&self) -> u32 {
        self.pool.buffer_bytes()
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        self.places.len() * self.pool.buffer_bytes() as usize
    }

    /// True when the kernel holds no buffer: a receive armed now would fail at once.
    pub fn is_dry(&self) -> bool {
        self.provided == 0
    }

    /// Says how many connections there are to receive from.
    pub fn resize(&mut self, connections: usize) {
        self.supply.resize(connections);
        self.refill();
    }

    /// Says that a receive found no buffer. What is kept back is provided then.
    pub(super) fn found_dry(&mut self) {
        self.supply.grow();
        self.refill();
    }

    /// Looks, at every tick, whether fewer buffers will do.
    pub(super) fn look(&mut self) {
        self.supply.look();
    }

    fn refill(&mut self) {
        while self.provided < self.supply.wanted()
            && let Some(index) = self.kept.pop()
        {
            self.push(index);
        }
    }

    /// Takes over what a completion names; see `BufferPool::claim`.
    pub(super) fn claim(&mut self, index: u16, len: u32, done: bool) -> Filled {
        self.provided -= u16::from(done);
        self.pool.claim(index, len, done)
    }

    /// The buffer that was provided behind `index`: a bundle goes on there.
    ///
    /// # Panics
    /// If no buffer was: then the kernel names bytes that it did not receive.
    pub(super) fn behind(&self, index: u16) -> u16 {
        let place = self.places[usize::from(index)].wrapping_add(1);
        let next = self.order[usize::from(place & self.mask)];
        assert!(self.places[usize::from(next)] == place, "a bundle left its buffers");
        next
    }

    /// Gives back what a completion named. The buffer follows when all of it is back.
    pub fn provide(&mut self, filled: Filled) {
        let Some(index) = self.pool.settle(filled) else { return };
        if self.provided < self.supply.wanted() {
            self.push(index);
        } else {
            self.kept.push(index);
        }
    }

    fn push(&mut self, index: u16) {
        self.pool.hand_over(index);
        let slot = usize::from(self.tail & self.mask);
        let entry = self.entries.at(slot * size_of::<BufRingEntry>()).cast::<BufRingEntry>();
        // SAFETY: in bounds, aligned and zero-initialised (R1). The kernel uses entries only below
        // the shared tail, and this one is at it or above, so we are alone with these bytes. The
        // setters spare the reserved half-word, which in entry 0 is the shared tail itself.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(self.pool.address(index).as_ptr() as u64);
        entry.set_len(self.pool.buffer_bytes);
        entry.set_bid(index);
        self.order[slot] = index;
        self.places[usize::from(index)] = self.tail;
        self.tail = self.tail.wrapping_add(1);
        self.provided += 1;
    }

    /// Shows the kernel every buffer provided so far. One store a turn.
    pub fn publish(&mut self) {
        self.supply.handed_over();
        let first = self.entries.at(0).cast::<BufRingEntry>().as_ptr();
        // SAFETY: `first` is entry 0 of the registered ring, as `tail` demands.
        let tail = unsafe { BufRingEntry::tail(first) };
        // SAFETY: `tail` is aligned, inside `entries`, and only ever loaded by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: entries written by `push` become visible before the tail that covers them.
        tail.store(self.tail, Ordering::Release);
    }
}
