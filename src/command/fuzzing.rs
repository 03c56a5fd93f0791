//! Requests against a small real table, in any cuts: the body of the fuzz targets of connections,
//! and what tests drive sessions with.

use std::cell::RefCell;
use std::sync::Arc;

use super::session::State;
use super::{
    Auth, Budget, Cost, Executor, Facts, Fixed, Rusage, Session, Shared, Switches, Verdict,
};
use crate::base::clock::{Now, TICKS_PER_S};
use crate::base::hash::KeyHasher;
use crate::base::limits::HEAD_BYTES_MAX;
use crate::base::metrics::{Metric, Registry};
use crate::base::output::Memory;
use crate::base::protocol::Protocol;
use crate::base::sync::Arc as SyncArc;
use crate::base::users::{Roster, Users};
use crate::protocol::binary::{Opcode, PACKET_HEAD_BYTES};
use crate::store::{StorePlan, Table};

/// Header, key and value of the largest item of a rig.
pub const ITEM_BYTES_MAX: usize = 192 << 10;

const MEMORY_BYTES: u64 = 64 << 20;

/// What is spoken at the listeners of a rig.
pub const LISTENERS: [Protocol; 3] = [Protocol::Negotiating, Protocol::Ascii, Protocol::Binary];

/// Calls of `drive` that may in a row do nothing that can be seen.
const IDLE_CALLS_MAX: u32 = 4;

/// The same, if each of them takes something off its budget: it goes through what is not shown.
const VAIN_CALLS_MAX: u32 = 10_000;

/// How input, output and budget are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// All at once.
    Whole,
    /// Byte by byte, reply by reply, request by request.
    Bytewise,
    /// As a seed says.
    Seeded(u64),
}

/// How a conversation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Open,
    Closed,
    Shutdown,
    /// More was replied than there was room for.
    Full,
}

/// One connection to one table, with a clock that only a caller moves.
#[derive(Debug)]
pub struct Rig {
    executor: Executor,
    session: Session,
    now: Now,
    /// What was sent and not consumed.
    waiting: Vec<u8>,
    end: End,
    shared: Arc<Shared>,
}

impl Rig {
    /// # Panics
    /// If there is no memory for the table.
    pub fn new(shutdown: bool) -> Rig {
        Rig::switched(Switches { shutdown, ..Switches::default() })
    }

    /// A rig as started with some options.
    ///
    /// # Panics
    /// If there is no memory for the table.
    pub fn switched(switches: Switches) -> Rig {
        Rig::with(switches, true, None)
    }

    /// A rig whose table refuses what it has no room for.
    ///
    /// # Panics
    /// If there is no memory for the table.
    pub fn without_eviction() -> Rig {
        Rig::with(Switches::default(), false, None)
    }

    /// A rig that lets in who says that it is one of these users, as a file has them.
    ///
    /// # Panics
    /// If there is no memory for the table, or no user.
    pub fn guarded(users: &[u8], sasl: bool) -> Rig {
        let users = Roster::new(Users::parse(users).expect("users"));
        Rig::with(Switches::default(), true, Some(Auth { users, sasl }))
    }

    fn with(switches: Switches, evict: bool, auth: Option<Auth>) -> Rig {
        let plan = StorePlan {
            favor: crate::store::Favor::Objects,
            memory_bytes: MEMORY_BYTES,
            item_bytes_max: ITEM_BYTES_MAX,
            evict,
            threads: 1,
            hasher: KeyHasher::with_seed(1),
            loan_bytes: None,
        };
        let facts = Facts {
            pid: 7,
            version: "0.0.0",
            threads: 1,
            connections_max: 1024,
            switches,
            settings: settings(),
            fixed: Fixed::default(),
            rusage: Rusage::default,
        };
        let registry = SyncArc::new(Registry::default());
        let table = Arc::new(Table::open(plan).expect("memory for a small table"));
        let counters = registry.counters("rig");
        let participant = table.participant(SyncArc::clone(&counters));
        let protocols = LISTENERS.to_vec();
        let shared = Shared { auth, protocols, ..Shared::open(facts, table, registry) };
        let shared = Arc::new(shared);
        let executor = Executor::new(Arc::clone(&shared), participant, counters);
        Rig {
            session: executor.session(None),
            executor,
            now: Now { ticks: 100 * TICKS_PER_S, epoch_unix_s: 1_700_000_000 },
            waiting: Vec::new(),
            end: End::Open,
            shared,
        }
    }

