//! The log: where new items of every size are on probation.
//!
//! ```text
//!   lane 0   open page per band: items are appended          lane 1 ...
//!               |  full
//!   band 0..3   [ page ] -> [ page ] -> ...    closed pages, oldest first; bands by exptime
//!   arriving    [ page ] -> ...                of values that had not come when they were begun
//!               |  less than half of it is left
//!   sparse      [ page ] -> ...                walked first: what is left moves to the open pages
//!               |  or if there is none, the oldest of all
//!               walk: who is untouched goes, who was touched is copied to a size class
//!               |  something is being built there
//!   held        [ page ] -> ...                walked again, but not as often
//! ```
//!
//! Pages are freed whole, so that no size class needs an open page for items nobody may ask for
//! twice, and nothing is lost to rounding. The bands keep together what dies together, and what may
//! be there for long: values whose peers fall silent keep pages for themselves, as many as it
//! takes, and not one each. Threads have lanes, so that their open pages are not a place where all
//! of them meet; small tables have one.
//!
//! A page of the log counts in `used` its slots that are not free, in units of 8 bytes,
//! and one more for as long as it is in the log or somebody walks it. Whoever takes the last one
//! puts it back into the pool. While it is open it counts more than it could have; what never came
//! goes when it is closed. A page in which nothing is left leaves the log at once.
//!
//! A piece of a value that begins in another page goes only when that page is walked. So that this
//! one is not taken for sparse before, each such piece counts for more than a page.

use super::arena::{Arena, ItemHead, Logged, Ref, Reservation, SLOT_ALIGN, Shape, Slot};
use super::epochs::{Epochs, Padded};
use super::pages::Pages;
use crate::base::clock::{Expiry, Now};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicU32, Ordering};

/// Up to a minute, up to an hour, longer, for ever; and `ARRIVING`.
pub const BANDS: usize = 5;
/// The band for items whose values have yet to come, whenever they expire.
pub const ARRIVING: u8 = 4;
/// Of the lists of closed pages, those after the ones of the bands: pages that were walked in vain,
const HELD: u8 = 5;
/// and those of which less than half is left.
const SPARSE: u8 = 6;
const LISTS: usize = 7;
/// For a list, of the page that is being walked.
const WALKED: u8 = 7;
/// For so many walks there is one through such a page.
const WALKS_PER_HELD: u32 = 4;
/// The log is one part in so many of all pages, when all are in use.
const SHARE: u32 = 10;
/// At least so many of the log's pages for every open one.
const PAGES_PER_OPEN: u32 = 8;
/// Live slots that one step of a walk names.
pub const STEP_ITEMS: usize = 16;
/// Pages that are kept for what moves: who makes room must not wait for room.
pub const KEPT: u32 = 2;
/// In such units a page of the log counts what is in use.
const UNIT_BYTES: u32 = 8;
const _: () = assert!(UNIT_BYTES as usize == SLOT_ALIGN);
/// More than any page counts.
const UNITS_MAX: u32 = 1 << 30;
/// What a piece counts for in a page in which its value does not begin: more than a page has, and a
/// page has at most 16 pieces.
const ELSEWHERE: u32 = 1 << 20;
/// Slots that one step looks at.
const STEP_SLOTS: u32 = 64;

/// The band for items with this exptime.
#[inline]
pub fn band(expiry: Expiry, now: Now) -> u8 {
    match expiry.left_s(now) {
        Some(0..=60) => 0,
        Some(61..=3600) => 1,
        Some(_) => 2,
        None => 3,
    }
}

/// The page to which a lane appends; page 0 is none.
#[derive(Debug, Default)]
struct Open {
    page: u32,
    bytes: u32,
}

/// Pages, linked by `Page::next`; page 0 is none.
#[derive(Clone, Copy, Debug, Default)]
struct Fifo {
    first: u32,
    last: u32,
}

