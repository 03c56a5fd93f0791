//! The pool of blocks in which replies wait to be sent.
//!
//! ```text
//!   lender --Loan--> BlockPool --take--> Block: written at its end, sent from its start
//!     ^------ trim ----- | <----give-------|
//! ```
//!
//! A ring has a few blocks of its own; all others are cut from memory that is lent to it, and goes
//! back when all its blocks are free. A block only grows until it is given back, and it is not
//! given back while the kernel reads it, so a byte being sent never changes (R3).

use std::io;
use std::ptr::NonNull;

use super::region::Loan;

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

    /// Bytes that can still be written.
    #[inline]
    pub fn room(&self) -> usize {
        BLOCK_BYTES - self.len as usize
    }

    /// The part that is not written yet.
    #[inline]
    pub fn space(&mut self) -> &mut [u8] {
        let room = self.room();
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
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.room());
        self.len += u32::try_from(bytes).expect("a block is smaller than 4 GiB");
    }

    pub(super) fn launch(&mut self) {
        self.in_flight = true;
    }

    pub fn land(&mut self, _proof: &Landed) {
        self.in_flight = false;
    }
}

/// Blocks that a ring has for itself, so that nobody else can take the last ones from it.
pub const OWN_BLOCKS: usize = 16;

/// Free blocks that hold all that is written before somebody asks for more: two take the largest
/// piece with its reply heads, however the blocks break.
pub const BLOCKS_AHEAD: usize = 2;

/// Blocks of the largest loan: as many as a word has bits.
const LOAN_BLOCKS_MAX: u32 = u128::BITS;

/// A loan, cut into blocks.
#[derive(Debug)]
struct Sheet {
    loan: Loan,
    /// One bit for each free block.
    free: u128,
}

impl Sheet {
    fn cut(loan: Loan) -> Sheet {
        let blocks = u32::try_from(loan.len() / BLOCK_BYTES).unwrap_or(u32::MAX);
        assert!((1..=LOAN_BLOCKS_MAX).contains(&blocks), "a loan of {blocks} blocks");
        Sheet { loan, free: u128::MAX >> (LOAN_BLOCKS_MAX - blocks) }
    }

    fn blocks(&self) -> usize {
        self.loan.len() / BLOCK_BYTES
    }

    fn is_unused(&self) -> bool {
        self.free.count_ones() as usize == self.blocks()
    }
}

/// The blocks of one ring: a few of its own, and those of what is lent to it.
#[derive(Debug)]
pub struct BlockPool {
    pool: u16,
    /// The first is our own; the others are lent, and leave a hole when they go back.
    sheets: Vec<Option<Sheet>>,
    /// No sheet before this one has a free block.
    first_free: usize,
    free: usize,
    used: usize,
    /// Fewest free blocks since the last `trim`: what nobody needed.
    free_min: usize,
}

impl BlockPool {
    /// A pool with the ring's own blocks.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn map(pool: u16) -> io::Result<BlockPool> {
        let own = Loan::map(OWN_BLOCKS * BLOCK_BYTES)?;
        let mut this =
            BlockPool { pool, sheets: Vec::new(), first_free: 0, free: 0, used: 0, free_min: 0 };
        this.adopt(own);
        Ok(this)
    }

    /// Cuts one more loan into blocks.
    ///
    /// # Panics
    /// If it is smaller than one block or larger than 128.
    pub fn adopt(&mut self, loan: Loan) {
        let sheet = Sheet::cut(loan);
        self.free += sheet.blocks();
        let hole = self.sheets.iter().position(Option::is_none).unwrap_or(self.sheets.len());
        if hole == self.sheets.len() {
            self.sheets.push(None);
        }
        self.sheets[hole] = Some(sheet);
        self.first_free = self.first_free.min(hole);
    }

    /// The free block that is first in its order, so that the last loans become unused.
    ///
    /// # Panics
    /// If none is left: who writes asks whether there are more.
    pub fn take(&mut self) -> Block {
        loop {
            let sheet = self.sheets.get_mut(self.first_free).expect("a block is free");
            let Some(sheet) = sheet.as_mut().filter(|sheet| sheet.free != 0) else {
                self.first_free += 1;
                continue;
            };
            let bit = sheet.free.trailing_zeros();
            sheet.free &= sheet.free - 1;
            self.free -= 1;
            self.used += 1;
            self.free_min = self.free_min.min(self.free);
            let start = sheet.loan.span(bit as usize * BLOCK_BYTES, BLOCK_BYTES);
            let number = u32::try_from(self.first_free).expect("fewer than 2^25 loans");
            let index = number * LOAN_BLOCKS_MAX + bit;
            return Block { start, len: 0, index, pool: self.pool, in_flight: false };
        }
    }

    pub fn give(&mut self, block: Block) {
        assert!(block.pool == self.pool, "a block came home to a foreign ring");
        assert!(!block.in_flight, "a block is given back while the kernel reads it");
        let number = (block.index / LOAN_BLOCKS_MAX) as usize;
        let bit = 1 << (block.index % LOAN_BLOCKS_MAX);
        let sheet = self.sheets[number].as_mut().expect("a loan with a used block stays");
        assert!(sheet.free & bit == 0, "a block is given back twice");
        sheet.free |= bit;
        self.free += 1;
        self.used -= 1;
        self.first_free = self.first_free.min(number);
    }

    /// Blocks that can be taken now.
    pub fn free(&self) -> usize {
        self.free
    }

    /// Bytes of the blocks in use.
    pub fn used_bytes(&self) -> usize {
        self.used * BLOCK_BYTES
    }

    /// Bytes of all blocks that are lent to the ring, used or not.
    pub fn lent_bytes(&self) -> usize {
        (self.free + self.used - OWN_BLOCKS) * BLOCK_BYTES
    }

    /// Ends the time in which blocks may prove to be needed. So many of the free ones are wanted,
    /// although nobody takes them.
    pub fn trim(&mut self, kept: usize) -> Trim<'_> {
        let idle = std::mem::replace(&mut self.free_min, self.free).saturating_sub(kept);
        let sheet = self.sheets.len();
        Trim { pool: self, idle, sheet }
    }

    fn part_with(&mut self, number: usize) -> Loan {
        let sheet = self.sheets[number].take().expect("the caller has seen it");
        self.free -= sheet.blocks();
        self.free_min = self.free;
        while self.sheets.last().is_some_and(Option::is_none) {
            self.sheets.pop();
        }
        sheet.loan
    }
}

