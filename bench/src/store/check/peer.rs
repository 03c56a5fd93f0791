//! One thread of the check: it works on the table, and looks closely at everything it gets.
//!
//! An owned key is written and deleted by one thread alone, so that its versions come in order and
//! that thread knows exactly what it should find; all read it. Shared keys are written by cas,
//! which brings their versions into order; a shared record that is gone is made anew by add.

use ringcached::base::clock::{Clock, Expiry, Now, TICKS_PER_S};
use ringcached::base::hash::KeyHash;
use ringcached::store::{Condition, Item, ItemHead, Outcome, Participant, Refusal};
use ringcached_load::values::mix;

use super::known::{Facts, Fault, Findings, Known, index};
use super::record::{Record, WINS_MAX};

const TURN_MAX: u64 = 16;
/// One turn in so many is followed by a while offline.
const OFFLINE: u64 = 256;
/// One hit in so many is read through a pin, with quiescent states in between.
const PINNED: u64 = 100;
const PINNED_ROUNDS: u32 = 3;
/// Bytes of a value that come in one piece, as from a socket.
const PIECE_BYTES: usize = 16 << 10;
const LARGE_BYTES: usize = 64 << 10;
/// A tenth of the owned keys gets half of the attention.
const HOT_PART: u64 = 10;
/// One owned key in so many never gets a TTL, and is touched by everybody.
const IMMORTAL: u64 = 16;
const TTL_S_MAX: u64 = 3;
/// Nobody lives to see it expire.
const FAR_S: u64 = 100_000;

/// What a thread remembers of a shared key: its own wins since a birth.
#[derive(Clone, Copy, Debug, Default)]
struct Won {
    born: u64,
    wins: u64,
}

/// A small generator; the same in every run.
struct Dice(u64);

pub struct Peer<'k> {
    one: Participant,
    known: &'k Known,
    me: u64,
    dice: Dice,
    won: Vec<Won>,
    value: Vec<u8>,
    read: Vec<u8>,
    pub findings: Findings,
}

impl Dice {
    fn throw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        (mix(self.0) >> 8) % below
    }
}

/// Keys have different lengths.
pub fn key_bytes(key: u64, out: &mut [u8; 40]) -> &[u8] {
    let bytes = key.to_le_bytes();
    out[..8].copy_from_slice(&bytes);
    &out[..8 + usize::from(mix(key).to_le_bytes()[0] % 33)]
}

