//! loom models of what has no lock: grace periods, readers of the index beside its writer, items
//! that move, and pages of the log.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --lib store::models`

mod moves;
mod pages;

use loom::sync::Arc;
use loom::thread;

use super::arena::{Ref, WatchedCell};
use super::epochs::Epochs;
use super::index::{Bucket, Directory, Entry, Owner, Segment, Split, Tag};
use super::pages::Page;
use crate::base::clock::{Expiry, Now, TICKS_PER_S};
use crate::base::hash::KeyHash;
use crate::base::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const NOW: Now = Now { ticks: 1000 * TICKS_PER_S, epoch_unix_s: 1_700_000_000 };

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

/// Memory with one item, which `slot` leads to while it is 1.
struct World {
    epochs: Epochs,
    slot: AtomicU64,
    item: WatchedCell,
}

impl World {
    fn new(threads: usize) -> Arc<World> {
        let (epochs, slot) = (Epochs::new(threads), AtomicU64::new(1));
        Arc::new(World { epochs, slot, item: WatchedCell::default() })
    }

    fn read(&self) {
        if self.slot.load(Ordering::Acquire) == 1 {
            // loom fails the model if the memory is reused meanwhile.
            self.item.read();
        }
    }

    /// Unlinks the item, and reuses its memory if that may be done by now.
    fn write(&self, cell: usize) {
        self.slot.store(0, Ordering::Release);
        let tag = self.epochs.advance();
        self.epochs.quiesce(cell);
        for _ in 0..2 {
            if tag <= self.epochs.horizon() {
                self.item.write();
                return;
            }
            thread::yield_now();
        }
    }
}

#[test]
fn memory_is_reused_only_after_grace() {
    model(|| {
        let world = World::new(2);
        let (one, two) = (world.epochs.join(), world.epochs.join());
        world.epochs.online(one);
        world.epochs.online(two);
        let reader = Arc::clone(&world);
        let reader = thread::spawn(move || {
            reader.read();
            reader.epochs.quiesce(two);
            reader.read();
            reader.epochs.quiesce(two);
        });
        world.write(one);
        reader.join().unwrap();
    });
}

#[test]
fn who_comes_online_is_seen_or_sees() {
    model(|| {
        let world = World::new(2);
        let one = world.epochs.join();
        world.epochs.online(one);
        let reader = Arc::clone(&world);
        let reader = thread::spawn(move || {
            let two = reader.epochs.join();
            reader.epochs.online(two);
            reader.read();
            reader.epochs.offline(two);
            reader.epochs.online(two);
            reader.read();
            reader.epochs.offline(two);
        });
        world.write(one);
        reader.join().unwrap();
    });
}

/// Of two items in a page one has expired, and the other one comes while the page is swept.
#[test]
fn what_expires_is_noted_while_a_page_is_swept() {
    model(|| {
        let (page, item) = (Arc::new(Page::default()), Arc::new(AtomicU32::new(0)));
        let epochs = Arc::new(Epochs::new(2));
        let (one, two) = (epochs.join(), epochs.join());
        epochs.online(one);
        epochs.online(two);
        page.note_expiry(Expiry::at_tick(1));
        let (writer, theirs, cells) = (Arc::clone(&page), Arc::clone(&item), Arc::clone(&epochs));
        let writer = thread::spawn(move || {
            // Relaxed: as weak as it may be.
            theirs.store(5, Ordering::Relaxed);
            writer.note_expiry(Expiry::at_tick(5));
            cells.offline(two);
        });
        page.forget_expiries();
        let tag = epochs.advance();
        epochs.quiesce(one);
        let is_swept = (0..2).any(|_| {
            thread::yield_now();
            tag <= epochs.horizon()
        });
        if is_swept && item.load(Ordering::Relaxed) != 0 {
            page.note_expiry(Expiry::at_tick(5));
        }
        writer.join().unwrap();
        let later = Now { ticks: 6, ..NOW };
        assert!(!is_swept || page.has_expired(later), "an exptime that nobody noted");
    });
}

/// An index of one stripe that may have three segments, of the smallest kind: one home, one stash.
struct Index {
    depth: AtomicU32,
    numbers: [AtomicU32; 2],
    buckets: [[Bucket; 2]; 3],
    rolls: [AtomicU32; 6],
}

impl Index {
    fn new() -> Arc<Index> {
        let index = Index {
            depth: AtomicU32::new(0),
            numbers: Default::default(),
            buckets: Default::default(),
            rolls: Default::default(),
        };
        index.segment(0).reset(Owner::of_stripe(0));
        index.directory().open(0);
        Arc::new(index)
    }

    fn directory(&self) -> Directory<'_> {
        Directory::new(&self.depth, &self.numbers, (0, 0))
    }

    fn segment(&self, number: u32) -> Segment<'_> {
        Segment::new(number, &self.buckets[number as usize], &self.rolls)
    }

    fn search(&self, key: u64) -> Option<Ref> {
        let segment = |number| self.segment(number);
        self.directory().search(hash(key), segment, |at| (at == Ref::from_bits(key)).then_some(at))
    }

    fn insert(&self, key: u64) {
        let segment = self.segment(self.directory().segment(tag(key)));
        let place = segment.vacancy(hash(key)).unwrap();
        segment.insert(place, hash(key), Entry::new(tag(key), Ref::from_bits(key)));
    }

    fn remove(&self, key: u64) {
        let segment = self.segment(self.directory().segment(tag(key)));
        let is_it = |at: Ref| (at == Ref::from_bits(key)).then_some(());
        let (place, ()) = segment.find(hash(key), is_it).unwrap();
        segment.clear(place);
    }

    fn split(&self, key: u64) {
        let old = self.segment(self.directory().segment(tag(key)));
        let split = self.directory().split(old, self.segment(1));
        assert_eq!(split, Split::Done);
    }

    fn merge(&self) {
        assert!(self.directory().merge(self.segment(0), self.segment(1)));
    }

    fn relocate(&self, key: u64, to: u32) {
        let from = self.segment(self.directory().segment(tag(key)));
        self.directory().relocate(from, self.segment(to));
    }
}

