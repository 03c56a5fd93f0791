//! Storage commands: as those of the text protocol, but that nothing follows a value, and that all
//! went well is told with a cas.

use super::super::batch::{Batch, Step};
use super::super::session::{Answer, Plan, State};
use super::Asked;
use crate::base::clock::Expiry;
use crate::base::metrics::Metric;
use crate::base::output::Output;
use crate::protocol::binary::{Echo, Request, Status, StoreHead, reply};
use crate::store::{Condition, ItemHead, Join, Outcome, Refusal, Side};

/// What becomes of the value of a storage command, where the item that is there must have this cas,
/// if any.
#[inline]
pub(super) fn plan(request: &Request<'_>, cas: Option<u64>) -> Plan {
    let join = |side| Plan::Join(Join { side, cas, create: false });
    let put = |condition| Plan::Put(cas.map_or(condition, Condition::Cas));
    if matches!(request, Request::Append(_)) {
        join(Side::Append)
    } else if matches!(request, Request::Prepend(_)) {
        join(Side::Prepend)
    } else if matches!(request, Request::Add(_)) {
        put(Condition::Absent)
    } else if matches!(request, Request::Replace(_)) {
        put(Condition::Present)
    } else {
        put(Condition::Always)
    }
}

impl<O: Output> Batch<'_, O> {
    /// Stores a value, or takes memory for one that is to come.
    #[inline]
    pub(super) fn store_one(
        &mut self,
        asked: &Asked<'_>,
        head: &StoreHead<'_>,
        plan: Plan,
        state: &mut State,
    ) -> Step {
        let item_head = ItemHead {
            key: asked.key,
            hash: asked.hash,
            flags: head.flags,
            expiry: Expiry::from_wire(head.exptime.into(), self.now),
            // Lossless: usize has 64 bits.
            value_bytes: head.value_bytes as usize,
            cas: None,
        };
        let Asked { echo, quiet, .. } = *asked;
        if let Some(outcome) = self.store_at_once(&item_head, plan, b"") {
            self.tell_packet(outcome, plan, (echo, quiet));
            return None;
        }
        self.reserve_value(&item_head, plan, Answer::Packet { echo, quiet }, state)
    }

    /// Tells that all has gone well.
    #[inline]
    pub(super) fn done(&mut self, echo: Echo, quiet: bool, cas: u64) {
        if !quiet {
            reply::done(self.output, echo, cas);
        }
    }

    /// Tells what came of a value.
    #[inline]
    pub(in crate::command) fn tell_packet(
        &mut self,
        outcome: Outcome,
        plan: Plan,
        (echo, quiet): (Echo, bool),
    ) {
        self.count_cas(outcome, plan);
        let status = match (outcome, plan) {
            (Outcome::Stored { cas, .. }, _) => {
                let cas = self.executor.shared.facts.switches.shown(cas);
                return self.done(echo, quiet, cas);
            }
            (Outcome::Exists, _) | (Outcome::NotStored, Plan::Put(Condition::Absent)) => {
                Status::Exists
            }
            (Outcome::NotFound, _) | (Outcome::NotStored, Plan::Put(Condition::Present)) => {
                Status::NotFound
            }
            // As memcached has it; this is also what two values that make too large a one get.
            (Outcome::NoMemory, Plan::Join(_)) | (Outcome::NotStored, _) => Status::NotStored,
            (Outcome::NoMemory, Plan::Put(_)) => {
                self.count(Metric::StoreNoMemory);
                return self.no_memory(echo);
            }
        };
        reply::error(self.output, echo, status);
    }

    /// Tells that there is no room for a value.
    pub(in crate::command) fn refuse_packet(&mut self, refusal: Refusal, echo: Echo) {
        match refusal {
            Refusal::TooLarge => reply::error(self.output, echo, Status::TooLarge),
            Refusal::NoMemory | Refusal::WouldWait => self.no_memory(echo),
        }
    }

    fn no_memory(&mut self, echo: Echo) {
        reply::error_in_words(self.output, echo, Status::NoMemory, reply::NO_MEMORY_STORING);
    }
}