impl<'k> Peer<'k> {
    pub fn new(one: Participant, known: &'k Known, me: u64, seed: u64) -> Peer<'k> {
        Peer {
            one,
            known,
            me,
            dice: Dice(mix(seed ^ mix(me))),
            won: vec![Won::default(); index(known.shared_keys())],
            value: Vec::with_capacity(1 << 20),
            read: Vec::with_capacity(1 << 20),
            findings: Findings::default(),
        }
    }

    /// Does some work and lets go of everything.
    pub fn turn(&mut self, now: Now) {
        for _ in 0..=self.dice.throw(TURN_MAX) {
            match self.dice.throw(100) {
                0..=44 => {
                    let key = self.any_key();
                    self.get(key, now);
                }
                45..=74 => {
                    let key = self.own_key();
                    self.set(key, now);
                }
                75..=82 => self.touch(now),
                83..=87 => self.delete(now),
                _ => {
                    let key = self.dice.throw(self.known.shared_keys());
                    self.replace(key, now);
                }
            }
        }
        self.one.quiesce();
        if self.dice.throw(OFFLINE) == 0 {
            self.one.offline();
            std::thread::yield_now();
            self.one.online();
        }
    }

    fn any_key(&mut self) -> u64 {
        let owned = self.known.keys() - self.known.shared_keys();
        match self.dice.throw(20) {
            0 => self.dice.throw(self.known.shared_keys()),
            1..=9 => self.known.shared_keys() + self.dice.throw((owned / HOT_PART).max(1)),
            _ => self.known.shared_keys() + self.dice.throw(owned),
        }
    }

    /// A key of this thread.
    fn own_key(&mut self) -> u64 {
        loop {
            let key = self.any_key();
            if self.owns(key) {
                return key;
            }
        }
    }

    fn owns(&self, key: u64) -> bool {
        let number = key.checked_sub(self.known.shared_keys());
        number.is_some_and(|number| number % self.known.threads == self.me)
    }

    fn hash(&self, key: u64) -> KeyHash {
        self.one.table().hash(key_bytes(key, &mut [0; 40]))
    }

    pub fn get(&mut self, key: u64, now: Now) {
        self.findings.gets += 1;
        let (floor, hash) = (self.known.of(key).floor(), self.hash(key));
        let Ok(item) = self.one.get(key_bytes(key, &mut [0; 40]), hash, now) else { return };
        self.findings.hits += 1;
        let expiry = item.expiry();
        if self.dice.throw(PINNED) == 0 {
            self.get_pinned(key, now, floor);
            return;
        }
        self.read.clear();
        item.runs().for_each(|run| self.read.extend_from_slice(run));
        self.check(key, floor, expiry, now);
    }

    /// Reads as a slow peer does, while the others go on.
    fn get_pinned(&mut self, key: u64, now: Now, floor: u64) {
        let hash = self.hash(key);
        let Ok(item) = self.one.peek(key_bytes(key, &mut [0; 40]), hash, now) else { return };
        let expiry = item.expiry();
        let Some(pin) = self.one.pin(&item) else { return };
        self.findings.pins += 1;
        for _ in 0..PINNED_ROUNDS {
            self.one.quiesce();
            std::thread::yield_now();
        }
        self.read.clear();
        while self.read.len() < pin.value_bytes() {
            let at = self.read.len();
            self.read.extend_from_slice(self.one.pinned(&pin, at));
            self.one.quiesce();
        }
        self.one.unpin(pin);
        self.check(key, floor, expiry, now);
    }

    /// Judges the value that was read, and what it says. None when it is not even right.
    fn check(&mut self, key: u64, floor: u64, expiry: Expiry, now: Now) -> Option<Record> {
        let shared = key < self.known.shared_keys();
        let layout = if shared { self.known.shared } else { self.known.owned };
        self.findings.bytes_checked += self.read.len() as u64;
        let facts = self.known.of(key);
        let Some(record) = layout.read(key, &self.read) else {
            let start = &self.read[..self.read.len().min(24)];
            self.findings.fault(Fault::Wrong, key, &format!("it begins {start:?}"));
            return None;
        };
        self.check_version(key, record.version, floor, facts);
        facts.raise(record.version);
        if expiry.is_due(now) {
            self.findings.fault(Fault::Expired, key, &format!("{expiry:?} at {now:?}"));
        }
        if shared {
            self.check_wins(key, &record);
        } else if self.owns(key) && !is_immortal(key) {
            let set_last = facts.expiry();
            if set_last != expiry {
                let detail = format!("{expiry:?}, not {set_last:?}");
                self.findings.fault(Fault::LostTouch, key, &detail);
            }
        }
        Some(record)
    }

    fn check_version(&mut self, key: u64, version: u64, floor: u64, facts: &Facts) {
        let issued = facts.issued();
        let detail = || format!("version {version}, {floor} was known, {issued} issued");
        if version < floor {
            self.findings.fault(Fault::Stale, key, &detail());
        }
        if version > issued {
            self.findings.fault(Fault::Unborn, key, &detail());
        }
    }

    fn check_wins(&mut self, key: u64, record: &Record) {
        let won = self.won[index(key)];
        // This thread cannot have won anything in a record that it has never seen.
        let wins = if won.born == record.born { won.wins } else { 0 };
        let found = record.wins[index(self.me)];
        if found != wins {
            let detail = format!("{found} wins, not {wins}, since {}", record.born);
            self.findings.fault(Fault::LostCas, key, &detail);
        }
        self.won[index(key)] = Won { born: record.born, wins: found };
    }

    /// Stores every key of its own once, which is more than fits.
    pub fn fill(&mut self, clock: &Clock) {
        for key in self.known.shared_keys()..self.known.keys() {
            if self.owns(key) {
                self.set(key, clock.now());
                self.one.quiesce();
            }
        }
    }

    fn set(&mut self, key: u64, now: Now) {
        let facts = self.known.of(key);
        let version = facts.issue();
        self.known.owned.write(&Record::owned(key, version), &mut self.value);
        let mortal = !is_immortal(key) && self.dice.throw(10) == 0;
        let ttl = 1 + self.dice.throw(TTL_S_MAX * TICKS_PER_S);
        let expiry = if mortal { Expiry::at_tick(now.ticks + ttl) } else { Expiry::NEVER };
        self.findings.sets += 1;
        self.findings.large_sets += u64::from(self.value.len() >= LARGE_BYTES);
        match self.store(key, expiry, Condition::Always, now) {
            Ok(Outcome::Stored { .. }) => {
                facts.raise(version);
                facts.set_expiry(expiry);
            }
            refused => self.findings.fault(Fault::Refused, key, &format!("set: {refused:?}")),
        }
    }

    /// Stores `value` under a key, in pieces if it is long.
    fn store(
        &mut self,
        key: u64,
        expiry: Expiry,
        condition: Condition,
        now: Now,
    ) -> Result<Outcome, Refusal> {
        let (mut space, hash) = ([0; 40], self.hash(key));
        let (key, value_bytes) = (key_bytes(key, &mut space), self.value.len());
        let head = ItemHead { key, hash, flags: 0, expiry, value_bytes, cas: None };
        let mut reservation = self.one.reserve(head, now)?;
        for piece in self.value.chunks(PIECE_BYTES) {
            if let Err(refusal) = self.one.fill(&mut reservation, piece, now) {
                self.one.abandon(reservation);
                return Err(refusal);
            }
            if value_bytes > PIECE_BYTES {
                self.one.quiesce();
            }
        }
        Ok(self.one.commit(reservation, condition, now))
    }

    fn touch(&mut self, now: Now) {
        let key = self.any_key();
        let (owned, facts) = (self.owns(key), self.known.of(key));
        // Others must not change what the owner remembers.
        if key < self.known.shared_keys() || !(owned || is_immortal(key)) {
            return;
        }
        self.findings.touches += 1;
        let ttl = match is_immortal(key) {
            true => FAR_S * TICKS_PER_S,
            false => 1 + self.dice.throw(TTL_S_MAX * TICKS_PER_S),
        };
        let expiry = Expiry::at_tick(now.ticks + ttl);
        let hash = self.hash(key);
        let mut space = [0; 40];
        let touched = self.one.touch(key_bytes(key, &mut space), hash, expiry, now);
        let found = touched.as_ref().map(Item::expiry);
        if let (Ok(found), true) = (found, owned) {
            facts.set_expiry(expiry);
            if found != expiry && !is_immortal(key) {
                let detail = format!("touched, yet {found:?} and not {expiry:?}");
                self.findings.fault(Fault::LostTouch, key, &detail);
            }
        }
    }

    fn delete(&mut self, now: Now) {
        self.findings.deletes += 1;
        if self.dice.throw(20) == 0 {
            let key = self.dice.throw(self.known.shared_keys());
            self.one.delete(key_bytes(key, &mut [0; 40]), self.hash(key), now);
            return;
        }
        let key = self.own_key();
        let facts = self.known.of(key);
        // A version that is never stored: whatever is seen after this was stored later.
        let nothing = facts.issue();
        self.one.delete(key_bytes(key, &mut [0; 40]), self.hash(key), now);
        facts.raise(nothing);
    }

    /// Replaces a shared record by the next one, or makes it anew.
    pub fn replace(&mut self, key: u64, now: Now) {
        let (facts, hash) = (self.known.of(key), self.hash(key));
        let floor = facts.floor();
        let Ok(item) = self.one.get(key_bytes(key, &mut [0; 40]), hash, now) else {
            self.bear(key, now);
            return;
        };
        let (cas, expiry) = (item.cas(), item.expiry());
        self.read.clear();
        item.runs().for_each(|run| self.read.extend_from_slice(run));
        let Some(mut next) = self.check(key, floor, expiry, now) else { return };
        if self.dice.throw(4) == 0 {
            self.one.quiesce();
            std::thread::yield_now();
        }
        self.findings.cas_tried += 1;
        next.version += 1;
        next.wins[index(self.me)] += 1;
        facts.announce(next.version);
        self.known.shared.write(&next, &mut self.value);
        match self.store(key, Expiry::NEVER, Condition::Cas(cas), now) {
            Ok(Outcome::Stored { .. }) => {
                self.findings.cas_won += 1;
                facts.raise(next.version);
                self.won[index(key)] = Won { born: next.born, wins: next.wins[index(self.me)] };
            }
            Ok(Outcome::Exists | Outcome::NotFound) => {}
            refused => self.findings.fault(Fault::Refused, key, &format!("cas: {refused:?}")),
        }
    }

    fn bear(&mut self, key: u64, now: Now) {
        let (facts, known) = (self.known.of(key), self.known);
        let Some(_birth) = known.birth(key) else { return };
        let born = facts.issue();
        let record = Record { key, version: born, born, wins: [0; WINS_MAX] };
        self.known.shared.write(&record, &mut self.value);
        match self.store(key, Expiry::NEVER, Condition::Absent, now) {
            Ok(Outcome::Stored { .. }) => {
                self.findings.born += 1;
                facts.raise(born);
                self.won[index(key)] = Won { born, wins: 0 };
            }
            Ok(Outcome::NotStored) => {}
            refused => self.findings.fault(Fault::Refused, key, &format!("add: {refused:?}")),
        }
    }
}

fn is_immortal(key: u64) -> bool {
    key.is_multiple_of(IMMORTAL)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringcached::base::metrics::Registry;
    use ringcached::store::Table;

    use super::*;
    use crate::store::local;

    const NOW: Now = Now { ticks: 3200, epoch_unix_s: 1_700_000_000 };
    const SHARED: u64 = 4;

    /// A key of thread 0 that may expire.
    const OWN: u64 = SHARED + 2;

    /// A table, and what is known of it.
    struct World {
        table: Arc<Table>,
        known: Known,
    }

    impl World {
        fn new(evict: bool) -> World {
            let table = local::table(8 << 20, 2, evict).unwrap();
            World { table, known: Known::new(2, SHARED, 1000, 100_000) }
        }

        fn participant(&self) -> Participant {
            self.table.participant(Registry::default().counters("test"))
        }

        fn peer(&self, me: u64) -> Peer<'_> {
            Peer::new(self.participant(), &self.known, me, 7)
        }

        /// Stores what it likes, past the check.
        fn plant(&self, key: u64, value: &[u8]) {
            let mut space = [0; 40];
            let key = key_bytes(key, &mut space);
            let outcome = local::store(&mut self.participant(), key, value, NOW).unwrap();
            assert!(outcome.is_stored());
        }

        /// Stores a version of an owned key past the check, and returns its value.
        fn plant_version(&self, key: u64, version: u64) -> Vec<u8> {
            let mut value = Vec::new();
            self.known.owned.write(&Record::owned(key, version), &mut value);
            self.plant(key, &value);
            value
        }
    }

