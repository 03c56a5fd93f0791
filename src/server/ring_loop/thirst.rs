//! The queues of those who wait for a block to write replies in.
//!
//! Who holds nothing comes first: it may take the last blocks, which are kept from everybody else,
//! and takes only one. Others hold replies that their peer must read, or are in the middle of a
//! long one, so that all blocks of a ring would end with them.

use std::collections::VecDeque;

use crate::base::slots::SlotId;

/// What a connection that waits for blocks will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appetite {
    /// It holds none, and is between two replies.
    Modest,
    Large,
}

#[derive(Debug, Default)]
pub(super) struct Thirsty {
    modest: VecDeque<SlotId>,
    large: VecDeque<SlotId>,
}

impl Thirsty {
    pub(super) fn push(&mut self, id: SlotId, appetite: Appetite) {
        self.queue(appetite).push_back(id);
    }

    /// Who has waited longest with this appetite.
    pub(super) fn pop(&mut self, appetite: Appetite) -> Option<SlotId> {
        self.queue(appetite).pop_front()
    }

    /// True when somebody waits who would come before one that comes now with this appetite.
    pub(super) fn is_before(&self, appetite: Appetite) -> bool {
        match appetite {
            Appetite::Modest => !self.modest.is_empty(),
            Appetite::Large => self.len() > 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.modest.len() + self.large.len()
    }

    /// How many wait who hold nothing.
    pub(super) fn modest(&self) -> usize {
        self.modest.len()
    }

    /// Drops the names of those who are gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(SlotId) -> bool) {
        self.modest.retain(|id| !is_gone(*id));
        self.large.retain(|id| !is_gone(*id));
    }

    #[cfg(test)]
    pub(super) fn count(&self, id: SlotId) -> usize {
        self.modest.iter().chain(&self.large).filter(|each| **each == id).count()
    }

    fn queue(&mut self, appetite: Appetite) -> &mut VecDeque<SlotId> {
        match appetite {
            Appetite::Modest => &mut self.modest,
            Appetite::Large => &mut self.large,
        }
    }
}
