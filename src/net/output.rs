//! What a connection must still send.
//!
//! ```text
//!   | sent | in flight, or waiting |  space  |      the blocks, oldest first
//!   ^ front block                     ^ back block
//! ```
//!
//! The kernel reads from the front while replies are written at the back; neither moves a byte.

use std::collections::VecDeque;

use crate::base::limits::REPLY_HEAD_BYTES_MAX;
use crate::base::output;
use crate::sys::blocks::{BLOCK_BYTES, BLOCKS_AHEAD, Block, BlockPool, Landed};

#[derive(Debug, Default)]
pub struct Output {
    blocks: VecDeque<Block>,
    /// Bytes of the front block that the kernel has taken.
    sent: usize,
    unsent_bytes: usize,
}

impl Output {
    /// Bytes that the kernel has not taken yet.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Bytes of the heap that are taken, beside the blocks.
    pub fn heap_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Block>()
    }

    /// Blocks that are held.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// True when the peer must read before more is written: as many bytes wait as may, or as many
    /// blocks, which short replies from elsewhere do not fill.
    pub fn is_full(&self, limit_bytes: usize) -> bool {
        self.unsent_bytes >= limit_bytes || self.blocks.len() > limit_bytes.div_ceil(BLOCK_BYTES)
    }

    /// The blocks to send from, and how many bytes of the first are sent already.
    pub fn unsent(&mut self) -> (impl Iterator<Item = &mut Block>, usize) {
        (self.blocks.iter_mut(), self.sent)
    }

    /// Records that a send has ended and the kernel took `taken` bytes.
    ///
    /// # Panics
    /// If it took more than there were.
    pub fn land(&mut self, taken: usize, landed: &Landed, pool: &mut BlockPool) {
        for block in &mut self.blocks {
            block.land(landed);
        }
        assert!(taken <= self.unsent_bytes, "the kernel sent bytes that were not there");
        self.unsent_bytes -= taken;
        self.sent += taken;
        while let Some(front) = self.blocks.front() {
            let len = front.bytes().len();
            if self.sent < len || self.sent == 0 {
                break;
            }
            self.sent -= len;
            self.blocks.pop_front().into_iter().for_each(|block| pool.give(block));
        }
    }

    /// Appends another output, whose replies come later.
    pub fn append(&mut self, later: &mut Output) {
        assert!(later.sent == 0, "an output that is being sent belongs to its connection");
        self.unsent_bytes += std::mem::take(&mut later.unsent_bytes);
        self.blocks.append(&mut later.blocks);
    }

    /// Drops everything. Nothing may be in flight.
    pub fn clear(&mut self, pool: &mut BlockPool) {
        self.blocks.drain(..).for_each(|block| pool.give(block));
        self.sent = 0;
        self.unsent_bytes = 0;
    }
}

/// Where new blocks come from.
pub trait Blocks {
    fn take(&mut self) -> Block;

    /// True when `take` works for all that may be written before `is_full` is asked again.
    fn has_more(&self) -> bool;
}

/// In a ring: its pool.
impl Blocks for BlockPool {
    fn take(&mut self) -> Block {
        BlockPool::take(self)
    }

    fn has_more(&self) -> bool {
        self.free() >= BLOCKS_AHEAD
    }
}

/// On a worker: the blocks that came with the batch.
impl Blocks for Vec<Block> {
    fn take(&mut self) -> Block {
        self.pop().expect("a writer asks whether the output is full")
    }

    fn has_more(&self) -> bool {
        self.len() >= BLOCKS_AHEAD
    }
}

/// The end of an output, for those who write replies.
#[derive(Debug)]
pub struct Writer<'a, B> {
    output: &'a mut Output,
    source: &'a mut B,
    /// Unsent bytes from which on the output is full.
    limit_bytes: usize,
}

