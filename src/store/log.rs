//! The log: where new items of every size are on probation.
//!
//! ```text
//!   lane 0   open page per band: items are appended          lane 1 ...
//!               |  full
//!   band 0..3   [ page ] -> [ page ] -> ...    closed pages, oldest first; bands by exptime
//!   arriving    [ page ] -> ...                of values that had not come when they were begun
//!               |  the oldest of all
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
//! A page of the log counts in `used` its slots that are not free, and one more for as long as it
//! is in the log or somebody walks it. Whoever takes the last one puts it back into the pool. While
//! it is open it counts as many slots as it could have; those that never came go when it is closed.

use super::arena::{Arena, ItemHead, Logged, Ref, Reservation, Shape, Slot};
use super::epochs::{Epochs, Padded};
use super::pages::Pages;
use crate::base::clock::{Expiry, Now};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicU32, Ordering};

/// Up to a minute, up to an hour, longer, for ever; and `ARRIVING`.
pub const BANDS: usize = 5;
/// The band for items whose values have yet to come, whenever they expire.
pub const ARRIVING: u8 = 4;
/// Of the lists of closed pages, the one after those of the bands: pages that were walked in vain.
const HELD: usize = BANDS;
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
/// All of a page, for `Queue::live_share`.
const SHARES: u32 = 256;
/// More slots than any page has.
const SLOTS_MAX: u32 = 1 << 30;
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
    /// Slots that were taken.
    slots: u32,
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
    /// Bytes of the live slots before `at`.
    live_bytes: u32,
}

#[derive(Debug, Default)]
struct Queue {
    /// Closed pages: of each band, and those that are held.
    fifos: [Fifo; BANDS + 1],
    births: u32,
    walks: u32,
    walk: Option<Walk>,
    /// Of `SHARES` parts of the pages that were walked last, so many were live.
    live_share: u32,
}

/// What one step of a walk has found.
#[derive(Debug, Default)]
pub(in crate::store) struct Found {
    pub items: [Option<Ref>; STEP_ITEMS],
    /// True when there was a page to walk.
    pub walked: bool,
    /// True when the page ended: it will be free when the last of its items is.
    pub ended: bool,
    /// True when less than half of the log's oldest pages is live: what is in them can stay.
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
    ) -> Option<Vec<Slot>> {
        let bytes = item.shape().slot_bytes;
        let claim = |at: Ref, fitting: u32| {
            let count = item.fragments_missing().min(fitting as usize);
            let at = |index| Ref::from_offset(at.offset() + index * bytes);
            let slots = (0..count).map(|index| arena.claim_logged_fragment(at(index), item));
            (slots.collect(), u32::try_from(count).expect("no more than fit"))
        };
        self.append_with(pages, (lane, band), KEPT, bytes, claim)
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
            pages.page(number).hold(SLOTS_MAX);
            *open = Open { page: number, bytes: 0, slots: 0 };
        }
        pages.page(open.page).see(pages.second());
        let at = Ref::from_offset(pages.start_of(open.page) + open.bytes as usize);
        let (claimed, count) = claim(at, (page_bytes - open.bytes) / bytes);
        open.slots += count;
        open.bytes += count * bytes;
        Some(claimed)
    }

    fn close(&self, open: &mut Open, pages: &Pages, band: u8) {
        if open.page != 0 {
            pages.page(open.page).set_bump(open.bytes);
            pages.page(open.page).hold_less(SLOTS_MAX - open.slots);
            self.queue.0.lock().push(pages, usize::from(band), open.page);
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

    /// Goes on with emptying the oldest page, and names live items that have to leave it.
    pub fn walk(&self, (arena, pages): (&Arena, &Pages), epochs: &Epochs) -> Found {
        let mut found = Found::default();
        let mut queue = self.queue.0.lock();
        let Some(mut walk) = queue.walk.take().or_else(|| queue.oldest(pages)) else {
            return found;
        };
        found.walked = true;
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
                    walk.live_bytes += bytes;
                    found.items[count] = Some(at);
                    count += 1;
                }
            }
            walk.at += bytes;
        }
        // Every page that is walked gives half of itself, whatever those before it were like.
        found.sparse = queue.live_share < SHARES / 2 && walk.live_bytes <= end / 2;
        if walk.at < end {
            queue.walk = Some(walk);
            return found;
        }
        queue.note_walked(walk.live_bytes, end);
        if walk.met_building {
            if page.set_held(true) {
                self.held.fetch_add(1, Ordering::Relaxed);
            }
            queue.push(pages, HELD, walk.page);
            found.held = true;
            return found;
        }
        page.set_closed(false);
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
        self.held() > pages.count() / (2 * SHARE)
    }

    /// Keeps a closed page from being reused until `Pages::let_go`, and says how many bytes of it
    /// are slots. `None` when there is no such page.
    pub fn hold_closed(&self, pages: &Pages, number: u32) -> Option<usize> {
        let page = pages.page(number);
        let _queue = self.queue.0.lock();
        page.is_closed().then(|| {
            page.hold(1);
            page.bump() as usize
        })
    }

    /// Frees closed pages in which nothing is left.
    pub fn trim(&self, pages: &Pages) {
        // A walk goes on only when somebody needs memory.
        let walked = self.queue.0.lock().take_walked_if_empty(pages);
        walked.into_iter().for_each(|number| self.give_up(pages, number));
        for list in 0..=HELD {
            for number in self.queue.0.lock().take_empty(pages, list) {
                self.give_up(pages, number);
            }
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
        pages.let_go(number);
    }

    /// Frees one slot of a page of the log.
    pub fn put(&self, pages: &Pages, at: Ref) {
        pages.let_go(pages.number_of(at));
    }
}

