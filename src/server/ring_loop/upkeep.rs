//! What happens at every tick, and the end: timeouts, deaf listeners, draining.

use crate::base::clock::Now;
use crate::base::metrics::Metric;
use crate::base::slots::SlotId;
use crate::net::close::CloseReason;
use crate::net::connection::{Connection, Event, Held, Recall, Receive};
use crate::net::progress::FAIR_BYTES;
use crate::net::throttle::{Level, Quota, ticks_of_seconds};
use crate::server::fleet::Fleet;
use crate::server::service::Service;
use crate::sys::ring::{Hardships, Ring};
use crate::sys::thread::Meter;

use super::RingLoop;

/// Connections still there this long after the start of draining are closed as they are.
const DRAIN_S: u32 = 5;

/// Connections that one tick looks at, at most: the look must stay short however many there are.
pub(super) const LOOKS_PER_TICK: usize = 4096;

/// So many are looked at in every tick. Of more, each once a second, which is as exact as any limit
/// is, up to 16,384 of a ring, and of more than that as many a second: their places are not in the
/// cache of an idle server, and take it longer than all else.
const LOOKS_MIN: usize = 1024;

/// There are so many ticks a second.
const TICKS_PER_ROUND: usize = 4;

/// Most unsent bytes of one connection while there is plenty of memory.
pub(super) const OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// What is to be done about a connection that has waited for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overdue {
    No,
    /// Nothing, as a worker has its batch.
    Away,
    /// It is to be seen whether it reads.
    Sounded,
    Closed(CloseReason),
}

#[derive(Debug)]
pub(super) struct Upkeep {
    /// Unsent bytes from which on a connection's peer must read first.
    pub(super) output_bytes: usize,
    /// How short memory was when this turn began.
    pub(super) level: Level,
    /// What a connection may bring at a time, and hold before it is received from no more.
    pub(super) quota: Quota,
    /// True while listeners should wait before they are armed again.
    pub(super) accept_failed: bool,
    /// True while nobody is let in for want of memory.
    pub(super) accepts_paused: bool,
    pub(super) draining_since: Option<Now>,
    /// The tick since which connections need more than there is.
    pub(super) needy_since: Option<u64>,
    /// True when nobody is received from until who keeps all buffers goes on, or is gone; and the
    /// tick since which that is so.
    pub(super) is_parched: bool,
    pub(super) parched_since: Option<u64>,
    /// The tick in which somebody had to go for that last.
    pub(super) relieved_at: u64,
    /// The tick since which somebody waits to be sent a large value.
    pub(super) spanless_since: Option<u64>,
    /// The second in which a tick came last.
    second: u64,
    /// Connections over Unix sockets.
    pub(super) locals: usize,
    /// Where the next tick goes on looking.
    pub(super) cursor: usize,
    /// What was told last of what befell the ring.
    hardships: Hardships,
    meter: Option<Meter>,
}

impl Default for Upkeep {
    fn default() -> Upkeep {
        Upkeep {
            output_bytes: OUTPUT_BYTES_MAX,
            level: Level::Calm,
            quota: Quota::CALM,
            accept_failed: false,
            accepts_paused: false,
            draining_since: None,
            needy_since: None,
            is_parched: false,
            parched_since: None,
            relieved_at: 0,
            spanless_since: None,
            second: 0,
            locals: 0,
            cursor: 0,
            hardships: Hardships::default(),
            meter: None,
        }
    }
}

/// How many of so many places one tick looks at.
fn looks(places: usize) -> usize {
    places.div_ceil(TICKS_PER_ROUND).clamp(LOOKS_MIN, LOOKS_PER_TICK).min(places)
}

impl Upkeep {
    /// Moves on by the places of one tick; says where it was. That is so whether anybody is looked
    /// at or not: who must give memory back is looked for from there on, too.
    fn pass(&mut self, places: usize) -> usize {
        let next = (self.cursor + looks(places)) % places.max(1);
        std::mem::replace(&mut self.cursor, next)
    }

