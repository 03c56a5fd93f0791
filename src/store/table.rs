//! The table: what all threads share.
//!
//! Locks, in the order in which they may be taken: the orphans, a class or upkeep, a stripe, a lane
//! of the log, its queue, the stock of loans, the page pool. Two are taken alone: that of the pages
//! that are out of use, and that of the vacant cells of epochs. Callers hold none of their own.
//! Readers take none. Who waits for grace holds none.

use std::cell::Cell;
use std::io;

use super::arena::{
    Arena, HEADER_BYTES, Item, Keep, Keeper, Reclaimable, Ref, VERSION_BITS, Word0, Words,
};
use super::arrivals::Arrivals;
use super::epochs::{Epochs, Padded};
use super::index::{
    Directory, Owner, ROLL_WORDS, SEGMENT_BYTES, Segment, TAG_BITS, Tag, stripe_of,
};
use super::limbo::Limbo;
use super::limit::Limit;
use super::loan::Loans;
use super::log::Log;
use super::pages::Holder;
use super::regain::Search;
use super::send::Pinned;
use super::sizes::SLOTS_PER_PAGE_MIN;
use super::slabs::{Slabs, Standing};
use super::sweep::Orders;
use super::tend::Tending;
use super::{ClassFigures, Figures, Miss, StorePlan};
use crate::base::by_size::SizeClass;
use crate::base::bytes::equal;
use crate::base::clock::{Expiry, Now};
use crate::base::hash::{KeyHash, KeyHasher};
use crate::base::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::base::sync::{Mutex, MutexGuard};
use crate::sys::region::HUGE_PAGE_BYTES;

const PAGE_BYTES_MIN: u64 = 64 << 10;
/// Up to this much memory pages are half as large, so that there are a few hundred of them.
const MEMORY_BYTES_SMALL: u64 = 32 << 20;
const PAGE_BYTES_MAX: u64 = 2 << 20;
/// From this much memory on pages are as large as huge pages.
const MEMORY_BYTES_LARGE: u64 = 4 << 30;
/// One page in so many is kept free, but not fewer and not more than these.
const PAGES_PER_FREE: u32 = 256;
const PAGES_FREE_MIN: u32 = 3;
const PAGES_FREE_MAX: u32 = 32;
/// Fewer pages than this are no table.
const PAGES_MIN: u64 = 16;
/// The empty index takes at most one part in this many of the memory.
const INDEX_SHARE: u64 = 50;

/// What is older than so many stores in its stripe is dead: half of what versions can tell apart.
const VERSION_REACH: u64 = 1 << (VERSION_BITS - 1);

/// One part of the index: who writes to a key locks the stripe of its hash.
#[derive(Debug)]
#[repr(align(128))]
pub(in crate::store) struct Stripe {
    depth: AtomicU32,
    /// Items of this version, or one of the `VERSION_REACH` before it, are dead: somebody flushed
    /// them, or they are so old that one cannot tell. The sweep finds them long before they are
    /// older.
    flushed: AtomicU64,
    writer: Padded<Mutex<Writer>>,
}

/// What the lock of a stripe guards, beside the segments.
#[derive(Debug, Default)]
pub(in crate::store) struct Writer {
    /// The version of the item stored last; items keep its low bits.
    version: Cell<u64>,
}