    pub fn pass_ticks(&mut self, ticks: u64) {
        self.now.ticks += ticks;
    }

    pub fn now(&self) -> Now {
        self.now
    }

    pub fn end(&self) -> End {
        self.end
    }

    /// True when the peer is told what happens.
    pub fn is_watching(&self) -> bool {
        Executor::is_watching(&self.session)
    }

    /// What executes, for sessions that are no connections.
    pub fn executor(&mut self) -> &mut Executor {
        &mut self.executor
    }

    pub fn counted(&self, metric: Metric) -> u64 {
        self.shared.registry.sum(metric)
    }

    /// Loses the connection, wherever it is, and opens another.
    pub fn reconnect(&mut self) {
        self.executor.abandon(&mut self.session);
        self.session = self.executor.session(None);
        self.waiting.clear();
        self.end = End::Open;
        self.executor.participant().quiesce();
    }

    /// Loses the connection, and opens another in which this is spoken.
    pub fn reconnect_in(&mut self, protocol: Protocol) {
        self.reconnect();
        self.session = Session::of(protocol);
    }

    /// Declares all items dead.
    pub fn flush(&mut self) {
        let now = self.now;
        self.executor.participant().flush(None, now);
    }

    /// Sends bytes, and stops when so many requests are paid for. Returns what is replied until
    /// then.
    ///
    /// # Panics
    /// If there are no more than so many.
    pub fn stop_after(&mut self, requests: u32, bytes: &[u8]) -> Vec<u8> {
        let mut budget = Budget { requests, cost: Cost::Any };
        let mut output = Memory::new(usize::MAX);
        let (session, now) = (&mut self.session, self.now);
        let progress = self.executor.drive(session, bytes, now, &mut budget, &mut output);
        assert_eq!(progress.verdict, Verdict::Yield);
        output.take()
    }

    /// Sends bytes, and returns what is replied to them.
    ///
    /// # Panics
    /// If `drive` breaks its contract.
    pub fn send(&mut self, bytes: &[u8], manner: Manner) -> Vec<u8> {
        self.send_within(bytes, manner, usize::MAX)
    }

    /// As `send`, until more than so many bytes have been replied.
    ///
    /// # Panics
    /// If `drive` breaks its contract.
    pub fn send_within(&mut self, bytes: &[u8], manner: Manner, limit: usize) -> Vec<u8> {
        let mut cutter = Cutter::new(manner);
        let mut replies = Vec::new();
        let mut shown = self.waiting.len();
        self.waiting.extend_from_slice(bytes);
        let mut start = 0;
        while self.end == End::Open {
            shown = (shown + cutter.piece()).min(self.waiting.len() - start);
            let shown_now = (start, shown, limit);
            let consumed = self.exhaust(shown_now, &mut cutter, &mut replies);
            start += consumed;
            // Once replies have no room, all of it is consumed, shown or not.
            shown = shown.saturating_sub(consumed);
            if start + shown == self.waiting.len() {
                break;
            }
        }
        self.waiting.drain(..start);
        self.executor.participant().quiesce();
        replies
    }

    /// Does what is done where there is no room for replies; says how much was consumed.
    fn go_on_without_room(&mut self, start: usize) -> usize {
        let mut budget = Budget { requests: u32::MAX, cost: Cost::Any };
        let mut output = Memory::new(0);
        let (session, rest) = (&mut self.session, &self.waiting[start..]);
        let progress = self.executor.drive(session, rest, self.now, &mut budget, &mut output);
        assert!(output.written().is_empty());
        progress.consumed
    }

