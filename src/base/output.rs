//! The seam between those who write replies and those who send them.

use super::limits::REPLY_HEAD_BYTES_MAX;

/// Where the replies of one connection are written, in order.
///
/// `is_full` is advice that a writer must take between two replies, and between two pieces of a
/// large value; `space` and `put` never fail, because nobody writes more than `PIECE_BYTES_MAX` and
/// two reply heads of `REPLY_HEAD_BYTES_MAX` before asking again.
pub trait Output {
    /// At least `bytes` of contiguous space. What it holds is unspecified until written.
    ///
    /// # Panics
    /// If `bytes` is more than `REPLY_HEAD_BYTES_MAX`.
    fn space(&mut self, bytes: usize) -> &mut [u8];

    /// Makes the first `bytes` of the last `space` part of the reply.
    fn advance(&mut self, bytes: usize);

    /// True when the peer must read before more is written.
    fn is_full(&self) -> bool;

    /// Appends `bytes`, however many.
    fn put(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(REPLY_HEAD_BYTES_MAX) {
            self.space(piece.len())[..piece.len()].copy_from_slice(piece);
            self.advance(piece.len());
        }
    }
}

/// An output in plain memory, for tests and tools. It is full from `limit` bytes on.
#[derive(Debug)]
pub struct Memory {
    bytes: Vec<u8>,
    len: usize,
    limit: usize,
}

impl Memory {
    pub fn new(limit: usize) -> Memory {
        Memory { bytes: Vec::new(), len: 0, limit }
    }

    /// What was written since the last `take`.
    pub fn take(&mut self) -> Vec<u8> {
        self.bytes.truncate(self.len);
        self.len = 0;
        std::mem::take(&mut self.bytes)
    }

    pub fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Output for Memory {
    fn space(&mut self, bytes: usize) -> &mut [u8] {
        assert!(bytes <= REPLY_HEAD_BYTES_MAX);
        self.bytes.resize(self.len + bytes, 0);
        &mut self.bytes[self.len..]
    }

    fn advance(&mut self, bytes: usize) {
        self.len += bytes;
        assert!(self.len <= self.bytes.len());
    }

    fn is_full(&self) -> bool {
        self.len >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reply_is_put_in_pieces_and_in_order() {
        let mut output = Memory::new(4000);
        let long: Vec<u8> = (0..5000u32).map(|i| i.to_le_bytes()[0]).collect();
        output.put(&long[..3999]);
        assert!(!output.is_full());
        output.put(&long[3999..]);
        assert!(output.is_full());
        assert_eq!(output.take(), long);
        assert!(!output.is_full());
    }
}
