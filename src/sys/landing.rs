//! Receives straight into lent memory, and what comes behind it.
//!
//! ```text
//!   | lent: the rest of a value     |   | pad: line end, next head ...   |
//!   ^ the kernel fills this first       ^ and then, with the same receive, this
//! ```
//!
//! A value that is received straight into its place is followed by a few bytes that belong
//! elsewhere. So that they do not take a receive of their own, the last piece of a value is
//! received together with a pad, of which a ring has some; without a free one, bytes stay in the
//! socket until they are asked for.

use std::io;
use std::ptr::NonNull;

use crate::base::slots::SlotId;

use super::buffers::{BufferPool, Filled};
use super::region::{Loan, Region};

/// Bytes of a pad: a line end, and the head of what comes next.
const PAD_BYTES: u32 = 512;

/// Pads of a ring: more large values are seldom on the way at a time.
const PADS: u16 = 1024;

/// What a ring's landings take: pads, and the messages of receives that end in one.
pub const LANDING_BYTES: usize = PADS as usize * (PAD_BYTES as usize + size_of::<Message>());

/// Set in the number of a pool of pads, which tells its tokens from those of the buffers.
const PAD_POOL: u16 = 1 << 15;

/// The pads of one ring.
#[derive(Debug)]
pub(super) struct Pads {
    pool: BufferPool,
    number: u16,
    free: Vec<u16>,
}

impl Pads {
    /// The pads of ring `number`.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn map(number: u16) -> io::Result<Pads> {
        let number = number | PAD_POOL;
        let pool = BufferPool::map(number, PADS, PAD_BYTES)?;
        Ok(Pads { pool, number, free: (0..PADS).rev().collect() })
    }

    /// Lets the kernel have a free pad, if there is one.
    pub fn launch(&mut self) -> Option<u16> {
        let pad = self.free.pop()?;
        self.pool.hand_over(pad);
        Some(pad)
    }

    /// Takes a pad back from the kernel, which has written `bytes` of it.
    pub fn land(&mut self, pad: u16, bytes: usize) -> Option<Filled> {
        let len = u32::try_from(bytes).expect("no more than a pad has");
        let filled = self.pool.claim(pad, len, true);
        if bytes > 0 {
            return Some(filled);
        }
        self.give(filled);
        None
    }

    /// True when the bytes are of a pad of this ring.
    pub fn owns(&self, filled: &Filled) -> bool {
        filled.pool() == self.number
    }

    /// Gives a pad back that has been read.
    pub fn give(&mut self, filled: Filled) {
        self.free.extend(self.pool.settle(filled));
    }

    pub fn address(&self, pad: u16) -> NonNull<u8> {
        self.pool.address(pad)
    }

    /// Plays the kernel: writes `bytes` to a pad that it has, and gives it back.
    #[cfg(test)]
    pub fn fill(&mut self, pad: u16, bytes: &[u8]) -> Option<Filled> {
        let filled = self.pool.fill(pad, bytes, true);
        if !bytes.is_empty() {
            return Some(filled);
        }
        self.give(filled);
        None
    }

    /// Bytes of a pad.
    #[cfg(test)]
    pub fn room(&self) -> usize {
        PAD_BYTES as usize
    }

    /// True when no pad is in use.
    #[cfg(test)]
    pub fn is_whole(&self) -> bool {
        self.free.len() == usize::from(PADS)
    }
}

/// What the kernel reads, and in part writes, while a receive into two places is in flight.
#[derive(Debug)]
#[repr(C)]
struct Message {
    header: libc::msghdr,
    spans: [libc::iovec; 2],
}

/// What a receive is given to write to.
#[derive(Debug)]
struct Landing {
    loan: Loan,
    pad: Option<u16>,
}

/// How a receive is to be submitted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// Into so many bytes there.
    Plain(NonNull<u8>, u32),
    /// Into what the message names.
    Message(NonNull<libc::msghdr>),
}

/// The receives into lent memory of one ring.
#[derive(Debug)]
pub(super) struct Landings {
    pads: Pads,
    /// A message for each pad. The kernel writes its flags there, so it is never unmapped (R1).
    messages: Region,
    /// What is in flight for the connection in this place.
    landings: Vec<Option<Landing>>,
}

impl Landings {
    /// # Errors
    /// What mmap(2) says.
    pub fn map(number: u16) -> io::Result<Landings> {
        let messages = Region::map(usize::from(PADS) * size_of::<Message>())?;
        Ok(Landings { pads: Pads::map(number)?, messages, landings: Vec::new() })
    }