    /// True when the fleet has begun to drain and this ring has not.
    pub(super) fn must_drain<S>(&self, fleet: &Fleet<S>) -> bool {
        self.draining_since.is_none() && fleet.is_draining()
    }
}

impl<R: Ring, V: Service> RingLoop<R, V> {
    /// Arms the listeners that are not, and shares the memory for replies out.
    pub(super) fn hear(&mut self) {
        self.let_in();
        let may_accept = !self.upkeep.accept_failed && !self.is_deaf_on_purpose();
        if !self.deaf.is_empty() && may_accept && !self.fleet.is_draining() {
            for listener in self.deaf.drain(..) {
                self.ring.accept(listener);
            }
        }
        self.share_memory();
        if self.upkeep.accepts_paused {
            self.pause_or_resume_accepts();
        }
    }

    /// True while listeners are not armed for want of memory, or of places.
    pub(super) fn is_deaf_on_purpose(&self) -> bool {
        self.upkeep.accepts_paused || self.queue.is_closed()
    }

    pub(super) fn tick(&mut self) {
        let second = self.now.seconds();
        self.is_new_second = std::mem::replace(&mut self.upkeep.second, second) != second;
        if self.is_new_second {
            self.try_to_accept();
            self.return_idle_loans();
            self.return_places();
            self.forget_watches();
        }
        self.tell_fare();
        self.pause_or_resume_accepts();
        self.relieve();
        self.resume_paused();
        self.tell_hardships();
        let places = self.connections.places();
        let start = self.upkeep.pass(places);
        if self.is_anybody_overdue() {
            (1..=looks(places)).for_each(|step| self.look_at((start + step) % places));
        }
    }

    fn tell_fare(&mut self) {
        // Made here, as the meter is of the thread that makes it.
        let fare = self.upkeep.meter.get_or_insert_with(Meter::of_this_thread).read();
        self.counters.set(Metric::BusyUs, fare.busy_us);
        self.counters.set(Metric::WaitedUs, fare.waited_us);
        self.counters.set(Metric::Processor, fare.processor as u64);
        self.counters.set(Metric::BusyAtUs, self.read_ns / 1000);
    }

    /// True when a look might find something to do, so that a crowd of idle connections costs
    /// nothing: who holds nothing, and is sent no large value, cannot stall, and only Unix sockets,
    /// and who waits for its rate, must be asked for their end.
    pub(super) fn is_anybody_overdue(&self) -> bool {
        self.heap.active() > 0
            || self.spanless.sends > 0
            || self.upkeep.locals > 0
            || !self.lanes.is_empty()
            || self.settings.idle_timeout_s > 0
            || self.upkeep.draining_since.is_some()
    }

    fn tell_hardships(&mut self) {
        let now = self.ring.hardships();
        let was = std::mem::replace(&mut self.upkeep.hardships, now);
        for (metric, now, was) in [
            (Metric::CompletionsOverflowed, now.overflows, was.overflows),
            (Metric::RingBusy, now.busy, was.busy),
            (Metric::KernelNoMemory, now.no_memory, was.no_memory),
            (Metric::ZeroCopySends, now.zero_copy_sends, was.zero_copy_sends),
            (Metric::ZeroCopyCopied, now.zero_copy_copied, was.zero_copy_copied),
        ] {
            self.counters.add(metric, now - was);
        }
    }

    /// Closes a connection that has waited too long for its peer.
    fn look_at(&mut self, place: usize) {
        let index = u32::try_from(place).expect("a slot has a u32 index");
        let Some((id, connection)) = self.connections.at(index) else { return };
        if self.is_gone(connection) {
            return self.end(id, Event::Abort, CloseReason::Broken);
        }
        self.watch(id);
        let mut overdue = self.overdue(id);
        let is_for_silence = match overdue {
            Overdue::Closed(reason) => reason != CloseReason::Draining,
            Overdue::Sounded => true,
            Overdue::Away | Overdue::No => false,
        };
        if is_for_silence && self.has_taken(id, u64::from(FAIR_BYTES)) {
            overdue = self.overdue(id);
        }
        match overdue {
            Overdue::Closed(reason) => return self.end(id, Event::Abort, reason),
            Overdue::Sounded => self.recall(id, Recall::Sounded),
            Overdue::Away => return,
            Overdue::No => {}
        }
        self.sound(id);
    }

