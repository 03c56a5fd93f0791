//! The page pool: all memory of items and index, and what is lent of it, in pages of one size.
//!
//! A page is in exactly one of these places: the pool, a size class, the log, draining on its way
//! from one of these two back to the pool, the index, until nobody looks at any segment of it, or
//! with `Loans`, from `take_for_others` to `put_back`: in stock, lent, debited for what is in use
//! elsewhere, or withheld by the limit.

use std::collections::VecDeque;

use super::arena::{Arena, Ref};
use super::epochs::Epochs;
use super::index::{SEGMENT_BYTES, SegmentPool, Used};
use crate::base::clock::{Expiry, Now};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// `Page::holder` of a page of the log; below are the numbers of the classes.
const HOLDER_LOG: u8 = 254;
/// Of a page of the pool, or of the index.
const HOLDER_NONE: u8 = 255;

/// `Page::stage` of a page that is on its way from its class to the pool.
const STAGE_DRAINING: u8 = 1;
/// From here on: of a page of the log that is closed, and in the list of this number. Only who has
/// the lock of the queue makes it that, or ends it.
const STAGE_CLOSED: u8 = 2;
const STAGE_NONE: u8 = 0;

/// `Page::way` of a page that will be free after grace.
const WAY_COMING: u8 = 1;
/// Of a page that should be free by now.
const WAY_STUCK: u8 = 2;
const WAY_NONE: u8 = 0;
/// So often all threads quiesce until a page is free of which nothing is needed any more: who has
/// items of it ends their epoch, all others see that, and the first one frees them.
const ROUNDS: u32 = 3;

/// Who has a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Holder {
    Class(u8),
    Log,
    None,
}

/// What is known of a page.
///
/// The lock of its class guards all of a class's page, the lock of its lane and then that of the
/// queue guard the log's, hence Relaxed. Without them `holder` is read by who holds a slot of the
/// page, and then it does not change; `used` of a page of the log counts by itself.
#[derive(Debug)]
pub(in crate::store) struct Page {
    holder: AtomicU8,
    stage: AtomicU8,
    /// Where the page is on its way to the pool, whose lock guards this.
    way: AtomicU8,
    /// True of a page of the log that was walked while something was being built in it.
    held: AtomicBool,
    /// Class: slots from this one on were never used since the page came to its class. Log: bytes
    /// in which there are slots, once the page is closed.
    bump: AtomicU32,
    /// Class: slots that are not free. Log: see there.
    used: AtomicU32,
    /// Nothing in the page expires before this, see `note_expiry`.
    earliest: AtomicU32,
    /// The second in which the page last came to a class, was passed by its hand, or, in the log,
    /// got an item.
    seen_s: AtomicU32,
    /// Class: the first slot in the list of free ones. Log: the page after this one, and its birth.
    free: AtomicU64,
    /// Log: the page before this one.
    before: AtomicU32,
    /// Items that begin in the page and whose values have not come.
    arriving: AtomicU32,
}

impl Default for Page {
    fn default() -> Page {
        Page {
            holder: AtomicU8::new(HOLDER_NONE),
            stage: AtomicU8::new(STAGE_NONE),
            way: AtomicU8::new(WAY_NONE),
            held: AtomicBool::new(false),
            bump: AtomicU32::new(0),
            used: AtomicU32::new(0),
            earliest: AtomicU32::new(u32::MAX),
            seen_s: AtomicU32::new(0),
            free: AtomicU64::new(0),
            before: AtomicU32::new(0),
            arriving: AtomicU32::new(0),
        }
    }
}

impl Page {
    #[inline]
    pub fn holder(&self) -> Holder {
        match self.holder.load(Ordering::Relaxed) {
            HOLDER_LOG => Holder::Log,
            HOLDER_NONE => Holder::None,
            class => Holder::Class(class),
        }
    }

    /// Remembers that something in the page expires then.
    #[inline]
    pub fn note_expiry(&self, expiry: Expiry) {
        // Times in ticks are before those in seconds, and `NEVER`, which is 0, comes last.
        let earliest = expiry.to_bits().wrapping_sub(1);
        // Relaxed: who does not see that the sweep has forgotten all of them quiesces before it
        // reads the page.
        if earliest < self.earliest.load(Ordering::Relaxed) {
            self.earliest.fetch_min(earliest, Ordering::Relaxed);
        }
    }

    pub fn seen_s(&self) -> u32 {
        self.seen_s.load(Ordering::Relaxed)
    }

    /// Something about the page has been seen to in this second.
    #[inline]
    pub fn see(&self, second: u32) {
        // Relaxed: a guess. Seldom written, as who reads it has other things of the page to read.
        if self.seen_s() != second {
            self.seen_s.store(second, Ordering::Relaxed);
        }
    }

