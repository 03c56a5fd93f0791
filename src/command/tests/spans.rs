//! Large values while as much is being sent from where it lies as may be: they are copied, or wait,
//! and what is shown again is answered as if it had not been looked at before.

use std::sync::Arc;

use crate::base::clock::{Now, TICKS_PER_S};
use crate::base::hash::KeyHasher;
use crate::base::metrics::{Metric, Registry};
use crate::base::output::{Memory, Output, Spanning};
use crate::base::protocol::Protocol;
use crate::base::sync::Arc as SyncArc;
use crate::command::{Budget, Cost, Executor, Facts, Progress, Session, Shared, Verdict};
use crate::store::{Favor, Participant, Pin, Span, StorePlan, Table};

const NOW: Now = Now { ticks: 100 * TICKS_PER_S, epoch_unix_s: 1_700_000_000 };

/// An output that takes spans, and reads them at once.
struct Reader {
    memory: Memory,
    /// What it took, to be given back.
    spans: Vec<Span>,
    takes_any: bool,
    room: usize,
}

impl Output for Reader {
    fn write(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8]) -> usize) {
        self.memory.write(bytes, fill);
    }

    fn is_full(&self) -> bool {
        false
    }
}

impl Spanning<Span> for Reader {
    fn takes_spans(&self) -> bool {
        true
    }

    fn takes_any_span(&self) -> bool {
        self.takes_any
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        bytes <= self.room
    }

    fn span(&mut self, span: Span) {
        self.memory.put(span.bytes());
        self.spans.push(span);
    }
}

/// One connection, and somebody else who can pin as much as may be.
struct World {
    executor: Executor,
    session: Session,
    output: Reader,
    hog: Participant,
    pins: Vec<Pin>,
    registry: SyncArc<Registry>,
}

impl World {
    /// Of 64 MiB, so that values of up to 8 KiB lie in one piece.
    fn new() -> World {
        let plan = StorePlan {
            favor: Favor::Objects,
            memory_bytes: 64 << 20,
            item_bytes_max: 1 << 20,
            evict: true,
            threads: 2,
            hasher: KeyHasher::with_seed(1),
            loan_bytes: None,
        };
        let facts = Facts::of_a_test();
        let registry = SyncArc::new(Registry::default());
        let table = Arc::new(Table::open(plan).unwrap());
        let counters = registry.counters("one");
        let participant = table.participant(SyncArc::clone(&counters));
        let hog = table.participant(registry.counters("hog"));
        let shared = Arc::new(Shared::open(facts, table, SyncArc::clone(&registry)));
        let memory = Memory::new(usize::MAX);
        let output = Reader { memory, spans: Vec::new(), takes_any: false, room: 1 << 20 };
        let executor = Executor::new(shared, participant, counters);
        let session = executor.session(None);
        let mut world = World { executor, session, output, hog, pins: Vec::new(), registry };
        let (key, value) = ("hog", vec![b'h'; 1 << 18]);
        (0..40).for_each(|number| world.set(&format!("{key}{number}"), &value));
        world
    }

    fn drive(&mut self, input: &[u8]) -> (Progress, Vec<u8>) {
        let mut budget = Budget { requests: u32::MAX, cost: Cost::Any };
        let (session, output) = (&mut self.session, &mut self.output);
        let progress = self.executor.drive(session, input, NOW, &mut budget, output);
        self.executor.participant().quiesce();
        (progress, self.output.memory.take())
    }

    fn set(&mut self, key: &str, value: &[u8]) {
        let head = format!("set {key} 0 0 {}\r\n", value.len()).into_bytes();
        let (progress, reply) = self.drive(&[&head, value, &b"\r\n"[..]].concat());
        assert_eq!((progress.verdict, &reply[..]), (Verdict::NeedInput, &b"STORED\r\n"[..]));
    }