    #[track_caller]
    fn assert_fault(peer: &Peer<'_>, fault: Fault) {
        assert_eq!((peer.findings.faults[fault as usize], peer.findings.faults()), (1, 1));
        let first = peer.findings.first_fault.as_ref().unwrap();
        assert!(first.starts_with(fault.label()), "{first}");
    }

    #[test]
    fn a_planted_wrong_value_is_found() {
        let world = World::new(true);
        let mut peer = world.peer(0);
        let mut value = world.plant_version(OWN, world.known.of(OWN).issue());
        peer.get(OWN, NOW);
        assert_eq!((peer.findings.hits, peer.findings.faults()), (1, 0));
        *value.last_mut().unwrap() ^= 0x40;
        world.plant(OWN, &value);
        peer.get(OWN, NOW);
        assert_fault(&peer, Fault::Wrong);
    }

    #[test]
    fn planted_versions_that_cannot_be_are_found() {
        let world = World::new(true);
        for (issued, raised, planted, fault) in [(5, 5, 4, Fault::Stale), (5, 0, 6, Fault::Unborn)]
        {
            let mut peer = world.peer(0);
            world.known.of(OWN).announce(issued);
            world.known.of(OWN).raise(raised);
            world.plant_version(OWN, planted);
            peer.get(OWN, NOW);
            assert_fault(&peer, fault);
        }
    }

