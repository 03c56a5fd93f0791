//! What is counted by size class is what is there.

use super::{NOW, get, set, table};
use crate::base::by_size::{OfSize, SizeClass};
use crate::base::clock::{Expiry, TICKS_PER_S};
use crate::base::metrics::{Metric, Registry};
use crate::store::{
    Change, Condition, Cursor, Direction, Item, ItemHead, Outcome, Participant, Sweep,
    TURNS_PER_ROUND, Visitor,
};

/// Gauges by class, as they should be: in the log, in slots, warm, bytes.
#[derive(Debug, Default)]
struct There {
    gauges: Vec<[u64; 4]>,
    classes: Vec<u64>,
}

const GAUGES: [OfSize; 4] = [OfSize::InLog, OfSize::InMain, OfSize::Warm, OfSize::Bytes];

impl Visitor for There {
    fn takes_more(&mut self) -> bool {
        true
    }

    fn visit(&mut self, item: &Item<'_>) {
        let last = self.classes.len() - 1;
        let class = self.classes.partition_point(|bytes| *bytes < item.item_bytes()).min(last);
        let word = item.word0();
        let [log, main, warm, bytes] = &mut self.gauges[class];
        *(if word.is_main() { main } else { log }) += 1;
        *warm += u64::from(word.is_main() && word.heat() > 0);
        *bytes += item.item_bytes();
    }
}

/// That the gauges of each class are what a walk finds. Nothing may be dead.
#[track_caller]
pub fn assert_counted(one: &mut Participant, registry: &Registry) {
    let classes: Vec<_> = one.table().classes().iter().map(|each| each.slot_bytes).collect();
    let gauges = vec![[0; 4]; classes.len()];
    let (mut cursor, mut there) = (Cursor::default(), There { gauges, classes });
    while !one.table().is_at_end(&cursor) {
        one.walk(&mut cursor, NOW, &mut there);
        one.quiesce();
    }
    for (class, wanted) in SizeClass::all().zip(&there.gauges) {
        let figures = registry.of_size(class);
        let counted = GAUGES.map(|what| figures.get(what));
        assert_eq!(counted, *wanted, "{GAUGES:?} of {class:?}");
    }
}

/// So many numbers below a bound, in no order, the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

fn put(one: &mut Participant, key: &[u8], value: &[u8], condition: Condition) -> Option<Outcome> {
    let (hash, expiry) = (one.table().hash(key), Expiry::NEVER);
    let head = ItemHead { key, hash, flags: 0, expiry, value_bytes: value.len(), cas: None };
    one.put(&head, value, condition, NOW)
}

#[test]
fn gauges_are_what_is_there() {
    let (table, registry) = (table(4 << 20, true), Registry::default());
    let mut threads: Vec<_> =
        ["one", "two"].iter().map(|name| table.participant(registry.counters(name))).collect();
    let value = vec![b'7'; 40_000];
    let mut dice = Dice(1);
    for round in 0..120_000u64 {
        let one = &mut threads[usize::from(round % 7 == 0)];
        one.online();
        // Most are small and some are not; some keys are wanted again and again.
        let keys = if dice.below(3) == 0 { 300 } else { 40_000 };
        let key = format!("key-{}", dice.below(keys));
        let longest = [8, 100, 700, 5000, 40_000][usize::try_from(dice.below(5)).unwrap()];
        let value = &value[..usize::try_from(1 + dice.below(longest)).unwrap()];
        let hash = table.hash(key.as_bytes());
        match dice.below(16) {
            0..5 => drop(get(one, key.as_bytes())),
            5..10 => drop(put(one, key.as_bytes(), value, Condition::Always)),
            10 => drop(put(one, key.as_bytes(), value, Condition::Absent)),
            11..14 => drop(super::store(one, key.as_bytes(), value, Condition::Always)),
            14 => drop(one.arithmetic(key.as_bytes(), hash, &Change::by(1, Direction::Up), NOW)),
            _ => drop(one.delete(key.as_bytes(), hash, NOW)),
        }
        one.offline();
    }
    for met in [Metric::Evictions, Metric::Promoted, Metric::MovesToWarm, Metric::IncrHits] {
        assert!(registry.sum(met) > 100, "{met:?}: {}", registry.sum(met));
    }
    assert!(registry.sum(Metric::MovesWithinLru) > 100 && registry.sum(Metric::SlabsMoved) > 0);
    threads[0].online();
    assert_counted(&mut threads[0], &registry);
    let sum = |what| SizeClass::all().map(|class| registry.of_size(class).get(what)).sum::<u64>();
    assert!(sum(OfSize::InMain) > 100 && sum(OfSize::InLog) > 100 && sum(OfSize::Warm) > 10);
    assert_eq!(sum(OfSize::InLog) + sum(OfSize::InMain), registry.sum(Metric::CurrItems));
    assert_eq!(sum(OfSize::Bytes), registry.sum(Metric::Bytes));
    assert_eq!(sum(OfSize::Evicted), registry.sum(Metric::Evictions));
}

