//! What one send takes, piece by piece: ranges of blocks, and spans.

use super::blocks::Block;
use super::region::Span;

/// Pieces that one send can gather: the replies to some thirty large values, each with what comes
/// before it.
pub const PIECES_MAX: usize = 64;

/// The pieces of one send, in order. Whatever is added is in flight until the send lands.
#[derive(Debug)]
pub struct Gather {
    pub(super) pieces: [libc::iovec; PIECES_MAX],
    pub(super) count: usize,
}

const NOTHING: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

impl Default for Gather {
    fn default() -> Gather {
        Gather { pieces: [NOTHING; PIECES_MAX], count: 0 }
    }
}

impl Gather {
    /// Adds what was written to a block from `from` on, up to `to`. False when there is no room for
    /// more.
    ///
    /// # Panics
    /// If it was not written, or if there was no room already.
    pub fn block(&mut self, block: &mut Block, from: usize, to: usize) -> bool {
        block.launch();
        self.add(&block.bytes()[from..to])
    }

    /// Adds a span without its first `skip` bytes. False when there is no room for more.
    ///
    /// # Panics
    /// If it is shorter, or if there was no room already.
    pub fn span(&mut self, span: &mut Span, skip: usize) -> bool {
        span.launch();
        self.add(&span.bytes()[skip..])
    }

    fn add(&mut self, bytes: &[u8]) -> bool {
        self.pieces[self.count] =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        self.count += 1;
        self.count < PIECES_MAX
    }

    /// What was gathered, in one piece.
    #[cfg(test)]
    pub fn read(&self) -> Vec<u8> {
        let pieces = self.pieces[..self.count].iter();
        let bytes = |piece: &libc::iovec| {
            // SAFETY: gathered from a block or a span: mapped (R1), and in flight (R3).
            unsafe { std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len) }
        };
        pieces.flat_map(|piece| bytes(piece).to_vec()).collect()
    }

    /// Bytes of all pieces.
    pub fn bytes(&self) -> usize {
        self.pieces[..self.count].iter().map(|piece| piece.iov_len).sum()
    }
}
