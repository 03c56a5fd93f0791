//! Who stays and who goes when not everything fits.

use super::{NOW, get, pattern, set, store, table};
use crate::base::clock::{Expiry, Now, TICKS_PER_S};
use crate::base::metrics::{Metric, Registry};
use crate::store::{
    ClassFigures, Condition, ItemHead, Participant, Reassigned, Reservation, Sweep, TURNS_PER_ROUND,
};

fn seconds_later(seconds: u64) -> Now {
    Now { ticks: NOW.ticks + seconds * TICKS_PER_S, ..NOW }
}

fn set_with_ttl(one: &mut Participant, key: u64, value: &[u8], ttl_s: u64) {
    let key = key.to_le_bytes();
    let expiry = Expiry::at_tick(NOW.ticks + ttl_s * TICKS_PER_S);
    let hash = one.table().hash(&key);
    let head = ItemHead { key: &key, hash, flags: 0, expiry, value_bytes: value.len(), cas: None };
    let mut reservation = one.reserve(head, NOW).unwrap();
    one.fill(&mut reservation, value, NOW).unwrap();
    assert!(one.commit(reservation, Condition::Always, NOW).is_stored());
}

/// Two rounds of the sweep: what expires while one is under way is found by the next.
fn sweep(one: &mut Participant, sweep: &mut Sweep, now: Now) {
    for _ in 0..2 * TURNS_PER_ROUND + 2 {
        one.sweep(sweep, now);
        one.quiesce();
    }
}

fn has(one: &Participant, key: u64) -> bool {
    get(one, &key.to_le_bytes()).is_some()
}

fn slow(one: &mut Participant, key: &str) -> Reservation {
    let (hash, expiry) = (one.table().hash(key.as_bytes()), Expiry::NEVER);
    let head =
        ItemHead { key: key.as_bytes(), hash, flags: 0, expiry, value_bytes: 3000, cas: None };
    one.reserve_ahead(head, NOW).unwrap()
}

/// What is being built keeps its page, wherever that is, and hurts nobody else.
#[test]
fn values_that_arrive_slowly_survive_everything_around_them() {
    let registry = Registry::default();
    let mut one = table(2 << 20, true).participant(registry.counters("one"));
    let mut uploads = Vec::new();
    for key in 0..2000u64 {
        set(&mut one, &key.to_le_bytes(), &[2; 3000]);
        has(&one, key);
        if key < 1000 && key.is_multiple_of(50) {
            let key = format!("slow {key}");
            uploads.push((key.clone(), slow(&mut one, &key)));
        }
    }
    for key in 0..50u64 {
        set(&mut one, &key.to_le_bytes(), &[3; 200_000]);
    }
    assert_eq!(registry.sum(Metric::StoreNoMemory), 0);
    for (key, mut reservation) in uploads {
        one.fill(&mut reservation, &[1; 3000], NOW).unwrap();
        assert!(one.commit(reservation, Condition::Always, NOW).is_stored());
        assert_eq!(get(&one, key.as_bytes()).unwrap(), [1; 3000]);
    }
    for key in 0..2000u64 {
        set(&mut one, &key.to_le_bytes(), &[2; 3000]);
    }
    one.quiesce();
    assert_eq!(one.table().pages_draining(), 0, "their pages are of use again");
}

