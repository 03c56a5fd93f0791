//! Storing at once what is there: the way of most values.
//!
//! `reserve`, `fill` and `commit` look for the key twice, because a value may arrive between them.
//! Where it is there already, the stripe is locked first, and one look decides everything: whether
//! the condition holds, whether the item belongs to the log, and what it replaces.

use super::arena::{ItemHead, Marks, Ref, Stamp};
use super::index::{Entry, Tag};
use super::log::{KEPT, band};
use super::participant::Participant;
use super::write::refusal;
use super::{Condition, Outcome};
use crate::base::by_size::OfSize;
use crate::base::clock::Now;
use crate::base::sync::atomic::Ordering;

/// While a stripe is locked, no more is copied.
const BYTES_MAX: usize = 4 << 10;

impl Participant {
    /// Stores an item whose value is there, and counts the command. `None`, and nothing has
    /// happened, unless it is small, goes to the log, finds room there, and has nothing of the item
    /// in whose place it comes: then the longer way must be taken. That is so, too, where
    /// `Table::set_at_once` says so.
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
        let inherits = matches!(condition, Condition::CasOrOlder(_));
        let at_once = self.table.at_once.load(Ordering::Relaxed);
        if !at_once || bytes > bytes_max || self.has_retired_much() || inherits {
            return None;
        }
        let outcome = self.put_in_log(head, (value, bytes), condition, now)?;
        self.tidy_up(now);
        Some(outcome)
    }

    #[inline]
    fn put_in_log(
        &self,
        head: &ItemHead<'_>,
        (value, bytes): (&[u8], usize),
        condition: Condition,
        now: Now,
    ) -> Option<Outcome> {
        let (table, hash) = (&*self.table, head.hash);
        let band = band(head.expiry, now);
        let shape = table.slabs.sizes().logged_shape(head, band);
        let stripe = table.lock(hash);
        let segment = table.segment_of(hash);
        let old = table.locate_in(segment, head.key, hash, &stripe);
        let alive = old.filter(|(_, item)| table.death(item, hash, now).is_none());
        if condition != Condition::Always
            && let Some(outcome) = refusal(condition, alive.as_ref().map(|(_, item)| item))
        {
            self.counters.add_of_size(self.class_for_short(bytes), OfSize::CmdSet, 1);
            if outcome == Outcome::Exists {
                self.count_bad_cas(condition, alive.as_ref().map(|(_, item)| item));
            }
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
        let slot = self.append_to_log(head, shape, band, KEPT)?;
        let mut full = table.arena.start(slot, head, shape);
        assert!(table.arena.fill(&mut full, value) == value.len(), "it is not wide");
        table.note_expiry(full.head(), head.expiry);
        // A value that is stored again is as wanted as it was before.
        let heat = alive.map_or(0, |(_, item)| item.word0().heat());
        let version = table.next_version(hash, &stripe);
        let stamp = Stamp { version, heat, marks: Marks::NONE };
        let entry = |at: Ref| Entry::new(Tag::of(hash), at);
        let class = self.class_for_short(bytes);
        match old {
            None => {
                segment.insert(place, hash, entry(table.arena.publish(full, stamp)));
                self.count_put(class, bytes);
            }
            Some((_, item)) => {
                let link = |at| segment.replace(place, entry(at));
                let full = (full, stamp);
                let (_, retired, word) = table.arena.supersede(full, &item, link);
                if condition != Condition::Always {
                    self.count_good_cas(condition, &item);
                }
                self.lay_out_for((class, bytes), (retired, word), &item);
            }
        }
        Some(Outcome::Stored { cas: head.cas.unwrap_or(version), value_bytes: value.len() })
    }
}