#[test]
fn a_command_counts_for_the_size_of_its_item() {
    let (table, registry) = (table(4 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    let classes = table.classes();
    let class_of = |bytes: u64| {
        let class = classes.partition_point(|class| class.slot_bytes < bytes);
        SizeClass::new(u8::try_from(class).unwrap())
    };
    let figure =
        |key_and_value: u64, what| registry.of_size(class_of(16 + key_and_value)).get(what);
    assert!(put(&mut one, b"a", b"1", Condition::Always).is_some());
    assert!(put(&mut one, b"a", &[b'1'; 200], Condition::Always).is_some());
    assert!(put(&mut one, b"a", &[b'2'; 203], Condition::Always).is_some());
    assert!(put(&mut one, b"a", &[b'2'; 500], Condition::Absent).is_some());
    assert_eq!((figure(2, OfSize::Put), figure(2, OfSize::InLog)), (1, 0));
    assert_eq!((figure(201, OfSize::Put), figure(201, OfSize::InLog)), (2, 1));
    assert_eq!(figure(201, OfSize::Bytes), 16 + 204);
    assert_eq!((figure(501, OfSize::CmdSet), figure(501, OfSize::InLog)), (1, 0));
    assert_eq!(registry.sum(Metric::CmdSet), 4);
    assert_eq!((registry.sum(Metric::CurrItems), registry.sum(Metric::TotalItems)), (1, 3));
    let cas = one.peek(b"a", table.hash(b"a"), NOW).unwrap().cas();
    assert!(put(&mut one, b"a", b"3", Condition::Cas(cas + 1)).is_some());
    assert!(put(&mut one, b"a", b"3", Condition::Cas(cas)).is_some());
    assert_eq!((figure(201, OfSize::CasBadval), figure(201, OfSize::CasHits)), (1, 1));
    let hash = table.hash(b"a");
    one.arithmetic(b"a", hash, &Change::by(1, Direction::Down), NOW).unwrap();
    one.count_of(&one.touch(b"a", hash, Expiry::NEVER, NOW).unwrap(), OfSize::TouchHits);
    assert!(one.delete(b"a", hash, NOW) && !one.delete(b"a", hash, NOW));
    for what in [OfSize::DecrHits, OfSize::TouchHits, OfSize::DeleteHits] {
        assert_eq!(figure(2, what), 1, "{what:?}");
    }
    set(&mut one, b"a", b"1");
    one.forget(b"a", hash, NOW);
    assert_eq!((registry.sum(Metric::DeleteHits), registry.sum(Metric::CurrItems)), (1, 0));
}

#[test]
fn what_expires_is_found_in_its_class() {
    let (table, registry) = (table(4 << 20, true), Registry::default());
    let mut one = table.participant(registry.counters("one"));
    let expiry = Expiry::at_tick(NOW.ticks + TICKS_PER_S);
    for number in 0..100u64 {
        let key = number.to_le_bytes();
        let hash = table.hash(&key);
        let head = ItemHead { key: &key, hash, flags: 0, expiry, value_bytes: 2, cas: None };
        assert!(one.put(&head, b"vv", Condition::Always, NOW).is_some());
    }
    let mut sweep = Sweep::new();
    for turn in 1..=3 * u64::from(TURNS_PER_ROUND) {
        let mut now = NOW;
        now.ticks += turn * TICKS_PER_S;
        one.sweep(&mut sweep, now);
    }
    let class = table.classes().iter().position(|class| class.slot_bytes >= 26).unwrap();
    let figures = registry.of_size(SizeClass::new(u8::try_from(class).unwrap()));
    let found = [OfSize::CrawlerReclaimed, OfSize::ExpiredUnfetched, OfSize::CrawlerItemsChecked];
    assert_eq!(found.map(|what| figures.get(what)), [100; 3]);
    assert_eq!(figures.get(OfSize::InLog), 0);
}
