//! Sends: of one block, of several, or of whatever pieces, copied or not.

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use crate::base::slots::SlotId;
use crate::sys::blocks::Block;
use crate::sys::gather::Gather;
use crate::sys::token::Operation;

use super::zero_copy::{REPORT_USAGE, ZeroCopy};

/// Blocks that one send can gather where there is nothing but blocks.
const SEND_BLOCKS_MAX: usize = 16;

/// How many messages of each kind are kept for later.
const SPARE_MAX: usize = 64;

const FLAGS: i32 = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;

/// What the kernel reads while a gathering send is in flight.
#[derive(Debug)]
struct Message<T> {
    header: libc::msghdr,
    pieces: T,
}

type Blocks = [libc::iovec; SEND_BLOCKS_MAX];

#[derive(Debug)]
enum Kept {
    Blocks(Box<Message<Blocks>>),
    Pieces(Box<Message<Gather>>),
}

/// The messages of sends in flight, by the place of the connection, and some for later.
#[derive(Debug, Default)]
pub(super) struct Messages {
    in_flight: Vec<Option<Kept>>,
    #[allow(clippy::vec_box, reason = "the kernel knows where a message is: it must not move")]
    spare: Vec<Box<Message<Blocks>>>,
    #[allow(clippy::vec_box, reason = "as above")]
    spare_pieces: Vec<Box<Message<Gather>>>,
}

impl<T> Message<T> {
    fn new(pieces: T) -> Box<Message<T>> {
        // SAFETY: a message header is plain data, for which all zeros is "no name, no control".
        let header = unsafe { std::mem::zeroed() };
        Box::new(Message { header, pieces })
    }

    /// Announces the first `count` pieces, which are at `start`.
    #[allow(
        clippy::useless_conversion,
        reason = "the type of a length differs between C libraries"
    )]
    fn announce(&mut self, start: *mut libc::iovec, count: usize) -> *const libc::msghdr {
        self.header.msg_iov = start;
        self.header.msg_iovlen = count.try_into().expect("a few pieces");
        &raw const self.header
    }
}

impl Messages {
    /// The entry that sends from blocks; `None` when there are none.
    pub fn of_blocks<'b>(
        &mut self,
        fd: Fd,
        slot: SlotId,
        blocks: impl Iterator<Item = &'b mut Block>,
        skip: usize,
    ) -> Option<squeue::Entry> {
        let mut blocks = blocks.take(SEND_BLOCKS_MAX).peekable();
        let first = blocks.next()?;
        first.launch();
        let first = piece(&first.bytes()[skip..]);
        if blocks.peek().is_none() {
            let len = u32::try_from(first.iov_len).expect("a block is smaller than 4 GiB");
            return Some(opcode::Send::new(fd, first.iov_base.cast(), len).flags(FLAGS).build());
        }
        let mut message = self.spare.pop().unwrap_or_else(|| Message::new([piece(&[]); _]));
        message.pieces[0] = first;
        let mut count = 1;
        for block in blocks {
            block.launch();
            message.pieces[count] = piece(block.bytes());
            count += 1;
        }
        let start = message.pieces.as_mut_ptr();
        let header = message.announce(start, count);
        self.keep(slot, Kept::Blocks(message));
        Some(opcode::SendMsg::new(fd, header).flags(FLAGS.cast_unsigned()).build())
    }

    /// The entry that sends what `fill` gathers, and what it is.
    pub fn of_pieces(
        &mut self,
        fd: Fd,
        slot: SlotId,
        zero_copy: &mut ZeroCopy,
        fill: impl FnOnce(&mut Gather),
    ) -> (squeue::Entry, Operation) {
        let spare = self.spare_pieces.pop();
        let mut message = spare.unwrap_or_else(|| Message::new(Gather::default()));
        message.pieces.count = 0;
        fill(&mut message.pieces);
        let is_zero_copy = zero_copy.takes(slot, message.pieces.bytes());
        let (start, count) = (message.pieces.pieces.as_mut_ptr(), message.pieces.count);
        let header = message.announce(start, count);
        self.keep(slot, Kept::Pieces(message));
        let flags = FLAGS.cast_unsigned();
        if is_zero_copy {
            let entry = opcode::SendMsgZc::new(fd, header).ioprio(REPORT_USAGE).flags(flags);
            return (entry.build(), Operation::SendZeroCopy);
        }
        (opcode::SendMsg::new(fd, header).flags(flags).build(), Operation::Send)
    }

    fn keep(&mut self, slot: SlotId, message: Kept) {
        let place = slot.index as usize;
        if self.in_flight.len() <= place {
            self.in_flight.resize_with(place + 1, || None);
        }
        assert!(self.in_flight[place].is_none(), "two sends in flight on one connection");
        self.in_flight[place] = Some(message);
    }

    /// Keeps no more for later than so many connections can use.
    pub fn keep_for(&mut self, connections: usize) {
        self.spare.truncate(connections);
        self.spare_pieces.truncate(connections);
    }

    /// A send of this connection has ended.
    pub fn land(&mut self, slot: SlotId) {
        match self.in_flight.get_mut(slot.index as usize).and_then(Option::take) {
            Some(Kept::Blocks(message)) if self.spare.len() < SPARE_MAX => {
                self.spare.push(message);
            }
            Some(Kept::Pieces(message)) if self.spare_pieces.len() < SPARE_MAX => {
                self.spare_pieces.push(message);
            }
            Some(Kept::Blocks(_) | Kept::Pieces(_)) | None => {}
        }
    }
}

fn piece(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}