    /// As much is pinned as may be.
    fn fill_up(&mut self) {
        for number in 0..40 {
            let (key, table) = (format!("hog{number}"), Arc::clone(self.hog.table()));
            let item = self.hog.get(key.as_bytes(), table.hash(key.as_bytes()), NOW).unwrap();
            if !self.hog.may_pin(&item) {
                return;
            }
            self.pins.push(self.hog.pin(&item).unwrap());
        }
        unreachable!("it is more than may be pinned");
    }

    fn empty(&mut self) {
        self.pins.drain(..).for_each(|pin| self.hog.unpin(pin));
        self.hog.quiesce();
    }

    /// After the end: every pin has been counted back.
    fn assert_all_is_back(mut self) {
        self.empty();
        self.executor.abandon(&mut self.session);
        self.output.spans.drain(..).for_each(|span| self.executor.take_span_back(span));
        self.executor.participant().quiesce();
        assert_eq!(self.executor.table().pinned_balance(), 0);
    }
}

fn found(key: &str, value: &[u8]) -> Vec<u8> {
    [format!("VALUE {key} 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}

/// A list of keys stops before the first value that must wait, and goes on there.
#[test]
fn a_list_goes_on_where_it_had_to_wait() {
    let mut world = World::new();
    let (small, copied, large) = (vec![1; 100], vec![2; 60_000], vec![3; 70_000]);
    for (key, value) in [("small", &small), ("copied", &copied), ("large", &large)] {
        world.set(key, value);
    }
    world.fill_up();
    let input = b"get small copied none large small\r\nget large\r\n";
    let (progress, reply) = world.drive(input);
    assert_eq!(progress.verdict, Verdict::SpansFull);
    assert!(reply == [found("small", &small), found("copied", &copied)].concat());
    assert!(world.output.spans.is_empty());
    // Whatever is tried in vain meanwhile is not seen.
    let rest = &input[progress.consumed..];
    let (again, reply) = world.drive(rest);
    assert_eq!((again.verdict, reply.len()), (Verdict::SpansFull, 0));
    let counted = |metrics: [Metric; 4]| metrics.map(|metric| world.registry.sum(metric));
    use Metric::{CmdGet, GetHits, GetMisses, TouchHits};
    assert_eq!(counted([CmdGet, GetHits, GetMisses, TouchHits]), [3, 2, 1, 0]);
    world.empty();
    let (last, reply) = world.drive(&rest[again.consumed..]);
    assert_eq!(last.verdict, Verdict::NeedInput);
    let wanted = [found("large", &large), found("small", &small), b"END\r\n".to_vec()];
    assert!(reply == [wanted.concat(), found("large", &large), b"END\r\n".to_vec()].concat());
    assert_eq!(world.registry.sum(CmdGet), 6);
    world.assert_all_is_back();
}

#[test]
fn what_must_wait_is_sent_all_the_same_to_who_takes_any() {
    let mut world = World::new();
    let large = vec![3; 70_000];
    world.set("large", &large);
    world.fill_up();
    // It would be gone at once.
    assert_eq!(world.drive(b"gat -1 large\r\n").0.verdict, Verdict::SpansFull);
    assert_eq!(world.registry.sum(Metric::TouchHits), 0);
    world.output.takes_any = true;
    // All that was seen of it was the head of the list.
    let (progress, reply) = world.drive(b" large\r\n");
    assert_eq!(progress.verdict, Verdict::NeedInput);
    assert!(reply == [found("large", &large), b"END\r\n".to_vec()].concat());
    assert_eq!(world.registry.sum(Metric::TouchHits), 1);
    world.assert_all_is_back();
}

/// Neither is copied what there is no room for.
#[test]
fn a_value_is_copied_only_into_the_room_there_is() {
    let mut world = World::new();
    world.set("k", &[2; 20_000]);
    world.fill_up();
    world.output.room = 19_999;
    assert_eq!(world.drive(b"get k\r\n").0.verdict, Verdict::SpansFull);
    world.output.room += 1;
    let (progress, reply) = world.drive(b" k\r\n");
    assert_eq!((progress.verdict, progress.consumed), (Verdict::NeedInput, 4));
    assert!(reply == [found("k", &[2; 20_000]), b"END\r\n".to_vec()].concat());
    assert!(world.output.spans.is_empty());
    world.assert_all_is_back();
}

fn packet(opcode: u8, extras: &[u8], key: &[u8]) -> Vec<u8> {
    let short = |len: usize| u8::try_from(len).unwrap();
    let (extras_bytes, body_bytes) = (short(extras.len()), short(extras.len() + key.len()));
    let head = [0x80, opcode, 0, short(key.len()), extras_bytes, 0, 0, 0, 0, 0, 0, body_bytes];
    [&head[..], &[0; 12], extras, key].concat()
}

/// Runs of lookups, and what touches as it looks up.
#[test]
fn packets_are_shown_again_too() {
    for touches in [false, true] {
        let mut world = World::new();
        let large = vec![3; 70_000];
        world.set("large", &large);
        world.set("small", b"v");
        world.session = Session::of(Protocol::Binary);
        world.fill_up();
        let (small, noop) = (packet(0x0c, b"", b"small"), packet(0x0a, b"", b""));
        let late = match touches {
            // Where it would be gone at once.
            true => packet(0x1d, &2_592_001_u32.to_be_bytes(), b"large"),
            false => packet(0x0c, b"", b"large"),
        };
        let input = [&small[..], &late, &noop].concat();
        let (progress, first) = world.drive(&input);
        assert_eq!((progress.verdict, progress.consumed), (Verdict::SpansFull, small.len()));
        assert!(first.ends_with(b"smallv"));
        assert_eq!(world.registry.sum(Metric::Requests), 43);
        for _ in 0..3 {
            let (again, reply) = world.drive(&input[progress.consumed..]);
            assert_eq!((again.verdict, again.consumed, reply.len()), (Verdict::SpansFull, 0, 0));
        }
        assert_eq!(world.registry.sum(Metric::Requests), 43);
        world.empty();
        let (last, reply) = world.drive(&input[progress.consumed..]);
        assert_eq!(last.verdict, Verdict::NeedInput);
        let body_bytes = 4 + 70_000 + if touches { 0 } else { 5 };
        assert!(reply.len() == 24 + body_bytes + 24 && reply[..reply.len() - 24].ends_with(&large));
        let hits = [Metric::GetHits, Metric::TouchHits].map(|metric| world.registry.sum(metric));
        assert_eq!(hits, if touches { [1, 1] } else { [2, 0] });
        world.assert_all_is_back();
    }
}

/// A token to make a newer value is given once: not to who is told to wait.
#[test]
fn what_waits_has_won_nothing_yet() {
    let mut world = World::new();
    let large = vec![3; 70_000];
    world.set("large", &large);
    world.set("plain", &large);
    assert_eq!(world.drive(b"md large I\r\n").1, b"HD\r\n");
    world.fill_up();
    let hits = world.registry.sum(Metric::GetHits);
    for _ in 0..2 {
        let (progress, reply) = world.drive(b"mg large v t T90\r\nmg plain v\r\n");
        assert_eq!((progress.verdict, progress.consumed), (Verdict::SpansFull, 0));
        assert_eq!((reply.len(), world.registry.sum(Metric::GetHits)), (0, hits));
        let (progress, reply) = world.drive(b"mg plain v\r\n");
        assert_eq!((progress.verdict, progress.consumed, reply.len()), (Verdict::SpansFull, 0, 0));
    }
    world.empty();
    let (_, reply) = world.drive(b"mg large v t T90\r\nmg plain v\r\n");
    let value = |head: &str| [head.as_bytes(), &large, b"\r\n"].concat();
    assert!(reply == [value("VA 70000 t-1 X W\r\n"), value("VA 70000\r\n")].concat());
    assert_eq!(world.registry.sum(Metric::GetHits), hits + 1);
    assert_eq!(world.registry.sum(Metric::TouchHits), 1);
    world.assert_all_is_back();
}