impl Fifo {
    fn append(&mut self, pages: &Pages, number: u32) {
        pages.page(number).set_next(0);
        if self.first == 0 {
            self.first = number;
        } else {
            pages.page(self.last).set_next(number);
        }
        self.last = number;
    }
}

impl Queue {
    fn push(&mut self, pages: &Pages, list: usize, number: u32) {
        pages.page(number).set_closed(true);
        pages.page(number).set_born(self.births);
        self.births = self.births.wrapping_add(1);
        self.fifos[list].append(pages, number);
    }

    /// Remembers how much of a page was live.
    fn note_walked(&mut self, live_bytes: u32, bytes: u32) {
        let share = u64::from(live_bytes) * u64::from(SHARES) / u64::from(bytes.max(1));
        let share = u32::try_from(share).unwrap_or(SHARES);
        self.live_share = self.live_share.midpoint(share);
    }

    /// Takes out the page that is being walked, if nothing is left in it.
    fn take_walked_if_empty(&mut self, pages: &Pages) -> Option<u32> {
        let walk = self.walk.take_if(|walk| pages.page(walk.page).used() == 1)?;
        pages.page(walk.page).set_closed(false);
        Some(walk.page)
    }

    /// Takes out the pages of a list in which nothing is left.
    fn take_empty(&mut self, pages: &Pages, list: usize) -> Vec<u32> {
        let (mut kept, mut empty) = (Fifo::default(), Vec::new());
        let mut number = self.fifos[list].first;
        while number != 0 {
            let page = pages.page(number);
            let next = page.next();
            if page.used() == 1 {
                page.set_closed(false);
                empty.push(number);
            } else {
                kept.append(pages, number);
            }
            number = next;
        }
        self.fifos[list] = kept;
        empty
    }

    /// Takes the oldest page out. From time to time, or if there is no other, it is one in which
    /// something was being built: that may be over, and what else is in it has to go some day.
    fn oldest(&mut self, pages: &Pages) -> Option<Walk> {
        self.walks = self.walks.wrapping_add(1);
        let age = |fifo: &Fifo| self.births.wrapping_sub(pages.page(fifo.first).born());
        let bands = self.fifos[..HELD].iter().enumerate().filter(|(_, fifo)| fifo.first != 0);
        let oldest = bands.max_by_key(|(_, fifo)| age(fifo)).map(|(band, _)| band);
        let is_turn_of_held = self.walks.is_multiple_of(WALKS_PER_HELD);
        let held = (self.fifos[HELD].first != 0).then_some(HELD);
        let list = if is_turn_of_held { held.or(oldest) } else { oldest.or(held) }?;
        let fifo = &mut self.fifos[list];
        let number = fifo.first;
        fifo.first = pages.page(number).next();
        Some(Walk { page: number, at: 0, met_building: false, live_bytes: 0 })
    }
}
