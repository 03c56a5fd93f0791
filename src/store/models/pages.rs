//! Pages of the log: who takes slots in them, who walks them, and when they may be used again.

use loom::sync::Arc;
use loom::thread;

use super::{NOW, model};
use crate::base::clock::Expiry;
use crate::base::hash::KeyHash;
use crate::base::sync::Mutex;
use crate::store::arena::{
    Arena, GRANULE_BYTES, Home, ItemHead, Marks, Reclaimable, Ref, Reservation, Shape, Stamp,
};
use crate::store::epochs::Epochs;
use crate::store::index::SEGMENT_BYTES;
use crate::store::log::{Found, Log};
use crate::store::pages::Pages;

const PAGE_BYTES: usize = SEGMENT_BYTES;
/// Two items fill a page.
const SLOT_BYTES: usize = PAGE_BYTES / 2;
const VALUE: [u8; SLOT_BYTES - 17] = [0; SLOT_BYTES - 17];
const SHAPE: Shape = Shape { home: Home::Log(0), slot_bytes: SLOT_BYTES, wide: false, slots: 1 };
const _: () = assert!(SLOT_BYTES.is_multiple_of(GRANULE_BYTES));

/// The log of a table whose index is a list of items.
struct Memory {
    arena: Arena,
    pages: Pages,
    log: Log,
    epochs: Epochs,
    index: Mutex<Vec<Ref>>,
}

impl Memory {
    fn new(pages: u32) -> Arc<Memory> {
        Arc::new(Memory {
            arena: Arena::map((pages as usize + 1) * PAGE_BYTES).unwrap(),
            pages: Pages::new(PAGE_BYTES, pages),
            log: Log::new(pages, 1),
            epochs: Epochs::new(1),
            index: Mutex::new(Vec::new()),
        })
    }

    /// As `Participant::reserve` and `fill`; `None` when there is no page.
    fn build(&self) -> Option<Reservation> {
        let (hash, expiry) = (KeyHash(0), Expiry::NEVER);
        let head =
            ItemHead { key: b"k", hash, flags: 0, expiry, value_bytes: VALUE.len(), cas: None };
        let slot = self.log.append((&self.arena, &self.pages), 0, (&head, SHAPE), 0, 0)?;
        let mut item = self.arena.start(slot, &head, SHAPE);
        assert_eq!(self.arena.fill(&mut item, &VALUE), VALUE.len());
        Some(item)
    }

    /// As `Participant::link`.
    fn publish(&self, item: Reservation) -> Ref {
        let mut index = self.index.lock();
        let stamp = Stamp { version: 1, heat: 0, marks: Marks::NONE };
        let at = self.arena.publish(item, stamp);
        index.push(at);
        at
    }

    fn store(&self) -> Ref {
        self.publish(self.build().unwrap())
    }

    /// As `Table::unlink` and, as nobody reads here, `Table::free`.
    fn remove(&self, at: Ref) {
        let mut index = self.index.lock();
        let Some(place) = index.iter().position(|other| *other == at) else { return };
        index.swap_remove(place);
        let (retired, _) = self.arena.retire(at);
        drop(index);
        self.free(retired.after_grace());
    }

    fn abandon(&self, item: Reservation) {
        self.free(self.arena.discard(item));
    }

    fn free(&self, item: Reclaimable) {
        let number = self.pages.number_of(item.head());
        let put = |bytes| self.log.put(&self.pages, number, bytes);
        self.arena.release_logged(item, put, |_, _| unreachable!("it lies in one slot"));
    }

    /// As `Participant::walk_log`.
    fn walk(&self) -> Found {
        let found = self.log.walk((&self.arena, &self.pages), &self.epochs);
        found.items.iter().flatten().for_each(|at| self.remove(*at));
        found
    }

    /// As `Participant::sweep_log`: loom fails the model if a slot is taken meanwhile.
    fn sweep(&self, number: u32) {
        let Some(end) = self.log.hold_closed(&self.pages, number) else { return };
        let (start, mut offset) = (self.pages.start_of(number), 0);
        while offset < end {
            offset += self.arena.logged(Ref::from_offset(start + offset)).1;
        }
        assert_eq!(offset, end);
        self.log.let_go(&self.pages, number);
    }

    fn close(&self) {
        self.log.close_open(&self.pages, true, NOW);
    }

    /// Empties the log, after which each page is in the pool, once.
    fn end(&self) {
        self.close();
        while self.walk().walked {}
        assert!(self.index.lock().is_empty(), "a live item in a page that left the log");
        assert_eq!((self.log.pages(), self.pages.coming(), self.pages.stuck()), (0, 0, 0));
        let mut numbers: Vec<_> = std::iter::from_fn(|| self.pages.take_beside(0)).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=self.pages.count()).collect::<Vec<_>>());
    }
}

