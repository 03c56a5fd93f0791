//! An item that is copied from the log to a size class, beside those who read, send, touch, mark,
//! replace and delete it.

use loom::sync::Arc;
use loom::thread;

use super::model;
use crate::base::clock::Expiry;
use crate::base::hash::KeyHash;
use crate::base::sync::Mutex;
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::store::arena::{
    Arena, GRANULE_BYTES, Home, Inherits, Item, ItemHead, Keep, Keeper, Marks, Ref, Reservation,
    Retired, Shape, Stamp,
};
use crate::store::epochs::Epochs;
use crate::store::table::Writer;

const SLOT_BYTES: usize = 32;
const LOGGED: Shape = Shape { home: Home::Log(0), slot_bytes: SLOT_BYTES, wide: false, slots: 1 };
const STAMP: Stamp = Stamp { version: 1, heat: 0, marks: Marks::NONE };
/// The cas that a peer chose, where one did.
const CHOSEN: u64 = 77;
const EXPTIME: Inherits = Inherits { exptime: true, ..Inherits::NOTHING };
const IN_CLASS: Shape = Shape { home: Home::Class(0), ..LOGGED };

/// A table with one key.
struct World {
    arena: Arena,
    epochs: Epochs,
    /// The ref of the item of the key, or 0.
    index: AtomicU64,
    /// Whether a peer chose its cas.
    noted: bool,
    stripe: Mutex<Writer>,
}

/// A thread that is online.
struct Section(usize);

impl Keeper for Section {}

/// The slot of the item in the log, and those of its copy and of its successor.
fn slot(number: usize) -> Ref {
    Ref::from_offset(number * GRANULE_BYTES)
}

fn head(expiry: Expiry, noted: bool) -> ItemHead<'static> {
    let cas = noted.then_some(CHOSEN);
    ItemHead { key: b"k", hash: KeyHash(0), flags: 0, expiry, value_bytes: 5, cas }
}

fn time(ticks: u64) -> Expiry {
    Expiry::at_tick(ticks)
}

impl World {
    fn new() -> Arc<World> {
        World::with_cas(false)
    }

    fn with_cas(noted: bool) -> Arc<World> {
        let world = World {
            noted,
            arena: Arena::map(4 * GRANULE_BYTES).unwrap(),
            epochs: Epochs::new(3),
            index: AtomicU64::new(0),
            stripe: Mutex::default(),
        };
        let item = world.build_logged(b"value");
        let at = world.arena.publish(item, STAMP);
        world.index.store(at.bits(), Ordering::Relaxed);
        Arc::new(world)
    }

    fn online(&self) -> Section {
        let section = Section(self.epochs.join());
        self.epochs.online(section.0);
        section
    }

    fn build_logged(&self, value: &[u8]) -> Reservation {
        let head = head(time(1), self.noted);
        let slot = self.arena.claim_logged(slot(1), &head, LOGGED);
        let mut item = self.arena.start(slot, &head, LOGGED);
        self.arena.fill(&mut item, value);
        item
    }

    fn build(&self, number: usize, expiry: Expiry, value: &[u8]) -> Reservation {
        let slot = self.arena.claim_first(slot(number));
        let mut item = self.arena.start(slot, &head(expiry, self.noted), IN_CLASS);
        self.arena.fill(&mut item, value);
        item
    }

    fn linked(&self) -> Option<Ref> {
        let bits = self.index.load(Ordering::Acquire);
        (bits != 0).then(|| Ref::from_bits(bits))
    }

    fn link(&self, at: Ref) {
        self.index.store(at.bits(), Ordering::Release);
    }

    fn find<'w>(&'w self, section: &'w Section) -> Option<Item<'w>> {
        let item = self.arena.item(self.linked()?, Keep::by(section));
        assert_eq!(item.key(), b"k");
        Some(item)
    }

    fn read(&self, section: &Section) -> bool {
        let Some(item) = self.find(section) else { return false };
        for _ in 0..2 {
            assert!([&b"value"[..], b"other"].contains(&item.value().unwrap()));
        }
        true
    }

    /// As `Participant::touch`.
    fn touch(&self, section: &Section, expiry: Expiry) -> bool {
        while let Some(item) = self.find(section) {
            if item.set_expiry(expiry).is_some() {
                return true;
            }
            drop(self.stripe.lock());
        }
        false
    }