    /// Drives until more input is needed, or more was replied than the limit; says how much was
    /// consumed.
    fn exhaust(
        &mut self,
        (start, shown, limit): (usize, usize, usize),
        cutter: &mut Cutter,
        replies: &mut Vec<u8>,
    ) -> usize {
        let mut consumed = 0;
        let mut cost = cutter.cost();
        let (mut idle_calls, mut vain_calls) = (0, 0);
        loop {
            let left = &self.waiting[start + consumed..start + shown];
            // Not all that is there need be shown.
            let input = &left[..cutter.prefix(left.len())];
            let requests = cutter.requests();
            let mut budget = Budget { requests, cost };
            // Full is what is more than the limit.
            let room = limit.saturating_add(1) - replies.len();
            let mut output = Memory::new(cutter.output_limit().min(room));
            let session = &mut self.session;
            let progress = self.executor.drive(session, input, self.now, &mut budget, &mut output);
            assert!(progress.consumed <= input.len());
            assert!(budget.requests <= requests);
            let wrote = !output.written().is_empty();
            replies.extend(output.take());
            consumed += progress.consumed;
            if replies.len() > limit {
                self.end = End::Full;
                return consumed + self.go_on_without_room(start + consumed);
            }
            let spent = budget.requests < requests;
            if wrote || progress.consumed > 0 {
                (idle_calls, vain_calls) = (0, 0);
                cost = cutter.cost();
            } else if spent && vain_calls < VAIN_CALLS_MAX {
                vain_calls += 1;
            } else {
                idle_calls += 1;
                assert!(idle_calls < IDLE_CALLS_MAX, "{progress:?} leads nowhere");
            }
            match progress.verdict {
                Verdict::NeedInput if input.len() < left.len() => cutter.show_all(),
                Verdict::NeedInput => {
                    assert!(input.len() - progress.consumed < HEAD_BYTES_MAX);
                    return consumed;
                }
                Verdict::OutputFull => assert!(cutter.is_limited()),
                Verdict::Yield => assert_eq!(budget.requests, 0),
                Verdict::Defer => cost = Cost::Any,
                Verdict::Watch => {}
                Verdict::WouldWait => unreachable!("one thread waits for nobody"),
                Verdict::SpansFull => unreachable!("plain memory takes no spans"),
                Verdict::Close => {
                    self.end = End::Closed;
                    return consumed;
                }
                Verdict::Shutdown => {
                    self.end = End::Shutdown;
                    return consumed;
                }
            }
        }
    }
}

/// What a server shows that was started without options, as far as it matters here.
fn settings() -> Vec<(&'static str, String)> {
    let plain = |name| (name, "0".into());
    let tuned = [
        "slab_automove",
        "slab_automove_ratio",
        "slab_automove_window",
        "lru_crawler",
        "lru_crawler_sleep",
        "lru_crawler_tocrawl",
        "lru_segmented",
        "hot_lru_pct",
        "warm_lru_pct",
        "hot_max_factor",
        "warm_max_factor",
        "temp_lru",
        "temporary_ttl",
    ];
    let mut rows = vec![("maxbytes", MEMORY_BYTES.to_string()), plain("verbosity")];
    rows.extend(tuned.map(plain));
    rows
}

/// Decides where to cut.
#[derive(Debug)]
struct Cutter {
    manner: Manner,
    show_all: bool,
}

impl Cutter {
    fn new(manner: Manner) -> Cutter {
        Cutter { manner, show_all: false }
    }