/// A page that is being emptied, and how far.
#[derive(Clone, Copy, Debug)]
struct Walk {
    page: u32,
    at: u32,
    /// True when something was being built in what lies before `at`.
    met_building: bool,
    is_sparse: bool,
}

#[derive(Debug, Default)]
struct Queue {
    /// Closed pages: of each band, those that are held, and those that are sparse.
    fifos: [Fifo; LISTS],
    births: u32,
    walks: u32,
    walk: Option<Walk>,
}

/// What one step of a walk has found.
#[derive(Debug, Default)]
pub(in crate::store) struct Found {
    pub items: [Option<Ref>; STEP_ITEMS],
    /// True when there was a page to walk.
    pub walked: bool,
    /// True when the page ended: it will be free when the last of its items is.
    pub ended: bool,
    /// True when less than half of the page was left when it was chosen: that can stay.
    pub sparse: bool,
    /// True when it ended in vain: something is being built in it, so it stays in the log.
    pub held: bool,
}

#[derive(Debug)]
pub(in crate::store) struct Log {
    lanes: Box<[[Padded<Mutex<Open>>; BANDS]]>,
    queue: Padded<Mutex<Queue>>,
    /// Pages of the log, open and closed.
    pages: AtomicU32,
    /// Those of them that were walked in vain, because something was being built there.
    held: AtomicU32,
    /// Those of which less than half is left, and that are not being walked.
    sparse: AtomicU32,
}

impl Log {
    pub fn new(pages: u32, threads: u32) -> Log {
        // Mostly nothing is in the band that comes after those by time.
        let bands = u32::from(ARRIVING);
        let lanes = (pages / SHARE / PAGES_PER_OPEN / bands).clamp(1, threads.max(1));
        Log {
            lanes: (0..lanes).map(|_| Default::default()).collect(),
            queue: Padded::default(),
            pages: AtomicU32::new(0),
            held: AtomicU32::new(0),
            sparse: AtomicU32::new(0),
        }
    }

    /// Pages of the log.
    pub fn pages(&self) -> u32 {
        // Relaxed: a figure to go by.
        self.pages.load(Ordering::Relaxed)
    }