    /// True when something in the page may have expired.
    pub fn has_expired(&self, now: Now) -> bool {
        let earliest = self.earliest.load(Ordering::Relaxed).wrapping_add(1);
        Expiry::from_bits(earliest).is_due(now)
    }

    /// Forgets when things expire: whoever looks through the page, after grace, notes it anew.
    pub fn forget_expiries(&self) {
        self.earliest.store(u32::MAX, Ordering::Relaxed);
    }

    /// So much more of a page of the log is in use, or somebody walks the page.
    pub fn hold(&self, count: u32) {
        // Relaxed: nothing is done with the page before the lock that guards it is released.
        self.used.fetch_add(count, Ordering::Relaxed);
    }

    /// So much less is in use than was said. The log has the page.
    pub fn hold_less(&self, count: u32) {
        // Release: pairs with `let_go`, for who asks then how large the page is.
        self.used.fetch_sub(count, Ordering::Release);
    }

    /// So much less of a page of the log is in use, or somebody walks it no longer. Says how much
    /// is left: if it is nothing, the page is to be put into the pool.
    #[inline]
    #[must_use]
    pub fn let_go(&self, count: u32) -> u32 {
        // Release and Acquire: all that was done with the page comes before its next use.
        self.used.fetch_sub(count, Ordering::AcqRel) - count
    }

    /// Says whether something was being built in the page. True when that is news.
    pub fn set_held(&self, held: bool) -> bool {
        self.held.swap(held, Ordering::Relaxed) != held
    }