    /// True of who waits for its rate and has gone: nothing is received that would tell.
    fn is_gone(&self, connection: &Connection<V::Session>) -> bool {
        connection.held == Held::Rate && self.ring.is_gone(&connection.socket)
    }

    fn overdue(&self, id: SlotId) -> Overdue {
        let (now, settings) = (self.now, &self.settings);
        let Some(connection) = self.connections.get(id) else { return Overdue::Away };
        let read_ticks = self.ticks_since_it_read(id);
        let silent = connection.silent_ticks(now).min(read_ticks);
        let slow = connection.slow_ticks(now).min(read_ticks);
        let stalled = connection.is_stalled() && slow >= settings.throttle.stall_ticks();
        let idle_timeout_s = settings.idle_timeout_s;
        // Who waits for something else than its peer is not to blame for it.
        let is_served = matches!(connection.held, Held::No | Held::Output)
            && !self.service.is_watching(&connection.session);
        let idle = idle_timeout_s > 0 && is_served && silent >= ticks_of_seconds(idle_timeout_s);
        let drain_ticks = u64::from(ticks_of_seconds(DRAIN_S));
        let since = self.upkeep.draining_since;
        let drained = since.is_some_and(|since| now.ticks - since.ticks >= drain_ticks);
        let keeps = || connection.recall != Recall::No || self.outdated_bytes(connection) > 0;
        match (stalled, idle, drained) {
            _ if connection.held == Held::Away => Overdue::Away,
            (true, _, _) => Overdue::Closed(CloseReason::Stalled),
            (false, true, _) => Overdue::Closed(CloseReason::Idle),
            (false, false, true) => Overdue::Closed(CloseReason::Draining),
            (false, false, false) if silent >= settings.throttle.stall_ticks() && keeps() => {
                Overdue::Sounded
            }
            (false, false, false) => Overdue::No,
        }
    }

    /// Ends the receive of a connection whose end may not have been told; it is armed anew at once.
    fn sound(&mut self, id: SlotId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.sound(self.now) {
            connection.receive = Receive::Cancelling;
            self.ring.cancel_receive(id);
        }
    }

    /// Begins to drain when the fleet does: nobody is let in, and who has all replies goes.
    pub(super) fn drain_if_told(&mut self) {
        if !self.upkeep.must_drain(&self.fleet) {
            return;
        }
        self.upkeep.draining_since = Some(self.now);
        for listener in 0..self.settings.listeners {
            if !self.deaf.contains(&listener) {
                self.ring.cancel_accept(listener);
            }
            self.ring.stop_listening(listener);
        }
        // Who waits for a place is told.
        self.let_in();
        self.let_all_go_by_rate();
        let ids: Vec<_> = self.connections.ids().collect();
        for id in ids {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            connection.ended = true;
            if connection.can_execute() {
                self.make_runnable(id);
            }
            self.list(id);
        }
    }

    /// True when nobody is left. The accepts must have ended too: an armed one holds its listener
    /// open a while longer than the process lives, and the next server could not have the address.
    pub fn has_ended(&self) -> bool {
        self.upkeep.draining_since.is_some()
            && self.connections.is_empty()
            && self.deaf.len() == self.settings.listeners as usize
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn all_places_have_their_turn() {
        let mut upkeep = Upkeep::default();
        assert_eq!([upkeep.pass(0), upkeep.pass(5), upkeep.pass(5)], [0, 0, 0]);
        let places = LOOKS_MIN + 7;
        let starts = [upkeep.pass(places), upkeep.pass(places), upkeep.pass(places)];
        assert_eq!(starts, [0, LOOKS_MIN, LOOKS_MIN - 7]);
    }
}