    /// Keeps what a receive writes to until `land`; `with_pad` says that a value ends with it.
    pub fn launch(&mut self, slot: SlotId, loan: Loan, with_pad: bool) -> Target {
        let (start, len) = (loan.start(), loan.len());
        let pad = if with_pad { self.pads.launch() } else { None };
        let place = slot.index as usize;
        if self.landings.len() <= place {
            self.landings.resize_with(place + 1, || None);
        }
        let before = self.landings[place].replace(Landing { loan, pad });
        assert!(before.is_none(), "two receives into memory in flight on one connection");
        match pad {
            Some(pad) => Target::Message(self.write_message(pad, start, len)),
            None => Target::Plain(start, u32::try_from(len).expect("a slot is smaller than 4 GiB")),
        }
    }

    #[allow(
        clippy::useless_conversion,
        reason = "the type of a length differs between C libraries"
    )]
    fn write_message(&self, pad: u16, start: NonNull<u8>, len: usize) -> NonNull<libc::msghdr> {
        let at = self.messages.at(usize::from(pad) * size_of::<Message>()).cast::<Message>();
        let span =
            |start: NonNull<u8>, len| libc::iovec { iov_base: start.as_ptr().cast(), iov_len: len };
        // SAFETY: a message header is plain data, for which all zeros is "no name, no control".
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        // SAFETY: inside the region (R1): the address of a field, which nothing is read through.
        header.msg_iov = unsafe { &raw mut (*at.as_ptr()).spans }.cast();
        header.msg_iovlen = 2.try_into().expect("2 fits");
        let spans = [span(start, len), span(self.pads.address(pad), PAD_BYTES as usize)];
        // SAFETY: inside the region (R1) and aligned, for regions begin with a page. The pad was
        // free until now, so the kernel has finished with its message.
        unsafe { at.write(Message { header, spans }) };
        at.cast()
    }

    /// The end of a receive that wrote `bytes` in all: what was lent, minted anew here and nowhere
    /// else, and what came behind it.
    pub fn land(&mut self, slot: SlotId, bytes: usize) -> (Loan, Option<Filled>) {
        let landing = self.landings.get_mut(slot.index as usize).and_then(Option::take);
        let Landing { loan, pad } =
            landing.expect("what is received into is kept until the completion");
        let behind = bytes.saturating_sub(loan.len());
        assert!(pad.is_some() || behind == 0, "more bytes than were lent");
        let filled = pad.and_then(|pad| self.pads.land(pad, behind));
        (loan, filled)
    }

    /// Gives a pad back, if these bytes are of one.
    pub fn take_back(&mut self, filled: Filled) -> Option<Filled> {
        if !self.pads.owns(&filled) {
            return Some(filled);
        }
        self.pads.give(filled);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: SlotId = SlotId { index: 3, generation: 0 };

    #[test]
    fn what_comes_behind_is_a_token_that_brings_its_pad_home() {
        let mut landings = Landings::map(5).unwrap();
        for behind in [0, 1, PAD_BYTES as usize] {
            let target = landings.launch(SLOT, Loan::map(4096).unwrap(), true);
            assert!(matches!(target, Target::Message(_)));
            let (loan, filled) = landings.land(SLOT, 4096 + behind);
            assert_eq!(loan.len(), 4096);
            assert_eq!(filled.as_ref().map_or(0, |filled| filled.bytes().len()), behind);
            let other = filled.and_then(|filled| landings.take_back(filled));
            assert!(other.is_none() && landings.pads.is_whole());
        }
    }

    #[test]
    fn without_a_pad_no_more_is_received_than_was_lent() {
        let mut landings = Landings::map(5).unwrap();
        while landings.pads.launch().is_some() {}
        for with_pad in [false, true] {
            let target = landings.launch(SLOT, Loan::map(4096).unwrap(), with_pad);
            assert!(matches!(target, Target::Plain(_, 4096)));
            assert!(landings.land(SLOT, 4096).1.is_none());
        }
    }

    #[test]
    fn bytes_of_the_buffers_are_not_taken_for_a_pads() {
        let mut landings = Landings::map(5).unwrap();
        let mut buffers = BufferPool::map(5, 1, 4096).unwrap();
        let filled = landings.take_back(buffers.fill(0, b"get k\r\n", true)).unwrap();
        assert_eq!(buffers.take_back(filled), Some(0));
    }
}