/// The pieces of a value lie together, however long it takes until they are there.
#[test]
fn large_values_that_arrive_slowly_leave_room_for_others() {
    let registry = Registry::default();
    let mut one = table(8 << 20, true).participant(registry.counters("one"));
    let value = pattern(1, 400_000);
    let mut uploads: Vec<_> = (0..5u64)
        .map(|key| {
            let (key, expiry) = ((1 << 40 | key).to_le_bytes(), Expiry::NEVER);
            let hash = one.table().hash(&key);
            let head =
                ItemHead { key: &key, hash, flags: 0, expiry, value_bytes: value.len(), cas: None };
            (key, one.reserve_ahead(head, NOW).unwrap())
        })
        .collect();
    let mut fresh = 0u64;
    for piece in value.chunks(4000) {
        for (_, reservation) in &mut uploads {
            one.fill(reservation, piece, NOW).unwrap();
            for _ in 0..35 {
                fresh += 1;
                set(&mut one, &fresh.to_le_bytes(), &[1; 900]);
            }
            one.quiesce();
        }
    }
    let items = registry.sum(Metric::CurrItems);
    assert!(items > 4000, "{items} items beside 2 MB of values that arrive");
    let given_up = uploads.pop().unwrap().1;
    one.abandon(given_up);
    for (key, reservation) in uploads {
        assert!(one.commit(reservation, Condition::Always, NOW).is_stored());
        assert_eq!(get(&one, &key).unwrap(), value);
    }
    for _ in 0..20_000 {
        fresh += 1;
        set(&mut one, &fresh.to_le_bytes(), &[1; 900]);
    }
    one.quiesce();
    assert_eq!(one.table().pages_draining(), 0, "their pages are of use again");
}

/// Pages in which values arrive are not waited for by who needs a page.
#[test]
fn pages_that_are_not_free_after_grace_are_expected_no_longer() {
    let registry = Registry::default();
    let table = table(12 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let mut uploads = Vec::new();
    let churn = |one: &mut Participant, rounds: u64| {
        for key in 0..rounds * 1000 {
            set(one, &key.to_le_bytes(), &[1; 900]);
            one.quiesce();
        }
    };
    for key in 0..30u64 {
        let (key, expiry) = ((1 << 40 | key).to_le_bytes(), Expiry::NEVER);
        let hash = table.hash(&key);
        let head = ItemHead { key: &key, hash, flags: 0, expiry, value_bytes: 200_000, cas: None };
        let mut upload = one.reserve_ahead(head, NOW).unwrap();
        one.fill(&mut upload, &[1; 100_000], NOW).unwrap();
        uploads.push(upload);
        churn(&mut one, 1);
    }
    churn(&mut one, 30);
    one.quiesce();
    let pages = &table.slabs.pages;
    assert!(pages.stuck() > 10 && pages.coming() < 4, "{} {}", pages.stuck(), pages.coming());
    uploads.drain(..).for_each(|upload| one.abandon(upload));
    churn(&mut one, 30);
    one.quiesce();
    assert_eq!((table.slabs.pages.stuck(), one.starved_bytes()), (0, 0));
}

/// Fragments that were taken ahead go with the others.
#[test]
fn a_large_value_that_is_given_up_early_leaves_nothing_behind() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    let key = b"large";
    for round in 0..1000 {
        let (hash, expiry) = (one.table().hash(key), Expiry::NEVER);
        let head = ItemHead { key, hash, flags: 0, expiry, value_bytes: 600_000, cas: None };
        let mut reservation = one.reserve(head, NOW).unwrap();
        one.fill(&mut reservation, &vec![1; round * 100], NOW).unwrap();
        one.abandon(reservation);
    }
    for key in 0..10_000u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 900]);
    }
    one.quiesce();
    assert_eq!(one.table().pages_draining(), 0);
    assert!(registry.sum(Metric::CurrItems) > 3000);
}

#[test]
fn what_was_asked_for_while_new_outlives_a_scan() {
    let registry = Registry::default();
    let mut one = table(8 << 20, true).participant(registry.counters("one"));
    for key in 0..1000u64 {
        set(&mut one, &key.to_le_bytes(), &pattern(key, 700));
        has(&one, key);
    }
    for key in 1 << 32..(1 << 32) + 100_000u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 500]);
        one.quiesce();
    }
    let kept = (0..1000u64).filter(|key| {
        get(&one, &key.to_le_bytes()).is_some_and(|value| value == pattern(*key, 700))
    });
    // A page of them may go, where page after page of the log is wanted.
    let kept = kept.count();
    assert!(kept > 950, "{kept}");
    assert_eq!(registry.sum(Metric::Promoted), 1000);
}

