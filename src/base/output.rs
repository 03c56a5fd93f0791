//! The seam between those who write replies and those who send them.

use super::bytes::copy;
use super::limits::REPLY_HEAD_BYTES_MAX;

/// Where the replies of one connection are written, in order.
///
/// `is_full` is advice that a writer must take between two replies, and between two pieces of a
/// large value; `write` and `put` never fail, because nobody writes more than `PIECE_BYTES_MAX` and
/// two reply heads of `REPLY_HEAD_BYTES_MAX` before asking again.
pub trait Output {
    /// Lets `fill` write to `bytes` of contiguous space, whose content is unspecified, and appends
    /// as many of them as it says.
    ///
    /// # Panics
    /// If `bytes` is more than `REPLY_HEAD_BYTES_MAX`, or if `fill` says more than `bytes`.
    fn write(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8]) -> usize);

    /// True when the peer must read before more is written.
    fn is_full(&self) -> bool;

    /// Appends `bytes`, however many.
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(REPLY_HEAD_BYTES_MAX));
            self.write(piece.len(), |space| {
                copy(space, piece);
                piece.len()
            });
            rest = behind;
        }
    }
}

/// An output that may take bytes which stay where they are until they are sent, too.
pub trait Spanning<S>: Output {
    /// True when it takes them now.
    fn takes_spans(&self) -> bool;

    /// True when it takes them however much is being sent from where it lies.
    fn takes_any_span(&self) -> bool;

    /// True when so many bytes may be copied now, and two reply heads beside them, with no look at
    /// `is_full` in between.
    fn has_room_for(&self, bytes: usize) -> bool;

    /// Appends the bytes of a span.
    ///
    /// # Panics
    /// If it does not take them.
    fn span(&mut self, span: S);
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
    fn write(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8]) -> usize) {
        assert!(bytes <= REPLY_HEAD_BYTES_MAX);
        self.bytes.resize(self.len + bytes, 0);
        self.len += fill(&mut self.bytes[self.len..]);
        assert!(self.len <= self.bytes.len());
    }

    fn is_full(&self) -> bool {
        self.len >= self.limit
    }
}

/// Everything is copied.
impl<S> Spanning<S> for Memory {
    fn takes_spans(&self) -> bool {
        false
    }

    fn takes_any_span(&self) -> bool {
        false
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.len + bytes <= self.limit
    }

    fn span(&mut self, _: S) {
        unreachable!("plain memory takes no spans");
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