    /// As `Participant::move_to`.
    fn promote(&self, section: &Section) -> Option<Retired> {
        let item = self.find(section)?;
        let copy = self.build(2, item.expiry(), item.value().unwrap());
        let _stripe = self.stripe.lock();
        if self.linked() != Some(item.at()) {
            self.arena.release(self.arena.discard(copy), |_| {});
            return None;
        }
        Some(self.arena.succeed(copy, 0, &item, |at| self.link(at)).1)
    }

    /// As `Participant::link`.
    fn replace(&self, inherits: Inherits) -> Option<Retired> {
        let copy = self.build(3, time(9), b"other");
        let stripe = self.stripe.lock();
        let Some(old) = self.linked() else {
            self.link(self.arena.publish(copy, STAMP));
            return None;
        };
        Some(self.supersede(copy, inherits, &self.arena.item(old, Keep::by(&stripe))))
    }

    fn supersede(&self, copy: Reservation, inherits: Inherits, old: &Item<'_>) -> Retired {
        self.arena.inherit((copy, STAMP), old, inherits, |at| self.link(at)).1
    }

    /// As `Participant::mark_in_place`: gives the item of version 1 version 2.
    fn mark(&self) {
        let stripe = self.stripe.lock();
        let at = self.linked().unwrap();
        let cas = if self.noted { CHOSEN + 1 } else { 2 };
        self.arena.item(at, Keep::by(&stripe)).mark_stale(2, cas, Some(time(5)));
    }

    /// True for who is the first to be told to make a newer value.
    fn win(&self, section: &Section) -> bool {
        loop {
            if let Some(won) = self.find(section).unwrap().win() {
                return won;
            }
            drop(self.stripe.lock());
        }
    }

    /// As `Participant::delete`.
    fn delete(&self) -> Option<Retired> {
        let _stripe = self.stripe.lock();
        let old = self.linked()?;
        self.index.store(0, Ordering::Release);
        Some(self.arena.retire(old).0)
    }

    /// Uses the memory of an item again, if that may be done by now.
    fn reuse(&self, section: &Section, retired: Retired) {
        let tag = self.epochs.advance();
        self.epochs.quiesce(section.0);
        for _ in 0..2 {
            if tag <= self.epochs.horizon() && self.arena.is_unpinned(&retired) {
                let item = retired.after_grace();
                assert!(item.head() == slot(1));
                let further = |_, _| unreachable!("it lies in one slot");
                self.arena.release_logged(item, |_| {}, further);
                let _ = self.build_logged(b"reuse");
                return;
            }
            thread::yield_now();
        }
    }
}

#[test]
fn who_reads_an_item_that_moves_sees_all_of_it() {
    model(|| {
        let world = World::new();
        let (one, two) = (world.online(), world.online());
        let reader = Arc::clone(&world);
        let reader = thread::spawn(move || {
            assert!(reader.read(&two));
            reader.epochs.quiesce(two.0);
            assert!(reader.read(&two));
            reader.epochs.offline(two.0);
        });
        let retired = world.promote(&one).unwrap();
        world.reuse(&one, retired);
        reader.join().unwrap();
    });
}

/// What is sent from a pinned item is read after the sender has quiesced.
#[test]
fn a_pinned_item_that_moves_stays_as_it_was() {
    model(|| {
        let world = World::new();
        let (one, two) = (world.online(), world.online());
        let sender = Arc::clone(&world);
        let sender = thread::spawn(move || {
            let (pin, _) = sender.arena.pin(&sender.find(&two).unwrap()).unwrap();
            sender.epochs.offline(two.0);
            assert_eq!(sender.arena.pinned(&pin, 0), b"value");
            sender.arena.unpin(pin);
        });
        let retired = world.promote(&one).unwrap();
        world.reuse(&one, retired);
        sender.join().unwrap();
    });
}