#[test]
fn a_key_that_comes_back_soon_stays() {
    let registry = Registry::default();
    let mut one = table(8 << 20, true).participant(registry.counters("one"));
    // Something to keep, so that the log is small.
    for key in 0..16_000u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 500]);
        has(&one, key);
    }
    let mut fresh = 1u64 << 32;
    let mut scan = |one: &mut Participant| {
        for _ in 0..3000 {
            fresh += 1;
            set(one, &fresh.to_le_bytes(), &[1; 500]);
            one.quiesce();
        }
    };
    let key = 1u64 << 40;
    set(&mut one, &key.to_le_bytes(), &[1; 500]);
    scan(&mut one);
    assert!(!has(&one, key), "it was not asked for");
    let before = registry.sum(Metric::GhostHits);
    set(&mut one, &key.to_le_bytes(), &[1; 500]);
    assert_eq!(registry.sum(Metric::GhostHits), before + 1);
    scan(&mut one);
    assert!(has(&one, key), "it was remembered");
}

/// Items of one size are wanted, then those of another: the pages follow.
#[test]
fn pages_go_where_the_hits_are() {
    let registry = Registry::default();
    let mut one = table(16 << 20, true).participant(registry.counters("one"));
    for key in (0..90_000u64).chain(0..90_000) {
        if !has(&one, key) {
            set(&mut one, &key.to_le_bytes(), &[1; 150]);
            has(&one, key);
        }
        one.quiesce();
    }
    let moved = registry.sum(Metric::SlabsMoved);
    for _ in 0..30 {
        for key in 1 << 32..(1 << 32) + 4000u64 {
            if !has(&one, key) {
                set(&mut one, &key.to_le_bytes(), &[2; 2000]);
            }
            one.quiesce();
        }
    }
    let kept = (1 << 32..(1 << 32) + 4000u64).filter(|key| has(&one, *key)).count();
    assert!(kept > 3600, "{kept} of 4000");
    let moved = registry.sum(Metric::SlabsMoved) - moved;
    assert!(moved > 50, "{moved}");
}

#[test]
fn what_has_expired_is_swept_out_and_its_memory_is_of_use() {
    let registry = Registry::default();
    let mut one = table(8 << 20, true).participant(registry.counters("one"));
    let free = one.table().figures().pages_free;
    // Some die soon, some later, some never; some were moved to their classes before.
    for key in 0..9000u64 {
        let ttl_s = [50, 500, 5000][usize::try_from(key % 3).unwrap()];
        set_with_ttl(&mut one, key, &[1; 500], ttl_s);
        if key < 3000 {
            has(&one, key);
        }
        one.quiesce();
    }
    for key in 1 << 32..(1 << 32) + 9000u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 500]);
        one.quiesce();
    }
    assert!(registry.sum(Metric::Promoted) > 2000);
    let mut state = Sweep::new();
    sweep(&mut one, &mut state, NOW);
    assert_eq!(registry.sum(Metric::CrawlerReclaimed), 0, "nothing has expired");
    for (later_s, modulus) in [(51, 0), (501, 1), (5001, 2)] {
        let items = registry.sum(Metric::CurrItems);
        let now = seconds_later(later_s);
        let of_these = (0..9000u64).filter(|key| key % 3 == modulus && has(&one, *key)).count();
        sweep(&mut one, &mut state, now);
        assert_eq!(registry.sum(Metric::CurrItems) + of_these as u64, items);
    }
    assert!((0..9000u64).all(|key| !has(&one, key)));
    for key in 1 << 32..(1 << 32) + 9000u64 {
        one.delete(&key.to_le_bytes(), one.table().hash(&key.to_le_bytes()), NOW);
    }
    sweep(&mut one, &mut state, NOW);
    assert_eq!(registry.sum(Metric::CurrItems), 0);
    let figures = one.table().figures();
    assert!(figures.pages_free + figures.pages_index + 60 > free, "{figures:?}");
}