impl Writer {
    /// The version of the item stored last.
    pub fn version(&self) -> u64 {
        self.version.get()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
impl Writer {
    /// As if so many items had been stored.
    pub fn skip(&self, stores: u64) {
        self.version.set(self.version.get() + stores);
    }
}

impl Keeper for MutexGuard<'_, Writer> {}

/// The items of the process, by key. See `Participant` for what can be done with them.
#[derive(Debug)]
pub struct Table {
    pub(in crate::store) arena: Arena,
    pub(in crate::store) slabs: Slabs,
    pub(in crate::store) log: Log,
    pub(in crate::store) epochs: Epochs,
    pub(in crate::store) limit: Limit,
    pub(in crate::store) loans: Loans,
    pub(in crate::store) evict: bool,
    /// True where values may be stored at once, see `put`.
    pub(in crate::store) at_once: AtomicBool,
    pub(in crate::store) item_bytes_max: usize,
    stripes: Box<[Stripe]>,
    stripe_bits: u32,
    /// The directories of all stripes, each with room for its greatest depth.
    directory: Words,
    /// What is known of each segment that the arena has room for.
    rolls: Words,
    hasher: KeyHasher,
    /// When a flush that was ordered for later is due, or 0.
    pub(in crate::store) flush_due: AtomicU32,
    /// The second of the last flush; 0 before any.
    flushed_s: AtomicU32,
    /// Flushes so far, and those whose victims have all been looked for.
    flushes: AtomicU32,
    flushes_done: AtomicU32,
    pub(in crate::store) orders: Orders,
    pub(in crate::store) search: Search,
    pub(in crate::store) tending: Mutex<Tending>,
    /// What threads that went to sleep had retired.
    pub(in crate::store) orphans: Mutex<Limbo>,
    /// Not 0 when there may be orphans; `memory::orphaned` says which number it is.
    pub(in crate::store) orphaned: AtomicUsize,
    /// How often the last pin of a retired item was taken back.
    pub(in crate::store) unpins: AtomicUsize,
    pub(in crate::store) pinned: Pinned,
    /// How many peers wait until less is pinned.
    pub(in crate::store) spanless: AtomicUsize,
    /// Huge pages of the arena, and the range that may become the next one.
    pub(in crate::store) huge_pages: AtomicUsize,
    pub(in crate::store) huge_next: AtomicUsize,
    /// How often something was refused although others might have been let go of, and until when
    /// that is taken for how things are, in ticks.
    pub(in crate::store) refusals: AtomicU32,
    pub(in crate::store) dearth_until: AtomicU64,
    pub(in crate::store) arrivals: Arrivals,
}

impl Table {
    /// Takes address space for all memory of the plan; it becomes memory as it is used.
    ///
    /// # Errors
    /// What mmap(2) and memfd_create(2) say.
    pub fn open(plan: StorePlan) -> io::Result<Table> {
        let page_bytes = page_bytes(plan.memory_bytes);
        let pages = (plan.memory_bytes / page_bytes).max(PAGES_MIN);
        let stripes = stripes(&plan, pages * page_bytes);
        let segment_bytes = SEGMENT_BYTES as u64;
        // A directory may have eight times as many entries as there can be segments in its stripe.
        let segments = (pages * page_bytes / segment_bytes / stripes).max(1);
        let directory_bits = (segments.next_power_of_two().ilog2() + 3).min(TAG_BITS);
        let rolls = super::arena::to_usize((pages + 1) * page_bytes) / SEGMENT_BYTES * ROLL_WORDS;
        let threads = super::arena::to_usize(u64::from(plan.threads));
        let page_count = u32::try_from(pages).map_err(|_| io::ErrorKind::InvalidInput)?;
        let table = Table {
            arena: Arena::map(super::arena::to_usize((pages + 1) * page_bytes))?,
            slabs: Slabs::new(super::arena::to_usize(page_bytes), page_count, plan.favor),
            log: Log::new(page_count, plan.threads),
            epochs: Epochs::new(threads * 4 + 64),
            limit: Limit::new(page_count),
            loans: Loans::new(pages * page_bytes, plan.loan_bytes, page_bytes, plan.evict),
            evict: plan.evict,
            at_once: AtomicBool::new(plan.evict),
            item_bytes_max: plan.item_bytes_max,
            stripes: (0..stripes).map(|_| Stripe::new()).collect(),
            stripe_bits: stripes.ilog2(),
            directory: Words::map(super::arena::to_usize(stripes << directory_bits))?,
            rolls: Words::map(rolls)?,
            hasher: plan.hasher,
            flush_due: AtomicU32::new(0),
            flushed_s: AtomicU32::new(0),
            flushes: AtomicU32::new(0),
            flushes_done: AtomicU32::new(0),
            orders: Orders::default(),
            search: Search::default(),
            tending: Mutex::new(Tending::default()),
            orphans: Mutex::new(Limbo::default()),
            orphaned: AtomicUsize::new(0),
            unpins: AtomicUsize::new(0),
            pinned: Pinned::new(pages * page_bytes, plan.evict, u64::from(plan.threads)),
            spanless: AtomicUsize::new(0),
            huge_pages: AtomicUsize::new(0),
            huge_next: AtomicUsize::new(0),
            refusals: AtomicU32::new(0),
            arrivals: Arrivals::default(),
            dearth_until: AtomicU64::new(0),
        };
        for stripe in 0..table.stripes.len() {
            let number = table.slabs.pages.take_segment().expect("a small part of the pages");
            let owner = Owner::of_stripe(u16::try_from(stripe).expect("at most 4096"));
            table.segment(number).reset(owner);
            table.directory_of(stripe).open(number);
        }
        Ok(table)
    }

    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        self.hasher.hash(key)
    }

    #[inline]
    pub(in crate::store) fn stripe_index(&self, hash: KeyHash) -> usize {
        stripe_of(hash, self.stripe_bits)
    }

    #[inline]
    pub(in crate::store) fn directory_of(&self, stripe: usize) -> Directory<'_> {
        let segments = self.directory.as_slice();
        Directory::new(&self.stripes[stripe].depth, segments, (stripe, self.stripe_bits))
    }

