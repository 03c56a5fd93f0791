//! The pool of receive buffers, from which the kernel picks one for each run of received bytes.
//!
//! ```text
//!   kernel's --(completion names it)--> Filled --provide--> kernel's, or kept back
//! ```
//!
//! A buffer has exactly one owner: the kernel, or the holder of the one `Filled` that names it. The
//! kernel takes buffers in the order in which they were provided, so every buffer that it holds is
//! touched in turn; only about as many as the connections need are provided, the others are kept
//! back, and the working set stays in the cache.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::region::Region;

/// Received bytes in a buffer of the pool. Not `Clone`: it is the proof that the kernel has given
/// the buffer up, minted only by `BufferPool::claim`.
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
        // the kernel does not write there until `provide` has consumed this token.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
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

/// The memory of the buffers and the witness of who owns each.
#[derive(Debug)]
pub struct BufferPool {
    memory: Region,
    buffer_bytes: u32,
    /// `lent[index]` is true exactly while a `Filled` of this index exists.
    lent: Box<[bool]>,
    pool: u16,
}

impl BufferPool {
    /// # Errors
    /// What mmap(2) says.
    pub fn map(pool: u16, count: u16, buffer_bytes: u32) -> io::Result<BufferPool> {
        let memory = Region::map(usize::from(count) * buffer_bytes as usize)?;
        Ok(BufferPool { memory, buffer_bytes, lent: vec![false; usize::from(count)].into(), pool })
    }

    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    pub(super) fn address(&self, index: u16) -> NonNull<u8> {
        self.memory.at(usize::from(index) * self.buffer_bytes as usize)
    }

    /// Takes over a buffer that a completion names. Visible in `sys` only: a completion must be
    /// claimed once, and the one loop that takes completions off the queue lives here (R4).
    pub(super) fn claim(&mut self, index: u16, len: u32) -> Filled {
        assert!(len <= self.buffer_bytes);
        let lent = &mut self.lent[usize::from(index)];
        assert!(!*lent, "the kernel gave buffer {index} twice");
        *lent = true;
        Filled { start: self.address(index), len, index, pool: self.pool }
    }

    /// Plays the kernel: puts `bytes` into a buffer that nobody holds, and names it.
    ///
    /// # Panics
    /// If the buffer is held, or smaller.
    pub fn fill(&mut self, index: u16, bytes: &[u8]) -> Filled {
        assert!(!self.lent[usize::from(index)] && bytes.len() <= self.buffer_bytes as usize);
        let address = self.address(index);
        // SAFETY: nobody holds the buffer, and the bytes fit.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address.as_ptr(), bytes.len()) };
        self.claim(index, u32::try_from(bytes.len()).expect("no more than a buffer holds"))
    }

    /// Takes a buffer back as `BufferRing` does.
    #[cfg(test)]
    pub fn take_back(&mut self, filled: Filled) -> u16 {
        self.settle(filled)
    }

    /// Ends the life of a token; the buffer may be given to the kernel again.
    pub(super) fn settle(&mut self, filled: Filled) -> u16 {
        assert!(filled.pool == self.pool, "a buffer came home to a foreign ring");
        assert!(self.lent[usize::from(filled.index)]);
        self.lent[usize::from(filled.index)] = false;
        filled.index
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
    /// How many buffers the kernel holds.
    provided: u16,
    /// How many it should hold.
    wanted: u16,
    /// Buffers that neither the kernel nor a `Filled` holds.
    kept: Vec<u16>,
}

/// Fewest buffers that are provided: enough for a burst on one connection.
const PROVIDED_MIN: u16 = 64;

impl BufferRing {
    pub const GROUP: u16 = 0;

    /// Registers `count` buffers of `buffer_bytes` each.
    ///
    /// # Errors
    /// What mmap(2) and `io_uring_register(2)` say; a `count` that is not a power of two, or above
    /// 2^15, is refused.
    pub fn register(
        submitter: &Submitter<'_>,
        pool: u16,
        count: u16,
        buffer_bytes: u32,
    ) -> io::Result<BufferRing> {
        if !count.is_power_of_two() || count > 1 << 15 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let entries = Region::map(usize::from(count) * size_of::<BufRingEntry>())?;
        let address = entries.at(0).as_ptr() as u64;
        // SAFETY: R1: `entries` is page-aligned, zero-filled, `count` entries long, never unmapped.
        unsafe { submitter.register_buf_ring_with_flags(address, count, Self::GROUP, 0)? };
        let mut ring = BufferRing {
            pool: BufferPool::map(pool, count, buffer_bytes)?,
            entries,
            mask: count - 1,
            tail: 0,
            provided: 0,
            wanted: PROVIDED_MIN.min(count),
            kept: (0..count).rev().collect(),
        };
        ring.refill();
        Ok(ring)
    }

    /// True when the kernel holds no buffer: a receive armed now would fail at once.
    pub fn is_dry(&self) -> bool {
        self.provided == 0
    }

    /// Says how many connections there are to receive from.
    pub fn resize(&mut self, connections: usize) {
        let count = self.mask + 1;
        let wanted = u16::try_from(connections.saturating_mul(2)).unwrap_or(count);
        self.wanted = wanted.clamp(PROVIDED_MIN.min(count), count);
        self.refill();
    }

    pub(super) fn claim(&mut self, index: u16, len: u32) -> Filled {
        self.provided -= 1;
        self.pool.claim(index, len)
    }

    /// Gives a buffer back.
    pub fn provide(&mut self, filled: Filled) {
        let index = self.pool.settle(filled);
        if self.provided < self.wanted {
            self.push(index);
        } else {
            self.kept.push(index);
        }
    }

    fn refill(&mut self) {
        while self.provided < self.wanted {
            let Some(index) = self.kept.pop() else { break };
            self.push(index);
        }
        self.publish();
    }

    fn push(&mut self, index: u16) {
        let slot = usize::from(self.tail & self.mask);
        let entry = self.entries.at(slot * size_of::<BufRingEntry>()).cast::<BufRingEntry>();
        // SAFETY: in bounds, aligned and zero-initialised (R1). The kernel reads entries only below
        // the shared tail, and this one is at it or above, so we are alone with these bytes. The
        // setters spare the reserved half-word, which in entry 0 is the shared tail itself.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(self.pool.address(index).as_ptr() as u64);
        entry.set_len(self.pool.buffer_bytes);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        self.provided += 1;
    }

    /// Shows the kernel every buffer provided so far. One store a turn.
    pub fn publish(&mut self) {
        let first = self.entries.at(0).cast::<BufRingEntry>().as_ptr();
        // SAFETY: `first` is entry 0 of the registered ring, as `tail` demands.
        let tail = unsafe { BufRingEntry::tail(first) };
        // SAFETY: `tail` is aligned, inside `entries`, and only ever loaded by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: entries written by `push` become visible before the tail that covers them.
        tail.store(self.tail, Ordering::Release);
    }
}