impl<'a, B: Blocks> Writer<'a, B> {
    pub fn new(output: &'a mut Output, source: &'a mut B, limit_bytes: usize) -> Writer<'a, B> {
        Writer { output, source, limit_bytes }
    }

    #[cold]
    fn push(&mut self) {
        self.output.blocks.push_back(self.source.take());
    }
}

impl<B: Blocks> output::Output for Writer<'_, B> {
    #[inline]
    fn write(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8]) -> usize) {
        assert!(bytes <= REPLY_HEAD_BYTES_MAX);
        if self.output.blocks.back().is_none_or(|block| block.room() < bytes) {
            self.push();
        }
        let block = self.output.blocks.back_mut().expect("there is a block, or one was pushed");
        let written = fill(&mut block.space()[..bytes]);
        assert!(written <= bytes);
        block.advance(written);
        self.output.unsent_bytes += written;
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.output.is_full(self.limit_bytes) || !self.source.has_more()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::PIECE_BYTES_MAX;
    use crate::base::output::Output as _;

    fn drain(output: &mut Output, pool: &mut BlockPool, mut step: usize) -> Vec<u8> {
        let mut got = Vec::new();
        while output.unsent_bytes() > 0 {
            let (blocks, skip) = output.unsent();
            let bytes: Vec<u8> = blocks.flat_map(|block| block.bytes().to_vec()).collect();
            let taken = step.min(bytes.len() - skip);
            got.extend_from_slice(&bytes[skip..skip + taken]);
            output.land(taken, &Landed::for_test(), pool);
            step += 1;
        }
        got
    }

    #[test]
    fn short_sends_lose_and_repeat_nothing() {
        let mut pool = BlockPool::map(0).unwrap();
        let mut output = Output::default();
        let mut expected = Vec::new();
        for round in 0..3u8 {
            let long = vec![round; 20_000];
            Writer::new(&mut output, &mut pool, usize::MAX).put(&long);
            expected.extend(long);
        }
        assert_eq!(output.unsent_bytes(), 60_000);
        assert_eq!(drain(&mut output, &mut pool, 997), expected);
        output.clear(&mut pool);
        assert_eq!(pool.used_bytes(), 0);
    }

    #[test]
    fn a_worker_stops_before_its_blocks_run_out() {
        let mut pool = BlockPool::map(0).unwrap();
        let mut spare = vec![pool.take(), pool.take(), pool.take()];
        let mut output = Output::default();
        let mut writer = Writer::new(&mut output, &mut spare, usize::MAX);
        let mut puts = 0;
        while !writer.is_full() {
            // As much as may be written between two looks.
            writer.put(&[1; REPLY_HEAD_BYTES_MAX]);
            writer.put(&vec![2; PIECE_BYTES_MAX]);
            writer.put(&[3; REPLY_HEAD_BYTES_MAX]);
            puts += 1;
        }
        assert!(puts >= 1);
        output.clear(&mut pool);
        spare.drain(..).for_each(|block| pool.give(block));
        assert_eq!(pool.used_bytes(), 0);
    }

    #[test]
    fn short_replies_from_elsewhere_fill_it_too() {
        let mut pool = BlockPool::map(0).unwrap();
        let mut output = Output::default();
        for _ in 0..3 {
            assert!(!output.is_full(2 * BLOCK_BYTES));
            let mut later = Output::default();
            Writer::new(&mut later, &mut pool, usize::MAX).put(b"OK\r\n");
            output.append(&mut later);
        }
        assert!(output.is_full(2 * BLOCK_BYTES));
        output.clear(&mut pool);
    }

    #[test]
    fn the_limit_is_advice_between_replies() {
        let mut pool = BlockPool::map(0).unwrap();
        let mut output = Output::default();
        let mut writer = Writer::new(&mut output, &mut pool, 100);
        writer.put(&[1; 99]);
        assert!(!writer.is_full());
        writer.put(&[1; 99]);
        assert!(writer.is_full());
        output.clear(&mut pool);
    }
}