    #[test]
    fn a_cas_that_is_not_in_a_later_value_is_lost() {
        let world = World::new(true);
        let mut peer = world.peer(0);
        (0..3).for_each(|_| peer.replace(1, NOW));
        assert_eq!((peer.findings.born, peer.findings.cas_won), (1, 2));
        peer.get(1, NOW);
        assert_eq!(peer.findings.faults(), 0);
        let mut record = world.known.shared.read(1, &peer.read).unwrap();
        (record.version, record.wins[0], record.wins[1]) = (record.version + 1, 1, 1);
        world.known.of(1).announce(record.version);
        let mut value = Vec::new();
        world.known.shared.write(&record, &mut value);
        world.plant(1, &value);
        peer.get(1, NOW);
        assert_fault(&peer, Fault::LostCas);
    }

    #[test]
    fn a_touch_behind_its_back_is_found() {
        let world = World::new(true);
        let mut peer = world.peer(0);
        world.plant_version(OWN, world.known.of(OWN).issue());
        let one = world.participant();
        let mut space = [0; 40];
        let key = key_bytes(OWN, &mut space);
        one.touch(key, world.table.hash(key), Expiry::at_tick(NOW.ticks + 9), NOW).unwrap();
        peer.get(OWN, NOW);
        assert_fault(&peer, Fault::LostTouch);
    }

