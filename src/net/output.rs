//! What a connection must still send.
//!
//! ```text
//!   | sent | in flight, or waiting |  space  |      the blocks, oldest first
//!   ^ front block                     ^ back block
//! ```
//!
//! The kernel reads from the front while replies are written at the back; neither moves a byte.
//! Large values lie in no block: a span says where they are, and `spans` where they belong.

use std::collections::VecDeque;

use crate::base::limits::REPLY_HEAD_BYTES_MAX;
use crate::base::output;
use crate::sys::blocks::{BLOCK_BYTES, BLOCKS_AHEAD, Block, BlockPool, Landed};
use crate::sys::gather::Gather;
use crate::sys::region::Span;

use super::spans::Spans;

#[derive(Debug, Default)]
pub struct Output {
    blocks: VecDeque<Block>,
    /// Bytes of the front block that the kernel has taken.
    sent: u32,
    unsent_bytes: u32,
    /// From the first span on.
    spans: Option<Box<Spans>>,
}

#[inline]
fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("an output is far smaller than 4 GiB")
}

impl Output {
    /// Bytes that the kernel has not taken yet, those of spans included.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes as usize
    }

    /// Bytes of the heap that are taken, beside the blocks.
    pub fn heap_bytes(&self) -> usize {
        let spans = self.spans.as_ref().map_or(0, |spans| {
            let gather = if spans.is_empty() { 0 } else { size_of::<Gather>() };
            gather + spans.heap_bytes()
        });
        self.blocks.capacity() * size_of::<Block>() + spans
    }

    /// Bytes of spans that the kernel has not taken yet.
    pub fn spanned_bytes(&self) -> usize {
        self.spans.as_ref().map_or(0, |spans| spans.bytes())
    }

    /// True when some of what is to be sent is in no block.
    #[inline]
    pub fn has_spans(&self) -> bool {
        self.spans.as_ref().is_some_and(|spans| !spans.is_empty())
    }

    /// What is to be sent and is in no block.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.spans.iter().flat_map(|spans| spans.iter().map(|spliced| &spliced.span))
    }

    /// Blocks that are held.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// True when the peer must read before more is written: as many bytes wait as may, or as many
    /// blocks, which short replies from elsewhere do not fill.
    pub fn is_full(&self, limit_bytes: usize) -> bool {
        self.unsent_bytes() >= limit_bytes || self.blocks.len() > limit_bytes.div_ceil(BLOCK_BYTES)
    }

    /// The blocks to send from, and how many bytes of the first are sent already.
    pub fn unsent(&mut self) -> (impl Iterator<Item = &mut Block>, usize) {
        (self.blocks.iter_mut(), self.sent as usize)
    }

    /// The pieces to send, where there are spans among them.
    pub fn gather(&mut self, gather: &mut Gather) {
        let Some(spans) = &mut self.spans else { return };
        let mut reader =
            Reader { blocks: self.blocks.iter_mut(), block: None, at: self.sent as usize };
        let mut skip = std::mem::take(&mut spans.sent);
        let sent = skip;
        let has_room = spans.iter_mut().all(|spliced| {
            reader.read(spliced.gap, gather)
                && gather.span(&mut spliced.span, std::mem::take(&mut skip))
        });
        spans.sent = sent;
        if has_room {
            reader.read(usize::MAX, gather);
        }
    }

    /// Records that a send has ended and the kernel took `taken` bytes. Spans of which nothing is
    /// left to send go home.
    ///
    /// # Panics
    /// If it took more than there were.
    pub fn land(
        &mut self,
        taken: usize,
        landed: &Landed,
        pool: &mut BlockPool,
        home: impl FnMut(Span),
    ) {
        for block in &mut self.blocks {
            block.land(landed);
        }
        assert!(taken <= self.unsent_bytes(), "the kernel sent bytes that were not there");
        self.unsent_bytes -= narrow(taken);
        match self.spans.take() {
            None => self.drop_blocks(taken, pool),
            Some(mut spans) => {
                spans.iter_mut().for_each(|spliced| spliced.span.land(landed));
                spans.take(taken, |bytes| self.drop_blocks(bytes, pool), home);
                self.spans = Some(spans);
            }
        }
    }

    /// So many bytes of the blocks are sent.
    #[inline]
    fn drop_blocks(&mut self, taken: usize, pool: &mut BlockPool) {
        self.sent += narrow(taken);
        while let Some(front) = self.blocks.front() {
            let len = narrow(front.bytes().len());
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
        if let Some(spans) = &mut later.spans {
            let block_bytes = self.block_bytes();
            self.spans.get_or_insert_default().append(spans, block_bytes);
        }
        self.unsent_bytes += std::mem::take(&mut later.unsent_bytes);
        self.blocks.append(&mut later.blocks);
    }

    /// Unsent bytes that are in blocks.
    fn block_bytes(&self) -> usize {
        self.unsent_bytes() - self.spanned_bytes()
    }

    /// Drops everything. Nothing may be in flight.
    pub fn clear(&mut self, pool: &mut BlockPool, mut home: impl FnMut(Span)) {
        self.blocks.drain(..).for_each(|block| pool.give(block));
        self.sent = 0;
        self.unsent_bytes = 0;
        let spans = self.spans.take();
        if let Some(mut spans) = spans {
            spans.drain().for_each(|spliced| home(spliced.span));
        }
    }

    /// Copies what is spanned into blocks, and gives the spans home. False when that takes more
    /// than so many blocks, and nothing is done. Nothing may be in flight.
    pub fn copy_spans(
        &mut self,
        pool: &mut BlockPool,
        most: usize,
        home: impl FnMut(Span),
    ) -> bool {
        if self.unsent_bytes().div_ceil(BLOCK_BYTES) > most {
            return false;
        }
        let Some(mut spans) = self.spans.take() else { return true };
        let mut copy = Output::default();
        let mut at = (0, self.sent as usize);
        let mut skip = spans.sent;
        let mut put = |bytes: &[u8]| copy.put_copy(bytes, pool);
        let mut rest = |mut left: usize, put: &mut dyn FnMut(&[u8])| {
            while let Some(block) = self.blocks.get(at.0).filter(|_| left > 0) {
                let bytes = &block.bytes()[at.1..];
                let here = bytes.len().min(left);
                put(&bytes[..here]);
                left -= here;
                at = if here == bytes.len() { (at.0 + 1, 0) } else { (at.0, at.1 + here) };
            }
        };
        for spliced in spans.iter() {
            rest(spliced.gap, &mut put);
            put(&spliced.span.bytes()[std::mem::take(&mut skip)..]);
        }
        rest(usize::MAX, &mut put);
        assert!(copy.unsent_bytes == self.unsent_bytes, "as much as there was");
        spans.drain().map(|spliced| spliced.span).for_each(home);
        self.blocks.drain(..).for_each(|block| pool.give(block));
        *self = copy;
        true
    }

    /// Appends bytes, leaving no room in any block but the last.
    fn put_copy(&mut self, mut bytes: &[u8], pool: &mut BlockPool) {
        self.unsent_bytes += narrow(bytes.len());
        while !bytes.is_empty() {
            if self.blocks.back().is_none_or(|block| block.room() == 0) {
                self.blocks.push_back(pool.take());
            }
            let Some(block) = self.blocks.back_mut() else { return };
            let (here, later) = bytes.split_at(block.room().min(bytes.len()));
            block.space()[..here.len()].copy_from_slice(here);
            block.advance(here.len());
            bytes = later;
        }
    }
}