/// Who is at it may be about to note an exptime that the sweep has not seen.
#[test]
fn a_page_is_swept_after_all_have_quiesced() {
    let registry = Registry::default();
    let table = table(1 << 20, true);
    let mut one = table.participant(registry.counters("one"));
    let mut two = table.participant(registry.counters("two"));
    set_with_ttl(&mut one, 1, b"v", 1);
    let mut upkeep = Sweep::new();
    two.quiesce();
    sweep(&mut one, &mut upkeep, seconds_later(2));
    assert_eq!(registry.sum(Metric::CurrItems), 1);
    two.quiesce();
    sweep(&mut one, &mut upkeep, seconds_later(2));
    assert_eq!(registry.sum(Metric::CurrItems), 0);
}

#[test]
fn a_flush_is_swept_out_once() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    for key in 0..3000u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 500]);
    }
    one.flush(None, NOW);
    let mut state = Sweep::new();
    sweep(&mut one, &mut state, NOW);
    assert_eq!(registry.sum(Metric::CurrItems), 0);
    assert_eq!(registry.sum(Metric::CrawlerReclaimed), 3000);
    assert!(!one.table().has_flushed_items());
    let checked = registry.sum(Metric::CrawlerItemsChecked);
    for key in 0..3000u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 500]);
    }
    sweep(&mut one, &mut state, NOW);
    assert_eq!(registry.sum(Metric::CrawlerItemsChecked), checked, "pages are skipped again");
}

#[test]
fn a_page_goes_where_it_is_asked_to() {
    let (table, registry) = (table(8 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    // What is asked for while it is new goes to its class.
    for key in 0..40_000u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 300]);
        has(&one, key);
        one.quiesce();
    }
    let item = one.peek(&39_999u64.to_le_bytes(), table.hash(&39_999u64.to_le_bytes()), NOW);
    let from = i32::from(table.class_of(&item.unwrap()));
    let to = from + 20;
    let pages = |number: i32| table.classes()[usize::try_from(number - 1).unwrap()].pages;
    let (before, moved) = (pages(from), registry.sum(Metric::SlabsMoved));
    assert!(before > 2 && pages(to) == 0, "{before} pages, and {}", pages(to));
    let count = i32::from(table.class_count());
    for (from, to, wanted) in [
        (from, from, Reassigned::Same),
        (count + 1, to, Reassigned::NoSuchClass),
        (from, -1, Reassigned::NoSuchClass),
        (from, i32::MIN, Reassigned::NoSuchClass),
        (-1, i32::MIN, Reassigned::NoSuchClass),
        (i32::MAX, from, Reassigned::NoSuchClass),
        (to, from, Reassigned::NoSpare),
        (from, to, Reassigned::Begun),
        (from, to, Reassigned::Busy),
    ] {
        assert_eq!(one.reassign(from, to), wanted, "{from} {to}");
    }
    (0..100).for_each(|_| one.go_on_emptying(NOW));
    assert_eq!((pages(from), registry.sum(Metric::SlabsMoved)), (before - 1, moved + 1));
    for key in 1 << 32..(1 << 32) + 40u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 300]);
        one.quiesce();
    }
    assert_eq!(one.reassign(-1, 0), Reassigned::Begun, "whichever, to the pool");
    (0..100).for_each(|_| one.go_on_emptying(NOW));
    one.quiesce();
    let small = super::table(4 << 20, true).participant(registry.counters("small"));
    assert_eq!(small.reassign(-1, 5), Reassigned::NoSpare, "no class has a page");
    let without = super::table(4 << 20, false);
    let mut one = without.participant(registry.counters("one"));
    (0..5000u64).for_each(|key| set(&mut one, &key.to_le_bytes(), &[1; 300]));
    let class = |each: &ClassFigures| each.pages > 1;
    let from = without.classes().iter().position(class).unwrap() + 1;
    let refused = one.reassign(i32::try_from(from).unwrap(), 9);
    assert_eq!(refused, Reassigned::NoSpare, "nothing may go");
}

