//! The spans of an output, and where they belong between the bytes of its blocks.
//!
//! ```text
//!   blocks:  | head 1 | end 1, head 2 | end 2, head 3 ...
//!   spans:         gap 1 ^        gap 2 ^
//!   sent:    head 1, span 1, end 1, head 2, span 2, ...
//! ```
//!
//! A gap is what comes out of the blocks between a span and the one before it. What is not sent yet
//! is told; what is sent is forgotten.

use std::collections::VecDeque;

use crate::sys::region::Span;

/// Entries that are kept room for while there are no spans.
const ROOM_KEPT: usize = 8;

#[derive(Debug)]
pub(super) struct Spliced {
    /// Bytes of blocks that are sent before the span, and after the one before it.
    pub gap: usize,
    pub span: Span,
}

#[derive(Debug, Default)]
pub(super) struct Spans {
    queue: VecDeque<Spliced>,
    /// Bytes of the first span that the kernel has taken.
    pub sent: usize,
    /// The sum of all gaps.
    gaps: usize,
    /// Bytes of all spans that the kernel has not taken.
    bytes: usize,
}

impl Spans {
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of spans that the kernel has not taken.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn heap_bytes(&self) -> usize {
        size_of::<Spans>() + self.queue.capacity() * size_of::<Spliced>()
    }

    /// Appends a span, with so many bytes of blocks unsent so far.
    pub fn push(&mut self, span: Span, block_bytes: usize) {
        let gap = block_bytes - self.gaps;
        self.gaps += gap;
        self.bytes += span.len();
        self.queue.push_back(Spliced { gap, span });
    }

    /// Appends the spans of a later output, with so many bytes of blocks unsent before it.
    pub fn append(&mut self, later: &mut Spans, block_bytes: usize) {
        let tail = block_bytes - self.gaps;
        if let Some(first) = later.queue.front_mut() {
            first.gap += tail;
            self.gaps += tail + std::mem::take(&mut later.gaps);
            self.bytes += std::mem::take(&mut later.bytes);
            self.queue.append(&mut later.queue);
        }
    }

    /// Takes out of `left` what belongs to the next gap; true if something is left for its span.
    fn take_gap(&mut self, left: &mut usize, blocks: &mut impl FnMut(usize)) -> bool {
        let Some(first) = self.queue.front_mut() else { return false };
        let gap = first.gap.min(*left);
        first.gap -= gap;
        self.gaps -= gap;
        *left -= gap;
        if gap > 0 {
            blocks(gap);
        }
        *left > 0
    }

