//! One run: one thread and its connections, in whatever world they live.
//!
//! ```text
//!   warm-up        measured                       drained
//!   |--------------|------------------------------|-----------|
//!   0              from: first mark               to: second  end: every reply has come,
//!                                                 mark        or the time-out has passed
//! ```
//!
//! Throughput and processor time are those between the marks. Latencies are those of the requests
//! that started between the marks, whenever they were answered: in an open loop also of those that
//! were due and could not be sent.

use std::io;
use std::ops::Range;

use crate::client::{Client, Findings, Orders, Pace};
use crate::clock::duration_ns;
use crate::connection::{Sent, Span};
use crate::failure::Failure;
use crate::schedule::{Agenda, Timetable};
use crate::tally::{Mark, Tally};
use crate::workload::{Request, Verb, Workload};
use crate::world::{Interest, Ready, World};

/// Bytes received at a time.
const BUFFER_BYTES: usize = 256 * 1024;
/// No wait is longer, so that time-outs are noticed.
const WAIT_NS_MAX: u64 = 50_000_000;

/// Where requests come from.
pub(crate) enum Source {
    /// Sets of every key in turn.
    Fill(Range<u64>),
    Mix {
        left: u64,
    },
}

impl Source {
    fn next(&mut self, workload: &mut Workload) -> Option<Request> {
        match self {
            Source::Fill(keys) => Some(Request { verb: Verb::Set, key: keys.next()? }),
            Source::Mix { left } => {
                *left = left.checked_sub(1)?;
                Some(workload.draw())
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Source::Fill(keys) => keys.is_empty(),
            Source::Mix { left } => *left == 0,
        }
    }
}

/// The state of a run.
pub(crate) struct Run<'c, W: World> {
    client: &'c mut Client<W>,
    orders: Orders,
    source: Source,
    /// One for each connection of an open loop.
    timetables: Vec<Timetable>,
    agenda: Agenda,
    tally: Tally,
    /// Which latencies count.
    span: Span,
    /// From here on nothing new starts.
    stop_ns: u64,
    /// Requests without a reply, on all connections.
    outstanding: u64,
    /// When a reply last came, or a request went out that nothing was waiting before.
    last_news_ns: u64,
    buffer: Vec<u8>,
    batch: Vec<u8>,
}