/// The low bit of a key is the first bit of its tag.
fn hash(key: u64) -> KeyHash {
    KeyHash(key << 16)
}

fn tag(key: u64) -> Tag {
    Tag::of(hash(key))
}

#[test]
fn a_key_is_found_while_it_moves() {
    for moving in [1, 2] {
        model(move || {
            let index = Index::new();
            index.insert(moving);
            let reader = Arc::clone(&index);
            let reader = thread::spawn(move || {
                assert_eq!(reader.search(moving), Some(Ref::from_bits(moving)));
            });
            index.split(1);
            reader.join().unwrap();
            assert!(index.search(moving).is_some());
        });
    }
}

#[test]
fn a_key_in_the_stash_is_found_while_others_come_and_go() {
    model(|| {
        let index = Index::new();
        for key in 1..=8 {
            index.insert(key);
        }
        let reader = Arc::clone(&index);
        let reader = thread::spawn(move || {
            assert_eq!(reader.search(8), Some(Ref::from_bits(8)));
            assert_eq!(reader.search(10), None);
        });
        index.insert(9);
        index.remove(1);
        index.remove(9);
        reader.join().unwrap();
    });
}

#[test]
fn a_key_in_the_stash_is_found_while_it_moves() {
    model(|| {
        let index = Index::new();
        for key in (2..=14).step_by(2).chain([1]) {
            index.insert(key);
        }
        let reader = Arc::clone(&index);
        let reader = thread::spawn(move || {
            assert_eq!(reader.search(1), Some(Ref::from_bits(1)));
        });
        index.split(1);
        reader.join().unwrap();
    });
}

#[test]
fn a_key_is_found_while_its_segment_is_merged() {
    for moving in [1, 2] {
        model(move || {
            let index = Index::new();
            index.split(1);
            index.insert(moving);
            let reader = Arc::clone(&index);
            let reader = thread::spawn(move || {
                assert_eq!(reader.search(moving), Some(Ref::from_bits(moving)));
                assert_eq!(reader.search(3), None);
            });
            index.merge();
            reader.join().unwrap();
            assert!(index.search(moving).is_some());
        });
    }
}

/// A segment is moved, and its memory used for another part of the index after grace.
#[test]
fn a_key_is_found_while_its_segment_moves_and_the_old_one_is_reused() {
    model(|| {
        let (index, epochs) = (Index::new(), Arc::new(Epochs::new(2)));
        index.insert(1);
        let (one, two) = (epochs.join(), epochs.join());
        epochs.online(one);
        epochs.online(two);
        let (reader, cell) = (Arc::clone(&index), Arc::clone(&epochs));
        let reader = thread::spawn(move || {
            assert_eq!(reader.search(1), Some(Ref::from_bits(1)));
            cell.quiesce(two);
            assert_eq!(reader.search(1), Some(Ref::from_bits(1)));
            cell.offline(two);
        });
        index.relocate(1, 2);
        let tag = epochs.advance();
        epochs.quiesce(one);
        for _ in 0..2 {
            if tag <= epochs.horizon() {
                index.segment(0).reset(Owner::of_stripe(1));
                break;
            }
            thread::yield_now();
        }
        reader.join().unwrap();
    });
}

/// How a wait ends: what another thread had let go of when it began is free, or left to others,
/// when four graces have passed.
#[test]
fn after_four_graces_all_have_freed_what_they_had_let_go_of() {
    model(|| {
        let epochs = Arc::new(Epochs::new(2));
        // Free, or with the orphans. Relaxed accesses: the graces order them.
        let given = Arc::new(AtomicU32::new(0));
        let (one, two) = (epochs.join(), epochs.join());
        epochs.online(one);
        epochs.online(two);
        let (cells, theirs) = (Arc::clone(&epochs), Arc::clone(&given));
        let other = thread::spawn(move || {
            let tag = cells.advance();
            let mut is_free = false;
            for _ in 0..2 {
                cells.quiesce(two);
                if !is_free && tag <= cells.horizon() {
                    is_free = true;
                    theirs.store(1, Ordering::Relaxed);
                }
            }
            if !is_free {
                theirs.store(1, Ordering::Relaxed);
            }
            cells.offline(two);
        });
        let mut graces = 0;
        let mut grace = epochs.advance();
        epochs.quiesce(one);
        for _ in 0..6 {
            if epochs.horizon() >= grace {
                graces += 1;
                grace = epochs.advance();
                epochs.quiesce(one);
            } else {
                thread::yield_now();
            }
        }
        assert!(graces < 4 || given.load(Ordering::Relaxed) == 1, "it comes after the refusal");
        other.join().unwrap();
    });
}
