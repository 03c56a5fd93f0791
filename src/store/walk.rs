//! A walk through the table: every key, in the order of the hashes, in bounded steps.
//!
//! ```text
//!   order of a hash   63 ... tag, its bits reversed ... 40 | 39 ... all other bits ... 0
//!   tags of a segment that ends with `prefix`, of `depth` bits:
//!                     reversed prefix, 00..0  up to  reversed prefix, 11..1
//! ```
//!
//! A directory is indexed by the low bits of the tag. With its bits reversed, the tags of a segment
//! are a run of neighbours, and so are those of both halves, should it be split, and those of it
//! and its buddy, should they merge. A walk goes through each stripe by that order, and all that it
//! remembers is where it is: what the index does between two steps moves no key across that place.
//! So a key that is there for the whole walk is seen exactly once, whoever takes the steps, and
//! with whatever in between; one that comes or goes meanwhile may be seen or not, and never twice.
//!
//! A step sees what is left of one segment. It holds the lock of the stripe for as long as it takes
//! to copy some 1400 references; what these refer to is read without it, as any reader does.

use super::arena::{Item, Ref};
use super::index::Tag;
use super::participant::Participant;
use super::table::Table;
use crate::base::clock::Now;
use crate::base::hash::KeyHash;

/// Bits of the order behind those of the tag.
const REST_BITS: u32 = 40;
/// So many items are asked for before they are looked at.
const AHEAD: usize = 8;

/// How far a walk has come. The default is its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// One more than the last at the end.
    stripe: usize,
    /// The order of the first hash in it that was not seen.
    order: u64,
}

impl Cursor {
    /// Goes on at `order`; `None` is behind all of the stripe.
    fn go_on_at(&mut self, order: Option<u64>) {
        match order {
            Some(order) => self.order = order,
            None => *self = Cursor { stripe: self.stripe + 1, order: 0 },
        }
    }
}

/// Who is shown the items of a walk.
pub trait Visitor {
    /// False when the walk is to stop before the next key.
    fn takes_more(&mut self) -> bool;

    /// Is shown an item that is alive.
    fn visit(&mut self, item: &Item<'_>);
}

/// Where a hash comes in its stripe.
fn order_of(hash: KeyHash) -> u64 {
    let others = (hash.0 >> 40 << 16) | (hash.0 & 0xffff);
    Tag::of(hash).turned() << REST_BITS | others
}

/// What is left of one segment.
struct Stretch {
    /// The turned tags of its entries where they are in an order, ascending.
    entries: Vec<(u64, Ref)>,
    /// Where the next segment begins; `None` when this is the last of its stripe.
    end: Option<u64>,
}

impl Table {
    /// What a walk sees next. `None` at its end.
    fn stretch(&self, cursor: Cursor) -> Option<Stretch> {
        let stripe = self.stripe_at(cursor.stripe)?;
        let first = cursor.order >> REST_BITS;
        let lock = stripe.lock();
        let number = self.directory_of(cursor.stripe).segment(Tag::turned_back(first));
        let segment = self.segment(number);
        let owner = segment.owner().expect("the directory leads to it");
        // No further than the last one: most of a segment may be empty.
        let entries = segment.all().take(segment.entries());
        let entries = entries.map(|(_, entry)| (entry.tag().turned(), entry.at()));
        let entries = entries.filter(|(turned, _)| *turned >= first);
        let mut entries: Vec<_> = entries.map(|(turned, at)| (turned << REST_BITS, at)).collect();
        drop(lock);
        entries.sort_unstable_by_key(|(order, _)| *order);
        let end = owner.turned_end().map(|end| end << REST_BITS);
        Some(Stretch { entries, end })
    }

    /// True when a walk has seen everything.
    pub fn is_at_end(&self, cursor: &Cursor) -> bool {
        self.stripe_at(cursor.stripe).is_none()
    }
}

impl Participant {
    /// One step of a walk: shows what is left of a segment, until `visitor` takes no more. What is
    /// dead is not shown. `Table::is_at_end` says when the walk is over.
    ///
    /// It does not quiesce.
    pub fn walk(&self, cursor: &mut Cursor, now: Now, visitor: &mut impl Visitor) {
        let Some(Stretch { mut entries, end }) = self.table.stretch(*cursor) else { return };
        let ask_for = |(_, at): &(u64, Ref)| self.table.arena.prefetch(*at);
        entries.iter().take(AHEAD).for_each(ask_for);
        let mut seen = 0;
        while seen < entries.len() {
            let tag = |entry: &(u64, Ref)| entry.0 >> REST_BITS;
            let (first, rest) = (entries[seen], &entries[seen..]);
            let alike = rest.iter().take_while(|entry| tag(entry) == tag(&first)).count();
            rest.iter().skip(AHEAD).take(alike).for_each(ask_for);
            let alike = &mut entries[seen..seen + alike];
            seen += alike.len();
            if !self.show(alike, cursor, now, visitor) {
                return;
            }
        }
        cursor.go_on_at(end);
    }

    /// Shows the items of some entries with one tag, as far as they come at the cursor or behind
    /// it. False when the visitor takes no more.
    fn show(
        &self,
        alike: &mut [(u64, Ref)],
        cursor: &mut Cursor,
        now: Now,
        visitor: &mut impl Visitor,
    ) -> bool {
        let stripe = self.table.stripe_at(cursor.stripe).expect("the walk has not ended");
        let item = |at| self.table.arena.item(at, self.keep());
        for (order, at) in &mut *alike {
            *order = order_of(self.table.hash(item(*at).key()));
        }
        alike.sort_unstable_by_key(|(order, _)| *order);
        // Those with one hash are shown together: the walk cannot stop between them.
        for same in alike.chunk_by(|one, other| one.0 == other.0) {
            let order = same[0].0;
            if order < cursor.order {
                continue;
            }
            if !visitor.takes_more() {
                return false;
            }
            for (_, at) in same {
                let item = item(*at);
                if stripe.death(&item, now).is_none() {
                    visitor.visit(&item);
                }
            }
            // Nothing in the stripe comes behind the last order of all.
            cursor.order = order.saturating_add(1);
        }
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::store::index::Owner;

    #[test]
    fn every_hash_has_an_order_of_its_own() {
        assert_eq!((order_of(KeyHash(0)), order_of(KeyHash(u64::MAX))), (0, u64::MAX));
        let orders: Vec<_> = (0..64).map(|bit| order_of(KeyHash(1 << bit))).collect();
        assert!(orders.iter().all(|order| order.is_power_of_two()));
        assert_eq!(orders.iter().fold(0, |sum, order| sum | order), u64::MAX);
        // The lowest bit of the tag, which divides the first segment, weighs most.
        assert_eq!(orders[16], 1 << 63);
        let tags = [0, 1, 2, 0x80_0000, 0x12_3456, 0xff_ffff].map(|tag| KeyHash(tag << 16));
        for tag in tags.map(Tag::of) {
            assert_eq!(Tag::turned_back(tag.turned()), tag);
        }
    }

    #[test]
    fn both_halves_of_a_segment_are_neighbours() {
        let mut owner = Owner::of_stripe(0);
        assert_eq!((owner.tag().turned(), owner.turned_end()), (0, None));
        for depth in 0..24 {
            let [lower, upper] = owner.halves();
            assert_eq!(lower.tag().turned(), owner.tag().turned());
            assert_eq!(lower.turned_end(), Some(upper.tag().turned()));
            assert_eq!(upper.turned_end(), owner.turned_end());
            owner = if depth % 3 == 0 { lower } else { upper };
        }
    }
}