    /// One of `choices`; the first for `Whole`, the last for `Bytewise`.
    fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        match &mut self.manner {
            Manner::Whole => choices[0],
            Manner::Bytewise => choices[choices.len() - 1],
            Manner::Seeded(state) => {
                // xorshift64*: any generator would do that needs no state but a word.
                let mut word = (*state).max(1);
                word ^= word >> 12;
                word ^= word << 25;
                word ^= word >> 27;
                *state = word;
                let high = word.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
                choices[usize::try_from(high).unwrap_or(0) % choices.len()]
            }
        }
    }

    fn piece(&mut self) -> usize {
        self.choose(&[usize::MAX >> 1, 5000, 100, 20, 7, 3, 2, 1])
    }

    fn prefix(&mut self, len: usize) -> usize {
        if std::mem::take(&mut self.show_all) {
            return len;
        }
        match self.choose(&[1, 1, 1, 2, 1]) {
            1 => len,
            part => len.div_ceil(part),
        }
    }

    /// The next prefix is everything: otherwise the input might never suffice.
    fn show_all(&mut self) {
        self.show_all = true;
    }

    fn requests(&mut self) -> u32 {
        self.choose(&[u32::MAX, 20, 3, 2, 1])
    }

    fn cost(&mut self) -> Cost {
        self.choose(&[Cost::Any, Cost::Bounded])
    }

    fn output_limit(&mut self) -> usize {
        self.choose(&[usize::MAX, 9000, 100, 10, 1])
    }

    fn is_limited(&self) -> bool {
        self.manner != Manner::Whole
    }
}

thread_local! {
    static OPEN: RefCell<Option<(Rig, Rig)>> = const { RefCell::new(None) };
    static GUARDED: RefCell<Option<(Rig, Rig)>> = const { RefCell::new(None) };
}

/// Who is let in by the rigs of those who have to say who they are.
pub const USERS: &[u8] = b"foo:bar\n";

/// What was said, but for the rows of statistics that cuts may change.
fn without_chance(replies: &[u8]) -> Vec<u8> {
    without_rows(replies, is_chance)
}

/// What was said, but for some rows of statistics.
pub fn without_rows(replies: &[u8], is_left_out: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    if replies.first() == Some(&0x81) {
        let told = packets(replies).filter(|packet| !row_name(packet).is_some_and(&is_left_out));
        return told.flatten().copied().collect();
    }
    let is_left_out = |line: &[u8]| {
        let row =
            line.strip_prefix(b"STAT ").and_then(|row| row.split(|byte| *byte == b' ').next());
        row.is_some_and(&is_left_out)
    };
    let lines = replies.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !is_left_out(line)).flatten().copied().collect()
}

/// Statistics of what has expired or was flushed, and is there until somebody comes across it.
const OF_DEAD: [&[u8]; 7] = [
    b"bytes",
    b"curr_items",
    b"get_expired",
    b"get_flushed",
    b"expired_unfetched",
    b"reclaimed",
    b"crawler_reclaimed",
];

/// Statistics of how room was made: a value that comes in pieces takes it elsewhere.
const OF_ROOM: [&[u8]; 9] = [
    b"evictions",
    b"evicted_unfetched",
    b"evicted_active",
    b"direct_reclaims",
    b"moves_to_cold",
    b"moves_to_warm",
    b"moves_within_lru",
    b"promoted",
    b"ghost_hits",
];

/// Statistics of all size classes together.
const OF_CLASSES: [&[u8]; 2] = [b"active_slabs", b"total_malloced"];

/// True of what these are, of rows of one class or key, and of numbers of pages: values that come
/// in pieces lie apart from others.
pub fn is_chance(row_name: &[u8]) -> bool {
    let is_of_one = row_name.contains(&b':');
    let is_of_pages = row_name.windows(4).any(|part| part == b"page");
    let lists = [&OF_DEAD[..], &OF_ROOM, &OF_CLASSES];
    is_of_one || is_of_pages || lists.iter().any(|rows| rows.contains(&row_name))
}