/// The loans that nobody needed since the last `trim`.
#[derive(Debug)]
pub struct Trim<'p> {
    pool: &'p mut BlockPool,
    idle: usize,
    /// Sheets from this one on have been looked at.
    sheet: usize,
}

impl Iterator for Trim<'_> {
    type Item = Loan;

    fn next(&mut self) -> Option<Loan> {
        while self.sheet > 1 {
            self.sheet -= 1;
            let Some(sheet) = self.pool.sheets.get(self.sheet).and_then(Option::as_ref) else {
                continue;
            };
            if sheet.is_unused() && sheet.blocks() <= self.idle {
                self.idle -= sheet.blocks();
                return Some(self.pool.part_with(self.sheet));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_grows_and_goes_home() {
        let mut pool = BlockPool::map(3).unwrap();
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

    fn take_all(pool: &mut BlockPool) -> Vec<Block> {
        (0..pool.free()).map(|_| pool.take()).collect()
    }

    #[test]
    fn every_block_of_every_loan_is_another() {
        let mut pool = BlockPool::map(0).unwrap();
        for blocks in [1, 4, 128] {
            pool.adopt(Loan::map(blocks * BLOCK_BYTES).unwrap());
        }
        let mut blocks = take_all(&mut pool);
        assert_eq!(blocks.len(), OWN_BLOCKS + 133);
        for (number, block) in (0u8..).zip(&mut blocks) {
            block.space().fill(number);
            block.advance(BLOCK_BYTES);
        }
        let own = |(number, block): (u8, &Block)| block.bytes().iter().all(|byte| *byte == number);
        assert!((0u8..).zip(&blocks).all(own));
        blocks.into_iter().for_each(|block| pool.give(block));
        assert_eq!((pool.free(), pool.used_bytes()), (OWN_BLOCKS + 133, 0));
    }

    #[test]
    fn loans_that_nobody_needed_go_back() {
        let mut pool = BlockPool::map(0).unwrap();
        for _ in 0..3 {
            pool.adopt(Loan::map(8 * BLOCK_BYTES).unwrap());
        }
        let mut blocks = take_all(&mut pool);
        let last = blocks.pop().unwrap();
        blocks.into_iter().for_each(|block| pool.give(block));
        assert_eq!(pool.trim(0).count(), 0, "they were needed a moment ago");
        assert_eq!(pool.trim(0).count(), 2, "the third has a block in use");
        assert_eq!(pool.lent_bytes(), 8 * BLOCK_BYTES);
        pool.give(last);
        pool.adopt(Loan::map(4 * BLOCK_BYTES).unwrap());
        let again = take_all(&mut pool);
        assert_eq!(again.len(), OWN_BLOCKS + 12);
        again.into_iter().for_each(|block| pool.give(block));
        assert_eq!(pool.trim(0).count(), 0);
        assert_eq!(pool.trim(0).count(), 2);
        assert_eq!((pool.trim(0).count(), pool.free()), (0, OWN_BLOCKS), "our own stay");
    }

    #[test]
    fn what_is_kept_is_not_idle() {
        let mut pool = BlockPool::map(0).unwrap();
        pool.adopt(Loan::map(4 * BLOCK_BYTES).unwrap());
        let taken: Vec<_> = (0..OWN_BLOCKS - 5).map(|_| pool.take()).collect();
        assert_eq!(pool.trim(9).count(), 0);
        assert_eq!((pool.free(), pool.trim(6).count()), (9, 0), "two blocks of a loan are wanted");
        assert_eq!((pool.trim(5).count(), pool.free()), (1, 5));
        taken.into_iter().for_each(|block| pool.give(block));
    }

    #[test]
    #[should_panic(expected = "while the kernel reads it")]
    fn a_block_in_flight_is_not_given_back() {
        let mut pool = BlockPool::map(0).unwrap();
        let mut block = pool.take();
        block.launch();
        pool.give(block);
    }
}