/// A span has a pin of its own, and is read after its sender has quiesced, too.
#[test]
fn a_spanned_item_that_moves_stays_as_it_was() {
    model(|| {
        let world = World::new();
        let (one, two) = (world.online(), world.online());
        let sender = Arc::clone(&world);
        let sender = thread::spawn(move || {
            let (span, _) = sender.arena.span_all(&sender.find(&two).unwrap()).unwrap();
            sender.epochs.offline(two.0);
            assert_eq!(span.bytes(), b"value");
            sender.arena.give_back(span);
        });
        let retired = world.promote(&one).unwrap();
        world.reuse(&one, retired);
        sender.join().unwrap();
    });
}

/// Of one who touches twice, the second time counts, whether it is another than before or not.
#[test]
fn no_touch_is_lost_when_an_item_gets_a_successor() {
    for (is_copy, last) in [(true, 1), (true, 7), (false, 7)] {
        model(move || {
            let world = World::new();
            let (one, two) = (world.online(), world.online());
            let toucher = Arc::clone(&world);
            let toucher = thread::spawn(move || {
                assert!(toucher.touch(&two, time(5)));
                assert!(toucher.touch(&two, time(last)));
                two
            });
            let _ = if is_copy { world.promote(&one) } else { world.replace(EXPTIME) };
            let two = toucher.join().unwrap();
            assert_eq!(world.find(&two).unwrap().expiry(), time(last));
        });
    }
}

#[test]
fn an_item_that_is_replaced_while_it_moves_stays_replaced() {
    model(|| {
        let world = World::new();
        let (one, two, three) = (world.online(), world.online(), world.online());
        let (writer, reader) = (Arc::clone(&world), Arc::clone(&world));
        let writer = thread::spawn(move || {
            let retired = writer.replace(Inherits::NOTHING);
            writer.epochs.offline(two.0);
            retired
        });
        let reader = thread::spawn(move || {
            assert!(reader.read(&three));
            reader.epochs.offline(three.0);
        });
        let retired = world.promote(&one);
        assert!(writer.join().unwrap().is_some(), "it had a predecessor");
        reader.join().unwrap();
        assert_eq!(world.find(&one).unwrap().value(), Some(&b"other"[..]));
        if let Some(retired) = retired {
            world.reuse(&one, retired);
        }
    });
}

#[test]
fn an_item_that_is_deleted_while_it_moves_stays_deleted() {
    model(|| {
        let world = World::new();
        let (one, two) = (world.online(), world.online());
        let writer = Arc::clone(&world);
        let writer = thread::spawn(move || {
            assert!(writer.delete().is_some());
            writer.epochs.offline(two.0);
        });
        let _ = world.promote(&one);
        writer.join().unwrap();
        assert!(!world.read(&one));
    });
}

#[test]
fn a_mark_is_not_lost_when_an_item_moves() {
    for noted in [false, true] {
        model(move || {
            let world = World::with_cas(noted);
            let (one, two) = (world.online(), world.online());
            let marker = Arc::clone(&world);
            let marker = thread::spawn(move || {
                marker.mark();
                two
            });
            let _ = world.promote(&one);
            let two = marker.join().unwrap();
            let item = world.find(&two).unwrap();
            assert_eq!(item.marks(), Marks::STALE);
            assert_eq!((item.version(), item.expiry()), (2, time(5)));
            assert_eq!(item.cas(), if noted { CHOSEN + 1 } else { 2 });
        });
    }
}

/// Who is told the cas of a stale value is told that it is stale.
#[test]
fn a_newer_cas_comes_with_its_mark() {
    for noted in [false, true] {
        model(move || {
            let world = World::with_cas(noted);
            let two = world.online();
            let marker = Arc::clone(&world);
            let marker = thread::spawn(move || marker.mark());
            let (item, cas) = world.find(&two).unwrap().settled();
            let old = if noted { CHOSEN } else { 1 };
            assert!(cas == old || (cas == old + 1 && item.marks().is_stale()));
            marker.join().unwrap();
        });
    }
}

#[test]
fn one_wins_even_if_the_item_moves() {
    model(|| {
        let world = World::new();
        let (one, two, three) = (world.online(), world.online(), world.online());
        let other = Arc::clone(&world);
        let other = thread::spawn(move || other.win(&two));
        let mover = Arc::clone(&world);
        let mover = thread::spawn(move || mover.promote(&three).is_some());
        let won = world.win(&one);
        assert!(won != other.join().unwrap());
        assert!(mover.join().unwrap());
        assert!(world.find(&one).unwrap().marks().is_won());
    });
}