    #[inline]
    pub(in crate::store) fn directory(&self, hash: KeyHash) -> Directory<'_> {
        self.directory_of(self.stripe_index(hash))
    }

    #[inline]
    pub(in crate::store) fn segment(&self, number: u32) -> Segment<'_> {
        Segment::new(number, self.arena.buckets(number), self.rolls.as_slice())
    }

    /// Locks the stripe of a key.
    #[inline]
    pub(in crate::store) fn lock(&self, hash: KeyHash) -> MutexGuard<'_, Writer> {
        self.stripes[self.stripe_index(hash)].writer.0.lock()
    }

    /// The stripe of that number, if there is one.
    pub(in crate::store) fn stripe_at(&self, number: usize) -> Option<&Stripe> {
        self.stripes.get(number)
    }

    pub(in crate::store) fn lock_stripe(&self, stripe: u16) -> MutexGuard<'_, Writer> {
        self.stripes[usize::from(stripe)].writer.0.lock()
    }

    /// The item of a key, dead or alive.
    #[inline]
    pub(in crate::store) fn find<'p>(
        &'p self,
        key: &[u8],
        hash: KeyHash,
        keep: Keep<'p>,
    ) -> Option<Item<'p>> {
        let segment = |number| self.segment(number);
        self.directory(hash).search(hash, segment, |at| {
            let item = self.arena.item(at, keep);
            equal(item.key(), key).then_some(item)
        })
    }

    /// Why an item that is there is nevertheless a miss, if it is.
    #[inline]
    pub(in crate::store) fn death(&self, item: &Item<'_>, hash: KeyHash, now: Now) -> Option<Miss> {
        self.stripe(hash).death(item, now)
    }

    #[inline]
    pub(in crate::store) fn stripe(&self, hash: KeyHash) -> &Stripe {
        &self.stripes[self.stripe_index(hash)]
    }

    /// The part of the index that a key is in, in its stripe.
    #[inline(always)]
    pub(in crate::store) fn way(&self, hash: KeyHash) -> (&Stripe, Segment<'_>) {
        let stripe = self.stripe_index(hash);
        let number = self.directory_of(stripe).segment(Tag::of(hash));
        (&self.stripes[stripe], self.segment(number))
    }

    /// As `death`, for who goes through items whose keys nobody asked for: `word` is the header.
    pub(in crate::store) fn is_dead(&self, item: &Item<'_>, word: Word0, now: Now) -> bool {
        let is_flushed = || self.death(item, self.hash(item.key()), now).is_some();
        word.expiry().is_due(now) || self.has_flushed_items() && is_flushed()
    }

    #[inline]
    pub(in crate::store) fn prefetch(&self, hash: KeyHash) {
        let segment = self.segment_of(hash);
        self.arena.prefetch_bucket(segment.number(), segment.home(hash));
    }

    /// Remembers a key that is let go of. The caller holds the lock of its stripe.
    pub(in crate::store) fn ghost_add(&self, hash: KeyHash) {
        self.segment_of(hash).ghost_add(hash);
    }

    /// Forgets a key, if it is remembered. The caller holds the lock of its stripe.
    pub(in crate::store) fn ghost_remove(&self, hash: KeyHash) {
        self.segment_of(hash).ghost_remove(hash);
    }

    /// True when the key was let go of lately. Anybody may ask, and is sometimes told wrong.
    #[inline]
    pub(in crate::store) fn ghost_has(&self, hash: KeyHash) -> bool {
        self.segment_of(hash).ghost_has(hash)
    }

    /// Asks for the line that `ghost_has` will look at.
    #[inline]
    pub(in crate::store) fn prefetch_ghost(&self, hash: KeyHash) {
        let segment = self.segment_of(hash);
        if let Some(line) = segment.ghost_line(hash) {
            self.arena.prefetch_bucket(segment.number(), line);
        }
    }

    #[inline(always)]
    pub(in crate::store) fn segment_of(&self, hash: KeyHash) -> Segment<'_> {
        self.way(hash).1
    }

    /// Frees the memory of an item that nobody can see.
    pub(in crate::store) fn free(&self, item: Reclaimable) {
        let (pages, head) = (&self.slabs.pages, item.head());
        let number = pages.number_of(head);
        match pages.page(number).holder() {
            Holder::Class(class) => self.slabs.lock(&self.arena, class).put(item),
            Holder::Log => {
                let further = |at, bytes| self.log.put_fragment(pages, head, (at, bytes));
                self.arena.release_logged(
                    item,
                    |bytes| self.log.put(pages, number, bytes),
                    further,
                );
            }
            Holder::None => unreachable!("an item in a page of nobody"),
        }
    }

    /// Remembers that the item at `at` expires then.
    #[inline]
    pub(in crate::store) fn note_expiry(&self, at: Ref, expiry: Expiry) {
        if expiry != Expiry::NEVER {
            self.slabs.pages.page_of(at).note_expiry(expiry);
        }
    }

    /// As many items as a thread should retire until it quiesces.
    #[inline]
    pub(in crate::store) fn limbo_items_max(&self) -> usize {
        super::limbo::items_max(self.slabs.pages.page_bytes())
    }

    /// Pages that should be free, so that nobody waits for grace.
    pub(in crate::store) fn pages_kept_free(&self) -> u32 {
        (self.limit.pages() / PAGES_PER_FREE).clamp(PAGES_FREE_MIN, PAGES_FREE_MAX)
    }

    /// True when fewer are, and no more are about to be.
    #[inline]
    pub(in crate::store) fn is_short_of_pages(&self) -> bool {
        let (pages, wanted) = (&self.slabs.pages, self.pages_kept_free());
        // What drains may do so for long: it counts for half at most.
        pages.free() + pages.coming().min(wanted / 2) < wanted
    }

    /// Asks for an item that may be the one, and names it. Its bucket should be here by now.
    #[inline]
    pub(in crate::store) fn prefetch_item(&self, hash: KeyHash) -> Option<Ref> {
        self.segment_of(hash).search(hash, |at: Ref| {
            self.arena.prefetch(at);
            Some(at)
        })
    }

    /// The version of the next item of a stripe, whose lock is `writer`.
    #[inline]
    pub(in crate::store) fn next_version(&self, hash: KeyHash, writer: &Writer) -> u64 {
        let version = writer.version.get() + 1;
        writer.version.set(version);
        let flushed = &self.stripe(hash).flushed;
        if version - flushed.load(Ordering::Relaxed) >= VERSION_REACH {
            // Release: as in `flush_now`; who finds the new item finds it alive.
            flushed.store(version - VERSION_REACH / 2, Ordering::Release);
            self.flushes.fetch_add(1, Ordering::Release);
        }
        version % (1 << VERSION_BITS)
    }

    /// Declares everything stored so far dead.
    pub(in crate::store) fn flush_now(&self) {
        self.flushed_s.store(self.slabs.pages.second(), Ordering::Relaxed);
        for stripe in &self.stripes {
            let writer = stripe.writer.0.lock();
            // Release: pairs with the Acquire in `death`.
            stripe.flushed.store(writer.version.get(), Ordering::Release);
        }
        // Last: a round that began before may have passed what was not dead yet.
        // Release: pairs with `flushes`; who knows of the flush finds its victims dead.
        self.flushes.fetch_add(1, Ordering::Release);
    }

    /// The second of the server's clock in which everything was flushed last.
    pub fn flushed_s(&self) -> Option<u64> {
        let second = self.flushed_s.load(Ordering::Relaxed);
        (second != 0).then_some(second.into())
    }

    /// Whether `Participant::put` may store: where nothing is evicted, it never does.
    pub fn set_at_once(&self, at_once: bool) {
        // Relaxed: it is as good a way as the other.
        self.at_once.store(at_once && self.evict, Ordering::Relaxed);
    }

    /// How often everything was flushed.
    pub(in crate::store) fn flushes(&self) -> u32 {
        // Acquire: pairs with `flush_now`.
        self.flushes.load(Ordering::Acquire)
    }

    /// What so many flushes have killed has been looked for in all pages.
    pub(in crate::store) fn forget_flushes(&self, flushes: u32) {
        self.flushes_done.store(flushes, Ordering::Relaxed);
    }

    /// True when there may be items that a flush has killed.
    pub(in crate::store) fn has_flushed_items(&self) -> bool {
        self.flushes() != self.flushes_done.load(Ordering::Relaxed)
    }

    /// The flush that was ordered for later, if it is due.
    #[inline]
    pub(in crate::store) fn due_flush(&self, now: Now) -> Option<Expiry> {
        // Relaxed: a hint; who acts on it takes it by compare-exchange.
        let due = Expiry::from_bits(self.flush_due.load(Ordering::Relaxed));
        due.is_due(now).then_some(due)
    }

    /// Slot size and number of pages of every class that has pages.
    pub fn pages_by_class(&self) -> impl Iterator<Item = (u64, u64)> {
        let with_pages = self.slabs.standings().filter(|standing| standing.pages > 0);
        with_pages.map(|standing| {
            let slot_bytes = self.slabs.sizes().slot_bytes(standing.class);
            (slot_bytes as u64, u64::from(standing.pages))
        })
    }

    pub fn figures(&self) -> Figures {
        let census = self.slabs.pages.census();
        let page_bytes = self.slabs.pages.page_bytes() as u64;
        let orphans = self.orphans.lock().bytes();
        Figures {
            limit_bytes: self.limit_bytes(),
            page_bytes,
            pages_total: u64::from(self.slabs.pages.count()),
            pages_free: u64::from(census.pages_free),
            pages_index: u64::from(census.index_pages),
            pages_log: u64::from(self.log.pages()),
            index_bytes: u64::from(census.segments) * SEGMENT_BYTES as u64,
            segments: u64::from(census.segments),
            stripes: self.stripes.len() as u64,
            classes: self.slabs.sizes().classes() as u64,
            limbo_bytes: self.epochs.limbo_bytes() + orphans,
            pinned_bytes: self.pinned_bytes(),
            outside_bytes: self.outside_bytes(u64::from(census.segments)),
            pages_lent: u64::from(self.loans.pages()),
            pages_debited: u64::from(self.loans.debited() + self.limit.withheld()),
            huge_bytes: (self.huge_pages.load(Ordering::Relaxed) * HUGE_PAGE_BYTES) as u64,
        }
    }

    /// How long ago somebody asked for an item, or stored it, in seconds and at a guess: an item
    /// does not know, but its page knows when it was begun, and when it was looked through for what
    /// is not wanted.
    pub fn idle_s(&self, item: &Item<'_>, now: Now) -> u64 {
        let seen_s = self.slabs.pages.page_of(item.at()).seen_s();
        now.seconds().saturating_sub(u64::from(seen_s))
    }

    /// The number of the size class for an item of this size, from 1 on: the one with the smallest
    /// slots that hold it, or the largest of all. Those of the log have one, too.
    pub fn class_of(&self, item: &Item<'_>) -> u8 {
        let bytes = super::arena::to_usize(item.item_bytes());
        self.slabs.sizes().counted_as(bytes).to_u8() + 1
    }

    /// The number of the size class for an item with so many bytes of key and value.
    pub fn class_for(&self, bytes: usize) -> u8 {
        self.slabs.sizes().counted_as(bytes.saturating_add(HEADER_BYTES)).to_u8() + 1
    }

    /// How many size classes there are.
    pub fn class_count(&self) -> u8 {
        u8::try_from(self.slabs.sizes().classes()).expect("at most 128 classes")
    }

    /// All size classes, from the smallest slots to the largest.
    pub fn classes(&self) -> Vec<ClassFigures> {
        let sizes = self.slabs.sizes();
        let figures = |each: Standing| ClassFigures {
            slot_bytes: sizes.slot_bytes(each.class) as u64,
            pages: u64::from(each.pages),
            slots: u64::from(each.pages) * u64::from(sizes.slots_per_page(each.class)),
            slots_per_page: u64::from(sizes.slots_per_page(each.class)),
            slots_free: each.free,
        };
        self.slabs.standings().map(figures).collect()
    }

    /// How long ago the hand of a class was last where it goes next: in about that time, nobody
    /// has asked for what is cold there. 0 where there is nothing.
    pub fn class_age_s(&self, class: SizeClass, now: Now) -> u64 {
        let seen_s = self.slabs.lock(&self.arena, class.to_u8()).seen_s();
        seen_s.map_or(0, |seen_s| now.seconds().saturating_sub(seen_s.into()))
    }

    /// How long ago the last item came to the log's oldest page. 0 where there is none.
    pub fn log_age_s(&self, now: Now) -> u64 {
        let seen_s = self.log.seen_s(&self.slabs.pages);
        seen_s.map_or(0, |seen_s| now.seconds().saturating_sub(seen_s.into()))
    }

    /// Pages that are on their way from a class to the pool.
    #[cfg(test)]
    #[cfg(not(loom))]
    pub(in crate::store) fn pages_draining(&self) -> u32 {
        let census = self.slabs.pages.census();
        let of_class = |each: Standing| each.pages + u32::from(each.is_departing);
        let in_classes: u32 = self.slabs.standings().map(of_class).sum();
        let loans = self.loans.pages() + self.loans.debited() + self.limit.withheld();
        let others = census.pages_free + census.index_pages + self.log.pages() + loans;
        self.slabs.pages.count() - others - in_classes
    }

    /// Slots that hold something, of all classes.
    #[cfg(test)]
    #[cfg(not(loom))]
    pub(in crate::store) fn slots_used(&self) -> u64 {
        let per_page = |class| u64::from(self.slabs.sizes().slots_per_page(class));
        let used = |each: Standing| u64::from(each.pages) * per_page(each.class) - each.free;
        self.slabs.standings().map(used).sum()
    }

    /// Bytes beside the pages: stripes, page headers, epochs, and what the directories use.
    fn outside_bytes(&self, segments: u64) -> u64 {
        let stripes = self.stripes.len() * size_of::<Stripe>();
        let fixed = stripes + self.slabs.bytes() + self.epochs.bytes() + self.rolls.bytes();
        fixed as u64 + 2 * segments * size_of::<u32>() as u64
    }
}

