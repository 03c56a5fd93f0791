//! Looking for keys ahead of their turn, so that the memory of many of them comes at once.
//!
//! ```text
//!   Participant::seek   the home bucket is asked for
//!   Seek::sight         the tag is there: the item is asked for
//!                       it is not: the other bucket in which it may be is asked for
//!   Seek::sight_away    the tag is there: the item is asked for
//!                       it is not: it is looked for everywhere
//!   Seek::get           the item that was seen, if it has the key; or all of a look-up
//! ```
//!
//! Each step touches what the one before asked for, so steps of other keys come between the two. A
//! seek borrows its participant: what was seen stays readable until the thread quiesces. It may
//! have been replaced since by another thread: the look-up took place when it was seen.

use super::arena::{Item, Keep, Ref};
use super::index::{Bucket, Glance, Tag};
use super::table::Stripe;
use super::{Miss, Participant};
use crate::base::bytes::equal;
use crate::base::clock::Now;
use crate::base::hash::KeyHash;

/// A key that is being looked for.
#[derive(Clone, Copy, Debug)]
pub struct Seek<'p> {
    one: &'p Participant,
    /// As long as the participant is borrowed, it neither quiesces nor goes offline.
    keep: Keep<'p>,
    stripe: &'p Stripe,
    home: &'p Bucket,
    other: &'p Bucket,
    hash: KeyHash,
    /// An item with the right tag, or none.
    at: Ref,
    /// The entry may be in another bucket than the home.
    is_away: bool,
}

impl Participant {
    /// Begins to look for a key.
    #[inline(always)]
    pub fn seek(&self, hash: KeyHash) -> Seek<'_> {
        let (stripe, segment) = self.table.way(hash);
        let (home, other) = segment.both(hash);
        self.table.arena.prefetch_line(home);
        Seek {
            one: self,
            keep: self.keep(),
            stripe,
            home,
            other,
            hash,
            at: Ref::NONE,
            is_away: false,
        }
    }
}

impl<'p> Seek<'p> {
    pub fn hash(&self) -> KeyHash {
        self.hash
    }

    #[inline(always)]
    pub fn sight(&mut self) {
        let table = &self.one.table;
        match self.home.glance(Tag::of(self.hash)) {
            Glance::At(at) => {
                table.arena.prefetch(at);
                self.at = at;
            }
            Glance::Away => {
                self.is_away = true;
                table.arena.prefetch_line(self.other);
            }
            Glance::Absent => {}
        }
    }

    #[inline(always)]
    pub fn sight_away(&mut self) {
        if self.is_away {
            match self.other.first(Tag::of(self.hash)) {
                Some(at) => {
                    self.one.table.arena.prefetch(at);
                    self.at = at;
                }
                None => self.sight_anywhere(),
            }
        }
    }

    /// It may be in the stash.
    #[cold]
    fn sight_anywhere(&mut self) {
        self.at = self.one.table.prefetch_item(self.hash).unwrap_or(Ref::NONE);
    }

    /// See `Participant::get`. The caller counts the request, see `count_requests`.
    ///
    /// # Errors
    /// Why there is no item.
    #[inline(always)]
    pub fn get(&self, key: &[u8], now: Now) -> Result<Item<'p>, Miss> {
        if self.at != Ref::NONE {
            let item = self.one.table.arena.item(self.at, self.keep);
            if equal(item.key(), key) && self.stripe.death(&item, now).is_none() {
                self.one.heat(&item);
                return Ok(item);
            }
        }
        self.get_anew(key, now)
    }

    /// See `Participant::peek`.
    ///
    /// # Errors
    /// Why there is no item.
    #[inline(always)]
    pub fn peek(&self, key: &[u8], now: Now) -> Result<Item<'p>, Miss> {
        if self.at != Ref::NONE {
            let item = self.one.table.arena.item(self.at, self.keep);
            if equal(item.key(), key) && self.stripe.death(&item, now).is_none() {
                return Ok(item);
            }
        }
        self.peek_anew(key, now)
    }

    /// As `get_anew`.
    #[inline(never)]
    fn peek_anew(&self, key: &[u8], now: Now) -> Result<Item<'p>, Miss> {
        self.one.peek(key, self.hash, now)
    }

    /// Only the whole look-up knows for sure that there is nothing, and buries what is dead.
    #[inline(never)]
    fn get_anew(&self, key: &[u8], now: Now) -> Result<Item<'p>, Miss> {
        let item = self.one.peek(key, self.hash, now)?;
        self.one.heat(&item);
        Ok(item)
    }
}
