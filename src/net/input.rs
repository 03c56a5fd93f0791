//! What a connection has received and not executed yet.
//!
//! ```text
//!            carry (copied)                     filled buffers (borrowed from the kernel's pool)
//!   +--------------+--------------------+   +-----------------+   +--------------+
//!   | tail of old  | copy of the first  |   | first           |   | next ...     |
//!   | buffers      | bytes of `first`   |   |                 |   |              |
//!   +--------------+--------------------+   +-----------------+   +--------------+
//!   ^ window, while the carry is not empty  ^ window, when it is empty
//! ```
//!
//! Whole requests are executed where the kernel put them. Only a request that is cut by the end of
//! a buffer has its tail copied into the carry, where the bytes that complete it are copied too.
//! Invariant: the last `borrowed` bytes of the carry are the first bytes of the first buffer.

use std::collections::VecDeque;

use crate::base::limits::HEAD_BYTES_MAX;
use crate::sys::buffers::Filled;

/// How much of a buffer is copied behind a tail at a time: most requests end within it.
const BORROW_BYTES: usize = 1024;

/// So many pieces that are smaller than so many bytes, on average, are not worth their names: they
/// are copied while they wait.
const PIECES_MAX: usize = 32;
const PIECE_BYTES_MIN: usize = 256;

/// A carry larger than this is given back once it is empty.
const CARRY_KEPT_BYTES: usize = 512;

#[derive(Debug, Default)]
pub struct Input {
    carry: Vec<u8>,
    /// Bytes of the carry that are consumed.
    carry_start: usize,
    borrowed: usize,
    filled: VecDeque<Filled>,
    bytes: usize,
}

impl Input {
    pub fn push(&mut self, filled: Filled) {
        self.bytes += filled.bytes().len();
        self.filled.push_back(filled);
    }

    /// Unconsumed bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the heap that are taken, whether they hold something or not.
    pub fn heap_bytes(&self) -> usize {
        self.carry.capacity() + self.filled.capacity() * size_of::<Filled>()
    }