    #[test]
    fn refusals_are_found() {
        let world = World::new(false);
        let mut peer = world.peer(0);
        for _ in 0..1_000_000 {
            if peer.findings.faults() > 0 {
                break;
            }
            // Large enough that they are soon too many.
            let version = world.known.of(OWN).issue();
            world.known.owned.write(&Record::owned(OWN, version), &mut peer.value);
            peer.value.resize(100_000, 0);
            let key = OWN + 2 * peer.findings.sets;
            peer.findings.sets += 1;
            if let Err(refusal) = peer.store(key, Expiry::NEVER, Condition::Always, NOW) {
                assert_eq!(refusal, Refusal::NoMemory);
                peer.replace(0, NOW);
                (0..100).for_each(|_| peer.set(OWN, NOW));
            }
        }
        assert!(peer.findings.faults[Fault::Refused as usize] > 0);
        assert_eq!(peer.findings.faults(), peer.findings.faults[Fault::Refused as usize]);
    }

    #[test]
    fn two_threads_find_nothing_in_a_good_table() {
        let world = World::new(true);
        let turns = |me: u64| {
            let mut peer = world.peer(me);
            (0..4000).for_each(|turn| peer.turn(Now { ticks: NOW.ticks + turn / 50, ..NOW }));
            peer.findings
        };
        let (one, two) = std::thread::scope(|scope| {
            let one = scope.spawn(|| turns(0));
            (turns(1), one.join().unwrap())
        });
        let mut all = one;
        all.merge(two);
        assert_eq!(all.faults(), 0, "{:?}", all.first_fault);
        assert!(all.work().iter().all(|(_, count)| *count > 0), "{:?}", all.work());
    }
}