/// Goes through what is in blocks, from where the kernel has taken it on.
struct Reader<'a, I> {
    blocks: I,
    block: Option<&'a mut Block>,
    /// Bytes of `block`, or of the next one, that are behind.
    at: usize,
}

impl<'a, I: Iterator<Item = &'a mut Block>> Reader<'a, I> {
    /// Gathers the next so many bytes, or as many as there are. False when there is no room for
    /// more.
    fn read(&mut self, mut bytes: usize, gather: &mut Gather) -> bool {
        while bytes > 0 {
            let Some(block) = self.block.take().or_else(|| self.blocks.next()) else { break };
            let len = block.bytes().len();
            let end = len.min(self.at.saturating_add(bytes));
            let start = std::mem::replace(&mut self.at, end);
            bytes -= end - start;
            let has_room = end == start || gather.block(block, start, end);
            if end == len {
                self.at = 0;
            } else {
                self.block = Some(block);
            }
            if !has_room {
                return false;
            }
        }
        true
    }
}

/// Where new blocks come from.
pub trait Blocks {
    fn take(&mut self) -> Block;

    /// How often `take` works.
    fn left(&self) -> usize;

    /// True when it works for all that may be written before `is_full` is asked again.
    #[inline]
    fn has_more(&self) -> bool {
        self.left() >= BLOCKS_AHEAD
    }
}

/// In a ring: its pool.
impl Blocks for BlockPool {
    fn take(&mut self) -> Block {
        BlockPool::take(self)
    }

