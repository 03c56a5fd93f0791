//! The page pool: all memory of items and index, in pages of one size.
//!
//! A page is in exactly one of these places: the pool, a size class, draining on its way from a
//! class back to the pool, or the index, until nobody looks at any segment of it.

use super::arena::{Arena, Ref};
use super::index::{SEGMENT_BYTES, SegmentPool, Used};
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

/// What is known of a page. The lock of its class guards all of it, hence Relaxed everywhere; only
/// `class` is read without, by who holds a slot of the page, and then it does not change.
#[derive(Debug, Default)]
pub(in crate::store) struct Page {
    class: AtomicU8,
    draining: AtomicBool,
    /// Slots from this one on were never used since the page came to its class.
    bump: AtomicU32,
    /// Slots that are not free.
    used: AtomicU32,
    /// The first slot in the list of free ones.
    free: AtomicU64,
}

impl Page {
    pub fn class(&self) -> u8 {
        self.class.load(Ordering::Relaxed)
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
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
        self.class.store(class, Ordering::Relaxed);
        self.draining.store(false, Ordering::Relaxed);
        self.set_bump(0);
        self.set_used(0);
        self.set_free(Ref::NONE);
    }
}

#[derive(Debug)]
struct Pool {
    free: Vec<u32>,
    /// Pages from this one on were never used.
    fresh: u32,
    segments: SegmentPool,
}

#[derive(Debug)]
pub(in crate::store) struct Pages {
    page_bytes: usize,
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
        let pool = Pool { free: Vec::new(), fresh: 1, segments };
        let pages = (0..=count).map(|_| Page::default()).collect();
        Pages { page_bytes, pages, pool: Mutex::new(pool) }
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

    /// Takes a page out of the pool.
    pub fn take(&self) -> Option<u32> {
        self.take_from(&mut self.pool.lock())
    }

    fn take_from(&self, pool: &mut Pool) -> Option<u32> {
        if let Some(number) = pool.free.pop() {
            return Some(number);
        }
        if pool.fresh as usize == self.pages.len() {
            return None;
        }
        pool.fresh += 1;
        Some(pool.fresh - 1)
    }

    /// Bytes of the arena up to the first page that was never used.
    pub fn fresh_bytes(&self) -> usize {
        self.pool.lock().fresh as usize * self.page_bytes
    }

    /// Puts a page back, all of whose slots are free.
    pub fn put(&self, number: u32) {
        self.pool.lock().free.push(number);
    }

    /// Takes a segment for the index, of a page that the index has already or of one more.
    pub fn take_segment(&self) -> Option<u32> {
        let mut pool = self.pool.lock();
        if pool.segments.is_full() {
            let number = self.take_from(&mut pool)?;
            let first = Arena::first_segment(Ref::from_offset(self.start_of(number)));
            pool.segments.add_page(first);
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
