//! The page pool: all memory of items and index, in pages of one size.
//!
//! A page is in exactly one of these places: the pool, a size class, draining on its way from a
//! class back to the pool, or the index, which never gives one back.

use super::arena::{Arena, Ref};
use super::index::SEGMENT_BYTES;
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
    /// Unused segments of the pages that the index has.
    segments: Vec<u32>,
    index_pages: u32,
    segments_used: u32,
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
        let pool = Pool {
            free: Vec::new(),
            fresh: 1,
            segments: Vec::new(),
            index_pages: 0,
            segments_used: 0,
        };
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
        if pool.segments.is_empty() {
            let number = self.take_from(&mut pool)?;
            let first = Arena::first_segment(Ref::from_offset(self.start_of(number)));
            let count = u32::try_from(self.page_bytes / SEGMENT_BYTES).expect("small pages");
            pool.segments.extend((first..first + count).rev());
            pool.index_pages += 1;
        }
        pool.segments_used += 1;
        pool.segments.pop()
    }

    /// Puts a segment back that was not used.
    pub fn put_segment(&self, number: u32) {
        let mut pool = self.pool.lock();
        pool.segments_used -= 1;
        pool.segments.push(number);
    }

    /// True when `take_segment` would succeed.
    pub fn has_segment(&self) -> bool {
        let pool = self.pool.lock();
        !pool.segments.is_empty()
            || !pool.free.is_empty()
            || (pool.fresh as usize) < self.pages.len()
    }

    pub fn census(&self) -> Census {
        let pool = self.pool.lock();
        let unused = self.pages.len() - pool.fresh as usize + pool.free.len();
        Census {
            pages_free: u32::try_from(unused).expect("at most all pages"),
            index_pages: pool.index_pages,
            segments: pool.segments_used,
        }
    }

    /// Bytes that this structure takes beside the pages.
    pub fn bytes(&self) -> usize {
        self.pages.len() * (size_of::<Page>() + size_of::<u32>())
    }
}
