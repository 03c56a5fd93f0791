//! Storing at once what is there: the way of most values.
//!
//! `reserve`, `fill` and `commit` look for the key twice, because a value may arrive between them.
//! Where it is there already, the stripe is locked first, and one look decides everything: whether
//! the condition holds, whether the item belongs to the log, and what it replaces.

use super::arena::{Exptime, ItemHead, Ref, Stamp};
use super::index::{Entry, Tag};
use super::log::{KEPT, band};
use super::participant::Participant;
use super::write::refusal;
use super::{Condition, Outcome};
use crate::base::by_size::OfSize;
use crate::base::clock::Now;

/// While a stripe is locked, no more is copied.
const BYTES_MAX: usize = 4 << 10;

impl Participant {
    /// Stores an item whose value is there: all of a storage command. `None`, and nothing has
    /// happened, unless it is small, goes to the log, and finds room there: then the longer way
    /// must be taken.
    #[inline]
    pub fn put(
        &mut self,
        head: &ItemHead<'_>,
        value: &[u8],
        condition: Condition,
        now: Now,
    ) -> Option<Outcome> {
        let bytes = head.bytes(false) + value.len();
        let bytes_max = self.table.item_bytes_max.min(BYTES_MAX);
        if !self.table.evict || bytes > bytes_max || self.has_retired_much() {
            return None;
        }
        let outcome = self.put_in_log(head, value, condition, now)?;
        self.tidy_up(now);
        Some(outcome)
    }

    #[inline]
    fn put_in_log(
        &self,
        head: &ItemHead<'_>,
        value: &[u8],
        condition: Condition,
        now: Now,
    ) -> Option<Outcome> {
        let (table, hash) = (&*self.table, head.hash);
        let bytes = head.bytes(false) + value.len();
        let class = self.class_for_short(bytes);
        let band = band(head.expiry, now);
        let shape = table.slabs.sizes().logged_shape(head, band);
        let stripe = table.lock(hash);
        let segment = table.segment_of(hash);
        let old = table.locate_in(segment, head.key, hash, &stripe);
        let alive = old.filter(|(_, item)| table.death(item, hash, now).is_none());
        if let Some(outcome) = refusal(condition, alive.map(|(_, item)| item.cas())) {
            self.counters.add_of_size(class, OfSize::CmdSet, 1);
            self.count_cas(condition, alive.map(|(_, item)| item), outcome);
            return Some(outcome);
        }
        let is_for_class = match (alive, old) {
            (Some((_, item)), _) => item.word0().is_main(),
            (None, Some(_)) => false,
            (None, None) => segment.ghost_has(hash),
        };
        if is_for_class || shape.wide {
            return None;
        }
        let place = old.map(|(place, _)| place).or_else(|| segment.vacancy(hash))?;
        let slot = self.append_to_log(head, shape, band, (KEPT, now))?;
        let mut full = table.arena.start(slot, head, shape);
        assert!(table.arena.fill(&mut full, value) == value.len(), "it is not wide");
        table.note_expiry(full.head(), head.expiry);
        // A value that is stored again is as wanted as it was before.
        let heat = alive.map_or(0, |(_, item)| item.word0().heat());
        let stamp = Stamp { cas: table.next_cas(hash, &stripe), heat, fetched: false };
        let entry = |at: Ref| Entry::new(Tag::of(hash), at);
        match old {
            None => {
                segment.insert(place, hash, entry(table.arena.publish(full, stamp)));
                self.count_items(1);
                self.count_stored(class, bytes as u64, OfSize::CameLog);
            }
            Some((_, item)) => {
                let link = |at| segment.replace(place, entry(at));
                let full = (full, stamp);
                let (_, retired, word) = table.arena.supersede(full, &item, Exptime::Own, link);
                self.count_cas(condition, Some(item), Outcome::Stored);
                self.lay_out_replaced((retired, word), &item, (class, bytes));
            }
        }
        self.counters.add_of_size(class, OfSize::CmdSet, 1);
        Some(Outcome::Stored)
    }
}
