//! Limits for each peer address at work: who waits, and who goes on when. The rules are in
//! `net::rate`.
//!
//! ```text
//!   runnable --in debt--> lane of its bucket, in order --moment come--> runnable, and passes
//!                         the moment is fixed when the first of the lane before it has gone on
//! ```
//!
//! Each ring has a lane for each bucket that its connections wait for. A lane is given the moment
//! at which its bucket is no longer in debt, and keeps it, whatever others spend meanwhile: so no
//! lane waits for ever, in whichever order rings look. When the moment has come, the first of the
//! lane goes on with one batch, whoever has spent what, and the lane is given its next one after
//! that batch is paid for; a worker's batch is when it comes home, and its lane does not wait for
//! that longer than for the next turn. Invariant: every lane has either a moment or a place among
//! those that are to have one.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::IpAddr;

use crate::base::metrics::Metric;
use crate::base::slots::SlotId;
use crate::net::connection::Held;
use crate::net::peers::{BucketId, Peers};
use crate::net::rate::{GRAIN_NS, Served};
use crate::server::batch::Batch;
use crate::server::service::Service;
use crate::sys::ring::Ring;

use super::RingLoop;

/// A ring does not wake for less time than that.
const WAKE_NS_MIN: u64 = 1_000_000;

/// Names of connections that are gone leave the lanes when there are so many more than others.
const STALE_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<BucketId, VecDeque<SlotId>>,
    /// The moments of lanes.
    due: BinaryHeap<Reverse<(u64, BucketId)>>,
    /// Lanes that are to be given a moment, and who has gone on from them last.
    undated: BTreeMap<BucketId, Option<SlotId>>,
    /// Names in all lanes.
    names: usize,
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// True when a connection of this bucket that does not pass has to wait: others of it do, or it
    /// is in debt.
    pub(super) fn is_to_wait(&self, bucket: BucketId, peers: &Peers, now_ns: u64) -> bool {
        self.lanes.contains_key(&bucket) || peers.due_ns(bucket) > now_ns
    }

    fn push(&mut self, bucket: BucketId, id: SlotId) {
        self.names += 1;
        match self.lanes.entry(bucket) {
            Entry::Occupied(lane) => lane.into_mut().push_back(id),
            Entry::Vacant(place) => {
                place.insert(VecDeque::from([id]));
                self.undated.insert(bucket, None);
            }
        }
    }

    /// Gives a moment to every lane that has none, unless who went on from it is yet to pay.
    fn date(&mut self, due_ns: impl Fn(BucketId) -> u64, is_to_pay: impl Fn(SlotId) -> bool) {
        let due = &mut self.due;
        self.undated.retain(|bucket, last| {
            let waits = last.is_some_and(&is_to_pay);
            if !waits {
                due.push(Reverse((due_ns(*bucket), *bucket)));
            }
            waits
        });
    }

    /// Gives a moment to a lane from which this one went on, who has paid.
    fn date_one(&mut self, bucket: BucketId, id: SlotId, due_ns: u64) {
        if self.undated.get(&bucket) == Some(&Some(id)) {
            self.undated.remove(&bucket);
            self.due.push(Reverse((due_ns, bucket)));
        }
    }

    /// When the first lane goes on, of those that have a moment.
    fn first_ns(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// Who goes on now, if somebody does: the first in a lane who still waits.
    fn pop(&mut self, now_ns: u64, waits: impl Fn(SlotId) -> bool) -> Option<SlotId> {
        while self.first_ns().is_some_and(|due_ns| due_ns <= now_ns) {
            let Some(Reverse((_, bucket))) = self.due.pop() else { break };
            let Some(lane) = self.lanes.get_mut(&bucket) else { continue };
            let mut first = None;
            while first.is_none()
                && let Some(id) = lane.pop_front()
            {
                self.names -= 1;
                first = Some(id).filter(|id| waits(*id));
            }
            if lane.is_empty() {
                self.lanes.remove(&bucket);
            } else {
                self.undated.insert(bucket, first);
            }
            if first.is_some() {
                return first;
            }
        }
        None
    }

    /// Drops the names of those who wait no more. A lane that is empty then stays until its moment.
    fn forget(&mut self, connections: usize, waits: impl Fn(SlotId) -> bool) {
        if self.names > 2 * connections + STALE_MAX {
            self.lanes.values_mut().for_each(|lane| lane.retain(|id| waits(*id)));
            self.names = self.lanes.values().map(VecDeque::len).sum();
        }
    }
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// The bucket of one more connection from this address, where it is limited.
    pub(super) fn bucket(&self, address: IpAddr) -> Option<BucketId> {
        let seat = self.fleet.peers.as_ref()?.enter(address, self.read_ns)?;
        self.counters.add(Metric::RateForgotten, u64::from(seat.forgets));
        Some(seat.bucket)
    }

    /// True when a connection waits from now on, because its peer's address has had its share.
    pub(super) fn must_wait_for_rate(&mut self, id: SlotId) -> bool {
        let (Some(connection), Some(peers)) = (self.connections.get_mut(id), &self.fleet.peers)
        else {
            return false;
        };
        let Some(bucket) = connection.bucket else { return false };
        let passes = std::mem::take(&mut connection.passes);
        if passes || self.upkeep.draining_since.is_some() {
            return false;
        }
        if !self.lanes.is_to_wait(bucket, peers, self.read_ns) {
            return false;
        }
        connection.held = Held::Rate;
        connection.came_ns = self.read_ns;
        self.lanes.push(bucket, id);
        self.counters.bump(Metric::RateParks);
        self.counters.add(Metric::RateParked, 1);
        // Lossless: no target has a wider usize.
        self.counters.add(Metric::RateHeldBytes, connection.input.bytes() as u64);
        self.list(id);
        true
    }

    /// True when a connection would have to wait with what it brings now.
    pub(super) fn would_wait_for_rate(&self, id: SlotId) -> bool {
        let bucket = self.connections.get(id).and_then(|each| each.bucket);
        let peers = self.fleet.peers.as_ref();
        let would_wait = |(bucket, peers)| self.lanes.is_to_wait(bucket, peers, self.read_ns);
        bucket.zip(peers).is_some_and(would_wait)
    }

    /// Gives moments to lanes, before the ring may sleep. True when one has come already.
    pub(super) fn is_any_lane_due(&mut self) -> bool {
        let (false, Some(peers)) = (self.lanes.is_empty(), &self.fleet.peers) else { return false };
        let connections = &self.connections;
        let is_to_pay = |id| connections.get(id).is_some_and(|each| each.runnable);
        self.lanes.date(|bucket| peers.due_ns(bucket), is_to_pay);
        let Some(first_ns) = self.lanes.first_ns() else { return false };
        let wait_ns = first_ns.saturating_sub(self.read_ns);
        if wait_ns > 0 {
            self.ring.wake_after(wait_ns.clamp(WAKE_NS_MIN, GRAIN_NS));
        }
        wait_ns == 0
    }

    /// Lets those go on whose moment has come: one of each lane.
    pub(super) fn let_go_by_rate(&mut self) {
        if self.lanes.is_empty() {
            return;
        }
        let connections = &self.connections;
        let waits = |id| connections.get(id).is_some_and(|each| each.held == Held::Rate);
        let mut gone = Vec::new();
        while let Some(id) = self.lanes.pop(self.read_ns, waits) {
            gone.push(id);
        }
        self.lanes.forget(connections.len(), waits);
        for id in gone {
            self.let_go(id);
        }
    }

    /// A connection has paid: who comes next in its lane goes on in the same turn, if it may
    /// already.
    pub(super) fn go_on_by_rate(&mut self, bucket: Option<BucketId>, id: SlotId) {
        let (Some(bucket), Some(peers)) = (bucket, &self.fleet.peers) else { return };
        if !self.lanes.is_empty() {
            self.lanes.date_one(bucket, id, peers.due_ns(bucket));
            self.let_go_by_rate();
        }
    }

    fn let_go(&mut self, id: SlotId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let waited_ns = self.read_ns.saturating_sub(connection.came_ns);
        self.counters.sub(Metric::RateParked, 1);
        self.counters.add(Metric::RateWaitUs, waited_ns / 1000);
        connection.held = Held::No;
        connection.passes = true;
        // The silence was ours.
        connection.excuse(self.now);
        // What goes straight into its place is asked for by the step.
        if !connection.is_direct() {
            self.make_runnable(id);
        }
        self.list(id);
    }

    /// Lets everybody go on: who stops asks nobody to wait.
    pub(super) fn let_all_go_by_rate(&mut self) {
        let lanes = std::mem::take(&mut self.lanes);
        for id in lanes.lanes.into_values().flatten() {
            if self.connections.get(id).is_some_and(|each| each.held == Held::Rate) {
                self.let_go(id);
            }
        }
    }

    /// How many requests of a connection its address may have at a time.
    #[inline]
    pub(super) fn requests_by_rate(&self, bucket: Option<BucketId>) -> u32 {
        match (bucket, &self.fleet.peers) {
            (Some(bucket), Some(peers)) => peers.requests(bucket, self.read_ns),
            (None, _) | (_, None) => u32::MAX,
        }
    }

    /// Charges the address of a connection for what was served to it.
    pub(super) fn charge(&self, bucket: Option<BucketId>, requests: u32, bytes: usize) {
        if let (Some(bucket), Some(peers)) = (bucket, &self.fleet.peers) {
            // Lossless: no target has a wider usize.
            let served = Served { requests: requests.into(), bytes: bytes as u64 };
            peers.charge(bucket, served, self.read_ns);
        }
    }

    /// Charges for what a worker has served.
    pub(super) fn charge_batch(&self, batch: &Batch<V::Session>) {
        let Some(connection) = self.connections.get(batch.slot) else { return };
        if connection.bucket.is_some() {
            let read = connection.away_bytes().saturating_sub(batch.input.bytes());
            let bytes = read + batch.reply.unsent_bytes();
            self.charge(connection.bucket, batch.requests, bytes);
        }
    }
}