/// What commands count, whoever cut them.
const OF_COMMANDS: [Metric; 20] = [
    Metric::CmdGet,
    Metric::CmdSet,
    Metric::CmdFlush,
    Metric::CmdTouch,
    Metric::CmdMeta,
    Metric::GetHits,
    Metric::GetMisses,
    Metric::DeleteMisses,
    Metric::DeleteHits,
    Metric::IncrMisses,
    Metric::IncrHits,
    Metric::DecrMisses,
    Metric::DecrHits,
    Metric::CasMisses,
    Metric::CasHits,
    Metric::CasBadval,
    Metric::TouchHits,
    Metric::TouchMisses,
    Metric::TotalItems,
    Metric::AuthErrors,
];

/// Replies of the binary protocol, one by one.
fn packets(replies: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = replies;
    std::iter::from_fn(move || {
        let body = rest.get(8..12)?.try_into().map_or(0, u32::from_be_bytes);
        let len = PACKET_HEAD_BYTES.saturating_add(body as usize).min(rest.len());
        let (packet, behind) = rest.split_at(len);
        rest = behind;
        Some(packet)
    })
}

/// The name of a row, if the packet is one.
fn row_name(packet: &[u8]) -> Option<&[u8]> {
    let is_row = packet.get(1) == Some(&(Opcode::Stat as u8));
    let bytes = u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?);
    packet.get(PACKET_HEAD_BYTES..)?.get(..bytes.into()).filter(|_| is_row)
}

/// As `replies_do_not_depend_on_cuts`, where peers have to say who they are.
///
/// # Panics
/// If the replies differ, or if `drive` breaks its contract.
pub fn replies_to_strangers_do_not_depend_on_cuts(data: &[u8]) {
    GUARDED.with_borrow_mut(|pair| {
        let rig = || Rig::guarded(USERS, true);
        compare(pair.get_or_insert_with(|| (rig(), rig())), data);
    });
}

/// The body of a fuzz target: sends the bytes after the first eight to two equal servers, to one
/// of them as cut by the first eight, and compares.
///
/// # Panics
/// If the replies differ, or if `drive` breaks its contract.
pub fn replies_do_not_depend_on_cuts(data: &[u8]) {
    OPEN.with_borrow_mut(|pair| {
        compare(pair.get_or_insert_with(|| (Rig::new(false), Rig::new(false))), data);
    });
}

fn compare((whole, cut): &mut (Rig, Rig), data: &[u8]) {
    let (seed, bytes) = match data.split_first_chunk::<8>() {
        Some((seed, bytes)) => (u64::from_le_bytes(*seed), bytes),
        None => (0, data),
    };
    for rig in [&mut *whole, &mut *cut] {
        rig.reconnect();
        rig.flush();
        rig.pass_ticks(1);
    }
    let manner = if seed == 0 { Manner::Bytewise } else { Manner::Seeded(seed) };
    let wanted = without_chance(&whole.send(bytes, Manner::Whole));
    let got = without_chance(&cut.send(bytes, manner));
    if wanted != got {
        let place = wanted.iter().zip(&got).take_while(|(one, other)| one == other).count();
        let tail = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[place..bytes.len().min(place + 200)]).into_owned()
        };
        panic!("{manner:?}: differ at {place}: {:?}, {:?}", tail(&wanted), tail(&got));
    }
    assert_eq!(whole.end, cut.end);
    // Here, and not when some later input asks for them.
    for metric in OF_COMMANDS {
        assert_eq!(whole.counted(metric), cut.counted(metric), "{manner:?}: {}", metric.name());
    }
    for rig in [&*whole, &*cut] {
        let [gets, hits, misses] =
            [Metric::CmdGet, Metric::GetHits, Metric::GetMisses].map(|metric| rig.counted(metric));
        assert_eq!(gets, hits + misses);
    }
    let is_idle = |session: &Session| {
        use State::{Binary, Idle, Opening};
        matches!(session.state, Opening(_) | Idle | Binary(_))
    };
    assert_eq!(is_idle(&whole.session), is_idle(&cut.session));
    if whole.end == End::Open {
        assert_eq!(whole.waiting, cut.waiting);
    }
}
