//! `stats items` and `stats slabs`: one size class after the other, by memcached's names.
//!
//! An item counts for the class of its size. In the log it is what memcached calls hot, in a slot
//! warm while it has heat, and else cold. The number of a class is its place among all, from 1, and
//! stays the same for as long as the server runs.
//!
//! The pages of the log belong to no class, and most items are there until memory is full. So a
//! class shows, beside its own pages, as many as its items in the log would fill if they were alone
//! there, and their chunks. What all pages come to is `total_malloced`.

use super::Shared;
use crate::base::by_size::{OfSize, SizeClass, Sizes};
use crate::base::clock::Now;
use crate::protocol::Rows;
use crate::store::ClassFigures;

/// What there is to say of a class.
struct Class {
    class: SizeClass,
    counted: Sizes,
    figures: ClassFigures,
}

type Source = fn(&Class, &Shared, Now) -> u64;

/// A row whose value is the sum of what is counted.
macro_rules! sum {
    ($($what:ident)+) => {
        |each, _, _| each.counted.sum(&[$(OfSize::$what),+])
    };
}

fn log_age_s(each: &Class, shared: &Shared, now: Now) -> u64 {
    match each.counted.get(OfSize::InLog) {
        0 => 0,
        _ => shared.table.log_age_s(now),
    }
}

/// Chunks for the items in the log: one for each, and more where they are larger than a slot.
fn log_chunks(each: &Class) -> u64 {
    let in_log = each.counted.get(OfSize::InLog);
    let bytes = each.counted.get(OfSize::Bytes) / each.items().max(1) * in_log;
    in_log.max(bytes.div_ceil(each.figures.slot_bytes))
}

/// Pages that these would fill.
fn log_pages(each: &Class) -> u64 {
    log_chunks(each).div_ceil(each.figures.slots_per_page)
}

fn used_chunks(each: &Class) -> u64 {
    let ClassFigures { slots, slots_free, .. } = each.figures;
    slots.saturating_sub(slots_free) + log_chunks(each)
}

fn total_chunks(each: &Class) -> u64 {
    each.figures.slots + log_pages(each) * each.figures.slots_per_page
}

fn cold(each: &Class) -> u64 {
    each.counted.get(OfSize::InMain).saturating_sub(each.counted.get(OfSize::Warm))
}

/// What is under the hand: who was asked for since the hand was there last is warm.
fn class_age_s(each: &Class, shared: &Shared, now: Now) -> u64 {
    shared.table.class_age_s(each.class, now)
}

//= protocol.txt "Item statistics"
const ITEMS: &[(&str, Source)] = &[
    ("number", sum!(InLog InMain)),
    ("number_hot", sum!(InLog)),
    ("number_warm", sum!(Warm)),
    ("number_cold", |each, _, _| cold(each)),
    ("age_hot", log_age_s),
    ("age_warm", |each, shared, now| match each.counted.get(OfSize::Warm) {
        0 => 0,
        _ => class_age_s(each, shared, now),
    }),
    ("age", |each, shared, now| match cold(each) {
        0 => log_age_s(each, shared, now),
        _ => class_age_s(each, shared, now),
    }),
    ("mem_requested", sum!(Bytes)),
    ("evicted", sum!(Evicted)),
    ("evicted_nonzero", sum!(EvictedNonzero)),
    ("evicted_time", sum!(EvictedAge)),
    ("outofmemory", sum!(OutOfMemory)),
    ("tailrepairs", |_, _, _| 0),
    ("reclaimed", sum!(Reclaimed)),
    ("expired_unfetched", sum!(ExpiredUnfetched)),
    ("evicted_unfetched", sum!(EvictedUnfetched)),
    ("evicted_active", sum!(EvictedActive)),
    ("crawler_reclaimed", sum!(CrawlerReclaimed)),
    ("crawler_items_checked", sum!(CrawlerItemsChecked)),
    ("lrutail_reflocked", sum!(Pinned)),
    ("moves_to_cold", sum!(Promoted Cooled)),
    ("moves_to_warm", sum!(Warmed)),
    ("moves_within_lru", sum!(CooledALittle Kept)),
    ("direct_reclaims", sum!(DirectReclaims)),
    ("hits_to_hot", sum!(HitsLog)),
    ("hits_to_warm", sum!(HitsWarm)),
    ("hits_to_cold", sum!(HitsCold)),
    ("hits_to_temp", |_, _, _| 0),
];