#[cfg(test)]
impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Gives the connection in this place an address.
    pub fn limit(&mut self, index: u32, address: IpAddr) {
        let bucket = self.bucket(address);
        let id = self.connections.at(index).unwrap().0;
        self.connections.get_mut(id).unwrap().bucket = bucket;
    }

    /// Who waits, lane by lane in order.
    pub fn waiting_for_rate(&self) -> Vec<SlotId> {
        let waits =
            |id: &SlotId| self.connections.get(*id).is_some_and(|each| each.held == Held::Rate);
        self.lanes.lanes.values().flatten().copied().filter(waits).collect()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::net::peers::Peers;
    use crate::net::rate::RateLimits;

    fn id(index: u32) -> SlotId {
        SlotId { index, generation: 0 }
    }

    fn buckets() -> [BucketId; 2] {
        let limits = RateLimits { requests_per_s: 1, ..RateLimits::default() };
        let peers = Peers::new(limits, 2).unwrap();
        ["1.1.1.1", "2.2.2.2"].map(|text| peers.enter(text.parse().unwrap(), 0).unwrap().bucket)
    }

    #[test]
    fn a_lane_goes_on_one_by_one_and_lanes_by_their_moments() {
        let ([one, two], mut lanes) = (buckets(), Lanes::default());
        for (bucket, index) in [(one, 1), (two, 2), (one, 3), (one, 4)] {
            lanes.push(bucket, id(index));
        }
        assert_eq!(lanes.pop(u64::MAX, |_| true), None, "nobody has a moment");
        let nobody = |_| false;
        lanes.date(|bucket| if bucket == one { 20 } else { 10 }, nobody);
        assert_eq!((lanes.first_ns(), lanes.pop(9, |_| true)), (Some(10), None));
        assert_eq!(lanes.pop(20, |_| true), Some(id(2)));
        assert!(!lanes.lanes.contains_key(&two));
        assert_eq!(lanes.pop(20, |_| true), Some(id(1)));
        assert_eq!(lanes.pop(20, |_| true), None, "the lane has no moment again yet");
        lanes.date(|_| 15, |last| last == id(1));
        lanes.date_one(one, id(2), 15);
        assert_eq!(lanes.pop(20, |_| true), None, "nor when it is not paid for");
        lanes.date_one(one, id(1), 15);
        assert_eq!(lanes.pop(20, |other| other != id(3)), Some(id(4)), "who is gone takes none");
        assert!(lanes.is_empty() && lanes.names == 0);
    }

    #[test]
    fn names_of_the_dead_do_not_pile_up() {
        let ([one, _], mut lanes) = (buckets(), Lanes::default());
        for index in 0..100_000 {
            lanes.push(one, id(index));
            lanes.date(|_| u64::MAX, |_| false);
            lanes.forget(1, |each| each == id(7) || each == id(index));
            assert!(lanes.names <= STALE_MAX + 3, "{}", lanes.names);
        }
        assert_eq!(lanes.due.len(), 1);
        lanes.forget(0, |_| false);
        lanes.due.clear();
        lanes.due.push(Reverse((0, one)));
        assert_eq!(lanes.pop(0, |id| id == self::id(7)), Some(id(7)));
    }
}