/// Who asks for a round does not wait until the next one comes by itself.
#[test]
fn a_round_that_is_asked_for_comes_at_once() {
    let registry = Registry::default();
    let mut one = table(32 << 20, true).participant(registry.counters("one"));
    for key in 0..3000u64 {
        set_with_ttl(&mut one, key, &[1; 500], 1);
    }
    one.quiesce();
    let (table, mut state) = (one.table().clone(), Sweep::new());
    let mut turns = |count| (0..count).for_each(|_| one.sweep(&mut state, seconds_later(2)));
    turns(200);
    assert!(registry.sum(Metric::CurrItems) > 0, "half of a round");
    let before = table.rounds_asked_for();
    assert_eq!(table.rounds_begun(), 1);
    assert!(table.ask_for_round() && !table.ask_for_round());
    assert_eq!((before, table.rounds_asked_for()), ((false, 0), (true, 1)));
    turns(24);
    assert_eq!((table.rounds_asked_for(), registry.sum(Metric::CurrItems)), ((false, 1), 0));
    assert!(table.rounds_begun() >= 2);
    assert!(table.ask_for_round());
}

#[test]
fn where_nothing_is_to_be_swept_what_has_expired_stays_and_what_was_flushed_goes() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    let mut state = Sweep::new();
    one.table().set_sweeps(false);
    set_with_ttl(&mut one, 1, b"v", 1);
    sweep(&mut one, &mut state, seconds_later(2));
    assert_eq!((registry.sum(Metric::CurrItems), one.table().sweeps()), (1, false));
    one.flush(None, NOW);
    sweep(&mut one, &mut state, NOW);
    assert_eq!(registry.sum(Metric::CurrItems), 0);
    set_with_ttl(&mut one, 1, b"v", 1);
    one.table().set_sweeps(true);
    sweep(&mut one, &mut state, seconds_later(2));
    assert_eq!(registry.sum(Metric::CurrItems), 0);
}

/// Pages of large slots have few of them.
#[test]
fn what_the_sweep_looks_at_is_counted() {
    let registry = Registry::default();
    let mut one = table(4 << 20, false).participant(registry.counters("one"));
    for key in 0..30u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 2000]);
    }
    one.flush(None, NOW);
    sweep(&mut one, &mut Sweep::new(), NOW);
    assert_eq!(registry.sum(Metric::CrawlerReclaimed), 30);
    assert_eq!(registry.sum(Metric::CrawlerItemsChecked), 30);
}

/// The sweep asks for nothing. Items that it did not tell of would count for ever, and the past of
/// the classes with them.
#[test]
fn what_is_swept_out_counts_as_gone() {
    let (table, registry) = (table(8 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    let mut sweeper = table.participant(registry.counters("sweep"));
    sweeper.offline();
    for key in 0..5000u64 {
        set_with_ttl(&mut one, key, &[1; 500], 50);
        has(&one, key);
        one.quiesce();
    }
    assert!(table.slabs.items() > 4500, "{}", table.slabs.items());
    one.offline();
    sweeper.online();
    sweep(&mut sweeper, &mut Sweep::new(), seconds_later(51));
    assert_eq!(registry.sum(Metric::CurrItems), 0);
    assert!(table.slabs.items() < 500, "{}", table.slabs.items());
}

/// A touch that brings an exptime forward is seen by the sweep.
#[test]
fn a_touched_item_is_swept_when_it_is_due() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    for key in 0..3000u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 500]);
    }
    let hash = one.table().hash(&7u64.to_le_bytes());
    let soon = Expiry::at_tick(NOW.ticks + TICKS_PER_S);
    assert!(one.touch(&7u64.to_le_bytes(), hash, soon, NOW).is_ok());
    let mut state = Sweep::new();
    sweep(&mut one, &mut state, NOW);
    assert_eq!(registry.sum(Metric::CurrItems), 3000);
    sweep(&mut one, &mut state, seconds_later(1));
    assert_eq!(registry.sum(Metric::CurrItems), 2999);
}