//= protocol.txt "Slab statistics"
const SLABS: &[(&str, Source)] = &[
    ("chunk_size", |each, _, _| each.figures.slot_bytes),
    ("chunks_per_page", |each, _, _| each.figures.slots_per_page),
    ("total_pages", |each, _, _| each.figures.pages + log_pages(each)),
    ("total_chunks", |each, _, _| total_chunks(each)),
    ("used_chunks", |each, _, _| used_chunks(each)),
    ("free_chunks", |each, _, _| total_chunks(each) - used_chunks(each)),
    ("free_chunks_end", |_, _, _| 0),
    ("get_hits", sum!(HitsLog HitsWarm HitsCold)),
    ("cmd_set", sum!(CmdSet Put)),
    ("delete_hits", sum!(DeleteHits)),
    ("incr_hits", sum!(IncrHits)),
    ("decr_hits", sum!(DecrHits)),
    ("cas_hits", sum!(CasHits)),
    ("cas_badval", sum!(CasBadval)),
    ("touch_hits", sum!(TouchHits)),
];

impl Class {
    fn of(shared: &Shared, class: SizeClass, figures: ClassFigures) -> Class {
        Class { class, counted: shared.registry.of_size(class), figures }
    }

    fn is_empty(&self) -> bool {
        self.figures.pages == 0 && self.counted.is_empty()
    }

    fn items(&self) -> u64 {
        self.counted.sum(&[OfSize::InLog, OfSize::InMain])
    }
}

/// The first class from `place` on of which there is anything to say.
fn next(shared: &Shared, place: usize) -> Option<Class> {
    let classes = SizeClass::all().zip(shared.table.classes()).skip(place);
    classes
        .map(|(class, figures)| Class::of(shared, class, figures))
        .find(|class| !class.is_empty())
}

/// The rows of a class, the first from `place` on of which there are any. Returns its place.
fn rows_of(
    rows: &mut impl Rows,
    (each, prefix): (&Class, &str),
    table: &[(&str, Source)],
    (shared, now): (&Shared, Now),
) -> usize {
    let number = each.class.number() + 1;
    for (name, source) in table {
        rows.number(&format!("{prefix}{number}:{name}"), source(each, shared, now));
    }
    each.class.number()
}

/// The rows of the next class of `stats items`; returns its place. `None` past the last.
pub(super) fn items(
    rows: &mut impl Rows,
    shared: &Shared,
    now: Now,
    place: usize,
) -> Option<usize> {
    let each = next(shared, place)?;
    Some(rows_of(rows, (&each, "items:"), ITEMS, (shared, now)))
}

/// As `items`, of `stats slabs`; two rows about all classes are the last.
pub(super) fn slabs(
    rows: &mut impl Rows,
    shared: &Shared,
    now: Now,
    place: usize,
) -> Option<usize> {
    if let Some(each) = next(shared, place) {
        return Some(rows_of(rows, (&each, ""), SLABS, (shared, now)));
    }
    let classes = shared.table.classes();
    if place > classes.len() {
        return None;
    }
    let all = SizeClass::all().zip(&classes);
    let all = all.map(|(class, figures)| Class::of(shared, class, *figures));
    let active = all.filter(|each| each.figures.pages > 0 || each.items() > 0).count();
    let figures = shared.table.figures();
    rows.number("active_slabs", active as u64);
    rows.number("total_malloced", figures.pages_items() * figures.page_bytes);
    Some(classes.len())
}