/// Runs the model with each of `others` in a thread of its own, beside `main`.
fn beside(
    memory: &Arc<Memory>,
    others: impl IntoIterator<Item = Box<dyn FnOnce(&Memory) + Send>>,
    main: impl FnOnce(&Memory),
) {
    let start = |other: Box<dyn FnOnce(&Memory) + Send>| {
        let memory = Arc::clone(memory);
        thread::spawn(move || other(&memory))
    };
    let threads: Vec<_> = others.into_iter().map(start).collect();
    main(memory);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// The page may be used again as soon as it is walked and its last item is gone, but not while
/// the sweep goes through it.
#[test]
fn a_page_that_is_walked_swept_and_emptied_is_used_again_once() {
    model(|| {
        let memory = Memory::new(1);
        let item = memory.store();
        memory.close();
        let again = move |memory: &Memory| {
            memory.remove(item);
            if let Some(item) = memory.build() {
                memory.publish(item);
                memory.close();
            }
        };
        let sweep = |memory: &Memory| memory.sweep(1);
        beside(&memory, [Box::new(again) as _, Box::new(sweep) as _], |memory| {
            memory.walk();
        });
        memory.end();
    });
}

/// Whoever takes the last item takes the page out of the log, or who sweeps it, or closes it. One
/// in which an item is left stays.
#[test]
fn an_empty_page_leaves_the_log_once() {
    for is_closed in [true, false] {
        model(move || {
            let memory = Memory::new(1);
            let item = memory.store();
            let other = is_closed.then(|| memory.store());
            if is_closed {
                memory.close();
            }
            let empty = move |memory: &Memory| memory.remove(item);
            let close = move |memory: &Memory| match other {
                Some(other) => memory.remove(other),
                None => memory.close(),
            };
            beside(&memory, [Box::new(empty) as _, Box::new(close) as _], |memory| {
                memory.sweep(1);
                if let Some(item) = memory.build() {
                    memory.abandon(item);
                }
            });
            memory.end();
        });
    }
}

/// Two threads empty a page together, step by step.
#[test]
fn walkers_share_a_page() {
    model(|| {
        let memory = Memory::new(2);
        memory.store();
        memory.store();
        memory.close();
        let other = |memory: &Memory| {
            memory.walk();
        };
        beside(&memory, [Box::new(other) as _], |memory| {
            memory.walk();
            memory.store();
        });
        memory.end();
    });
}

/// The page of an item that is kept beyond grace is not waited for, and is of use all the same.
#[test]
fn a_page_that_is_late_comes_once() {
    model(|| {
        let memory = Memory::new(1);
        let item = memory.store();
        memory.close();
        memory.index.lock().clear();
        let (retired, _) = memory.arena.retire(item);
        memory.walk();
        let send = move |memory: &Memory| memory.free(retired.after_grace());
        beside(&memory, [Box::new(send) as _], |memory| {
            for _ in 0..3 {
                memory.pages.expect_no_longer(&memory.epochs);
            }
            assert_eq!(memory.pages.coming(), 0);
            if let Some(item) = memory.build() {
                memory.publish(item);
            }
        });
        memory.end();
    });
}

/// Whether it is published or given up while its page is walked.
#[test]
fn nothing_live_is_left_in_a_page_that_left_the_log() {
    for is_published in [true, false] {
        model(move || {
            let memory = Memory::new(1);
            let item = memory.build().unwrap();
            memory.close();
            let finish = move |memory: &Memory| {
                if is_published {
                    memory.publish(item);
                } else {
                    memory.abandon(item);
                }
            };
            beside(&memory, [Box::new(finish) as _], |memory| {
                let found = memory.walk();
                assert!(!found.ended || memory.index.lock().is_empty());
                memory.sweep(1);
            });
            memory.end();
        });
    }
}

/// The page that a thread fills is closed by itself, or by the sweep, and walked at once.
#[test]
fn an_open_page_is_closed_beside_who_walks_and_sweeps() {
    for closes in [true, false] {
        model(move || {
            let memory = Memory::new(2);
            memory.store();
            let fill = move |memory: &Memory| {
                memory.store();
                memory.store();
            };
            let upkeep = move |memory: &Memory| {
                if closes {
                    memory.close();
                }
                memory.sweep(1);
            };
            beside(&memory, [Box::new(fill) as _, Box::new(upkeep) as _], |memory| {
                memory.walk();
            });
            memory.end();
        });
    }
}
