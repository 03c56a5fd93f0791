//! Which segments of the pages that the index has are used: bookkeeping, without their memory.
//!
//! Segments are taken from the page with the lowest number that has one, so that those above
//! empty. A page that is to be given back is left: nothing is taken from it as long as there is any
//! other.

use super::SEGMENT_BYTES;

/// The pages of the index, ascending.
#[derive(Debug)]
pub struct SegmentPool {
    pages: Vec<IndexPage>,
    per_page: u32,
    used: u32,
}

#[derive(Debug)]
struct IndexPage {
    first: u32,
    /// A bit for each segment that is not used.
    free: u128,
    left: bool,
}

/// Segments in use of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub first: u32,
    mask: u128,
}

impl Used {
    pub fn segments(self) -> impl Iterator<Item = u32> {
        (0..128)
            .filter(move |index| self.mask >> index & 1 == 1)
            .map(move |index| self.first + index)
    }
}

impl SegmentPool {
    /// # Panics
    /// If a page has more than 128 segments, or none.
    pub fn new(page_bytes: usize) -> SegmentPool {
        let per_page = u32::try_from(page_bytes / SEGMENT_BYTES).expect("small pages");
        assert!((1..=128).contains(&per_page));
        SegmentPool { pages: Vec::new(), per_page, used: 0 }
    }

    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    pub fn used(&self) -> u32 {
        self.used
    }

    pub fn is_full(&self) -> bool {
        self.used as usize == self.pages.len() * self.per_page as usize
    }

    fn all(&self) -> u128 {
        u128::MAX >> (128 - self.per_page)
    }

    /// A page comes to the index, whose first segment is `first`.
    pub fn add_page(&mut self, first: u32) {
        let at = self.pages.partition_point(|page| page.first < first);
        self.pages.insert(at, IndexPage { first, free: self.all(), left: false });
    }

    /// Takes a segment.
    pub fn take(&mut self) -> Option<u32> {
        let of = |left| move |page: &IndexPage| page.free != 0 && page.left == left;
        let staying = self.pages.iter().position(of(false));
        let at = staying.or_else(|| self.pages.iter().position(of(true)))?;
        let page = &mut self.pages[at];
        page.left = false;
        let index = page.free.trailing_zeros();
        page.free &= page.free - 1;
        self.used += 1;
        Some(page.first + index)
    }

    /// Puts a segment back. Returns the first segment of its page if none of them is used any more:
    /// the page has left the index then.
    ///
    /// # Panics
    /// If the segment is not used.
    #[must_use]
    pub fn put(&mut self, segment: u32) -> Option<u32> {
        let at = self.pages.partition_point(|page| page.first <= segment) - 1;
        let page = &mut self.pages[at];
        let bit = 1 << (segment - page.first);
        assert!(page.free & bit == 0);
        page.free |= bit;
        self.used -= 1;
        (self.pages[at].free == self.all()).then(|| self.pages.remove(at).first)
    }

    /// The used segments from `segment` on, of the first page with any.
    pub fn used_from(&self, segment: u32) -> Option<Used> {
        let at = self.pages.partition_point(|page| page.first + self.per_page <= segment);
        let later = |page: &IndexPage| {
            let used = self.used_of(page);
            let mask = used.mask & u128::MAX << segment.saturating_sub(page.first);
            Used { mask, ..used }
        };
        self.pages[at..].iter().map(later).find(|used| used.mask != 0)
    }

    fn used_of(&self, page: &IndexPage) -> Used {
        Used { first: page.first, mask: self.all() & !page.free }
    }

    /// The used segments of a page that was left, and is still used.
    pub fn used_of_left(&self) -> impl Iterator<Item = Used> {
        self.pages.iter().filter(|page| page.left).map(|page| self.used_of(page))
    }

    /// Leaves the page with the fewest used segments, if the others have room for them and a little
    /// more, so that the next splits need no page. False when there is no such page.
    pub fn leave_page(&mut self) -> bool {
        let staying = || self.pages.iter().enumerate().filter(|(_, page)| !page.left);
        let free: u32 = staying().map(|(_, page)| page.free.count_ones()).sum();
        let in_use: u32 = staying().map(|(_, page)| self.per_page - page.free.count_ones()).sum();
        // Of those with equally few, the last.
        let emptiest = staying().max_by_key(|(at, page)| (page.free.count_ones(), *at));
        let Some((at, page)) = emptiest else { return false };
        if free < self.per_page + in_use / 32 || page.free == 0 {
            return false;
        }
        self.pages[at].left = true;
        true
    }

    /// The segments that are used and on pages that were left have room elsewhere.
    pub fn has_room_elsewhere(&self) -> bool {
        self.pages.iter().any(|page| !page.left && page.free != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> SegmentPool {
        let mut pool = SegmentPool::new(4 * SEGMENT_BYTES);
        [40, 8, 24].into_iter().for_each(|first| pool.add_page(first));
        pool
    }

    #[test]
    fn the_lowest_is_taken_and_an_unused_page_leaves() {
        let mut pool = pool();
        let taken: Vec<u32> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(taken, [8, 9, 10, 11, 24, 25, 26, 27, 40, 41, 42, 43]);
        assert!(pool.is_full());
        for segment in [24, 25, 27] {
            assert_eq!(pool.put(segment), None);
        }
        assert_eq!(pool.used_from(9).unwrap().segments().collect::<Vec<_>>(), [9, 10, 11]);
        assert_eq!(pool.used_from(12).unwrap().segments().collect::<Vec<_>>(), [26]);
        assert_eq!(pool.used_from(44), None);
        assert_eq!(pool.put(26), Some(24));
        assert_eq!((pool.pages(), pool.used()), (2, 8));
        assert_eq!(pool.used_from(12).unwrap().first, 40);
    }

    #[test]
    fn the_emptiest_page_is_left_when_the_others_have_room() {
        let mut pool = pool();
        assert_eq!((0..10).filter_map(|_| pool.take()).count(), 10);
        assert!(!pool.leave_page(), "two free are too few");
        for segment in [8, 25] {
            assert_eq!(pool.put(segment), None);
        }
        assert!(pool.leave_page());
        assert!(!pool.leave_page(), "the others have room for two, not for three more");
        let left: Vec<u32> = pool.used_of_left().flat_map(Used::segments).collect();
        assert_eq!(left, [40, 41]);
        assert_eq!((pool.take(), pool.take()), (Some(8), Some(25)));
        assert!(!pool.has_room_elsewhere());
        assert_eq!(pool.take(), Some(42), "better than another page");
        assert_eq!(pool.used_of_left().count(), 0);
    }
}
