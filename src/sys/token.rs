//! What travels through the kernel with an operation: what it was, and for whom.
//!
//! ```text
//!   user data, u64:   operation 8 | generation of the slot 24 | index of the slot 32
//! ```

use crate::base::slots::{GENERATION_BITS, SlotId};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A multishot accept; the slot's index is that of the listener.
    Accept,
    /// A multishot receive of a connection.
    Receive,
    Send,
    /// A send without a copy.
    SendZeroCopy,
    /// A receive of a connection into lent memory.
    ReceiveInto,
    /// A cancellation; its own completion says nothing that the cancelled one's does not.
    Cancel,
    /// A read of the ring's eventfd.
    Wake,
    Timer,
    /// The end of a sleep that must not last until the next tick.
    Alarm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub operation: Operation,
    pub slot: SlotId,
}

const OPERATIONS: [Operation; 9] = {
    use Operation::{Accept, Alarm, Cancel, Receive, ReceiveInto, Send, SendZeroCopy, Timer, Wake};
    [Accept, Receive, Send, SendZeroCopy, ReceiveInto, Cancel, Wake, Timer, Alarm]
};

impl Token {
    pub fn new(operation: Operation, slot: SlotId) -> Token {
        Token { operation, slot }
    }

    pub(super) fn encode(self) -> u64 {
        u64::from(self.operation as u8) << (32 + GENERATION_BITS)
            | u64::from(self.slot.generation) << 32
            | u64::from(self.slot.index)
    }

    /// # Panics
    /// If `bits` are not a token's: the kernel returns what it was given.
    #[allow(clippy::cast_possible_truncation, reason = "the fields are cut out on purpose")]
    pub(super) fn decode(bits: u64) -> Token {
        let generation = (bits >> 32) as u32 & ((1 << GENERATION_BITS) - 1);
        let operation = OPERATIONS[(bits >> (32 + GENERATION_BITS)) as usize];
        Token { operation, slot: SlotId { index: bits as u32, generation } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for operation in OPERATIONS {
            for (index, generation) in [(0, 0), (u32::MAX, 1), (7, (1 << GENERATION_BITS) - 1)] {
                let token = Token::new(operation, SlotId { index, generation });
                assert_eq!(Token::decode(token.encode()), token);
            }
        }
    }
}