impl<'c, W: World> Run<'c, W> {
    pub(crate) fn new(
        client: &'c mut Client<W>,
        orders: Orders,
        source: Source,
    ) -> io::Result<Run<'c, W>> {
        let tally = Tally::new().map_err(io::Error::other)?;
        let now_ns = client.world.now_ns();
        Ok(Run {
            client,
            orders,
            source,
            timetables: Vec::new(),
            agenda: Agenda::default(),
            tally,
            span: Span { from_ns: u64::MAX, to_ns: u64::MAX },
            stop_ns: u64::MAX,
            outstanding: 0,
            last_news_ns: now_ns,
            buffer: vec![0; BUFFER_BYTES],
            batch: Vec::new(),
        })
    }

    pub(crate) fn go(mut self) -> io::Result<Findings> {
        let warm_up_ns = duration_ns(self.orders.bounds.warm_up);
        if warm_up_ns > 0 {
            let mut now_ns = self.now_ns();
            self.begin(now_ns);
            let end_ns = now_ns + warm_up_ns;
            while now_ns < end_ns && self.is_worth_waiting(now_ns) {
                now_ns = self.turn(now_ns, end_ns)?;
            }
        }
        let from = self.mark()?;
        self.span.from_ns = from.ns;
        self.stop_ns = match self.orders.bounds.duration {
            Some(duration) => from.ns + duration_ns(duration),
            None => u64::MAX,
        };
        self.span.to_ns = self.stop_ns;
        if let (Source::Mix { left }, Some(requests)) =
            (&mut self.source, self.orders.bounds.requests)
        {
            let part = self.client.share.part(requests);
            *left = (part.end - part.start).saturating_sub(self.outstanding);
        }
        if warm_up_ns == 0 {
            self.begin(from.ns);
        }
        let mut now_ns = self.now_ns();
        while now_ns < self.stop_ns && !self.is_answered() && self.is_worth_waiting(now_ns) {
            now_ns = self.turn(now_ns, self.stop_ns)?;
        }
        let to = self.mark()?;
        self.stop_ns = self.stop_ns.min(to.ns);
        self.drain()?;
        let lost = self.client.connections.iter().filter(|c| c.is_none()).count();
        let used = to.client.since(from.client);
        let busy_ns = used.total_ns + used.waited_ns;
        let busiest_share = busy_ns as f64 / (to.ns - from.ns).max(1) as f64;
        Ok(Findings { from, to, tally: self.tally, lost, busiest_share })
    }

    /// Sends the first requests; an open loop counts from `now_ns`.
    fn begin(&mut self, now_ns: u64) {
        if let Pace::Open { rate, arrivals, seed } = self.orders.pace {
            let share = self.client.share;
            let table = |own| {
                let place = (share.connection(own), share.connections);
                Timetable::new(arrivals, rate, place, now_ns, seed)
            };
            self.timetables.extend((0..self.client.connections.len()).map(table));
        }
        for index in 0..self.client.connections.len() {
            self.refill(index, now_ns);
        }
    }

    fn now_ns(&self) -> u64 {
        self.client.world.now_ns()
    }

    fn mark(&self) -> io::Result<Mark> {
        Mark::take(self.now_ns(), self.tally.counts, self.orders.server_pid)
    }

    /// Nothing is left to ask, and all that was asked is answered.
    fn is_answered(&self) -> bool {
        self.outstanding == 0 && self.source.is_empty()
    }

    /// Something that is being waited for may still come.
    fn is_worth_waiting(&self, now_ns: u64) -> bool {
        let patience_ns = duration_ns(self.orders.bounds.timeout);
        let silent_ns = now_ns.saturating_sub(self.last_news_ns);
        let alive = self.client.connections.iter().any(Option::is_some);
        alive && (self.outstanding == 0 || silent_ns < patience_ns)
    }

    /// Waits for the replies to all that was due before the stop.
    fn drain(&mut self) -> io::Result<()> {
        let mut now_ns = self.now_ns();
        let deadline_ns = now_ns + duration_ns(self.orders.bounds.timeout);
        loop {
            let due = self.agenda.next_due_ns().is_some_and(|due_ns| due_ns < self.stop_ns);
            let idle = self.outstanding == 0 && (!due || self.source.is_empty());
            if idle || now_ns >= deadline_ns || !self.is_worth_waiting(now_ns) {
                break;
            }
            now_ns = self.turn(now_ns, deadline_ns)?;
        }
        for index in 0..self.client.connections.len() {
            if let Some(connection) = &mut self.client.connections[index] {
                let waiting = connection.outstanding() as u64;
                if waiting > 0 {
                    connection.record(waiting, now_ns, self.span, &mut self.tally);
                    self.lose(index, Failure::Unanswered, "no reply in time");
                }
            }
        }
        self.count_unsent(now_ns);
        Ok(())
    }

    /// What was due and never sent counts as unanswered, with the time it has waited so far.
    fn count_unsent(&mut self, now_ns: u64) {
        for table in &mut self.timetables {
            while table.due_ns() < self.stop_ns
                && self.source.next(&mut self.client.workload).is_some()
            {
                let due_ns = table.due_ns();
                if due_ns >= self.span.from_ns {
                    self.tally.latency_ns.saturating_record(now_ns.saturating_sub(due_ns));
                    self.tally.failures.add(Failure::Unanswered, 1);
                }
                table.take();
            }
        }
    }

    /// Sends what is due at `now_ns`, waits for what comes, at most until `limit_ns`, and handles
    /// it. Returns the time after that.
    fn turn(&mut self, now_ns: u64, limit_ns: u64) -> io::Result<u64> {
        while let Some(index) = self.agenda.pop_due(now_ns) {
            if let Some(connection) = &mut self.client.connections[index] {
                connection.listed = false;
                // Not `now_ns`: the connections before this one took their time.
                self.refill(index, self.now_ns());
            }
        }
        let until_ns = limit_ns.min(now_ns.saturating_add(WAIT_NS_MAX));
        let until_ns = self.agenda.next_due_ns().map_or(until_ns, |due_ns| due_ns.min(until_ns));
        for at in 0..self.client.world.wait(until_ns)? {
            let ready = self.client.world.ready(at);
            self.serve(ready);
        }
        Ok(self.now_ns())
    }

    fn serve(&mut self, Ready { index, readable, writable }: Ready) {
        let Some(Some(connection)) = self.client.connections.get_mut(index) else { return };
        if writable {
            match connection.flush(&mut self.tally) {
                Ok(Sent::All) => self.watch(index, Interest::Read),
                Ok(Sent::Part) => {}
                Err(e) => return self.lose(index, Failure::Closed, &e.to_string()),
            }
        }
        if !readable {
            return;
        }
        let Some(connection) = &mut self.client.connections[index] else { return };
        let end = match connection.receive(&mut self.buffer, &mut self.tally) {
            Ok(Some(end)) => end,
            Ok(None) => return,
            Err(e) => return self.lose(index, Failure::Closed, &e.to_string()),
        };
        let now_ns = self.client.world.now_ns();
        let verify = self.orders.verify.then_some(&self.client.workload);
        let replies = connection.take_replies(&self.buffer[..end], verify, &mut self.tally);
        let Ok(replies) = replies else {
            return self.lose(index, Failure::Framing, "the bytes are no reply");
        };
        if replies > 0 {
            connection.record(replies, now_ns, self.span, &mut self.tally);
            self.outstanding -= replies;
            self.last_news_ns = now_ns;
            if !connection.listed {
                connection.room_since_ns = now_ns;
                self.refill(index, now_ns);
            }
        }
    }

    /// Sends what the pace allows now.
    fn refill(&mut self, index: usize, now_ns: u64) {
        if self.outstanding == 0 {
            self.last_news_ns = now_ns;
        }
        match self.orders.pace {
            Pace::Closed { window } if now_ns < self.stop_ns => self.refill_closed(index, window),
            Pace::Closed { .. } => {}
            Pace::Open { .. } => self.refill_open(index, now_ns),
        }
    }

    fn refill_closed(&mut self, index: usize, window: bool) {
        let Some(connection) = &mut self.client.connections[index] else { return };
        if !window && connection.outstanding() > 0 {
            return;
        }
        let mut count = 0;
        self.batch.clear();
        while connection.outstanding() < self.orders.depth {
            let Some(request) = self.source.next(&mut self.client.workload) else { break };
            self.client.workload.append(request, &mut self.batch);
            connection.expect(request);
            count += 1;
        }
        if count > 0 {
            connection.started(self.client.world.now_ns(), count);
            self.outstanding += count;
            self.send(index);
        }
    }

    fn refill_open(&mut self, index: usize, now_ns: u64) {
        let Some(connection) = &mut self.client.connections[index] else { return };
        let table = &mut self.timetables[index];
        self.batch.clear();
        while connection.outstanding() < self.orders.depth {
            let due_ns = table.due_ns();
            if due_ns >= self.stop_ns {
                break;
            }
            if due_ns > now_ns {
                self.agenda.add(due_ns, index);
                connection.listed = true;
                break;
            }
            let Some(request) = self.source.next(&mut self.client.workload) else { break };
            table.take();
            self.client.workload.append(request, &mut self.batch);
            connection.expect(request);
            connection.started(due_ns, 1);
            self.outstanding += 1;
            if (self.span.from_ns..self.span.to_ns).contains(&due_ns) {
                let lag_ns = now_ns - due_ns.max(connection.room_since_ns).min(now_ns);
                self.tally.lag_ns.saturating_record(lag_ns);
            }
        }
        if !self.batch.is_empty() {
            self.send(index);
        }
    }

    fn send(&mut self, index: usize) {
        let Some(connection) = &mut self.client.connections[index] else { return };
        match connection.send(&self.batch, &mut self.tally) {
            Ok(Sent::All) => {}
            Ok(Sent::Part) => self.watch(index, Interest::ReadAndWrite),
            Err(e) => self.lose(index, Failure::Closed, &e.to_string()),
        }
    }

    fn watch(&mut self, index: usize, interest: Interest) {
        let Some(connection) = &self.client.connections[index] else { return };
        if let Err(e) = self.client.world.watch(connection.socket(), index, interest) {
            self.lose(index, Failure::Closed, &e.to_string());
        }
    }

    fn lose(&mut self, index: usize, failure: Failure, text: &str) {
        let Some(mut connection) = self.client.connections[index].take() else { return };
        self.outstanding -= connection.outstanding() as u64;
        connection.fail(failure, text, &mut self.tally);
        // Closing the socket takes it out of the epoll.
    }
}
