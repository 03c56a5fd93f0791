//! `stats sizes`: how many items there are of each size, in steps of 32 bytes.
//!
//! Nothing is counted beforehand: who asks has the table walked through, as for a dump, a bounded
//! part at a time, and by a worker where there are any. So the rows tell of every item that is
//! there for the whole walk, whenever it was stored, and storing costs nothing for it. A size is
//! that of `bytes` and of `lru_crawler metadump`: header, key and value.

use std::collections::BTreeMap;

use super::Verdict;
use super::batch::{Batch, Step};
use super::costs::Work;
use super::session::{Form, State};
use crate::base::output::Output;
use crate::protocol::Rows;
use crate::protocol::binary::reply::Packets;
use crate::protocol::memcache::reply::Lines;
use crate::store::{Cursor, Item, Visitor};

/// Sizes are told in steps of so many bytes, rounded up.
const STEP_BYTES: u64 = 32;

/// Looking at so many items costs as much as a request.
const ITEMS_PER_REQUEST: u32 = 8;

/// A count of items by their sizes in progress.
#[derive(Debug)]
pub(super) struct Sizing {
    cursor: Cursor,
    /// Items of each size, by its steps: no more sizes than items of all of them find room for.
    counts: BTreeMap<u64, u64>,
    form: Form,
}

impl Sizing {
    pub fn new(form: Form) -> Sizing {
        Sizing { cursor: Cursor::default(), counts: BTreeMap::new(), form }
    }
}

/// Counts items by their sizes, so many at most.
struct Counter<'a> {
    counts: &'a mut BTreeMap<u64, u64>,
    left: u32,
}

impl Visitor for Counter<'_> {
    fn takes_more(&mut self) -> bool {
        self.left > 0
    }

    fn visit(&mut self, item: &Item<'_>) {
        self.left = self.left.saturating_sub(1);
        *self.counts.entry(item.item_bytes().div_ceil(STEP_BYTES)).or_default() += 1;
    }
}

impl<O: Output> Batch<'_, O> {
    /// Goes on with a count of items by their sizes, and tells it when it has all of them.
    pub(super) fn size(&mut self, state: &mut State) -> Step {
        let State::Sizing(sizing) = state else { unreachable!() };
        if self.must_defer(Work::Table) {
            return Some(Verdict::Defer);
        }
        let Sizing { cursor, counts, form } = sizing.as_mut();
        while !self.executor.table().is_at_end(cursor) {
            if self.budget.requests == 0 {
                return Some(Verdict::Yield);
            }
            let left = self.budget.requests.saturating_mul(ITEMS_PER_REQUEST);
            let mut counter = Counter { counts, left };
            self.executor.participant.walk(cursor, self.now, &mut counter);
            // A step that finds nothing costs something, too.
            let cost = (left - counter.left).div_ceil(ITEMS_PER_REQUEST).max(1);
            self.budget.requests = self.budget.requests.saturating_sub(cost);
        }
        while let Some((steps, count)) = counts.first_key_value() {
            if let Some(verdict) = self.obstacle() {
                return Some(verdict);
            }
            self.budget.requests -= 1;
            let name = (steps * STEP_BYTES).to_string();
            match *form {
                Form::Lines => Lines(&mut *self.output).number(&name, *count),
                Form::Packets(echo) => Packets(&mut *self.output, echo).number(&name, *count),
            }
            counts.pop_first();
        }
        if self.output.is_full() {
            return Some(Verdict::OutputFull);
        }
        *state = self.end_rows(*form);
        self.executor.shared.sizings.give_back();
        None
    }
}