    /// Records that the kernel took so many bytes: says how many of them, run by run, were of
    /// blocks, and gives those spans home of which nothing is left.
    pub fn take(
        &mut self,
        mut left: usize,
        mut blocks: impl FnMut(usize),
        mut home: impl FnMut(Span),
    ) {
        while self.take_gap(&mut left, &mut blocks) {
            let Some(first) = self.queue.front() else { break };
            let here = (first.span.len() - self.sent).min(left);
            self.sent += here;
            self.bytes -= here;
            left -= here;
            if self.sent == first.span.len() {
                self.sent = 0;
                self.queue.pop_front().into_iter().for_each(|spliced| home(spliced.span));
            }
        }
        if self.queue.is_empty() {
            self.queue.shrink_to(ROOM_KEPT);
        }
        if left > 0 {
            blocks(left);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Spliced> {
        self.queue.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Spliced> {
        self.queue.iter_mut()
    }

    /// Takes all spans out.
    pub fn drain(&mut self) -> impl Iterator<Item = Spliced> {
        (self.sent, self.gaps, self.bytes) = (0, 0, 0);
        self.queue.drain(..)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::base::output::{Output as _, Spanning as _};
    use crate::net::output::{Output, Writer};
    use crate::sys::blocks::{BLOCK_BYTES, BlockPool, Landed};
    use crate::sys::fake::Chance;
    use crate::sys::gather::{Gather, PIECES_MAX};

    /// An output, and what it should send.
    struct Told {
        chance: Chance,
        pool: BlockPool,
        output: Output,
        wanted: VecDeque<u8>,
        /// The notes of the spans that were put, and of those that came home.
        put: u64,
        home: u64,
    }

    impl Told {
        fn new(seed: u64) -> Told {
            let (chance, pool) = (Chance::new(seed), BlockPool::map(0).unwrap());
            let (output, wanted) = (Output::default(), VecDeque::new());
            Told { chance, pool, output, wanted, put: 0, home: 0 }
        }

        fn bytes(&mut self, most: usize) -> Vec<u8> {
            let (len, start) = (1 + self.chance.below(most), self.chance.below(1 << 20));
            (start..start + len).map(|at| (at * 7 + (at >> 8)).to_le_bytes()[0]).collect()
        }

        /// Writes a few replies, into the output itself or into one that is appended.
        fn write(&mut self) {
            let mut later = Output::default();
            let is_later = self.chance.once_in(3);
            for _ in 0..self.chance.below(6) {
                let most = *self.chance.pick(&[3, 900, 9000]);
                let bytes = self.bytes(most);
                self.wanted.extend(&bytes);
                let output = if is_later { &mut later } else { &mut self.output };
                let mut writer = Writer::new(output, &mut self.pool, usize::MAX);
                if self.chance.once_in(2) {
                    writer.span(Span::for_test(&bytes, self.put));
                    self.put += 1;
                } else {
                    writer.put(&bytes);
                }
            }
            self.output.append(&mut later);
        }

        /// What one send takes, as if there were no others.
        fn gathered(&mut self) -> Vec<u8> {
            let mut gather = Gather::default();
            self.output.gather(&mut gather);
            gather.read()
        }

        fn send(&mut self) {
            if !self.output.has_spans() {
                return;
            }
            let bytes = self.gathered();
            let taken = self.chance.below(bytes.len() + 1);
            let sent: Vec<u8> = self.wanted.iter().take(bytes.len()).copied().collect();
            assert!(sent == bytes, "what is sent is not what was written");
            self.wanted.drain(..taken);
            let Told { output, pool, home, .. } = self;
            output.land(taken, &Landed::for_test(), pool, |span| {
                assert_eq!(span.note(), *home, "out of turn");
                *home += 1;
            });
            assert_eq!(self.output.unsent_bytes(), self.wanted.len());
        }
    }

    #[test]
    fn spans_are_sent_in_their_places_however_short_the_sends() {
        for seed in 0..200 {
            let mut told = Told::new(seed);
            for _ in 0..60 {
                told.write();
                told.send();
            }
            while told.output.has_spans() {
                told.send();
            }
            assert_eq!((told.put, told.output.spanned_bytes()), (told.home, 0), "seed {seed}");
            told.output.clear(&mut told.pool, |_| unreachable!());
            assert_eq!(told.pool.used_bytes(), 0);
        }
    }

    #[test]
    fn what_was_spanned_can_be_copied_at_any_time() {
        for seed in 0..200 {
            let mut told = Told::new(seed);
            (0..told.chance.below(4)).for_each(|_| told.write());
            told.send();
            let Told { output, pool, home, .. } = &mut told;
            let blocks = output.unsent_bytes().div_ceil(BLOCK_BYTES);
            let had_spans = output.has_spans();
            if had_spans {
                assert!(!output.copy_spans(pool, blocks - 1, |_| unreachable!()));
            }
            assert!(output.copy_spans(pool, blocks, |_| *home += 1));
            assert_eq!((told.put, told.output.has_spans()), (told.home, false));
            let wanted: Vec<u8> = told.wanted.iter().copied().collect();
            let (blocks, skip) = told.output.unsent();
            let bytes: Vec<u8> = blocks.flat_map(|block| block.bytes().to_vec()).collect();
            assert!(bytes[skip.min(bytes.len())..] == wanted, "seed {seed}");
            told.output.clear(&mut told.pool, |_| unreachable!());
            assert_eq!(told.pool.used_bytes(), 0);
        }
    }

    #[test]
    fn what_a_send_cannot_gather_comes_with_the_next() {
        let mut told = Told::new(1);
        let count = 3 * PIECES_MAX as u64;
        for note in 0..count {
            let mut writer = Writer::new(&mut told.output, &mut told.pool, usize::MAX);
            writer.put(b"VALUE");
            writer.span(Span::for_test(&[note.to_le_bytes()[0]; 10], note));
        }
        let mut sends = 0;
        while told.output.has_spans() {
            let bytes = told.gathered().len();
            let Told { output, pool, home, .. } = &mut told;
            output.land(bytes, &Landed::for_test(), pool, |_| *home += 1);
            sends += 1;
        }
        assert_eq!((sends, told.home), (6, count));
    }

    #[test]
    fn what_is_cleared_goes_home() {
        let mut told = Told::new(9);
        while told.put < 10 {
            told.write();
        }
        told.send();
        let Told { output, pool, home, .. } = &mut told;
        output.clear(pool, |_| *home += 1);
        assert_eq!((told.put, told.output.unsent_bytes()), (told.home, 0));
        assert_eq!(told.pool.used_bytes(), 0);
    }
}