    /// Bytes in buffers of the pool.
    pub fn buffer_bytes(&self) -> usize {
        self.filled.iter().map(|filled| filled.bytes().len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// True when buffers of the pool wait here.
    pub fn holds_buffers(&self) -> bool {
        !self.filled.is_empty()
    }

    /// True when what waits here came in so many small pieces that it should be evacuated.
    pub fn is_scattered(&self) -> bool {
        let pieces = self.filled.len();
        let copied = self.carry.len() - self.carry_start - self.borrowed;
        pieces > PIECES_MAX && self.bytes - copied < pieces * PIECE_BYTES_MIN
    }

    /// The next contiguous run of unconsumed bytes.
    pub fn window(&self) -> &[u8] {
        if self.carry_start < self.carry.len() {
            return &self.carry[self.carry_start..];
        }
        self.filled.front().map_or(&[], Filled::bytes)
    }

    /// Drops the first `consumed` bytes of the window. Buffers that are read go to `spent`.
    ///
    /// # Panics
    /// If the window is shorter.
    pub fn consume(&mut self, consumed: usize, spent: &mut Vec<Filled>) {
        assert!(consumed <= self.window().len());
        self.bytes -= consumed;
        if self.carry.is_empty() {
            return self.consume_filled(consumed, spent);
        }
        self.carry_start += consumed;
        let copied = self.carry.len() - self.borrowed;
        if self.carry_start >= copied {
            // What is left of the carry stands in the buffer as well: read it there.
            let consumed_of_filled = self.carry_start - copied;
            self.empty_carry();
            self.consume_filled(consumed_of_filled, spent);
        }
    }

    fn consume_filled(&mut self, consumed: usize, spent: &mut Vec<Filled>) {
        let Some(first) = self.filled.front_mut() else { return };
        first.consume(consumed);
        if first.bytes().is_empty() {
            spent.extend(self.filled.pop_front());
        }
    }

    /// Makes the window longer, because what it holds is not a whole request. False when there is
    /// nothing to add.
    pub fn extend(&mut self, spent: &mut Vec<Filled>) -> bool {
        if self.carry.is_empty() {
            let Some(first) = self.filled.pop_front() else { return false };
            self.carry.extend_from_slice(first.bytes());
            spent.push(first);
        } else if self.borrowed > 0 {
            self.absorb_borrowed(spent);
        }
        let Some(first) = self.filled.front() else { return false };
        let more = &first.bytes()[..first.bytes().len().min(BORROW_BYTES)];
        if self.carry.len() + more.len() <= HEAD_BYTES_MAX {
            // Thousands of heads may wait for their ends: none takes twice what it needs.
            self.carry.reserve_exact(more.len());
        }
        self.carry.extend_from_slice(more);
        self.borrowed = more.len();
        true
    }

    /// Makes borrowed bytes the carry's own.
    fn absorb_borrowed(&mut self, spent: &mut Vec<Filled>) {
        let borrowed = std::mem::take(&mut self.borrowed);
        self.consume_filled(borrowed, spent);
    }

    /// Copies all that is left out of the pool's buffers, because it cannot be executed soon.
    pub fn evacuate(&mut self, spent: &mut Vec<Filled>) {
        self.absorb_borrowed(spent);
        // What was read would stay for as long as something is always left.
        self.carry.drain(..std::mem::take(&mut self.carry_start));
        self.carry.reserve_exact(self.filled.iter().map(|filled| filled.bytes().len()).sum());
        for filled in self.filled.drain(..) {
            self.carry.extend_from_slice(filled.bytes());
            spent.push(filled);
        }
        self.filled.shrink_to(PIECES_MAX);
    }

    /// Appends what has come in since.
    pub fn append(&mut self, later: &mut Input, spent: &mut Vec<Filled>) {
        if !later.carry.is_empty() {
            self.evacuate(spent);
            later.absorb_borrowed(spent);
            self.carry.extend_from_slice(&later.carry[later.carry_start..]);
            later.empty_carry();
        }
        self.bytes += std::mem::take(&mut later.bytes);
        self.filled.append(&mut later.filled);
    }

    /// Drops everything.
    pub fn clear(&mut self, spent: &mut Vec<Filled>) {
        self.bytes = 0;
        self.borrowed = 0;
        self.empty_carry();
        spent.extend(self.filled.drain(..));
    }

    fn empty_carry(&mut self) {
        self.borrowed = 0;
        self.carry_start = 0;
        self.carry.clear();
        if self.carry.capacity() > CARRY_KEPT_BYTES {
            self.carry = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::buffers::BufferPool;
    use crate::sys::fake::Chance;

    /// Takes whole lines off the input, as far as there are any.
    fn read_lines(input: &mut Input, spent: &mut Vec<Filled>) -> Vec<u8> {
        let mut read = Vec::new();
        loop {
            let window = input.window();
            let shown = window.len();
            let whole = window.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            read.extend_from_slice(&window[..whole]);
            input.consume(whole, spent);
            let unseen = input.window().len() > shown - whole;
            if !unseen && !input.extend(spent) {
                return read;
            }
        }
    }

    /// Lines of all lengths in buffers of all lengths: every byte is read once and in order, every
    /// buffer comes back, whatever is copied, appended or evacuated in between.
    #[test]
    fn no_cut_shows() {
        for seed in 0..200 {
            let mut chance = Chance::new(seed);
            let mut pool = BufferPool::map(0, 64, 4096).unwrap();
            let mut free: Vec<u16> = (0..64).collect();
            let lines: Vec<u8> = (0..60)
                .flat_map(|_| [vec![b'x'; chance.below(1500)], vec![b'\n']].concat())
                .collect();
            let (mut input, mut spent, mut read) = (Input::default(), Vec::new(), Vec::new());
            let (mut rest, mut shared) = (&lines[..], None);
            while !rest.is_empty() {
                let mut later = Input::default();
                for _ in 0..chance.below(4) {
                    // A buffer of its own, or the next part of one that is not full.
                    let index = shared.take().or_else(|| free.pop()).unwrap();
                    let room = pool.room(index);
                    let (piece, behind) = rest.split_at(rest.len().min(chance.below(room + 1)));
                    rest = behind;
                    let done = !piece.is_empty() && (piece.len() == room || chance.once_in(2));
                    shared = (!done).then_some(index);
                    if !piece.is_empty() {
                        later.push(pool.fill(index, piece, done));
                    }
                }
                if chance.once_in(4) {
                    later.evacuate(&mut spent);
                }
                input.append(&mut later, &mut spent);
                if chance.once_in(4) {
                    input.evacuate(&mut spent);
                }
                read.extend(read_lines(&mut input, &mut spent));
                free.extend(spent.drain(..).filter_map(|filled| pool.take_back(filled)));
            }
            assert!(read == lines, "seed {seed}");
            assert!(input.is_empty() && !input.holds_buffers());
            assert_eq!(pool.held(), 0);
            assert_eq!(free.len() + shared.iter().len(), 64, "seed {seed}: a buffer is lost");
        }
    }

    /// Whatever it comes in, and however long nothing more of it comes.
    #[test]
    fn a_head_that_waits_takes_no_more_than_its_bytes() {
        let mut pool = BufferPool::map(0, 4, 4096).unwrap();
        for pieces in [&[2010, 5][..], &[1, 1, 1, 2000, 40], &[1000, 1000, 40]] {
            let (mut input, mut spent) = (Input::default(), Vec::new());
            for bytes in pieces {
                input.push(pool.fill(0, &vec![b'x'; *bytes], true));
                while input.extend(&mut spent) {}
                spent.drain(..).for_each(|filled| assert_eq!(pool.take_back(filled), Some(0)));
            }
            input.evacuate(&mut spent);
            spent.drain(..).for_each(|filled| assert_eq!(pool.take_back(filled), Some(0)));
            assert!(input.carry.capacity() <= input.bytes(), "{:?}", input.carry.capacity());
        }
    }

    /// Who sends single bytes and is not served meanwhile gets memory for bytes, not for pieces.
    #[test]
    fn many_small_pieces_become_one() {
        let mut pool = BufferPool::map(0, 1, 65_536).unwrap();
        let (mut input, mut spent) = (Input::default(), Vec::new());
        for _ in 0..32_768 {
            input.push(pool.fill(0, b"x", false));
            if input.is_scattered() {
                input.evacuate(&mut spent);
            }
            assert!(input.heap_bytes() <= 2 * input.bytes() + 4096, "{input:?}");
            spent.drain(..).for_each(|filled| assert_eq!(pool.take_back(filled), None));
        }
        assert!(pool.held() <= PIECES_MAX && input.window().len() >= 32_768 - PIECES_MAX);
        let mut large = Input::default();
        let mut pool = BufferPool::map(0, 64, 4096).unwrap();
        (0..64).for_each(|index| large.push(pool.fill(index, &[1; 4096], true)));
        assert!(!large.is_scattered(), "large pieces stay where they are");
        large.clear(&mut spent);
    }
}
