//! The pool of blocks in which replies wait to be sent.
//!
//! ```text
//!   BlockPool --take--> Block: written at its end, sent from its start --give--> BlockPool
//! ```
//!
//! A block only grows until it is given back, and it is not given back while the kernel reads it,
//! so a byte being sent never changes (R3).

use std::io;
use std::ptr::NonNull;

use super::region::Region;

/// Bytes of a block: the replies to a deep pipeline of small values.
pub const BLOCK_BYTES: usize = 16 * 1024;

/// One block. Not `Clone`: whoever holds it is the only writer of its bytes.
#[derive(Debug)]
#[must_use = "a dropped block is lost to its pool for ever"]
pub struct Block {
    start: NonNull<u8>,
    len: u32,
    index: u32,
    pool: u16,
    /// True exactly while the kernel may read the block.
    in_flight: bool,
}

// SAFETY: a `Block` is the only owner of its bytes, which stay mapped for ever (R1).
unsafe impl Send for Block {}

/// Proof that a send has ended. Minted from its completion, in `sys` only.
#[derive(Debug)]
pub struct Landed(pub(super) ());

#[cfg(test)]
impl Landed {
    /// For tests of what follows a send, where no kernel is.
    pub fn for_test() -> Landed {
        Landed(())
    }
}

impl Block {
    /// What was written.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: R1, and the first `len` bytes do not change while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }

    /// The part that is not written yet.
    pub fn space(&mut self) -> &mut [u8] {
        let room = BLOCK_BYTES - self.len as usize;
        // SAFETY: R1: inside the block.
        let end = unsafe { self.start.add(self.len as usize) };
        // SAFETY: R1, R3: initialised from birth; the kernel reads nothing beyond the `len` it was
        // given, and `self` is the only owner.
        unsafe { std::slice::from_raw_parts_mut(end.as_ptr(), room) }
    }

    /// Makes the first `bytes` of the space part of the block.
    ///
    /// # Panics
    /// If there is less space.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= BLOCK_BYTES - self.len as usize);
        self.len += u32::try_from(bytes).expect("a block is smaller than 4 GiB");
    }

    pub(super) fn launch(&mut self) {
        self.in_flight = true;
    }

    pub fn land(&mut self, _proof: &Landed) {
        self.in_flight = false;
    }
}

/// The blocks of one ring.
#[derive(Debug)]
pub struct BlockPool {
    memory: Region,
    pool: u16,
    /// Free blocks whose pages are likely in memory, the warmest last.
    warm: Vec<u32>,
    /// Free blocks whose pages were given back to the system.
    cold: Vec<u32>,
    /// Blocks from here on were never used.
    fresh: u32,
    count: u32,
    /// Fewest warm blocks since the last `trim`: what nobody needed.
    warm_min: usize,
}

/// Warm blocks that `trim` leaves alone.
const WARM_KEPT: usize = 16;

impl BlockPool {
    /// Reserves address space for `count` blocks; memory is taken as blocks are first written.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn map(pool: u16, count: u32) -> io::Result<BlockPool> {
        let memory = Region::map(count as usize * BLOCK_BYTES)?;
        Ok(BlockPool {
            memory,
            pool,
            warm: Vec::new(),
            cold: Vec::new(),
            fresh: 0,
            count,
            warm_min: 0,
        })
    }

    /// # Panics
    /// If none is left: the pool is as large as all connections together may ask for.
    pub fn take(&mut self) -> Block {
        let index = self.warm.pop().or_else(|| self.cold.pop()).unwrap_or_else(|| {
            self.fresh += 1;
            self.fresh - 1
        });
        assert!(index < self.count, "more blocks than connections may hold");
        self.warm_min = self.warm_min.min(self.warm.len());
        let start = self.memory.at(index as usize * BLOCK_BYTES);
        Block { start, len: 0, index, pool: self.pool, in_flight: false }
    }

    pub fn give(&mut self, block: Block) {
        assert!(block.pool == self.pool, "a block came home to a foreign ring");
        assert!(!block.in_flight, "a block is given back while the kernel reads it");
        self.warm.push(block.index);
    }

    /// Bytes of the blocks in use.
    pub fn used_bytes(&self) -> usize {
        (self.fresh as usize - self.warm.len() - self.cold.len()) * BLOCK_BYTES
    }

    /// Bytes of memory that the pool holds, used or warm.
    #[cfg(test)]
    pub fn held_bytes(&self) -> usize {
        (self.fresh as usize - self.cold.len()) * BLOCK_BYTES
    }

    /// Gives the pages of blocks that nobody needed since the last call back to the system.
    pub fn trim(&mut self) {
        let idle = self.warm_min.saturating_sub(WARM_KEPT);
        for index in self.warm.drain(..idle) {
            // SAFETY: the block is free, so nobody refers to its bytes, and the kernel reads none.
            unsafe { self.memory.forget(index as usize * BLOCK_BYTES, BLOCK_BYTES) };
            self.cold.push(index);
        }
        self.warm_min = self.warm.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_grows_and_goes_home() {
        let mut pool = BlockPool::map(3, 4).unwrap();
        let mut block = pool.take();
        block.space()[..5].copy_from_slice(b"reply");
        block.advance(5);
        assert_eq!(block.bytes(), b"reply");
        assert_eq!(block.space().len(), BLOCK_BYTES - 5);
        assert_eq!(pool.used_bytes(), BLOCK_BYTES);
        pool.give(block);
        assert_eq!(pool.used_bytes(), 0);
        assert_eq!(pool.take().bytes(), b"");
    }

    #[test]
    fn memory_that_nobody_needed_goes_back() {
        let mut pool = BlockPool::map(0, 64).unwrap();
        let blocks: Vec<_> = (0..64).map(|_| pool.take()).collect();
        blocks.into_iter().for_each(|block| pool.give(block));
        pool.trim();
        assert_eq!(pool.held_bytes(), 64 * BLOCK_BYTES, "they were needed a moment ago");
        pool.trim();
        assert_eq!(pool.held_bytes(), WARM_KEPT * BLOCK_BYTES);
        let again: Vec<_> = (0..64).map(|_| pool.take()).collect();
        assert_eq!(pool.used_bytes(), 64 * BLOCK_BYTES);
        again.into_iter().for_each(|block| pool.give(block));
    }

    #[test]
    #[should_panic(expected = "while the kernel reads it")]
    fn a_block_in_flight_is_not_given_back() {
        let mut pool = BlockPool::map(0, 1).unwrap();
        let mut block = pool.take();
        block.launch();
        pool.give(block);
    }
}
