//! The queues of those who wait for a block to write replies in; and, as in `spans`, of those who
//! wait to be sent large values.
//!
//! Who holds nothing, and whose peer has taken all that it was sent, comes first: it may take the
//! last blocks, which are kept from everybody else, and takes only one. Others hold replies that
//! their peer must read, or have given the kernel some that it still keeps, so that the next one
//! might stay here: all blocks of a ring would end with them, however short their replies are.

use std::collections::VecDeque;

use crate::base::slots::SlotId;

/// What a connection that waits for blocks will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appetite {
    /// It holds none, and its peer has taken all that it was sent.
    Modest,
    Large,
}

#[derive(Debug, Default)]
pub(super) struct Thirsty {
    modest: VecDeque<SlotId>,
    large: VecDeque<SlotId>,
    /// How many of `large` were looked at since all of them had been.
    looked: usize,
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
            Appetite::Large => !self.is_empty(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.modest.len() + self.large.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many wait who hold nothing.
    pub(super) fn modest(&self) -> usize {
        self.modest.len()
    }

    /// Looks at the next `most` of those who are not modest, and lets who has become it come first.
    pub(super) fn look_again(&mut self, most: usize, mut appetite: impl FnMut(SlotId) -> Appetite) {
        let start = if self.looked < self.large.len() { self.looked } else { 0 };
        let end = self.large.len().min(start + most);
        let (mut place, before) = (0, self.modest.len());
        self.large.retain(|id| {
            let is_due = (start..end).contains(&place);
            place += 1;
            let stays = !is_due || appetite(*id) == Appetite::Large;
            if !stays {
                self.modest.push_back(*id);
            }
            stays
        });
        self.looked = end - (self.modest.len() - before);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_looked_at_again_in_turn_and_keeps_its_place() {
        let mut thirsty = Thirsty::default();
        let id = |index| SlotId { index, generation: 0 };
        (0..10).for_each(|index| thirsty.push(id(index), Appetite::Large));
        let mut seen = Vec::new();
        for _ in 0..3 {
            thirsty.look_again(4, |id| {
                seen.push(id.index);
                if id.index % 5 == 1 { Appetite::Modest } else { Appetite::Large }
            });
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let order = std::iter::from_fn(|| thirsty.pop(Appetite::Modest)).map(|id| id.index);
        assert_eq!(order.collect::<Vec<_>>(), [1, 6]);
        thirsty.look_again(2, |id| {
            assert!(id.index == 0 || id.index == 2, "from the first on again");
            Appetite::Large
        });
        let order = std::iter::from_fn(|| thirsty.pop(Appetite::Large)).map(|id| id.index);
        assert_eq!(order.collect::<Vec<_>>(), [0, 2, 3, 4, 5, 7, 8, 9]);
    }
}
