//! `delete_prefix <prefix> [noreply]`: deletes every key that begins so. It is no request of
//! memcached's.
//!
//! ```text
//!   > delete_prefix user:17:
//!   < DELETED 1204
//! ```
//!
//! The table is walked through, as for a dump, a bounded part at a time, and by a worker where
//! there are any. What is deleted was stored before the request came to be executed: what others
//! store meanwhile stays, under whatever key, and so does what this peer stores behind it. When the
//! reply comes, nothing else with the prefix is there. Who goes away before has had a part of it
//! deleted.

use super::Verdict;
use super::batch::{Batch, Step};
use super::costs::Work;
use super::session::{Pruning, State};
use super::watching::log_deletion_of;
use crate::base::metrics::Metric;
use crate::base::output::Output;
use crate::protocol::memcache::{WatchKinds, reply};
use crate::store::Cursor;

/// Looking at so many keys costs as much as a request.
const KEYS_PER_REQUEST: u32 = 8;

impl<O: Output> Batch<'_, O> {
    pub(super) fn start_pruning(&mut self, prefix: &[u8], noreply: bool, state: &mut State) {
        let shared = &self.executor.shared;
        if !shared.facts.switches.flush {
            return self.reply(reply::DELETE_PREFIX_NOT_ALLOWED, noreply);
        }
        if !shared.prunings.take() {
            return self.reply(reply::DELETE_PREFIX_BUSY, noreply);
        }
        let (prefix, mark) = (prefix.into(), shared.table.mark());
        self.count(Metric::CmdDeletePrefix);
        let cursor = Cursor::default();
        *state = State::Pruning(Box::new(Pruning { prefix, mark, cursor, deleted: 0, noreply }));
    }

    /// Goes on with it.
    pub(super) fn prune(&mut self, state: &mut State) -> Step {
        let State::Pruning(pruning) = state else { unreachable!() };
        if self.must_defer(Work::Table) {
            return Some(Verdict::Defer);
        }
        while !self.executor.table().is_at_end(&pruning.cursor) {
            if self.budget.requests == 0 {
                return Some(Verdict::Yield);
            }
            self.prune_step(pruning);
        }
        if self.output.is_full() {
            return Some(Verdict::OutputFull);
        }
        if !pruning.noreply {
            reply::deleted(self.output, pruning.deleted);
        }
        self.executor.shared.prunings.give_back();
        *state = State::Idle;
        None
    }

    fn prune_step(&mut self, pruning: &mut Pruning) {
        let (now, executor) = (self.now, &mut *self.executor);
        let keys = self.budget.requests.saturating_mul(KEYS_PER_REQUEST);
        let is_watched = executor.watches(WatchKinds::DELETIONS);
        let (observer, counters) = (&executor.observer, &executor.counters);
        let (shared, cursor) = (&executor.shared, &mut pruning.cursor);
        let sorted = executor.participant.delete_by_prefix(
            cursor,
            (&pruning.prefix, &pruning.mark),
            keys,
            |item| {
                if is_watched {
                    log_deletion_of(item, (observer, shared, counters), now);
                }
            },
            now,
        );
        pruning.deleted += u64::from(sorted.deleted);
        counters.add(Metric::DeletedByPrefix, sorted.deleted.into());
        // A step that finds nothing costs something, too.
        let cost = sorted.seen.div_ceil(KEYS_PER_REQUEST).max(1);
        self.budget.requests = self.budget.requests.saturating_sub(cost);
    }
}