/// Two-MiB pages: pages are emptied in many steps, and large values span few slots.
#[test]
fn large_pages_work_as_small_ones() {
    let registry = Registry::default();
    let mut one = table(4 << 30, true).participant(registry.counters("one"));
    assert_eq!(one.table().figures().page_bytes, 2 << 20);
    let large = pattern(1, 900_000);
    for key in 0..200u64 {
        let stored = store(&mut one, &key.to_le_bytes(), &large, Condition::Always);
        assert!(stored.unwrap().is_stored());
    }
    assert!((0..200u64).all(|key| get(&one, &key.to_le_bytes()).unwrap() == large));
    one.quiesce();
    assert_eq!(registry.sum(Metric::CurrItems), 200);
}

/// Most of the memory is what its keys have left behind: no key has to go for want of room, though
/// nobody asks for any and some are not stored again for long.
#[test]
fn who_only_stores_again_and_again_loses_nothing_where_a_third_would_do() {
    let registry = Registry::default();
    let mut one = table(8 << 20, true).participant(registry.counters("one"));
    let (keys, mut state) = (2500u64, 1u64);
    (0..keys).for_each(|key| set(&mut one, &key.to_le_bytes(), &[1; 1000]));
    for _ in 0..20 * keys {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        set(&mut one, &((state >> 33) % keys).to_le_bytes(), &[2; 1000]);
        one.quiesce();
    }
    assert_eq!(registry.sum(Metric::Evictions), 0);
    assert!((0..keys).all(|key| has(&one, key)));
}

/// A walk goes on only when somebody needs memory, and so must not keep a page that is empty.
#[test]
fn a_page_that_is_being_walked_is_freed_when_nothing_is_left_in_it() {
    let registry = Registry::default();
    let mut one = table(4 << 20, true).participant(registry.counters("one"));
    (0..500u64).for_each(|key| set(&mut one, &key.to_le_bytes(), b"v"));
    let table = one.table();
    table.log.close_open(&table.slabs.pages, true, NOW);
    let found = table.log.walk((&table.arena, &table.slabs.pages), &table.epochs);
    assert!(found.walked && !found.ended && !found.held, "it stops in the middle of a page");
    one.flush(None, NOW);
    sweep(&mut one, &mut Sweep::default(), NOW);
    assert_eq!(registry.sum(Metric::CurrItems), 0);
    assert_eq!(one.table().figures().pages_log, 0);
}

/// Stripe by stripe: rounds may begin and end before the last one is marked.
#[test]
fn a_round_amid_a_flush_does_not_pass_for_one_after_it() {
    let (table, registry) = (table(4 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    for key in 0..3000u64 {
        set(&mut one, &key.to_le_bytes(), &[1; 500]);
    }
    let stripe_of = |key: u64| table.stripe_index(table.hash(&key.to_le_bytes()));
    let last = (0..3000).map(stripe_of).max().unwrap();
    let marked_first = (0..3000u64).min_by_key(|key| stripe_of(*key)).unwrap();
    let mut state = Sweep::new();
    std::thread::scope(|scope| {
        let held = table.stripe_at(last).unwrap().lock();
        scope.spawn(|| table.flush_now());
        while has(&one, marked_first) {
            std::thread::yield_now();
        }
        (0..2).for_each(|_| sweep(&mut one, &mut state, NOW));
        drop(held);
    });
    (0..2).for_each(|_| sweep(&mut one, &mut state, NOW));
    assert_eq!(registry.sum(Metric::CurrItems), 0);
}