impl Stripe {
    pub(in crate::store) fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.0.lock()
    }

    /// Why an item of this stripe is a miss, if it is.
    #[inline]
    pub(in crate::store) fn death(&self, item: &Item<'_>, now: Now) -> Option<Miss> {
        // Acquire: who was told of a flush finds nothing older.
        let flushed = self.flushed.load(Ordering::Acquire);
        if flushed.wrapping_sub(item.version()) % (1 << VERSION_BITS) < VERSION_REACH {
            return Some(Miss::Flushed);
        }
        item.expiry().is_due(now).then_some(Miss::Expired)
    }

    fn new() -> Stripe {
        Stripe {
            depth: AtomicU32::new(0),
            flushed: AtomicU64::new(0),
            writer: Padded(Mutex::new(Writer::default())),
        }
    }
}

/// Bytes of the largest slot in a table of so much memory. A larger item is kept in pieces.
pub fn slot_bytes_max(memory_bytes: u64) -> u64 {
    page_bytes(memory_bytes) / SLOTS_PER_PAGE_MIN
}

fn page_bytes(memory_bytes: u64) -> u64 {
    if memory_bytes >= MEMORY_BYTES_LARGE {
        return PAGE_BYTES_MAX;
    }
    if memory_bytes < MEMORY_BYTES_SMALL {
        return PAGE_BYTES_MIN / 2;
    }
    (memory_bytes / 2048).next_power_of_two().clamp(PAGE_BYTES_MIN, PAGE_BYTES_MAX)
}

/// Enough stripes that threads seldom meet, but no more than the memory can bear.
fn stripes(plan: &StorePlan, memory_bytes: u64) -> u64 {
    let wanted = (u64::from(plan.threads) * 4).next_power_of_two().clamp(64, 4096);
    let affordable = (memory_bytes / INDEX_SHARE / SEGMENT_BYTES as u64).max(1);
    wanted.min(1 << affordable.ilog2())
}