    /// Pages of the log in which something was being built when they were looked at.
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::Relaxed)
    }

    /// True when there is a page that gives half of itself at least, and nothing has to go.
    pub fn has_sparse(&self) -> bool {
        self.sparse.load(Ordering::Relaxed) > 0
    }

    /// Pages of the log that can be emptied.
    fn pages_free_to_go(&self) -> u32 {
        self.pages().saturating_sub(self.held())
    }

    /// True when the log has its share of all pages.
    pub fn has_share(&self, pages: &Pages) -> bool {
        self.pages_free_to_go() > pages.for_items() / SHARE
    }

    /// True when the log has so much more than its share that a class may take a page before the
    /// log needs it.
    pub fn has_plenty(&self, pages: &Pages, kept_free: u32) -> bool {
        self.pages_free_to_go() > pages.for_items() / SHARE + kept_free
    }

    /// Takes a slot for the head of an item. `None` when the pool has no page for it, beside the
    /// `kept` ones.
    #[inline]
    pub fn append(
        &self,
        (arena, pages): (&Arena, &Pages),
        lane: usize,
        (head, shape): (&ItemHead<'_>, Shape),
        band: u8,
        kept: u32,
    ) -> Option<Slot> {
        let claim = |at, _| (arena.claim_logged(at, head, shape), 1);
        self.append_with(pages, (lane, band), kept, shape.slot_bytes, claim)
    }

    /// Takes slots for the next pieces of an item, as `append`: as many as it still needs, or as
    /// the page has. A value that arrives slowly would else have each of its pieces in another
    /// page, and keep them all.
    pub fn append_fragments(
        &self,
        (arena, pages): (&Arena, &Pages),
        lane: usize,
        item: &Reservation,
        band: u8,
        kept: u32,
    ) -> Option<Vec<Slot>> {
        let bytes = item.shape().slot_bytes;
        let claim = |at: Ref, fitting: u32| {
            let count = item.fragments_missing().min(fitting as usize);
            let at = |index| Ref::from_offset(at.offset() + index * bytes);
            let slots = (0..count).map(|index| arena.claim_logged_fragment(at(index), item));
            let (slots, count) = (slots.collect(), u32::try_from(count).expect("as many as fit"));
            let number = pages.number_of(at(0));
            pages.page(number).hold(count * elsewhere(pages, item.head(), number));
            (slots, count)
        };
        self.append_with(pages, (lane, band), kept, bytes, claim)
    }

    /// `claim` takes slots from a place on at which so many fit, and says how many it took.
    #[inline]
    fn append_with<T>(
        &self,
        pages: &Pages,
        (lane, band): (usize, u8),
        kept: u32,
        bytes: usize,
        claim: impl FnOnce(Ref, u32) -> (T, u32),
    ) -> Option<T> {
        let bytes = u32::try_from(bytes).ok()?;
        let lane = &self.lanes[lane % self.lanes.len()];
        let mut open = lane[usize::from(band)].0.lock();
        let page_bytes = u32::try_from(pages.page_bytes()).ok()?;
        if open.page == 0 || page_bytes - open.bytes < bytes {
            let number = pages.take_beside(kept)?;
            self.close(&mut open, pages, band);
            pages.page(number).begin_log();
            self.pages.fetch_add(1, Ordering::Relaxed);
            pages.page(number).hold(UNITS_MAX);
            *open = Open { page: number, bytes: 0 };
        }
        pages.page(open.page).see(pages.second());
        let at = Ref::from_offset(pages.start_of(open.page) + open.bytes as usize);
        let (claimed, count) = claim(at, (page_bytes - open.bytes) / bytes);
        open.bytes += count * bytes;
        Some(claimed)
    }

    fn close(&self, open: &mut Open, pages: &Pages, band: u8) {
        if open.page != 0 {
            let page = pages.page(open.page);
            page.set_bump(open.bytes);
            page.hold_less(UNITS_MAX - units(open.bytes));
            self.queue.0.lock().push(pages, band, open.page);
            // It is anybody's from here on: where nothing is left, who took the last put it back.
            let left = page.used();
            if left > 0 && left <= sparse_units(page.bump()) {
                self.settle(pages, open.page, left);
            }
        }
        open.page = 0;
    }

    /// When the last item came to the oldest page; `None` when there are no pages.
    pub fn seen_s(&self, pages: &Pages) -> Option<u32> {
        let seen_s = |number: u32| (number != 0).then(|| pages.page(number).seen_s());
        let open = self.lanes.iter().flatten().filter_map(|open| seen_s(open.0.lock().page)).min();
        let queue = self.queue.0.lock();
        let walked = queue.walk.and_then(|walk| seen_s(walk.page));
        let closed = queue.fifos.iter().filter_map(|fifo| seen_s(fifo.first)).min();
        [open, walked, closed].into_iter().flatten().min()
    }

    /// Closes the open pages in which something has expired, or all, so that they are swept too.
    pub fn close_open(&self, pages: &Pages, all: bool, now: Now) {
        for lane in &self.lanes {
            for (band, open) in (0..).zip(lane) {
                let mut open = open.0.lock();
                if open.page != 0 && (all || pages.page(open.page).has_expired(now)) {
                    self.close(&mut open, pages, band);
                }
            }
        }
    }

    /// Goes on with emptying a page, and names live items that have to leave it.
    pub fn walk(&self, (arena, pages): (&Arena, &Pages), epochs: &Epochs) -> Found {
        let mut found = Found::default();
        let mut queue = self.queue.0.lock();
        let Some(mut walk) = queue.walk.take().or_else(|| self.next_walk(&mut queue, pages)) else {
            return found;
        };
        (found.walked, found.sparse) = (true, walk.is_sparse);
        let page = pages.page(walk.page);
        let (start, end) = (pages.start_of(walk.page), page.bump());
        let mut count = 0;
        for _ in 0..STEP_SLOTS {
            if walk.at == end || count == STEP_ITEMS {
                break;
            }
            let at = Ref::from_offset(start + walk.at as usize);
            let (logged, bytes) = arena.logged(at);
            let bytes = u32::try_from(bytes).expect("slots are smaller than pages");
            match logged {
                Logged::Gone => {}
                Logged::Building => walk.met_building = true,
                Logged::Live => {
                    found.items[count] = Some(at);
                    count += 1;
                }
            }
            walk.at += bytes;
        }
        if walk.at < end {
            queue.walk = Some(walk);
            return found;
        }
        if walk.met_building {
            if page.set_held(true) {
                self.held.fetch_add(1, Ordering::Relaxed);
            }
            queue.push(pages, HELD, walk.page);
            found.held = true;
            return found;
        }
        page.set_list(None);
        drop(queue);
        pages.expect(walk.page, epochs);
        self.give_up(pages, walk.page);
        found.ended = true;
        found
    }

    /// Forgets when something expires in a closed page. False when it is not one.
    pub fn forget_expiries(&self, pages: &Pages, number: u32) -> bool {
        let page = pages.page(number);
        let _queue = self.queue.0.lock();
        let is_closed = page.is_closed();
        if is_closed {
            page.forget_expiries();
        }
        is_closed
    }

    /// True when so much of the log waits for values to arrive that no more should.
    pub fn is_held_up(&self, pages: &Pages) -> bool {
        self.held() > pages.for_items() / (2 * SHARE)
    }

    /// Keeps a closed page from being reused until `let_go`, and says how many bytes of it are
    /// slots. `None` when there is no such page.
    pub fn hold_closed(&self, pages: &Pages, number: u32) -> Option<usize> {
        let page = pages.page(number);
        let _queue = self.queue.0.lock();
        page.is_closed().then(|| {
            page.hold(1);
            page.bump() as usize
        })
    }

    /// A page that is sparse, or the oldest.
    fn next_walk(&self, queue: &mut Queue, pages: &Pages) -> Option<Walk> {
        let sparse = queue.fifos[usize::from(SPARSE)].first;
        let number = if sparse == 0 { queue.oldest(pages)? } else { sparse };
        self.leave_list(queue, pages, number);
        pages.page(number).set_list(Some(WALKED));
        Some(Walk { page: number, at: 0, met_building: false, is_sparse: sparse != 0 })
    }

    /// Takes a closed page that is not being walked out of its list.
    fn leave_list(&self, queue: &mut Queue, pages: &Pages, number: u32) {
        let list = pages.page(number).list().expect("it is closed");
        queue.fifos[usize::from(list)].remove(pages, number);
        if list == SPARSE {
            self.sparse.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Half of a page has gone, or all: it goes to the pool if nothing is left and the log does not
    /// have it. If it is closed, it leaves the log when nothing else is left, or is walked soon.
    #[cold]
    fn settle(&self, pages: &Pages, number: u32, left: u32) {
        if left == 0 {
            return pages.put(number);
        }
        let mut queue = self.queue.0.lock();
        let page = pages.page(number);
        let Some(list) = page.list() else { return };
        let is_empty = page.used() == 1;
        let is_sparse = page.used() <= sparse_units(page.bump()) && list < HELD;
        match list {
            WALKED if is_empty => queue.walk = None,
            _ if is_empty || is_sparse => self.leave_list(&mut queue, pages, number),
            _ => return,
        }
        if is_empty {
            page.set_list(None);
            drop(queue);
            self.give_up(pages, number);
        } else {
            queue.push(pages, SPARSE, number);
            self.sparse.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The page leaves the log, and is not closed any more; it is free when the last of its items
    /// is.
    fn give_up(&self, pages: &Pages, number: u32) {
        let page = pages.page(number);
        if page.set_held(false) {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
        self.pages.fetch_sub(1, Ordering::Relaxed);
        if page.let_go(1) == 0 {
            pages.put(number);
        }
    }

    /// Frees the first slot of an item, of so many bytes, on this page.
    #[inline]
    pub fn put(&self, pages: &Pages, number: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).expect("slots are smaller than pages");
        self.let_go_of(pages, number, units(bytes));
    }

    /// Frees a further slot of the item that begins at `head`.
    pub fn put_fragment(&self, pages: &Pages, head: Ref, (at, bytes): (Ref, usize)) {
        let number = pages.number_of(at);
        let bytes = u32::try_from(bytes).expect("slots are smaller than pages");
        self.let_go_of(pages, number, units(bytes) + elsewhere(pages, head, number));
    }

    /// Ends what `hold_closed` began.
    pub fn let_go(&self, pages: &Pages, number: u32) {
        self.let_go_of(pages, number, 1);
    }

    #[inline]
    fn let_go_of(&self, pages: &Pages, number: u32, count: u32) {
        let page = pages.page(number);
        let left = page.let_go(count);
        // Unless nothing is left, it may be another's by now: `settle` looks again.
        let sparse = sparse_units(page.bump());
        if left <= sparse && (left <= 1 || left + count > sparse) {
            self.settle(pages, number, left);
        }
    }
}

fn units(bytes: u32) -> u32 {
    bytes / UNIT_BYTES
}

/// A page with slots of so many bytes counts no more than this when half of it has gone.
fn sparse_units(bytes: u32) -> u32 {
    1 + units(bytes) / 2
}

/// What a slot on a page counts for beside its size, if its item begins at `head`.
fn elsewhere(pages: &Pages, head: Ref, number: u32) -> u32 {
    if pages.number_of(head) == number { 0 } else { ELSEWHERE }
}

impl Fifo {
    fn append(&mut self, pages: &Pages, number: u32) {
        pages.page(number).set_next(0);
        pages.page(number).set_before(self.last);
        if self.first == 0 {
            self.first = number;
        } else {
            pages.page(self.last).set_next(number);
        }
        self.last = number;
    }

    fn remove(&mut self, pages: &Pages, number: u32) {
        let (before, next) = (pages.page(number).before(), pages.page(number).next());
        match before {
            0 => self.first = next,
            before => pages.page(before).set_next(next),
        }
        match next {
            0 => self.last = before,
            next => pages.page(next).set_before(before),
        }
    }
}

impl Queue {
    fn push(&mut self, pages: &Pages, list: u8, number: u32) {
        pages.page(number).set_list(Some(list));
        pages.page(number).set_born(self.births);
        self.births = self.births.wrapping_add(1);
        self.fifos[usize::from(list)].append(pages, number);
    }

    /// The oldest page. From time to time, or if there is no other, it is one in which something
    /// was being built: that may be over, and what else is in it has to go some day.
    fn oldest(&mut self, pages: &Pages) -> Option<u32> {
        self.walks = self.walks.wrapping_add(1);
        let first = |fifo: &Fifo| (fifo.first != 0).then_some(fifo.first);
        let age = |number: &u32| self.births.wrapping_sub(pages.page(*number).born());
        let oldest = self.fifos[..BANDS].iter().filter_map(first).max_by_key(age);
        let held = first(&self.fifos[usize::from(HELD)]);
        let is_turn_of_held = self.walks.is_multiple_of(WALKS_PER_HELD);
        if is_turn_of_held { held.or(oldest) } else { oldest.or(held) }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn values_that_arrive_hold_up_a_twentieth_of_what_is_for_items() {
        let (log, pages) = (Log::new(400, 1), Pages::new(32 << 10, 400));
        log.held.store(20, Ordering::Relaxed);
        assert!(!log.is_held_up(&pages));
        // As the limit falls.
        (0..360).for_each(|_| assert!(pages.take_for_others(0).is_some()));
        assert!(log.is_held_up(&pages));
        log.held.store(2, Ordering::Relaxed);
        assert!(!log.is_held_up(&pages));
    }
}