    #[inline]
    fn left(&self) -> usize {
        self.free()
    }
}

/// On a worker: the blocks that came with the batch.
impl Blocks for Vec<Block> {
    fn take(&mut self) -> Block {
        self.pop().expect("a writer asks whether the output is full")
    }

    #[inline]
    fn left(&self) -> usize {
        self.len()
    }
}

/// The end of an output, for those who write replies.
#[derive(Debug)]
pub struct Writer<'a, B> {
    output: &'a mut Output,
    source: &'a mut B,
    /// Unsent bytes from which on the output is full.
    limit_bytes: usize,
    /// Blocks from which on it is, which short replies from elsewhere do not fill.
    blocks_max: usize,
    /// Bytes of spans that do not count for that. Who writes more of them finds it full.
    span_bytes: usize,
    takes_any_span: bool,
}

impl<'a, B: Blocks> Writer<'a, B> {
    pub fn new(output: &'a mut Output, source: &'a mut B, limit_bytes: usize) -> Writer<'a, B> {
        let blocks_max = limit_bytes.div_ceil(BLOCK_BYTES);
        Writer { output, source, limit_bytes, blocks_max, span_bytes: 0, takes_any_span: false }
    }

    /// The first so many bytes of spans take no room: they need no block. They are taken however
    /// much is sent from where it lies, or while that is not too much.
    #[must_use]
    pub fn with_room_for_spans(mut self, bytes: usize, takes_any: bool) -> Writer<'a, B> {
        self.span_bytes = bytes;
        self.takes_any_span = takes_any;
        self
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
        self.output.unsent_bytes += narrow(written);
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.output.unsent_bytes() >= self.limit_bytes
            || self.output.blocks.len() > self.blocks_max
            || !self.source.has_more()
    }
}

impl<B: Blocks> output::Spanning<Span> for Writer<'_, B> {
    fn takes_spans(&self) -> bool {
        true
    }

    fn takes_any_span(&self) -> bool {
        self.takes_any_span
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        // The end of a block is left out where a piece does not fit.
        let blocks = bytes.div_ceil(BLOCK_BYTES - REPLY_HEAD_BYTES_MAX);
        let room = self.limit_bytes.saturating_sub(self.output.unsent_bytes());
        bytes <= room && blocks + BLOCKS_AHEAD <= self.source.left()
    }

    fn span(&mut self, span: Span) {
        let (output, len) = (&mut *self.output, span.len());
        let block_bytes = output.block_bytes();
        output.spans.get_or_insert_default().push(span, block_bytes);
        output.unsent_bytes += narrow(len);
        (self.span_bytes, self.limit_bytes) = match self.span_bytes.checked_sub(len) {
            Some(left) => (left, self.limit_bytes.saturating_add(len)),
            None => (0, 0),
        };
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
            output.land(taken, &Landed::for_test(), pool, |_| unreachable!());
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
        output.clear(&mut pool, drop);
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
        output.clear(&mut pool, drop);
        spare.drain(..).for_each(|block| pool.give(block));
        assert_eq!(pool.used_bytes(), 0);
    }

    /// Whatever stands in the last block, and whatever the length of the pieces.
    #[test]
    fn room_for_a_copy_is_room() {
        let mut pool = BlockPool::map(0).unwrap();
        let mut copied = 0;
        for (free, before) in (2..9).flat_map(|free| [(free, 0), (free, 1), (free, 16_000)]) {
            for bytes in (0..9).flat_map(|blocks| [blocks * BLOCK_BYTES + 1, blocks * 15_000]) {
                let mut spare: Vec<_> = (0..free).map(|_| pool.take()).collect();
                let mut output = Output::default();
                let mut writer = Writer::new(&mut output, &mut spare, 100_000);
                writer.put(&vec![1; before]);
                if !writer.is_full() && output::Spanning::<Span>::has_room_for(&writer, bytes) {
                    writer.put(&[2; REPLY_HEAD_BYTES_MAX]);
                    vec![3; bytes].chunks(4000).for_each(|run| writer.put(run));
                    writer.put(&[4; REPLY_HEAD_BYTES_MAX]);
                    assert!(bytes + before <= 100_000);
                    copied = copied.max(bytes);
                }
                output.clear(&mut pool, drop);
                spare.drain(..).for_each(|block| pool.give(block));
            }
        }
        assert!(copied > 64 << 10, "{copied}");
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
        output.clear(&mut pool, drop);
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
        output.clear(&mut pool, drop);
    }
}