    /// A value will come to an item here. True when the page waited for none before.
    pub fn begin_arrival(&self) -> bool {
        // Relaxed: what came before is of no interest.
        self.arriving.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// One has come, or will not. True when the page waits for none any more.
    pub fn end_arrival(&self) -> bool {
        // Release: all that this thread has counted is counted for who ends the last one. Acquire:
        // pairs with that.
        self.arriving.fetch_sub(1, Ordering::AcqRel) == 1
    }

    pub fn next(&self) -> u32 {
        let [a, b, c, d, ..] = self.free.load(Ordering::Relaxed).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    pub fn before(&self) -> u32 {
        self.before.load(Ordering::Relaxed)
    }

    pub fn set_before(&self, before: u32) {
        self.before.store(before, Ordering::Relaxed);
    }

    pub fn born(&self) -> u32 {
        let [_, _, _, _, a, b, c, d] = self.free.load(Ordering::Relaxed).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    pub fn set_next(&self, next: u32) {
        self.free.store(u64::from(next) | (u64::from(self.born()) << 32), Ordering::Relaxed);
    }

    pub fn set_born(&self, born: u32) {
        self.free.store(u64::from(self.next()) | (u64::from(born) << 32), Ordering::Relaxed);
    }

    /// True of a page that is on its way from its class to the pool.
    pub fn is_draining(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == STAGE_DRAINING
    }

    pub fn set_draining(&self) {
        self.stage.store(STAGE_DRAINING, Ordering::Relaxed);
    }

    /// True of a page of the log that is closed and has not left the log: the log's own hold keeps
    /// it. For who has the lock of the log's queue.
    pub fn is_closed(&self) -> bool {
        self.list().is_some()
    }

    /// The list of the log that a closed page is in.
    pub fn list(&self) -> Option<u8> {
        self.stage.load(Ordering::Relaxed).checked_sub(STAGE_CLOSED)
    }

    pub fn set_list(&self, list: Option<u8>) {
        let stage = list.map_or(STAGE_NONE, |list| STAGE_CLOSED + list);
        self.stage.store(stage, Ordering::Relaxed);
    }

    pub fn bump(&self) -> u32 {
        self.bump.load(Ordering::Relaxed)
    }

    pub fn set_bump(&self, bump: u32) {
        self.bump.store(bump, Ordering::Relaxed);
    }

    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    pub fn set_used(&self, used: u32) {
        self.used.store(used, Ordering::Relaxed);
    }

    pub fn free(&self) -> Ref {
        Ref::from_bits(self.free.load(Ordering::Relaxed))
    }

    pub fn set_free(&self, free: Ref) {
        self.free.store(free.bits(), Ordering::Relaxed);
    }

    /// The page comes to a class, unused.
    pub fn begin(&self, class: u8) {
        self.holder.store(class, Ordering::Relaxed);
        self.set_bump(0);
        self.set_used(0);
        self.set_free(Ref::NONE);
        self.forget_expiries();
    }

    /// The page comes to the log, empty.
    pub fn begin_log(&self) {
        self.begin(HOLDER_LOG);
        self.set_used(1);
    }
}

#[derive(Debug)]
struct Pool {
    free: Vec<u32>,
    /// Pages from this one on were never used.
    fresh: u32,
    segments: SegmentPool,
    /// Pages that will be free after grace.
    coming: VecDeque<Coming>,
}

/// A page on its way to the pool.
#[derive(Debug)]
struct Coming {
    number: u32,
    /// When this is the horizon, one more round is over.
    round_ends: u64,
    rounds_left: u32,
}

#[derive(Debug)]
pub(in crate::store) struct Pages {
    page_bytes: usize,
    /// Pages of the pool, and those for items: copies of what `pool` knows, for who need not know
    /// it exactly.
    free: AtomicU32,
    for_items: AtomicU32,
    /// Pages that will be free when everybody has quiesced, and those that are not although
    /// everybody has: copies, as above.
    coming: AtomicU32,
    stuck: AtomicU32,
    /// The present second, as the last batch has told.
    second: AtomicU32,
    /// Page 0 is never used, so that no item has the ref 0.
    pages: Box<[Page]>,
    pool: Mutex<Pool>,
}

/// How many pages and segments there are, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Census {
    pub pages_free: u32,
    pub index_pages: u32,
    pub segments: u32,
}

impl Pages {
    pub fn new(page_bytes: usize, count: u32) -> Pages {
        let segments = SegmentPool::new(page_bytes);
        let pool = Pool { free: Vec::new(), fresh: 1, segments, coming: VecDeque::new() };
        let pages = (0..=count).map(|_| Page::default()).collect();
        Pages {
            page_bytes,
            free: AtomicU32::new(count),
            for_items: AtomicU32::new(count),
            coming: AtomicU32::new(0),
            stuck: AtomicU32::new(0),
            second: AtomicU32::new(0),
            pages,
            pool: Mutex::new(pool),
        }
    }

    #[inline]
    pub fn second(&self) -> u32 {
        self.second.load(Ordering::Relaxed)
    }

    /// Tells what time it is.
    #[inline]
    pub fn tell(&self, now: Now) {
        let [a, b, c, d, ..] = now.seconds().to_le_bytes();
        let second = u32::from_le_bytes([a, b, c, d]);
        // Relaxed: a guess, here and above.
        if self.second() != second {
            self.second.store(second, Ordering::Relaxed);
        }
    }

    /// Pages that nobody has.
    #[inline]
    pub fn free(&self) -> u32 {
        self.free.load(Ordering::Relaxed)
    }

    /// Pages that will be free when all who look at them have quiesced.
    #[inline]
    pub fn coming(&self) -> u32 {
        self.coming.load(Ordering::Relaxed)
    }

    /// Pages that are neither the index's nor anybody's outside of the table.
    pub fn for_items(&self) -> u32 {
        self.for_items.load(Ordering::Relaxed)
    }

    /// Pages that were to come and did not: something arrives in them, or is sent from them.
    pub fn stuck(&self) -> u32 {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Nobody needs a page any more but those who still look at what was in it.
    pub fn expect(&self, number: u32, epochs: &Epochs) {
        self.expect_no_longer(epochs);
        let round_ends = epochs.advance();
        let mut pool = self.pool.lock();
        self.page(number).way.store(WAY_COMING, Ordering::Relaxed);
        pool.coming.push_back(Coming { number, round_ends, rounds_left: ROUNDS - 1 });
        self.coming.fetch_add(1, Ordering::Relaxed);
    }

    /// Stops to wait for pages that are not there although everybody has quiesced: there is no
    /// saying when they will be.
    pub fn expect_no_longer(&self, epochs: &Epochs) {
        if self.coming() == 0 {
            return;
        }
        let horizon = epochs.horizon();
        let mut pool = self.pool.lock();
        while let Some(first) = pool.coming.pop_front_if(|first| first.round_ends <= horizon) {
            if first.rounds_left > 0 {
                let (round_ends, rounds_left) = (epochs.advance(), first.rounds_left - 1);
                pool.coming.push_back(Coming { round_ends, rounds_left, ..first });
                continue;
            }
            self.page(first.number).way.store(WAY_STUCK, Ordering::Relaxed);
            self.coming.fetch_sub(1, Ordering::Relaxed);
            self.stuck.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    pub fn count(&self) -> u32 {
        u32::try_from(self.pages.len() - 1).expect("made from a u32")
    }

    pub fn page(&self, number: u32) -> &Page {
        &self.pages[number as usize]
    }

    /// The number of the page that a slot is in.
    #[inline]
    pub fn number_of(&self, at: Ref) -> u32 {
        u32::try_from(at.offset() >> self.page_bytes.trailing_zeros())
            .expect("fewer than 2^32 pages")
    }

    #[inline]
    pub fn page_of(&self, at: Ref) -> &Page {
        self.page(self.number_of(at))
    }

    pub fn start_of(&self, number: u32) -> usize {
        number as usize * self.page_bytes
    }

    /// Takes a page out of the pool that is not for items meanwhile, if there are more than `kept`.
    pub fn take_for_others(&self, kept: u32) -> Option<u32> {
        let number = self.take_beside(kept)?;
        self.for_items.fetch_sub(1, Ordering::Relaxed);
        Some(number)
    }

    /// Puts a page back that was not for items.
    pub fn put_back(&self, number: u32) {
        self.for_items.fetch_add(1, Ordering::Relaxed);
        self.put(number);
    }

    /// Takes a page out of the pool, if there are more than `kept`.
    pub fn take_beside(&self, kept: u32) -> Option<u32> {
        let mut pool = self.pool.lock();
        if self.free() <= kept {
            return None;
        }
        self.take_from(&mut pool)
    }

    fn take_from(&self, pool: &mut Pool) -> Option<u32> {
        let number = if let Some(number) = pool.free.pop() {
            number
        } else if pool.fresh as usize == self.pages.len() {
            return None;
        } else {
            pool.fresh += 1;
            pool.fresh - 1
        };
        self.free.fetch_sub(1, Ordering::Relaxed);
        Some(number)
    }

    /// Bytes of the arena up to the first page that was never used.
    pub fn fresh_bytes(&self) -> usize {
        self.pool.lock().fresh as usize * self.page_bytes
    }

    /// Puts a page back, all of whose slots are free.
    pub fn put(&self, number: u32) {
        let page = self.page(number);
        page.holder.store(HOLDER_NONE, Ordering::Relaxed);
        page.stage.store(STAGE_NONE, Ordering::Relaxed);
        let mut pool = self.pool.lock();
        match page.way.swap(WAY_NONE, Ordering::Relaxed) {
            WAY_COMING => {
                // Near the front: they come in the order in which they were let go of.
                let at = pool.coming.iter().position(|each| each.number == number);
                pool.coming.remove(at.expect("among those that are coming"));
                self.coming.fetch_sub(1, Ordering::Relaxed);
            }
            WAY_STUCK => {
                self.stuck.fetch_sub(1, Ordering::Relaxed);
            }
            _ => {}
        }
        pool.free.push(number);
        self.free.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes a segment for the index, of a page that the index has already or of one more.
    pub fn take_segment(&self) -> Option<u32> {
        let mut pool = self.pool.lock();
        if pool.segments.is_full() {
            let number = self.take_from(&mut pool)?;
            let first = Arena::first_segment(Ref::from_offset(self.start_of(number)));
            pool.segments.add_page(first);
            self.for_items.fetch_sub(1, Ordering::Relaxed);
        }
        pool.segments.take()
    }

    /// Takes a segment for what lies on a page that the index leaves.
    pub fn take_segment_elsewhere(&self) -> Option<u32> {
        let mut pool = self.pool.lock();
        if pool.segments.has_room_elsewhere() { pool.segments.take() } else { None }
    }

    /// Puts a segment back that nobody can look at. The last one of a page takes it along to the
    /// pool.
    pub fn put_segment(&self, number: u32) {
        let mut pool = self.pool.lock();
        if let Some(first) = pool.segments.put(number) {
            let page = first as usize * SEGMENT_BYTES / self.page_bytes;
            pool.free.push(u32::try_from(page).expect("fewer than 2^32 pages"));
            self.free.fetch_add(1, Ordering::Relaxed);
            self.for_items.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The segments in use on the first page that has any from `number` on.
    pub fn used_segments_from(&self, number: u32) -> Option<Used> {
        self.pool.lock().segments.used_from(number)
    }

    /// Chooses a page for the index to leave. False when it needs them all.
    pub fn leave_page(&self) -> bool {
        self.pool.lock().segments.leave_page()
    }

    /// The first segment in use on a page that the index leaves for which `is_it`.
    pub fn find_left(&self, is_it: impl Fn(&u32) -> bool) -> Option<u32> {
        self.pool.lock().segments.used_of_left().flat_map(Used::segments).find(is_it)
    }

    /// True when `take_segment` would succeed.
    pub fn has_segment(&self) -> bool {
        let pool = self.pool.lock();
        !pool.segments.is_full()
            || !pool.free.is_empty()
            || (pool.fresh as usize) < self.pages.len()
    }

    pub fn census(&self) -> Census {
        let pool = self.pool.lock();
        let unused = self.pages.len() - pool.fresh as usize + pool.free.len();
        Census {
            pages_free: u32::try_from(unused).expect("at most all pages"),
            index_pages: u32::try_from(pool.segments.pages()).expect("at most all pages"),
            segments: pool.segments.used(),
        }
    }

    /// Bytes that this structure takes beside the pages.
    pub fn bytes(&self) -> usize {
        self.pages.len() * (size_of::<Page>() + size_of::<u32>())
    }
}
